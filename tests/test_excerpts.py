"""Of a long text, only as much is tokenized as the model reads: the tokens are those of the whole text."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from jammi_duck.encoder.local.excerpts import Excerpts
from tests.effort import some
from tests.models import FAMILIES, byte_level, framed, unigram, word_piece
from tests.texts import ODD, WORDS, sentence

LIMIT = 8


def _word_piece(*normalizer, **options):
    tokenizer = Tokenizer(models.WordPiece(word_piece(), unk_token="[UNK]", **options))
    tokenizer.normalizer = normalizers.Sequence(list(normalizer)) if normalizer else normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return framed(tokenizer, "[CLS]", "[SEP]")


def _with_tokens(tokenizer, *tokens):
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def _changed(tokenizer, normalizer=None, pre_tokenizer=None):
    tokenizer.normalizer = normalizer or tokenizer.normalizer
    tokenizer.pre_tokenizer = pre_tokenizer or tokenizer.pre_tokenizer
    return tokenizer


def _split(pattern, behaviour):
    return pre_tokenizers.Split(Regex(pattern), behaviour)


TOKENIZERS = {
    **{name: lambda family=family: family.tokenizer().backend_tokenizer for name, family in FAMILIES.items()},
    "lower case first": lambda: _word_piece(normalizers.Lowercase(), normalizers.BertNormalizer(lowercase=False)),
    "ideographs in words": lambda: _word_piece(normalizers.BertNormalizer(handle_chinese_chars=False)),
    "short words": lambda: _word_piece(max_input_chars_per_word=4),
    "tokens of letters": lambda: _with_tokens(_word_piece(), "duck", "aa", AddedToken("水", normalized=False)),
    "tokens of marks": lambda: _with_tokens(_word_piece(), "<|", "||>", AddedToken("--", rstrip=True, lstrip=True)),
    "tokens with spaces": lambda: _with_tokens(_word_piece(), "a duck", "  ", AddedToken("x ", normalized=False)),
    "tokens that take spaces": lambda: _with_tokens(
        byte_level(()), AddedToken("duck", rstrip=True), AddedToken("water", lstrip=True, single_word=True)
    ),
    "prefixed bytes": lambda: _changed(byte_level(()), None, pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "bytes not split": lambda: _changed(byte_level(()), None, pre_tokenizers.ByteLevel(use_regex=False)),
    "sentence pieces": lambda: _changed(
        unigram(),
        normalizers.Sequence(
            [normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.Replace(Regex(" {2,}"), " ")]
        ),
        pre_tokenizers.Metaspace(prepend_scheme="first"),
    ),
    "sentences as pieces": lambda: _changed(
        unigram(), normalizers.Replace(" ", "▁"), pre_tokenizers.Metaspace(split=False)
    ),
    "stripped": lambda: _changed(unigram(), normalizers.Sequence([normalizers.Strip(), normalizers.Prepend("▁")])),
    "words replaced": lambda: _changed(unigram(), normalizers.Replace(Regex(r"\S\s\S"), "x")),
    "split elsewhere": lambda: _changed(byte_level(()), None, _split(r"\s\w", "merged_with_previous")),
    "digits": lambda: _changed(
        byte_level(()), None, pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])
    ),
    "no splitting": lambda: _changed(unigram(), None, pre_tokenizers.Punctuation()),
}  # fmt: skip
WITHOUT_PROOF = (
    "bytes not split", "sentences as pieces", "words replaced", "split elsewhere", "no splitting", "tokens with spaces"
)  # fmt: skip

fragments = st.one_of(
    st.sampled_from([*" \n\u00a0▁Ġ,水x\u0301", "  ", "\t ", " a", "a ", ". ", " \u0308"]),
    st.sampled_from([word for words in WORDS.values() for word in words.split(" ")]),
    st.sampled_from(ODD),
    st.text(max_size=6),
    st.builds(
        lambda piece, times: piece * times,
        st.sampled_from([*"a ab é e\u0301 水 . - a. 🦆 👍🏽 \u200b İ ß".split(), "水 ", " ", "\n"]),
        st.integers(1, 400),
    ),
)
nasty = st.lists(fragments, min_size=1, max_size=60).map("".join)


def _truncated(name, side):
    tokenizer = TOKENIZERS[name]()
    tokenizer.no_padding()
    tokenizer.enable_truncation(LIMIT, direction=side)
    return tokenizer, Excerpts(tokenizer, LIMIT, side)


_ready = {}


def _ids(tokenizer, text):
    encoding = tokenizer.encode(text)
    return encoding.ids, bool(encoding.overflowing)


def _by_parts(tokenizer, excerpts, text):
    for part in excerpts.of(text):
        ids, is_cut = _ids(tokenizer, part)
        if is_cut:
            break
    return ids, is_cut


@pytest.mark.sampled(3)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=some(40), deadline=None)
@given(text=nasty)
def test_the_tokens_are_those_of_the_whole_text(name, side, text):
    if (name, side) not in _ready:
        _ready[name, side] = _truncated(name, side)
    tokenizer, excerpts = _ready[name, side]
    assert _by_parts(tokenizer, excerpts, text) == _ids(tokenizer, text)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_part_is_enough_of_a_long_text(name, side):
    _, excerpts = _truncated(name, side)
    chance = random.Random(3)
    text = " ".join(sentence(chance, 20) for _ in range(200))
    part = next(excerpts.of(text))
    assert (len(part) < len(text) / 10) == (name not in (*WITHOUT_PROOF, *_NOT_FROM_THE_LEFT[side]))


_NOT_FROM_THE_LEFT = {"right": (), "left": ("stripped", "tokens that take spaces", "tokens of marks")}
