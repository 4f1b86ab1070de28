"""Runs the installed `jammi-duck` as a user does: in a pipe, or on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pyte

BIN = Path(sys.executable).parent
ROWS, COLUMNS = 50, 100
_PATIENCE = 60


def environment(**more: str) -> dict[str, str]:
    """That of this process, with the installed script on the path, and no model hub."""
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    return {**os.environ, **path, "COLUMNS": str(COLUMNS), "HF_HUB_OFFLINE": "1", **more}


def in_pipe(command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command; returns the finished process with its output as text."""
    env = environment(**more)
    return subprocess.run(shlex.split(command), cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def _take_terminal() -> None:
    """Have Ctrl-C on the terminal end up here."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A command at work on a terminal; `screen` is what a person sees, `raw` all that was written."""

    def __init__(self, command: str, cwd: Path, columns: int = COLUMNS, **more: str) -> None:
        """Start it in the folder `cwd`, with more variables."""
        env = environment(**more)
        del env["COLUMNS"]
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (ROWS, columns))
        self.process = subprocess.Popen(
            shlex.split(command),
            cwd=cwd,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self.screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""

    def read_until(self, text: bytes | None) -> None:
        """Read on until `text` was written; all of it where that is None.

        Raises:
            EOFError: it ended without the text.
            TimeoutError: nothing was written for a minute.
        """
        while text is None or text not in self.raw:
            if not self.read_more():
                if text is None:
                    return
                raise EOFError(f"{text!r} was not written, but {self.raw[-2000:]!r}")

    def read_more(self) -> bool:
        """Read what is there, or comes within a minute; False at the end. Raises TimeoutError."""
        if not select.select([self._ours], [], [], _PATIENCE)[0]:
            self.process.kill()
            raise TimeoutError(f"nothing was written for {_PATIENCE} s after {self.raw[-2000:]!r}")
        try:
            part = os.read(self._ours, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += part
        self._stream.feed(part)
        return bool(part)

    def write(self, text: bytes) -> None:
        """Type a text."""
        os.write(self._ours, text)

    def press_ctrl_c(self) -> None:
        """Interrupt it."""
        self.process.send_signal(signal.SIGINT)

    def finish(self) -> tuple[int, list[str]]:
        """Read to the end; returns the exit code, and the lines that are on the screen then."""
        self.read_until(None)
        os.close(self._ours)
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            del lines[-1]
        return self.process.wait(60), lines
