"""Reads and writes the Parquet files of row ids and vectors, which are described by their own metadata.

A segment's columns are `_row_id`, `_source_id`, `_model_id`, `vector` (FixedSizeList<float32>, L2-normalised; none in a
table of words only) and `_text_digest` (MD5 of the embedded text). Where the rows are passages, `_passage`, `_start`,
`_end` and `_row_digest` say of which place in which text. Tombstones list rows of segments that are gone or
replaced: `_row_id`, `_segment` and `_place`, the position of the row in the segment. docs/format.md has the details.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.arrays import texts, values_of
from jammi_duck.errors import DamagedError, StorageError, UnsupportedError
from jammi_duck.fields import Id, Number, Record, check_understood, convert, naming, parsed, record
from jammi_duck.storage.files.parquet_checks import (
    PASSAGES,
    TOMBSTONES,
    check_columns,
    check_footer,
    check_numbers,
    check_values,
    segment_columns,
)
from jammi_duck.types import Counts, Definition, Shape

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

FORMAT_VERSION = 1
ROW_GROUP = 2048
_PREFIX = "jammi."

Texts: TypeAlias = Sequence[str] | pa.StringArray
Digests: TypeAlias = Sequence[bytes] | pa.FixedSizeBinaryArray
# The columns that say of which places in which texts rows are, in the order of `PASSAGE_SCHEMA`.
Passages: TypeAlias = pa.RecordBatch
PASSAGE_SCHEMA = pa.schema(
    [
        pa.field("_passage", pa.int32(), nullable=False),
        pa.field("_start", pa.int64()),
        pa.field("_end", pa.int64()),
        pa.field("_row_digest", pa.binary(16), nullable=False),
    ]
)


@dataclass(frozen=True)
class Footer:
    """The metadata of a segment.

    `change` is the id of the change that wrote it, None if the build did. `counts` exists only in the last segment of a
    build, and closes the build.
    """

    build: str
    change: str | None
    definition: Definition
    rows: int
    counts: Counts | None


class SegmentWriter:
    """Writes one segment's Parquet file, row group by row group, so that memory stays small."""

    def __init__(self, path: Path, definition: Definition, build: str, change: str | None = None) -> None:
        """Open `path` for writing. `build` is the id of the build, and `change` that of a later change of its table."""
        # Imported here, because an installation does without.
        import pyarrow.parquet as pq

        self.path = path
        self.rows = 0
        self._definition = definition
        self._schema = schema(definition, build, change)
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression={"_row_id": "zstd", "_source_id": "zstd", "_model_id": "zstd"},
            use_dictionary=["_source_id", "_model_id"],
            write_statistics=["_row_id"],
            write_page_checksum=True,
        )

    def write(self, row_ids: Texts, vectors: Vectors, digests: Digests, passages: Passages | None = None) -> None:
        """Append rows: `vectors` is float32 [n, dimensions], `digests` are 16 bytes each.

        `passages` says which places of which texts they are, if the table has a row for each passage.
        """
        count = len(row_ids)
        columns = {
            "_row_id": pa.array(row_ids, pa.string()),
            "_source_id": pa.repeat(pa.scalar(self._definition.source), count),
            "_model_id": pa.repeat(pa.scalar(self._definition.model), count),
            "_text_digest": pa.array(digests, pa.binary(16)),
        }
        if self._definition.has_vectors:
            flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
            columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, type=self._schema.field("vector").type)
        if passages is not None:
            columns |= zip(passages.schema.names, passages.columns, strict=True)
        arrays = [columns[name] for name in self._schema.names]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=ROW_GROUP)
        self.rows += count

    def close(self, counts: Counts | None = None) -> None:
        """Write the footer; `counts`, of the whole build, marks its last segment."""
        if counts is not None:
            self._writer.add_key_value_metadata({_PREFIX + "counts": json.dumps(counts.as_fields())})
        self._writer.close()


def schema(definition: Definition, build: str, change: str | None = None) -> pa.Schema:
    """The Arrow schema of a segment, its metadata included."""
    metadata = {
        _PREFIX + "format_version": str(FORMAT_VERSION),
        _PREFIX + "build": build,
        _PREFIX + "definition": definition.to_json(),
        **({} if change is None else {_PREFIX + "change": change}),
    }
    vector = pa.list_(pa.field("element", pa.float32(), False), definition.dimensions or 1)
    kinds = {"_row_id": pa.string(), "_source_id": pa.string(), "_model_id": pa.string(), "vector": vector}
    fields = {name: pa.field(name, kind, nullable=False) for name, kind in kinds.items()}
    fields |= {field.name: field for field in PASSAGE_SCHEMA}
    fields["_text_digest"] = pa.field("_text_digest", pa.binary(16), nullable=False)
    return pa.schema([fields[name] for name in segment_columns(definition.shape)], metadata)


