"""How texts are cut into passages: at which borders, never over the limit, and where an edit leaves the others."""

# ruff: noqa: RUF001 - full stops that look like others are what this is about

import random
import threading
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from jammi_duck import InputError, UnsupportedError
from jammi_duck.encoder import Encoder, Identity
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.local.uncut import UncutTokens
from jammi_duck.encoder.passages import CUTTER, Cutter, embedded_text, resolve_rule
from jammi_duck.encoder.passages.lines import lines_of
from jammi_duck.encoder.passages.sentences import sentence_starts
from jammi_duck.encoder.token_counts import EstimatedTokens
from jammi_duck.types import PassageRule
from tests.effort import WHOLE, some
from tests.fakes import WordTokens
from tests.models import FAMILIES, unigram
from tests.texts import ODD, WORDS, sentence

LIMIT = 40


class Counting(Encoder):
    """An encoder that only counts."""

    dimensions = 4

    def __init__(self, counts):
        self.counts = counts
        self.identity = Identity("counting", max_tokens=counts.limit)

    @property
    def token_counts(self):
        return self.counts

    def encode_rows(self, texts, role, progress):
        raise AssertionError("nothing is embedded")


def words(limit=LIMIT):
    """An encoder for which every word is a token."""
    counts = WordTokens()
    counts.limit = limit
    return Counting(counts)


def _with(tokenizer, prompt="", is_local=True, most_characters=0, limit=LIMIT):
    return Counting(
        UncutTokens(
            tokenizer,
            "counting",
            limit=limit,
            prompt=prompt,
            adds_special_tokens=True,
            is_local=is_local,
            most_characters=most_characters,
        )
    )


def _family(name, **options):
    return lambda: _with(FAMILIES[name].tokenizer().backend_tokenizer, **options)


def _whole_sentences():
    """Pieces with spaces in them: what a word is made of depends on all that is around it."""
    tokenizer = Tokenizer.from_str(unigram().to_str())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return _with(tokenizer, is_local=False)


ENCODERS = {
    "word pieces": _family("bert"),
    "word pieces after a prompt": _family("bert", prompt="search the document: "),
    "bytes": _family("roberta"),
    "bytes of modernbert": _family("modernbert"),
    "sentence pieces": _family("camembert"),
    "sentence pieces, normalized": _family("xlm-roberta"),
    "whole sentences": _whole_sentences,
    "no more than 100 characters": _family("bert", most_characters=100),
    "estimated": lambda: Counting(EstimatedTokens(LIMIT)),
    "estimated, without a limit": lambda: Counting(EstimatedTokens(0)),
    "words": words,
}
_made = {}


def encoder_of(name):
    if name not in _made:
        _made[name] = ENCODERS[name]()
    return _made[name]


ODD_CHARACTERS = (
    "ab. e\u0301o\u0308 \r\n.,!()\"'-+*|#`🦆👩\u200d💻🇩🇪🏽가\u1100\u1161\u11a8中文。「」が\u3099กำि क्ष"
    "\u00ad\ufe0f\u20e3\u0600१।؟שم\x00\x0c"
)
MARKDOWN = ["# ", "## A heading\n", "\n### Next\n\n", "\n```\n", "~~~~\n", "\n| a | b |\n", "\n---\n", "\n- "]
REPEATED = ["a", "ab ", "é", "e\u0301", "水", "水。", "🦆", "👍🏽", "👩\u200d👩\u200d👧", "🇫🇷", "가", "\u1100\u1161"]
REPEATED += ["\n", "x\n", "नि", "مرحبا ", "ﷺ", "\u0301", " ", "the duck. "]
fragments = st.one_of(
    st.sampled_from(["\n", "\n\n", "\r\n", "\r\n\r\n", "\x00", "\x0c", " ", "  \t", "\u2029", "\u3000", "\r"]),
    st.sampled_from(MARKDOWN),
    st.sampled_from([word for some in WORDS.values() for word in some.split(" ")]).map(lambda word: f"{word} "),
    st.sampled_from(ODD),
    st.sampled_from([". ", "! ", "? ", "。", "؟ ", "। ", "e.g. ", "3.14 ", "Dr. ", "…", '." ', "। "]),
    st.builds(lambda seed, count: sentence(random.Random(seed), count), st.integers(0, 99), st.integers(1, 60)),
    st.text(ODD_CHARACTERS, max_size=30),
    st.text(max_size=10),
    st.builds(lambda piece, times: piece * times, st.sampled_from(REPEATED), st.integers(1, 200)),
)
TEXTS = st.lists(fragments, min_size=1, max_size=25).map("".join)


