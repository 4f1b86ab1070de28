"""The commands for sources: views over files, and the list of tables and views."""

from __future__ import annotations

import argparse
import csv
import io
import os
import shlex

import duckdb

from jammi_duck.config.redaction import has_secret, public_url, redacted
from jammi_duck.doors.cli.commands import Commands, add_command, add_database, add_group, add_json
from jammi_duck.doors.cli.connection import IN_MEMORY, existing, opened, sources
from jammi_duck.doors.cli.output import print_json, print_rows
from jammi_duck.errors import InputError
from jammi_duck.sql import folded, joined, literal, quoted, sql
from jammi_duck.udfs.sources import name_parts

_GROUP = """\
Give files a name, and list the tables and views.

  jammi-duck sources add patents --path patents.parquet
  jammi-duck sources list
"""
_ADD = """\
Create a view over a file: parquet, csv or json, local or on S3.

  jammi-duck sources add patents --path patents.parquet
  jammi-duck sources add logs --path 's3://bucket/logs/*.json.gz'

Checks that the file can be read, and shows its columns. Creates the database if needed.
"""
_LIST = """\
List the tables and views of the database.

  jammi-duck sources list
"""
_READERS = {"parquet": sql("read_parquet"), "csv": sql("read_csv"), "json": sql("read_json")}
_ENDINGS = {"parquet": "parquet", "csv": "csv", "tsv": "csv", "json": "json", "jsonl": "json", "ndjson": "json"}
_PACKED = (".gz", ".zst", ".bz2")


def add_to(commands: Commands) -> None:
    """Add these commands."""
    group = add_group(commands, "sources", _GROUP)
    add = add_command(group, "add", _ADD, _add)
    add.add_argument("name", metavar="NAME", help="the name of the view; schema.name works, too")
    add.add_argument("--path", required=True, help="the file, or a pattern such as 'data/*.csv' for several files")
    add.add_argument("--format", choices=_READERS, help="the file format (default: by the file name)")
    add.add_argument("--replace", action="store_true", help="replace an existing view of this name")
    listing = add_command(group, "list", _LIST, _list)
    for command in (add, listing):
        add_database(command, storage=False)
        add_json(command)


def _add(options: argparse.Namespace) -> None:
    parts = name_parts(options.name)
    name = joined(".", map(quoted, parts))
    if has_secret(options.path):
        raise InputError(
            f"'{public_url(options.path)}' has a user or a signature in it, and a view shows its text to all; put keys "
            "into storage.options, or copy the file"
        )
    path = options.path if "://" in options.path else os.path.abspath(os.path.expanduser(options.path))
    config = options.settings.config
    query = sql("SELECT * FROM {}({})", _READERS[options.format or _format(options.path)], literal(path))
    with opened(IN_MEMORY, config) as con:
        # Before the database is created or changed.
        con.execute(sql("{} LIMIT 1", query)).fetchall()
    if config.database == IN_MEMORY:
        raise InputError("a view in memory would be gone at once; name a database file with --db")
    with opened(config.database, config, wait=options.wait) as con:
        create = sql("CREATE OR REPLACE VIEW") if options.replace else sql("CREATE VIEW")
        try:
            con.execute(sql("{} {} AS {}", create, name, query))
        except duckdb.CatalogException as error:
            known = {folded(each) for each, _, _ in sources(con).fetchall()}
            if options.replace or folded(".".join(parts[-2:]).removeprefix("main.")) not in known:
                raise
            raise InputError(
                f"'{options.name}' is in '{config.database}' already; --replace takes a view's place"
            ) from error
        columns = con.sql(sql("SELECT column_name, column_type FROM (DESCRIBE {})", name))
        if options.json:
            print_json(columns)
            return
        print(f"{options.name} is a view over {path}, in {config.database}:")
        print_rows(columns)
        print(f"Continue with: {_suggested(options.name, columns)}")


def _format(path: str) -> str:
    plain = path.lower().partition("?")[0] if "://" in path else path.lower()
    for ending in _PACKED:
        plain = plain.removesuffix(ending)
    ending = plain.rpartition(".")[2]
    if ending not in _ENDINGS:
        raise InputError(f"cannot tell from its ending what '{path}' is; say --format parquet, csv or json")
    return _ENDINGS[ending]


def _suggested(source: str, columns: duckdb.DuckDBPyRelation) -> str:
    """A first command to run: the first column as the key, and text columns as the columns to embed."""
    (key, _), *others = columns.fetchall()
    texts = [name for name, kind in others if kind == "VARCHAR"][:2] or [key]
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(texts)
    return shlex.join(["jammi-duck", "generate", source, "--columns", row.getvalue(), "--key", key])


def _list(options: argparse.Namespace) -> None:
    config = options.settings.config
    path = existing(options.settings)
    if path == IN_MEMORY:
        none = f"there is no database '{redacted(config.database)}'; `jammi-duck sources add` makes one"
        print("[]" if options.json else none)
        return
    with opened(path, config, read_only=True, wait=options.wait) as con:
        (print_json if options.json else print_rows)(sources(con))
