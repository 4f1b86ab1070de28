"""The model card: label, description and licence from a model's README, for display only. All may be missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jammi_duck.regular_files import read_regular

_MOST_CHARACTERS = 400
_MOST_READ = 4000
_FRONT_MATTER = re.compile(r"\A---\n(.*?)^---$", re.DOTALL | re.MULTILINE)
# One name, or a list whose first entry counts. READMEs of models use no other YAML syntax here.
_LICENCE = re.compile(r"^license:[^\S\n]*(?:\n *-[^\S\n]*)?[\['\"]*([^\s,'\"\]#][^\n,'\"\]#]*)", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*(?:\([^()]*\)[^()]*)*\)|\[[^\[\]]*\])")
_MARKS = re.compile(r"<[^<>]*>|\*\*|__|`")
# Images, HTML, tables, quotes, lists, rules and indented code are not paragraphs.
_NOT_PLAIN = ("![", "[![", "<", "|", ">", "- ", "* ", "+ ", "---", "===", "    ", "\t")


@dataclass(frozen=True)
class Card:
    """A model's `label`, a `description` in one line, its `licence`, and a `link` to more information."""

    label: str
    description: str | None
    licence: str | None
    link: str


def read_card(path: Path, name: str) -> Card:
    """The card of the model `name` in the directory `path`; facts that are not in the README are None.

    The label is the first heading, or else the last part of the name, and the description the first paragraph under it.
    """
    text = _text(path / "README.md")
    front = _FRONT_MATTER.match(text)
    licence = _LICENCE.search(front[1]) if front else None
    lines = list(_outside_code(text[front.end() :] if front else text))
    title = _title(lines)
    label = "" if title is None else _plain(lines[title].lstrip("#"))
    description = _paragraph(lines[0 if title is None else title + 1 :])
    return Card(
        label=label or name.rstrip("/").rsplit("/", 1)[-1],
        description=description or None,
        licence=_plain(licence[1]) or None if licence else None,
        link=str(path) if Path(name).is_absolute() else f"https://huggingface.co/{name}",
    )


def _text(file: Path) -> str:
    try:
        return read_regular(file, 1 << 20).decode("utf-8-sig")
    except (OSError, ValueError):
        return ""


def _outside_code(text: str) -> Iterator[str]:
    inside = False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            inside = not inside
            yield ""
        elif not inside:
            yield line


def _title(lines: Sequence[str]) -> int | None:
    """The line of the first heading: of the first level, or of another level if no text precedes it."""
    lower = None
    for place, line in enumerate(lines):
        if re.match(r"#\s+\S", line):
            return place
        if lower is None and re.match(r"#{2,6}\s+\S", line) and not _paragraph(lines[:place]):
            lower = place
    return lower


def _paragraph(lines: Iterable[str]) -> str:
    """The first plain paragraph, in one line."""
    found: list[str] = []
    for line in lines:
        if not line.strip() or line.startswith(("#", *_NOT_PLAIN)):
            if found:
                break
            continue
        found.append(line)
    text = _plain(" ".join(found))
    if len(text) <= _MOST_CHARACTERS:
        return text
    return text[:_MOST_CHARACTERS].rsplit(" ", 1)[0] + " …"


def _plain(text: str) -> str:
    """Markdown as plain text in one line, without control characters for a terminal."""
    text = _MARKS.sub("", _LINK.sub(r"\1", text[:_MOST_READ]))
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