def passages_of(encoder, text, tokens=None, overlap=0, by="paragraph", title=""):
    cutter = Cutter(encoder, resolve_rule(encoder, tokens, overlap, by))
    cuts = cutter.cut(text, title)
    return list(zip(cuts.starts.tolist(), cuts.ends.tolist(), strict=True))


def cut(text, tokens, overlap=0, by="paragraph"):
    """The passages of a text where every word is a token."""
    found = passages_of(words(500), text, tokens, overlap, by)
    return [text[start:end] for start, end in found]


def is_one_character(text):
    return regex.fullmatch(r"\X", text) is not None


def _check_cover(text, passages):
    is_in = np.zeros(len(text), np.bool_)
    for start, end in passages:
        assert 0 <= start < end <= len(text)
        is_in[start:end] = True
        passage = text[start:end]
        assert passage == passage.strip()
        assert not is_blank(passage)
    assert is_blank("".join(np.array(list(text), object)[~is_in]))
    assert [start for start, _ in passages] == sorted({start for start, _ in passages})
    assert [end for _, end in passages] == sorted({end for _, end in passages})


def _check_limit(encoder, text, passages, tokens, title):
    counts = encoder.token_counts
    for start, end in passages:
        passage = text[start:end]
        if end - start > 1:
            assert counts.alone([passage])[0] <= tokens
            if counts.limit:
                assert counts.embedded([embedded_text(title, passage)])[0] <= counts.limit
        if counts.most_characters:
            assert len(embedded_text(title, passage)) <= counts.most_characters


def _check_characters(encoder, text, passages, tokens):
    borders = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    clusters = list(regex.finditer(r"\X", text))
    starts = np.array([match.start() for match in clusters])
    for place in {place for passage in passages for place in passage} - borders:
        # A white space that belongs to a character is left out all the same.
        cluster = clusters[int(np.searchsorted(starts, place, "right")) - 1]
        if text[place - 1].isspace() or text[place].isspace():
            continue
        assert len(cluster.group()) > 16 or encoder.token_counts.alone([cluster.group()])[0] > tokens // 2


class TestLaws:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("name", ENCODERS)
    @settings(max_examples=some(60))
    @given(
        text=TEXTS,
        tokens=st.sampled_from([16, 20, 33]),
        overlap=st.sampled_from([0, 0, 1, 4, 8]),
        by=st.sampled_from(["paragraph", "paragraph", "sentence", "word"]),
        title=st.sampled_from(["", "", "A title", "水の本 🦆", "long title of many words " * 9]),
    )
    def test_any_text(self, name, text, tokens, overlap, by, title):
        encoder = encoder_of(name)
        if encoder.token_counts.limit:
            tokens = min(tokens, encoder.token_counts.limit - encoder.token_counts.fixed)
        cutter = Cutter(encoder, resolve_rule(encoder, tokens, overlap, by))
        cuts = cutter.cut(text, title)
        passages = list(zip(cuts.starts.tolist(), cuts.ends.tolist(), strict=True))
        assert cuts.starts.dtype == cuts.ends.dtype == np.int64
        _check_cover(text, passages)
        _check_limit(encoder, text, passages, tokens, cutter.title(title))
        _check_characters(encoder, text, passages, tokens)
        ends = encoder.token_counts.ends(text)
        for (_, before), (start, _) in pairwise(passages):
            shared = np.searchsorted(ends, before, "right") - np.searchsorted(ends, start, "right")
            assert shared <= overlap

    @pytest.mark.sampled(4)
    @pytest.mark.parametrize(
        "text",
        [
            "水鴨子在河裡游泳搜索" * 300,
            "水鴨子在河裡游泳。搜索！" * 200,
            "supercalifragilistic" * 50_000,
            "\n" * 5000,
            "x\n" * 3000,
            "\r\n" * 500 + "the end of the text" + "\r\n\r\n" * 500,
            "👩\u200d👩\u200d👧🇫🇷👍🏽🇩🇪" * 400,
            "\u1112\u1161\u11ab\u1100\u1173\u11af" * 300,
            "مرحبا بالعالم، ماء. هل هذا صحيح؟ " * 100,
            "\x00" * 3000 + "a zero\x00 byte " * 200,
            "a" + "\u0301" * 2000,
            "a" + " " * 100_000 + "b",
            "नमस्ते दुनिया। पानी कहाँ है? " * 100,
            "x\x0b" * 500 + "\x0c" * 500 + "y\x85" * 500 + "z\u2028" * 500,
            "```\n" * 501,
            "| a | b |\n" * 500,
            "#\n" * 500,
        ],
    )
    @pytest.mark.parametrize("name", ["word pieces", "bytes", "sentence pieces", "estimated"])
    def test_texts_that_are_no_prose(self, name, text):
        encoder = encoder_of(name)
        passages = passages_of(encoder, text, 20, 4)
        _check_cover(text, passages)
        _check_limit(encoder, text, passages, 20, "")
        _check_characters(encoder, text, passages, 20)

    def test_threads_share_a_cutter(self):
        encoder = _family("bert")()
        cutter = Cutter(encoder, resolve_rule(encoder, None, 4, None))
        texts = [sentence(random.Random(seed), 200) for seed in range(20)]
        alone = [cutter.cut(text).starts.tolist() for text in texts]
        found = [None] * len(texts)

        def work(first):
            for i in range(first, len(texts), 4):
                found[i] = cutter.cut(texts[i]).starts.tolist()

        threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == alone

    @pytest.mark.long
    def test_a_text_of_fifty_megabytes_in_little_memory(self):
        import tracemalloc

        encoder = _with(FAMILIES["bert"].tokenizer().backend_tokenizer, limit=300)
        text = "\n\n".join(f"{sentence(random.Random(seed), 30)}. " * (seed % 5 + 1) for seed in range(3000))
        text *= 50_000_000 // len(text) + 1
        cutter = Cutter(encoder, resolve_rule(encoder, None, None, None))
        tracemalloc.start()
        cuts = cutter.cut(text)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 500_000_000
        assert cuts.ends[-1] == len(text.rstrip())


