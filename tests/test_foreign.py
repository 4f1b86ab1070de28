"""What others may put into a location: no file of it crashes, hangs, misleads, or keeps from another table."""

import contextlib
import dataclasses
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jammi_duck import DamagedError, JammiWarning, StorageError, UnsupportedError
from jammi_duck.storage.files.location import open_store
from jammi_duck.storage.files.manifest import Manifest, Segment, Tombstones
from jammi_duck.storage.files.parquet import (
    SegmentWriter,
    State,
    TombstoneWriter,
    check_shape,
    read_footer,
    read_state,
    read_tombstones,
    read_vectors,
)
from jammi_duck.storage.index.graph import Graph
from jammi_duck.storage.index.graph_file import check_graph
from jammi_duck.storage.index.segment import MappedSegment
from jammi_duck.storage.index.sidecars import build
from jammi_duck.storage.tables.table import live_masks
from jammi_duck.types import Counts, Shape
from tests.test_format import DEFINITION, GOLDEN, MANIFEST, NAME, sealed
from tests.test_generate import error_of

FILE = MANIFEST.file


def changed(*path_and_value):
    """The golden manifest with another value at a path, sealed; None where the path is to be removed."""
    *path, last, value = path_and_value
    document = json.loads(GOLDEN.read_text())
    level = document
    for step in path:
        level = level[step]
    level[last] = value
    if path[:1] == ["definition"]:
        plain = json.dumps(document["definition"], sort_keys=True, separators=(",", ":"))
        document["fingerprint"] = hashlib.sha256(plain.encode()).hexdigest()
    return sealed(document)


def deep(brackets):
    return sealed({}).replace(b"{", b'{"x": ' + b"[" * brackets + b"]" * brackets + b",", 1)


IMPOSSIBLE = [
    ("segments", 0, "rows", 10**30),
    ("segments", 0, "rows", 2**31),
    ("segments", 0, "rows", -1),
    ("segments", 0, "rows", 2.0),
    ("segments", 0, "rows", True),
    ("segments", 0, "rows", "2"),
    ("segments", 0, "rows", None),
    ("segments", 0, "number", 1),
    ("segments", 1, "number", 2**40),
    ("segments", 0, "parquet", None),
    ("segments", 0, "parquet", "sha256", None),
    ("segments", 0, "parquet", "sha256", ""),
    ("segments", 0, "parquet", "sha256", "/dev/zero"),
    ("segments", 0, "parquet", "sha256", "A" * 64),
    ("segments", 0, "parquet", "sha256", "a" * 64 + "\n"),
    ("segments", 0, "parquet", "size", -1),
    ("segments", 0, "parquet", "size", 10**30),
    ("segments", 0, "parquet", "file", f"{NAME}.00001.parquet"),
    ("segments", 0, "parquet", "file", "../x"),
    ("segments", 0, "parquet", "file", ""),
    ("segments", 0, "usearch", "file", f"{NAME}.rowmap"),
    ("segments", 0, "usearch", "file", f"x{NAME}.usearch"),
    ("segments", 1, "usearch", "file", f"{NAME}.00002.usearch"),
    ("segments", 0, "usearch", "file", "/etc/passwd"),
    ("segments", 0, 7),
    ("segments", []),
    ("segments", {}),
    ("segments", None),
    ("deleted", None),
    ("deleted", 0, "rows", 5),
    ("deleted", 0, "number", 2),
    ("deleted", 0, "parquet", "file", f"{NAME}.00001.parquet"),
    ("number", 0),
    ("number", 2),
    ("number", -(2**70)),
    ("build", "B" * 32),
    ("build", "../" * 10),
    ("table", "another"),
    ("count", 10**30),
    ("counts", "rows", 4),
    ("counts", "skipped", -1),
    ("counts", "truncated", 2**63),
    ("counts", None),
    ("dimensions", 5),
    ("definition", "dimensions", 0),
    ("definition", "dimensions", 2**31),
    ("definition", "weights", "x"),
    ("definition", "columns", "title"),
    ("definition", "columns", [1]),
    ("definition", "source", None),
    ("definition", "source", "\ud800"),
    ("definition", "max_tokens", -1),
    ("definition", []),
    ("fingerprint", "0" * 64),
    ("metric", "l2sq"),
    ("backend", "faiss"),
    ("started", "0001-01-01T00:00:00+14:00"),
    ("started", "9999-12-31T23:59:59-14:00"),
    ("finished", "2026-03-25T12:00:00"),
    ("finished", 0),
    ("finished", None),
    ("format_version", 0),
    ("format_version", "1"),
    ("format_version", None),
]


