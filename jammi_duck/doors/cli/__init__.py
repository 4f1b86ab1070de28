"""The command line: `jammi-duck`. Data go to standard output; progress, the log and errors to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

INTERRUPTED = 130


def program() -> None:
    """The installed script: runs the command line, and ends the process."""
    try:
        if sys.argv[1:2] == ["shell"]:
            # Apart from the other commands, which take ten times as long to be imported as the shell takes to start.
            from jammi_duck.doors.cli.shell import become_shell

            sys.exit(become_shell(sys.argv[2:]))
        from jammi_duck.doors.cli.parser import open_streams

        open_streams()
        code = main()
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        # DuckDB's threads may be on their way into Python still, and would abort the process while it ends in order.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, which `jammi-duck --help` explains."""
    from jammi_duck.doors.cli.parser import run

    return run(sys.argv[1:] if arguments is None else arguments)
