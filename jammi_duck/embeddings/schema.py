"""Models of pydantic that say which columns a table has, and which functions make the vectors of which."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import types
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa

from jammi_duck.embeddings.rows import plain_value
from jammi_duck.encoder.functions import EmbeddingFunction
from jammi_duck.errors import InputError

try:
    from pydantic import BaseModel, BeforeValidator
except ImportError as error:
    raise ImportError("tables in Python need pydantic: pip install 'jammi-duck[tables]'") from error

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_MOST_DIMENSIONS = 65_536
_PLAIN: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
    datetime.date: pa.date32(),
    datetime.datetime: pa.timestamp("us"),
    datetime.time: pa.time64("us"),
}


class Model(BaseModel):
    """The rows of a table: subclass it as any model of pydantic. It is called `LanceModel`, too.

    Example:
        >>> class Words(Model):
        ...     text: str = func.SourceField()
        ...     vector: Vector(func.ndims()) = func.VectorField()
        >>> table = db.create_table("words", schema=Words)
    """

    @classmethod
    def to_arrow_schema(cls) -> pa.Schema:
        """The columns as an Arrow schema.

        Returns:
            A `pyarrow.Schema`.

        Raises:
            InputError: a field has a type that no column can have.

        Example:
            >>> Words.to_arrow_schema().names
            ['text', 'vector']
        """
        return arrow_schema(cls)

    @classmethod
    def field_names(cls) -> list[str]:
        """The names of the fields.

        Returns:
            The names, in their order.

        Example:
            >>> Words.field_names()
            ['text', 'vector']
        """
        return list(cls.model_fields)


LanceModel = Model


@dataclasses.dataclass(frozen=True)
class VectorOf:
    """The annotation of a field that is a vector of so many dimensions."""

    dimensions: int


def Vector(dim: int, nullable: bool = True) -> Any:  # noqa: ANN401 - LanceDB's name; a type
    """The type of a field that is a vector.

    Args:
        dim: how many numbers it has.
        nullable: whether it may be None, as it is before a function has made it.

    Returns:
        What stands behind the colon of a field.

    Raises:
        InputError: `dim` is no whole number from 1 to 65,536.

    Example:
        >>> class Point(Model):
        ...     vector: Vector(2)
    """
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= _MOST_DIMENSIONS:
        raise InputError(f"Vector({dim!r}): give the number of dimensions, from 1 to {_MOST_DIMENSIONS:,}")

    def checked(value: Any) -> Any:  # noqa: ANN401 - what a user gives
        numbers = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(numbers, list | tuple) and len(numbers) != dim:
            raise ValueError(f"a vector of {len(numbers)} numbers, where {dim} belong")
        return numbers

    kind = list[float] | None if nullable else list[float]
    return Annotated[kind, BeforeValidator(checked), VectorOf(dim)]


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A column that a function embeds into another."""

    source: str
    vector: str
    function: EmbeddingFunction


def is_model(given: object) -> bool:
    """Whether something is a model, and not a row of it."""
    return inspect.isclass(given) and issubclass(given, BaseModel)


def arrow_schema(model: type[BaseModel]) -> pa.Schema:
    """The columns of a model; a field that may be None, or that a function reads or makes, may be NULL.

    Raises:
        InputError: a field has a type that no column can have.
    """
    return pa.schema([_field(f"{model.__name__}.{name}", name, info) for name, info in model.model_fields.items()])


def defaults_of(model: type[BaseModel]) -> dict[str, bool | int | float | str]:
    """The plain values that fields have where a row does not say."""
    fields = {name: plain_value(info.default) for name, info in model.model_fields.items()}
    return {name: value for name, value in fields.items() if isinstance(value, bool | int | float | str)}


def embedded_in(model: type[BaseModel]) -> list[Embedded]:
    """Which columns functions embed, and into which.

    Raises:
        InputError: a vector has no source, or it is not clear which.
    """
    sources: dict[int, list[str]] = {}
    for name, function in _functions(model, "source_column_for"):
        sources.setdefault(id(function), []).append(name)
    found: dict[tuple[int, str], Embedded] = {}
    for name, function in _functions(model, "vector_column_for"):
        mine = sources.get(id(function), [])
        if len(mine) != 1:
            told = f"{len(mine)} fields ({', '.join(mine)})" if mine else "no field"
            raise InputError(
                f"{model.__name__}.{name} is the vector of {told}: its function needs one SourceField(). Create a "
                "function for each pair of a source and a vector"
            )
        pair = Embedded(mine[0], name, function)
        if (other := found.setdefault((id(function), pair.source), pair)) is not pair:
            raise InputError(
                f"{model.__name__}.{other.vector} and {model.__name__}.{name} are both the vectors of "
                f"'{pair.source}' by the same function; leave one of them out"
            )
    return list(found.values())


def _functions(model: type[BaseModel], key: str) -> Iterator[tuple[str, EmbeddingFunction]]:
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        function = extra.get(key) if isinstance(extra, dict) else None
        if isinstance(function, EmbeddingFunction):
            yield name, function


def _field(where: str, name: str, info: FieldInfo) -> pa.Field:
    kind, is_optional = _arrow_type(where, info.annotation, info.metadata)
    extra = info.json_schema_extra
    is_embedded = isinstance(extra, dict) and not extra.keys().isdisjoint(("source_column_for", "vector_column_for"))
    has_none = info.default is None and not info.is_required()
    return pa.field(name, kind, nullable=is_optional or is_embedded or has_none)


def _arrow_type(where: str, annotation: Any, metadata: typing.Sequence[Any] = ()) -> tuple[pa.DataType, bool]:  # noqa: ANN401
    """The type of a column, and whether it may be NULL."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _arrow_type(where, arguments[0], arguments[1:])
    others = [each for each in arguments if each is not types.NoneType]
    is_optional = len(others) < len(arguments)
    vector = next((each for each in metadata if isinstance(each, VectorOf)), None)
    if vector is not None:
        return pa.list_(pa.float32(), vector.dimensions), is_optional or annotation != list[float]
    if origin in (typing.Union, types.UnionType) and len(others) == 1:
        return _arrow_type(where, others[0])[0], is_optional
    if origin is typing.Literal:
        kinds = {type(each) for each in others}
        if len(kinds) == 1:
            return _arrow_type(where, kinds.pop())[0], is_optional
    if origin in (list, set, frozenset) and others:
        return pa.list_(_arrow_type(where, others[0])[0]), False
    if inspect.isclass(annotation):
        if issubclass(annotation, BaseModel):
            return pa.struct(list(arrow_schema(annotation))), False
        if issubclass(annotation, enum.Enum):
            return _arrow_type(where, type(next(iter(annotation)).value))[0], False
        if annotation in _PLAIN:
            return _PLAIN[annotation], False
    raise InputError(
        f"{where} is of type {annotation}, which no column can have; use bool, int, float, str, bytes, date, datetime, "
        "time, a list of these, another model, or Vector(n)"
    )
