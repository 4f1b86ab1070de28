"""The commands that keep embedding tables up to date: sync, status, refresh, compact, import."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta

from jammi_duck.config.logs import log
from jammi_duck.config.redaction import redacted
from jammi_duck.doors.cli.commands import (
    FAILED,
    INCOMPLETE,
    STALE,
    Commands,
    add_chosen,
    add_command,
    add_database,
    add_embedded,
    add_json,
    add_language,
    add_passages,
    add_words,
    embedded_columns,
    names,
    passages_asked,
)
from jammi_duck.doors.cli.connection import equipped
from jammi_duck.doors.cli.output import fact_lines, print_json, print_objects
from jammi_duck.errors import InputError, JammiError
from jammi_duck.sql import folded_sql, sql
from jammi_duck.work.jobs import InterruptedJobError

_SYNC = """\
Embed a table the first time, and update it afterwards.

  jammi-duck sync patents --columns title,abstract --key id
  jammi-duck sync patents --column title --column text=abstract,claims --key id

Made for schedulers: the same command is right at each run. It refreshes the newest
embedding table of the same columns, key, model, dimensions and name. If there is none, it
continues a build that was interrupted, or begins one.
"""
_STATUS = """\
Show whether an embedding table is up to date.

  jammi-duck status patents
  jammi-duck status patents --json | jq '.[].coverage'
  jammi-duck status patents --exit-code || jammi-duck refresh patents

Compares the keys and the MD5 of the texts with those that were embedded. Nothing is
embedded or written. Coverage is the share of rows with text whose vectors are current.
"""
_REFRESH = """\
Bring an embedding table up to date, or all of them.

  jammi-duck refresh patents
  jammi-duck refresh --all

Of several tables of one source with the same columns, key, model, dimensions and name,
--all refreshes the newest. It goes on after an error, and then exits with 1.

Embeds only texts that the table does not have, and removes rows that are gone. If a
refresh was killed, run it again. Two database files that share a location can refresh at
the same time; while one refreshes, no other process can open its file.

For searches that see each change, see `jammi-duck follow --help`.
"""
_FOLLOW = """\
Let every search of a table see what is committed, from now on.

  jammi-duck follow patents
  jammi-duck follow patents --no-triggers

Each search embeds first what has changed. In a file of DuckDB 2.0, triggers note the rows
that change; DuckDB refuses MERGE INTO and RENAME for a table with triggers. Otherwise,
and with --no-triggers, each search compares the table. `jammi-duck unfollow` ends it.
"""
_UNFOLLOW = """\
Follow a table no more.

  jammi-duck unfollow patents

Removes the triggers, and the table of changes. The embedding table stays as it is.
"""
_COMPACT = """\
Merge the files that refreshes have added.

  jammi-duck compact patents

Leaves out rows that are gone. Nothing is embedded: the rows of the other segments are
added to the largest index. The old files stay until a vacuum.
"""
_INDEX_WORDS = """\
Index the words of an embedding table that lacks such an index.

  jammi-duck index-words patents
  jammi-duck index-words patents --language german

Reads the texts of the source, and embeds nothing.
"""
_IMPORT = """\
Create an embedding table from existing vectors.

  jammi-duck import docs.parquet vectors.parquet id embedding --model all-MiniLM-L6-v2
  jammi-duck import docs.parquet vectors.parquet id embedding --model all-MiniLM-L6-v2 \\
      --columns title,body    so that refreshes can embed new rows
  jammi-duck import docs.parquet passages.parquet id embedding --model all-MiniLM-L6-v2 \\
      --columns body --start first --end last    where each passage is in its text

