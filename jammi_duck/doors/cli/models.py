"""The commands for models: list, desc, pull, add, remove."""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import starmap
from typing import TYPE_CHECKING

from jammi_duck.config.logs import log
from jammi_duck.doors.cli.commands import Commands, add_command, add_group, add_json, add_models
from jammi_duck.doors.cli.output import fact_lines, print_objects
from jammi_duck.doors.composition import engines
from jammi_duck.encoder.functions_found import functions_of
from jammi_duck.encoder.listing import Listed, ModelRow, listed, look_at
from jammi_duck.encoder.named import add_name, remove_name
from jammi_duck.encoder.names import Found, available, find, find_directory, find_here, full_name
from jammi_duck.encoder.wrappers import Wrapper, Wrappers
from jammi_duck.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from jammi_duck.encoder.engines import Engines
    from jammi_duck.encoder.functions import EmbeddingFunction

_MODELS = """\
List, describe, download and name embedding models.

  jammi-duck models list                       list the available models
  jammi-duck models desc all-MiniLM-L6-v2      describe a model
  jammi-duck models pull all-mpnet-base-v2     download one from the Hugging Face hub
  jammi-duck models add ./my-model             name a folder: model := 'my-model' means it
"""
_LIST = """\
List the models that can be used without a download,
one per line: its name, a tab, its label. Your own wrappers come first,
and providers last, each with its default model and what it still needs.

  jammi-duck models list
  jammi-duck models list --json    all columns, and models that cannot be used
"""
_DESC = """\
Describe a model from its files, or a provider.

  jammi-duck models desc all-MiniLM-L6-v2
  jammi-duck models desc ./my-model
  jammi-duck models desc openai:               a provider, and its arguments
"""
_PULL = """\
Download a model from the Hugging Face hub ahead of time,
into the cache that all programs share (HF_HOME).

  jammi-duck models pull sentence-transformers/all-mpnet-base-v2
"""
_ADD = """\
Give the model in a folder a name, by which it is found from everywhere.

  jammi-duck models add ./my-model
  jammi-duck models add /srv/models/ft-2026 --name support    then: model := 'support'

The name is a link in ~/.local/share/jammi_duck/models (XDG_DATA_HOME); the files stay
where they are. If the folder was moved, add it again under the same name.
"""
_REMOVE = """\
Forget a name that `models add` has given. The model's files stay.

  jammi-duck models remove support
"""
_WIDEST = 100


def add_to(commands: Commands) -> None:
    """Add these commands."""
    group = add_group(commands, "models", _MODELS)
    listing = add_command(group, "list", _LIST, _list)
    add_json(listing)
    add_models(listing)
    desc = add_command(group, "desc", _DESC, _desc)
    add_models(desc)
    for command in (desc, add_command(group, "pull", _PULL, _pull)):
        command.add_argument("name", metavar="NAME", help="a name on the hub, a bare name, or a directory")
    add = add_command(group, "add", _ADD, _add)
    add.add_argument("path", metavar="FOLDER", help="the folder with the model")
    add.add_argument("--name", metavar="NAME", help="its name (default: that of the folder)")
    remove = add_command(group, "remove", _REMOVE, _remove)
    remove.add_argument("name", metavar="NAME", help="the name to forget")


def _list(options: argparse.Namespace) -> None:
    config = options.settings.config
    wrappers = list(Wrappers(config.models_path, config.wrappers).listed(examples=False))
    models = listed(config.model, config.models_path)
    if options.json:
        rows = (
            *starmap(_wrapper_row, wrappers),
            *(model.row(engines(config)) for model in models),
            *functions_of(config).rows(),
        )
        print_objects(asdict(row) for row in rows)
        return
    print_wrappers(wrappers)
    for model in models:
        if model.description:
            print(f"{model.found.name}\t{model.card.label}")
    for row in functions_of(config).rows():
        print(f"{row.name}\t{row.label}{f' (needs {row.needs})' if row.needs else ''}")


def print_wrappers(wrappers: Iterable[tuple[str, Wrapper | ModelError]]) -> None:
    """Print the names and labels of wrappers; those that cannot be used go to the log."""
    for name, wrapper in wrappers:
        if isinstance(wrapper, ModelError):
            log.warning("%s", wrapper)
        else:
            print(f"{name}\t{wrapper.label}")


