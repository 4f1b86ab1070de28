"""The command line: `jammi-duck demo`, and `jammi-duck models` to see and fetch models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jammi_duck.version import __version__

if TYPE_CHECKING:
    from jammi_duck.encoder.listing import Listed

_DESCRIPTION = """\
Embed, store and search text in DuckDB, in plain SQL.

  jammi-duck demo           see it work on the documentation of your own Python
  jammi-duck models list    see which models can be used here
"""
_DEMO = """\
Embed and search the docstrings of Python's standard library.

  jammi-duck demo --folder /tmp/pydoc
"""
_MODELS = """\
The models that texts are embedded with.

  jammi-duck models list                       see what can be used here
  jammi-duck models desc all-MiniLM-L6-v2      read what one is
  jammi-duck models pull all-mpnet-base-v2     fetch one from the Hugging Face hub
"""
_LIST = """\
List the models that can be used here without a download,
a line each: its name, a tab, its label.

  jammi-duck models list
  jammi-duck models list --json    all that is known, and which models cannot be used
"""
_DESC = """\
Show what a model is, as its files tell it.

  jammi-duck models desc all-MiniLM-L6-v2
  jammi-duck models desc ./my-model
"""
_PULL = """\
Fetch a model from the Hugging Face hub ahead of time,
into the cache that all programs share (HF_HOME).

  jammi-duck models pull sentence-transformers/all-mpnet-base-v2
"""
_WIDEST = 100
_AsWritten = argparse.RawDescriptionHelpFormatter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 1 where the work failed, or 2 for a wrong call."""
    options = _parser().parse_args(arguments)

    import duckdb

    from jammi_duck.errors import JammiError

    try:
        options.run(options)
    except (JammiError, duckdb.Error, OSError) as error:
        print(f"jammi-duck: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jammi-duck", description=_DESCRIPTION, formatter_class=_AsWritten)
    parser.add_argument("--version", action="version", version=f"jammi-duck {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo = _command(commands, "demo", _DEMO, _demo)
    demo.add_argument("--folder", type=Path, default=Path("demo-data"), help="where it writes (default: %(default)s)")
    models = commands.add_parser("models", help="see and fetch models", description=_MODELS, formatter_class=_AsWritten)
    verbs = models.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = _command(verbs, "list", _LIST, _list)
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    for verb in (_command(verbs, "desc", _DESC, _desc), _command(verbs, "pull", _PULL, _pull)):
        verb.add_argument("name", metavar="NAME", help="as on the hub, a bare name, or a directory")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    """A command that `run` does; the first line of `text` sums it up."""
    summary = text.splitlines()[0].rstrip(".,")
    summary = summary[0].lower() + summary[1:]
    command = commands.add_parser(name, help=summary, description=text, formatter_class=_AsWritten)
    command.set_defaults(run=run)
    return command


def _demo(options: argparse.Namespace) -> None:
    from jammi_duck.demo import run

    run(options.folder)


def _list(options: argparse.Namespace) -> None:
    from jammi_duck.config import DEFAULT_MODEL
    from jammi_duck.encoder.listing import listed

    models = listed(DEFAULT_MODEL)
    if options.json:
        _print_json([model.row() for model in models])
        return
    for model in models:
        if model.description:
            print(f"{model.found.name}\t{model.card.label}")


def _desc(options: argparse.Namespace) -> None:
    from jammi_duck.config import DEFAULT_MODEL
    from jammi_duck.encoder.listing import look_at
    from jammi_duck.encoder.names import available, find_here, full_name
    from jammi_duck.errors import ModelError, did_you_mean

    found = find_here(options.name)
    if found is None:
        near = did_you_mean(full_name(options.name), [model.name for model in available(DEFAULT_MODEL)]) or ";"
        raise ModelError(
            f"no model '{options.name}' on this machine{near} `jammi-duck models list` shows those that are here, and "
            f"`jammi-duck models pull {options.name}` fetches it from the hub"
        )
    for line in _described(look_at(found)):
        print(line)


def _described(model: Listed) -> Iterator[str]:
    """The lines that tell of a model, as wide as the terminal at most."""
    import shutil
    import textwrap

    from jammi_duck.errors import ModelError

    description, card = model.description, model.card
    if description is None:
        raise ModelError(f"{model.error}")
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    label = textwrap.wrap(card.label, max(width - 4, 10))
    longest = max(map(len, label))
    yield f"┌{'─' * (longest + 2)}┐"
    yield from (f"│ {line:<{longest}} │" for line in label)
    yield f"└{'─' * (longest + 2)}┘"
    if card.description:
        yield ""
        yield from textwrap.wrap(card.description, width)
    yield ""
    facts = {
        "name": description.name,
        "family": description.family,
        "dimensions": description.dimensions,
        "maximum tokens": description.max_tokens,
        "pooling": description.pooling,
        "document prompt": _quoted(description.document_prompt),
        "query prompt": _quoted(description.query_prompt),
        "licence": card.licence or "not stated",
        "location": model.found.path,
    }
    yield from (f"{fact:<17}{value}" for fact, value in facts.items())
    yield ""
    yield card.link


def _quoted(prompt: str) -> str:
    import json

    return json.dumps(prompt, ensure_ascii=False) if prompt else "none"


def _pull(options: argparse.Namespace) -> None:
    from jammi_duck.encoder.listing import look_at
    from jammi_duck.encoder.names import find, find_here
    from jammi_duck.errors import ModelError

    here = find_here(options.name)
    found = here or find(options.name)
    print(f"{found.name} is {'here already' if here else 'fetched'}: {found.path}")
    error = look_at(found).error
    if error:
        raise ModelError(f"it cannot be used: {error}")


def _print_json(rows: Sequence[dict[str, Any]]) -> None:
    import json

    print(json.dumps(rows, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
