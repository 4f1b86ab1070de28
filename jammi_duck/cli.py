"""The command line: `jammi-duck demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jammi_duck.version import __version__

_DESCRIPTION = """\
Embed, store and search text in DuckDB, in plain SQL.

  jammi-duck demo      see it work on the documentation of your own Python
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 1 where the work failed, or 2 for a wrong call."""
    parser = argparse.ArgumentParser(
        prog="jammi-duck", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"jammi-duck {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="embed and search the docstrings of Python's standard library")
    demo.add_argument("--folder", type=Path, default=Path("demo-data"), help="where it writes (default: %(default)s)")
    options = parser.parse_args(arguments)

    import duckdb

    from jammi_duck.demo import run
    from jammi_duck.errors import JammiError

    try:
        run(options.folder)
    except (JammiError, duckdb.Error, OSError) as error:
        print(f"jammi-duck: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
