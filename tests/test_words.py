"""The words of a segment: numbers as bytes, the file, how it is collected in runs and merged, and BM25 over several."""

import contextlib
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck import DamagedError
from jammi_duck.retrieval.text_query import TextQuery
from jammi_duck.storage.words import collecting, varints
from jammi_duck.storage.words.analyser import analyser
from jammi_duck.storage.words.bm25 import Clause, Words
from jammi_duck.storage.words.collecting import Collector, Source
from jammi_duck.storage.words.words_file import WordsFile
from jammi_duck.types import Analysis
from tests.effort import some
from tests.plain_bm25 import bm25, words_of

PARQUET = "ab" * 32
ENGLISH = analyser("english")
VOCABULARY = [
    "alpha", "beta", "E-1047", "foo_bar", "the", "running", "runs", "C++", "libssl1.1", "naïve", "语言学", "gamma",
    "delta", "a", "alphabet",
]  # fmt: skip
TEXTS = st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=12).map(" ".join), max_size=30)
TERMS = ["alpha", "beta", "e-1047", "1047", "run", "c++", "foo_bar", "语言", "言学", "libssl", "naive", "not there"]
CLAUSES = st.one_of(
    st.sampled_from(TERMS).map(lambda term: Clause(((term, 0),))),
    st.sampled_from(["ru", "al", "", "lib", "语", "zz"]).map(lambda term: Clause(((term, 0),), is_prefix=True)),
    st.builds(
        lambda first, rest: Clause(((first, 0), *rest)),
        st.sampled_from(TERMS),
        st.lists(st.tuples(st.sampled_from(TERMS), st.integers(1, 3)), min_size=1, max_size=2),
    ),
    st.just(Clause((("runn", 0),), is_prefix=True, also=("run",))),
)
QUERIES = st.builds(
    TextQuery,
    st.lists(st.tuples(CLAUSES, st.floats(0.1, 3)), min_size=1, max_size=4, unique_by=lambda each: each[0]).map(tuple),
    st.lists(CLAUSES, max_size=1).map(tuple),
    st.lists(CLAUSES, max_size=1).map(tuple),
    st.just(""),
)


