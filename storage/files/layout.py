"""The names of the files, as in docs/format.md. Every path below a location is made here."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from jammi_duck.errors import StorageError

FOLDER = "jammi_db"
# The kinds of sidecars that this version knows: the endings of their names, and their names in a manifest.
SIDECARS = ("usearch", "rowmap", "vectors", "words")

# What an embedding table records of a model that is no local one.
_PROVIDER = re.compile(r"(?P<id>[A-Za-z][\w.-]*):(?![/\\])(?P<model>[^?]*)(\?.*)?", re.DOTALL)
_NAME = r"[A-Za-z0-9._~-]+__embedding__[A-Za-z0-9._~-]+__[0-9]{8}T[0-9]{6}(?:_[0-9]+)?"
_FILE = re.compile(
    rf"(?P<table>{_NAME})(?:\.(?P<number>[0-9]{{5,10}}))?(?:\.r(?P<rebuilt>[0-9]{{5,10}}))?"
    rf"\.(?P<kind>parquet|deleted\.parquet|{'|'.join(SIDECARS)}|manifest\.json)"
)
_MOST = 2**31 - 1
# Earlier versions used 4 digits at the end.
_SCRATCH = re.compile(r"\.(?P<file>.+)\.(?P<build>[0-9a-f]{8})-(?:[0-9a-f]{4}){1,2}\.tmp")


@dataclass(frozen=True)
class FileName:
    """The parts of a file's name: the embedding table, the kind, and the segment or manifest number."""

    table: str
    kind: str
    number: int
    rebuilt: int


def parse(file: str) -> FileName | None:
    """Parse a file's name; None if it is not one of ours."""
    match = _FILE.fullmatch(file)
    if not match:
        return None
    first = 1 if match["kind"] == "manifest.json" else 0
    name = FileName(match["table"], match["kind"], int(match["number"] or first), int(match["rebuilt"] or 0))
    if max(name.number, name.rebuilt) > _MOST:
        return None
    # If several spellings were accepted, two files could have the same number.
    return name if _written(name) == file else None


def _written(name: FileName) -> str:
    if name.kind == "manifest.json":
        return manifest(name.table, name.number)
    if name.kind == "parquet":
        return parquet(name.table, name.number)
    if name.kind == "deleted.parquet":
        return deleted(name.table, name.number)
    return sidecar(name.table, name.number, name.kind, name.rebuilt)


def is_manifest(file: str) -> bool:
    """Whether a file's name is that of a manifest."""
    return _kind(file) == "manifest.json"


def is_parquet(file: str) -> bool:
    """Whether a file's name is that of a segment's Parquet file."""
    return _kind(file) == "parquet"


def is_tombstones(file: str) -> bool:
    """Whether a file's name is that of tombstones."""
    return _kind(file) == "deleted.parquet"


def is_truth(file: str) -> bool:
    """Whether a file's name is that of a segment's Parquet file, or of tombstones."""
    return is_parquet(file) or is_tombstones(file)


def is_sidecar(file: str) -> bool:
    """Whether a file's name is that of a segment's sidecar."""
    return _kind(file) in SIDECARS


def number_of(file: str) -> int:
    """The number in the name of one of our files. Raises ValueError for another file's name."""
    name = parse(file)
    if name is None:
        raise ValueError(file)
    return name.number


def parquet(table: str, segment: int) -> str:
    """The Parquet file of a segment. Like the functions below, raises StorageError if the number is too large."""
    return f"{table}{_numbered(segment)}.parquet"


def deleted(table: str, number: int) -> str:
    """The Parquet file that lists rows that are gone or replaced, counted from 1."""
    return f"{table}{_numbered(number)}.deleted.parquet"


def sidecar(table: str, segment: int, kind: str, rebuilt: int = 0) -> str:
    """A segment's sidecar of this kind; `rebuilt` is the number of the manifest that names it."""
    again = f".r{_numbered(rebuilt)[1:]}" if rebuilt else ""
    return f"{table}{_numbered(segment)}{again}.{kind}"


def manifest(table: str, number: int) -> str:
    """The manifest with this number, counted from 1."""
    return f"{table}{_numbered(number if number > 1 else 0)}.manifest.json"


def scratch(file: str, build: str) -> str:
    """A new hidden name under which a build writes a file before it gets its final name."""
    return f".{file}.{build[:8]}-{secrets.token_hex(4)}.tmp"


def is_scratch(name: str, build: str | None = None) -> bool:
    """Whether a file's name is that of a scratch file, of this build if one is given."""
    match = _SCRATCH.fullmatch(name)
    return match is not None and parse(match["file"]) is not None and (build is None or match["build"] == build[:8])


def scratch_of(name: str) -> tuple[str, str]:
    """The parts of a scratch file's name: the first digits of a build's or change's id, and the embedding table."""
    match = _SCRATCH.fullmatch(name)
    of = parse(match["file"]) if match else None
    if match is None or of is None:
        raise ValueError(f"'{name}' is not the name of a scratch file")
    return match["build"], of.table


def table_name(label: str, model: str, started: datetime, taken: Container[str]) -> str:
    """A new embedding table's name: a label, last part of the model's name, UTC second of the start.

    If there is no model, it is `words` in its place. Of `id:model?arguments`, it is the model's, or the id.

    It contains only letters, digits and `. _ - ~`, never leaves its folder, and stays under 200 bytes with any suffix.
    If the name is in `taken`, `_2`, `_3`, ... is appended.
    """
    provider = _PROVIDER.fullmatch(model)
    if provider:
        model = provider["model"] or provider["id"]
    last = model.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or "words"
    name = f"{_escaped(label, 64)}__embedding__{_escaped(last, 60)}__{started:%Y%m%dT%H%M%S}"
    if name not in taken:
        return name
    return next(f"{name}_{n}" for n in range(2, 10_000) if f"{name}_{n}" not in taken)


def is_called(table: str, name: str) -> bool:
    """Whether an embedding table has this name, or its name begins with this as the name that a user gave it."""
    return table == name or table.partition("__embedding__")[0] == _escaped(name, 64)


def times(label: str, tables: Iterable[str]) -> list[datetime]:
    """When builds with a label started, to the second (UTC), from the names of their tables."""
    found = []
    for table in tables:
        of, _, rest = table.partition("__embedding__")
        if of == _escaped(label, 64):
            # Not every such text is a date: the 31st of June.
            with contextlib.suppress(ValueError):
                found.append(datetime.strptime(rest.rpartition("__")[2][:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC))
    return found


def _kind(file: str) -> str | None:
    name = parse(file)
    return name.kind if name else None


def _numbered(number: int) -> str:
    if number > _MOST:
        raise StorageError(
            f"there is no number for a new file: one of the same table has {_MOST}, the highest; move that file away"
        )
    return f".{number:05d}" if number else ""


def _escaped(text: str, longest: int) -> str:
    plain = re.sub(r"^\.|[^A-Za-z0-9._-]", lambda c: "".join(f"~{b:02X}" for b in c[0].encode()), text)
    plain = plain or "~"
    if len(plain) <= longest:
        return plain
    return plain[: longest - 9] + "~" + hashlib.sha256(text.encode()).hexdigest()[:8]
