"""What a model is that is no local transformer: a class that turns texts, or other values, into vectors.

Providers are such classes, and so are the user's own.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from jammi_duck.config.redaction import HIDDEN, has_secret, is_secret_name, public_url
from jammi_duck.config.trust import origins_of
from jammi_duck.encoder.specs import Spec
from jammi_duck.encoder.variables import is_placeholder, without_placeholders
from jammi_duck.errors import InputError, did_you_mean, enumerated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jammi_duck.encoder import Encoder, Encoders


# What stands before a token in a header.
_SCHEME = re.compile(r"^(Bearer|Basic|Token) ", re.IGNORECASE)


def _as_field(value: Any) -> Any:  # noqa: ANN401 - what a class has as a default
    """What a dataclass takes as the default: a copy of a list for each, and the default of pydantic's Field."""
    if type(value).__module__.startswith("pydantic"):
        factory, given = getattr(value, "default_factory", None), getattr(value, "default", None)
        if factory is not None:
            return dataclasses.field(default_factory=factory)
        is_none = type(given).__name__ == "PydanticUndefinedType"
        private = type(value).__name__ == "ModelPrivateAttr"
        return dataclasses.field() if is_none and not private else dataclasses.field(default=None if is_none else given)
    if isinstance(value, list | dict | set):
        return dataclasses.field(default_factory=lambda: copy.copy(value))
    return value


