"""The manifest: a small JSON file that lists all other files of an embedding table, and commits it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jammi_duck.errors import DamagedError, StateError, UnsupportedError
from jammi_duck.fields import (
    ELSEWHERE,
    Id,
    Moment,
    Number,
    Record,
    canonical,
    check_moment,
    check_understood,
    convert,
    naming,
    parsed,
    record,
)
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.store import FileDigest, Store, check_size
from jammi_duck.types import Counts, Definition

FORMAT_VERSION = 1
_BACKEND = {"backend": "usearch", "metric": "cos"}


@dataclass(frozen=True)
class TableFile(Record):
    """A Parquet file of a table, with its number and its number of rows."""

    number: Number
    rows: Number
    parquet: FileDigest


@dataclass(frozen=True)
class Segment(TableFile):
    """The files of one segment: its Parquet file, and `sidecars` by kind, which can be rebuilt.

    Sidecars of kinds that this version does not know are in `unknown`.
    """

    sidecars: Mapping[str, FileDigest] = field(default_factory=dict, hash=False, metadata=ELSEWHERE)

    def _others(self) -> dict[str, Any]:
        return {kind: digest.as_fields() for kind, digest in self.sidecars.items()}


@dataclass(frozen=True)
class Tombstones(TableFile):
    """A file that lists rows of segments that are gone or replaced; no two files list the same row."""


@dataclass(frozen=True)
class Manifest(Record):
    """One state of an embedding table; the highest `number` in storage is the current state."""

    table: str
    build: Id
    number: Number
    definition: Definition
    counts: Counts
    started: Moment
    finished: Moment
    segments: tuple[Segment, ...]
    tombstones: tuple[Tombstones, ...] = field(default=(), metadata=ELSEWHERE)
    format_version: int = field(default=FORMAT_VERSION, kw_only=True)

    @property
    def rows(self) -> int:
        """The number of rows, without those that are gone."""
        return sum(segment.rows for segment in self.segments) - sum(each.rows for each in self.tombstones)

    @property
    def texts(self) -> int:
        """The number of texts, each of which is a row, or cut into several."""
        return self.counts.rows if self.definition.passages else self.rows

    @property
    def parquet_files(self) -> tuple[TableFile, ...]:
        """The Parquet files; the other files can be rebuilt from them."""
        return *self.segments, *self.tombstones

    @property
    def files(self) -> tuple[FileDigest, ...]:
        """All files of the state, except the manifest itself."""
        sidecars = (file for segment in self.segments for file in segment.sidecars.values())
        return *(each.parquet for each in self.parquet_files), *sidecars

    @property
    def file(self) -> str:
        """The name of this manifest's file."""
        return layout.manifest(self.table, self.number)

    def to_bytes(self) -> bytes:
        """The file's content: JSON, indented, with a SHA-256 of the rest as `checksum`."""
        document: dict[str, Any] = {
            "format_version": self.format_version,
            "table": self.table,
            "build": self.build,
            "number": self.number,
            **(_BACKEND if self.definition.has_vectors else {}),
            "dimensions": self.definition.dimensions,
            "count": self.rows,
            "definition": json.loads(self.definition.to_json()),
            "fingerprint": self.definition.fingerprint,
            "counts": self.counts.as_fields(),
            "started": self.started.isoformat(),
            "finished": self.finished.isoformat(),
            "segments": [segment.as_fields() for segment in self.segments],
            "deleted": [each.as_fields() for each in self.tombstones],
            **self.unknown,
        }
        return json.dumps({**document, "checksum": _checksum(document)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes, file: str) -> Manifest:
        """Read the manifest called `file`.

        Raises:
            DamagedError: it is truncated or altered, belongs to another table, or names files of another table.
            UnsupportedError: it was written by a later version, and needs features that this version does not know.
        """
        with naming(file):
            document = parsed(content)
            if "format_version" not in document:
                raise DamagedError("is not a whole manifest: it has no format version")
            check_understood(document, FORMAT_VERSION)
            try:
                if document.pop("checksum", None) != _checksum(document):
                    raise DamagedError("was altered: its checksum differs")
                found = _manifest(document)
                _check_names(found, file)
                _check_relations(found, document)
            except DamagedError as error:
                if document["format_version"] > FORMAT_VERSION:
                    # Its features are known, but its contents do not fit them: leave it alone rather than rebuild it.
                    raise UnsupportedError(str(error)) from None
                raise
        return found


def _manifest(document: Mapping[str, Any]) -> Manifest:
    fields = {name: value for name, value in document.items() if name not in (*_DERIVED, "deleted")}
    if not isinstance(document.get("segments"), list) or not isinstance(document.get("deleted", []), list):
        raise DamagedError("has no list of segments")
    return record(
        Manifest,
        fields,
        definition=Definition.from_fields(document.get("definition")),
        counts=Counts.from_fields(document.get("counts")),
        started=_moment(document.get("started")),
        finished=_moment(document.get("finished")),
        segments=tuple(map(segment_of, document["segments"])),
        tombstones=tuple(_tombstones(each) for each in document.get("deleted", ())),
    )


# Fields that repeat other fields.
_DERIVED = ("backend", "metric", "dimensions", "count", "fingerprint")


def _moment(value: object) -> datetime:
    return check_moment(convert(value, Moment))


def _check_names(found: Manifest, file: str) -> None:
    """Raise DamagedError if a manifest, or a file that it names, belongs to another table."""
    name = layout.parse(file)
    if name is None or (name.table, name.kind, name.number) != (found.table, "manifest.json", found.number):
        raise DamagedError("is another table's manifest")
    for segment in found.segments:
        named = segment.sidecars.items()
        wrong = [file.file for kind, file in named if not _is_sidecar(file, found.table, segment.number, kind)]
        if segment.parquet.file != layout.parquet(found.table, segment.number) or wrong:
            raise DamagedError(f"is another table's manifest: it names '{[segment.parquet.file, *wrong][-1][:300]}'")
    for each in found.tombstones:
        if each.parquet.file != layout.deleted(found.table, each.number):
            raise DamagedError(f"is another table's manifest: it names '{each.parquet.file[:300]}'")


def _is_sidecar(digest: FileDigest, table: str, number: int, kind: str) -> bool:
    name = layout.parse(digest.file)
    return name is not None and (name.table, name.number, name.kind) == (table, number, kind)


def _check_relations(found: Manifest, document: Mapping[str, Any]) -> None:
    """Raise DamagedError if fields contradict each other."""
    rows, listed = sum(each.rows for each in found.segments), sum(each.rows for each in found.tombstones)
    numbers = [Counter(each.number for each in files) for files in (found.segments, found.tombstones)]
    definition = found.definition
    # A missing field is taken to have the right value.
    told = {name: document.get(name, value) for name, value in {**_BACKEND, "count": found.rows}.items()}
    wrong = {
        "no segments": not found.segments,
        "the number 0": not found.number,
        "a number twice": any(count > 1 for counted in numbers for count in counted.values()),
        "more rows deleted than there are": listed > rows,
        "counts of other rows": found.counts.stored != found.rows or told["count"] != found.rows,
        "files without a digest": any(not digest.sha256 for digest in found.files),
        "another kind of index": {name: told[name] for name in _BACKEND} != _BACKEND,
        "other dimensions than its definition": document.get("dimensions", definition.dimensions)
        != definition.dimensions,
        "another fingerprint than its definition": document.get("fingerprint") != definition.fingerprint,
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise DamagedError(f"contradicts itself: it has {what}")


def newest(files: Iterable[str]) -> dict[str, str]:
    """The manifest file with the highest number of each embedding table, among the files of a location."""
    highest: dict[str, tuple[int, str]] = {}
    for file in files:
        name = layout.parse(file)
        if name and name.kind == "manifest.json":
            highest[name.table] = max(highest.get(name.table, (0, "")), (name.number, file))
    return {table: file for table, (_, file) in highest.items()}


def read(store: Store, file: str) -> Manifest:
    """Read a manifest from a location. Raises DamagedError if it is missing or damaged."""
    try:
        return Manifest.from_bytes(store.read(file), file)
    except FileNotFoundError as error:
        raise DamagedError(f"'{file}' is missing") from error


def commit(store: Store, manifest: Manifest, change: str, files: Collection[str] | None = None) -> None:
    """Write a manifest, which makes it the table's current state. `change` is the id in the names of scratch files.

    `files` are those of the location, if that was listed just now.

    Raises:
        FileExistsError: another writer was first.
        StateError: a Parquet file in it is missing, because another database has deleted the file or the table.
        StorageError: it is too large to be read again.
    """
    content = manifest.to_bytes()
    check_size(manifest.file, len(content))
    _check_there(manifest, store.names() if files is None else files)
    scratch = store.scratch(manifest.file, change)
    try:
        scratch.write_bytes(content)
        store.create(manifest.file, scratch)
    finally:
        store.discard(scratch.name)
    # A vacuum may have freed this number after newer states were committed: then undo, and report the conflict.
    files = store.names()
    later = newest(files).get(manifest.table, manifest.file)
    if (highest := layout.parse(later)) and highest.number > manifest.number:
        store.delete(manifest.file)
        raise FileExistsError(later)
    try:
        _check_there(manifest, files)
    except StateError:
        store.delete(manifest.file)
        raise


def _check_there(manifest: Manifest, files: Collection[str]) -> None:
    gone = [each.parquet.file for each in manifest.parquet_files if each.parquet.file not in files]
    if gone:
        raise StateError(f"'{manifest.table}' has changed meanwhile: '{gone[0]}' is gone; run this again")


def segment_of(fields: object) -> Segment:
    """A segment from its fields, as written by `as_fields`. Raises DamagedError or UnsupportedError."""
    if not isinstance(fields, Mapping):
        return record(Segment, fields)
    digests = {kind: record(FileDigest, fields[kind]) for kind in layout.SIDECARS if kind in fields}
    others = {name: value for name, value in fields.items() if name not in digests}
    # Earlier versions listed a missing sidecar with an empty name.
    sidecars = {kind: digest for kind, digest in digests.items() if digest.file}
    return record(Segment, others, parquet=record(FileDigest, fields.get("parquet")), sidecars=sidecars)


def _tombstones(fields: object) -> Tombstones:
    given = fields if isinstance(fields, Mapping) else {}
    return record(Tombstones, fields, parquet=record(FileDigest, given.get("parquet")))


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(document).encode()).hexdigest()