@pytest.mark.parametrize("where", IMPOSSIBLE, ids=lambda where: " ".join(map(str, where))[:60])
def test_a_manifest_with_an_impossible_value_is_damaged(where):
    with pytest.raises(DamagedError, match=f"^'{FILE}' "):
        Manifest.from_bytes(changed(*where), FILE)


@pytest.mark.parametrize("content", [deep(200_000), b"[" * 200_000, b'{"a":' * 200_000, deep(40)], ids=len)
def test_a_manifest_that_is_nested_deep_is_not_understood(content):
    document = json.loads(GOLDEN.read_text())
    with pytest.raises(StorageError):
        Manifest.from_bytes(content, FILE)
    nested = "x"
    for _ in range(40):
        nested = [nested]
    with pytest.raises(UnsupportedError, match="nested too deep"):
        Manifest.from_bytes(sealed({**document, "later": nested}), FILE)


def json_values():
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    strange = st.sampled_from([10**30, -1, 2**63, "0" * 64, "2026-03-25T12:00:00Z", "..", "\x00", [], {}, 1e308])
    return st.recursive(
        scalars | strange,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    )


@st.composite
def mutated(draw):
    """A manifest of which some values anywhere are others, or are gone, with a checksum that fits."""
    document = json.loads(GOLDEN.read_text())
    for _ in range(draw(st.integers(1, 3))):
        level = document
        while True:
            keys = list(level) if isinstance(level, dict) else list(range(len(level)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(level[key], dict | list) and draw(st.booleans()):
                level = level[key]
                continue
            if isinstance(level, dict) and draw(st.integers(0, 3)) == 0:
                del level[key]
            else:
                level[key] = draw(json_values())
            break
    if isinstance(document.get("definition"), dict) and draw(st.booleans()):
        plain = json.dumps(document["definition"], sort_keys=True, separators=(",", ":"))
        document["fingerprint"] = hashlib.sha256(plain.encode()).hexdigest()
    return sealed(document)


def check_any_manifest(content):
    """It is refused, or it is one that keeps what it says when it is written again."""
    try:
        found = Manifest.from_bytes(content, FILE)
    except StorageError:
        return
    again = Manifest.from_bytes(found.to_bytes(), FILE)
    assert again == found
    assert found.rows == found.counts.rows >= 0
    found.started.astimezone()
    for digest in found.files:
        assert "/" not in digest.file
        assert len(digest.sha256) in (0, 64)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_any_manifest_with_a_right_checksum(content):
    check_any_manifest(content)


@pytest.mark.long
@settings(max_examples=5_000, deadline=None)
@given(mutated())
def test_any_manifest_at_length(content):
    check_any_manifest(content)


# Two tables in one location, and what lies in the place of a file of one of them.


class Location:
    """A location with the tables of `t` and `u`, of which others put files into the place of those of `u`'s."""

    def __init__(self, fake, place, options, write, read):
        self._fake, self._storage, self._options, self.write, self.read = fake, place, options, write, read
        con = self.fresh()
        con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
        self.name = con.execute("SELECT embedding_table FROM jammi_generate('u', 'text', 'id')").fetchone()[0]
        con.close()

    def fresh(self, **more):
        """A new database that knows nothing of the location."""
        con = self._fake(duckdb.connect(), storage=self._storage, **self._options, **more).con
        con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(5)")
        con.execute("CREATE TABLE u AS SELECT range AS id, 'other' || range AS text FROM range(5)")
        return con

    def reseal(self, file, change):
        """Change fields of a manifest, and make its checksum fit."""
        document = json.loads(self.read(file))
        change(document)
        self.write(file, sealed(document))

    def goes_on(self):
        """The other table is found, searched, refreshed, and all that looks at every table works."""
        con = self.fresh(retention=timedelta(0))
        assert con.execute("SELECT id FROM jammi_search('t', 'word3', 1)").fetchall() == [(3,)]
        assert ("t",) in con.execute("SELECT source FROM jammi_tables()").fetchall()
        con.execute("INSERT INTO t VALUES (77, 'word77')")
        assert con.execute("SELECT added FROM jammi_refresh('t')").fetchall() == [(1,)]
        con.execute("FROM jammi_recover()").fetchall()
        con.execute("FROM jammi_vacuum()").fetchall()
        assert con.execute("SELECT id FROM jammi_search('t', 'word77', 1)").fetchall() == [(77,)]
        con.close()


@pytest.fixture(
    params=["disk", pytest.param("memory", marks=pytest.mark.long), pytest.param("s3", marks=pytest.mark.s3)]
)
def location(request, tmp_path, fake):
    if request.param == "disk":
        folder = tmp_path / "artifacts" / "jammi_db"

        def write(file, content):
            (folder / file).unlink(missing_ok=True)
            (folder / file).write_bytes(content)

        yield Location(fake, str(folder.parent), {}, write, lambda file: (folder / file).read_bytes())
        return
    if request.param == "memory":
        place, options = f"memory://foreign-{os.getpid()}", {}
        filesystem = fsspec.filesystem("memory")
    else:
        server = request.getfixturevalue("s3_server")
        bucket = server.bucket(f"foreign-{abs(hash(request.node.name)) % 10**9}")
        place, options = f"s3://{bucket}/prefix", {"storage_options": server.options()}
        filesystem = fsspec.filesystem("s3", **server.options(), skip_instance_cache=True, use_listings_cache=False)
    folder = f"{place.partition('://')[2]}/jammi_db"
    yield Location(
        fake,
        place,
        options,
        lambda file, content: filesystem.pipe_file(f"{folder}/{file}", content),
        lambda file: filesystem.cat_file(f"{folder}/{file}"),
    )
    if request.param == "memory":
        filesystem.rm(place, recursive=True)


MANIFESTS = {
    "rows": lambda document: document["segments"][0].update(rows=10**30),
    "no digest": lambda document: document["segments"][0]["parquet"].update(sha256=None),
    "a path for a digest": lambda document: document["segments"][0]["vectors"].update(sha256="/dev/zero"),
    "year 1": lambda document: document.update(started="0001-01-01T00:00:00+14:00"),
    "no segments": lambda document: document.update(segments=[], count=0, counts={}),
    "a feature": lambda document: document.update(features=["passages"]),
    "a later version": lambda document: document.update(format_version=99),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_strange_manifest_keeps_nobody_from_other_tables(location, change):
    location.reseal(f"{location.name}.manifest.json", change)
    location.goes_on()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"[" * 200_000, b"\xff" * 100, b" " * (33 << 20)], ids=len)
def test_a_manifest_that_is_none_keeps_nobody_from_other_tables(location, content):
    location.write(f"{location.name}.00002.manifest.json", content)
    location.goes_on()


def test_a_later_version_is_named_and_left_alone(location):
    file = f"{location.name}.00002.manifest.json"
    location.write(file, location.read(f"{location.name}.manifest.json"))
    location.reseal(file, lambda document: document.update(number=2, features=["sections"]))
    content = location.read(file)
    con = location.fresh(retention=timedelta(0))
    assert "no embedding table for 'u'" in error_of(con, "FROM jammi_search('u', 'other')")
    con.execute("FROM jammi_recover()").fetchall()
    con.execute("FROM jammi_vacuum()").fetchall()
    assert location.read(file) == content


@pytest.fixture
def on_disk(fake, tmp_path):
    folder = tmp_path / "artifacts" / "jammi_db"
    location = Location(fake, str(folder.parent), {}, None, lambda file: (folder / file).read_bytes())
    location.folder = folder
    location.aside = tmp_path / "aside"
    return location


def fifo(path, aside):
    os.mkfifo(path)


def zeros(path, aside):
    path.symlink_to("/dev/zero")


def folder(path, aside):
    path.mkdir()
    (path / "x").write_bytes(b"")


def link_out(path, aside):
    path.symlink_to(aside)


def nowhere(path, aside):
    path.symlink_to(aside.with_name("nowhere"))


def listening(path, aside):
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name[:100])
        os.rename(path.name[:100], path.name)
    finally:
        os.chdir(here)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("put", "kind"),
    [
        *((fifo, kind) for kind in ("manifest.json", "00002.manifest.json", "parquet", "usearch", "rowmap", "vectors")),
        *((folder, kind) for kind in ("00002.manifest.json", "parquet", "vectors")),
        *((link, "00002.manifest.json") for link in (zeros, link_out, nowhere, listening)),
        (link_out, "parquet"),
        (zeros, "usearch"),
    ],
)
def test_what_is_no_file_is_not_opened(on_disk, put, kind):
    path = on_disk.folder / f"{on_disk.name}.{kind}"
    on_disk.aside.write_bytes(path.read_bytes() if path.exists() else b"")
    path.unlink(missing_ok=True)
    put(path, on_disk.aside)
    before = os.lstat(path)
    on_disk.goes_on()
    assert os.lstat(path).st_ino == before.st_ino


