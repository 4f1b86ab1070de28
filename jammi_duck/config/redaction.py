"""Removes secrets from texts to be shown: credentials and signatures in URLs, and values of storage options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

HIDDEN = "***"

# Keys of object stores contain unescaped slashes; elsewhere a slash ends the user, as in RFC 3986.
_USER = re.compile(r"(?<=s3://)(?!arn:)[^\s/@:]+:[^\s@]*@(?:[^\s/]*@)?|(?<=://)[^\s/]*@")
_QUERY_STRING = re.compile(r"\?[^?]*=.*", re.DOTALL)
_QUERY_IN_TEXT = re.compile(r"(://[^\s'\"?]*)\?[^\s'\"]*")
_SECRET_PARAMETER = re.compile(r"[?&][^=&]*(?:sig|key|secret|token|password|credential|auth)[^=&]*=", re.IGNORECASE)
# Options of fsspec whose values help readers of an error. All others may be secret.
_PUBLIC_OPTIONS = {"endpoint_url", "region", "region_name", "profile", "signature_version", "addressing_style"}
_SHORTEST = 4
# The name of an argument that is a secret; max_tokens is none.
_SECRET_NAME = re.compile(
    r"(^|[_-])(api_?key|key|secret|token|password|passwd|pwd|passphrase|credentials?|auth|authorization|bearer)$",
    re.IGNORECASE,
)


def public_url(url: str) -> str:
    """A URL without its user and its query string, which may be secrets; a path stays as it is."""
    return _USER.sub("", _QUERY_STRING.sub("", url)) if "://" in url else url


def split_user(url: str) -> tuple[str, str | None, str | None]:
    """A URL without its user, the user, and the password: both decoded, None if missing."""
    match = _USER.search(url)
    if match is None:
        return url, None, None
    user, _, password = match[0].removesuffix("@").partition(":")
    return url[: match.start()] + url[match.end() :], unquote(user) or None, unquote(password) or None


def is_secret_name(name: str) -> bool:
    """Whether an argument of this name is a secret."""
    return _SECRET_NAME.search(name) is not None


def has_secret(url: str) -> bool:
    """Whether a URL has a user, or a parameter that looks like a key or a signature."""
    return "://" in url and bool(_USER.search(url) or _SECRET_PARAMETER.search(url))


def secrets_of(options: Mapping[str, object]) -> frozenset[str]:
    """The texts in storage options that may be secret, including nested ones."""
    return frozenset(text for text in _texts(options) if len(text) >= _SHORTEST)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in _PUBLIC_OPTIONS:
                yield from _texts(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def redacted(text: str, secrets: frozenset[str] = frozenset()) -> str:
    """A text without users and query strings in its URLs, and without the secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _QUERY_IN_TEXT.sub(rf"\1?{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
