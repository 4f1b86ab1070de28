"""The commands for vectors in a column of the user's own table: embed, and search with --url."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence

from jammi_duck.doors.cli.commands import INCOMPLETE, Commands, add_command, add_models, number
from jammi_duck.doors.cli.connection import opened
from jammi_duck.doors.composition import loaded_encoders
from jammi_duck.doors.database_file import expanded
from jammi_duck.doors.host import ConnectionHost
from jammi_duck.encoder import Encoder
from jammi_duck.errors import InputError, NotFoundError
from jammi_duck.raised import errors_of_ours
from jammi_duck.types import Host
from jammi_duck.udfs.vector_column import VectorColumn
from jammi_duck.work.fill import Filled, Row, fill
from jammi_duck.work.progress import Progress

# What `jammi-duck search` becomes where it has a database of its own.
NEAREST = "search-column"
_EMBED = """\
Fill a column of your own table with the vectors of a text column.

  jammi-duck embed -u my.duckdb -t passage -i passage -o passage_vector
  jammi-duck embed -u my.duckdb -t passage -i passage -o passage_vector -F -p

Embeds rows whose vector is NULL, and adds the column if it is not there. It ends after
--num-batches of --batch-size rows, or with --follow once no row is left; each batch is
written as a whole. To have a row embedded again, set its vector NULL.
"""
_NEAREST = """\
Find the rows of your own table whose vectors are nearest to a text.

  jammi-duck search-column -u my.duckdb -t passage -i passage -o passage_vector "why?"
  jammi-duck search -u my.duckdb -t passage -i passage -o passage_vector "why?"

