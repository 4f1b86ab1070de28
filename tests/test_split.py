"""`jammi_split`: the passages of a text, in SQL and in Python; and the slices that other verbs take of a text."""

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck import InputError, NoModelError
from jammi_duck.encoder.blanks import is_blank
from tests.effort import some
from tests.stock_shell import folder, needs_extension, rows

__all__ = ["folder"]

# The fake model reads eight words.
TEXT = "A small cat sleeps.\n\nTwo ducks swim in the pond, and an owl hunts at night."


def split(con, text, more=""):
    found = con.execute(f"SELECT jammi_split($1{more})", [text]).fetchall()
    return found[0][0]


class TestInSql:
    def test_a_passage_is_its_slice(self, con):
        found = split(con, TEXT)
        assert [passage["_passage_text"] for passage in found] == [
            TEXT[passage["_start"] : passage["_end"]] for passage in found
        ]
        assert [passage["_passage"] for passage in found] == list(range(len(found)))
        assert " ".join(passage["_passage_text"] for passage in found).split() == TEXT.split()

    def test_its_type(self, con):
        kind = "STRUCT(_passage INTEGER, _start BIGINT, _end BIGINT, _passage_text VARCHAR)[]"
        assert con.execute("SELECT typeof(jammi_split('a'))").fetchall() == [(kind,)]

    def test_options_of_each_row(self, con):
        con.execute("CREATE TABLE t AS SELECT 1 AS id, $1 AS body, 8 AS n, 'word' AS border UNION ALL "
                    "SELECT 2, $1, 8, 'paragraph' UNION ALL SELECT 3, NULL, NULL, NULL", [TEXT])  # fmt: skip
        found = con.execute(
            "SELECT id, jammi_split(body, tokens := n, overlap := id, by := border) FROM t ORDER BY id"
        ).fetchall()
        assert found[0][1] != found[1][1]
        assert found[2][1] is None

    def test_nothing_and_other_types(self, con):
        assert con.execute("SELECT jammi_split(NULL), jammi_split(' \n'), jammi_split(42)").fetchall() == [
            (None, [], [{"_passage": 0, "_start": 0, "_end": 2, "_passage_text": "42"}])
        ]

    def test_places_are_code_points(self, con):
        text = "🦆 e\u0301 水 " * 12
        for passage in split(con, text):
            assert text[passage["_start"] : passage["_end"]] == passage["_passage_text"]
            taken = con.execute(
                "SELECT _jammi_slices($1, [$2], [$3])", [text, passage["_start"], passage["_end"]]
            ).fetchall()
            assert taken == [([passage["_passage_text"]],)]

    def test_any_text(self, con):
        @settings(max_examples=some(60))
        @given(text=st.text(st.characters(exclude_categories=["Cs"])), overlap=st.integers(0, 4))
        def check(text, overlap):
            found = split(con, text, f", overlap := {overlap}")
            is_in = [False] * len(text)
            for passage in found:
                start, end = passage["_start"], passage["_end"]
                assert passage["_passage_text"] == text[start:end]
                assert len(passage["_passage_text"].split()) <= 8
                is_in[start:end] = [True] * (end - start)
            assert is_blank("".join(each for each, known in zip(text, is_in, strict=True) if not known))

        check()

    def test_many_rows(self, con):
        con.execute("CREATE TABLE t AS SELECT i, repeat('x ', i % 90) || 'duck ' || i AS body FROM range(10000) r(i)")
        found = con.execute(
            "SELECT count(*) FILTER (list_bool_and([len(string_split(p._passage_text, ' ')) <= 8 FOR p IN s])), "
            "count(*) FILTER (contains(s[-1]._passage_text, 'duck')) FROM (SELECT jammi_split(body) AS s FROM t)"
        )
        ((short, whole),) = found.fetchall()
        assert short == 10000
        assert whole > 9000

    @pytest.mark.parametrize(
        ("call", "error", "told"),
        [
            ("'a', tokens := 9", InputError, "tokens is 9, and 'fake/small' reads 8 tokens"),
            ("'a', tokens := 'many'", InputError, "tokens"),
            ("'a', tokens := 7.5", InputError, "tokens"),
            ("'a', overlap := 5", InputError, "overlap is 5; it must be from 0 to 4, which is half of tokens"),
            ("'a', by := 'sentences'", InputError, "did you mean 'sentence'?"),
            ("NULL, by := 'page'", InputError, "it must be 'paragraph', 'sentence' or 'word'"),
            ("'a', model := 'fake/none'", NoModelError, "no model 'fake/none'"),
            ("'a'::BLOB", InputError, "this is a BLOB"),
        ],
    )
    def test_what_is_wrong(self, con, call, error, told):
        with pytest.raises(duckdb.Error, match=told) as raised:
            con.execute(f"SELECT jammi_split({call})").fetchall()
        assert error.__name__ in str(raised.value)

    def test_the_slices_of_a_text(self, con):
        found = con.execute(
            "SELECT _jammi_slices('a水🦆d', [0, 1, NULL, 3], [1, 3, 4, 9]), _jammi_slices(NULL, [0], [1]), "
            "_jammi_slices('a', NULL, [1])"
        ).fetchall()
        assert found == [(["a", "水🦆", None, "d"], None, None)]


class TestInPython:
    def test_the_method(self, jammi):
        assert [passage["_passage_text"] for passage in jammi.split(TEXT)] == [
            passage["_passage_text"] for passage in split(jammi.con, TEXT)
        ]
        assert jammi.split(TEXT, 8, 4, "word", "fake/small") == split(
            jammi.con, TEXT, ", tokens := 8, overlap := 4, by := 'word'"
        )
        assert jammi.split(None) is None
        assert jammi.split("") == []

    def test_what_is_wrong(self, jammi):
        with pytest.raises(InputError, match="tokens is 9"):
            jammi.split("a", 9)


@needs_extension
def test_in_the_shell(folder):
    (row,) = rows("SELECT len(jammi_split('a duck. ' || repeat('and water ', 400))) AS n")
    assert row["n"] > 1
