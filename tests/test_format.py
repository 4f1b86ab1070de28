"""The files, held to golden bytes: docs/format.md in tests."""

import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jammi_duck import DamagedError, StorageError, UnsupportedError
from jammi_duck.storage.files.manifest import Manifest, Segment, Tombstones
from jammi_duck.storage.files.parquet import (
    SegmentWriter,
    State,
    TombstoneWriter,
    read_footer,
    read_rows,
    read_state,
    read_tombstones,
    read_vectors,
)
from jammi_duck.storage.files.store import FileDigest
from jammi_duck.types import Analysis, Counts, Definition, PassageRule, Shape

GOLDEN = Path(__file__).parent / "golden" / "manifest.json"
NAME = "patents__embedding__all-MiniLM-L6-v2__20260325T120000"

DEFINITION = Definition(
    source="patents",
    columns=("title", "abstract"),
    key="id",
    model="sentence-transformers/all-MiniLM-L6-v2",
    revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    weights="5" * 64,
    pooling="mean",
    prompt="",
    precision="float32",
    max_tokens=256,
    dimensions=4,
)
ANALYSIS = Analysis("words-1", "english", "PyStemmer 3.1.0")


def segment(number, rows, part, letters):
    kinds = zip(("parquet", "usearch", "rowmap", "vectors"), (10, 20, 30, 40), letters, strict=True)
    files = [FileDigest(f"{NAME}{part}.{kind}", size + number, letter * 64) for kind, size, letter in kinds]
    parquet, *sidecars = files
    return Segment(number, rows, parquet, {each.file.rpartition(".")[2]: each for each in sidecars})


MANIFEST = Manifest(
    table=NAME,
    build="0123456789abcdef0123456789abcdef",
    number=1,
    definition=DEFINITION,
    counts=Counts(3, 1, 0, 2),
    started=datetime(2026, 3, 25, 12, 0, 0, 250000, tzinfo=UTC),
    finished=datetime(2026, 3, 25, 12, 0, 9, tzinfo=UTC),
    segments=(segment(0, 2, "", "abc7"), segment(1, 2, ".00001", "def8")),
    tombstones=(Tombstones(1, 1, FileDigest(f"{NAME}.00001.deleted.parquet", 50, "9" * 64)),),
)


def sealed(document):
    """A manifest of these fields, with a checksum that fits."""
    document = {name: value for name, value in document.items() if name != "checksum"}
    plain = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return json.dumps({**document, "checksum": hashlib.sha256(plain.encode()).hexdigest()}, indent=1).encode()


class TestManifest:
    def test_golden(self):
        assert MANIFEST.to_bytes() == GOLDEN.read_bytes().rstrip(b"\n")
        assert Manifest.from_bytes(GOLDEN.read_bytes(), f"{NAME}.manifest.json") == MANIFEST

    def test_one_from_before_there_were_tombstones(self):
        earlier = dataclasses.replace(MANIFEST, tombstones=(), counts=Counts(4, 1, 0, 2))
        document = json.loads(earlier.to_bytes())
        del document["deleted"]
        assert Manifest.from_bytes(sealed(document), MANIFEST.file) == earlier

    @given(st.data())
    def test_any_change_of_a_value_is_noticed(self, data):
        document = json.loads(MANIFEST.to_bytes())
        key = data.draw(st.sampled_from(sorted(document)))
        changed = {**document, key: data.draw(st.one_of(st.none(), st.integers(), st.text(max_size=5), st.just([])))}
        # Canonical JSON tells 1 from true, which Python does not.
        assume(json.dumps(changed) != json.dumps(document))
        with pytest.raises(StorageError):
            Manifest.from_bytes(json.dumps(changed).encode(), f"{NAME}.manifest.json")

    @given(st.binary(max_size=300))
    def test_any_bytes_are_refused(self, content):
        with pytest.raises(DamagedError):
            Manifest.from_bytes(content, f"{NAME}.manifest.json")

    @given(st.integers(0, len(MANIFEST.to_bytes()) - 2))
    def test_any_cut_is_refused(self, length):
        with pytest.raises(DamagedError):
            Manifest.from_bytes(MANIFEST.to_bytes()[:length], f"{NAME}.manifest.json")

    def test_files_of_others_are_refused(self):
        with pytest.raises(DamagedError, match="another table's"):
            Manifest.from_bytes(MANIFEST.to_bytes(), f"other{NAME}.manifest.json")
        for file in ("../../etc/passwd", f"x{NAME}.parquet"):
            stray = dataclasses.replace(MANIFEST.segments[0], parquet=FileDigest(file, 1, "0" * 64))
            content = dataclasses.replace(MANIFEST, segments=(stray,)).to_bytes()
            with pytest.raises(DamagedError, match="another table's"):
                Manifest.from_bytes(content, f"{NAME}.manifest.json")

    def test_a_later_format_is_refused_by_its_version(self):
        content = MANIFEST.to_bytes().replace(b'"format_version": 1', b'"format_version": 2')
        with pytest.raises(UnsupportedError, match="has format version 2"):
            Manifest.from_bytes(content, f"{NAME}.manifest.json")