class Folder:
    """Writes files of words into a folder of its own."""

    def __init__(self, folder):
        self.path = Path(folder)
        self._numbers = itertools.count()

    def new(self):
        return self.path / f"scratch {next(self._numbers)}"

    def collected(self, texts, order=None, taken=(), rows=None, language="english"):
        """The file of texts, which come in this order, and of words that are taken of others."""
        collector = Collector(analyser(language), self.new)
        for row in range(len(texts)) if order is None else order:
            collector.add(row, texts[row])
        path = self.path / f"{next(self._numbers)}.words"
        collector.save(path, len(texts) if rows is None else rows, PARQUET, taken)
        return WordsFile(path)

    def left(self):
        return sorted(path.name for path in self.path.iterdir() if path.suffix != ".words")


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@contextlib.contextmanager
def limits(run_tokens, at_once, runs_at_once=3):
    """Runs that end so soon, and merges of so few of them, and of so little at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "_RUN_TOKENS", run_tokens)
        patch.setattr(collecting, "_RUN_CHARACTERS", 10 * run_tokens)
        patch.setattr(collecting, "_TOKENS_AT_ONCE", max(1, run_tokens // 3))
        patch.setattr(collecting, "_POSTINGS_AT_ONCE", at_once)
        patch.setattr(collecting, "_RUNS_AT_ONCE", runs_at_once)
        yield


def contents(words):
    """What a file says: its lengths, and for each term the rows with the positions there."""
    found = {}
    for entries in words.entries(1):
        postings = words.postings(entries)
        ends = np.cumsum(postings.counts)
        for term, row, count, end in zip(
            postings.terms.tolist(), postings.rows.tolist(), postings.counts.tolist(), ends.tolist(), strict=True
        ):
            places = sorted(postings.positions[end - count : end].tolist())
            found.setdefault(entries.terms[term].decode(errors="backslashreplace"), {})[row] = places
    return words.lengths.tolist(), found


def expected(texts):
    """The same of texts, worked out one by one."""
    found = {}
    for row, text in enumerate(texts):
        for term, place in words_of(ENGLISH, text)[0]:
            found.setdefault(term, {}).setdefault(row, []).append(place)
    for rows in found.values():
        for places in rows.values():
            places.sort()
    return [words_of(ENGLISH, text)[1] for text in texts], found


class TestNumbers:
    @given(st.lists(st.one_of(st.integers(0, 200), st.integers(0, (1 << 35) - 1))))
    def test_they_come_back(self, numbers):
        written, lengths = varints.encode(np.array(numbers, np.int64))
        assert varints.decode(written, len(numbers)).tolist() == numbers
        assert len(written) == lengths.sum()
        assert lengths.tolist() == [max(1, -(-number.bit_length() // 7)) for number in numbers]

    @given(st.binary(max_size=30), st.integers(0, 30))
    def test_other_bytes_are_so_many_numbers_or_damaged(self, written, count):
        try:
            numbers = varints.decode(np.frombuffer(written, np.uint8), count)
        except DamagedError:
            return
        assert len(numbers) == count
        assert ((numbers >= 0) & (numbers < 1 << 35)).all()

    @given(st.lists(st.integers(0, (1 << 63) - 1)))
    def test_single_ones_come_back(self, numbers):
        written = bytearray()
        for number in numbers:
            varints.append(written, number)
        at, found = 0, []
        while at < len(written):
            number, at = varints.number_at(bytes(written), at)
            found.append(number)
        assert found == numbers

    @given(st.binary(max_size=30))
    def test_a_single_one_is_never_large(self, written):
        with contextlib.suppress(IndexError):
            number, at = varints.number_at(written, 0)
            assert 0 <= number < 1 << 63
            assert at <= 10


class TestFile:
    @given(TEXTS, st.randoms(use_true_random=False), st.integers(1, 40), st.integers(1, 40))
    @settings(max_examples=some(150))
    def test_it_says_what_the_texts_say_however_it_was_collected(self, texts, random, run_tokens, at_once):
        order = list(range(len(texts)))
        random.shuffle(order)
        with tempfile.TemporaryDirectory() as path, limits(run_tokens, at_once):
            folder = Folder(path)
            words = folder.collected(texts, order)
            words.check()
            assert contents(words) == expected(texts)
            assert (words.rows, words.header.parquet) == (len(texts), PARQUET)
            assert words.terms == len(contents(words)[1])
            assert folder.left() == []

    @given(TEXTS, st.integers(1, 40), st.data())
    @settings(max_examples=some(100))
    def test_words_that_are_taken_are_those_of_the_texts(self, texts, at_once, data):
        """Some rows come from two other files, in any order, others are left out, and texts come beside them."""
        cut = data.draw(st.integers(0, len(texts)))
        parts = (texts[:cut], texts[cut:])
        new = data.draw(TEXTS)
        kept = data.draw(st.lists(st.integers(0, max(len(texts) - 1, 0)), unique=True)) if texts else []
        rows = len(new) + len(kept)
        order = data.draw(st.permutations(range(rows)))
        with tempfile.TemporaryDirectory() as path, limits(7, at_once):
            folder = Folder(path)
            sources, first = [], 0
            for part in parts:
                places = np.full(len(part), -1)
                for i, row in enumerate(kept):
                    if first <= row < first + len(part):
                        places[row - first] = order[len(new) + i]
                sources.append(Source(folder.collected(part), places))
                first += len(part)
            whole = [""] * rows
            for place, text in zip(order, [*new, *(texts[row] for row in kept)], strict=True):
                whole[place] = text
            collector = Collector(ENGLISH, folder.new)
            for place, text in zip(order, new, strict=False):
                collector.add(place, text)
            merged = folder.path / "merged.words"
            collector.save(merged, rows, PARQUET, sources)
            words = WordsFile(merged)
            words.check()
            assert contents(words) == expected(whole)
            assert folder.left() == []

    def test_it_is_the_same_however_it_was_collected(self, folder):
        """Down to the last byte, whether or not it was merged of runs, and of other files."""
        texts = [" ".join(VOCABULARY[i % 5 : i % 13]) for i in range(40)]
        plain = folder.collected(texts)
        with limits(5, 3):
            merged = folder.collected(texts)
        taken = folder.collected([], taken=[Source(plain, np.arange(40))], rows=40)
        names = [(folder.path / each.name).read_bytes() for each in (plain, merged, taken)]
        assert names[0] == names[1] == names[2]

    def test_a_text_longer_than_a_run_and_one_of_a_single_word(self, folder):
        texts = ["word", " ".join(f"w{i % 700} common" for i in range(5000)), "common"]
        for runs_at_once in (2, 3, 16):
            with limits(300, 50, runs_at_once):
                words = folder.collected(texts)
            assert contents(words) == expected(texts)
        assert words.lengths.tolist() == [1, 10000, 1]
        assert words.lengths.dtype == np.uint16

    def test_finding_terms(self, folder):
        texts = [f"word{i} common" for i in range(300)]
        words = folder.collected(texts)
        names = sorted(contents(words)[1])
        for term in names:
            (found,) = words.find(term.encode()).terms
            assert found == term.encode()
        for term in ("", "wor", "common0", "zzz", "\U0010ffff"):
            assert words.find(term.encode()) is None
        for prefix in ("", "word1", "common", "0", "zzz", "w"):
            found = [term.decode() for term in words.beginning(prefix.encode()).terms]
            assert found == [term for term in names if term.startswith(prefix)]

    def test_of_no_rows_and_of_rows_without_words(self, folder):
        for texts in ([], ["", "the", "..."]):
            words = folder.collected(texts)
            words.check()
            assert (words.rows, words.terms, words.lengths.tolist()) == (len(texts), 0, [0] * len(texts))
            assert words.find(b"the") is None
            assert words.beginning(b"").terms == []
            assert list(words.entries(1)) == []

    def test_runs_are_removed_when_it_is_given_up(self, folder):
        with limits(3, 3, 16):
            collector = Collector(ENGLISH, folder.new)
            for row in range(9):
                collector.add(row, "one two three four")
            assert len(folder.left()) > 3
            collector.discard()
        assert folder.left() == []


class TestScores:
    @given(TEXTS, QUERIES, st.floats(0, 4), st.floats(0, 1), st.data())
    @settings(max_examples=some(200))
    def test_they_are_those_of_one_index_of_the_rows_that_are_there(self, texts, query, k1, b, data):
        """Whatever segments the rows are in, and whichever are gone."""
        cuts = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=3)))
        bounds = list(itertools.pairwise([0, *cuts, len(texts)]))
        live = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
        with tempfile.TemporaryDirectory() as name:
            folder = Folder(name)
            segments = [folder.collected(texts[start:end]) for start, end in bounds]
            masks = [np.array(live[start:end], bool) for start, end in bounds]
            masks = [None if mask.all() else mask for mask in masks]
            found = Words(ENGLISH, segments, masks).scores(query, k1, b)
        there = {row: text for row, text in enumerate(texts) if live[row]}
        wanted = bm25(ENGLISH, there, query, k1, b)
        assert found.rows.tolist() == sorted(wanted)
        np.testing.assert_allclose(found.values, [wanted[row] for row in found.rows.tolist()], rtol=1e-5)

    def test_of_many_rows_of_which_few_match(self, folder):
        """They are not summed in an array over all rows then."""
        texts = [f"common word{i}" for i in range(200)]
        words = Words(ENGLISH, [folder.collected(texts)], [None])
        query = TextQuery(tuple((Clause(((f"word{i}", 0),)), 1.0) for i in (7, 150, 7)), (), (), "")
        wanted = bm25(ENGLISH, dict(enumerate(texts)), query)
        found = words.scores(query)
        assert found.rows.tolist() == sorted(wanted) == [7, 150]
        np.testing.assert_allclose(found.values, [wanted[7], wanted[150]], rtol=1e-5)

    def test_of_no_segments(self):
        found = Words(ENGLISH, [], []).scores(TextQuery(((Clause((("x", 0),)), 1.0),), (), (), ""))
        assert (found.rows.tolist(), found.values.tolist()) == ([], [])


def test_the_analysis_says_what_has_made_it():
    assert ENGLISH.analysis == Analysis("words-1", "english", ENGLISH.analysis.stemmer)
    assert ENGLISH.analysis.stemmer.startswith("PyStemmer ")
    assert analyser("none").analysis == Analysis("words-1", "none", "")
