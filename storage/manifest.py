"""The commit point of an embedding table: one small JSON file that lists all the others, written last."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jammi_duck.errors import DamagedError, StorageError
from jammi_duck.storage import layout
from jammi_duck.storage.filesystem import Digest, Store
from jammi_duck.types import Counts, Definition

FORMAT_VERSION = 1
SIDECARS = ("usearch", "rowmap", "vectors")


_NONE = Digest("", 0, "")


@dataclass(frozen=True)
class Truth:
    """A Parquet file of a table, with its number and how many rows it holds."""

    number: int
    rows: int
    parquet: Digest


@dataclass(frozen=True)
class Segment(Truth):
    """The files of one segment; sidecars that are not there have an empty name."""

    usearch: Digest = _NONE
    rowmap: Digest = _NONE
    vectors: Digest = _NONE

    @property
    def sidecars(self) -> tuple[Digest, ...]:
        """The disposable files of the segment, in the order of SIDECARS."""
        return self.usearch, self.rowmap, self.vectors


@dataclass(frozen=True)
class Tombstones(Truth):
    """A file that lists rows of segments as gone or replaced; no two list the same one."""


@dataclass(frozen=True)
class Manifest:
    """One state of an embedding table; the highest `number` in storage is its present one."""

    table: str
    build: str
    number: int
    definition: Definition
    counts: Counts
    started: datetime
    finished: datetime
    segments: tuple[Segment, ...]
    tombstones: tuple[Tombstones, ...] = ()

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
        return *(each.parquet for each in self.truth), *(file for segment in self.segments for file in segment.sidecars)

    @property
    def file(self) -> str:
        """The name of the file that holds this manifest."""
        return layout.manifest(self.table, self.number)

    def to_bytes(self) -> bytes:
        """The file's content: JSON, indented, with a SHA-256 of the rest as `checksum`."""
        document: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "table": self.table,
            "build": self.build,
            "number": self.number,
            "backend": "usearch",
            "metric": "cos",
            "dimensions": self.definition.dimensions,
            "count": self.rows,
            "definition": json.loads(self.definition.to_json()),
            "fingerprint": self.definition.fingerprint,
            "counts": dataclasses.asdict(self.counts),
            "started": self.started.isoformat(),
            "finished": self.finished.isoformat(),
            "segments": [dataclasses.asdict(segment) for segment in self.segments],
            "deleted": [dataclasses.asdict(each) for each in self.tombstones],
        }
        return json.dumps({**document, "checksum": _checksum(document)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes, file: str) -> Manifest:
        """Read a manifest that is called `file`.

        Raises:
            DamagedError: it is cut short, altered, another table's, or names files that are not its own.
            StorageError: it was written by a later version.
        """
        try:
            document = json.loads(content)
            checksum = document.pop("checksum")
            if document["format_version"] > FORMAT_VERSION:
                raise StorageError(
                    f"'{file}' has format version {document['format_version']}; this is {FORMAT_VERSION}"
                )
            if checksum != _checksum(document):
                raise DamagedError(f"'{file}' was altered: its checksum differs")
            found = cls(
                table=document["table"],
                build=document["build"],
                number=document["number"],
                definition=Definition.from_json(json.dumps(document["definition"])),
                counts=Counts(**document["counts"]),
                started=datetime.fromisoformat(document["started"]),
                finished=datetime.fromisoformat(document["finished"]),
                segments=tuple(segment_of(fields) for fields in document["segments"]),
                tombstones=tuple(_tombstones(fields) for fields in document.get("deleted", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"'{file}' is not a whole manifest: {error}") from error
        if found.file != file or not all(_belongs(digest.file, found.table) for digest in found.files):
            raise DamagedError(f"'{file}' is another table's manifest")
        return found


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
    """Write a manifest: from here on it is the table's state. Raises FileExistsError where another was first.

    `change` is the id that scratch files bear.
    """
    scratch = store.scratch(manifest.file, change)
    try:
        scratch.write_bytes(manifest.to_bytes())
        store.create(manifest.file, scratch)
    finally:
        store.discard(scratch.name)


def segment_of(fields: Mapping[str, Any]) -> Segment:
    """A segment as `dataclasses.asdict` gives it. Raises KeyError or TypeError."""
    digests = {kind: Digest(**fields[kind]) for kind in ("parquet", *SIDECARS)}
    return Segment(number=fields["number"], rows=fields["rows"], **digests)


def _tombstones(fields: dict[str, Any]) -> Tombstones:
    return Tombstones(number=fields["number"], rows=fields["rows"], parquet=Digest(**fields["parquet"]))


def _belongs(file: str, table: str) -> bool:
    name = layout.parse(file)
    return name is not None and name.table == table


def _checksum(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