@pytest.mark.parametrize(("put", "kind"), [(fifo, "usearch"), (folder, "rowmap"), (link_out, "vectors")])
def test_a_sidecar_that_is_no_file_is_built_again_under_another_name(on_disk, put, kind):
    path = on_disk.folder / f"{on_disk.name}.{kind}"
    path.unlink()
    on_disk.aside.write_bytes(b"")
    put(path, on_disk.aside)
    con = on_disk.fresh()
    with pytest.warns(JammiWarning, match=f"'{path.name}' is no regular file"):
        assert con.execute("SELECT id FROM jammi_search('u', 'other3', 1)").fetchall() == [(3,)]
    assert "again" in con.execute("SELECT action FROM jammi_recover()").fetchall()[0][0]
    assert con.execute("SELECT id FROM jammi_search('u', 'other3', 1)").fetchall() == [(3,)]
    assert con.execute("FROM jammi_recover()").fetchall() == []
    assert os.path.lexists(path)


# What a segment's own files may hold.


@pytest.fixture
def segment(tmp_path):
    """300 rows of 8 dimensions: a Parquet file, how to write it otherwise, and its sidecars."""
    return SegmentFiles(tmp_path)


class SegmentFiles:
    def __init__(self, folder):
        self.parquet, self.usearch = folder / f"{NAME}.parquet", folder / f"{NAME}.usearch"
        self.rowmap, self.vectors = folder / f"{NAME}.rowmap", folder / f"{NAME}.vectors"
        self.definition = dataclasses.replace(DEFINITION, dimensions=8)
        self.write()

    def write(self, vectors=None, row_ids=None):
        random = np.random.default_rng(7).standard_normal((300, 8)).astype(np.float32)
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        writer = SegmentWriter(self.parquet, self.definition, MANIFEST.build)
        writer.write(
            row_ids or [f"r{i}" for i in range(300)], random if vectors is None else vectors(random), [b"0" * 16] * 300
        )
        writer.close(Counts(300))

    def rewrite(self, change):
        """The file with other columns, and the metadata that it had."""
        table = pq.read_table(self.parquet)
        self.parquet.unlink()
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), self.parquet)

    def index(self, rows=300):
        files = {"usearch": self.usearch, "rowmap": self.rowmap, "vectors": self.vectors}
        build(self.parquet, files, rows=rows, shape=Shape(8), progress=lambda _: None)

    def open(self):
        mapped = MappedSegment(self.rowmap, self.vectors, 300, Shape(8))
        mapped.open_index(Graph(), self.usearch)
        return mapped


