"""`jammi_snippet`: the passage that answers a query best, with its matches marked."""

import re
import unicodedata

import duckdb
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jammi_duck import InputError
from jammi_duck.retrieval.snippets import snippet
from jammi_duck.retrieval.text_query import parse
from jammi_duck.storage.words.analyser import analyser, tokens
from tests.effort import some
from tests.stock_shell import folder, needs_extension, rows

__all__ = ["folder"]

TEXT = (
    "A membrane is a thin layer of plastic. It lets water pass, and little else. The salt stays behind (and with it "
    "all the bacteria). Such filters work for years.\n\nIn another tank, fish swim. Nobody filters their water."
)
# Letters with marks, joined emoji, flags, Korean letters, pairs, Thai and Indic vowels, and line ends.
ODD = "ab e\u0301o\u0308 \r\n.,!()\"'-+*🦆👩\u200d💻🇩🇪🏽가\u1100\u1161\u11a8中文が\u3099กำि क्ष\u00ad\ufe0f\u20e3\u0600१"
WORDS = st.sampled_from(
    ["duck", "ducks", "water", "the", "C++", "scikit-learn", "é", "中文", "中", "full stop.", "👩\u200d💻"]
)
TEXTS = st.one_of(st.text(), st.text(st.sampled_from(ODD), max_size=80), st.lists(WORDS, max_size=60).map(" ".join))
QUERIES = st.one_of(WORDS, st.text(), st.text(st.sampled_from(ODD), max_size=6), st.just('"duck water" wat* +C++ -the'))
OPEN, CLOSE = "\ue000", "\ue001"


def passage(text, query, words=30, mark="**", language="english"):
    return snippet(text, parse(query, analyser(language)), analyser(language), words, mark)


class TestWhichPassage:
    @pytest.mark.parametrize(
        ("query", "words", "found"),
        [
            ("salt", 10, "…The **salt** stays behind (and with it all the bacteria).…"),
            ("plastic", 8, "A membrane is a thin layer of **plastic**.…"),
            ("swimming fish", 8, "…In another tank, **fish** **swim**. Nobody filters their…"),
            ("fish", 4, "…In another tank, **fish**…"),
            ("swim", 3, "…**swim**. Nobody filters…"),
        ],
    )
    def test_a_sentence_is_given_from_its_beginning(self, query, words, found):
        assert passage(TEXT, query, words) == found

    def test_the_most_different_words_come_first(self):
        text = "water water water water. " + "x " * 20 + "Clean water. " + "x " * 20 + "Clean clean."
        assert passage(text, "clean water", 4) == "…**Clean** **water**. x x…"

    def test_then_the_most_matches(self):
        text = "One duck. " + "x " * 20 + ". A duck, a duck and ducks. " + "x " * 20 + "Two ducks."
        assert passage(text, "duck", 6) == "…A **duck**, a **duck** and **ducks**.…"

    def test_then_the_first(self):
        text = "x " * 20 + "First duck. " + "x " * 20 + "Second duck. " + "x " * 20
        assert "First **duck**" in passage(text, "duck", 6)

    def test_a_part_of_a_compound_counts_less_than_the_compound(self):
        text = "To learn. " + "x " * 20 + ". With scikit-learn. " + "x " * 20
        assert passage(text, "scikit-learn", 3) == "…With **scikit-learn**.…"

    def test_at_the_end_of_the_text_it_begins_earlier(self):
        assert passage(TEXT, "nobody", 8) == "…**Nobody** filters their water."
        assert passage(TEXT, "nobody", 11) == "…In another tank, fish swim. **Nobody** filters their water."

    @pytest.mark.parametrize("query", ["", "zebra", "the of", "-membrane zebra", "***", '"'])
    def test_without_a_match_it_is_the_beginning(self, query):
        assert passage(TEXT, query, 5) == "A membrane is a thin…"

    def test_a_short_text_is_given_whole(self):
        assert passage("  A duck.\n", "duck", 2) == "  A **duck**.\n"
        assert [passage(text, "duck") for text in ("", " \n", "?!", "🦆🦆")] == ["", " \n", "?!", "🦆🦆"]

    def test_spaces_stay_as_they_are(self):
        assert passage("x\n" * 9 + "a\t duck\n\n swims", "duck", 4) == "…x\na\t **duck**\n\n swims"

    @pytest.mark.parametrize("words", [1, 2, 5, 10**30])
    def test_any_number_of_words(self, words):
        assert "**salt**" in passage(TEXT, "salt", words)

    def test_what_is_no_word_is_cut(self):
        found = passage(f"{'x' * 100_000} duck {'🦆' * 100_000}", "duck", 10)
        assert "**duck**" in found
        assert len(found) < 500
        assert len(passage("x" * 100_000, "xx*", 10)) < 500