def later(change):
    """The golden manifest as a later version might write it: its fields, changed and sealed."""
    document = json.loads(GOLDEN.read_text())
    change(document)
    return sealed(document)


class TestLaterManifests:
    """What later versions may write: kept where it is not known, refused by its name where it must be known."""

    def test_golden(self):
        content = (GOLDEN.parent / "later manifest.json").read_bytes()
        found = Manifest.from_bytes(content, MANIFEST.file)
        assert found.format_version == 3
        assert found.rows == MANIFEST.rows
        assert [segment.parquet for segment in found.segments] == [each.parquet for each in MANIFEST.segments]
        assert json.loads(found.to_bytes()) == json.loads(content)
        # What a change makes of it keeps all of that, too.
        changed = dataclasses.replace(found, number=2, segments=found.segments[1:], tombstones=())
        changed = dataclasses.replace(changed, counts=dataclasses.replace(found.counts, rows=2))
        document = json.loads(changed.to_bytes())
        assert document["access"] == {"roles": ["reader"]}
        assert document["features"] == []
        assert document["counts"]["deduplicated"] == 5
        assert document["definition"]["sections"] == {"overlap": 16, "tokens": 128}
        assert list(document["segments"][0])[-1] == "probe"
        assert document["segments"][0]["words"]["analyser"] == "english"
        assert document["segments"][0]["parquet"]["crc32c"] == "dGVzdA=="
        assert Manifest.from_bytes(changed.to_bytes(), changed.file) == changed

    def test_the_fingerprint_is_that_of_what_is_written(self):
        content = (GOLDEN.parent / "later manifest.json").read_bytes()
        document = json.loads(content)
        plain = json.dumps(document["definition"], sort_keys=True, separators=(",", ":"))
        assert document["fingerprint"] == hashlib.sha256(plain.encode()).hexdigest()
        definition = Manifest.from_bytes(content, MANIFEST.file).definition
        assert definition.fingerprint == document["fingerprint"] != DEFINITION.fingerprint
        assert Definition.from_json(definition.to_json()) == definition

    @pytest.mark.parametrize("where", ["manifest", "definition", "counts", "segment", "file", "deleted"])
    def test_an_unknown_feature_is_refused_by_its_name(self, where):
        def change(document):
            levels = {
                "manifest": document,
                "definition": document["definition"],
                "counts": document["counts"],
                "segment": document["segments"][1],
                "file": document["segments"][0]["parquet"],
                "deleted": document["deleted"][0],
            }
            levels[where]["features"] = ["sections"]
            plain = json.dumps(document["definition"], sort_keys=True, separators=(",", ":"))
            document["fingerprint"] = hashlib.sha256(plain.encode()).hexdigest()

        with pytest.raises(UnsupportedError, match=f"'{MANIFEST.file}' needs the feature 'sections'"):
            Manifest.from_bytes(later(change), MANIFEST.file)

    def test_a_feature_that_is_known_is_no_obstacle(self, monkeypatch):
        from jammi_duck import fields

        monkeypatch.setattr(fields, "FEATURES", {"sections"})
        content = later(lambda document: document.update(format_version=2, features=["sections"]))
        found = Manifest.from_bytes(content, MANIFEST.file)
        assert json.loads(found.to_bytes())["features"] == ["sections"]

    def test_a_later_version_that_does_not_say_its_features_is_refused(self):
        content = later(lambda document: document.update(format_version=2))
        with pytest.raises(UnsupportedError, match="has format version 2"):
            Manifest.from_bytes(content, MANIFEST.file)

    @pytest.mark.parametrize(
        "change",
        [
            lambda document: document.update(segments=[]),
            lambda document: document.update(counts="many"),
            lambda document: document["segments"][0].update(rows=None),
        ],
    )
    def test_a_later_version_that_is_strange_is_never_called_damaged(self, change):
        def changed(document):
            document.update(format_version=2, features=[])
            change(document)

        with pytest.raises(UnsupportedError):
            Manifest.from_bytes(later(changed), MANIFEST.file)