def with_number(number):
    def change(vectors):
        vectors[123, 4] = number
        return vectors

    return change


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e30], ids=str)
def test_a_vector_that_is_no_numbers_is_named(segment, number):
    segment.index()
    segment.write(with_number(number))
    for read in (lambda: list(read_vectors(segment.parquet, Shape(8))), segment.index):
        with pytest.raises(UnsupportedError, match=f"'{segment.parquet.name}' has vectors with NaN or infinite"):
            read()
    segment.write()
    segment.index()
    vectors = np.fromfile(segment.vectors, "<f4")
    vectors[77] = number
    segment.vectors.unlink()
    vectors.tofile(segment.vectors)
    with pytest.raises(UnsupportedError, match=f"'{segment.vectors.name}' has vectors with NaN or infinite"):
        segment.open()


def nulls(column):
    return lambda table: table.set_column(
        table.schema.get_field_index(column),
        column,
        pa.array([None, *table[column].to_pylist()[1:]], table[column].type),
    )


def cast(column, kind):
    return lambda table: table.set_column(
        table.schema.get_field_index(column), column, table[column].combine_chunks().cast(kind)
    )


OTHER_COLUMNS = {
    "no vectors": lambda table: table.drop_columns("vector"),
    "no ids": lambda table: table.drop_columns("_row_id"),
    "NULL vectors": nulls("vector"),
    "NULL ids": nulls("_row_id"),
    "numbers for ids": lambda table: table.set_column(0, "_row_id", pa.array(range(300))),
    "lists": cast("vector", pa.list_(pa.float32())),
    "doubles": cast("vector", pa.list_(pa.float64(), 8)),
    "two of one name": lambda table: table.append_column("vector", table["vector"]),
    "narrower": lambda table: table.set_column(
        3, "vector", pa.FixedSizeListArray.from_arrays(pa.array(np.ones(300 * 4, np.float32)), 4)
    ),
}


