"""Texts of every kind, the same on each run: what an encoder is compared on."""

# ruff: noqa: RUF001 - letters that look like others are what this is about

import random
from collections.abc import Callable, Iterator

WORDS = {
    "latin": "a the of and to water duck house river small night search vector table index never running quickly "
    "understand information database window transformer sentence I x We Berlin PARIS iPhone don't e.g.",
    "accents": "café déjà naïve Ångström über Straße coração mañana żółć příliš œuvre Ёлка ﬁancée Ǆ İstanbul",
    "greek": "αβγ Ελλάδα θάλασσα привет мир вода",
    "cjk": "水 鴨子在河裡游泳 搜索 データベース 東京都 ベクトル 안녕하세요 한국어 カタカナ ひらがな ｆｕｌｌ",
    "emoji": "🦆 🙂 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇷 ❤️ 🧑‍💻",
    "rtl": "مرحبا بالعالم ماء شَمْس שלום עולם מים שָׁלוֹם",
    "indic": "नमस्ते दुनिया पानी ไทย สวัสดี",
    "digits": "0 7 42 3.14 1,000,000 2024-10-08 0x1F ½ ² Ⅷ ١٢٣",
    "code": "def f(x): return x**2 SELECT * FROM t; a->b != {} [i] && || #include <stdio.h> `ls -la` C:\\dir",
    "urls": "https://example.org/a?b=c&d=%20e#f mailto:a.b+c@example.com www.x.io/~u",
}

ODD = (
    "",
    " ",
    "   \t \n ",
    "\n\n\n",
    "\u00a0\u2003\u3000",
    "\u200b\u200d\ufeff",
    "a",
    "x",
    "水",
    "🦆",
    ".",
    "  leading and trailing  ",
    "two  spaces   and\ttabs",
    "line one\nline two\r\nline three\rline four",
    "[SEP]",
    "[CLS]",
    "[PAD]",
    "[MASK]",
    "[UNK]",
    "<pad>",
    "<s>",
    "</s>",
    "<mask>",
    "<unk>",
    "<pad><pad><pad>",
    "before [SEP] after",
    "before </s> after",
    "before <pad> after <pad> and more words that follow",
    "[PAD] at the start, and [PAD] in the middle",
    "not[MASK]spaced<mask>at all",
    "the [MASK] of the <mask>",
    "[sep] <PAD> [Mask]",
    "<s> a sentence that brings its own frame </s>",
    "\x00",
    "a\x00b\x01c\x1b[0m\x7f\x85",
    "bell\x07 and \x0b vertical \x0c form",
    "\u0301",
    "\u0301\u0302\u0303 \u20dd",
    "e\u0301 and \u00e9",
    "z\u0351\u036b\u0343\u036a\u0302\u036b\u033da\u034f\u0334\u0319\u0324lgo",
    "\u202eright to left override\u202c",
    "mixed שלום and مرحبا and 水",
    "👩‍👩‍👧‍👦👩‍👩‍👧‍👦👩‍👩‍👧‍👦",
    "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\ufffd\ufffe\U0010ffff\ue000",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ﷽ ㎏ ①",
    "ALL CAPITALS",
    "CamelCaseAndsnake_case_and-kebab-case",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ı İ ß ẞ ſ K Å ΐ ŉ",
    "tab\tseparated\tvalues",
    '{"json": [1, 2.5, null, true], "nested": {"key": "value"}}',
    "<html><body class='x'>&amp;&nbsp;</body></html>",
    "$\\alpha_i^2 + \\frac{1}{2}$",
    "▁ ▁▁ Ġ ##ing @@",
)


def texts(count: int, tokens_of: Callable[[str], int], limit: int) -> list[str]:
    """`count` texts for a model that reads `limit` tokens, where `tokens_of` counts them, special ones included.

    Some are long, and very long where there are many texts.
    """
    chance = random.Random(11)
    long = 50_000 if count > 200 else 5_000
    chosen = list(ODD)
    for tokens in (limit - 1, limit, limit + 1, 2 * limit):
        chosen += [exactly(tokens, tokens_of, chance) for _ in range(4)]
    chosen += ["water duck " * (long // 11), "水" * long, "".join(chance.choices("ab \u0301é水🦆", k=long))]
    chosen += [sentence(chance, words) for words in range(1, 2 * limit, max(1, limit // 16))]
    chosen += chance.sample(chosen, 40)
    while len(chosen) < count:
        chosen.append(sentence(chance, min(int(chance.expovariate(1 / 4)) + 1, 3 * limit)))
    chance.shuffle(chosen)
    return chosen[:count]


def sentence(chance: random.Random, words: int) -> str:
    """Words of one script or of several, with the punctuation of a sentence in some."""
    scripts = list(WORDS) if chance.random() < 0.3 else [chance.choice([*WORDS, "latin", "latin", "latin"])]
    joined = " ".join(chance.choice(WORDS[chance.choice(scripts)].split(" ")) for _ in range(words))
    return joined + chance.choice(["", "", ".", "!", "?\n", " ", " (sic)"])


def exactly(tokens: int, tokens_of: Callable[[str], int], chance: random.Random) -> str:
    """A text of exactly so many tokens, which are at least the special ones."""
    text = ""
    for _ in range(1000):
        if (now := tokens_of(text)) == tokens:
            return text
        word = chance.choice(WORDS["latin"].split(" ") if now + 4 < tokens else ["a", "x", "."])
        longer = f"{text} {word}" if text else word
        text = longer if tokens_of(longer) <= tokens else text
    raise ValueError(f"no text of {tokens} tokens was found")


def corpus() -> Iterator[str]:
    """What the small tokenizers are trained on."""
    chance = random.Random(5)
    yield from WORDS.values()
    for _ in range(400):
        yield sentence(chance, 8)
