"""The analyser: the words of a text, and the terms by which they are found."""

# ruff: noqa: RUF001 - letters of other scripts are meant

import re
import unicodedata
from itertools import pairwise

import pytest
import Stemmer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jammi_duck import InputError
from jammi_duck.storage.words.analyser import analyser, beginning, languages, spans, tokens, whole, word_spans
from jammi_duck.storage.words.stop_words import BY_LANGUAGE, stop_words
from tests.effort import some

# Letters, marks, joints, silent characters, pairs, and characters that fold to several.
ODD = (
    "aZ09 _-.'’‐·@+#:/&~*\"éßŒİıΐςﬁ½ﷺŉ①ⅷⓐ\u00ad\u0301\u0308\u0327\u200b\u200d\ufe0f\u20e3中文カガかｶﾞ한\u1112\u1161กำ"
    "\u093fकि🦆\x00"
)
WORDS = st.text(st.sampled_from(ODD), max_size=12)
TEXTS = st.one_of(st.text(), st.text(st.sampled_from(ODD)), st.lists(WORDS).map(" ".join))
LANGUAGES = st.sampled_from(languages())
LATIN = st.text(st.characters(max_codepoint=0x17F, categories=["L", "Nd", "P", "Zs"]))


def own(text, language="english"):
    """The own terms of a text, None in the place of a stop word."""
    found = []
    for token in tokens(text):
        analysed = analyser(language).token(token)
        by_place = {term.position: term.text for term in analysed.terms if term.is_own}
        found += [by_place.get(place) for place in range(analysed.words)]
    return found


def others(text, language="english"):
    terms = [term for token in tokens(text) for term in analyser(language).token(token).terms]
    return {term.text for term in terms if not term.is_own}


class TestNamesAndCodes:
    @pytest.mark.parametrize(
        ("text", "parts", "compound"),
        [
            ("E-1047", ["e", "1047"], "e-1047"),
            ("libssl1.1", ["libssl1", "1"], "libssl1.1"),
            ("scikit-learn", ["scikit", "learn"], "scikit-learn"),
            ("C++", ["c"], "c++"),
            ("F#", ["f"], "f#"),
            ("foo_bar", ["foo", "bar"], "foo_bar"),
            ("__init__", ["init"], "__init__"),
            ("mail@example.org", ["mail", "exampl", "org"], "mail@example.org"),
            ("https://example.org/Docs", ["https", "exampl", "org", "doc"], "https://example.org/docs"),
            ("AT&T", [None, None], "at&t"),
            ("St.-Étienne", ["st", "etienn"], "st.-etienne"),
            ("½", ["1", "2"], "1⁄2"),
        ],
    )
    def test_they_are_found_whole_and_by_their_parts(self, text, parts, compound):
        assert tokens(text) == [text]
        assert own(text) == parts
        assert compound in others(text)
        assert whole(text) == compound

    def test_a_word_is_found_by_its_letters_and_digits(self):
        assert own("libssl1") == ["libssl1"]
        assert others("libssl1") == {"libssl", "1"}

    def test_punctuation_around_a_word_is_no_part_of_it(self):
        assert tokens("(Hello), 'world'. E-1047: C++, x+") == ["Hello", "world", "E-1047", "C++", "x"]

    @pytest.mark.parametrize(
        "word", ["duck", "don't", "l’eau", "हिन्दी", "été", "全文検索", "\u200b", "co\u00adoperate", ""]
    )
    def test_a_word_is_no_compound(self, word):
        assert whole(word) is None

    @pytest.mark.parametrize(
        ("one", "another"),
        [
            ("E‑1047", "E-1047"), ("l’eau-forte", "l'eau-forte"), ("ﬁre-ﬂy", "fire-fly"), ("ＡＢＣ", "abc"),
            ("co\u00adoperate", "cooperate"), ("1\ufe0f\u20e3", "1"), ("Straße", "STRASSE"), ("كـتـاب", "كتاب"),
            ("ΟΔΟΣ", "οδος"), ("ｶﾞｷﾞｸﾞ", "ガギグ"), ("e\u0301te\u0301", "été"),
        ],
    )  # fmt: skip
    def test_two_ways_to_write_it_are_the_same(self, one, another):
        assert analyser("none").token(one) == analyser("none").token(another)

    def test_a_mark_alone_is_no_word(self):
        assert tokens("❤\ufe0f \u0301 👩\u200d💻 \u20e3") == []

    def test_long_ones_are_cut_and_have_no_whole(self):
        assert own("x" * 1000, "none") == ["x" * 64]
        assert whole("x-" * 100 + "x") is None


class TestAccents:
    def test_they_count_for_nothing(self):
        assert own("Café crème", "none") == own("cafe creme", "none") == ["cafe", "creme"]
        assert own("ΆΛΦΑ", "none") == own("αλφα", "none")
        assert own("Đà Łódź IŞIK ışık cœur øl", "none") == ["da", "lodz", "isik", "isik", "coeur", "ol"]

    def test_marks_that_make_another_letter_stay(self):
        assert own("й и", "none") == ["й", "и"]
        assert own("が か", "none") == ["が", "か"]
        assert own("कि का", "none") == ["कि", "का"]

    def test_where_the_stem_depends_on_them_a_word_is_found_by_both(self):
        assert own("privée", "french") == own("privee", "french")
        assert others("privée", "french") == {"priv"}
        assert own("privé", "french") == ["priv"]

    def test_stop_words_keep_them(self):
        assert own("à la côte", "french") == [None, None, "cot"]
        assert own("il a là", "french") == [None, None, "la"]