def read_footer(path: Path) -> Footer:
    """Read the metadata of a segment.

    Raises:
        DamagedError: the file is truncated, or is not Parquet.
        UnsupportedError: it is a whole Parquet file that this version does not understand.
        StorageError: the file cannot be read now.
    """
    found, metadata = _metadata(path)
    with _understanding(path):
        definition = Definition.from_json(metadata["definition"])
        schema = found.schema.to_arrow_schema()
        check_columns(schema, segment_columns(definition.shape))
        if _shape(schema) != definition.shape:
            raise DamagedError("has vectors of other dimensions than its definition, or other columns")
        change, counts = metadata.get("change"), metadata.get("counts")
        return Footer(
            build=convert(metadata["build"], Id),
            change=None if change is None else convert(change, Id),
            definition=definition,
            rows=found.num_rows,
            counts=Counts.from_fields(parsed(counts)) if counts else None,
        )


def check_shape(path: Path, rows: int, wanted: Shape) -> None:
    """Raise UnsupportedError if a segment has another number of rows or dimensions; also raises as `read_footer`."""
    found, _ = _metadata(path)
    with _understanding(path):
        if found.num_rows != rows:
            raise UnsupportedError(f"has {found.num_rows:,} rows instead of {rows:,}")
        schema = found.schema.to_arrow_schema()
        check_columns(schema, segment_columns(wanted))
        shape = _shape(schema)
        if shape.dimensions != wanted.dimensions:
            raise UnsupportedError(f"has vectors of {shape.dimensions} dimensions instead of {wanted.dimensions}")


def _shape(schema: pa.Schema) -> Shape:
    """What the rows of a segment have: vectors of 0 dimensions are none."""
    width = schema.field("vector").type.list_size if "vector" in schema.names else 0
    return Shape(width, "_passage" in schema.names)


def read_vectors(path: Path, shape: Shape) -> Iterator[tuple[pa.Array, Vectors]]:
    """The row ids and the float32 [n, dimensions] vectors of a segment, a row group or more at a time.

    If it has words only, the vectors are [n, 0].

    Raises:
        DamagedError: the checksum of a page differs.
        UnsupportedError: its columns are not those of a segment, a value is missing, or a vector contains NaN.
        StorageError: the file cannot be read now.
    """
    for batch in _batches(path, ["_row_id", *(["vector"] if shape.dimensions else [])]):
        yield batch.column("_row_id"), _matrix(path, batch)


class Rows(NamedTuple):
    """Rows of a segment; `passages` if the table has a row for each passage."""

    row_ids: pa.StringArray
    vectors: Vectors
    digests: pa.FixedSizeBinaryArray
    passages: Passages | None


def read_rows(path: Path, shape: Shape) -> Iterator[Rows]:
    """The row ids, vectors and text digests of a segment, and what its passages are, as `read_vectors` does."""
    names = [name for name in segment_columns(shape) if name not in ("_source_id", "_model_id")]
    for batch in _batches(path, names):
        passages = batch.select(PASSAGES) if shape.has_passages else None
        yield Rows(batch.column("_row_id"), _matrix(path, batch), batch.column("_text_digest"), passages)


def read_passages(path: Path) -> Passages:
    """Which places of which texts the rows of a segment are, in their order. Raises as `read_vectors` does."""
    batches = list(_batches(path, list(PASSAGES)))
    return joined_passages(batches)


def joined_passages(batches: Sequence[Passages]) -> Passages:
    """Several as one."""
    table = pa.Table.from_batches(batches, PASSAGE_SCHEMA).combine_chunks()
    return pa.RecordBatch.from_arrays([_one(column) for column in table.columns], schema=PASSAGE_SCHEMA)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.nulls(0, column.type)


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    rows = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            with naming(path.name):
                check_columns(file.schema_arrow, columns)
            for batch in file.iter_batches(2 * ROW_GROUP, columns=columns):
                with naming(path.name):
                    check_values(batch)
                rows += len(batch)
                yield batch
            expected = file.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise _explained(path, error, "cannot be read") from error
    if rows != expected:
        raise DamagedError(f"'{path.name}' has {rows:,} rows instead of {expected:,}")


def _matrix(path: Path, batch: pa.RecordBatch) -> Vectors:
    if "vector" not in batch.schema.names:
        return np.empty((len(batch), 0), np.float32)
    vectors = batch.column("vector")
    matrix: Vectors = values_of(vectors.flatten()).reshape(len(vectors), vectors.type.list_size)
    check_numbers(matrix, path.name)
    return matrix


def read_row_ids(path: Path) -> pa.StringArray:
    """The row ids of a segment, in the order of its rows. Raises as `read_vectors` does."""
    ids = [batch.column("_row_id") for batch in _batches(path, ["_row_id"])]
    return pa.concat_arrays([texts([]), *ids])