SOURCE and VECTORS have the key in a column of the same name. The vectors must be those
that the model computes for these columns, or searches find the wrong rows.
"""
# The newest table of each definition and name.
_ALL = sql(
    """
    SELECT source, embedding_table FROM jammi_tables() WHERE status = 'ready'
    QUALIFY row_number() OVER (
        PARTITION BY source, list_transform(columns, lambda c: {column}), {key}, model, dimensions,
            split_part(embedding_table, '__embedding__', 1)
        ORDER BY started DESC
    ) = 1
    ORDER BY source ASC, started ASC
    """,
    column=folded_sql(sql("c")),
    key=folded_sql(sql("key")),
)
_TEXT = "'((?:[^']|'')*)'"
_ADVICE = re.compile(rf"SELECT \* FROM jammi_(\w+)\({_TEXT}(?:, embedding_table := {_TEXT})?\)")


def add_to(commands: Commands) -> None:
    """Add these commands."""
    synced = add_command(commands, "sync", _SYNC, _sync)
    add_embedded(synced)
    add_database(synced)
    add_json(synced)

    for name, text, run in (
        ("status", _STATUS, _status),
        ("refresh", _REFRESH, _refresh),
        ("compact", _COMPACT, _compact),
        ("index-words", _INDEX_WORDS, _index_words),
    ):
        command = add_command(commands, name, text, run)
        command.add_argument(
            "source",
            metavar="SOURCE",
            help="the table, view or file that was embedded",
            nargs="?" if name == "refresh" else None,
        )
        if name == "refresh":
            command.add_argument("--all", action="store_true", help="refresh the embedding tables of all sources")
        if name == "index-words":
            add_language(command)
        if name == "status":
            command.add_argument("--exit-code", action="store_true", help=f"exit with {STALE} if rows have changed")
        add_chosen(command, "use")
        add_database(command)
        add_json(command)

    for name, text, run in (("follow", _FOLLOW, _follow), ("unfollow", _UNFOLLOW, _unfollow)):
        command = add_command(commands, name, text, run, listed=False)
        command.add_argument("source", metavar="SOURCE", help="the table, view or file that was embedded")
        if name == "follow":
            command.add_argument("--no-triggers", action="store_true", help="compare the table at each search")
        add_database(command, server=False)
        add_json(command)

    taken = add_command(commands, "import", _IMPORT, _import)
    taken.add_argument("source", metavar="SOURCE", help="the rows that were embedded: a table, a view or a file")
    taken.add_argument("vectors", metavar="VECTORS", help="the table, view or file with the vectors")
    taken.add_argument("key", metavar="KEY", help="the key column of both; unique, but for passages in VECTORS")
    taken.add_argument("vector", metavar="VECTOR", help="the column of VECTORS with the vectors")
    taken.add_argument("--model", required=True, help="the model that computed them: a name on the hub, or a directory")
    taken.add_argument("--columns", metavar="A,B", type=names, help="the columns of SOURCE whose text was embedded")
    add_words(taken)
    cut = add_passages(taken, "the vectors are of passages, and a refresh cuts texts as said here")
    for name in ("start", "end"):
        cut.add_argument(f"--{name}", metavar="COLUMN", help=f"the column of VECTORS that says where a passage {name}s")
    add_database(taken)
    add_json(taken)


def _follow(options: argparse.Namespace) -> None:
    with equipped(options) as jammi:
        _show(options, vars(jammi.follow(options.source, triggers=False if options.no_triggers else None)))


def _unfollow(options: argparse.Namespace) -> None:
    with equipped(options) as jammi:
        _show(options, vars(jammi.unfollow(options.source)))


def _sync(options: argparse.Namespace) -> int:
    with equipped(options) as jammi:
        synced = jammi.sync(
            options.source,
            embedded_columns(options),
            options.key,
            options.model,
            dims=options.dims,
            name=options.name,
            words=not options.no_words,
            language=options.language,
            vectors=not options.no_vectors,
            passages=passages_asked(options),
        )
    if not isinstance(synced, dict):
        _show(options, vars(synced))
        return INCOMPLETE if synced.failed_count else 0
    _show_all(options, list(map(vars, synced.values())))
    return INCOMPLETE if any(each.failed_count for each in synced.values()) else 0


def _status(options: argparse.Namespace) -> int:
    with equipped(options, read_only=True) as jammi:
        found = jammi.status(options.source, **_chosen(options))
        (row,) = found.fetchall()
        facts = dict(zip(found.columns, row, strict=True))
        if options.json:
            print_json(found)
        else:
            _print(facts)
    is_stale = facts["new"] or facts["changed"] or facts["gone"]
    return STALE if options.exit_code and is_stale else 0


def _refresh(options: argparse.Namespace) -> int:
    if options.all == (options.source is not None):
        raise InputError("name the source to refresh, or all of them with --all")
    if options.all:
        return _refresh_all(options)
    with equipped(options) as jammi:
        refreshed = jammi.refresh(options.source, **_chosen(options))
    _show(options, vars(refreshed))
    return INCOMPLETE if refreshed.failed else 0


def _refresh_all(options: argparse.Namespace) -> int:
    if options.model or options.table or options.column:
        raise InputError("--all refreshes all tables, of all models; leave out --model, --table and --column")
    done, codes = [], {0}
    with equipped(options) as jammi:
        try:
            for source, table in jammi.con.execute(_ALL).fetchall():
                try:
                    refreshed = jammi.refresh(source, embedding_table=table)
                except InterruptedJobError:
                    raise
                except JammiError as error:
                    log.error("%s was not refreshed: %s", table, redacted(str(error), options.settings.config.secrets))
                    codes.add(FAILED)
                    continue
                done.append(vars(refreshed))
                codes.add(INCOMPLETE if refreshed.failed else 0)
        finally:
            _show_all(options, done)
    return FAILED if FAILED in codes else max(codes)


def _chosen(options: argparse.Namespace) -> dict[str, str | None]:
    return {"model": options.model, "embedding_table": options.table, "column": options.column}


def _show_all(options: argparse.Namespace, done: Sequence[Mapping[str, object]]) -> None:
    if options.json:
        print_objects(done)
        return
    for facts in done:
        _print(facts)
        print()


def _compact(options: argparse.Namespace) -> None:
    with equipped(options) as jammi:
        compacted = jammi.compact(options.source, **_chosen(options))
    _show(options, vars(compacted))


def _index_words(options: argparse.Namespace) -> None:
    with equipped(options) as jammi:
        indexed = jammi.index_words(options.source, options.language, **_chosen(options))
    _show(options, vars(indexed))


def _import(options: argparse.Namespace) -> None:
    with equipped(options) as jammi:
        built = jammi.import_vectors(
            options.source,
            options.vectors,
            options.key,
            options.vector,
            options.model,
            options.columns,
            not options.no_words,
            options.language,
            passages_asked(options),
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
