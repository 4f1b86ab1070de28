"""The commands for embedding tables: generate, search, passages, tables, recover, drop, vacuum."""

from __future__ import annotations

import argparse
import re

import duckdb

from jammi_duck.doors.cli.commands import (
    INCOMPLETE,
    Commands,
    add_chosen,
    add_command,
    add_database,
    add_embedded,
    add_json,
    add_rerank,
    embedded_columns,
    names,
    number,
    passages_asked,
)
from jammi_duck.doors.cli.connection import equipped
from jammi_duck.doors.cli.output import fact_lines, print_json, print_objects, print_rows
from jammi_duck.errors import InputError, did_you_mean
from jammi_duck.jammi import Jammi
from jammi_duck.retrieval.fusion import WEIGHTED
from jammi_duck.retrieval.search import RERANK_K, Mode
from jammi_duck.sql import Sql, joined, literal, quoted, sql, template

_GENERATE = """\
Embed the text of a table or a file, and store the vectors.

  jammi-duck generate patents --columns title,abstract --key id
  jammi-duck generate docs.parquet --columns body --key id     without a database
  jammi-duck generate patents --columns title,abstract --key id --reuse --resume
  jammi-duck generate patents --column title --column text=abstract,claims --key id
  jammi-duck generate books --columns title,body --key id --passages --title title

The texts of the columns are joined by one space. The key must be unique. The vectors are
stored in a new embedding table in --storage; earlier ones stay. Progress is shown as a
bar on a terminal, and as lines of the log elsewhere. Each --column makes an embedding
table of its own, and the source is read once for all of them; `search --column` chooses.
With --passages, nothing of a long text is cut off; `jammi-duck passages` shows the parts.
"""
_SEARCH = """\
Find the rows that answer a text best.

  jammi-duck search patents "membrane that cleans water"
  jammi-duck search patents "robot arm" -k 3 --columns id,title
  jammi-duck search patents "robot arm" --filter "center = 'JSC'"
  jammi-duck search patents "robot arm" --filter 'center = $c' --parameter c="$CENTER"
  jammi-duck search patents "robot arm" --json | jq -r '.[].title'

Searches the newest embedding table of the source, with its model and its words. The score
ranks the rows: of the vectors alone it is the cosine, where 1 means the same and 0
unrelated; of both it is a mean of that and of how well the words match (--weight). With
--url, a column of vectors in a table is searched: see `jammi-duck search-column --help`.
"""
_PASSAGES = """\
Show how texts were cut into passages.

  jammi-duck passages books
  jammi-duck passages books --row 7
  jammi-duck passages books --json    with all of each text

Start and end are counted in characters of the row's text. The text is only shown where
the row still has the one that was cut.
"""
_TABLES = """\
List the embedding tables.

  jammi-duck tables
  jammi-duck tables --json    with all columns
"""
_RECOVER = """\
Repair embedding tables after crashes or lost files.

  jammi-duck recover

Settles builds of dead processes, rebuilds missing or damaged indexes, and adds embedding
tables that are in the location but not in the catalog of the database.
"""
_DROP = """\
Remove an embedding table and its files.

  jammi-duck drop patents__embedding__all-MiniLM-L6-v2__20260325T120000
"""
_VACUUM = """\
Remove old files that are no longer used.

  jammi-duck vacuum

Files younger than storage.retention stay: 7 days by default.
"""
_VECTOR = re.compile(r"(FLOAT|DOUBLE)\[\d*\]")
_SHORTENED = template(
    "CASE WHEN len({column}::VARCHAR) > 40 THEN concat(({column}::VARCHAR)[:32], '…]') "
    "ELSE {column}::VARCHAR END AS {column}"
)
_SHORT = "embedding_table, source, columns, model, status, row_count, to_seconds(floor(epoch(age))) AS age"
_CUT = sql(
    "_row_id, _passage, _start, _end, CASE WHEN length(_passage_text) > 60 THEN concat(_passage_text[:58], '…') "
    "ELSE _passage_text END AS _passage_text"
)
_FIRST = sql("_rank, round(_score, 3) AS _score")
_LAST = sql("_rank, _score, _similarity, _bm25")
_RERANKED = sql("{}, _rerank", _LAST)
# The last columns of a search for passages.
_PLACES = ("_passage", "_start", "_end", "_passage_text")


