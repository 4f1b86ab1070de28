"""Runs the installed `jammi-duck` as a user does: in a pipe, or on a terminal."""

import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pyte

BIN = Path(sys.executable).parent
ROWS, COLUMNS = 50, 100


def environment(**more):
    """That of the tests, with the installed script on the path."""
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    return {**os.environ, **path, "COLUMNS": str(COLUMNS), "HF_HUB_OFFLINE": "1", **more}


def in_pipe(command, cwd, **more):
    """Run a command line; returns the finished process with its output as text."""
    env = environment(**more)
    return subprocess.run(shlex.split(command), cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


class Terminal:
    """A command at work on a terminal; `screen` is what a person sees, `raw` all that was written."""

    def __init__(self, command, cwd, columns=COLUMNS, **more):
        env = environment(**more)
        del env["COLUMNS"]
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (ROWS, columns))
        self.process = subprocess.Popen(
            shlex.split(command), cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""

    def read_until(self, text):
        """Read on until `text` was written; all of it where that is None."""
        while text is None or text not in self.raw:
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # the other end is closed
                part = b""
            if not part:
                assert text is None, self.raw[-2000:]
                return
            self.raw += part
            self._stream.feed(part)

    def press_ctrl_c(self):
        self.process.send_signal(signal.SIGINT)

    def finish(self):
        """Read to the end; returns the exit code, and the lines that are on the screen then."""
        self.read_until(None)
        os.close(self._ours)
        return self.process.wait(60), [line.rstrip() for line in self.screen.display if line.strip()]
