"""The pieces of benchmarks.passages, on little data of their own: what they measure, they measure rightly."""

import collections
import itertools
import random

import numpy as np
import pytest

from benchmarks import passages_answers, passages_cutting, passages_searches
from benchmarks.passages_facts import FACTS, TEMPLATES, Fact, facts
from benchmarks.passages_texts import PARAGRAPHS, Piece, hide, joined
from tests.fakes import text_vector


@pytest.fixture
def pieces():
    return [
        Piece(f"Title {i}", f"Number {i} is in the first sentence. The second has {i * i} in it. The third one ends.")
        for i in range(400)
    ]


@pytest.mark.parametrize("around", [False, True])
def test_there_are_300_facts_of_many_kinds_and_each_question_is_asked_once(around):
    made = facts(around=around)
    assert len(made) == FACTS == len({each.question for each in made}) == len({each.sentence for each in made})
    kinds = collections.Counter(each.template for each in made)
    assert len(kinds) == sum(map(len, TEMPLATES.values())) >= 30
    assert max(kinds.values()) - min(kinds.values()) <= 1
    assert not any(mark in each.sentence + each.question + each.before + each.after for each in made for mark in "{}")


def test_facts_are_the_same_alone_and_within_a_paragraph():
    alone, around = facts(), facts(around=True)
    assert [(each.sentence, each.question) for each in alone] == [(each.sentence, each.question) for each in around]
    assert not any(each.before or each.after for each in alone)
    assert all(len(f"{each.before} {each.after}".split(". ")) >= 5 for each in around)


def test_a_question_has_other_words_than_its_fact(pieces):
    hidden = hide(facts(), pieces, (40, 60)).hidden
    assert passages_answers.overlap(hidden) < 0.1


@pytest.mark.parametrize("around", [False, True])
def test_facts_are_where_they_are_said_to_be(pieces, around):
    made = facts(60, around=around)
    long = hide(made, pieces, (200, 2_000))
    assert len(long.texts) == len(long.titles) == len(long.hidden) == 60
    lengths = sorted(len(text.split()) for text in long.texts)
    assert lengths[0] < 400 < 1_200 < lengths[-1]
    for each, text in zip(long.hidden, long.texts, strict=True):
        assert text[each.start : each.end] == each.fact.sentence
        assert text.count(each.fact.sentence) == 1
        assert (each.fact.sentence in text.split(PARAGRAPHS)) == (each.alone and not around)
        assert "  " not in text
        assert PARAGRAPHS + "\n" not in text
    assert len({each.alone for each in long.hidden}) == (1 if around else 2)


def test_what_is_found_counts_rows_and_passages_apart(pieces):
    hidden = hide(facts(4), pieces, (40, 60)).hidden
    found = passages_answers.Found(hidden, [1, 3, None, 5], [True, False, False, True])
    assert [found.hit("row", k) for k in (1, 5)] == [0.25, 0.75]
    assert [found.hit("passage", k) for k in (1, 5)] == [0.25, 0.5]
    assert [found.hit("row", 5, alone) for alone in (True, False)] == [0.5, 1]
    assert list(found.missed()) == [hidden[1], hidden[2]]


def test_the_passage_with_the_fact_is_told_from_others(pieces, con):
    """The fake encoder reads eight words, and texts that share words are near for it."""
    made = [
        Fact(f"Kelra{i} bears freight{i} alone{i} today{i}.", f"kelra{i} freight{i} alone{i} bears", 0)
        for i in range(10)
    ]
    long = hide(made, pieces, (300, 600))
    passages_answers.write(con, long)
    cut = passages_answers.generated(con, "texts", "'text'", "{'by': 'sentence'}")
    whole = passages_answers.generated(con, "texts", "'text'", "false")
    assert cut.stored > 300 > whole.stored == 10
    found = passages_answers.answers(con, cut, long.hidden, "vector")
    assert found.hit("row", 5) == found.hit("passage", 5) == 1
    assert passages_answers.answers(con, whole, long.hidden, "vector").hit("passage", 5) == 0


def test_edits_change_one_paragraph(pieces):
    book = passages_cutting.paragraphs(joined(iter(pieces), 400), headings=True)
    assert sum(each.startswith("## ") for each in book) == -(-len(book) // 8)
    for kind in passages_cutting.KINDS:
        changed = passages_cutting.edited(book, kind, "A new paragraph. It is short.", random.Random(1))
        left, came = (
            list((a - b).elements()) for a, b in itertools.permutations(map(collections.Counter, (book, changed)))
        )
        assert (len(left), len(came)) == (int(kind != "a paragraph added"), int(kind != "a paragraph removed"))


def test_edits_embed_few_passages(pieces, con):
    count, found = passages_cutting.edits(con, pieces, 1_000, 8, "true")
    assert count > 100
    assert collections.Counter(each.kind for each in found) == dict.fromkeys(passages_cutting.KINDS, 2)
    assert all(0 <= each.embedded < 10 for each in found)
    assert any(each.embedded for each in found)


def test_a_text_is_as_long_as_it_is_to_be(pieces):
    assert len(passages_cutting.long_text(pieces, 12_345)) == 12_345


def test_places_of_passages_are_in_the_texts_of_their_rows():
    texts = ["one", "and two", "three", "", "five"]
    joined_texts, starts, ends = passages_searches.joined_texts(texts, np.array([0, 0, 1, 1, 2]))
    assert joined_texts == ["one\n\nand two", "three\n\n", "five"]
    rows = [0, 0, 1, 1, 2]
    assert [joined_texts[row][a:b] for row, a, b in zip(rows, starts, ends, strict=True)] == texts


def test_searches_of_passages_and_of_plain_rows_take_turns(con, monkeypatch):
    texts = [f"{a} {b}" for a, b in itertools.product("red green blue black white grey pink brown".split(), repeat=2)]
    vectors = np.array([text_vector(text) for text in texts])
    made = passages_searches.Rows(texts, vectors, np.minimum(np.arange(64), 20), ["red blue", "green"])
    monkeypatch.setattr(passages_searches, "PER_ROW", 3)
    seconds, found = passages_searches.measure(con, made, 2, "fake/small")
    assert set(seconds) == {"plain", "even", "skewed"}
    assert set(found) == set(itertools.product(passages_searches.WAYS, seconds))
    assert all(len(times) == 2 and min(times) > 0 for times in found.values())