def add_to(commands: Commands) -> None:
    """Add these commands."""
    generate = add_command(commands, "generate", _GENERATE, _generate)
    add_embedded(generate)
    generate.add_argument("--reuse", action="store_true", help="return the existing table if nothing has changed")
    generate.add_argument("--resume", action="store_true", help="continue an interrupted build of the same table")
    add_database(generate)
    add_json(generate)

    search = add_command(commands, "search", _SEARCH, _search)
    search.add_argument("source", metavar="SOURCE", help="the table, view or file that was embedded")
    search.add_argument(
        "query", metavar="QUERY", help="the text to search for; put -- before it if it begins with a dash"
    )
    search.add_argument("-k", metavar="N", type=number, default=10, help="the number of rows (default: %(default)s)")
    search.add_argument("--columns", metavar="A,B", type=names, help="show only these columns of the source")
    add_chosen(search, "search")
    search.add_argument("--filter", metavar="SQL", help="a condition over the columns; only rows that pass are ranked")
    search.add_argument(
        "--parameter",
        metavar="NAME=VALUE",
        type=_parameter,
        action="append",
        default=[],
        help="a value for $NAME in the filter, always a text and never SQL; may be repeated",
    )
    search.add_argument("--min-similarity", metavar="X", type=float, help="leave out rows with a smaller similarity")
    search.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode],
        default=Mode.AUTO.value,
        help="search by words (text), by vectors, or by both (hybrid); by both if it can (default: %(default)s)",
    )
    search.add_argument(
        "--weight",
        metavar="W",
        type=float,
        default=WEIGHTED.weight,
        help="in a hybrid search, the share of the vectors, 0 to 1; the words have the rest (default: %(default)s)",
    )
    add_rerank(search)
    search.add_argument(
        "--per-row",
        metavar="N",
        type=number,
        default=1,
        help="up to so many passages of each row (default: %(default)s)",
    )
    search.add_argument("--fresh", action="store_true", help="embed first what has changed since (up to 1,000 texts)")
    search.add_argument("--exact", action="store_true", help="compare with every vector, without the index")
    add_database(search)
    add_json(search)

    passages = add_command(commands, "passages", _PASSAGES, _passages, listed=False)
    passages.add_argument("source", metavar="SOURCE", help="the table, view or file that was embedded")
    passages.add_argument("--row", metavar="KEY", help="show only the passages of this row")
    add_chosen(passages, "show")
    add_database(passages)
    add_json(passages)

    for name, text, run in (
        ("tables", _TABLES, _tables),
        ("recover", _RECOVER, _recover),
        ("vacuum", _VACUUM, _vacuum),
    ):
        command = add_command(commands, name, text, run)
        add_database(command, models=False)
        add_json(command)
    drop = add_command(commands, "drop", _DROP, _drop)
    drop.add_argument(
        "name", metavar="NAME", help="the embedding table, ready or failed, as listed by `jammi-duck tables`"
    )
    add_database(drop, models=False)
    add_json(drop)


def _generate(options: argparse.Namespace) -> int:
    with equipped(options) as jammi:
        built = jammi.generate(
            options.source,
            embedded_columns(options),
            options.key,
            options.model,
            dims=options.dims,
            name=options.name,
            reuse=options.reuse,
            resume=options.resume,
            words=not options.no_words,
            language=options.language,
            vectors=not options.no_vectors,
            passages=passages_asked(options),
        )
    done = list(built.values()) if isinstance(built, dict) else [built]
    facts = [{name: value for name, value in vars(each).items() if options.json or value is not None} for each in done]
    if options.json:
        print_objects(facts)
    else:
        print(*("\n".join(fact_lines(each)) for each in facts), sep="\n\n")
    return INCOMPLETE if any(each.failed_count for each in done) else 0


