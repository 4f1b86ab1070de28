"""The truth on disk: Parquet files of row ids and vectors, described by their own metadata.

A segment's columns are `_row_id`, `_source_id`, `_model_id`, `vector` (FixedSizeList<float32>, L2-normalised) and
`_text_digest` (MD5 of the embedded text); docs/format.md has the details.
"""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jammi_duck.errors import DamagedError, StorageError
from jammi_duck.types import Counts, Definition

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

FORMAT_VERSION = 1
ROW_GROUP = 2048
_PREFIX = "jammi."


@dataclass(frozen=True)
class Footer:
    """What a segment's metadata says. `counts` is there in a build's last segment only, and closes the build."""

    build: str
    segment: int
    definition: Definition
    rows: int
    counts: Counts | None


class SegmentWriter:
    """Writes one segment's Parquet, row group by row group, so that memory stays small."""

    def __init__(self, path: Path, definition: Definition, build: str, segment: int) -> None:
        """Open `path` for writing. `build` is the id of the build, `segment` counts from 0."""
        self.path = path
        self.rows = 0
        self._definition = definition
        self._schema = schema(definition, build, segment)
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression={"_row_id": "zstd", "_source_id": "zstd", "_model_id": "zstd"},
            use_dictionary=["_source_id", "_model_id"],
            write_statistics=["_row_id"],
            write_page_checksum=True,
        )

    def write(self, row_ids: Sequence[str], vectors: Vectors, digests: Sequence[bytes]) -> None:
        """Append rows: `vectors` is float32 [n, dimensions], `digests` are 16 bytes each."""
        count = len(row_ids)
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        columns = [
            pa.array(row_ids, pa.string()),
            pa.repeat(pa.scalar(self._definition.source), count),
            pa.repeat(pa.scalar(self._definition.model), count),
            pa.FixedSizeListArray.from_arrays(flat, type=self._schema.field("vector").type),
            pa.array(digests, pa.binary(16)),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=ROW_GROUP)
        self.rows += count

    def close(self, counts: Counts | None = None) -> None:
        """Write the footer; `counts`, of the whole build, marks its last segment."""
        if counts is not None:
            self._writer.add_key_value_metadata({_PREFIX + "counts": json.dumps(dataclasses.asdict(counts))})
        self._writer.close()


def schema(definition: Definition, build: str, segment: int) -> pa.Schema:
    """The Arrow schema of a segment, its metadata included."""
    metadata = {
        _PREFIX + "format_version": str(FORMAT_VERSION),
        _PREFIX + "build": build,
        _PREFIX + "segment": str(segment),
        _PREFIX + "definition": definition.to_json(),
    }
    fields = [
        pa.field("_row_id", pa.string(), nullable=False),
        pa.field("_source_id", pa.string(), nullable=False),
        pa.field("_model_id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.field("element", pa.float32(), False), definition.dimensions), nullable=False),
        pa.field("_text_digest", pa.binary(16), nullable=False),
    ]
    return pa.schema(fields, metadata)


def read_footer(path: Path) -> Footer:
    """What a segment's metadata says.

    Raises:
        DamagedError: the file is cut short, is no Parquet, or is not one of ours.
        StorageError: the file cannot be read now, or was written by a later version.
    """
    try:
        found = pq.read_metadata(path)
        metadata = {k.decode(): v.decode() for k, v in (found.metadata or {}).items() if k.startswith(b"jammi.")}
        version = int(metadata[_PREFIX + "format_version"])
        if version > FORMAT_VERSION:
            raise StorageError(f"'{path.name}' has format version {version}; this jammi_duck reads {FORMAT_VERSION}")
        counts = metadata.get(_PREFIX + "counts")
        return Footer(
            build=metadata[_PREFIX + "build"],
            segment=int(metadata[_PREFIX + "segment"]),
            definition=Definition.from_json(metadata[_PREFIX + "definition"]),
            rows=found.num_rows,
            counts=Counts(**json.loads(counts)) if counts else None,
        )
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise _explained(path, error, "is not a whole Parquet file of ours") from error


def read_vectors(path: Path) -> Iterator[tuple[pa.Array, Vectors]]:
    """The row ids and the float32 [n, dimensions] vectors of a segment, a row group or more at a time.

    Raises:
        DamagedError: a page is not what was written (its checksum differs).
        StorageError: the file cannot be read now.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(8 * ROW_GROUP, columns=["_row_id", "vector"]):
                vectors = batch.column("vector")
                flat = vectors.flatten().to_numpy(zero_copy_only=True)
                yield batch.column("_row_id"), flat.reshape(len(vectors), vectors.type.list_size)
    except (pa.ArrowException, OSError) as error:
        raise _explained(path, error, "cannot be read") from error


def read_row_ids(path: Path) -> pa.StringArray:
    """The row ids of a segment, in the order of its rows. Raises as `read_vectors` does."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=["_row_id"]).column("_row_id").combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise _explained(path, error, "cannot be read") from error


def _explained(path: Path, error: Exception, what: str) -> StorageError:
    """Damage, unless it is memory or the system that failed: then the file may be whole."""
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    system = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.ENOENT))
    return (StorageError if system else DamagedError)(f"'{path.name}' {what}: {first_line}")
