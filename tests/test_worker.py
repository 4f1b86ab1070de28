"""The worker's end of a conversation, without the shell: whatever the other end sends, the next one is answered."""

import gc
import socket
import struct
import subprocess
import sys
import threading

import pyarrow as pa
import pytest

from jammi_duck.doors import worker
from jammi_duck.udfs import wire
from jammi_duck.udfs.functions import ScalarFunction

TEXT = wire.Type.parse("VARCHAR")


@pytest.fixture
def shell(monkeypatch):
    """Opens conversations with a worker that has two functions: one gives its text, one the answer to it as SQL."""

    def ask(host, column):
        return pa.array([str(host.sql(text)) for text in column.to_pylist()])

    functions = [
        ScalarFunction("same", ("VARCHAR",), "VARCHAR", False, lambda host, column: column.combine_chunks()),
        ScalarFunction("ask", ("VARCHAR",), "VARCHAR", True, ask),
    ]
    monkeypatch.setattr(worker, "FUNCTIONS", functions)
    serving = worker.Worker()
    monkeypatch.setattr(serving, "_engine", serving._host)
    threads, ends = [], []

    def connect():
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        threads.append(threading.Thread(target=serving.serve, args=[worker.Conversation(theirs)], daemon=True))
        threads[-1].start()
        ends.append(ours)
        return ours

    yield connect
    for end in ends:
        end.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def call(text, number=0):
    content = struct.pack("<IQ", number, 1) + b"".join(wire.column_parts(pa.array([text]), TEXT))
    return frame(wire.CALL, content)


def frame(kind, content):
    return wire.HEAD.pack(len(content), kind) + content


def received(end):
    """The kind and content of the next frame; None where the worker has hung up."""
    try:
        return worker.Conversation(end).receive()
    except worker.HungUpError:
        return None


def answered(end):
    kind, content = received(end)
    assert kind == wire.ANSWER
    return wire.Reader(content).column(TEXT, 1).to_pylist()


SOUND = call("a duck")
MALFORMED = {
    "larger than any": wire.HEAD.pack(wire.MOST_BYTES + 1, wire.CALL),
    "larger than memory": wire.HEAD.pack((1 << 64) - 1, wire.CALL),
    "of an unknown kind": frame(9, SOUND[wire.HEAD.size :]),
    "an answer": frame(wire.ANSWER, SOUND[wire.HEAD.size :]),
    "a result that nobody asked for": frame(wire.RESULT, b"\1\0\0\0\0"),
    "an empty call": frame(wire.CALL, b""),
    "a function that there is not": call("a duck", number=2),
    "cut short inside": frame(wire.CALL, SOUND[wire.HEAD.size : -1]),
    "too long": frame(wire.CALL, SOUND[wire.HEAD.size :] + b"\0"),
    "more rows than bytes": frame(wire.CALL, struct.pack("<IQB", 0, 1 << 40, 0)),
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_call_ends_its_conversation_and_no_other(shell, sent):
    other = shell()
    end = shell()
    end.sendall(sent)
    assert received(end) is None
    other.sendall(SOUND)
    assert answered(other) == ["a duck"]


@pytest.mark.parametrize("size", [0, 1, wire.HEAD.size, len(SOUND) - 1])
def test_a_frame_that_is_never_finished_ends_its_conversation(shell, size):
    end = shell()
    end.sendall(SOUND[:size])
    end.shutdown(socket.SHUT_WR)
    assert received(end) is None


def test_a_conversation_has_many_calls(shell):
    end = shell()
    for text in ("a duck", "", "\N{DUCK}", "x" * 1_000_000):
        end.sendall(call(text))
        assert answered(end) == [text]


class TestSql:
    def asked(self, shell):
        end = shell()
        end.sendall(call("SELECT 1", number=1))
        assert received(end) == (wire.SQL, b"SELECT 1")
        return end

    def test_its_rows_are_the_answer(self, shell):
        end = self.asked(shell)
        rows = struct.pack("<BIBQ", 1, 1, 4, 2) + b"\0" + struct.pack("<ii", 7, 8) + struct.pack("<Q", 0)
        end.sendall(frame(wire.RESULT, rows))
        assert answered(end) == ["[(7,), (8,)]"]

    def test_an_error_fails_the_call_and_leaves_the_conversation(self, shell):
        end = self.asked(shell)
        end.sendall(frame(wire.RESULT, b"\0no such table"))
        assert received(end) == (wire.FAILURE, b"DatabaseError: no such table")
        end.sendall(SOUND)
        assert answered(end) == ["a duck"]

    @pytest.mark.parametrize(
        "sent",
        [
            frame(wire.RESULT, b""),
            frame(wire.RESULT, b"\1\1\0\0\0"),
            frame(wire.RESULT, b"\1\0\0\0\0" + bytes(8) + b"x"),
            frame(wire.ANSWER, b"\1\0\0\0\0" + bytes(8)),
            SOUND,
        ],
    )
    def test_what_is_no_result_ends_the_conversation(self, shell, sent):
        end = self.asked(shell)
        end.sendall(sent)
        assert received(end) is None


class TestStart:
    def test_garbage_is_collected_later(self):
        try:
            timer = worker.postpone_collection(60)
            assert not gc.isenabled()
            timer.cancel()
            worker.postpone_collection(0).join()
            assert gc.isenabled()
        finally:
            gc.enable()
            gc.unfreeze()

    def test_pandas_is_hidden_from_arrow_alone(self):
        pytest.importorskip("pandas")
        program = (
            "import sys, numpy, pyarrow\n"
            "from jammi_duck.doors import worker\n"
            "worker.do_without_pandas()\n"
            "assert pyarrow.array(numpy.array([1.5, 2])).to_pylist() == [1.5, 2]\n"
            "assert 'pandas' not in sys.modules\n"
            "import pandas\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True)
