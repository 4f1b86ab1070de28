"""File names, for any source and model that a user may have."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jammi_duck.storage.files import layout

START = datetime(2026, 3, 25, 12, 0, 0, tzinfo=UTC)
ANY = st.text(min_size=1, max_size=300)


def test_the_names_of_the_design():
    name = layout.table_name("patents", "sentence-transformers/all-MiniLM-L6-v2", START, ())
    assert name == "patents__embedding__all-MiniLM-L6-v2__20260325T120000"
    assert layout.parquet(name, 0) == f"{name}.parquet"
    assert layout.parquet(name, 3) == f"{name}.00003.parquet"
    assert layout.sidecar(name, 0, "usearch") == f"{name}.usearch"
    assert layout.sidecar(name, 2, "rowmap", 4) == f"{name}.00002.r00004.rowmap"
    assert layout.sidecar(name, 0, "words") == f"{name}.words"
    assert layout.manifest(name, 1) == f"{name}.manifest.json"
    assert layout.manifest(name, 2) == f"{name}.00002.manifest.json"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("my table", "my~20table"),
        ("../../etc/passwd", "~2E.~2F..~2Fetc~2Fpasswd"),
        ("größe", "gr~C3~B6~C3~9Fe"),
        (".hidden", "~2Ehidden"),
        ("x'; DROP TABLE y; --", "x~27~3B~20DROP~20TABLE~20y~3B~20--"),
    ],
)
def test_other_characters_are_escaped(source, expected):
    assert layout.table_name(source, "m", START, ()).split("__embedding__")[0] == expected


@given(ANY, ANY, st.integers(0, 99999), st.integers(2, 99999))
def test_every_name_stays_in_the_folder_and_is_read_back(source, model, segment, number):
    name = layout.table_name(source, model, START, ())
    files = [
        layout.parquet(name, segment),
        layout.sidecar(name, segment, "usearch", number),
        layout.sidecar(name, segment, "rowmap"),
        layout.sidecar(name, segment, "words"),
        layout.manifest(name, number),
    ]
    for file in files:
        assert "/" not in file
        assert not file.startswith(".")
        assert len(layout.scratch(file, "0" * 32).encode()) <= 200
        assert layout.parse(file).table == name
        assert layout.is_scratch(layout.scratch(file, "0123abcd" * 4), "0123abcd" * 4)
        assert not layout.is_scratch(layout.scratch(file, "0123abcd" * 4), "ffffffff" * 4)
    assert layout.parse(files[1]) == layout.FileName(name, "usearch", segment, number)
    assert layout.parse(files[4]) == layout.FileName(name, "manifest.json", number, 0)


@pytest.mark.parametrize(
    "end",
    [
        "00000.parquet",
        "000001.parquet",
        "00001.manifest.json",
        "00002.r00003.parquet",
        "r00003.manifest.json",
        "2147483648.parquet",
        "99999999999999999999.manifest.json",
        "\u0660\u0660\u0660\u0660\u0662.parquet",
        "r00000.usearch",
        "probe",
        "r00000.words",
        "parquet\n",
    ],
)
def test_a_name_that_is_not_written_so_is_not_ours(end):
    name = layout.table_name("patents", "m", START, ())
    assert layout.parse(f"{name}.2147483647.parquet").number == 2**31 - 1
    assert layout.parse(f"{name}.{end}") is None


@given(ANY, ANY)
def test_a_name_is_not_used_again(source, model):
    taken = []
    for _ in range(4):
        taken.append(layout.table_name(source, model, START, taken))
    assert len(set(taken)) == 4
    assert [name.rsplit("_", 1)[-1] for name in taken[1:]] == ["2", "3", "4"]


@given(st.text(max_size=80))
def test_what_is_not_ours_is_not_read(text):
    assert layout.parse(text) is None
    assert not layout.is_scratch(text)
