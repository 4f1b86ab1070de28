"""Pairs of a query and a text to token ids, cut to what a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jammi_duck.encoder.description import TransformerDescription
from jammi_duck.encoder.local.engine import Tokens
from jammi_duck.encoder.local.tokens import CuttingTokenizer
from jammi_duck.errors import ModelError

_MOST_ADDED = 64


@dataclass(frozen=True)
class PairTokens:
    """The token ids of a pair, and the type of each: which of its two texts a model takes it to belong to."""

    ids: Tokens
    types: Tokens

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self.ids)


class PairTokenization:
    """A model's tokenizer for pairs. Threads may share it.

    If both texts of a pair are too long together, the text is cut. The query is cut only if the text would get less
    than a quarter of the room and needs more, and no further than that.
    """

    def __init__(self, description: TransformerDescription) -> None:
        """Read tokenizer.json.

        Raises:
            ModelError: it cannot be read, or does not put a pair into one sequence, or the model is too short for that.
        """
        self.tokenizer = CuttingTokenizer(description, adds_special_tokens=False)
        self._frame = _frame(self.tokenizer, description.name)
        self._room = description.max_tokens - self._frame.length
        self._cuts_left = description.cut_side == "left"
        if self._room < 2:
            raise ModelError(
                f"the model '{description.name}' cannot score pairs: it reads {description.max_tokens} tokens, and "
                f"{self._frame.length} of them are special tokens"
            )

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[PairTokens | None]:
        """The tokens of each pair of a query and a text. A query that several pairs share is tokenized once.

        A pair has none if one of the two would have to be tokenized whole, and is too long for that.
        """
        queries = list(dict.fromkeys(query for query, _ in pairs))
        of_query = dict(zip(queries, self.tokenizer.tokenize(queries)[0], strict=True))
        of_texts, _ = self.tokenizer.tokenize([text for _, text in pairs])
        return [self._pair(of_query[query], tokens) for (query, _), tokens in zip(pairs, of_texts, strict=True)]

    def _pair(self, query: Tokens | None, text: Tokens | None) -> PairTokens | None:
        if query is None or text is None:
            return None
        query = self._cut(query, max(self._room * 3 // 4, self._room - len(text)))
        return self._frame.around(query, self._cut(text, self._room - len(query)))

    def _cut(self, tokens: Tokens, most: int) -> Tokens:
        return tokens[max(0, len(tokens) - most) :] if self._cuts_left else tokens[:most]


@dataclass(frozen=True)
class _Frame:
    """The special tokens before, between and after the two texts of a pair, and the types of the texts' tokens."""

    before: PairTokens
    first_type: int
    between: PairTokens
    second_type: int
    after: PairTokens

    @property
    def length(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def around(self, first: Tokens, second: Tokens) -> PairTokens:
        types = [self.first_type] * len(first), [self.second_type] * len(second)
        return PairTokens(
            [*self.before.ids, *first, *self.between.ids, *second, *self.after.ids],
            [*self.before.types, *types[0], *self.between.types, *types[1], *self.after.types],
        )


def _frame(tokenizer: CuttingTokenizer, name: str) -> _Frame:
    """Found by one pair, since no tokenizer's special tokens depend on the texts."""
    first, second, pair = tokenizer.uncut("a", "b c")
    places = [place for place, is_special in enumerate(pair.special_tokens_mask) if not is_special]
    split = len(first.ids)
    if not first.ids or not second.ids or [pair.ids[place] for place in places] != [*first.ids, *second.ids]:
        raise ModelError(f"the tokenizer of '{name}' does not put the two texts of a pair one after the other")
    spans = slice(places[0], places[split - 1] + 1), slice(places[split], places[-1] + 1)
    if len(pair.ids) - len(places) > _MOST_ADDED:
        raise ModelError(f"the tokenizer of '{name}' adds {len(pair.ids) - len(places)} tokens to each pair")

    def part(span: slice) -> PairTokens:
        return PairTokens(pair.ids[span], pair.type_ids[span])

    frame = _Frame(
        part(slice(spans[0].start)),
        pair.type_ids[spans[0].start],
        part(slice(spans[0].stop, spans[1].start)),
        pair.type_ids[spans[1].start],
        part(slice(spans[1].stop, None)),
    )
    if frame.around(first.ids, second.ids) != part(slice(None)):
        raise ModelError(f"the tokenizer of '{name}' puts special tokens within the texts of a pair")
    return frame
