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

Compares the keys and the MD5 of the texts with those that were embedded. Nothing is
embedded or written. Coverage is the share of rows with text whose vectors are current.
"""
_REFRESH = """\
Bring an embedding table up to date.

  jammi-duck refresh patents

Embeds only texts that the table does not have, and removes rows that are gone. If a
refresh was killed, run it again. Two database files that share a location can refresh at
the same time; while one refreshes, no other process can open its file.
"""
_COMPACT = """\
Merge the files that refreshes have added.

  jammi-duck compact patents

Leaves out rows that are gone. Nothing is embedded: the rows of the other segments are
added to the largest index. The old files stay until a vacuum.
"""
_IMPORT = """\
Create an embedding table from existing vectors.

  jammi-duck import docs.parquet vectors.parquet id embedding --model all-MiniLM-L6-v2
  jammi-duck import docs.parquet vectors.parquet id embedding --model all-MiniLM-L6-v2 \\
      --columns title,body    so that refreshes can embed new rows

SOURCE and VECTORS have the key in a column of the same name. The vectors must be those
that the model computes for these columns, or searches find the wrong rows.
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
        command.add_argument("source", metavar="SOURCE", help="the table, view or file that was embedded")
        command.add_argument("--model", help="use the newest embedding table of this model (default: of any)")
        command.add_argument("--table", metavar="NAME", help="use this embedding table")
        add_database(command)
        add_json(command)

    taken = add_command(commands, "import", _IMPORT, _import)
    taken.add_argument("source", metavar="SOURCE", help="the rows that were embedded: a table, a view or a file")
    taken.add_argument("vectors", metavar="VECTORS", help="the table, view or file with the vectors")
    taken.add_argument("key", metavar="KEY", help="the key column of both; unique")
    taken.add_argument("vector", metavar="VECTOR", help="the column of VECTORS with the vectors")
    taken.add_argument("--model", required=True, help="the model that computed them: a name on the hub, or a directory")
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
    """The command that does the same as a call in SQL."""
    words = [sql[2], *(["--table", sql[3]] if sql[3] else [])]
    return f"`jammi-duck {sql[1]} {shlex.join(word.replace(2 * chr(39), chr(39)) for word in words)}`"
