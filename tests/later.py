"""A later version's files, made up: what this version does not understand, and so leaves alone."""

import dataclasses
import hashlib
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

from jammi_duck.fields import canonical
from jammi_duck.storage.files import layout, manifest

LATER = "later__embedding__m__20990101T000000"
MIXED = "mixed__embedding__m__20990101T000000"
COUNTED = "counted__embedding__m__20990101T000000"


def put_file(store, file, content):
    """Write a file to a location."""
    scratch = store.scratch(file, "0" * 32)
    scratch.write_bytes(content)
    store.create(file, scratch)


def replaced(store, file, content):
    """A file with another content than it had."""
    store.delete(file)
    put_file(store, file, content)


def with_metadata(content, **changes):
    """A Parquet file of ours with other metadata; what is None there is taken out."""
    table = pq.read_table(io.BytesIO(content))
    metadata = dict(table.schema.metadata) | {f"jammi.{name}".encode(): value for name, value in changes.items()}
    sink = pa.BufferOutputStream()
    kept = {name: value for name, value in metadata.items() if value is not None}
    pq.write_table(table.replace_schema_metadata(kept), sink, compression="none")
    return sink.getvalue().to_pybytes()


def needing(state, *features):
    """A manifest that needs these features of its reader, and is whole otherwise."""
    document = json.loads(state.to_bytes())
    document.pop("checksum")
    document["features"] = list(features)
    return json.dumps({**document, "checksum": hashlib.sha256(canonical(document).encode()).hexdigest()}).encode()


def lie_about(store, table):
    """Files of a later version beside those of a ready table, whose format they have but for what is new; by name.

    A segment without a manifest; a table whose manifest needs an unknown feature; a whole build without its manifest
    that counts more; and sidecars of kinds that are not known.
    """
    files = store.files()
    mine = manifest.read(store, manifest.newest(files)[table])
    parquet = store.read(mine.segments[0].parquet.file)
    laid = {
        layout.parquet(LATER, 0): with_metadata(parquet, format_version=b"2"),
        layout.sidecar(LATER, 0, "usearch"): b"an index",
        layout.parquet(MIXED, 0): parquet,
        layout.sidecar(MIXED, 0, "rowmap"): b"row ids",
        layout.manifest(MIXED, 1): needing(dataclasses.replace(mine, table=MIXED), "sections"),
        layout.parquet(COUNTED, 0): with_metadata(
            parquet, counts=json.dumps({**mine.counts.as_fields(), "deduplicated": 0}).encode(), build=b"e" * 32
        ),
        f"{table}.probe": b"another index",
        f"{table}.00001.probe": b"another index",
        "later.feature": b"\0" * 100,
    }
    for file, content in laid.items():
        put_file(store, file, content)
    return laid


def check_all_there(store, laid, at=""):
    """None of these files is gone or changed."""
    assert {file: store.read(file) for file in laid if file in store.files()} == laid, at
