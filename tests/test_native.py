"""The extension's C under sanitizers: its codec on columns of its own, on the kept corpus of the fuzzer, and against
udfs/wire.py; its conversations from several threads."""

import os
import re
import struct
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jammi_duck.udfs import wire
from tests.c_programs import build, run
from tests.effort import some
from tests.native.seeds import CORPUS, arrow_type, seeds

NATIVE = Path(__file__).with_name("native")
BUILD = NATIVE / "build.sh"
NONE = (1 << 64) - 1
SANITIZERS = {"UBSAN_OPTIONS": "print_stacktrace=1"}
PLAIN = ["BOOLEAN", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "TIMESTAMP", "VARCHAR"]


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    return build(BUILD, tmp_path_factory.mktemp("native"), "harness", "harness", "address,undefined")


def test_columns_are_the_same_after_they_were_encoded_and_decoded(harness):
    run(harness, "roundtrip", "0", "3000")


def test_the_corpus_is_decoded(harness):
    files = sorted(map(str, CORPUS.iterdir()))
    assert run(harness, "run", *files) == f"{len(files)} inputs\n"


def test_what_the_worker_and_the_extension_say_today_is_decoded(harness, tmp_path):
    files = []
    for number, content in enumerate(seeds()):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(content)
    assert run(harness, "run", *map(str, files)) == f"{len(files)} inputs\n"


def test_threads_have_calls_of_their_own_whatever_the_worker_does(tmp_path):
    told = run(
        build(BUILD, tmp_path, "threads", "threads", "thread"), "200", sys.executable, str(NATIVE / "flaky_worker.py")
    )
    found = re.fullmatch(r"(\d+) answered, (\d+) failed, (\d+) workers, 0 files open\n", told)
    assert found, told
    answered, failed, workers = map(int, found.groups())
    assert answered + failed == 6 * 200
    assert answered > 600
    assert workers > 1


class Codec:
    """The C codec: a column in, the same column out."""

    def __init__(self, harness):
        environment = {**os.environ, **SANITIZERS}
        self._process = subprocess.Popen(
            [str(harness), "recode"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def recode(self, of, rows, content):
        kind = of.to_bytes()
        self._process.stdin.write(struct.pack("<QQQ", len(kind), rows, len(content)) + kind + content)
        self._process.stdin.flush()
        told = self._process.stdout.read(8)
        assert len(told) == 8, f"the codec ended: {self._process.wait()}"
        (size,) = struct.unpack("<Q", told)
        return None if size == NONE else self._process.stdout.read(size)

    def close(self):
        self._process.stdin.close()
        assert self._process.wait() == 0
        self._process.stdout.close()


@pytest.fixture(scope="module")
def codec(harness):
    codec = Codec(harness)
    yield codec
    codec.close()


def types():
    def nested(inner):
        fields = st.lists(inner, min_size=1, max_size=4)
        structs = fields.map(lambda kinds: f"STRUCT({', '.join(f'f{i} {kind}' for i, kind in enumerate(kinds))})")
        return inner.map(lambda kind: f"{kind}[]") | structs

    return st.recursive(st.sampled_from(PLAIN), nested, max_leaves=6).map(wire.Type.parse)


def values(of):
    if of.kind == 24:
        some = st.lists(values(of.children[0]), max_size=4)
    elif of.kind == 25:
        fields = zip(of.names, of.children, strict=True)
        some = st.fixed_dictionaries({name: values(child) for name, child in fields})
    else:
        some = {
            1: st.booleans(),
            4: st.integers(-(1 << 31), (1 << 31) - 1),
            5: st.integers(-(1 << 63), (1 << 63) - 1),
            10: st.floats(width=32, allow_nan=False),
            11: st.floats(allow_nan=False),
            12: st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),
            17: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        }[of.kind]
    return st.none() | some


@st.composite
def columns(draw):
    """A type, and a column of it, perhaps a slice of a longer one."""
    of = draw(types())
    column = pa.array(draw(st.lists(values(of), max_size=8)), arrow_type(of))
    begin = draw(st.integers(0, len(column)))
    return of, column[begin : draw(st.integers(begin, len(column)))]


def check(codec, of, column):
    """Python's bytes are a column to C; what C makes of them is that column to Python, and in the same bytes."""
    sent = b"".join(wire.column_parts(column, of))
    received = codec.recode(of, len(column), sent)
    assert received is not None
    reader = wire.Reader(received)
    assert reader.column(of, len(column)).to_pylist() == column.to_pylist()
    reader.end()
    assert received == sent


@given(columns())
@settings(max_examples=some(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example((wire.Type.parse("VARCHAR"), pa.array(["\0", "a\0b", "", None, "\U0010ffff\U00020000\uffff\ud7ff"])))
@example((wire.Type.parse("VARCHAR"), pa.array(["twelve bytes", "thirteen byte", None])))
@example((wire.Type.parse("FLOAT[]"), pa.array([], pa.list_(pa.float32()))))
def test_python_and_c_have_one_format(codec, column):
    check(codec, *column)


def test_a_large_text_goes_through(codec):
    texts = ["x" * (1 << 20), None, "\N{SNOWMAN}" * 400_000, ""]
    check(codec, wire.Type.parse("VARCHAR"), pa.array(texts))
    check(codec, wire.Type.parse("VARCHAR[]"), pa.array([texts, None, [], texts]))


def test_a_column_of_many_vectors_goes_through(codec):
    vectors = pa.array([[float(i)] * 384 if i % 7 else None for i in range(2048)], pa.list_(pa.float32()))
    check(codec, wire.Type.parse("FLOAT[]"), vectors)
    check(codec, wire.Type.parse("FLOAT[]"), vectors[100:1000])


@pytest.mark.parametrize(("kind", "arrow"), [("VARCHAR", pa.large_string()), ("FLOAT[]", pa.large_list(pa.float32()))])
def test_arrow_types_with_large_offsets_go_through(codec, kind, arrow):
    values = {"VARCHAR": ["a", None, "b"], "FLOAT[]": [[1.0], None, [2.0, 3.0]]}[kind]
    check(codec, wire.Type.parse(kind), pa.array(values, arrow)[1:])


def test_what_lies_below_nulls_is_not_seen(codec):
    """Arrow, too, lets anything lie there."""
    bits = pa.py_buffer(bytes([0b101]))
    _, offsets, content = pa.array(["one", "hidden", "three"]).buffers()
    texts = pa.StringArray.from_buffers(3, offsets, content, bits)
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3]), texts, mask=pa.array([False, True, False]))
    structs = pa.StructArray.from_arrays([texts, lists], names=["a", "b"], mask=pa.array([True, False, False]))
    for kind, column in [
        ("VARCHAR", texts),
        ("VARCHAR[]", lists),
        ("STRUCT(a VARCHAR, b VARCHAR[])", structs),
    ]:
        of = wire.Type.parse(kind)
        received = codec.recode(of, 3, b"".join(wire.column_parts(column, of)))
        assert wire.Reader(received).column(of, 3).to_pylist() == column.to_pylist()


@given(columns(), st.data())
@settings(max_examples=some(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_column_cut_short_or_too_long_is_refused(codec, column, data):
    of, content = column
    sent = b"".join(wire.column_parts(content, of))
    assert codec.recode(of, len(content), sent[: data.draw(st.integers(0, len(sent) - 1))]) is None
    assert codec.recode(of, len(content), sent + b"\0") is None