def _search(options: argparse.Namespace) -> None:
    with equipped(options, read_only=True) as jammi:
        found = jammi.search(
            options.source,
            options.query,
            options.k,
            model=options.model,
            filter=options.filter,
            exact=options.exact,
            embedding_table=options.table,
            column=options.column,
            min_similarity=options.min_similarity,
            mode=options.mode,
            weight=options.weight,
            rerank=options.rerank,
            rerank_k=RERANK_K if options.rerank_k is None else options.rerank_k,
            per_row=options.per_row,
            parameters=dict(options.parameter),
            fresh=options.fresh or None,
        )
        first, last = _FIRST, _LAST if options.rerank is None else _RERANKED
        if found.columns[-1] == _PLACES[-1]:
            first = sql("{}, {}", first, quoted(_PLACES[-1]))
            last = joined(", ", [last, *map(quoted, _PLACES)])
        if options.json:
            print_json(found.project(_chosen(options, found, last)) if options.columns else found)
        else:
            print_rows(found.project(_chosen(options, found, first)))


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def _chosen(options: argparse.Namespace, found: duckdb.DuckDBPyRelation, ours: Sql) -> str:
    """A select list: `ours`, then the chosen columns of the source, by default all; of vectors, the first numbers."""
    columns = found.columns[: found.columns.index("_row_id")]
    kinds = dict(zip(found.columns, map(str, found.types), strict=True))
    for name in options.columns or ():
        if name not in columns:
            near = did_you_mean(name, columns) or ";"
            raise InputError(f"no column '{name}' in '{options.source}'{near} columns: {', '.join(columns)}")
    # DuckDB takes a subclass of str for the name of a column.
    wanted = (
        _SHORTENED(column=quoted(name)) if not options.json and _VECTOR.fullmatch(kinds[name]) else quoted(name)
        for name in options.columns or columns
    )
    return str(joined(", ", [ours, *wanted]))


def _passages(options: argparse.Namespace) -> None:
    query = sql(
        "SELECT {columns} FROM jammi_passages({source}, model := {model}, embedding_table := {table}, "
        '"column" := {column}){only}',
        columns=sql("*") if options.json else _CUT,
        source=literal(options.source),
        model=literal(options.model),
        table=literal(options.table),
        column=literal(options.column),
        only=sql("") if options.row is None else sql(" WHERE _row_id = {}", literal(options.row)),
    )
    with equipped(options, read_only=True) as jammi:
        _print(options, jammi, jammi.con.sql(query), "no passages")


def _tables(options: argparse.Namespace) -> None:
    with equipped(options) as jammi:
        shown = jammi.tables() if options.json else jammi.tables().project(_SHORT)
        _print(options, jammi, shown, "no embedding tables yet; `jammi-duck generate` makes one")


def _recover(options: argparse.Namespace) -> None:
    _print_actions(options, sql("SELECT * FROM jammi_recover()"), "nothing to repair")


def _vacuum(options: argparse.Namespace) -> None:
    _print_actions(options, sql("SELECT * FROM jammi_vacuum()"), "nothing to remove")


def _drop(options: argparse.Namespace) -> None:
    _print_actions(options, sql("SELECT * FROM jammi_drop({})", literal(options.name)), "")


def _print_actions(options: argparse.Namespace, query: Sql, nothing: str) -> None:
    with equipped(options) as jammi:
        _print(options, jammi, jammi.con.sql(query), nothing)


def _print(options: argparse.Namespace, jammi: Jammi, query: duckdb.DuckDBPyRelation, nothing: str) -> None:
    # Fetched once: a relation runs its query again at each access.
    table = query.to_arrow_table()
    rows = jammi.con.from_arrow(table)
    if options.json:
        print_json(rows)
    elif len(table):
        print_rows(rows)
    else:
        print(nothing)
