"""Blank texts: only spaces, control characters and invisible characters. Python and SQL use the same definition."""

from __future__ import annotations

import re

# White space, control characters, and "default ignorable" characters of Unicode: first and last of each range.
RANGES = (
    (0x00, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x1680, 0x1680),
    (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x3000, 0x3000),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB),
    (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
# A visible character, in the syntax of DuckDB's regular expressions.
VISIBLE = "[^" + "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in RANGES) + "]"
_VISIBLE = re.compile("[^" + "".join(f"{chr(first)}-{chr(last)}" for first, last in RANGES) + "]")


def is_blank(text: str) -> bool:
    """Whether a text is blank."""
    return _VISIBLE.search(text) is None