@pytest.mark.parametrize("change", OTHER_COLUMNS.values(), ids=OTHER_COLUMNS)
def test_a_parquet_with_other_columns_is_refused_by_name(segment, change):
    segment.rewrite(change)

    def read():
        check_shape(segment.parquet, 300, Shape(8))
        segment.index()

    with pytest.raises(UnsupportedError, match=f"'{segment.parquet.name}'"):
        read()


def test_more_columns_are_no_obstacle(segment):
    segment.rewrite(lambda table: table.append_column("_section", pa.array(range(300))))
    assert read_footer(segment.parquet).rows == 300
    segment.index()
    assert segment.open().rows == 300


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([f"r{i}" for i in range(299)] + ["r0"]),
        pa.array([f"r{i}" for i in range(299)] + [None]),
        pa.array(range(300)),
        pa.array([f"r{i}" for i in range(300)]).dictionary_encode(),
        pa.StringArray.from_buffers(300, pa.py_buffer(np.array([0, *[10**6] * 299, 1], np.int32)), pa.py_buffer(b"x")),
        pa.array([b"\xff"] * 300, pa.binary()).view(pa.string()),
    ],
    ids=["twice", "NULL", "numbers", "dictionary", "offsets", "no text"],
)
def test_a_rowmap_that_cannot_be(segment, ids):
    segment.index()
    segment.rowmap.unlink()
    schema = pa.schema([pa.field("_row_id", ids.type)])
    with pa.OSFile(str(segment.rowmap), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([ids], schema=schema))
    with pytest.raises(StorageError, match=f"'{segment.rowmap.name}'"):
        segment.open()


def test_row_ids_that_come_twice_are_not_indexed(segment):
    segment.write(row_ids=["r0", *(f"r{i}" for i in range(299))])
    with pytest.raises(UnsupportedError, match=f"'{segment.parquet.name}' has 1 row ids more than once"):
        segment.index()


@pytest.mark.parametrize("place", [-1, 300, 2**62])
def test_tombstones_that_list_what_is_not_there(tmp_path, place):
    file = f"{NAME}.00001.deleted.parquet"
    store = open_store(str(tmp_path), tmp_path / "cache")
    writer = TombstoneWriter(store.scratch(file, "0" * 32), DEFINITION, MANIFEST.build, "c" * 32)
    writer.write(["a"], [0], [place])
    writer.close(State(2, (0,), (), Counts(299)))
    digest = store.create(file, writer.path)
    with pytest.raises(UnsupportedError, match=f"'{file}' lists a row that segment 0 does not have"):
        live_masks(store, [Segment(0, 300, digest)], [Tombstones(1, 1, digest)])


# The index: USearch believes what it reads.