class TestBorders:
    def test_paragraphs_before_sentences(self):
        first, second = "One two three. Four five six.", "Seven eight nine. Ten eleven twelve."
        assert cut(f"{first}\n\n{second}", 16) == [f"{first}\n\n{second}"]
        long = " ".join([first] * 2)
        assert cut(f"{long}\n\n{second}", 16) == [long, second]
        assert cut(f"{long}\r\n\r\n{second}", 16) == [long, second]
        assert cut(f"{long}\n \t\n{second}", 16) == [long, second]
        assert cut(f"{long}\u2029\u2029{second}", 16) == [long, second]

    def test_sentences_before_lines_and_words(self):
        text = "The first sentence goes on\nto the next line and ends. The second\none ends at last, after some words."
        assert cut(text, 16) == [text[:53], text[54:]]

    def test_words_where_a_sentence_is_too_long(self):
        found = cut(" ".join(f"word{i}" for i in range(100)), 20)
        assert " ".join(found) == " ".join(f"word{i}" for i in range(100))
        assert all(len(passage.split()) <= 20 for passage in found)

    def test_a_heading_stays_with_what_follows(self):
        body = "one two three four five six seven eight nine ten."
        text = f"# First\n\n{body}\n\n## Second\n{body}\n\nThird\n=====\n\n{body}\n\n4. FOURTH\n\n{body}"
        found = cut(text, 16)
        assert found == [
            f"# First\n\n{body}", f"## Second\n{body}", f"Third\n=====\n\n{body}", f"4. FOURTH\n\n{body}",
        ]  # fmt: skip

    def test_a_higher_heading_is_a_stronger_border(self):
        body = "one two three four."
        text = "\n\n".join(f"{'#' * rank} H\n\n{body}" for rank in (1, 2, 2, 1, 2, 2))
        assert cut(text, 18) == ["\n\n".join(text.split("\n\n")[:6]), "\n\n".join(text.split("\n\n")[6:])]

    def test_sections_that_fit_are_not_joined_to_others_parts(self):
        long = " ".join(["one two three four five six seven."] * 4)
        found = cut(f"# A\n\n{long}\n\n# B\n\nshort.\n\n# C\n\n{long}", 16)
        assert "# B\n\nshort." in found

    def test_code_is_kept_together(self):
        code = "```python\na = 1. B = 2\n\nc = 3! D = 4\n# no heading\nprint(a)\n```"
        around = "One two three four five six. Seven eight nine ten eleven twelve."
        found = cut(f"{around}\n\n{code}\n\n{around}", 22)
        assert sum(code in passage for passage in found) == 1

    def test_code_that_does_not_fit_is_cut_at_its_lines(self):
        code = "~~~\n" + "".join(f"line {i} has. Some words\n" for i in range(30)) + "~~~"
        lines = [line for passage in cut(code, 16) for line in passage.split("\n")]
        assert lines == code.split("\n")

    def test_a_fence_that_is_never_closed_is_none(self):
        assert lines_of("```\none\n\ntwo").kept == []
        assert lines_of("````\n```\n````\n```").kept == [(0, 13)]

    def test_a_table_is_kept_together(self):
        table = "\n".join(f"| row {i}. | Cell |" for i in range(4))
        around = "One two three four five six. Seven eight nine ten eleven twelve."
        found = cut(f"{around}\n{table}\n{around}", 26)
        assert sum(table in passage for passage in found) == 1
        long = "\n".join(f"| row {i}. | Cell |" for i in range(40))
        assert [line for passage in cut(long, 16) for line in passage.split("\n")] == long.split("\n")

    def test_items_of_a_list_are_borders(self):
        items = [f"- item {i} has. Several words" for i in range(12)]
        found = cut("\n".join(items), 18)
        assert [line for passage in found for line in passage.split("\n")] == items

    def test_by_sentence_and_by_word(self):
        text = "One two. Three four.\n\n# Five\n\nSix seven eight. Nine ten eleven twelve thirteen fourteen. Sixteen."
        by_sentence = cut(text, 16, by="sentence")
        assert all(passage[-1] == "." for passage in by_sentence)
        assert [word for passage in cut(text, 16, by="word") for word in passage.split()] == text.split()

    def test_chinese_is_cut_between_characters_but_not_before_its_marks(self):
        encoder = Counting(EstimatedTokens(0))
        text = "鴨子在河裡游泳，水很冷「搜索」" * 20
        for start, end in passages_of(encoder, text, 16):
            assert text[start] not in "，」"
            assert text[end - 1] not in "「"


