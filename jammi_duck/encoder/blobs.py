"""Values as texts: what SQL makes of a BLOB, and of what is no text, for a model that takes other values than texts."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from typing import Any

from jammi_duck.config.redaction import public_url
from jammi_duck.errors import InputError

BLOB = "data:;base64,"
JSON = "data:application/json,"
# Also a data URL of an image, as browsers have them.
_PICTURE = re.compile(r"data:(?:image/[\w.+-]+)?;base64,")


def blob_of(content: bytes) -> str:
    """Bytes as a text."""
    return BLOB + base64.b64encode(content).decode("ascii")


def value_of(text: str) -> Any:  # noqa: ANN401 - what JSON holds, bytes, or a text
    """The value that a text stands for: bytes, a number, a list, a dict, or the text itself."""
    if text.startswith(JSON):
        try:
            return json.loads(text[len(JSON) :])
        except (ValueError, RecursionError):
            return text
    content = bytes_of(text)
    return text if content is None else content


def bytes_of(text: str) -> bytes | None:
    """The bytes that a text stands for; None if it is another text."""
    if not text.startswith(BLOB):
        return None
    try:
        return base64.b64decode(text[len(BLOB) :], validate=True)
    except binascii.Error:
        return None


def is_picture(text: str) -> bool:
    """Whether a text has a picture in it: what SQL makes of a BLOB, or a data URL of an image."""
    return start_of(text) is not None


def start_of(text: str) -> int | None:
    """Where the base64 of a picture begins; None if the text has none in it."""
    match = _PICTURE.match(text)
    return match.end() if match else None


def size_of(text: str) -> int:
    """How many bytes a picture in a text has."""
    return max(0, (len(text) - (start_of(text) or 0)) * 3 // 4 - text.count("=", -2))


def shown(text: str) -> str:
    """A text that stands for a picture, as errors show it."""
    return f"a picture of {size_of(text):,} bytes" if is_picture(text) else f"'{public_url(text)[:200]}'"


def refuse_pictures(texts: Iterable[object], model: str) -> None:
    """Raise InputError if a query to a model of texts is a picture."""
    for text in texts:
        if isinstance(text, str) and is_picture(text):
            raise InputError(
                f"the query is a BLOB of {size_of(text):,} bytes, and '{model}' takes texts only: write decode(...) if "
                "it is a text; pictures are searched with a model that takes them, such as 'open-clip:ViT-B-32'"
            )
