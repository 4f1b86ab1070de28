"""The commit point of an embedding table: one small JSON file that lists all the others, written last."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
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
from jammi_duck.storage.files.store import Digest, Store, check_size
from jammi_duck.types import Counts, Definition

FORMAT_VERSION = 1
_BACKEND = {"backend": "usearch", "metric": "cos"}


@dataclass(frozen=True)
class Truth(Record):
    """A Parquet file of a table, with its number and how many rows it holds."""

    number: Number
    rows: Number
    parquet: Digest


@dataclass(frozen=True)
class Segment(Truth):
    """The files of one segment: the `sidecars` are disposable, and listed by kind.

    Those of kinds that this version does not know are among what is `unknown`.
    """

    sidecars: Mapping[str, Digest] = field(default_factory=dict, hash=False, metadata=ELSEWHERE)

    def _others(self) -> dict[str, Any]:
        return {kind: digest.as_fields() for kind, digest in self.sidecars.items()}


@dataclass(frozen=True)
class Tombstones(Truth):
    """A file that lists rows of segments as gone or replaced; no two list the same one."""


@dataclass(frozen=True)
class Manifest(Record):
    """One state of an embedding table; the highest `number` in storage is its present one."""

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
        """How many rows there are, those that are gone left out."""
        return sum(segment.rows for segment in self.segments) - sum(each.rows for each in self.tombstones)

    @property
    def truth(self) -> tuple[Truth, ...]:
        """The Parquet files: the others can be made of them."""
        return *self.segments, *self.tombstones

    @property
    def files(self) -> tuple[Digest, ...]:
        """All files that the state consists of, but the manifest itself."""
        sidecars = (file for segment in self.segments for file in segment.sidecars.values())
        return *(each.parquet for each in self.truth), *sidecars

    @property
    def file(self) -> str:
        """The name of the file that holds this manifest."""
        return layout.manifest(self.table, self.number)

    def to_bytes(self) -> bytes:
        """The file's content: JSON, indented, with a SHA-256 of the rest as `checksum`."""
        document: dict[str, Any] = {
            "format_version": self.format_version,
            "table": self.table,
            "build": self.build,
            "number": self.number,
            **_BACKEND,
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
        """Read a manifest that is called `file`.

        Raises:
            DamagedError: it is cut short, altered, another table's, or names files that are not its own.
            UnsupportedError: it was written by a later version, and needs what this one does not know.
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
                    # Its features are known, and yet it is not what they say: rather left alone than made anew.
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
        definition=record(Definition, document.get("definition")),
        counts=record(Counts, document.get("counts")),
        started=_moment(document.get("started")),
        finished=_moment(document.get("finished")),
        segments=tuple(map(segment_of, document["segments"])),
        tombstones=tuple(_tombstones(each) for each in document.get("deleted", ())),
    )


# Fields that say again what others say.
_DERIVED = ("backend", "metric", "dimensions", "count", "fingerprint")


def _moment(value: object) -> datetime:
    return check_moment(convert(value, Moment))


def _check_names(found: Manifest, file: str) -> None:
    """Raise DamagedError where a manifest, or a file that it names, is another table's."""
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


def _is_sidecar(digest: Digest, table: str, number: int, kind: str) -> bool:
    name = layout.parse(digest.file)
    return name is not None and (name.table, name.number, name.kind) == (table, number, kind)


def _check_relations(found: Manifest, document: Mapping[str, Any]) -> None:
    """Raise DamagedError where fields contradict each other."""
    rows, listed = sum(each.rows for each in found.segments), sum(each.rows for each in found.tombstones)
    numbers = [Counter(each.number for each in files) for files in (found.segments, found.tombstones)]
    definition = found.definition
    # What is not there is what it must be.
    told = {name: document.get(name, value) for name, value in {**_BACKEND, "count": found.rows}.items()}
    wrong = {
        "no segments": not found.segments,
        "the number 0": not found.number,
        "a number twice": any(count > 1 for counted in numbers for count in counted.values()),
        "more rows deleted than there are": listed > rows,
        "counts of other rows": found.counts.rows != found.rows or told["count"] != found.rows,
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
    """Read a manifest from a location. Raises DamagedError where it is missing or is not whole."""
    try:
        return Manifest.from_bytes(store.read(file), file)
    except FileNotFoundError as error:
        raise DamagedError(f"'{file}' is missing") from error


def commit(store: Store, manifest: Manifest, change: str) -> None:
    """Write a manifest: from here on it is the table's state. `change` is the id that scratch files bear.

    Raises:
        FileExistsError: another was first.
        StateError: a Parquet file that it names is gone: another database has deleted it, or all of the table.
        StorageError: it would be too large to be read.
    """
    content = manifest.to_bytes()
    check_size(manifest.file, len(content))
    files = store.files()
    gone = [each.parquet.file for each in manifest.truth if each.parquet.file not in files]
    if gone:
        raise StateError(f"'{manifest.table}' has changed meanwhile: '{gone[0]}' is gone; run this again")
    scratch = store.scratch(manifest.file, change)
    try:
        scratch.write_bytes(content)
        store.create(manifest.file, scratch)
    finally:
        store.discard(scratch.name)
    # Its name may have been free since a vacuum removed the state of that number, which came before later ones.
    later = newest(store.names()).get(manifest.table, manifest.file)
    if (highest := layout.parse(later)) and highest.number > manifest.number:
        store.delete(manifest.file)
        raise FileExistsError(later)


def segment_of(fields: object) -> Segment:
    """A segment as its `as_fields` gives it. Raises DamagedError or UnsupportedError."""
    if not isinstance(fields, Mapping):
        return record(Segment, fields)
    digests = {kind: record(Digest, fields[kind]) for kind in layout.SIDECARS if kind in fields}
    others = {name: value for name, value in fields.items() if name not in digests}
    # Versions before this one listed a sidecar that is not there by an empty name.
    sidecars = {kind: digest for kind, digest in digests.items() if digest.file}
    return record(Segment, others, parquet=record(Digest, fields.get("parquet")), sidecars=sidecars)


def _tombstones(fields: object) -> Tombstones:
    given = fields if isinstance(fields, Mapping) else {}
    return record(Tombstones, fields, parquet=record(Digest, given.get("parquet")))


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(document).encode()).hexdigest()