class TestMatches:
    @pytest.mark.parametrize(
        ("text", "query", "found"),
        [
            ("Running ducks", "run duck", "**Running** **ducks**"),
            ("Café crème", "cafe", "**Café** crème"),
            ("cafe\u0301 creme\u0300", "café", "**cafe\u0301** creme\u0300"),
            ("C and C++.", "C++", "**C** and **C++**."),
            ("with scikit-learn", "scikit-learn", "with **scikit-learn**"),
            ("with scikit-learn", "learning", "with scikit-**learn**"),
            ("libssl1.1", "libss*", "**libssl1.1**"),
            ("he runs", "runn*", "he **runs**"),
            ("全文検索", "検索", "全文**検索**"),
            ("全文検索", "全文検索", "**全文検索**"),
            ("黒 猫", "猫", "黒 **猫**"),
            ("the duck and -loud fish", "duck +fish -loud", "the **duck** and -loud **fish**"),
            ("½ cup", "2", "**½** cup"),
            ("co\u00adoperate", "cooperation", "**co\u00adoperate**"),
            ("a.duck.b", "duck", "a.**duck**.b"),
        ],
    )
    def test_what_is_marked(self, text, query, found):
        assert passage(text, query) == found

    def test_a_phrase_is_marked_where_it_stands(self):
        text = "water of the tank, and a tank of the water"
        assert passage(text, '"tank of water"') == "**water** of the **tank**, and a **tank** of the **water**"
        assert passage(text, '"tank of the water"') == "water of the tank, and a **tank of the water**"
        assert passage("a tank " + "x " * 50 + "tank water", '"tank water"', 3) == "…x **tank water**"

    def test_in_another_language(self):
        assert passage("Die Häuser am See", "Haus", language="german") == "Die **Häuser** am See"
        assert passage("running ducks", "run", language="none") == "running ducks"

    @pytest.mark.parametrize(
        ("mark", "found"),
        [
            ("<b>", "a <b>duck</b>"), ('<em class="x">', 'a <em class="x">duck</em>'), ("", "a duck"),
            ("|", "a |duck|"), ("<", "a <duck<"), ("<<b>>", "a <<b>>duck<<b>>"), ("\\1", "a \\1duck\\1"),
        ],
    )  # fmt: skip
    def test_a_tag_is_closed(self, mark, found):
        assert passage("a duck", "duck", mark=mark) == found


def boundaries(text):
    return {0, *(found.end() for found in regex.finditer(r"\X", text))}


