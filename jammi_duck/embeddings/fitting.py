"""Makes rows fit the columns of a table; what does not fit is named by its row and field, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jammi_duck.embeddings.losses import lost, may_lose
from jammi_duck.embeddings.rows import REFUSED, Given, is_list, is_picture, picture_bytes, plain_value, shown
from jammi_duck.errors import InputError, did_you_mean, enumerated
from jammi_duck.sql import folded

OnBad: TypeAlias = Literal["error", "drop", "fill", "null"]
POLICIES = ("error", "drop", "fill", "null")

_MISSING = object()
# The default of a column, where DuckDB works it out for each row.
BY_DUCKDB = object()


@dataclass(frozen=True)
class Column:
    """A column of a table. `kind` is None where only DuckDB knows what fits; `default` is a value, or `BY_DUCKDB`."""

    name: str
    kind: pa.DataType | None
    is_nullable: bool = True
    default: Any = None
    # A HUGEINT, which Arrow lacks, and DuckDB rounds to.
    is_whole: bool = False

    @property
    def width(self) -> int | None:
        """How many numbers a vector of this column has; None if it is no column of vectors."""
        kind = self.kind
        if kind is None or not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
            return None
        return int(kind.list_size)


@dataclass(frozen=True)
class BadVectors:
    """What becomes of a row whose vector has another width, or a number that is not finite, or cannot be made."""

    policy: OnBad = "error"
    fill_value: float = 0.0

    def __post_init__(self) -> None:
        """Raise InputError where there is no such policy, or a vector cannot be filled with that."""
        if self.policy not in POLICIES:
            near = did_you_mean(str(self.policy), POLICIES) or ";"
            raise InputError(f"on_bad_vectors is {self.policy!r}{near} it must be one of {enumerated(POLICIES)}")
        if isinstance(self.fill_value, bool) or not isinstance(self.fill_value, int | float | np.number):
            raise InputError(f"fill_value is {self.fill_value!r}; it must be a number")
        if self.policy == "fill" and not np.isfinite(np.float32(self.fill_value)):
            raise InputError(f"fill_value is {self.fill_value}; it must be a finite FLOAT")


@dataclass
class Rows:
    """Rows that fit a table, and the places that they had in what the user gave."""

    table: pa.Table
    places: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def fitted(data: Given, columns: Sequence[Column], table: str, bad: BadVectors) -> Rows:
    """Rows as the columns of a table: what is not given is the default, or NULL.

    Raises:
        InputError: a row has a field that the table lacks, lacks one that it needs, or has a value that does not fit.
    """
    known = {folded(each.name): each for each in columns}
    given = _whole_columns(data, known, table) if isinstance(data, pa.Table) else _by_column(data, known, table)
    count = data.num_rows if isinstance(data, pa.Table) else len(data)
    kept = np.ones(count, np.bool_)
    made: dict[str, pa.Array] = {}
    for column in columns:
        values = given.get(column.name, [])
        if all(each is _MISSING for each in values):
            if column.default is BY_DUCKDB:
                continue
            values = [_MISSING] * count
        fit = _Fit(column, table, bad)
        if column.width is None:
            made[column.name] = fit.plain(values)
        else:
            made[column.name], good = fit.vectors(values)
            kept &= good
    fitting = pa.table(made)
    places = np.flatnonzero(kept)
    return Rows(fitting if len(places) == count else fitting.take(pa.array(places)), places)


def _by_column(data: list[Mapping[str, Any]], known: Mapping[str, Column], table: str) -> dict[str, list[Any]]:
    exact = {each.name: each.name for each in known.values()}
    found: dict[str, list[Any]] = {name: [_MISSING] * len(data) for name in exact}
    for place, row in enumerate(data):
        for name, value in row.items():
            own = exact.get(name) or _name_of(name, known)
            if own is None:
                raise InputError(f"row {place} of the data has a field '{name}', and {_lacks(name, known, table)}")
            found[own][place] = value
    return found


def _whole_columns(data: pa.Table, known: Mapping[str, Column], table: str) -> dict[str, pa.ChunkedArray]:
    found: dict[str, pa.ChunkedArray] = {}
    for place, name in enumerate(data.schema.names):
        own = _name_of(name, known)
        if own is None:
            raise InputError(f"the data has a column '{name}', and {_lacks(name, known, table)}")
        if own in found:
            raise InputError(f"the data has the column '{own}' twice; give it once")
        found[own] = data.column(place)
    return found


def _name_of(name: object, known: Mapping[str, Column]) -> str | None:
    column = known.get(folded(name)) if isinstance(name, str) else None
    return column.name if column else None


def _lacks(name: object, known: Mapping[str, Column], table: str) -> str:
    names = [each.name for each in known.values()]
    return f"'{table}' has no such column{did_you_mean(str(name), names) or ';'} columns: {enumerated(names)}"


@dataclass(frozen=True)
class _Fit:
    """Makes the values of one column fit."""

    column: Column
    table: str
    bad: BadVectors

    def plain(self, values: Any) -> pa.Array:  # noqa: ANN401 - a list, or a column
        kind = self.column.kind
        if isinstance(values, pa.ChunkedArray):
            return self._cast(values)
        listed = [self._value(value, place) for place, value in enumerate(values)]
        checked = pa.int64() if self.column.is_whole else kind
        if may_lose(checked):
            for place, value in enumerate(listed):
                if (reason := lost(value, checked)) is not None:
                    raise self._misfit(place, value, reason)
        try:
            return pa.array(listed, kind)
        except REFUSED as error:
            place, refusal = self._first_refused(listed, kind) or (0, error)
            raise self._misfit(place, listed[place], refusal) from None

    def _cast(self, values: pa.ChunkedArray) -> pa.Array:
        kind = self.column.kind
        if values.null_count and not self.column.is_nullable:
            raise self._missing(int(values.is_null().to_numpy().argmax()), "None in")
        self._check_whole_column(values)
        if kind is None or values.type == kind:
            return values.combine_chunks()
        try:
            return values.cast(kind).combine_chunks()
        except REFUSED:
            for place in range(len(values)):
                try:
                    values.slice(place, 1).cast(kind)
                except REFUSED as error:
                    raise self._misfit(place, values[place].as_py(), error) from None
            raise

    def _check_whole_column(self, values: pa.ChunkedArray) -> None:
        """Raise InputError where a cast would change a value silently."""
        kind = pa.int64() if self.column.is_whole else self.column.kind
        if kind is None or kind == values.type or not may_lose(kind):
            return
        # Of the others, Arrow refuses those that would change.
        if not (self.column.is_whole or pa.types.is_nested(kind) or kind == pa.float32() or pa.types.is_date(kind)):
            return
        if (
            pa.types.is_floating(values.type)
            or pa.types.is_decimal(values.type)
            or pa.types.is_timestamp(values.type)
            or pa.types.is_nested(values.type)
        ):
            for place, value in enumerate(values.to_pylist()):
                if (reason := lost(value, kind)) is not None:
                    raise self._misfit(place, value, reason)

    def vectors(self, values: Any) -> tuple[pa.Array, NDArray[np.bool_]]:  # noqa: ANN401 - as above
        """Vectors of the column's width, and which rows stay."""
        lists = self._lists(values)
        width = self.column.width or 0
        there = lists.is_valid().to_numpy(zero_copy_only=False)
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
        whole = there & (lengths == width)
        kind = self.column.kind.value_type.to_pandas_dtype() if self.column.kind else np.float32
        matrix = np.zeros((len(lists), width), kind)
        numbers = lists.filter(pa.array(whole)).flatten()
        with np.errstate(over="ignore"):
            matrix[whole] = numbers.to_numpy(zero_copy_only=False).astype(kind).reshape(-1, width)
        if not self.column.is_nullable and not there.all():
            raise self._missing(int(there.argmin()), "None in")
        finite = np.isfinite(matrix).all(axis=1)
        wrong = there & ~(whole & finite)
        if wrong.any():
            self._refuse(int(wrong.argmax()), lengths)
        matrix[wrong] = self.bad.fill_value if self.bad.policy == "fill" else 0
        absent = ~there | (wrong & (self.bad.policy != "fill"))
        kept = ~wrong if self.bad.policy == "drop" else np.ones(len(lists), np.bool_)
        return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), width, mask=pa.array(absent)), kept

    def _refuse(self, place: int, lengths: NDArray[np.int64]) -> None:
        if self.bad.policy != "error":
            return
        width = self.column.width
        what = (
            f"a vector of {lengths[place]} numbers in '{self.column.name}', where {width} belong"
            if lengths[place] != width
            else f"a vector in '{self.column.name}' with a number that is not finite, or none"
        )
        raise InputError(
            f"row {place} of the data has {what}; on_bad_vectors='drop', 'fill' or 'null' accepts such rows"
        )

    def _lists(self, values: Any) -> pa.Array:  # noqa: ANN401 - as above
        """Vectors of any width as an array of lists."""
        wanted = pa.list_(pa.float64())
        if isinstance(values, pa.ChunkedArray):
            if is_list(values.type):
                return values.cast(pa.list_(values.type.value_type)).combine_chunks()
            values = values.to_pylist()
        listed = [self._value(value, place) for place, value in enumerate(values)]
        try:
            return pa.array(listed, wanted)
        except REFUSED:
            place, _ = self._first_refused(listed, wanted) or (0, None)
            raise self._misfit(place, listed[place], f"give {self.column.width} numbers, or None") from None

    def _value(self, value: Any, place: int) -> Any:  # noqa: ANN401 - of any type
        what = "None in"
        if value is _MISSING:
            what, value = "no", self.column.default
            if value is BY_DUCKDB:
                raise InputError(
                    f"row {place} of the data has no '{self.column.name}'; give it in each row, or in none"
                )
        value = plain_value(value)
        if isinstance(value, float) and np.isnan(value) and not self._takes_numbers:
            # As pandas has what is missing.
            value = None
        if value is None:
            if not self.column.is_nullable:
                raise self._missing(place, what)
            return None
        if not is_picture(value) or self.column.kind != pa.binary():
            return value
        try:
            return picture_bytes(value)
        except InputError as error:
            raise InputError(f"row {place} of the data has a picture in '{self.column.name}', and {error}") from error

    @property
    def _takes_numbers(self) -> bool:
        kind = self.column.kind
        return kind is None or pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)

    @staticmethod
    def _first_refused(values: list[Any], kind: pa.DataType | None) -> tuple[int, Exception] | None:
        for place, value in enumerate(values):
            try:
                pa.array([value], kind)
            except REFUSED as error:
                return place, error
        return None

    def _misfit(self, place: int, value: object, reason: object) -> InputError:
        name = self.column.name
        kind = "of whole numbers" if self.column.is_whole else self.column.kind
        return InputError(f"row {place} of the data has {shown(value)} in '{name}', which is {kind}: {reason}")

    def _missing(self, place: int, what: str) -> InputError:
        return InputError(f"row {place} of the data has {what} '{self.column.name}', which '{self.table}' needs")
