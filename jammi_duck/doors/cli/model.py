"""The commands for what -m and model := take: list, desc. Wrappers of the user's own Python come first."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator

from jammi_duck.doors.cli.commands import Commands, add_command, add_group, add_models
from jammi_duck.doors.cli.models import boxed, found_here, print_wrappers, wrapper_here, wrapper_lines
from jammi_duck.encoder.listing import Listed, look_at
from jammi_duck.encoder.wrappers import Wrappers
from jammi_duck.errors import ModelError

_MODEL = """\
List and describe wrappers: models that are your own Python.

  jammi-duck model list                         list the wrappers
  jammi-duck model desc hf_st_all_minilm_l6     describe a wrapper, or another model
"""
_LIST = """\
List the wrappers, one per line: its name, a tab, its label.

  jammi-duck model list
  jammi-duck model list --models ./models    those in this folder, too

`jammi-duck models list` has all models.
"""
_DESC = """\
Describe a wrapper, or another model.

  jammi-duck model desc hf_st_all_minilm_l6
  jammi-duck model desc all-MiniLM-L6-v2
"""
_WIDTH = 60


def add_to(commands: Commands) -> None:
    """Add these commands."""
    group = add_group(commands, "model", _MODEL)
    listing = add_command(group, "list", _LIST, _list)
    desc = add_command(group, "desc", _DESC, _desc)
    desc.add_argument("name", metavar="NAME", help="the name of a wrapper, or of another model")
    for command in (listing, desc):
        add_models(command)


def _list(options: argparse.Namespace) -> None:
    config = options.settings.config
    print_wrappers(Wrappers(config.models_path, config.wrappers).listed())


def _desc(options: argparse.Namespace) -> None:
    wrapper = wrapper_here(options)
    for line in wrapper_lines(wrapper) if wrapper else _lines(look_at(found_here(options))):
        print(line)


def _lines(model: Listed) -> Iterator[str]:
    description, card = model.description, model.card
    if description is None:
        raise ModelError(f"{model.error}")
    yield from boxed(card.label)
    yield from textwrap.wrap(card.description or "", _WIDTH)
    yield f"Produces {description.dimensions}-dimensional float vectors."
    yield f"Reads up to {description.max_tokens} tokens of a text."
    yield card.link
    yield ""