def test_a_whole_graph_is_opened(segment):
    segment.index()
    check_graph(segment.usearch, 300, 8)
    assert [index.name for index in segment.open().indexes] == ["graph"]


def cut(content, at):
    return content[:at]


def put(content, at, new):
    return content[:at] + new + content[at + len(new) :]


# Of 300 rows of 8 bfloat16 numbers: the matrix, the head, the graph's header, the levels, the slots.
HEAD = 8 + 300 * 16
HEADER = HEAD + 64
LEVELS = HEADER + 40
SLOTS = LEVELS + 2 * 300

FORGED = {
    "empty": lambda content: b"",
    "no head": lambda content: cut(content, HEAD),
    "cut": lambda content: cut(content, len(content) - 1),
    "longer": lambda content: content + b"x",
    "magic": lambda content: put(content, HEAD, b"U"),
    "version": lambda content: put(content, HEAD + 7, b"\x03"),
    "metric": lambda content: put(content, HEAD + 13, b"e"),
    "scalar": lambda content: put(content, HEAD + 14, b"\x0b"),
    "key": lambda content: put(content, HEAD + 15, b"\x0f"),
    "matrix rows": lambda content: put(content, 0, b"\xff\xff\xff\xff"),
    "matrix width": lambda content: put(content, 4, b"\xff\xff\xff\xff"),
    "present": lambda content: put(content, HEAD + 17, b"\x01"),
    "dimensions": lambda content: put(content, HEAD + 33, b"\xff"),
    "slots": lambda content: put(content, HEADER, b"\xff"),
    "connectivity": lambda content: put(content, HEADER + 8, b"\xff" * 8),
    "lowest": lambda content: put(content, HEADER + 16, b"\x00"),
    "highest": lambda content: put(content, HEADER + 24, b"\x07"),
    "entry": lambda content: put(content, HEADER + 32, b"\xff" * 8),
    "a level": lambda content: put(content, LEVELS, b"\xff\xff"),
    "a key": lambda content: put(content, SLOTS, b"\xff\xff"),
    "a key twice": lambda content: put(content, SLOTS, b"\x01"),
    "a slot's level": lambda content: put(content, SLOTS + 8, b"\x09"),
    "a count": lambda content: put(content, SLOTS + 10, b"\xff\xff\xff\xff"),
    "a neighbour": lambda content: put(content, SLOTS + 14, b"\xff\xff\xff\x00"),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_graph_is_never_mapped(segment, forge):
    segment.index()
    content = segment.usearch.read_bytes()
    segment.usearch.unlink()
    segment.usearch.write_bytes(forge(content))
    with pytest.raises(DamagedError, match=f"'{segment.usearch.name}' "):
        segment.open()


SEARCH = """
import sys
from pathlib import Path
import numpy as np
from jammi_duck.errors import DamagedError
from jammi_duck.storage.index.graph import open_graph
content, refused = Path(sys.argv[1]).read_bytes(), 0
random = np.random.default_rng(int(sys.argv[2]))
queries = random.standard_normal((4, 8)).astype("f4")
for i in range(int(sys.argv[3])):
    forged = bytearray(content)
    for _ in range(random.integers(1, 4)):
        place, size = random.integers(8 + 300 * 16, len(content)), random.integers(1, 9)
        forged[place : place + size] = random.bytes(min(size, len(content) - place))
    path = Path(sys.argv[1]).with_name(f"{i}.usearch")
    path.write_bytes(forged)
    try:
        graph = open_graph(path, 300, 8, view=True)
        found = graph.search(queries, 20)
        assert found.keys.max() < 300
        del graph
    except DamagedError:
        refused += 1
    path.unlink()
print("refused", refused)
"""


def mangled(segment, seed, count):
    segment.index()
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(segment.usearch), str(seed), str(count)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[1])


def test_a_mangled_graph_crashes_nothing(segment):
    """A process of its own opens and searches graphs of which a few bytes are others."""
    assert 50 < mangled(segment, 1, 200) < 200


@pytest.mark.long
def test_many_mangled_graphs_crash_nothing(segment):
    assert mangled(segment, 2, 20_000)