SENTENCES = {
    "Dr. Smith met Mr. J. R. Miller at 3.14 p.m. today.| He left.": "english",
    "It costs $3. 5 apples fell.": "a number, and no capital letter",
    "See Fig. 3 and vol. 2, e.g. The Book, i.e. That one.| See no. 7.| She said no.| Then she left.": "numbers",
    "Das ist z. B. Herr Dr. Meier, bzw. Frau Prof. Huber.| Am 3. Mai geht er.| Ende.": "german",
    "M. Dupont est là.| Mme. Curie, p.ex. Marie, aussi.": "french",
    "El Sr. García y la Dra. López llegaron.| ¿Cuándo?| ¡Ahora!": "spanish",
    'Really?!| Yes... no.| "He left."| (She stayed.)| And then?': "marks in a row, quotes, brackets",
    "第一句。|第二句！|第三句？|「引用。」|完。": "chinese",
    "私は鴨です。|水が好きです。": "japanese",
    "هل هذا صحيح؟| نعم.| حسنا": "arabic",
    "नमस्ते।| पानी कहाँ है?| यहाँ।": "devanagari",
    "See https://example.org/a.html?b=c!d.e and x.y() or a != b. ok": "addresses and code",
    "It ends here\nnot, and goes\non and etc. and so.| New line.|\nLast": "wrapped",
    "U.S. Government.| The end.": "initials",
    "1. First.|\n2. Second.|\n(3. Third": "items",
}


class TestSentences:
    @pytest.mark.parametrize("marked", SENTENCES, ids=list(SENTENCES.values()))
    def test_ends(self, marked):
        text = marked.replace("|", "")
        starts = [0, *sentence_starts(text).tolist(), len(text)]
        found = "|".join(text[start:end] for start, end in pairwise(starts))
        assert found.replace(" |", "| ").replace("\n|", "|\n") == marked


class TestLocality:
    @pytest.mark.parametrize("overlap", [0, 8])
    def test_an_edit_changes_few_passages(self, overlap):
        chance = random.Random(overlap)
        paragraphs = [
            " ".join(sentence(chance, chance.randint(4, 14)) for _ in range(chance.randint(1, 4))) for _ in range(400)
        ]
        encoder = words(500)
        cutter = Cutter(encoder, resolve_rule(encoder, 80, overlap, None))

        def passages(some):
            text = "\n\n".join(some)
            cuts = cutter.cut(text)
            return {text[start:end] for start, end in zip(cuts.starts.tolist(), cuts.ends.tolist(), strict=True)}

        before, changed = passages(paragraphs), []
        assert len(before) > 150
        for place in range(0, 400, 10 if WHOLE else 50):
            edits = ([sentence(chance, 30)], [], [paragraphs[place], sentence(chance, 50)])
            texts = ([*paragraphs[:place], *new, *paragraphs[place + 1 :]] for new in edits)
            changed += [len(passages(text) - before) for text in texts]
        assert max(changed) <= 6
        assert np.mean(changed) < 2.5

    def test_a_text_of_equal_parts_is_filled(self):
        found = cut("The same sentence again and again. " * 400, 100)
        assert np.mean([len(passage.split()) for passage in found]) > 65