Compares the vectors that `jammi-duck embed` has stored; the distance is that of cosines.
"""
_PREVIEW = 40
_URL = re.compile(r"-u\S*|--url(=.*)?")
_SERVERS = re.compile(r"\s*(postgres|postgresql|cockroachdb)(\+\w+)?://", re.IGNORECASE)


def add_to(commands: Commands) -> None:
    """Add these commands."""
    embed = add_command(commands, "embed", _EMBED, _embed)
    _add_column(embed)
    embed.add_argument(
        "-b", "--batch-size", metavar="N", type=number, default=1000, help="rows for each write (default: %(default)s)"
    )
    embed.add_argument(
        "-n", "--num-batches", metavar="N", type=number, default=1, help="batches in a run (default: %(default)s)"
    )
    embed.add_argument("-w", "--workers", metavar="N", type=number, help="cores that embed (default: all)")
    embed.add_argument("-F", "--follow", action="store_true", help="go on until no row is left")
    embed.add_argument("-p", "--progress", action="store_true", help="show a progress bar")
    embed.add_argument("-v", "--verbose", action="store_true", help="print a line for each row")
    nearest = add_command(commands, NEAREST, _NEAREST, _nearest, listed=False)
    _add_column(nearest)
    nearest.add_argument("query", metavar="TEXT", help="the text to search for")
    nearest.add_argument(
        "-l", "--limit", metavar="N", type=number, default=10, help="the number of rows (default: %(default)s)"
    )
    nearest.add_argument("--where", metavar="SQL", help="a condition over the columns")
    nearest.add_argument("-v", "--verbose", action="store_true", help="print the key's columns and types, too")


def named(words: Sequence[str]) -> Sequence[str]:
    """A command line in which `search` with a --url is the command for columns."""
    # What comes after -- is text, and so is what has a space in it.
    options = itertools.takewhile(lambda word: word != "--", words[1:])
    is_nearest = words[:1] == ["search"] and any(_URL.fullmatch(word) for word in options)
    return [NEAREST, *words[1:]] if is_nearest else words


def _add_column(command: argparse.ArgumentParser) -> None:
    command.add_argument("-u", "--url", metavar="FILE", required=True, help="the DuckDB database file")
    command.add_argument("-t", "--table", metavar="TABLE", required=True, help="the table")
    command.add_argument("-i", "--input", metavar="COLUMN", required=True, help="the column with the text")
    command.add_argument("-o", "--output", metavar="COLUMN", required=True, help="the column with the vectors")
    command.add_argument("-m", "--model", help="a model's name, or a directory (default: inference.model)")
    add_models(command)


@contextlib.contextmanager
def _opened(options: argparse.Namespace, *, read_only: bool) -> Iterator[Host]:
    url = str(options.url)
    # A URL may have a password.
    if _SERVERS.match(url):
        raise InputError("--url names a database server, and vectors are stored in DuckDB files so far: give a file")
    path = url.removeprefix("duckdb:///") if url.startswith("duckdb:///") else url
    config = options.settings.config
    if not os.path.exists(expanded(path)):
        raise NotFoundError(f"there is no database '{path}'; --url names a DuckDB file that is there")
    with opened(path, config, read_only=read_only) as con, errors_of_ours():
        host = ConnectionHost()
        host.add(con)
        yield host


def _need_one(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")


def _encoder(options: argparse.Namespace, threads: int | None = None) -> Encoder:
    config = options.settings.config
    chosen = config if threads is None else dataclasses.replace(config, threads=threads)
    return loaded_encoders(chosen).get(options.model or config.model)


def _embed(options: argparse.Namespace) -> int:
    _need_one(options, "batch_size", "num_batches", "workers")
    with _opened(options, read_only=False) as host:
        column = VectorColumn(host, options.table, options.input, options.output)
        encoder = _encoder(options, options.workers)
        told = _Told(options)
        told.line(f"Column {options.output} {'was added' if column.create(encoder.dimensions) else 'already exists'}")
        most = None if options.follow else options.batch_size * options.num_batches
        with told.bar(min(column.count(with_text=True), most or sys.maxsize)):
            filled = fill(
                column,
                encoder,
                batch_size=options.batch_size,
                batches=options.num_batches,
                to_the_end=options.follow,
                began=told.began,
                encoded=told.encoded,
            )
        told.end(filled)
    return INCOMPLETE if filled.failed else 0


class _Told:
    """What is told of a run: a line for each row, a bar, or a summary."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._parts = options.workers or 1
        self._bar: Progress | None = None

    @contextlib.contextmanager
    def bar(self, rows: int) -> Iterator[None]:
        """A bar for so many rows, where it is wanted."""
        if not self._options.progress:
            yield
            return
        self._bar = Progress("embed", self._options.table, rows)
        try:
            yield
        finally:
            self._bar.close()

    def began(self, run: int, batch: int, rows: int) -> None:
        self.line(f"Run {run}, Batch {batch} starting ({rows} rows)")

    def encoded(self, batch: int, rows: Sequence[Row]) -> None:
        if self._bar is not None:
            self._bar.advance(len(rows))
        size = -(-len(rows) // self._parts)
        for first in range(0, len(rows), size or 1):
            part = rows[first : first + size]
            for place, row in enumerate(part, start=1):
                preview = row.text[:_PREVIEW]
                self.line(f"(batch {batch}, {place}/{len(part)}) Updating vector for row id {row.key}: '{preview}'")

    def end(self, filled: Filled) -> None:
        if self._options.verbose:
            print(f"Done in {filled.seconds} seconds")
            self.line("Vectorization complete.")
            return
        facts = [f"rows embedded: {filled.filled:,}, in {filled.seconds:.1f} s"]
        facts += [f"not embedded: {filled.failed:,}"] if filled.failed else []
        facts += [f"without a text: {filled.skipped:,}"] if filled.skipped else []
        left = filled.left - filled.failed
        facts += [f"left: {left:,} (run it again, or with --follow)"] if left > 0 else []
        print("; ".join(facts))

    def line(self, text: str) -> None:
        if self._options.verbose:
            print(f"[INFO] {text}")


def _nearest(options: argparse.Namespace) -> None:
    _need_one(options, "limit")
    with _opened(options, read_only=True) as host:
        column = VectorColumn(host, options.table, options.input, options.output)
        vector = _encoder(options).encode([options.query], "query")[0]
        found = column.nearest(vector.tolist(), options.limit, options.where)
        if options.verbose:
            print(f"[INFO] PK: {', '.join(column.key)} ({column.key_type})\n")
        for near in found:
            print(f"{near.distance} --> {near.key}\n{near.text or ''}\n")
