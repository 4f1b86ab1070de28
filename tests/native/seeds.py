"""What the fuzzer begins with: real announcements, and calls with real answers: python -m tests.native.seeds.

Writes to tests/native/corpus/, beside what the fuzzer has found: a file's name is the SHA-1 of its content, as the
fuzzer names them.
"""

import hashlib
import struct
from pathlib import Path

import pyarrow as pa

from jammi_duck.udfs import wire
from jammi_duck.udfs.functions import FUNCTIONS

CORPUS = Path(__file__).with_name("corpus")
ROWS = 5
ARROW = {
    1: pa.bool_(), 4: pa.int32(), 5: pa.int64(), 10: pa.float32(), 11: pa.float64(), 12: pa.timestamp("us"),
    17: pa.string(),
}  # fmt: skip
VALUES = {
    1: [True, False, None], 4: [7, None, -1], 5: [1 << 40, None, -1], 10: [0.5, None, -2.0], 11: [None, 0.25],
    12: [1_700_000_000_000_000, None], 17: ["", "twelve bytes", None, "more than that: \N{SNOWMAN}"],
}  # fmt: skip


def arrow_type(of):
    if of.kind == 24:
        return pa.list_(arrow_type(of.children[0]))
    if of.kind == 25:
        return pa.struct([(name, arrow_type(child)) for name, child in zip(of.names, of.children, strict=True)])
    return ARROW[of.kind]


def value(of, number):
    """One of the values of a type; which, `number` tells."""
    if of.kind == 24:
        return None if number % 4 == 3 else [value(of.children[0], number + i) for i in range(number % 3)]
    if of.kind == 25:
        fields = zip(of.names, of.children, strict=True)
        return None if number % 5 == 4 else {name: value(child, number) for name, child in fields}
    return VALUES[of.kind][number % len(VALUES[of.kind])]


def column(of, rows=ROWS):
    return b"".join(wire.column_parts(pa.array([value(of, i) for i in range(rows)], arrow_type(of)), of))


def frame(kind, content):
    return wire.HEAD.pack(len(content), kind) + content


def call(parameters, returns, frames, *, habits=0, rows=ROWS):
    """A call, and what the worker sends to it."""
    head = b"C" + struct.pack("<HH", habits, rows) + returns.to_bytes() + bytes([len(parameters)])
    types = b"".join(of.to_bytes() for of in parameters)
    return head + types + b"".join(column(of, rows) for of in parameters) + b"".join(frames)


def seeds():
    yield b"A" + wire.announcement(["/usr/bin/python3", "-m", "jammi_duck.doors.worker"], FUNCTIONS)
    for function in FUNCTIONS:
        yield b"A" + wire.announcement(["worker"], [function])
        returns = wire.Type.parse(function.returns)
        parameters = [wire.Type.parse(text) for text in function.parameters[:4]]
        yield call(parameters, returns, [frame(wire.ANSWER, column(returns))])
    text, number = wire.Type.parse("VARCHAR"), wire.Type.parse("BIGINT")
    answer = frame(wire.ANSWER, column(number))
    for statement in (b"E", b"BILFDTV93", b"U1", b"V0", b""):
        yield call([text], number, [frame(wire.SQL, statement), answer])
    yield call([text], number, [frame(wire.FAILURE, b"JammiError: no such thing")])
    yield call([text], number, [frame(wire.CALL, b"")])
    yield call([text], number, [frame(wire.ANSWER, column(number) + b"\0")])
    yield call([], wire.Type.parse("STRUCT(a VARCHAR[][], b STRUCT(c BOOLEAN, d FLOAT[])[])"), [], rows=0)
    for bit in range(13):
        yield call([text], number, [frame(wire.SQL, b"LV3"), answer, answer], habits=1 << bit)
    yield call([text], number, [answer], habits=0xFFFF)


def main():
    CORPUS.mkdir(exist_ok=True)
    for content in seeds():
        (CORPUS / hashlib.sha1(content).hexdigest()).write_bytes(content)


if __name__ == "__main__":
    main()
