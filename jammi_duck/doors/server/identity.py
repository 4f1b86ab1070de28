"""Who may come in: tokens, and the roles that they give."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jammi_duck.errors import ConfigError, InputError, JammiError, NotFoundError

READER, ADMIN = "reader", "admin"
ROLES = (READER, ADMIN)
_VERSION = 1
_PREFIX = "jd_"
# What a wrong token costs, and how many may pay at a time.
_WRONG_SECONDS = 0.5
_MOST_WRONG = 8
_MOST_BYTES = 16 << 20
_USER = "token"


class UnknownError(JammiError):
    """No token, or a wrong one."""


@dataclass(frozen=True)
class Visitor:
    """Who sends a request: the name of the token, its role, and the sources that it may see, all of them where None."""

    name: str
    role: str
    sources: tuple[str, ...] | None = None


ANYBODY = Visitor("anonymous", READER)


@dataclass(frozen=True)
class Token:
    """A token as the file has it: by its SHA-256, never itself."""

    name: str
    role: str
    sha256: str
    created: str
    sources: tuple[str, ...] | None = None


_FIELDS = {field.name for field in fields(Token)}


def read_tokens(path: Path) -> list[Token]:
    """The tokens in a file; none where there is no file.

    Raises:
        ConfigError: it cannot be read, or is no such file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"cannot read the tokens in '{path}': {error.strerror}") from None
    try:
        document = json.loads(content)
        if document["version"] != _VERSION:
            raise ConfigError(f"the tokens in '{path}' are of a newer version of jammi-duck: {document['version']}")
        return [_token(each) for each in document["tokens"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"'{path}' is no file of tokens; `jammi-duck token add NAME` makes one") from None


def _token(found: dict[str, object]) -> Token:
    if not isinstance(found, dict):
        raise TypeError(found)
    sources: Any = found.get("sources")
    texts = {name: text for name, text in found.items() if name != "sources"}
    named = [*texts.values(), *(sources if isinstance(sources, list) else [])]
    # One that says more of itself may be meant to do less.
    if (
        set(found) != _FIELDS
        or not isinstance(sources, list | None)
        or not all(isinstance(text, str) for text in named)
    ):
        raise ValueError(sorted(found))
    token = Token(
        **{name: str(text) for name, text in texts.items()}, sources=None if sources is None else tuple(sources)
    )
    if token.role not in ROLES:
        raise ValueError(token.role)
    return token


def add_token(path: Path, name: str, role: str, sources: Sequence[str] | None = None) -> str:
    """Make a token and add it to a file, which is made if there is none; returns the token, which is stored nowhere.

    `sources` are all that it may see; None is everything.

    Raises:
        InputError: there is a token of this name, or the name is empty, or an admin is to see a part only.
        ConfigError: the file cannot be read or written.
    """
    tokens = read_tokens(path)
    if sources is not None and role == ADMIN:
        raise InputError("an admin sees all sources: leave out --sources, or take the role reader")
    if not name.strip():
        raise InputError("a token needs a name")
    if any(each.name == name for each in tokens):
        raise InputError(f"there is a token '{name}' in '{path}' already; `jammi-duck token revoke {name}` removes it")
    secret = _PREFIX + secrets.token_urlsafe(32)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    made = Token(name, role, _digest(secret), created, None if sources is None else tuple(sources))
    _write(path, [*tokens, made])
    return secret


def revoke_token(path: Path, name: str) -> None:
    """Remove a token from a file. Raises NotFoundError where it has none of this name."""
    tokens = read_tokens(path)
    left = [each for each in tokens if each.name != name]
    if len(left) == len(tokens):
        known = ", ".join(each.name for each in tokens) or "none"
        raise NotFoundError(f"there is no token '{name}' in '{path}'; tokens: {known}")
    _write(path, left)


def _write(path: Path, tokens: Sequence[Token]) -> None:
    document = {"version": _VERSION, "tokens": [asdict(each) for each in tokens]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made with permissions for its owner alone.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except OSError as error:
        raise ConfigError(f"cannot write the tokens to '{path}': {error.strerror}") from None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


class Gate:
    """Tells visitors by their tokens; a file that has changed is read again."""

    def __init__(self, path: Path | None, *, open_to_all: bool) -> None:
        """Without a file, everybody comes in as a reader, whatever he sends.

        With one, `open_to_all` lets in who has no token; a wrong token is refused all the same.

        Raises:
            ConfigError: the file cannot be read.
        """
        self._path = path
        self._open_to_all = open_to_all
        self._lock = threading.Lock()
        self._state: object = None
        self._tokens: list[Token] = []
        self._wrong = threading.BoundedSemaphore(_MOST_WRONG)
        self._read()

    def _read(self) -> list[Token]:
        if self._path is None:
            return []
        with self._lock:
            try:
                found = os.stat(self._path)
                state = (found.st_mtime_ns, found.st_ino, found.st_size)
            except OSError:
                state = None
            if state != self._state or self._state is None:
                self._tokens = read_tokens(self._path)
                self._state = state
            return self._tokens

    def visitor(self, authorization: str | None) -> Visitor:
        """Who has sent this `Authorization` header.

        Raises:
            UnknownError: there is none and it takes one, or it is wrong.
        """
        if self._path is None or (self._open_to_all and not authorization):
            return ANYBODY
        if not authorization:
            raise UnknownError(
                "this server needs a token: send `Authorization: Bearer TOKEN`, or the user `token` with it"
            )
        secret = token_in(authorization)
        found: Token | None = None
        if secret is not None:
            digest = _digest(secret)
            # All of them, so that the time does not tell which is like it.
            for token in self._read():
                if hmac.compare_digest(token.sha256.encode(), digest.encode()):
                    found = token
        if found is None:
            self._let_it_cost()
            raise UnknownError("the token is wrong, or was revoked")
        return Visitor(found.name, found.role, found.sources)

    def _let_it_cost(self) -> None:
        if self._wrong.acquire(blocking=False):
            try:
                time.sleep(_WRONG_SECONDS)
            finally:
                self._wrong.release()


def token_in(authorization: str) -> str | None:
    """The token in an `Authorization` header, by Bearer, or by Basic with the user `token`; None for others."""
    kind, _, rest = authorization.partition(" ")
    if kind.lower() == "bearer":
        return rest.strip()
    if kind.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            encoded = rest.strip()
            # Some clients leave out the padding.
            decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
            user, colon, password = decoded.partition(":")
            if colon and user == _USER:
                return password
    return None
