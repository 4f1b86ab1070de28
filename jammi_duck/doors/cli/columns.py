"""The commands for vectors in a column of the user's own table: embed, sql, and search with --url."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

import duckdb

from jammi_duck.config.logs import log
from jammi_duck.doors.cli import INTERRUPTED
from jammi_duck.doors.cli.column_database import (
    AnyColumn,
    add_column,
    add_how,
    add_key,
    encoder_of,
    is_server,
    need_one,
    opened_column,
    takes_any_type,
)
from jammi_duck.doors.cli.commands import INCOMPLETE, Commands, add_command, number
from jammi_duck.encoder import Encoder
from jammi_duck.errors import InputError
from jammi_duck.work.fill import Filled, Row, Tried, fill
from jammi_duck.work.progress import Progress

# What `jammi-duck search` becomes where it has a database of its own.
NEAREST = "search-column"
_EMBED = """\
Fill a column of your own table with vectors of its text.

  jammi-duck embed -u my.duckdb -t passage -i passage -o passage_vector
  jammi-duck embed -u my.duckdb -t passage -i passage -o passage_vector -F -p
  jammi-duck embed -u postgresql://me@host/db -t passage -i passage -o vector --watch

Embeds rows whose vector is NULL, and adds the column if it is not there. It ends after
--num-batches of --batch-size rows, or with --follow once no row is left; each batch is
written as a whole. To have a row embedded again, set its vector NULL, or let
`jammi-duck instrument` do it. The database is a file of DuckDB, or one of PostgreSQL with
pgvector, or of CockroachDB. The password may stand in PGPASSWORD or in ~/.pgpass.
"""
_NEAREST = """\
Find the rows of your own table whose vectors are nearest to a text.

  jammi-duck search-column -u my.duckdb -t passage -i passage -o passage_vector "why?"
  jammi-duck search -u my.duckdb -t passage -i passage -o passage_vector "why?"

Compares the vectors that `jammi-duck embed` has stored; the distance is that of cosines.
"""
_SQL = """\
Print the statement that `search --url` runs.

  jammi-duck sql -u my.duckdb -t passage -i passage -o passage_vector "why?"

