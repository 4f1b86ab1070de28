"""The files of an embedding table of passages, byte by byte; an earlier version refuses them by name."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jammi_duck import fields
from jammi_duck.errors import DamagedError, UnsupportedError
from jammi_duck.storage.files.manifest import Manifest
from jammi_duck.storage.files.parquet import PASSAGE_SCHEMA, SegmentWriter, read_footer, read_rows
from jammi_duck.storage.index import sidecars
from jammi_duck.storage.index.segment import MappedSegment
from jammi_duck.types import Counts, Definition, PassageRule, Shape
from tests.test_format import DEFINITION, GOLDEN, MANIFEST, sealed

OF_PASSAGES = dataclasses.replace(
    DEFINITION,
    passages=PassageRule("jammi 1", 200, 30, "paragraph", ("title",)),
    unknown={"features": ["passages"]},
)
CUT = dataclasses.replace(MANIFEST, definition=OF_PASSAGES, counts=Counts(2, 1, 0, 0, 3))
WHOLE = b"r" * 16
PLACES = [(0, 0, 10, WHOLE), (1, 7, 20, WHOLE), (0, None, None, b"s" * 16)]


def places(rows):
    columns = zip(*rows, strict=True)
    arrays = [pa.array(each, field.type) for each, field in zip(columns, PASSAGE_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=PASSAGE_SCHEMA)


def written(path, rows, keys=("a", "a", "b")):
    writer = SegmentWriter(path, OF_PASSAGES, MANIFEST.build)
    writer.write(keys, np.eye(3, 4, dtype=np.float32), [b"0" * 16, b"1" * 16, b"2" * 16], places(rows))
    writer.close(CUT.counts)
    return writer.path


def test_the_golden_manifest():
    content = (GOLDEN.parent / "passages manifest.json").read_bytes()
    assert CUT.to_bytes() == content.rstrip(b"\n")
    assert Manifest.from_bytes(content, CUT.file) == CUT


def test_the_columns_and_the_metadata(tmp_path):
    path = written(tmp_path / "s.parquet", PLACES)
    table = pq.read_table(path)
    assert [(f.name, str(f.type), f.nullable) for f in table.schema] == [
        ("_row_id", "string", False),
        ("_source_id", "string", False),
        ("_model_id", "string", False),
        ("_passage", "int32", False),
        ("_start", "int64", True),
        ("_end", "int64", True),
        ("_row_digest", "fixed_size_binary[16]", False),
        ("vector", "fixed_size_list<element: float not null>[4]", False),
        ("_text_digest", "fixed_size_binary[16]", False),
    ]
    (rows,) = read_rows(path, OF_PASSAGES.shape)
    assert (rows.row_ids.to_pylist(), rows.passages.to_pylist()) == (["a", "a", "b"], places(PLACES).to_pylist())
    footer = read_footer(path)
    assert (footer.definition, footer.counts) == (OF_PASSAGES, CUT.counts)
    assert json.loads(pq.read_metadata(path).metadata[b"jammi.counts"])["passages"] == 3


def test_one_passage_twice_is_refused(tmp_path):
    path = written(tmp_path / "s.parquet", [PLACES[0], PLACES[0], PLACES[2]])
    with pytest.raises(UnsupportedError, match="1 passages more than once"):
        opened(path, tmp_path)


def opened(path, folder):
    files = {kind: folder / f"s.{kind}" for kind in sidecars.BUILT}
    sidecars.build(path, files, rows=3, shape=OF_PASSAGES.shape, progress=lambda _: None)
    return MappedSegment(files["rowmap"], files["vectors"], 3, OF_PASSAGES.shape)


def test_the_row_map_says_which_passages_rows_are(tmp_path):
    mapped = opened(written(tmp_path / "s.parquet", PLACES), tmp_path)
    assert mapped.passages.to_pylist() == places(PLACES).to_pylist()
    with pytest.raises(UnsupportedError, match="more than once"):
        MappedSegment(tmp_path / "s.rowmap", tmp_path / "s.vectors", 3, Shape(4))


def test_an_earlier_version_refuses_them_by_name(tmp_path, monkeypatch):
    path = written(tmp_path / "s.parquet", PLACES)
    monkeypatch.setattr(fields, "FEATURES", frozenset({fields.WORDS_ONLY}))
    for read in (
        lambda: Manifest.from_bytes(CUT.to_bytes(), CUT.file),
        lambda: Definition.from_json(OF_PASSAGES.to_json()),
        lambda: read_footer(path),
    ):
        with pytest.raises(UnsupportedError, match="needs the feature 'passages'"):
            read()


@pytest.mark.parametrize(
    "change",
    [
        lambda definition: definition.pop("features"),
        lambda definition: definition.pop("passages"),
        lambda definition: definition["passages"].update(title=["title", "abstract"]),
        lambda definition: definition["passages"].update(title=["elsewhere"]),
        lambda definition: definition["passages"].pop("cutter"),
        lambda definition: definition["passages"].update(tokens=-1),
    ],
)
def test_a_definition_that_contradicts_itself_is_damaged(change):
    definition = json.loads(OF_PASSAGES.to_json())
    change(definition)
    with pytest.raises(DamagedError):
        Definition.from_fields(definition)


def test_counts_of_other_passages_are_damage():
    document = json.loads(CUT.to_bytes())
    document["counts"]["passages"] = 4
    with pytest.raises(DamagedError, match="counts of other rows"):
        Manifest.from_bytes(sealed(document), CUT.file)