@typing.dataclass_transform(kw_only_default=True)
@dataclasses.dataclass(init=False, eq=False, repr=False)
class EmbeddingFunction:
    """Turns the values of a column into vectors. Subclass it for values of any kind, and register the class.

    The annotated attributes of a subclass are its arguments, given by keyword, as those of a dataclass. `create` makes
    one; what embedding tables record of it is `spec`: its id, and the arguments as they were given.

    Args:
        name: the name of the model.
        max_retries: how often a call that failed is made again.

    Example:
        >>> @register("lengths")
        ... class Lengths(TextEmbeddingFunction):
        ...     def ndims(self): return 2
        ...     def generate_embeddings(self, texts): return [[1.0, len(text)] for text in texts]
        >>> con.sql("SELECT embed('a text', 'lengths')")
    """

    # The id by which it was registered.
    id: ClassVar[str] = ""
    # Whether a function gets no key where its arguments have none.
    keyless_by_argument: ClassVar[bool] = False
    # Whether values may be bytes, numbers, lists or structs, and not only texts.
    takes_values: ClassVar[bool] = True
    # Whether `id:NAME` is only another word for the local model NAME.
    is_local: ClassVar[bool] = False

    name: str = ""
    max_retries: int = 7

    def __init_subclass__(cls, **options: Any) -> None:
        """Make a dataclass of each subclass; its default may be a list, and a field of pydantic's."""
        super().__init_subclass__(**options)
        for name, kind in vars(cls).get("__annotations__", {}).items():
            if name in vars(cls) and "ClassVar" not in str(kind):
                setattr(cls, name, _as_field(vars(cls)[name]))
        dataclasses.dataclass(init=False, eq=False, repr=False)(cls)

    def __init__(self, **arguments: Any) -> None:
        """A function with these arguments as they are; `create` also takes placeholders.

        Raises:
            InputError: an argument is not known, is missing, or has a value that it cannot have.
        """
        self._refuse_unknown(arguments)
        for field in dataclasses.fields(self):
            if field.name in arguments:
                value = arguments[field.name]
            elif _is_required(field):
                raise InputError(f"'{self.id or type(self).__name__}' needs the argument {field.name}")
            else:
                value = _default(field)
            setattr(self, field.name, value)
        retries = self.max_retries
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InputError(
                f"max_retries of '{self.id}' is {self.shown('max_retries')}; it must be a whole number of at least 0"
            )
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the arguments; nothing by default."""

    def shown(self, key: str) -> str:
        """An argument's value as an error shows it: a placeholder stays one, and a secret is hidden."""
        given = vars(self).get("_given", {}).get(key, vars(self).get(key))
        return HIDDEN if self.is_secret(key) and not is_placeholder(given) else public_url(repr(given))

    @classmethod
    def create(cls, **arguments: Any) -> Self:
        """A function with these arguments, in which `$var:name` and `${NAME}` stand for values of this process.

        Args:
            **arguments: as the class has them; see `arguments()`.

        Raises:
            InputError: an argument is not known, a placeholder stands for nothing, or a secret is given as it is.

        Example:
            >>> get_registry().set_var("key", "sk-…")
            >>> get_registry().get("openai").create(name="text-embedding-3-small", api_key="$var:key")
        """
        from jammi_duck.encoder.registry import get_registry

        registry = get_registry()
        made = registry.build(cls, arguments)
        registry.trust_places(origins_of(vars(made).get("_values", {})))
        return made

    @classmethod
    def sensitive_keys(cls) -> Sequence[str]:
        """The arguments that are secrets: they are never stored or shown."""
        return ("api_key",)

    @classmethod
    def is_secret(cls, key: str) -> bool:
        """Whether an argument is a secret: its class says so, or its name."""
        return key in cls.sensitive_keys() or is_secret_name(key)

    @classmethod
    def arguments(cls) -> Mapping[str, Any]:
        """The arguments with their defaults."""
        return {each.name: _default(each) for each in dataclasses.fields(cls) if not each.name.startswith("_")}

    @classmethod
    def passing_keys(cls) -> Sequence[str]:
        """The arguments that change how vectors are made, and not the vectors: retries, limits, keys."""
        return ("max_retries", *filter(cls.is_secret, cls.arguments()))

    @classmethod
    def unrecorded_keys(cls) -> Sequence[str]:
        """The arguments of one call that embedding tables do not record; none by default."""
        return ()

    @classmethod
    def surroundings(cls) -> Mapping[str, Any]:
        """Arguments that the environment gives, and that are stored; none by default."""
        return {}

    @classmethod
    def check(cls, arguments: Mapping[str, Any]) -> None:
        """Refuse arguments that are not known, and secrets that are given as they are.

        Raises:
            InputError: names the argument.
        """
        cls._refuse_unknown(arguments)
        for key, value in arguments.items():
            if key in cls.sensitive_keys() and value is not None and not is_placeholder(value):
                raise InputError(
                    f"{key} of '{cls.id}' is a secret, and arguments are stored with embedding tables: set it by "
                    f"get_registry().set_var('{key}', ...), and give {key}='$var:{key}', or leave it out and set it in "
                    f"[providers.{cls.id}] of your own jammi.toml"
                )
            for inner, text in _secrets(key, value):
                raise InputError(
                    f"{inner} of '{cls.id}' {text}, and arguments are stored with embedding tables: give a placeholder "
                    f"in its place, such as '$var:{inner}', and set it by get_registry().set_var('{inner}', ...)"
                )

    @classmethod
    def _refuse_unknown(cls, arguments: Mapping[str, Any]) -> None:
        known = cls.arguments()
        for key in arguments:
            if key not in known:
                near = did_you_mean(key, known) or ";"
                raise InputError(f"'{cls.id}' has no argument '{key}'{near} arguments: {enumerated(sorted(known))}")

    @property
    def given(self) -> Mapping[str, Any]:
        """The arguments as they were given, with their placeholders."""
        found: Mapping[str, Any] | None = vars(self).get("_given")
        if found is not None:
            return found
        return {key: vars(self)[key] for key, default in self.arguments().items() if vars(self).get(key) != default}

    @property
    def spec(self) -> str:
        """What names this function in SQL, as `model := '…'`, and in what embedding tables record.

        Raises:
            InputError: the class is not registered, or an argument is a secret or cannot be written down.
        """
        if not self.id:
            raise InputError(
                f"{type(self).__name__} has no id; write @register('an-id') above the class, so that embedding tables "
                "can name it"
            )
        self.check(self.given)
        unrecorded = {"name", *self.unrecorded_keys()}
        given = {key: value for key, value in self.given.items() if key not in unrecorded}
        # A later version may have another default.
        return str(Spec(self.id, str(self.given.get("name", self.name)), given))

    def ndims(self) -> int:
        """How many numbers a vector has."""
        raise NotImplementedError(f"{type(self).__name__} has no ndims()")

    def compute_source_embeddings(self, values: Any) -> list[Any]:  # noqa: ANN401 - a list, a column, or one value
        """The vectors of values of a source, in their order: a list of numbers each, or None where there is none.

        Args:
            values: a list or an Arrow array of values, or one value.
        """
        raise NotImplementedError(f"{type(self).__name__} has no compute_source_embeddings()")

    def compute_query_embeddings(self, query: Any) -> list[Any]:  # noqa: ANN401 - a text, a picture
        """The vector of a query, in a list."""
        raise NotImplementedError(f"{type(self).__name__} has no compute_query_embeddings()")

    def takes_images(self, encoders: Encoders) -> bool:
        """Whether its encoder takes pictures, without making it; `encoders` finds local models."""
        return self.takes_values

    def encoder(self, encoders: Encoders) -> Encoder:
        """The encoder around this function; `encoders` finds local models."""
        from jammi_duck.encoder.function_encoder import FunctionEncoder

        return FunctionEncoder(self)

    def SourceField(self, **options: Any) -> Any:  # noqa: ANN401 - LanceDB's name; what pydantic's Field gives
        """The field of a pydantic model whose values are embedded.

        Args:
            **options: as for pydantic's `Field`.
        """
        return _field(source_column_for=self, **options)

    def VectorField(self, **options: Any) -> Any:  # noqa: ANN401 - as above
        """The field of a pydantic model that gets the vectors.

        Args:
            **options: as for pydantic's `Field`.
        """
        return _field(vector_column_for=self, **{"default": None, **options})

    def __repr__(self) -> str:
        """The class and the arguments as given, without secrets."""
        shown = (
            f"{key}={HIDDEN if self.is_secret(key) and not is_placeholder(value) else public_url(repr(value))}"
            for key, value in self.given.items()
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class TextEmbeddingFunction(EmbeddingFunction):
    """Turns texts into vectors. A subclass has `generate_embeddings` and `ndims`.

    See `EmbeddingFunction` for arguments and an example.
    """

    takes_values: ClassVar[bool] = False

    def generate_embeddings(self, texts: list[str]) -> Sequence[Sequence[float] | NDArray[np.float32] | None]:
        """The vectors of texts, in their order."""
        raise NotImplementedError(f"{type(self).__name__} has no generate_embeddings()")

    def compute_source_embeddings(self, values: Any) -> list[Any]:  # noqa: ANN401 - see the base
        """See `EmbeddingFunction.compute_source_embeddings`."""
        return list(self.generate_embeddings(_as_texts(values)))

    def compute_query_embeddings(self, query: Any) -> list[Any]:  # noqa: ANN401 - see the base
        """See `EmbeddingFunction.compute_query_embeddings`; a query is no other text than those of the source."""
        return self.compute_source_embeddings(query)


def _secrets(name: str, value: object) -> Iterator[tuple[str, str]]:
    """What is a secret within an argument: its name, and why it is taken for one."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _secrets(str(key), each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _secrets(name, each)
    elif isinstance(value, str):
        if is_secret_name(name) and not is_placeholder(_SCHEME.sub("", value)):
            yield name, "is a secret by its name"
        elif has_secret(without_placeholders(value)):
            yield name, "is a URL with a user, a password or a key in it"


def _as_texts(values: Any) -> list[str]:  # noqa: ANN401 - a list, a column, or one text
    listed = [values] if isinstance(values, str) else values.to_pylist() if hasattr(values, "to_pylist") else values
    texts = list(listed)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"value {place} is of type {type(text).__name__}; each must be a text (str)")
    return texts


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field[Any]) -> Any:  # noqa: ANN401 - of any type
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _field(*, source_column_for: object = None, vector_column_for: object = None, **options: Any) -> Any:  # noqa: ANN401
    try:
        from pydantic import Field
    except ImportError as error:
        raise InputError("tables in Python need pydantic: pip install 'jammi-duck[tables]'") from error
    extra: dict[str, Any] = dict(options.pop("json_schema_extra", None) or {})
    named = {"source_column_for": source_column_for, "vector_column_for": vector_column_for}
    extra |= {key: function for key, function in named.items() if function is not None}
    return typing.cast("Callable[..., Any]", Field)(json_schema_extra=extra, **options)