def _wrapper_row(name: str, wrapper: Wrapper | ModelError) -> ModelRow:
    if isinstance(wrapper, ModelError):
        return ModelRow(name, origin="python", error=str(wrapper))
    return ModelRow(name, wrapper.label, dimensions=wrapper.dimensions, location=str(wrapper.path), origin="python")


def _desc(options: argparse.Namespace) -> None:
    function = functions_of(options.settings.config).class_of(options.name)
    if function is not None:
        print(*function_lines(function), sep="\n")
        return
    wrapper = wrapper_here(options)
    config = options.settings.config
    for line in wrapper_lines(wrapper) if wrapper else _described(look_at(found_here(options)), engines(config)):
        print(line)


def function_lines(function: type[EmbeddingFunction]) -> Iterator[str]:
    """The lines that describe a provider: its id in a box, what it says of itself, and its arguments with defaults."""
    yield from boxed(function.id)
    # The example is for Python.
    yield (inspect.getdoc(function) or "").partition("\nExample:")[0].rstrip()
    yield ""
    yield from fact_lines({key: "none" if value is None else value for key, value in function.arguments().items()})


def wrapper_here(options: argparse.Namespace) -> Wrapper | None:
    """The wrapper that a command names, if there is one. Raises ModelError if it cannot be used."""
    config = options.settings.config
    return Wrappers(config.models_path, config.wrappers).get(options.name)


def wrapper_lines(wrapper: Wrapper) -> Iterator[str]:
    """The lines that describe a wrapper: its label in a box, its description, and an empty line."""
    yield from boxed(wrapper.label)
    yield wrapper.description.removesuffix("\n")
    yield ""


def boxed(label: str) -> Iterator[str]:
    """A label in a box of ASCII."""
    yield "-" * (len(label) + 4)
    yield f"| {label} |"
    yield "-" * (len(label) + 4)


def found_here(options: argparse.Namespace) -> Found:
    """The model on this machine that a command names. Raises ModelError if there is none."""
    config = options.settings.config
    found = find_here(options.name, config.models_path)
    if found is None:
        known = [model.name for model in available(config.model, config.models_path)]
        near = did_you_mean(full_name(options.name), known) or ";"
        raise ModelError(
            f"no model '{options.name}' on this machine{near} `jammi-duck models list` shows those that are here, and "
            f"`jammi-duck models pull {options.name}` fetches it from the hub"
        )
    return found


def _described(model: Listed, engines: Engines) -> Iterator[str]:
    """The lines that describe a model, at most as wide as the terminal."""
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
    engine, reason = engines.of(description)
    facts = {
        "name": description.name,
        "family": description.family,
        "dimensions": description.dimensions,
        "maximum tokens": description.max_tokens or "no maximum",
        "pooling": description.pooling,
        "engine": f"{engine}, because {reason}" if engine and reason else engine or reason or "none: it is looked up",
        "document prompt": _quoted(description.document_prompt),
        "query prompt": _quoted(description.query_prompt),
        "licence": card.licence or "not stated",
        "location": model.found.path,
    }
    yield from fact_lines(facts)
    yield ""
    yield card.link


def _quoted(prompt: str) -> str:
    return json.dumps(prompt, ensure_ascii=False) if prompt else "none"


def _add(options: argparse.Namespace) -> None:
    found = find_directory(options.path)
    error = look_at(found).error
    if error:
        raise ModelError(f"it cannot be used: {error}")
    name = found.path.name if options.name is None else options.name
    before = add_name(name, found)
    meant = f"; before, it meant {before}" if before not in (None, found.path) else ""
    print(f"model := '{name}' now means {found.path}{meant}")


def _remove(options: argparse.Namespace) -> None:
    print(f"'{options.name}' is forgotten; the model stays in {remove_name(options.name)}")


def _pull(options: argparse.Namespace) -> None:
    here = find_here(options.name, options.settings.config.models_path)
    found = here or find(options.name)
    print(f"{found.name} is {'here already' if here else 'fetched'}: {found.path}")
    error = look_at(found).error
    if error:
        raise ModelError(f"it cannot be used: {error}")
