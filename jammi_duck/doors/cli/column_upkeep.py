"""The commands that look after a column of vectors: size, instrument, cleanup."""

from __future__ import annotations

import argparse

from jammi_duck.doors.cli.column_database import add_column, add_how, add_key, opened_column
from jammi_duck.doors.cli.commands import Commands, add_command, add_json
from jammi_duck.doors.cli.output import fact_lines, print_objects

_SIZE = """\
Show what the vectors of your own table take.

  jammi-duck size -u my.duckdb -t passage -o passage_vector
"""
_INSTRUMENT = """\
Have the database note when the text of a vector changes.

  jammi-duck instrument -u my.duckdb -t passage -i passage -o passage_vector
  jammi-duck instrument -u postgresql://me@host/db -t passage -i passage -o vector

On PostgreSQL and CockroachDB, a trigger sets the vector NULL in each statement that
changes the text, unless it gives a vector itself; and an index of the vectors makes
searches faster. In a DuckDB file of the format v2.0.0 or later, a trigger notes changes
in a table, and the next `jammi-duck embed` embeds these rows again.
"""
_CLEANUP = """\
Undo `instrument`.

  jammi-duck cleanup -u my.duckdb -t passage -i passage -o passage_vector

The vectors stay. It may be run again and again.
"""


def add_to(commands: Commands) -> None:
    """Add these commands."""
    size = add_command(commands, "size", _SIZE, _size, listed=False)
    add_column(size, text=False, model=False)
    add_json(size)
    instrument = add_command(commands, "instrument", _INSTRUMENT, _instrument, listed=False)
    cleanup = add_command(commands, "cleanup", _CLEANUP, _cleanup, listed=False)
    for command in (instrument, cleanup):
        add_column(command, model=False)
        add_key(command)
    instrument.add_argument("--no-index", action="store_true", help="make no index of the vectors")
    for command in (size, instrument, cleanup):
        add_how(command)


def _size(options: argparse.Namespace) -> None:
    with opened_column(options, read_only=True, needs_key=False) as column:
        size = column.size()
    facts = {
        "rows_with_vector": size.filled,
        "rows_without_vector": size.empty,
        "dimensions": size.dimensions,
        "vector_bytes": size.bytes,
        "index_bytes": size.index_bytes,
    }
    if options.json:
        print_objects([facts])
        return
    for line in fact_lines(facts):
        print(line)


def _instrument(options: argparse.Namespace) -> None:
    with opened_column(options, read_only=False, any_type=True) as column:
        for line in column.instrument(index=not options.no_index):
            print(line)


def _cleanup(options: argparse.Namespace) -> None:
    with opened_column(options, read_only=False, any_type=True) as column:
        for line in column.cleanup():
            print(line)
