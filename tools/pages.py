"""Fills in the parts of docs/ that come from the code: the help of commands, the table of options, the tree of errors.

python -m tools.pages      writes docs/cli.md, docs/configuration.md and docs/python.md
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from jammi_duck import errors
from jammi_duck.config.options import options
from jammi_duck.doors.cli.configuration import shown
from jammi_duck.doors.cli.parser import parser
from jammi_duck.doors.installation import install

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = (DOCS / "cli.md", DOCS / "configuration.md", DOCS / "python.md")
_HELP = re.compile(r"(<!-- help((?: [\w-]+)*) -->\n```text\n).*?(```\n)", re.DOTALL)
_ERRORS = re.compile(r"(<!-- errors -->\n```text\n).*?(```\n)", re.DOTALL)
_OPTIONS = re.compile(r"(<!-- options -->\n).*?(<!-- end -->\n)", re.DOTALL)


def commands(whole: argparse.ArgumentParser | None = None) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command by its name, with its parser; the program itself is first, with an empty name."""
    whole = whole or parser()
    yield whole.prog.removeprefix("jammi-duck").strip(), whole
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from commands(inner)


def filled(text: str) -> str:
    """A page with its generated parts up to date."""
    with patch.dict(os.environ, {"COLUMNS": "90", "XDG_CACHE_HOME": "~/.cache"}):
        helps = {name: command.format_help() for name, command in commands()}
    text = _HELP.sub(lambda block: f"{block[1]}{helps[block[2].strip()]}{block[3]}", text)
    tree = (errors.__doc__ or "").partition("\n\n")[2]
    text = _ERRORS.sub(lambda block: f"{block[1]}{tree}{block[2]}", text)
    return _OPTIONS.sub(lambda block: f"{block[1]}{_table()}{block[2]}", text)


def _table() -> str:
    arguments = inspect.signature(install).parameters
    rows = ["| option | argument of `install` | default | what it means | what it may be |", "|---|---|---|---|---|"]
    for option in options().values():
        default = "~/.cache/jammi_duck" if option.name == "cache_dir" else shown(option.default)
        value = f"`{default}`" if default else ""
        argument = f"`{option.name}`" if option.name in arguments else ""
        rows.append(f"| `{option.key}` | {argument} | {value} | {option.about} | {option.kind.must} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
