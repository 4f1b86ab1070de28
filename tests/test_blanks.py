"""What is no text: Python and SQL agree on it, and so do builds, refreshes, searches and `embed`."""

import sys
import unicodedata

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck.encoder.blanks import VISIBLE, is_blank
from jammi_duck.errors import InputError, JammiWarning
from tests.fakes import DIMENSIONS
from tests.test_generate import error_of, generate

BLANKS = ["", " ", "\n\t", "\u00a0", "\0", "\0\0 ", "\u200b", "\ufeff", "\u200d\u2060", "\u3164", "\u00ad", "\u2028"]
ZERO = f"array_value({', '.join(['0.0'] * DIMENSIONS)})"


class TestDefinition:
    def test_every_character_that_cannot_be_seen_alone(self):
        characters = [chr(i) for i in range(sys.maxunicode + 1) if not 0xD800 <= i < 0xE000]
        blank = {c for c in characters if is_blank(c)}
        assert {c for c in characters if c.isspace()} <= blank
        # Signs of Arabic, Syriac, Kaithi, and hieroglyphs are format characters that can be seen.
        assert {c for c in characters if unicodedata.category(c) in ("Cc", "Zs", "Zl", "Zp")} <= blank
        assert not any(unicodedata.category(c)[0] in "NPS" or (c.isalpha() and ord(c) < 0x1100) for c in blank)
        con = duckdb.connect()
        con.execute(
            "CREATE TABLE c AS SELECT chr(range::INTEGER) AS c FROM range(1, 1114112)"
            " WHERE range NOT BETWEEN 55296 AND 57343"
        )
        seen = {c for (c,) in con.execute(f"SELECT c FROM c WHERE regexp_matches(c, '{VISIBLE}')").fetchall()}
        assert seen == set(characters) - blank

    @settings(deadline=None)
    @given(st.text(st.one_of(st.sampled_from("".join(BLANKS)), st.characters(exclude_categories=["Cs"])), max_size=9))
    def test_python_and_sql_agree(self, text):
        ((found,),) = duckdb.execute(f"SELECT regexp_matches($1, '{VISIBLE}')", [text]).fetchall()
        assert found is not is_blank(text)


class TestBlankTexts:
    def test_builds_inferences_and_refreshes_leave_them_out(self, con):
        con.execute("CREATE TABLE t (id INTEGER, text VARCHAR)")
        con.executemany("INSERT INTO t VALUES (?, ?)", [(i, text) for i, text in enumerate([*BLANKS, "a cat"])])
        assert generate(con, "t") == [(1, len(BLANKS), 0)]
        state = con.execute("SELECT current, new, changed, gone, coverage FROM jammi_status('t')").fetchall()
        assert state == [(1, 0, 0, 0, 1.0)]
        inferred = con.execute("SELECT _status, count(*) FROM jammi_infer('t', 'text', 'id') GROUP BY 1 ORDER BY 1")
        assert inferred.fetchall() == [("error", len(BLANKS)), ("ok", 1)]
        assert con.execute("SELECT count(embed(text)) FROM t").fetchall() == [(1,)]
        con.execute("UPDATE t SET text = E'\\n' || chr(8203) WHERE text = 'a cat'")
        assert con.execute("SELECT added, changed, deleted FROM jammi_refresh('t')").fetchall() == [(0, 0, 1)]

    @pytest.mark.parametrize("function", ["jammi_search", "jammi_matches"])
    def test_as_questions_they_find_nothing(self, animals, function):
        generate(animals, "animals")
        animals.execute("CREATE TABLE q (n INTEGER, q VARCHAR)")
        texts = [*BLANKS, None, "cat", "owl"]
        animals.executemany("INSERT INTO q VALUES (?, ?)", list(enumerate(texts)))
        found = animals.execute(
            f"SELECT q.q, s._row_id FROM q, {function}('animals', q.q, 1) s ORDER BY q.n"
        ).fetchall()
        assert found == [("cat", "1"), ("owl", "5")]
        for text in BLANKS:
            animals.execute("CREATE OR REPLACE TABLE one AS SELECT ?::VARCHAR AS q", [text])
            assert animals.execute(f"FROM one, {function}('animals', one.q)").fetchall() == []
            assert animals.execute(f"FROM {function}('animals', ?)", [text]).fetchall() == []

    def test_a_zero_vector_among_others_finds_nothing(self, animals):
        generate(animals, "animals")
        found = animals.execute(
            f"SELECT n, s.id FROM (VALUES (1, embed('cat')), (2, {ZERO}::FLOAT[]), (3, embed('owl'))) q(n, v), "
            "jammi_search('animals', q.v, 1) s ORDER BY n"
        )
        assert found.fetchall() == [(1, 1), (3, 5)]
        assert animals.execute(f"FROM jammi_search('animals', {ZERO}, 1)").fetchall() == []

    def test_python_says_that_a_question_is_empty(self, animals, jammi):
        generate(animals, "animals")
        for search in (jammi.search, jammi.explain):
            with pytest.raises(InputError, match="the query is an empty text"):
                search("animals", "\u200b ")
        assert jammi.search("animals", None).fetchall() == []


class TestVectorsAsTexts:
    @pytest.mark.parametrize("text", ["[0.1, 0.2]", " [1,2, -3e-4]\n", str([0.5] * DIMENSIONS)])
    def test_a_vector_as_text_is_warned_of(self, animals, text):
        generate(animals, "animals")
        with pytest.warns(JammiWarning, match="looks like a vector"):
            animals.execute("FROM jammi_matches('animals', ?)", [text])

    @pytest.mark.parametrize("text", ["[1]", "[sic], 2", "[a, b]", "1, 2", "[]", "[1, 2", "[1,,2]", "[nan, 1]"])
    def test_words_are_not(self, animals, text):
        generate(animals, "animals")
        animals.execute("FROM jammi_matches('animals', ?)", [text]).fetchall()
        assert "dimensions" in error_of(animals, f"FROM jammi_search('animals', {[0.5, 0.5]})")
