"""The query language: words, phrases, prefixes, what must be there and what must not, and no error for any text."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck.retrieval.text_query import TextQuery, parse
from jammi_duck.storage.words.analyser import analyser, tokens
from jammi_duck.storage.words.bm25 import Clause
from tests.effort import some

ENGLISH = analyser("english")
WORDS = st.sampled_from(
    ["duck", "ducks", "the", "C++", "E-1047", "running", "a@b.org", "é", "猫", "検索", "x", "___", "don't"]
)
PIECES = st.one_of(WORDS, st.sampled_from([*" \"+-*()“”„,'\n\t"]), st.text(max_size=3))
QUERIES = st.one_of(st.text(), st.lists(PIECES, max_size=20).map("".join))


def word(text):
    return Clause(((text, 0),))


def phrase(*terms):
    return Clause(tuple(terms))


def prefix(text, *also):
    return Clause(((text, 0),), is_prefix=True, also=also)


def scored(text, language="english"):
    return dict(parse(text, analyser(language)).scored)


class TestWords:
    def test_any_of_them_is_asked_for(self):
        assert parse("the Ducks run", ENGLISH) == TextQuery(
            ((word("duck"), 1.0), (word("run"), 1.0)), (), (), "the Ducks run"
        )

    def test_what_a_compound_is_found_by_as_a_whole_counts_half(self):
        assert scored("E-1047") == {word("e"): 1.0, word("1047"): 1.0, word("e-1047"): 0.5}
        assert scored("libssl1") == {word("libssl1"): 1.0, word("libssl"): 0.5, word("1"): 0.5}

    def test_one_that_is_asked_for_twice_counts_twice(self):
        assert scored("duck Ducks duck") == {word("duck"): 3.0}
        assert scored("C++ c c#") == {word("c"): 3.0, word("c++"): 0.5, word("c#"): 0.5}

    def test_a_lone_character_is_what_a_pair_begins_with(self):
        assert scored("猫") == {prefix("猫"): 1.0}
        assert scored("黒猫") == {word("黒猫"): 1.0}
        assert parse("+猫", ENGLISH).must == (prefix("猫"),)


class TestPhrases:
    def test_stop_words_leave_gaps(self):
        assert scored('"birds of the night"') == {phrase(("bird", 0), ("night", 3)): 1.0}
        assert scored('"the night birds"') == {phrase(("night", 0), ("bird", 1)): 1.0}

    def test_compounds_are_parts_of_it(self):
        assert scored('"error E-1047 again"') == {phrase(("error", 0), ("e", 1), ("1047", 2), ("again", 3)): 1.0}

    def test_one_with_a_single_word_is_that_word(self):
        assert scored('"the duck"') == scored("duck")
        assert scored('"C++"') == scored("C++")

    def test_two_that_are_the_same_add_up(self):
        assert scored('"night birds" “the night bird”') == {phrase(("night", 0), ("bird", 1)): 2.0}

    @pytest.mark.parametrize(
        "text", ['"night birds"', "“night birds”", "„night birds“", '("night birds")', 'x "night birds"y']
    )
    def test_quotes_may_be_of_several_kinds_and_stand_in_brackets(self, text):
        assert phrase(("night", 0), ("bird", 1)) in scored(text)

    def test_inches_are_none(self):
        assert parse('5" disk and 3" disk', ENGLISH) == TextQuery(
            ((word("5"), 1.0), (word("disk"), 2.0), (word("3"), 1.0)), (), (), '5" disk and 3" disk'
        )


class TestConditions:
    def test_of_a_word(self):
        assert parse("ducks +water -loud", ENGLISH) == TextQuery(
            ((word("duck"), 1.0), (word("water"), 1.0)), (word("water"),), (word("loud"),), "ducks water"
        )

    def test_of_a_compound(self):
        parsed = parse("x -E-1047 +scikit-learn", ENGLISH)
        assert parsed.without == (phrase(("e", 0), ("1047", 1)),)
        assert parsed.must == (phrase(("scikit", 0), ("learn", 1)),)
        assert parsed.plain == "x scikit-learn"

    def test_of_a_compound_with_one_word_it_is_the_compound(self):
        parsed = parse("x -C++ +F# +AT&T -the-duck", ENGLISH)
        assert parsed.without == (word("c++"), word("the-duck"))
        assert parsed.must == (word("f#"), word("at&t"))

    def test_of_a_phrase(self):
        parsed = parse('fish -"birds of the night" +"loud ducks" -"the owl"', ENGLISH)
        assert parsed.without == (phrase(("bird", 0), ("night", 3)), word("owl"))
        assert parsed.must == (phrase(("loud", 0), ("duck", 1)),)
        assert dict(parsed.scored) == {word("fish"): 1.0, phrase(("loud", 0), ("duck", 1)): 1.0}
        assert parsed.plain == "fish loud ducks"

    def test_of_pairs(self):
        assert parse("猫 -全文検索", ENGLISH).without == (phrase(("全文", 0), ("文検", 1), ("検索", 2)),)

    def test_of_stop_words_they_are_dropped(self):
        assert parse('duck +the -of -"to be"', ENGLISH) == TextQuery(((word("duck"), 1.0),), (), (), "duck the")

    def test_two_that_are_the_same_are_one(self):
        assert parse("+duck +Ducks x -y -y", ENGLISH).must == (word("duck"),)
        assert parse("+duck +Ducks x -y -y", ENGLISH).without == (word("y"),)

    @pytest.mark.parametrize("text", ["x- y", "x - y", "x -- y", "x --y", "x+y", 'x"a b"-y', "x(-y)", "x -(y)", "x +*"])
    def test_a_sign_elsewhere_is_none(self, text):
        parsed = parse(text, ENGLISH)
        assert (parsed.must, parsed.without) == ((), ())

    @pytest.mark.parametrize("text", ["-duck", '-duck -"loud fish"', "the -duck", "-duck*"])
    def test_where_nothing_else_is_asked_for_all_is_plain_words(self, text):
        parsed = parse(text, ENGLISH)
        assert (parsed.must, parsed.without, parsed.plain) == ((), (), text)
        assert word("duck") in dict(parsed.scored)


class TestPrefixes:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("libss*", prefix("libss")), ("Scikit-Le*", prefix("scikit-le")), ("E-10*", prefix("e-10")),
            ("CAFÉ*", prefix("cafe")), ("a_b*", prefix("a_b")), ("(duc*)", prefix("duc")), ("duc*, x", prefix("duc")),
        ],
    )  # fmt: skip
    def test_they_are_folded_and_not_stemmed(self, text, found):
        assert found in scored(text)

    @pytest.mark.parametrize(
        ("begun", "finds"),
        [
            ("runn", "running"), ("run", "runs"), ("connecti", "connection"), ("connecti", "connecting"),
            ("happy", "happy"), ("studie", "studies"), ("relativ", "relative"),
            ("optimiz", "optimized"), ("hopp", "hopping"),
        ],
    )  # fmt: skip
    def test_they_find_words_whose_stem_is_cut_shorter(self, begun, finds):
        ((clause, _),) = parse(f"{begun}*", ENGLISH).scored
        ((stem, _, _),) = ENGLISH.token(finds).terms
        assert stem.startswith(begun) or stem in clause.also

    @pytest.mark.parametrize(
        ("begun", "not_found"), [("cart", "car"), ("universe", "uni"), ("portal", "port"), ("bus", "be")]
    )
    def test_they_find_no_shorter_word(self, begun, not_found):
        assert not_found not in next(iter(scored(f"{begun}*"))).also

    def test_in_another_language(self):
        assert scored("Häuse*", "german") == {prefix("hause", "haus"): 1.0}
        assert scored("cancione*", "spanish") == {prefix("cancione", "cancion"): 1.0}
        assert scored("runn*", "none") == {prefix("runn"): 1.0}

    def test_only_the_last_word_is_begun(self):
        assert scored("l'hom*", "french") == {prefix("hom"): 1.0}
        assert scored("o'bri*") == {word("o"): 1.0, prefix("bri"): 1.0}

    def test_conditions(self):
        parsed = parse("x +runn* -scikit-le*", ENGLISH)
        assert parsed.must == (prefix("runn", "run"),)
        assert parsed.without == (prefix("scikit-le"),)
        assert parsed.plain == "x runn"

    def test_pairs_are_found_within_longer_words_anyway(self):
        assert scored("検索*") == scored("検索")
        assert scored("検*") == {prefix("検"): 1.0}

    @pytest.mark.parametrize("text", ["**", "*", "duck**", "du*ck", "* duck", "___*", "\u0640*", '"duck*"'])
    def test_a_star_elsewhere_is_none(self, text):
        assert not any(clause.is_prefix for clause in scored(text))
        assert parse(text, ENGLISH).plain == text or '"' in text


class TestLaws:
    @given(QUERIES, st.sampled_from(["english", "french", "none"]))
    @settings(max_examples=some(5000))
    def test_no_text_is_an_error(self, text, language):
        parsed = parse(text, analyser(language))
        assert len(dict(parsed.scored)) == len(parsed.scored)
        assert all(weight > 0 and clause.terms[0][1] == 0 for clause, weight in parsed.scored)
        assert all(clause.terms for clause in (*parsed.must, *parsed.without))
        has_terms = any(analyser(language).token(token).terms for token in tokens(text))
        # A stop word may begin other words.
        assert (parsed.scored != ()) == has_terms or "*" in text
        # Whoever asks for nothing with operators has the text as it is.
        assert parsed.plain == text or set(text) & set('+-*"“”„')

    @given(st.lists(WORDS).map(" ".join))
    def test_a_text_without_operators_gives_the_terms_of_the_analyser(self, text):
        expected = Counter()
        for token in tokens(text):
            for term in ENGLISH.token(token).terms:
                expected[term.text] += 1.0 if term.is_own else 0.5
        assert {clause.terms[0][0]: weight for clause, weight in parse(text, ENGLISH).scored} == expected

    @given(st.lists(WORDS.filter(lambda each: each not in ("the", "___")), min_size=1, unique=True), WORDS, WORDS)
    def test_the_plain_text_asks_for_the_same_words(self, asked, must, without):
        text = f"{' '.join(asked)} +{must} -{without}"
        assert parse(text, ENGLISH).plain == f"{' '.join(asked)} {must}"
