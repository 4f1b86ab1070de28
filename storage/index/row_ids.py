"""Finds the rows of a segment that have one of many ids."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.errors import UnsupportedError
from jammi_duck.storage.index.exact import Mask
from jammi_duck.storage.index.key_values import Form

# Whole numbers are looked up in an array over their range, if it has at most this many positions per id.
_SPARSEST = 4


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
            numbers: NDArray[np.int64] | None = wanted.drop_null().to_numpy()
        else:
            numbers = _whole_numbers(wanted) if self._places is not None else None
        if self._places is None or numbers is None:
            texts = wanted.cast(self._row_ids.type)
            mask: Mask = pc.is_in(self._row_ids, value_set=texts).to_numpy(zero_copy_only=False)
            return mask
        least, positions = self._places
        inside = numbers[(numbers >= least) & (numbers < least + len(positions))]
        found = positions[inside - least]
        mask = np.zeros(len(self._row_ids), bool)
        mask[found[found >= 0]] = True
        return mask

    def alike(self, wanted: pa.StringArray, form: Form) -> NDArray[np.int64]:
        """The positions of the rows whose id, converted to `form`, is one of `wanted`, which are in this form."""
        import pyarrow.compute as pc

        if form not in self._forms:
            self._forms[form] = form.texts(self._row_ids)
        found: NDArray[np.int64] = np.flatnonzero(pc.is_in(self._forms[form], value_set=wanted))
        return found

    @cached_property
    def _places(self) -> tuple[int, NDArray[np.int32]] | None:
        """If the ids are whole numbers: the smallest id, and for each number from there the row with this id, or -1."""
        numbers = _whole_numbers(self._row_ids)
        if numbers is None or not len(numbers):
            return None
        least, span = int(numbers.min()), int(numbers.max()) - int(numbers.min()) + 1
        if span > _SPARSEST * len(numbers):
            return None
        positions = np.full(span, -1, np.int32)
        positions[numbers - least] = np.arange(len(numbers), dtype=np.int32)
        return least, positions


def checked_ids(row_ids: pa.Array, file: str) -> pa.StringArray:
    """The row ids in a file, if they are valid: texts, without NULLs and duplicates.

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
    again = len(row_ids) - len(row_ids.unique())
    if again:
        raise UnsupportedError(f"'{file}' has {again:,} row ids more than once")
    return row_ids


def _whole_numbers(texts: pa.StringArray) -> NDArray[np.int64] | None:
    """The texts as whole numbers, without NULLs; None if one is not a number, or not in its usual notation."""
    texts = texts.drop_null()
    try:
        numbers = texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    if not numbers.cast(texts.type).equals(texts):
        return None
    found: NDArray[np.int64] = numbers.to_numpy()
    return found
