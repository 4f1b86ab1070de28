"""Arrow's arrays as pyarrow itself makes them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jammi_duck.arrays import flags, lists, numbers, texts, values_of


@given(st.lists(st.text()))
def test_texts(values):
    made = texts(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.string()))


@given(st.lists(st.booleans()))
def test_flags(values):
    expected = pa.array(values, pa.bool_())
    for given_as in (values, iter(values), np.array(values, np.bool_)):
        made = flags(given_as)
        made.validate(full=True)
        assert made.equals(expected)
    assert values_of(expected).tolist() == values
    assert values_of(expected[1:]).tolist() == values[1:]


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float32, np.float64])
@given(values=st.lists(st.integers(-1000, 1000)), every=st.integers(1, 3))
def test_numbers(kind, values, every):
    vector = np.array(values, kind)[::every]
    made = numbers(vector)
    made.validate(full=True)
    assert made.equals(pa.array(vector))
    assert values_of(made).tolist() == vector.tolist()
    assert values_of(made[1:]).tolist() == vector[1:].tolist()


@given(st.lists(st.floats(width=32)))
def test_what_was_not_computed(values):
    vector = np.array(values, np.float32)
    made = numbers(vector, nan_is_null=True)
    made.validate(full=True)
    assert made.equals(pa.array(vector, from_pandas=True))


@given(st.lists(st.none() | st.lists(st.integers(0, 9), min_size=1)))
def test_lists(values):
    lengths = np.array([len(each or ()) for each in values], np.int32)
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    flat = np.array([each for some in values for each in some or ()], np.int64)
    made = lists(offsets, numbers(flat), lengths > 0)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.list_(pa.int64())))


def test_values_of_what_has_a_null():
    with pytest.raises(ValueError, match="NULL"):
        values_of(pa.array([1, None]))
