"""Fills in docs/cli.md: below each `<!-- help COMMAND -->` stands what `jammi-duck COMMAND --help` prints.

python -m tools.cli_page      writes docs/cli.md anew
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from jammi_duck.cli import parser

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
_BLOCK = re.compile(r"(<!-- help ?(.*?) -->\n```text\n).*?(```\n)", re.DOTALL)


def commands(whole: argparse.ArgumentParser | None = None) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command as it is called, with its parser; the program itself is the first, by an empty name."""
    whole = whole or parser()
    yield whole.prog.removeprefix("jammi-duck").strip(), whole
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from commands(inner)


def filled(text: str) -> str:
    """The page with the help texts as they are now."""
    with patch.dict(os.environ, {"COLUMNS": "90"}):
        helps = {name: command.format_help() for name, command in commands()}
    return _BLOCK.sub(lambda block: f"{block[1]}{helps[block[2]]}{block[3]}", text)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
