"""What `$var:name` and `${NAME}` stand for in the arguments of a model: values that only this process knows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jammi_duck.errors import InputError, NotFoundError

PREFIX = "$var:"
_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def is_placeholder(value: object) -> bool:
    """Whether a value is nothing but a placeholder, without a default after it."""
    if not isinstance(value, str):
        return False
    is_variable = value.startswith(PREFIX) and ":" not in value.removeprefix(PREFIX)
    return is_variable or _ENVIRONMENT.fullmatch(value) is not None


def has_placeholder(value: object) -> bool:
    """Whether there is a placeholder in a value, however deep."""
    return any(text.startswith(PREFIX) or _ENVIRONMENT.search(text) for text in _texts(value))


def without_placeholders(text: str) -> str:
    """A text with a letter in place of each placeholder: what would be stored of it as it is."""
    return _ENVIRONMENT.sub("x", "x" if is_placeholder(text) else text)


def resolved(value: Any, variable: Callable[[str], str]) -> Any:  # noqa: ANN401 - an argument of any type
    """A value with what its placeholders stand for, however deep they are in lists and dicts.

    `$var:name` is what `variable` gives for the name, and `$var:name:default` the default where it gives nothing; the
    default is all that comes after the second colon. `${NAME}` is the environment variable.

    Raises:
        InputError: one stands for nothing; the message says what to set.
    """
    if isinstance(value, str):
        return _text(value, variable)
    if isinstance(value, Mapping):
        return {name: resolved(each, variable) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(each, variable) for each in value]
    return value


def _text(text: str, variable: Callable[[str], str]) -> str:
    if text.startswith(PREFIX):
        name, colon, default = text.removeprefix(PREFIX).partition(":")
        try:
            return variable(name)
        except NotFoundError:
            if colon:
                return default
            raise InputError(
                f"'{text}' stands for a variable that is not set; set it in this process: "
                f"jammi_duck.embeddings.get_registry().set_var('{name}', ...)"
            ) from None
    return _ENVIRONMENT.sub(_from_environment, text)


def _from_environment(match: re.Match[str]) -> str:
    value = os.environ.get(match[1])
    if value is None:
        raise InputError(f"'{match[0]}' stands for an environment variable that is not set; set {match[1]}")
    return value


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