class TestLaws:
    @given(TEXTS, QUERIES, st.integers(1, 12), st.sampled_from(["english", "none"]))
    @settings(max_examples=some(1500))
    @example("क्ष" * 300, "क*", 1, "none")
    @example("\u1100\u1161\u11a8" * 300, "\u1100\u1161\u11a8", 2, "none")
    @example("a" + "🇩🇪" * 300, "x", 1, "none")
    @example("e\u0301" * 500, "e*", 1, "none")
    def test_it_is_a_part_of_the_text_that_cuts_no_character(self, text, query, words, language):
        text = re.sub("[…\ue000\ue001]", "", text)
        found = snippet(text, parse(query, analyser(language)), analyser(language), words, OPEN)
        marked = re.sub(f"{OPEN}(.*?){OPEN}", rf"{OPEN}\1{CLOSE}", found, flags=re.DOTALL)
        assert marked.count(OPEN) == marked.count(CLOSE)
        plain = re.sub(f"[{OPEN}{CLOSE}]", "", marked)
        inner = plain.removeprefix("…").removesuffix("…")
        places = [found.start() for found in re.finditer(f"(?={re.escape(inner)})", text)]
        whole = boundaries(text)
        assert any({place, place + len(inner)} <= whole for place in places)
        at = next(place for place in places if {place, place + len(inner)} <= whole)
        assert plain.startswith("…") == (text[:at].strip() != "") or len(places) > 1
        assert plain.endswith("…") == (text[at + len(inner) :].strip() != "") or len(places) > 1
        marks = [
            len(re.sub(f"[…{OPEN}{CLOSE}]", "", marked[: each.start()]))
            for each in re.finditer(f"[{OPEN}{CLOSE}]", marked)
        ]
        assert {at + mark for mark in marks} <= whole or len(places) > 1

    @given(st.lists(WORDS, max_size=60).map(" ".join), st.sampled_from(["duck", "water", "C++", "learn", "中文"]))
    def test_a_text_with_a_match_has_a_mark(self, text, query):
        terms = {term.text for token in tokens(text) for term in analyser("english").token(token).terms}
        (wanted, *_) = [term.text for token in tokens(query) for term in analyser("english").token(token).terms]
        assert ("**" in passage(text, query, 5)) == (wanted in terms)

    @given(st.lists(WORDS, min_size=1, max_size=60).map(" ".join), QUERIES, st.integers(4, 20))
    def test_it_has_about_so_many_words(self, text, query, words):
        found = passage(text, query, words, mark="")
        count = sum(analyser("english").token(token).words for token in tokens(found))
        there = sum(analyser("english").token(token).words for token in tokens(text))
        assert count <= words + 2 * (words // 4)
        assert count >= min(words, there) or "." in text

    @given(st.lists(st.sampled_from(["duck", "water", "tank", "x", "the"]), max_size=40), st.integers(1, 10))
    def test_no_other_place_has_more_of_the_query(self, text, words):
        found = passage(" ".join(text), "duck water tank", words)
        most = max((len({"duck", "water", "tank"} & set(text[i : i + words])) for i in range(len(text))), default=0)
        assert len(set(re.findall(r"\*\*(\w+)\*\*", found))) == most


class TestSql:
    def test_a_column(self, con):
        con.execute("CREATE TABLE t AS FROM (VALUES (1, 'the duck swims', 'duck'), (2, 'a fish', 'x'), (3, NULL, 'x'), "
                    "(4, 'a fish', NULL), (5, '', '')) t(id, body, q)")  # fmt: skip
        found = con.execute("SELECT jammi_snippet(body, q) FROM t ORDER BY id").fetchall()
        assert found == [("the **duck** swims",), ("a fish",), (None,), (None,), ("",)]

    def test_options(self, con):
        call = "SELECT jammi_snippet('Die Häuser stehen am See, und der See ist tief', 'Haus', {})"
        for options, found in [
            ("words := 3, language := 'german'", "Die **Häuser** stehen…"),
            ("3, '<b>', 'german'", "Die <b>Häuser</b> stehen…"),
            ("words := 2.0::DECIMAL(9, 1), mark := '_', language => 'german'", "Die _Häuser_…"),
            ("words := NULL, mark := NULL, language := NULL", "Die Häuser stehen am See, und der See ist tief"),
        ]:
            assert con.execute(call.format(options)).fetchall() == [(found,)]

    def test_other_types_are_read_as_text(self, con):
        assert con.execute("SELECT jammi_snippet(1047, 1047), jammi_snippet(['a', 'duck'], 'duck')").fetchall() == [
            ("**1047**", "[a, **duck**]")
        ]

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ("'a', 'b', words := 0", "words is 0; it must be at least 1"),
            ("'a', 'b', words := -3", "words is -3; it must be at least 1"),
            ("NULL, 'b', words := 'many'", "words is many; it must be a whole number"),
            ("'a', 'b', language := 'germn'", "no language 'germn'; did you mean 'german'?"),
            ("encode('a'), 'b'", "this is a BLOB, which is bytes: write decode(...)"),
        ],
    )
    def test_what_is_wrong(self, con, call, message):
        with pytest.raises(duckdb.Error, match=re.escape(message)):
            con.execute(f"SELECT jammi_snippet({call})").fetchall()

    def test_beside_a_search(self, jammi, animals):
        jammi.generate("animals", "text", "id")
        found = animals.execute(
            "SELECT id, jammi_snippet(text, 'owls', mark := '<b>') FROM jammi_search('animals', 'owl', 1)"
        )
        assert found.fetchall() == [(5, "an <b>owl</b> hunts at night")]

    def test_a_value_is_not_read_as_sql(self, con):
        hostile = "'); DROP TABLE t; --"
        con.execute("CREATE TABLE t AS SELECT 1 AS a")
        found = con.execute("SELECT jammi_snippet($1, 'drop', mark := $1)", [hostile]).fetchall()
        assert found == [(f"'); {hostile}DROP{hostile} TABLE t; --",)]
        assert con.execute("FROM t").fetchall() == [(1,)]

    def test_many_rows(self, con):
        con.execute("CREATE TABLE t AS SELECT i, repeat('x ', i % 90) || 'duck ' || i AS body FROM range(10000) r(i)")
        found = con.execute("SELECT count(*), count(*) FILTER (contains(s, '**duck**')) FROM "
                            "(SELECT jammi_snippet(body, 'ducks', 5) AS s FROM t)")  # fmt: skip
        assert found.fetchall() == [(10000, 10000)]

    def test_the_method(self, jammi):
        assert jammi.snippet("a small duck", "ducks") == "a small **duck**"
        assert jammi.snippet("a small duck", "ducks", 2, "<i>", language="english") == "…small <i>duck</i>"
        assert jammi.snippet(None, "ducks") is jammi.snippet("duck", None) is None
        with pytest.raises(InputError, match="words is 0"):
            jammi.snippet("a", "b", words=0)


@needs_extension
def test_the_stock_shell(folder):
    composed = unicodedata.normalize("NFC", "Ha\u0308user")
    (row,) = rows(f"SELECT jammi_snippet('Die {composed} am See', 'Haus', 3, '<b>', language := 'german') AS s, "
                  "jammi_snippet(NULL, 'x') AS n")  # fmt: skip
    assert row == {"s": f"Die <b>{composed}</b> am…", "n": None}
