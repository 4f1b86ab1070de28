"""The worker of the stock DuckDB shell, which runs the functions that the extension calls.

The extension starts it, with a socket as file 3. Each calling thread of the shell has its own conversation, over
another socket that is sent through the first. The worker ends when the shell closes its end, at the latest at its exit.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from jammi_duck.config import logs, settings
from jammi_duck.doors.composition import loaded_encoders, open_engine
from jammi_duck.encoder.waits import INTERRUPTS
from jammi_duck.errors import JammiError
from jammi_duck.sql import Sql, joined, literal, quoted, sql
from jammi_duck.types import GIVEN
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.functions import FUNCTIONS
from jammi_duck.udfs.wire import (
    ANSWER,
    CALL,
    FAILURE,
    HEAD,
    MOST_BYTES,
    RESULT,
    SQL,
    Reader,
    Type,
    WireError,
    column_parts,
)

CONTROL = 3
# Seconds in which a worker has loaded its first model.
_START_SECONDS = 5


class HungUpError(Exception):
    """The shell has closed its end."""


class Conversation:
    """Frames to and from one thread of the shell."""

    def __init__(self, connection: socket.socket) -> None:
        """`connection` is the socket to that thread."""
        self._socket = connection

    def close(self) -> None:
        """Tell the other end that no more answers will come."""
        self._socket.close()

    def receive(self) -> tuple[int, bytearray]:
        """The next frame: its kind and content. Raises HungUpError at the end, and WireError if it is not a frame."""
        size, kind = HEAD.unpack(self._read(HEAD.size))
        if size > MOST_BYTES:
            raise WireError(f"a frame of {size} bytes")
        return kind, self._read(size)

    def _read(self, size: int) -> bytearray:
        content = bytearray(size)
        view = memoryview(content)
        while view:
            try:
                got = self._socket.recv_into(view)
            except OSError as error:
                raise HungUpError from error
            if not got:
                raise HungUpError
            view = view[got:]
        return content

    def send(self, kind: int, parts: Sequence[bytes | memoryview]) -> None:
        """Send one frame made of these parts. Raises HungUpError."""
        # All parts at once, because each separate part would wake the shell.
        frame = b"".join([HEAD.pack(sum(map(len, parts)), kind), *parts])
        try:
            self._socket.sendall(frame)
        except OSError as error:
            raise HungUpError from error

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Let the shell run a statement. Raises JammiError with DuckDB's message."""
        self.send(SQL, [text.encode()])
        kind, content = self.receive()
        if kind != RESULT:
            raise WireError(f"a frame of kind {kind} where a result must come")
        reader = Reader(content)
        if not reader.number("u1"):
            raise DatabaseError(bytes(content[1:]).decode(errors="replace"))
        types = [Type(int(kind)) for kind in reader.numbers("u1", reader.number("<u4"))]
        rows: list[tuple[Any, ...]] = []
        while count := reader.number("<u8"):
            columns = [reader.column(of, count).to_pylist() for of in types]
            rows += zip(*columns, strict=True)
        reader.end()
        return rows


class DatabaseError(JammiError):
    """DuckDB's message about a failed statement."""


class ShellHost:
    """See `jammi_duck.types.Host`: SQL runs in the shell, on behalf of the current call."""

    def __init__(self) -> None:
        """A host without a current call."""
        self._here = threading.local()
        self._home: str | None = None

    @contextlib.contextmanager
    def during(self, conversation: Conversation) -> Any:  # noqa: ANN401 - a context
        """A context for one call, in this thread."""
        self._here.conversation = conversation
        try:
            yield
        finally:
            del self._here.conversation

    def sql(self, text: Sql, parameters: Sequence[object] = (), rows: pa.Table | None = None) -> list[tuple[Any, ...]]:
        """See `jammi_duck.types.Host`."""
        conversation: Conversation = self._here.conversation
        if rows is not None:
            text = sql("WITH {} AS ({}) {}", quoted(GIVEN), _rows(rows), text)
        if not parameters:
            return conversation.sql(text)
        # In one statement, so that another thread's prepared statement of that name cannot come between.
        values = joined(", ", map(_literal, parameters))
        return conversation.sql(sql("PREPARE _jammi AS {}; EXECUTE _jammi ({})", text, values))

    def untouched(self, text: Sql) -> list[tuple[Any, ...]]:
        """See `jammi_duck.types.Host`; in the shell, only an extension can add a function."""
        return self.sql(text)

    def home(self) -> str:
        """See `jammi_duck.types.Host`."""
        if self._home is None:
            ((self._home,),) = self.sql(sql("SELECT current_database()"))
        return str(self._home)

    def directory(self) -> str:
        """See `jammi_duck.types.Host`: the shell's, which its `.cd` changes."""
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/{os.getppid()}/cwd")
        return os.getcwd()

    def may_be_look(self) -> bool:
        """See `jammi_duck.types.Host`: a shell has no relations."""
        return False