class TestPairs:
    def test_chinese_japanese_and_korean_are_found_by_pairs(self):
        assert own("全文検索") == ["全文", "文検", "検索"]
        assert own("한국어") == ["한국", "국어"]
        assert own("猫") == ["猫"]

    def test_beside_letters(self):
        assert own("Pythonで書く") == ["python", "で書", "書く"]

    def test_they_are_the_same_in_every_language(self):
        assert {tuple(own("東京タワー กรุงเทพ", language)) for language in languages()} == {
            tuple(own("東京タワー กรุงเทพ"))
        }


class TestLanguages:
    def test_they_are_those_of_the_stemmer_and_none(self):
        assert languages() == [*Stemmer.algorithms(), "none"]
        assert set(BY_LANGUAGE) == set(Stemmer.algorithms())

    @pytest.mark.parametrize("language", languages())
    def test_stop_words_have_no_terms(self, language):
        found = analyser(language)
        for word in stop_words(language):
            assert tokens(word) == [word]
            assert found.token(word) == ((), 1)
            assert found.token(word.upper()) == ((), 1) or language == "turkish"

    @pytest.mark.parametrize("language", BY_LANGUAGE)
    def test_the_lists_have_function_words_only(self, language):
        assert 20 <= len(stop_words(language)) <= 160
        assert max(map(len, stop_words(language))) <= 12

    @pytest.mark.parametrize(
        ("language", "text", "found"),
        [
            ("english", "the running dogs", [None, "run", "dog"]),
            ("german", "die Häuser", [None, "haus"]),
            ("french", "l'eau qu’il a", [None, "eau", None, None, None]),
            ("italian", "l'arte dell’isola", [None, "arte", None, "isol"]),
            ("spanish", "las canciones", [None, "cancion"]),
            ("russian", "книги и книга", ["книг", None, "книг"]),
            ("serbian", "књига и knjiga", ["knjig", None, "knjig"]),
            ("catalan", "l'aigua", [None, "aigu"]),
        ],
    )
    def test_words_are_stemmed_in_their_language(self, language, text, found):
        assert own(text, language) == found

    def test_none_stems_nothing_and_leaves_nothing_out(self):
        assert own("the running dogs", "none") == ["the", "running", "dogs"]
        assert analyser("none").analysis.stemmer == ""
        assert re.fullmatch(r"PyStemmer \d+\.\d+.*", analyser("english").analysis.stemmer)

    @pytest.mark.parametrize(("wrong", "near"), [("englsh", "english"), ("German", "german"), ("nona", "none")])
    def test_one_that_is_not_there_is_refused_with_what_was_meant(self, wrong, near):
        with pytest.raises(InputError, match=f"no language '{wrong}'; did you mean '{near}'"):
            analyser(wrong)

    def test_one_that_nothing_is_near_to_is_answered_with_the_list(self):
        with pytest.raises(InputError, match="no language 'x'; languages: arabic, .*, yiddish, none"):
            analyser("x")


class TestLaws:
    @given(TEXTS)
    def test_tokens_are_what_stands_at_the_spans(self, text):
        places = list(spans(text))
        assert [text[start:end] for start, end in places] == tokens(text)
        assert all(before[1] <= after[0] for before, after in pairwise(places))

    @given(TEXTS, LANGUAGES)
    @settings(max_examples=some(500))
    def test_the_terms_of_any_text(self, text, language):
        for token in tokens(text):
            analysed = analyser(language).token(token)
            mine = [term.position for term in analysed.terms if term.is_own]
            assert mine == sorted(set(mine))
            assert all(0 <= term.position < analysed.words for term in analysed.terms)
            assert all(1 <= len(term.text) <= 64 for term in analysed.terms)
            assert len({(term.text, term.position) for term in analysed.terms}) == len(analysed.terms)
            assert whole(token) is None or (whole(token), 0, False) in analysed.terms

    @given(st.sampled_from([*"abcdefghijklmnopqrstuvwxyzäéñșßжиаहिதமকא"]), LANGUAGES, st.integers(1, 8))
    def test_no_stem_is_empty(self, letter, language, times):
        assert all(term.text for term in analyser(language).token(letter * times).terms)

    @given(LATIN, LANGUAGES)
    @settings(max_examples=some(500))
    @example("Å-ǆ", "english")
    def test_composed_and_decomposed_letters_are_the_same(self, text, language):
        nfc, nfd = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
        terms = analyser(language).token
        assert list(map(terms, tokens(nfc))) == list(map(terms, tokens(nfd)))

    @given(TEXTS, TEXTS)
    def test_a_space_ends_a_token(self, one, another):
        assert tokens(f"{one} {another}") == tokens(one) + tokens(another)

    @given(TEXTS)
    def test_each_word_of_a_token_stands_in_it(self, text):
        for token in tokens(text):
            words = analyser("none").token(token).words
            places = word_spans(token, words)
            assert len(places) == words
            assert all(0 <= start < end <= len(token) for start, end in places)
            assert [start for start, _ in places] == sorted(start for start, _ in places)

    @given(st.text(st.characters(categories=["L"], max_codepoint=0x24F, exclude_characters="Ŀŀ")), st.integers(0, 10))
    def test_what_a_word_begins_with_is_a_beginning_of_it(self, word, end):
        assert beginning(word).startswith(beginning(word[:end]))


def test_marks_without_end_are_cut():
    """A letter has at most thirty: to put more in order would take time with the square of their number."""
    (term,) = {term.text for term in analyser("none").token("\u05d0" + "\u05b0\u0301" * 50_000).terms}
    assert len(term) == 31
