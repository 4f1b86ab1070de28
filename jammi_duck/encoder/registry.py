"""The functions that make vectors, by their ids: those of this package and of others, and the user's own.

Another package adds one by an entry point: `jammi_duck.embeddings`, its id as the name, and its class as the value.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

from jammi_duck.encoder.functions import EmbeddingFunction, TextEmbeddingFunction
from jammi_duck.encoder.providers import PROVIDERS
from jammi_duck.encoder.specs import ID, Spec, parse_spec
from jammi_duck.encoder.variables import resolved
from jammi_duck.encoder.waits import renewed_after_fork
from jammi_duck.errors import InputError, NoModelError, NotFoundError, did_you_mean, enumerated

ENTRY_POINTS = "jammi_duck.embeddings"
_MOST_DIMENSIONS = 65_536

F = TypeVar("F", bound=EmbeddingFunction)


class Registry:
    """The functions of this process, and its variables. Use `get_registry()`: there is one."""

    def __init__(self) -> None:
        self._own: dict[str, type[EmbeddingFunction]] = {}
        self._variables: dict[str, str] = {}
        self._made: dict[tuple[type[EmbeddingFunction], str], tuple[str, EmbeddingFunction]] = {}
        # The URLs that this process has named, and not only a file of an embedding table.
        self.trusted_places: set[str] = set()
        self._sharing = threading.RLock()
        renewed_after_fork(self)

    def after_fork(self) -> None:
        """A thread of the parent may have been making a function."""
        self._sharing = threading.RLock()

    def get(self, id: str) -> type[EmbeddingFunction]:
        """The class of an id; its `create(...)` makes a function.

        Args:
            id: such as `openai`, or what a class was registered by.

        Raises:
            NoModelError: there is none; the message says what there is, or what to install.

        Example:
            >>> get_registry().get("openai").create(name="text-embedding-3-small")
        """
        found = self.find(id)
        if found is None:
            near = did_you_mean(id, self.ids()) or ";"
            raise NoModelError(
                f"no embedding function '{id}'{near} there are: {enumerated(self.ids())}. If '{id}' is yours, import "
                f"the module that has @register('{id}') first, or list it in [models] modules; if a package adds it, "
                "install that package"
            )
        return found

    def find(self, id: str) -> type[EmbeddingFunction] | None:
        """The class of an id, if there is one."""
        own = self._own.get(id)
        if own is not None:
            return own
        provider = PROVIDERS.get(id)
        if provider is not None:
            return _named(provider.load(), id)
        points = importlib.metadata.entry_points(group=ENTRY_POINTS, name=id)
        return next((_named(_loaded(point), id) for point in points), None)

    def owns(self, id: str) -> bool:
        """Whether the user has registered an id in this process."""
        return id in self._own

    def ids(self) -> list[str]:
        """The ids that there are, sorted."""
        points = importlib.metadata.entry_points(group=ENTRY_POINTS)
        ours = (id for id, provider in PROVIDERS.items() if provider.is_here)
        return sorted({*self._own, *ours, *(point.name for point in points)})

    @overload
    def register(self, id: str) -> Callable[[type[F]], type[F]]: ...
    @overload
    def register(self, id: str, cls: type[F]) -> type[F]: ...
    def register(self, id: str, cls: type[F] | None = None) -> type[F] | Callable[[type[F]], type[F]]:
        """Give a class an id, by which SQL, embedding tables and `get` name it. A decorator, if no class is given.

        Args:
            id: letters, digits, '.', '_' and '-', a letter first; of a class that was registered before, it is taken
                away.
            cls: a subclass of `EmbeddingFunction`.

        Raises:
            InputError: the id is that of a provider of this package, or none, or `cls` is no such class.

        Example:
            >>> @register("my-embedder")
            ... class MyEmbedder(TextEmbeddingFunction): ...
        """
        if not isinstance(id, str) or not ID.fullmatch(id):
            raise InputError(
                f"{id!r} cannot be the id of an embedding function: give a letter, and then 99 letters, digits, '.', "
                "'_' and '-' at most"
            )
        if id in PROVIDERS:
            raise InputError(f"'{id}' is a provider of jammi_duck; register your class by another id")

        def registered(cls: type[F]) -> type[F]:
            if not (isinstance(cls, type) and issubclass(cls, EmbeddingFunction)):
                raise InputError(
                    f"'{id}' cannot be {cls!r}: register a subclass of EmbeddingFunction or TextEmbeddingFunction"
                )
            self._own[id] = _named(cls, id)
            return cls

        return registered if cls is None else registered(cls)

    def register_function(
        self, id: str, function: Callable[[list[str]], Iterable[Any]], dimensions: int
    ) -> type[EmbeddingFunction]:
        """Give a plain function an id, as `register` does for a class.

        Args:
            id: as for `register`.
            function: takes a list of texts, and gives a vector of so many `dimensions` for each, in their order, or
                None where there is none.
            dimensions: from 1 to 65,536.

        Raises:
            InputError: one of them cannot be what it is.

        Example:
            >>> get_registry().register_function("lengths", lambda texts: [[1.0, len(text)] for text in texts], 2)
        """
        if not callable(function):
            raise InputError(f"the function of '{id}' is of type {type(function).__name__}, which cannot be called")
        is_number = isinstance(dimensions, int) and not isinstance(dimensions, bool)
        if not is_number or not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise InputError(
                f"dimensions of '{id}' is {dimensions!r}; give a whole number from 1 to {_MOST_DIMENSIONS}"
            )

        class Plain(TextEmbeddingFunction):
            def ndims(self) -> int:
                return dimensions

            def generate_embeddings(self, texts: list[str]) -> list[Any]:
                return list(function(texts))

        return self.register(id, Plain)

    def set_var(self, name: str, value: str) -> None:
        """Set what `$var:name` stands for in this process. It is never stored.

        Args:
            name: letters, digits, '_', '-' and '.', and no colon.
            value: any text.

        Raises:
            InputError: the name has a colon, or either is no text.
        """
        if not isinstance(name, str) or not name or ":" in name:
            raise InputError(f"{name!r} cannot be the name of a variable: give a text that is not empty, without ':'")
        if not isinstance(value, str):
            raise InputError(f"the variable '{name}' is of type {type(value).__name__}; give a text (str)")
        self._variables[name] = value

    def get_var(self, name: str) -> str:
        """What `$var:name` stands for in this process.

        Raises:
            NotFoundError: it is not set.
        """
        if name not in self._variables:
            raise NotFoundError(f"the variable '{name}' is not set; set it by get_registry().set_var('{name}', ...)")
        return self._variables[name]

    def trust_places(self, places: Iterable[str]) -> None:
        """Note URLs that the user has named."""
        self.trusted_places |= set(places)

    def build(
        self,
        cls: type[F],
        given: Mapping[str, Any],
        others: Mapping[str, Any] | None = None,
        *,
        anew: bool = True,
        keyless: bool = False,
        recorded: bool = False,
    ) -> F:
        """A function of a class. `given` is what is stored of it; `others` are further arguments, which are not.

        Unless it is to be made `anew`, one that was made of the same is used again. A `keyless` one gets no key but
        that in its arguments. What is `recorded` decides alone where the function is.

        Raises:
            InputError: see `EmbeddingFunction.create`.
        """
        others = others or {}
        if not recorded:
            given = {**{key: each for key, each in cls.surroundings().items() if key not in others}, **given}
        cls.check(given)
        # The configuration has the last word on how a recorded function is asked.
        every = {**given, **others} if recorded else {**others, **given}
        values = {key: self._value(cls, key, value) for key, value in every.items()}
        key = cls, json.dumps(sorted(given.items()), default=id)
        told = json.dumps([keyless, *sorted(values.items())], default=id)
        with self._sharing:
            before, made = self._made.get(key, ("", None))
            if made is None or anew or before != told:
                made = cls.__new__(cls)
                vars(made).update(_given=dict(given), _values=values, _is_keyless=keyless)
                made.__init__(**values)  # type: ignore[misc]
                self._made[key] = told, made
        assert isinstance(made, cls)
        return made

    def resolved_or_left(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments with what their placeholders stand for; those that stand for nothing are left as they are."""
        found = {}
        for key, value in arguments.items():
            found[key] = value
            with contextlib.suppress(InputError):
                found[key] = resolved(value, self.get_var)
        return found

    def _value(self, cls: type[EmbeddingFunction], key: str, given: Any) -> Any:  # noqa: ANN401 - an argument
        """What an argument's placeholders stand for; a number, where its class wants one."""
        value = resolved(given, self.get_var)
        kind = next((str(each.type) for each in dataclasses.fields(cls) if each.name == key), "")
        if isinstance(value, str) and value != given:
            for name, number in (("int", int), ("float", float)):
                if re.search(rf"\b{name}\b", kind):
                    with contextlib.suppress(ValueError):
                        return number(value)
        is_text = re.search(r"\bstr\b", kind) and not re.search(r"\b(int|float)\b", kind)
        return str(value) if is_text and isinstance(value, int | float) and not isinstance(value, bool) else value

    def spec_of(self, text: str) -> Spec | None:
        """What a text names, if it is no local model: `id:model`, or the id of the user's own function."""
        if self.owns(text):
            return Spec(text)
        found = parse_spec(text)
        # A directory may have a colon in its name; that of a provider comes first.
        is_path = found is not None and self.find(found.id) is None and os.path.isdir(text)
        return None if is_path else found

    def listed(self, sections: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str | None]]:
        """The default model of each provider, a label, `python` or `provider`, and what it needs that is not there."""
        for id in self.ids():
            provider = PROVIDERS.get(id)
            if provider is None:
                yield id, f"The embedding function '{id}'", "python", None
            else:
                cls = _named(provider.load(), id)
                name = cls.arguments()["name"]
                yield f"{id}:{name}", provider.label, "provider", provider.missing(cls, sections.get(id, {}))


_registry = Registry()


def get_registry() -> Registry:
    """The functions that make vectors, by their ids, and the variables of this process.

    Returns:
        The registry of this process.

    Example:
        >>> get_registry().get("openai").create(name="text-embedding-3-small", max_retries=3)
    """
    return _registry


@overload
def register(id: str) -> Callable[[type[F]], type[F]]: ...
@overload
def register(id: str, cls: type[F]) -> type[F]: ...
def register(id: str, cls: type[F] | None = None) -> type[F] | Callable[[type[F]], type[F]]:
    """See `Registry.register`."""
    return _registry.register(id) if cls is None else _registry.register(id, cls)


def _named(cls: type[F], id: str) -> type[F]:
    cls.id = id
    return cls


def _loaded(point: importlib.metadata.EntryPoint) -> type[EmbeddingFunction]:
    try:
        found = point.load()
    except Exception as error:
        raise NoModelError(
            f"the embedding function '{point.name}', which a package adds as {point.value}, cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, EmbeddingFunction)):
        raise NoModelError(f"the entry point '{point.name}' ({point.value}) is no subclass of EmbeddingFunction")
    return found
