"""Words that are so frequent in a language that an index leaves them out."""

from __future__ import annotations

STOP_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "english": (
            "a an and are as at be but by for if in into is it no not of on or s such t that the their then there "
            "these they this to was will with"
        ),
    }.items()
}
