"""Builds and opens the sidecars of every segment: its row ids, and if it has vectors, these and indexes over them.

Optional indexes, such as those built from more than the Parquet file contains, are not built or opened here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from jammi_duck.arrays import texts
from jammi_duck.errors import DamagedError, StorageError
from jammi_duck.storage.files import manifest
from jammi_duck.storage.files.parquet import PASSAGE_SCHEMA, read_passages, read_vectors
from jammi_duck.storage.files.store import FileDigest, Store, called
from jammi_duck.storage.index.graph import Graph, Grown
from jammi_duck.storage.index.kinds import IndexKind, VectorIndex
from jammi_duck.storage.index.row_ids import checked_ids
from jammi_duck.storage.index.segment import MappedSegment, OpenSegment, ParquetSegment
from jammi_duck.types import Shape

# Returns the path of the sidecar of a kind, after checking its SHA-256. Raises StorageError.
Checked = Callable[[str], Path]


def vector_kinds(grown: Grown | None = None) -> tuple[IndexKind[VectorIndex], ...]:
    """The kinds of vector index; the graph is built anew, or from another graph (`grown`)."""
    return (Graph(grown),)


BUILT = (*(kind.sidecar for kind in vector_kinds()), "rowmap", "vectors")


def built(shape: Shape) -> tuple[str, ...]:
    """The kinds that the segments of a table have: all of `BUILT`, or the row ids alone if there are no vectors."""
    return BUILT if shape.dimensions else ("rowmap",)


def is_indexed(segment: manifest.Segment, shape: Shape) -> bool:
    """Whether a segment has all required sidecars, according to its manifest."""
    return segment.sidecars.keys() >= set(built(shape))


def build(
    parquet: Path,
    files: Mapping[str, Path],
    *,
    rows: int,
    shape: Shape,
    progress: Callable[[int], None],
    grown: Grown | None = None,
) -> None:
    """Write the sidecars of a segment to `files`, by kind. `progress` is called with the number of rows just indexed.

    Raises as `read_vectors` does.
    """
    dimensions = shape.dimensions
    kinds = vector_kinds(grown) if dimensions else ()
    builders = [kind.build(files[kind.sidecar], rows, dimensions) for kind in kinds]
    passages = read_passages(parquet) if shape.has_passages else None
    row_ids: list[pa.Array] = []
    with open(files["vectors"], "wb") if dimensions else contextlib.nullcontext() as raw:
        start = 0
        for ids, block in read_vectors(parquet, shape):
            indexed = max((builder.add(start, ids, block) for builder in builders), default=len(block))
            if raw:
                raw.write(np.ascontiguousarray(block, "<f4").data)
            row_ids.append(ids)
            start += len(block)
            progress(indexed)
    fields = [pa.field("_row_id", pa.string(), nullable=False), *(PASSAGE_SCHEMA if shape.has_passages else ())]
    schema = pa.schema(fields)
    with pa.OSFile(str(files["rowmap"]), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        # One batch, so that a reader gets the row ids in one piece, without a copy.
        column = checked_ids(pa.concat_arrays([texts([]), *row_ids]), parquet.name, passages)
        writer.write_batch(pa.record_batch([column, *([] if passages is None else passages.columns)], schema=schema))
    for builder in builders:
        builder.save()


def check(store: Store, segment: manifest.Segment, kind: str) -> Path:
    """The path of a segment's sidecar, after checking its SHA-256. Raises DamagedError or StorageError."""
    return store.checked(_digest(segment, kind))


def open_whole(segment: manifest.Segment, checked: Checked, shape: Shape) -> MappedSegment:
    """A segment with all required sidecars. Raises StorageError if one is damaged or missing."""
    mapped = _map_rows(segment, checked, shape)
    for kind in vector_kinds() if shape.dimensions else ():
        _open_index(mapped, kind, segment, checked)
    return mapped


def open_segment(
    store: Store, segment: manifest.Segment, checked: Checked, shape: Shape
) -> tuple[OpenSegment, str | None]:
    """A segment with its undamaged sidecars, and the errors of the others."""
    try:
        mapped = _map_rows(segment, checked, shape)
    except StorageError as error:
        return ParquetSegment(store, segment.parquet, segment.rows, shape), str(error)
    damage = None
    for kind in vector_kinds() if segment.rows and shape.dimensions else ():
        try:
            _open_index(mapped, kind, segment, checked)
        except StorageError as error:
            damage = str(error)
    return mapped, damage


def _map_rows(segment: manifest.Segment, checked: Checked, shape: Shape) -> MappedSegment:
    rowmap, vectors = checked("rowmap"), checked("vectors") if shape.dimensions else None
    with (
        called(_digest(segment, "rowmap").file, rowmap),
        called(_digest(segment, "vectors").file, vectors) if vectors else contextlib.nullcontext(),
    ):
        return MappedSegment(rowmap, vectors, segment.rows, shape)


def _open_index(
    mapped: MappedSegment, kind: IndexKind[VectorIndex], segment: manifest.Segment, checked: Checked
) -> None:
    path = checked(kind.sidecar)
    if segment.rows:
        with called(_digest(segment, kind.sidecar).file, path):
            mapped.open_index(kind, path)


def _digest(segment: manifest.Segment, kind: str) -> FileDigest:
    if kind not in segment.sidecars:
        raise DamagedError(f"the manifest lists no {kind} of '{segment.parquet.file}'")
    return segment.sidecars[kind]