@dataclass(frozen=True)
class State(Record):
    """The description, in tombstones, of the state that they close: everything in its manifest except digests.

    `number` is that of the manifest; `segments` and `deleted` are the numbers of its files, without these tombstones.
    """

    number: Number
    segments: tuple[Number, ...]
    deleted: tuple[Number, ...]
    counts: Counts


class TombstoneWriter:
    """Writes one Parquet file that lists rows that are gone or replaced."""

    def __init__(self, path: Path, definition: Definition, build: str, change: str) -> None:
        """Open `path` for writing. The id of the `change` distinguishes files of changes that remove the same rows."""
        import pyarrow.parquet as pq

        self.path = path
        self.rows = 0
        fields = [("_row_id", pa.string()), ("_segment", pa.int32()), ("_place", pa.int64())]
        self._schema = pa.schema(
            [pa.field(name, kind, nullable=False) for name, kind in fields], schema(definition, build, change).metadata
        )
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", write_page_checksum=True)

    def write(self, row_ids: Texts, segments: Sequence[int], positions: Sequence[int]) -> None:
        """Append rows by their ids, the numbers of their segments, and their positions there, from 0."""
        columns = [
            pa.array(values, field.type)
            for values, field in zip((row_ids, segments, positions), self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self.rows += len(row_ids)

    def close(self, state: State | None = None) -> None:
        """Write the footer; `state` is None only if the file will not be used."""
        if state is not None:
            self._writer.add_key_value_metadata({_PREFIX + "state": json.dumps(state.as_fields())})
        self._writer.close()


def read_tombstones(path: Path) -> Iterator[tuple[pa.StringArray, NDArray[np.int32], NDArray[np.int64]]]:
    """The row ids, segments and positions that tombstones list. Raises as `read_vectors` does."""
    for batch in _batches(path, ["_row_id", "_segment", "_place"]):
        yield batch.column("_row_id"), values_of(batch.column("_segment")), values_of(batch.column("_place"))


class Closing(NamedTuple):
    """The build of tombstones, the change that wrote them, their number of rows, and the state that they close."""

    build: str
    change: str | None
    rows: int
    state: State


def read_state(path: Path) -> Closing:
    """Read the metadata of tombstones, with the state that they close.

    Raises as `read_footer` does.
    """
    found, metadata = _metadata(path)
    with _understanding(path):
        check_columns(found.schema.to_arrow_schema(), TOMBSTONES)
        fields = parsed(metadata["state"])
        state = record(State, fields, counts=Counts.from_fields(fields.get("counts")))
        change = metadata.get("change")
        return Closing(
            build=convert(metadata["build"], Id),
            change=None if change is None else convert(change, Id),
            rows=found.num_rows,
            state=state,
        )


def _metadata(path: Path) -> tuple[Any, dict[str, str]]:
    """The Parquet footer, and our own metadata in it, by names without their prefix."""
    import pyarrow.parquet as pq

    try:
        check_footer(path)
        found = pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise _explained(path, error, "is not a whole Parquet file of ours") from error
    prefix = _PREFIX.encode()
    with _understanding(path):
        ours = [(name, value) for name, value in (found.metadata or {}).items() if name.startswith(prefix)]
        metadata = {name.removeprefix(prefix).decode(): value.decode() for name, value in ours}
        said = {"format_version": int(metadata["format_version"])}
        if "features" in metadata:
            said["features"] = json.loads(metadata["features"])
        check_understood(said, FORMAT_VERSION)
    return found, metadata


@contextlib.contextmanager
def _understanding(path: Path) -> Iterator[None]:
    """Wrong metadata in a whole Parquet file are no proof of damage: raise UnsupportedError."""
    try:
        with naming(path.name):
            yield
    except (pa.ArrowException, KeyError, ValueError, TypeError, RecursionError) as error:
        raise UnsupportedError(f"'{path.name}' is not a Parquet file of ours as we know it: {error}") from error
    except DamagedError as error:
        raise UnsupportedError(f"{error}; it is a Parquet file, and is left alone") from error


def _explained(path: Path, error: Exception, what: str) -> StorageError:
    """A DamagedError, unless memory or the system failed: then the file may be whole."""
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    system = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.ENOENT))
    # Not errors of the file for Arrow: a feature that Arrow lacks, or a name that is not UTF-8.
    if isinstance(error, pa.ArrowNotImplementedError) or not isinstance(
        error, pa.ArrowException | OSError | MemoryError
    ):
        return UnsupportedError(f"'{path.name}' {what}: {first_line}")
    return (StorageError if system else DamagedError)(f"'{path.name}' {what}: {first_line}")