It has the vector of the text in it, and runs in any client of the database.
"""
_PREVIEW = 40
_MIN_IDLE, _MAX_IDLE = 1.0, 60.0
_URL = re.compile(r"-u\S*|--url(=.*)?")
# So long, other programs may have a file that is watched.
_PATIENCE = timedelta(days=1)


def add_to(commands: Commands) -> None:
    """Add these commands."""
    embed = add_command(commands, "embed", _EMBED, _embed)
    add_column(embed)
    add_key(embed)
    embed.add_argument(
        "-b", "--batch-size", metavar="N", type=number, default=1000, help="rows for each write (default: %(default)s)"
    )
    embed.add_argument(
        "-n", "--num-batches", metavar="N", type=number, default=1, help="batches in a run (default: %(default)s)"
    )
    embed.add_argument("-w", "--workers", metavar="N", type=number, help="cores that embed (default: all)")
    embed.add_argument("-F", "--follow", action="store_true", help="go on until no row is left")
    embed.add_argument("--watch", action="store_true", help="then wait for more rows, until Ctrl-C")
    embed.add_argument(
        "--min-idle", metavar="SECONDS", type=float, help=f"how long to wait at first (default: {_MIN_IDLE:g})"
    )
    embed.add_argument(
        "--max-idle", metavar="SECONDS", type=float, help=f"how long to wait at most (default: {_MAX_IDLE:g})"
    )
    embed.add_argument("-p", "--progress", action="store_true", help="show a progress bar")
    embed.add_argument("-v", "--verbose", action="store_true", help="print a line for each row")
    add_how(embed)
    nearest = add_command(commands, NEAREST, _NEAREST, _nearest, listed=False)
    statement = add_command(commands, "sql", _SQL, _statement, listed=False)
    for command in (nearest, statement):
        add_column(command)
        add_key(command)
        command.add_argument("query", metavar="TEXT", help="the text to search for")
        command.add_argument(
            "-l", "--limit", metavar="N", type=number, default=10, help="the number of rows (default: %(default)s)"
        )
        command.add_argument("--where", metavar="SQL", help="a condition over the columns")
        command.add_argument("-v", "--verbose", action="store_true", help="print the key's columns and types, too")
        add_how(command)


def named(words: Sequence[str]) -> Sequence[str]:
    """A command line in which `search` with a --url is the command for columns."""
    # What comes after -- is text, and so is what has a space in it.
    options = itertools.takewhile(lambda word: word != "--", words[1:])
    is_nearest = words[:1] == ["search"] and any(_URL.fullmatch(word) for word in options)
    return [NEAREST, *words[1:]] if is_nearest else words


def _embed(options: argparse.Namespace) -> int:
    need_one(options, "batch_size", "num_batches", "workers")
    idle = _Idle(options)
    told = _Told(options)
    try:
        _embed_rows(options, told, idle)
    except (Exception, KeyboardInterrupt) as error:
        # In DuckDB, the interrupt may appear as another error.
        if not isinstance(error, KeyboardInterrupt | duckdb.InterruptException) and not options.ctrl_c.pressed:
            raise
        told.end(is_stopped=True)
        return INTERRUPTED
    told.end()
    return INCOMPLETE if told.failed else 0


def _embed_rows(options: argparse.Namespace, told: _Told, idle: _Idle) -> None:
    any_type = takes_any_type(options)
    encoder: Encoder | None = None
    tried = Tried()
    column: AnyColumn | None = None
    with contextlib.ExitStack() as stack:
        while True:
            if column is None:
                wait = _PATIENCE if options.watch else None
                column = stack.enter_context(opened_column(options, read_only=False, any_type=any_type, wait=wait))
            if encoder is None:
                encoder = encoder_of(options, options.workers)
                is_new = column.create(encoder.dimensions)
                told.line(f"Column {options.output} {'was added' if is_new else 'already exists'}")
            filled = _filled(options, column, encoder, told, tried)
            if not options.watch:
                return
            if not is_server(options.url):
                # Or nobody else could write to the file.
                column = None
                stack.close()
            idle.sleep(was_idle=not filled.filled)


def _filled(options: argparse.Namespace, column: AnyColumn, encoder: Encoder, told: _Told, tried: Tried) -> Filled:
    is_endless = options.follow or options.watch
    rows = sys.maxsize if is_endless else options.batch_size * options.num_batches
    with told.bar(column, rows):
        filled = fill(
            column,
            encoder,
            batch_size=options.batch_size,
            batches=options.num_batches,
            to_the_end=is_endless,
            began=told.began,
            encoded=told.encoded,
            failed=told.has_failed,
            written=told.wrote,
            workers=options.workers or 1,
            verbose=options.debug,
            tried=tried,
        )
    told.ran(filled)
    return filled


class _Idle:
    """How long to wait for more rows: twice as long each time, as long as none come."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises InputError where the options contradict each other."""
        for name, value in (("--min-idle", options.min_idle), ("--max-idle", options.max_idle)):
            if value is not None and not options.watch:
                raise InputError(f"{name} says how long --watch waits, and that is not given: add --watch")
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} is {value:g}; it must be a number of seconds above 0")
        self._least = _MIN_IDLE if options.min_idle is None else options.min_idle
        self._most = max(_MAX_IDLE, self._least) if options.max_idle is None else options.max_idle
        if self._least > self._most:
            raise InputError(f"--min-idle is {self._least:g}, more than --max-idle, which is {self._most:g}")
        self._next = self._least

    def sleep(self, *, was_idle: bool) -> None:
        """Wait."""
        self._next = min(self._next * 2, self._most) if was_idle else self._least
        time.sleep(self._next)