def _rows(rows: pa.Table) -> Sql:
    """A query that gives rows."""
    columns = (
        sql(
            "unnest({}::{}[]) AS {}",
            _literal(column.to_pylist()),
            Sql(
                f"FLOAT[{column.type.list_size}]"
                if pa.types.is_fixed_size_list(column.type)
                else "VARCHAR"
                if pa.types.is_string(column.type)
                else "BIGINT"
            ),
            quoted(name),
        )
        for name, column in zip(rows.column_names, rows.columns, strict=True)
    )
    return sql("SELECT {}", joined(", ", columns))


def _literal(value: object) -> Sql:
    if value is None or isinstance(value, str):
        return literal(value)
    if isinstance(value, bool | int | float):
        return Sql(repr(value))
    if isinstance(value, datetime):
        return sql("TIMESTAMP {}", literal(value.isoformat(sep=" ")))
    if isinstance(value, list | tuple):
        return sql("[{}]", joined(", ", map(_literal, value)))
    raise TypeError(f"{type(value).__name__} is no parameter of the engine")


class Worker:
    """Answers calls; the engine is opened by the first call that needs it."""

    def __init__(self) -> None:
        """Nothing is opened yet."""
        self._host = ShellHost()
        self._engine: Engine | None = None
        self._opening = threading.Lock()

    def serve(self, conversation: Conversation) -> None:
        """Answer calls until the other end is closed."""
        # An invalid frame ends the conversation, and the shell reports that to the user.
        with contextlib.closing(conversation), contextlib.suppress(HungUpError, WireError):
            while True:
                kind, content = conversation.receive()
                if kind != CALL:
                    return
                with self._host.during(conversation):
                    try:
                        answer = self._call(content)
                    except (HungUpError, WireError):
                        raise
                    except BaseException as error:
                        conversation.send(FAILURE, [_told(error).encode(errors="replace")])
                        continue
                conversation.send(ANSWER, answer)

    def _call(self, content: bytearray) -> list[bytes | memoryview]:
        reader = Reader(content)
        number, rows = reader.number("<u4"), reader.number("<u8")
        if number >= len(FUNCTIONS):
            raise WireError(f"function {number} of {len(FUNCTIONS)}")
        function = FUNCTIONS[number]
        columns = [pa.chunked_array([reader.column(Type.parse(kind), rows)]) for kind in function.parameters]
        reader.end()
        answer = function.answer(self._opened(), *columns)
        return column_parts(answer, Type.parse(function.returns))

    def _opened(self) -> Engine:
        with self._opening:
            if self._engine is None:
                found = settings.load()
                config = found.config
                if found.is_set("log_level") or found.is_set("log_format"):
                    logs.show(config.log_level, config.log_format)
                for line in found.unused:
                    logs.log.warning("%s", line)
                self._engine = open_engine(self._host, config, loaded_encoders(config))
            return self._engine

    def interrupt(self) -> None:
        """Stop the running builds, because Ctrl-C was pressed in the shell."""
        INTERRUPTS.ctrl_c()
        if self._engine is not None:
            self._engine.jobs.interrupt()


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class _NoPandas:
    """An import finder that hides pandas."""

    def find_spec(self, name: str, *_: object) -> None:
        """See `importlib.abc.MetaPathFinder`."""
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def do_without_pandas() -> None:
    """Let Arrow look for pandas, which it does once, and not find it: the import is slow, and nothing needs pandas."""
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(finder)


def postpone_collection(seconds: float) -> threading.Timer:
    """Switch the garbage collector off for so long: imports leave no garbage, and the search for it is slow."""
    gc.disable()

    def resume() -> None:
        gc.freeze()
        gc.enable()

    timer = threading.Timer(seconds, resume)
    timer.daemon = True
    timer.start()
    return timer


def _show(message: Warning | str) -> None:
    """Show a warning without a line of our Python, which is of no use in a shell."""
    sys.stderr.write(f"jammi-duck: {message}\n")


def main() -> None:
    """Serve until the shell ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    postpone_collection(_START_SECONDS)
    do_without_pandas()
    os.closerange(CONTROL + 1, 4096)
    control = socket.socket(fileno=CONTROL)
    control.set_inheritable(False)
    warnings.showwarning = lambda message, *_: _show(message)
    worker = Worker()
    while True:
        try:
            text, files, _, _ = socket.recv_fds(control, 1, 1)
        except OSError:
            text, files = b"", []
        if not text:
            # Other threads may still be working, but nobody needs their results.
            os._exit(0)
        if text == b"x":
            worker.interrupt()
            with contextlib.suppress(OSError):
                control.send(b"x")
        for file in files:
            conversation = Conversation(socket.socket(fileno=file))
            threading.Thread(target=worker.serve, args=[conversation], daemon=True).start()


if __name__ == "__main__":
    main()
