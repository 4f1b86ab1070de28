"""Keeps secrets out of what is shown: credentials and signatures in URLs, and the values of storage options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

HIDDEN = "***"

# Keys of object stores have slashes in them that nobody escapes; elsewhere a slash ends the user, as RFC 3986 says.
_USER = re.compile(r"(?<=s3://)(?!arn:)[^\s/@:]+:[^\s@]*@|(?<=://)[^\s/@]*@")
_QUERY_STRING = re.compile(r"\?[^?]*=.*", re.DOTALL)
_QUERY_IN_TEXT = re.compile(r"(://[^\s'\"?]*)\?[^\s'\"]*")
_SECRET_OPTION = re.compile("key|secret|token|password|passwd|credential|auth|sas", re.IGNORECASE)
_SHORTEST = 4


def public_url(url: str) -> str:
    """A URL without its user and its query string, which may be secrets; a path stays as it is."""
    return _USER.sub("", _QUERY_STRING.sub("", url)) if "://" in url else url


def split_user(url: str) -> tuple[str, str | None, str | None]:
    """A URL without its user, the user, and the password: those decoded, and None where there is none."""
    match = _USER.search(url)
    if match is None:
        return url, None, None
    user, _, password = match[0].removesuffix("@").partition(":")
    return url[: match.start()] + url[match.end() :], unquote(user) or None, unquote(password) or None


def secrets_of(options: Mapping[str, object]) -> frozenset[str]:
    """The values of storage options whose names tell that they are secret, nested ones too."""
    return frozenset(_secrets(options))


def _secrets(options: Mapping[str, object]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secrets(value)
        elif isinstance(value, str) and len(value) >= _SHORTEST and _SECRET_OPTION.search(name):
            yield value


def redacted(text: str, secrets: frozenset[str] = frozenset()) -> str:
    """A text to be shown: no user in its URLs, no query string, and none of the secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _QUERY_IN_TEXT.sub(rf"\1?{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
