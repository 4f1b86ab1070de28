"""Cross-encoders: a query and a text through one forward pass, to the score of how well the text answers the query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.encoder import Reranker
from jammi_duck.encoder.cross_encoder_description import CrossEncoderDescription
from jammi_duck.encoder.local.batching import Numbered, Passes, TokenBudget, longest_first
from jammi_duck.encoder.local.engine import PairEngine, is_out_of_memory
from jammi_duck.encoder.local.pairs import PairTokenization, PairTokens
from jammi_duck.encoder.local.workers import Workers
from jammi_duck.errors import EncodingError, ModelError
from jammi_duck.threads import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.types import Vectors


class CrossEncoder(Reranker):
    """See `Reranker`: a model in this process. Its scores are those of CrossEncoder in sentence-transformers."""

    def __init__(
        self,
        description: CrossEncoderDescription,
        engine: PairEngine,
        workers: Workers,
        at_once: int | None,
        batch_size: int,
    ) -> None:
        """Read the tokenizer; `engine` has the model. `batch_size` pairs of full length fit one forward pass.

        `at_once` passes run or wait for a thread; None is one more than the `workers` have threads.

        Raises:
            ModelError: the tokenizer cannot be read, or does not fit the weights; or what they give are no numbers.
        """
        self.description = description
        self.name = description.name
        self.engine = engine
        self._workers = workers
        self._at_once = at_once or workers.threads + 1
        self._pass_tokens = min(batch_size * description.max_tokens, engine.tokens_of_pass)
        self._tokens = PairTokenization(description)
        self._tokens.tokenizer.check_fits(engine.vocabulary)
        # Damaged weights cause an error now, not in the middle of a search.
        if self._scored([("a", "b")])[1].any():
            raise ModelError(
                f"the model '{description.name}' does not fit into memory, or its scores are not numbers (NaN): its "
                "weights are damaged, or too large for bfloat16, where precision = 'float32' helps"
            )

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """See `Reranker.scores`. Equal pairs are scored once."""
        places = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        distinct = list(places)
        scores, failed = self._scored(distinct)
        if failed.any():
            query, text = distinct[int(failed.argmax())]
            raise EncodingError(
                f"the text '{text[:40]}' of {len(text)} characters could not be scored for the query '{query[:40]}': "
                "there is not enough memory for it even alone, or the model's numbers for it overflow"
            )
        return scores[np.fromiter((places[pair] for pair in pairs), np.intp, len(pairs))]

    def _scored(self, pairs: Sequence[tuple[str, str]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The scores of different pairs, and which of them failed."""
        scores = np.zeros((len(pairs), 1), np.float32)

        def start(sequences: Sequence[PairTokens], landed: SimpleQueue[Task[Vectors]]) -> Task[Vectors]:
            is_only_one = len(sequences) == len(pairs)
            return self._workers.submit(
                lambda: self._forward(sequences), urgent=True, spread=is_only_one, landed=landed
            )

        passes = Passes(start, scores, TokenBudget(self._pass_tokens), is_out_of_memory, at_once=self._at_once)
        passes.run(self._tokenized(pairs, passes.failed), lambda _: None)
        return scores[:, 0], passes.failed | ~np.isfinite(scores[:, 0])

    def _tokenized(
        self, pairs: Sequence[tuple[str, str]], failed: NDArray[np.bool_]
    ) -> Iterator[list[Numbered[PairTokens]]]:
        """The pairs' tokens, chunk by chunk, the longest pairs first; sets the flags in `failed`."""
        for chunk in longest_first([len(query) + len(text) for query, text in pairs], self.description.max_tokens):
            sequences = self._tokens.tokenize([pairs[i] for i in chunk])
            failed[chunk] = [not tokens for tokens in sequences]
            yield [(i, tokens) for i, tokens in zip(chunk, sequences, strict=True) if tokens]

    def _forward(self, sequences: Sequence[PairTokens]) -> Vectors:
        if max(max(pair.ids) for pair in sequences) >= self.engine.vocabulary:
            raise ModelError(f"the tokenizer of '{self.name}' does not fit its weights: a token id is too high")
        return self.engine.scores(sequences)