class TestOverlap:
    def test_each_passage_begins_with_the_end_of_the_one_before(self):
        text = " ".join(f"word{i}" for i in range(300))
        passages = [passage.split() for passage in cut(text, 40, 10)]
        for before, after in pairwise(passages):
            assert after[:10] == before[-10:]
            assert len(after) <= 40

    def test_not_across_a_heading(self):
        body = " ".join(["one two three four five six seven."] * 3)
        assert cut(f"# A\n\n{body}\n\n## B\n\n{body}", 32, 8) == [f"# A\n\n{body}", f"## B\n\n{body}"]


class TestTitles:
    def test_a_title_takes_at_most_half(self):
        encoder = encoder_of("word pieces")
        cutter = Cutter(encoder, resolve_rule(encoder, None, None, None))
        title = cutter.title("  duck " * 100)
        assert encoder.token_counts.alone([title])[0] <= (LIMIT - encoder.token_counts.fixed) // 2
        assert title.endswith("duck")
        assert cutter.title(title) == title
        assert cutter.title(" short ") == "short"
        assert cutter.title(" ") == ""

    def test_a_title_of_one_long_word(self):
        for name in ("word pieces", "bytes", "estimated"):
            encoder = encoder_of(name)
            cutter = Cutter(encoder, resolve_rule(encoder, None, None, None))
            title = cutter.title("supercalifragilistic" * 1000)
            assert encoder.token_counts.alone([title])[0] <= LIMIT // 2

    def test_what_is_embedded(self):
        assert embedded_text("title", "passage") == "title passage"
        assert embedded_text("", "passage") == "passage"


class TestRules:
    def test_defaults(self):
        rule = resolve_rule(encoder_of("word pieces"), None, None, None, ("a",))
        assert rule == PassageRule(CUTTER, LIMIT - 2, 0, "paragraph", ("a",))
        assert resolve_rule(Counting(EstimatedTokens(0)), None, None, None).tokens == 128
        assert resolve_rule(words(9), None, None, None).tokens == 9
        assert resolve_rule(words(9), 9, 4, "word").overlap == 4

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ((39, None, None), "tokens is 39, and 'counting' reads 40 tokens, 2 of which .* must be from 16 to 38"),
            ((15, None, None), "tokens is 15; it must be from 16 to 38"),
            ((20, 11, None), "overlap is 11; it must be from 0 to 10, which is half of tokens"),
            ((20, -1, None), "overlap is -1"),
            ((20, 0, "sentense"), "by is 'sentense'; did you mean 'sentence'"),
        ],
    )
    def test_what_does_not_fit(self, given, told):
        with pytest.raises(InputError, match=told):
            resolve_rule(encoder_of("word pieces"), *given)

    def test_another_cutter(self):
        with pytest.raises(UnsupportedError, match="cut by 'jammi 9'"):
            Cutter(words(), PassageRule("jammi 9", 20, 0, "word"))


class TestCounts:
    @pytest.mark.parametrize("name", ENCODERS)
    def test_ends_are_as_many_as_tokens(self, name):
        counts = encoder_of(name).token_counts
        for text in ["", "a duck", " ".join(ODD[:30]), sentence(random.Random(3), 300)]:
            ends = counts.ends(text)
            assert ends.dtype == np.int32
            assert np.all(np.diff(ends) >= 0)
            assert len(ends) == counts.alone([text])[0]
            assert not len(ends) or 0 <= ends[-1] <= len(text)

    def test_a_long_text_is_counted_in_blocks(self):
        counts = encoder_of("word pieces").token_counts
        text = " ".join(sentence(random.Random(seed), 100) for seed in range(300))
        assert len(text) > 150_000
        assert len(counts.ends(text)) == counts.alone([text])[0]

    def test_the_estimate(self):
        counts = EstimatedTokens(0)
        assert counts.alone(["", "a", "four", "fives", "a four fives 水水水"]) == [0, 1, 1, 2, 7]
        assert counts.ends("a fives").tolist() == [1, 6, 7]
