"""Functions that add a command and its common options to argparse."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

from jammi_duck.config.options import duration
from jammi_duck.encoder.passages import BORDERS, DEFAULT_BY, DEFAULT_OVERLAP, DEFAULT_TOKENS
from jammi_duck.errors import InputError
from jammi_duck.retrieval.search import RERANK_K
from jammi_duck.storage.words.analyser import ENGLISH

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], int | None]
# The exit codes: if something failed; if all is done but some rows could not be embedded; if rows have changed.
FAILED = 1
INCOMPLETE = 3
STALE = 4

_LARGEST = 2**31 - 1


def add_command(commands: Commands, name: str, text: str, run: Run, *, listed: bool = True) -> argparse.ArgumentParser:
    """Add a command that calls `run`; the first line of `text` is its summary, examples follow.

    One that is not `listed` is another form of a command that is.
    """
    command = _described(commands, name, text, listed=listed)
    command.set_defaults(run=run)
    return command


def add_group(commands: Commands, name: str, text: str) -> Commands:
    """Add a command with commands of its own."""
    return _described(commands, name, text).add_subparsers(title="commands", required=True, metavar="COMMAND")


def _described(commands: Commands, name: str, text: str, *, listed: bool = True) -> argparse.ArgumentParser:
    summary = text.splitlines()[0].rstrip(".,")
    summary = summary[0].lower() + summary[1:]
    as_written = argparse.RawDescriptionHelpFormatter
    if not listed:
        return commands.add_parser(name, description=text, formatter_class=as_written)
    return commands.add_parser(name, help=summary, description=text, formatter_class=as_written)


def add_json(command: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    command.add_argument("--json", action="store_true", help="print the rows as JSON, with all columns")


def add_database(
    command: argparse.ArgumentParser, *, storage: bool = True, models: bool = True, server: bool = True
) -> None:
    """Add `--db` and `--wait`, and for commands on embedding tables `--storage`, `--models` and the server."""
    command.add_argument(
        "--db", metavar="FILE", help="the database file (default: storage.database, jammi_duck.duckdb)"
    )
    add_wait(command)
    if not storage:
        return
    command.add_argument(
        "--storage",
        metavar="LOCATION",
        help="where embedding tables are stored (default: storage.location, ./artifacts)",
    )
    if models:
        add_models(command)
    if not server:
        return
    command.add_argument(
        "--server", metavar="URI", help="let a server do it, such as grpc://localhost:8081, and open no database"
    )
    command.add_argument("--token-file", metavar="FILE", help="a file with the token for the server")


def add_wait(command: argparse.ArgumentParser) -> None:
    """Add `--wait`."""
    command.add_argument(
        "--wait",
        metavar="TIME",
        type=_wait,
        default=timedelta(0),
        help="wait so long, such as 30s, while another process has the file open (default: fail at once)",
    )


def add_models(command: argparse.ArgumentParser) -> None:
    """Add `--models`."""
    command.add_argument(
        "--models", metavar="DIR", action="append", help="where models and NAME.py are (default: models.path)"
    )


def add_embedded(command: argparse.ArgumentParser) -> None:
    """Add what is embedded, and how."""
    command.add_argument("source", metavar="SOURCE", help="a table, a view, or the path or URL of a file")
    texts = command.add_mutually_exclusive_group(required=True)
    texts.add_argument("--columns", metavar="A,B", type=names, help="the columns with the text")
    texts.add_argument(
        "--column",
        metavar="LABEL=A,B",
        type=_labelled,
        action="append",
        help="one of several embeddings: its label and its columns, or a column that is both; may be repeated",
    )
    command.add_argument("--key", metavar="COLUMN", required=True, help="the key column; unique")
    command.add_argument("--model", help="a name on the hub, or a directory (default: inference.model)")
    command.add_argument("--dims", metavar="N", type=number, help="keep only the first N dimensions of the vectors")
    add_words(command)
    command.add_argument(
        "--no-vectors", action="store_true", help="embed nothing: a table of words only, which needs no model"
    )
    command.add_argument("--name", help="a name for the embedding table, for --table (default: that of the source)")
    add_passages(command)


def add_passages(
    command: argparse.ArgumentParser, what: str = "cut each text into passages"
) -> argparse._ArgumentGroup:
    """Add how texts are cut into passages; `what` is said of passages in general. Gives the group of these options."""
    cut = command.add_argument_group("passages", "for texts that are longer than the model reads")
    cut.add_argument("--passages", action="store_true", help=f"{what}; all below imply it")
    # As `tokens`, it would be where the tokens of a server are.
    cut.add_argument(
        "--tokens",
        dest="passage_tokens",
        metavar="N",
        type=number,
        help=f"at most so many in a passage (default: {DEFAULT_TOKENS}, or what the model reads if that is less)",
    )
    cut.add_argument(
        "--overlap",
        metavar="N",
        type=number,
        help=f"repeat up to so many tokens of the passage before (default: {DEFAULT_OVERLAP})",
    )
    cut.add_argument("--by", choices=BORDERS, help=f"what is not cut if it fits (default: {DEFAULT_BY})")
    cut.add_argument("--title", metavar="A,B", type=names, help="the columns that stand before each passage of a row")
    return cut


def passages_asked(options: argparse.Namespace) -> bool | dict[str, Any]:
    """Whether texts are to be cut into passages, and how."""
    given = {
        "tokens": options.passage_tokens,
        "overlap": options.overlap,
        "by": options.by,
        "title": options.title,
        # Of an import only.
        "start": getattr(options, "start", None),
        "end": getattr(options, "end", None),
    }
    return {name: value for name, value in given.items() if value is not None} or options.passages


def embedded_columns(options: argparse.Namespace) -> list[str] | dict[str, list[str]]:
    """The columns to embed, which are by their labels if there are several embeddings. Raises InputError."""
    if options.columns is not None:
        columns: list[str] = options.columns
        return columns
    labelled: dict[str, list[str]] = {}
    for label, names_of in options.column:
        if label in labelled:
            raise InputError(f"--column names '{label}' twice; give each embedding a label of its own, as LABEL=A,B")
        labelled[label] = names_of
    return labelled


def add_chosen(command: argparse.ArgumentParser, verb: str) -> None:
    """Add which embedding table is meant; `verb` is what is done with it."""
    command.add_argument("--model", help=f"{verb} the newest embedding table of this model (default: of any)")
    command.add_argument("--table", metavar="NAME", help=f"{verb} this embedding table")
    command.add_argument("--column", metavar="LABEL", help="which of several embeddings: its label, or its only column")


def add_words(command: argparse.ArgumentParser) -> None:
    """Add how words are indexed."""
    command.add_argument("--no-words", action="store_true", help="index no words, for searches by vectors alone")
    add_language(command)


def add_language(command: argparse.ArgumentParser) -> None:
    """Add the language of the words."""
    command.add_argument(
        "--language",
        default=ENGLISH,
        help="the language of the texts, for stop words and stemming, or none (default: %(default)s)",
    )


def add_rerank(command: argparse.ArgumentParser) -> None:
    """Add by which model the rows that a search finds are re-ranked."""
    command.add_argument("--rerank", metavar="MODEL", help="re-rank by this cross-encoder, which reads text by text")
    command.add_argument(
        "--rerank-k", metavar="N", type=number, help=f"how many rows to re-rank, at least -k (default: {RERANK_K})"
    )


def number(text: str) -> int:
    """A number that DuckDB takes; argparse says: invalid number value."""
    value = int(text)
    if abs(value) > _LARGEST:
        raise ValueError
    return value


def _wait(text: str) -> timedelta:
    found = duration(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write it as 30s or '5 minutes'")
    return found


def _labelled(text: str) -> tuple[str, list[str]]:
    """`body=body,summary` as a label and names; the label of one name alone is that name."""
    label, equals, columns = text.partition("=")
    if equals:
        return label.strip(), names(columns)
    found = names(text)
    if len(found) > 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} has no label: write LABEL={text}, or for one embedding alone --columns {text}"
        )
    return found[0], found


def names(text: str) -> list[str]:
    """`title,"a, b"` as names; quotes are those of CSV."""
    try:
        found = [name for row in csv.reader([text], skipinitialspace=True) for name in row]
    except csv.Error:
        found = []
    if not found or not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name in it; separate names by commas")
    return found