class TestParquet:
    @pytest.fixture
    def path(self, tmp_path):
        writer = SegmentWriter(tmp_path / "s.parquet", DEFINITION, MANIFEST.build, "c" * 32)
        vectors = np.eye(3, 4, dtype=np.float32)
        writer.write(["a", "b"], vectors[:2], [b"0" * 16, b"1" * 16])
        writer.write(["c"], vectors[2:], [b"2" * 16])
        writer.close(MANIFEST.counts)
        return writer.path

    def test_schema_and_metadata(self, path):
        table = pq.read_table(path)
        assert [(f.name, str(f.type), f.nullable) for f in table.schema] == [
            ("_row_id", "string", False),
            ("_source_id", "string", False),
            ("_model_id", "string", False),
            ("vector", "fixed_size_list<element: float not null>[4]", False),
            ("_text_digest", "fixed_size_binary[16]", False),
        ]
        metadata = {k.decode(): v.decode() for k, v in pq.read_metadata(path).metadata.items() if k != b"ARROW:schema"}
        assert metadata == {
            "jammi.format_version": "1",
            "jammi.build": MANIFEST.build,
            "jammi.change": "c" * 32,
            "jammi.definition": DEFINITION.to_json(),
            "jammi.counts": '{"rows": 3, "skipped": 1, "failed": 0, "truncated": 2}',
        }
        assert table.column("_source_id").to_pylist() == ["patents"] * 3
        assert table.column("_model_id").to_pylist() == [DEFINITION.model] * 3

    def test_it_reads_back(self, path):
        footer = read_footer(path)
        assert (footer.build, footer.change, footer.rows) == (MANIFEST.build, "c" * 32, 3)
        assert (footer.definition, footer.counts) == (DEFINITION, MANIFEST.counts)
        batches = list(read_vectors(path, Shape(4)))
        assert pa.concat_arrays([ids for ids, _ in batches]).to_pylist() == ["a", "b", "c"]
        assert np.concatenate([vectors for _, vectors in batches]).tolist() == np.eye(3, 4).tolist()
        ((row_ids, vectors, digests, _),) = read_rows(path, Shape(4))
        assert (row_ids.to_pylist(), vectors.tolist()) == (["a", "b", "c"], np.eye(3, 4).tolist())
        assert digests.to_pylist() == [b"0" * 16, b"1" * 16, b"2" * 16]

    def test_any_cut_is_noticed(self, path):
        content = path.read_bytes()
        for length in range(0, len(content), 7):
            path.write_bytes(content[:length])
            with pytest.raises(DamagedError):
                read_footer(path)

    def test_an_altered_vector_is_noticed(self, path):
        content = bytearray(path.read_bytes())
        place = content.index(np.float32(1).tobytes())
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(DamagedError, match="cannot be read"):
            list(read_vectors(path, Shape(4)))

    def test_what_is_no_damage_is_not_called_so(self, path, monkeypatch):
        """Settling deletes damaged files, so neither the system's failures nor a later format may look like damage."""
        from jammi_duck.storage.files import parquet

        for error in (OSError(24, "Too many open files"), pa.ArrowMemoryError("malloc failed")):
            with monkeypatch.context() as patch:

                def failing(*_, error=error, **__):
                    raise error

                patch.setattr(pq, "read_metadata", failing)
                patch.setattr(pq, "ParquetFile", failing)
                for read in (read_footer, lambda path: list(read_vectors(path, Shape(4)))):
                    with pytest.raises(StorageError) as caught:
                        read(path)
                    assert not isinstance(caught.value, DamagedError)
        monkeypatch.setattr(parquet, "FORMAT_VERSION", 0)
        with pytest.raises(UnsupportedError, match="has format version 1"):
            read_footer(path)

    def rewritten(self, path, **metadata):
        """The file with other metadata of ours: None for what is left out."""
        table = pq.read_table(path)
        known = {name: value for name, value in table.schema.metadata.items() if name.startswith(b"jammi.")}
        known |= {f"jammi.{name}".encode(): value for name, value in metadata.items()}
        path.unlink()
        pq.write_table(table.replace_schema_metadata({k: v for k, v in known.items() if v is not None}), path)

    def test_unknown_fields_of_a_footer_are_read_over(self, path):
        definition = json.dumps({**json.loads(DEFINITION.to_json()), "sections": {"tokens": 128}})
        counts = '{"rows": 3, "skipped": 1, "failed": 0, "truncated": 2, "deduplicated": 4}'
        self.rewritten(path, definition=definition, counts=counts, features="[]", format_version="7", later="x")
        footer = read_footer(path)
        assert (footer.counts.rows, footer.counts.unknown) == (3, {"deduplicated": 4})
        assert footer.definition.unknown == {"sections": {"tokens": 128}}

    @pytest.mark.parametrize(
        "metadata",
        [
            {"features": '["sections"]'},
            {"format_version": "2"},
            {"format_version": None},
            {"format_version": "one"},
            {"definition": "{"},
            {"definition": '{"features": ["sections"]}'},
            {"definition": None},
            {"counts": '{"rows": "three"}'},
            {"counts": "[" * 100_000},
            {"features": "[" * 100_000},
            {"features": "{}"},
            {"build": None},
            {"build": "../../etc/passwd"},
            {"change": "x"},
        ],
        ids=str,
    )
    def test_a_footer_that_is_not_understood_is_no_damage(self, path, metadata):
        self.rewritten(path, **metadata)
        with pytest.raises(UnsupportedError, match=f"^'{path.name}' "):
            read_footer(path)

    def test_other_parquet_is_refused(self, tmp_path):
        pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
        with pytest.raises(UnsupportedError, match="not a Parquet file of ours"):
            read_footer(tmp_path / "x.parquet")


