"""Reads fields of files and of the catalog, and checks versions, required features, and the range of every field.

Unknown fields are kept and written again. Unknown features are refused by name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from jammi_duck.errors import DamagedError, StorageError, UnsupportedError

# Of an embedding table that has an index of words, and no vectors.
WORDS_ONLY = "words only"
# Of an embedding table that has a row for each passage of a text.
PASSAGES = "passages"
# The features that this version knows.
FEATURES: frozenset[str] = frozenset({WORDS_ONLY, PASSAGES})
# The deepest nesting of unknown fields.
_DEEPEST = 32
_YEARS = range(1970, 9999)

Number = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Amount = Annotated[int, Meta(ge=0, le=2**48)]
Dimensions = Annotated[int, Meta(ge=0, le=65_536)]
Text = Annotated[str, Meta(max_length=1 << 20)]
Id = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
NoSha256 = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$", max_length=64)]
Moment = Annotated[datetime, Meta(tz=True)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A part of a file. `unknown` has the fields that this version does not know, and the `features`, unchanged."""

    unknown: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def as_fields(self) -> dict[str, Any]:
        """The fields as they are written: the known ones by name, followed by the unknown ones."""
        return {**{name: _plain(getattr(self, name)) for name in _names(type(self))}, **self._others(), **self.unknown}

    def _others(self) -> dict[str, Any]:
        """The fields whose names in the file differ from those of the attributes."""
        return {}


Kind = TypeVar("Kind", bound=Record)

# Of an attribute: a field of its name is none of ours.
ELSEWHERE = {"elsewhere": True}


def _names(kind: type[Record]) -> list[str]:
    """The fields whose names in the file are those of the attributes."""
    fields = dataclasses.fields(kind)
    return [each.name for each in fields if each.name != "unknown" and not each.metadata.get("elsewhere")]


def record(kind: type[Kind], fields: object, **read: object) -> Kind:
    """A part of a file, made of its fields; those in `read` are converted already.

    Raises:
        DamagedError: a field is missing, or has a wrong type or an impossible value.
        UnsupportedError: an unknown feature is required, or unknown fields are nested too deep.
    """
    if not isinstance(fields, Mapping):
        raise DamagedError(f"has {type(fields).__name__} where there should be fields")
    check_understood(fields)
    names = set(_names(kind))
    unknown = {name: value for name, value in fields.items() if name not in names}
    _check_depth(unknown)
    known = {name: value for name, value in fields.items() if name in names and name not in read}
    return convert({**known, **read, "unknown": unknown}, kind)


T = TypeVar("T")


def convert(value: object, kind: type[T]) -> T:
    """Convert a value to this type and check its range. Raises DamagedError."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise DamagedError(f"has a value that it cannot have: {error}") from None


def check_understood(fields: Mapping[str, Any], latest: int = 1) -> None:
    """Raise UnsupportedError if `fields` require an unknown feature, or have an unknown version.

    A later version than `latest` is accepted if it lists the features that it requires, and all are known.
    """
    version, features = fields.get("format_version", latest), fields.get("features")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedError(f"has the format version {version!r}")
    if features is None and version > latest:
        raise UnsupportedError(f"has format version {version}; this jammi_duck reads {latest}: a later one may read it")
    if features is None:
        return
    if not isinstance(features, list) or not all(isinstance(each, str) for each in features):
        raise UnsupportedError("says in an unknown way which features it needs: a later jammi_duck may read it")
    for feature in features:
        if feature not in FEATURES:
            raise UnsupportedError(f"needs the feature '{feature[:100]}': a later jammi_duck may read it")


def parsed(text: str | bytes) -> dict[str, Any]:
    """The fields of a JSON object.

    Raises:
        DamagedError: it is not JSON, or not an object.
        UnsupportedError: it is nested too deep.
    """
    try:
        found = json.loads(text, parse_constant=_refuse)
        # Half a surrogate pair is not valid text.
        if b"\\ud" in (text if isinstance(text, bytes) else text.encode()).lower():
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise UnsupportedError("is nested too deep") from None
    except ValueError as error:
        raise DamagedError(f"is not whole: {error}") from None
    if not isinstance(found, dict):
        raise DamagedError("is not whole: it is JSON, but no object")
    return found


def canonical(fields: Mapping[str, Any]) -> str:
    """Canonical JSON: sorted names, no spaces."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def is_sha256(text: str) -> bool:
    """Whether a text is a SHA-256: 64 hexadecimal digits."""
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def check_moment(moment: datetime) -> datetime:
    """Return a time if Python and DuckDB support its year in every time zone. Raises DamagedError."""
    with contextlib.suppress(OverflowError):
        if moment.astimezone(UTC).year in _YEARS:
            return moment
    raise DamagedError(f"has a time that cannot be: {moment.isoformat()}")


@contextlib.contextmanager
def naming(file: str) -> Iterator[None]:
    """Put the name of the file in front of errors about it."""
    try:
        yield
    except StorageError as error:
        raise type(error)(f"'{file}' {error}") from error.__cause__


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return value.as_fields()
    return list(value) if isinstance(value, tuple) else value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [each for one in level if isinstance(one, dict | list) for each in _within(one)]
        if not level:
            return
    raise UnsupportedError("is nested too deep")


def _within(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