class _Told:
    """What is told of a run: a line for each row, a bar, or a summary."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._is_verbose = options.verbose or options.debug
        self._parts = options.workers or 1
        self._bar: Progress | None = None
        self._start = time.perf_counter()
        self._runs = self._last_run = 0
        self._filled = self._skipped = self._left = 0
        self._seconds = 0.0
        self._first_failed: tuple[Row, str] | None = None
        self.failed = 0

    @contextlib.contextmanager
    def bar(self, column: AnyColumn, most: int) -> Iterator[None]:
        """A bar for so many rows, where it is wanted."""
        if not self._options.progress:
            yield
            return
        self._bar = Progress("embed", self._options.table, min(column.count(with_text=True), most))
        try:
            yield
        finally:
            self._bar.close()

    def began(self, run: int, batch: int, rows: int) -> None:
        self._last_run = self._runs + run
        self.line(f"Run {self._last_run}, Batch {batch} starting ({rows} rows)")

    def encoded(self, batch: int, rows: Sequence[Row]) -> None:
        if self._bar is not None:
            self._bar.advance(len(rows))
        if not self._is_verbose:
            return
        size = -(-len(rows) // self._parts)
        for first in range(0, len(rows), size or 1):
            part = rows[first : first + size]
            for place, row in enumerate(part, start=1):
                preview = str(row.value)[:_PREVIEW]
                self.line(f"(batch {batch}, {place}/{len(part)}) Updating vector for row id {row.key}: '{preview}'")

    def has_failed(self, batch: int, row: Row, reason: str) -> None:
        self.failed += 1
        self._first_failed = self._first_failed or (row, reason)
        self.line(f"(batch {batch}) No vector for row id {row.key}: {reason}")

    def wrote(self, rows: int) -> None:
        self._filled += rows

    def ran(self, filled: Filled) -> None:
        """Note the end of a run, which more may follow."""
        self._runs = self._last_run
        self._skipped, self._left = filled.skipped, filled.left
        self._seconds += filled.seconds
        if self._first_failed is not None:
            row, reason = self._first_failed
            log.warning("rows that could not be embedded: %d; the first is row id %s: %s", self.failed, row.key, reason)
            self._first_failed = None

    def end(self, *, is_stopped: bool = False) -> None:
        seconds = time.perf_counter() - self._start if is_stopped else self._seconds
        if self._is_verbose and not is_stopped:
            print(f"Done in {seconds} seconds")
            self.line("Vectorization complete.")
            return
        facts = [f"rows embedded: {self._filled:,}, in {seconds:.1f} s"]
        facts += [f"not embedded: {self.failed:,}"] if self.failed else []
        facts += [f"without a text: {self._skipped:,}"] if self._skipped else []
        left = self._left - self.failed
        facts += [f"left: {left:,} ({self._why_left})"] if left > 0 and not is_stopped else []
        facts += ["stopped by Ctrl-C"] if is_stopped else []
        print("; ".join(facts))

    @property
    def _why_left(self) -> str:
        if not (self._options.follow or self._options.watch):
            return "run it again, or with --follow"
        return "others change them, or a trigger, rule or policy of the table keeps no vectors there"

    def line(self, text: str) -> None:
        if self._is_verbose:
            print(f"[INFO] {text}", flush=True)


def _nearest(options: argparse.Namespace) -> None:
    _check_search(options)
    with opened_column(options, read_only=True, any_type=True) as column:
        vector = encoder_of(options).encode([options.query], "query")[0]
        found = column.nearest(vector.tolist(), options.limit, options.where)
        _print_key(options, column)
        for near in found:
            print(f"{near.distance} --> {near.key}\n{near.text or ''}\n")


def _statement(options: argparse.Namespace) -> None:
    _check_search(options)
    with opened_column(options, read_only=True, any_type=True) as column:
        vector = encoder_of(options).encode([options.query], "query")[0]
        statement = column.nearest_sql(vector.tolist(), options.limit, options.where)
        _print_key(options, column)
        print(f"{statement};")


def _check_search(options: argparse.Namespace) -> None:
    need_one(options, "limit")
    if options.where is not None and not options.where.strip():
        raise InputError("--where is empty: give it a condition, such as 'id > 10', or leave it out")


def _print_key(options: argparse.Namespace, column: AnyColumn) -> None:
    if options.verbose or options.debug:
        print(f"[INFO] PK: {', '.join(column.key)} ({column.key_type})\n")