class TestTombstones:
    CHANGE = "c" * 32

    @pytest.fixture
    def path(self, tmp_path):
        writer = TombstoneWriter(tmp_path / "t.parquet", DEFINITION, MANIFEST.build, self.CHANGE)
        writer.write(["a", "c"], [0, 1], [1, 7])
        writer.close(State(2, (0, 1), (1,), MANIFEST.counts))
        return writer.path

    def test_schema_and_metadata(self, path):
        assert [(f.name, str(f.type), f.nullable) for f in pq.read_table(path).schema] == [
            ("_row_id", "string", False),
            ("_segment", "int32", False),
            ("_place", "int64", False),
        ]
        metadata = {k.decode(): v.decode() for k, v in pq.read_metadata(path).metadata.items() if k != b"ARROW:schema"}
        assert metadata == {
            "jammi.format_version": "1",
            "jammi.build": MANIFEST.build,
            "jammi.change": self.CHANGE,
            "jammi.definition": DEFINITION.to_json(),
            "jammi.state": '{"number": 2, "segments": [0, 1], "deleted": [1], "counts": '
            '{"rows": 3, "skipped": 1, "failed": 0, "truncated": 2}}',
        }

    def test_they_read_back(self, path):
        ((row_ids, segments, positions),) = read_tombstones(path)
        assert (row_ids.to_pylist(), segments.tolist(), positions.tolist()) == (["a", "c"], [0, 1], [1, 7])
        assert read_state(path) == (MANIFEST.build, self.CHANGE, 2, State(2, (0, 1), (1,), MANIFEST.counts))

    def test_any_cut_is_noticed(self, path):
        content = path.read_bytes()
        for length in range(0, len(content), 7):
            path.write_bytes(content[:length])
            with pytest.raises(DamagedError):
                read_state(path)


def test_fingerprint_is_golden_and_depends_on_every_field():
    assert DEFINITION.fingerprint == json.loads(GOLDEN.read_text())["fingerprint"]
    for field in dataclasses.fields(Definition):
        if field.name == "unknown":
            continue
        value = getattr(DEFINITION, field.name)
        other = (*value, "x") if isinstance(value, tuple) else value + 1 if isinstance(value, int) else f"{value}x"
        other = {"words": ANALYSIS, "passages": PassageRule("jammi 1", 200, 30, "paragraph")}.get(field.name, other)
        assert dataclasses.replace(DEFINITION, **{field.name: other}).fingerprint != DEFINITION.fingerprint
    assert dataclasses.replace(DEFINITION, unknown={"later": 1}).fingerprint != DEFINITION.fingerprint
