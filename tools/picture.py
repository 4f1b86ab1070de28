"""Draws docs/terminal.svg: a session at the command line, as a terminal shows it.

python -m tools.picture      runs the session, and draws it
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path

from tools.program import Terminal

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "terminal.svg"
SESSION = (
    "jammi-duck sources add inventions --path inventions.csv",
    "jammi-duck generate inventions --columns description --key id",
    'jammi-duck search inventions "membrane that cleans water" -k 2 --columns description',
)
_INVENTIONS = """\
id,description
1,"A porous film through which water passes, while salt and bacteria stay behind."
2,A bicycle brake that charges a battery whenever the rider slows down.
3,"An injector without a needle: a jet of air pushes the vaccine through the skin."
4,A wheelchair that climbs stairs on three small wheels on either side.
5,A robot arm that picks ripe strawberries without bruising them.
6,"Packaging made of seaweed, which rots in the garden within a month."
"""
_COLUMNS = 106
_WIDTH, _LINE, _MARGIN = 8.43, 18, 20
# Others are taken for one, by some that draw SVG.
_SPACE = "\N{NO-BREAK SPACE}"
_TEXT = re.compile(r"<text[^>]*>(.*?)</text>")
_FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>A session at the command line</title>
<style>
text {{ font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #d8dee9 }}
.prompt {{ fill: #a3be8c; font-weight: bold }}
</style>
<rect width="{width}" height="{height}" rx="10" fill="#22272e"/>
<circle cx="22" cy="20" r="6" fill="#bf616a"/>
<circle cx="42" cy="20" r="6" fill="#ebcb8b"/>
<circle cx="62" cy="20" r="6" fill="#a3be8c"/>
{lines}
</svg>
"""


def session() -> list[str]:
    """The lines of the session as a terminal shows them at its end. Similarities are those of float32."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "inventions.csv").write_text(_INVENTIONS)
        for command in SESSION:
            code, shown = Terminal(command, Path(folder), _COLUMNS, JAMMI_INFERENCE__PRECISION="float32").finish()
            if code:
                raise RuntimeError("\n".join(shown))
            lines += [f"$ {command}", *(line.replace(folder, "/home/you") for line in shown), ""]
    return lines[:-1]


def drawn(lines: list[str]) -> str:
    """The picture of these lines."""
    columns = max(map(len, lines))
    texts = "\n".join(_drawn(number, line) for number, line in enumerate(lines) if line)
    width, height = round(columns * _WIDTH) + 2 * _MARGIN, len(lines) * _LINE + 3 * _MARGIN
    return _FRAME.format(width=width, height=height, lines=texts)


def _drawn(number: int, line: str) -> str:
    place = f'x="{_MARGIN}" y="{number * _LINE + 3 * _MARGIN - 7}"'
    # The length keeps the lines of a table aligned, whatever the font.
    length = f'textLength="{len(line) * _WIDTH:.1f}" lengthAdjust="spacingAndGlyphs"'
    style = ' class="prompt"' if line.startswith("$ ") else ""
    text = escape(line, quote=False).replace(" ", _SPACE)
    return f"<text {place} {length}{style}>{text}</text>"


def steady(lines: list[str]) -> Iterator[str]:
    """The lines without what differs between two runs: the time."""
    for line in lines:
        yield re.sub(r"seconds +[\d.]+", "seconds", re.sub(r"__\d{8}T\d{6}", "", line))


def written(picture: str) -> list[str]:
    """The lines that a picture has, those without any text left out."""
    return [unescape(text).replace(_SPACE, " ") for text in _TEXT.findall(picture)]


if __name__ == "__main__":
    PICTURE.write_text(drawn(session()))
