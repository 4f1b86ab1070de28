"""The text that names a model of a provider, and its arguments: `openai:text-embedding-3-small?dimensions=256`.

An embedding table records this text, so it holds placeholders such as `$var:api_key`, and never what they stand for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from jammi_duck.errors import InputError

ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
# After the colon of a URL come two slashes; a directory may stand there, but behind no drive, which has one letter.
_SPEC = re.compile(rf"(?![A-Za-z]:[/\\])({ID.pattern}):(?!//|\\)([^?]*)(?:\?(.*))?", re.DOTALL)
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a value may show as it is; `:` and `/` of a URL are easier to read so.
_PLAIN = "$:/{}[],\"'.@+ "


@dataclass(frozen=True)
class Spec:
    """A provider's id, the name of its model (empty for the default one), and the arguments as they were given."""

    id: str
    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The text that `parse_spec` reads.

        Raises:
            InputError: an argument is no text, number, list or dict, so it cannot be written down.
        """
        name = f"{self.id}:{quote(self.name, safe='/:@+,.$ ')}"
        given = "&".join(f"{key}={_written(key, value)}" for key, value in sorted(self.arguments.items()))
        return f"{name}?{given}" if given else name


def parse_spec(text: str) -> Spec | None:
    """What a text names, if it has the form `id:model?argument=value&…`; None for the name of a local model.

    Values are JSON; what is none is a text.

    Raises:
        InputError: what comes after the question mark is not of this form.
    """
    match = _SPEC.fullmatch(text)
    if match is None:
        return None
    id_, name, given = match.groups()
    arguments: dict[str, Any] = {}
    for part in (given or "").split("&") if given else ():
        key, equals, value = part.partition("=")
        if not equals or not _ARGUMENT.fullmatch(key) or key in arguments or key == "name":
            raise InputError(
                f"the model '{id_}:{name}?…' has '{key[:40]}' where an argument belongs; write each once, as in "
                f"'{id_}:{name or 'model'}?argument=value&another=value'"
            )
        arguments[key] = _read(unquote(value))
    return Spec(id_, unquote(name), arguments)


def _written(key: str, value: object) -> str:
    try:
        # A text that would be read as something else is quoted.
        text = value if isinstance(value, str) and _read(value) == value else json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the argument {key} is of type {type(value).__name__}, which cannot be stored with an embedding table; "
            "give a text, a number, a list or a dict"
        ) from error
    return quote(text, safe=_PLAIN)


def _read(text: str) -> Any:  # noqa: ANN401 - what JSON holds
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