def test_a_forged_graph_with_a_digest_that_fits_is_searched_around(location):
    """Whoever can write a location can write manifests: the search goes on without the index, and it is built again."""
    file, content = f"{location.name}.usearch", b"usearch" * 100
    location.write(file, content)
    digest = hashlib.sha256(content).hexdigest()
    manifest = f"{location.name}.manifest.json"
    location.reseal(
        manifest, lambda document: document["segments"][0]["usearch"].update(size=len(content), sha256=digest)
    )
    con = location.fresh()
    with pytest.warns(JammiWarning, match="cannot be used"):
        assert con.execute("SELECT id FROM jammi_search('u', 'other3', 1)").fetchall() == [(3,)]
    assert "again" in con.execute("SELECT action FROM jammi_recover()").fetchall()[0][0]
    assert con.execute("SELECT id FROM jammi_search('u', 'other3', 1)").fetchall() == [(3,)]


def test_numbers_that_are_none_are_an_error_that_names_the_file_and_not_fewer_rows(location):
    """A whole Parquet file with a digest that fits, and no sidecar that would do instead."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.parquet")
        path.write_bytes(location.read(f"{location.name}.parquet"))
        table = pq.read_table(path)
        vectors = np.stack(table["vector"].to_pylist()).astype(np.float32)
        vectors[2, 3] = np.nan
        kind = table.schema.field("vector").type
        changed = table.set_column(
            3, table.schema.field("vector"), pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind)
        )
        pq.write_table(changed, path, compression="none")
        content = path.read_bytes()

    def change(document):
        (segment,) = document["segments"]
        segment["parquet"].update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        segment["vectors"].update(sha256="0" * 64)

    location.write(f"{location.name}.parquet", content)
    location.reseal(f"{location.name}.manifest.json", change)
    con = location.fresh()
    with pytest.warns(JammiWarning, match="cannot be used"):
        for exact in ("false", "true"):
            message = error_of(con, f"FROM jammi_search('u', 'other3', 5, exact := {exact})")
            assert f"'{location.name}.parquet' has vectors with NaN" in message
    location.goes_on()


# Any bytes for a Parquet file.


@st.composite
def mangled_parquet(draw, content):
    """A Parquet file of which some bytes are others, mostly in its footer, or that is cut short."""
    changed = bytearray(content)
    begin = len(content) - int.from_bytes(content[-8:-4], "little") - 8
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.one_of(st.integers(begin, len(content) - 1), st.integers(0, len(content) - 1)))
        new = draw(st.binary(min_size=1, max_size=6))
        changed[place : place + len(new)] = new
    return bytes(changed[: draw(st.one_of(st.just(len(changed)), st.integers(0, len(changed))))])


def check_any_parquet(path, content):
    path.write_bytes(content)
    for read in (
        read_footer,
        read_state,
        lambda path: list(read_vectors(path, Shape(8))),
        lambda path: list(read_tombstones(path)),
    ):
        with contextlib.suppress(StorageError):
            read(path)
    path.unlink()


def test_a_column_whose_name_is_no_text(segment):
    content = segment.parquet.read_bytes()
    place = content.rindex(b"_text_digest", 0, content.index(b"ARROW:schema"))
    check_any_parquet(segment.parquet, content[:place] + b"\x80" + content[place + 1 :])
    names = content.index(b"_text_digest")
    check_any_parquet(segment.parquet, content[:names] + b"\x80" + content[names + 1 :])


def golden_parquet(folder):
    writer = SegmentWriter(folder / "golden.parquet", DEFINITION, MANIFEST.build)
    writer.write(["a", "b"], np.eye(2, 4, dtype=np.float32), [b"0" * 16] * 2)
    writer.close(Counts(2))
    return writer.path.read_bytes()


def test_any_parquet_is_read_or_refused(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")

    @settings(deadline=None)
    @given(mangled_parquet(golden_parquet(folder)))
    def check(content):
        check_any_parquet(folder / "x.parquet", content)

    check()


@pytest.mark.long
def test_any_parquet_at_length(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")

    @settings(max_examples=5_000, deadline=None)
    @given(mangled_parquet(golden_parquet(folder)))
    def check(content):
        check_any_parquet(folder / "x.parquet", content)

    check()
