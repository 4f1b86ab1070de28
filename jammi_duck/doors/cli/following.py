"""The commands that keep embedding tables up to date: status, refresh, compact, import."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping
from datetime import timedelta

from jammi_duck.doors.cli.commands import INCOMPLETE, Commands, add_command, add_database, add_json, names
from jammi_duck.doors.cli.connection import equipped
from jammi_duck.doors.cli.output import fact_lines, print_json, print_objects

_STATUS = """\
Show whether an embedding table is up to date.

  jammi-duck status patents
  jammi-duck status patents --json | jq '.[].coverage'

It compares keys and texts with those that were embedded, by MD5; nothing is embedded or
written. Coverage is the share of the rows with text whose vectors are right.
"""
_REFRESH = """\
Bring an embedding table up to date.

  jammi-duck refresh patents

Only texts that the table does not have are embedded; rows that are gone are left out of
it. One that was killed can be run again. Two database files that share a location may
refresh at once; while one refreshes, no other process can open its file.
"""
_COMPACT = """\
Merge what refreshes have left into fewer files.

  jammi-duck compact patents

Rows that are gone are left out, and nothing is embedded: the largest index takes the
rows of the others. The old files stay until a vacuum.
"""
_IMPORT = """\
Make an embedding table from vectors that are there.

  jammi-duck import docs.parquet vectors.parquet id embedding --model all-MiniLM-L6-v2
  jammi-duck import docs.parquet vectors.parquet id embedding --model all-MiniLM-L6-v2 \\
      --columns title,body    so that a refresh can follow

Both have the key, by the same name. The vectors must be those that the model gives for
these columns, or searches find the wrong rows.
"""
_TEXT = "'((?:[^']|'')*)'"
_ADVICE = re.compile(rf"SELECT \* FROM jammi_(\w+)\({_TEXT}(?:, embedding_table := {_TEXT})?\)")


def add_to(commands: Commands) -> None:
    """Add these commands."""
    for name, text, run in (
        ("status", _STATUS, _status),
        ("refresh", _REFRESH, _refresh),
        ("compact", _COMPACT, _compact),
    ):
        command = add_command(commands, name, text, run)
        command.add_argument("source", metavar="SOURCE", help="what was embedded, by the same name")
        command.add_argument("--model", help="the embedding table of this model (default: the newest of any)")
        command.add_argument("--table", metavar="NAME", help="this embedding table")
        add_database(command)
        add_json(command)

    taken = add_command(commands, "import", _IMPORT, _import)
    taken.add_argument("source", metavar="SOURCE", help="what the vectors are of: a table, a view, or a file")
    taken.add_argument("vectors", metavar="VECTORS", help="the table, the view or the file that has them")
    taken.add_argument("key", metavar="KEY", help="the column that names a row, in both; unique")
    taken.add_argument("vector", metavar="VECTOR", help="the column of VECTORS that has the vector")
    taken.add_argument("--model", required=True, help="the model that made them, as on the hub, or a directory")
    taken.add_argument("--columns", metavar="A,B", type=names, help="the columns of SOURCE whose text was embedded")
    add_database(taken)
    add_json(taken)


def _status(options: argparse.Namespace) -> None:
    with equipped(options.settings, read_only=True) as jammi:
        found = jammi.status(options.source, model=options.model, embedding_table=options.table)
        if options.json:
            print_json(found)
        else:
            (row,) = found.fetchall()
            _print(dict(zip(found.columns, row, strict=True)))


def _refresh(options: argparse.Namespace) -> int:
    with equipped(options.settings) as jammi:
        refreshed = jammi.refresh(options.source, model=options.model, embedding_table=options.table)
    _show(options, vars(refreshed))
    return INCOMPLETE if refreshed.failed else 0


def _compact(options: argparse.Namespace) -> None:
    with equipped(options.settings) as jammi:
        compacted = jammi.compact(options.source, model=options.model, embedding_table=options.table)
    _show(options, vars(compacted))


def _import(options: argparse.Namespace) -> None:
    with equipped(options.settings) as jammi:
        built = jammi.import_vectors(
            options.source, options.vectors, options.key, options.vector, options.model, options.columns
        )
    _show(options, vars(built))


def _show(options: argparse.Namespace, facts: Mapping[str, object]) -> None:
    if options.json:
        print_objects([facts])
    else:
        _print(facts)


def _print(facts: Mapping[str, object]) -> None:
    print(*fact_lines({name: _plain(value) for name, value in facts.items() if value is not None}), sep="\n")


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return timedelta(seconds=int(value.total_seconds()))
    return _ADVICE.sub(_command, value) if isinstance(value, str) else value


def _command(sql: re.Match[str]) -> str:
    """The command line that does as a call in SQL."""
    words = [sql[2], *(["--table", sql[3]] if sql[3] else [])]
    return f"`jammi-duck {sql[1]} {shlex.join(word.replace(2 * chr(39), chr(39)) for word in words)}`"
