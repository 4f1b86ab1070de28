"""Finds the rows of a segment that have one of many ids."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.arrays import values_of
from jammi_duck.errors import UnsupportedError
from jammi_duck.storage.files.parquet import Passages
from jammi_duck.storage.index.exact import Mask
from jammi_duck.storage.index.key_values import Form

# Whole numbers are looked up in an array over their range, if it has at most this many positions per id.
_SPARSEST = 4
_FEW = 20_000


class RowIds:
    """The row ids of a segment, in the order of its rows."""

    def __init__(self, row_ids: pa.StringArray) -> None:
        """Look-up tables are built when they are needed."""
        self._row_ids = row_ids
        self._forms: dict[Form, pa.StringArray] = {}

    def mask(self, wanted: pa.Array) -> Mask:
        """For each row, whether its id is one of `wanted`, which are texts or whole numbers."""
        # Imported late, because a search without a filter does not need it.
        import pyarrow.compute as pc

        if pa.types.is_integer(wanted.type):
            numbers: NDArray[np.int64] | None = values_of(wanted.drop_null())
        else:
            numbers = _whole_numbers(wanted) if self._places is not None else None
        if self._places is None or numbers is None:
            texts = wanted.cast(self._row_ids.type)
            return values_of(pc.is_in(self._row_ids, value_set=texts))
        return self._places.mask(numbers)

    def alike(self, wanted: pa.StringArray, form: Form) -> NDArray[np.int64]:
        """The positions of the rows whose id, converted to `form`, is one of `wanted`, which are in this form."""
        import pyarrow.compute as pc

        if form not in self._forms:
            self._forms[form] = form.texts(self._row_ids)
        found: NDArray[np.int64] = np.flatnonzero(pc.is_in(self._forms[form], value_set=wanted))
        return found

    @cached_property
    def _places(self) -> _Places | None:
        """Where the rows are, if the ids are whole numbers."""
        numbers = _whole_numbers(self._row_ids)
        if numbers is None or not len(numbers):
            return None
        least, span = int(numbers.min()), int(numbers.max()) - int(numbers.min()) + 1
        return None if span > _SPARSEST * len(numbers) else _Places(numbers - least, least, span)


class _Places:
    """Where the rows of ids are that are whole numbers, `least` and `span` from there; `offsets` are theirs from it."""

    def __init__(self, offsets: NDArray[np.int64], least: int, span: int) -> None:
        self._least, self._span, self._rows = least, span, len(offsets)
        positions = np.full(span, -1, np.int32)
        positions[offsets] = np.arange(len(offsets), dtype=np.int32)
        # For each number the row with this id, or -1; where several rows have one id, for each row its number.
        is_unique = np.count_nonzero(positions >= 0) == len(offsets)
        self._positions = positions if is_unique else None
        self._offsets = None if is_unique else offsets.astype(np.int32)

    def mask(self, numbers: NDArray[np.int64]) -> Mask:
        """For each row, whether its id is one of these numbers."""
        inside = numbers[(numbers >= self._least) & (numbers < self._least + self._span)] - self._least
        mask = np.zeros(self._rows, bool)
        if self._positions is not None:
            found = self._positions[inside]
            mask[found[found >= 0]] = True
        elif self._offsets is not None:
            wanted = np.zeros(self._span, bool)
            wanted[inside] = True
            mask = wanted[self._offsets]
        return mask


def checked_ids(row_ids: pa.Array, file: str, passages: Passages | None = None) -> pa.StringArray:
    """The row ids in a file, if they are valid: texts, without NULLs and duplicates.

    Where rows are passages, each of them is there once.
    Raises UnsupportedError, which names the file.
    """
    if row_ids.type != pa.string():
        raise UnsupportedError(f"'{file}' has row ids of type {row_ids.type}, which must be string")
    try:
        row_ids.validate(full=True)
    except pa.ArrowInvalid as error:
        raise UnsupportedError(f"'{file}' has row ids that are no texts: {error}") from None
    if row_ids.null_count:
        raise UnsupportedError(f"'{file}' has {row_ids.null_count:,} rows without an id")
    again = len(row_ids) - (_different(row_ids) if passages is None else _distinct(row_ids, passages))
    if again:
        what = "row ids" if passages is None else "passages"
        raise UnsupportedError(f"'{file}' has {again:,} {what} more than once")
    return row_ids


def _different(row_ids: pa.StringArray) -> int:
    """How many different ids there are."""
    # To count some by Arrow takes as long as to import what computes in it.
    return len(set(row_ids.to_pylist())) if len(row_ids) <= _FEW else len(row_ids.unique())


def _distinct(row_ids: pa.StringArray, passages: Passages) -> int:
    """How many different passages there are."""
    numbers = values_of(passages.column("_passage")).astype(np.int64)
    texts = values_of(row_ids.dictionary_encode().indices).astype(np.int64)
    return len(np.unique(texts << 32 | numbers))


def _whole_numbers(texts: pa.StringArray) -> NDArray[np.int64] | None:
    """The texts as whole numbers, without NULLs; None if one is not a number, or not in its usual notation."""
    texts = texts.drop_null()
    try:
        numbers = texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    if not numbers.cast(texts.type).equals(texts):
        return None
    return values_of(numbers)
