"""The encoder of a local model: texts to tokens, and tokens to vectors, in parallel forward passes."""

from __future__ import annotations

import copy
import dataclasses
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.encoder import Encoder, Encodings
from jammi_duck.encoder.description import ModelDescription
from jammi_duck.encoder.local.batching import Numbered, Passes, TokenBudget, longest_first
from jammi_duck.encoder.local.engine import Engine, Tokens, is_out_of_memory
from jammi_duck.encoder.local.gathering import Gathering
from jammi_duck.encoder.local.tokens import CuttingTokenizer, Tokenization
from jammi_duck.encoder.local.workers import Workers
from jammi_duck.errors import ModelError
from jammi_duck.threads import Task
from jammi_duck.types import Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.encoder.token_counts import TokenCounts
    from jammi_duck.types import Vectors

# A lone pass of so many tokens takes milliseconds, and runs on the caller's thread.
_TOKENS_HERE = 256
_RECENT_QUERIES = 1024
_RECENT_CHARACTERS = 10_000

_remembering = threading.Lock()


def _after_fork() -> None:
    global _remembering
    _remembering = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class TransformerEncoder(Encoder):
    """See `jammi_duck.encoder.LocalEncoder`. A `budget` belongs to one stream."""

    budget: TokenBudget | None = None

    def __init__(
        self,
        description: ModelDescription,
        tokenizer: CuttingTokenizer,
        engine: Engine,
        workers: Workers,
        at_once: int | None,
        batch_size: int,
    ) -> None:
        """`engine` has the model. `batch_size` texts of full length fit one forward pass.

        `at_once` passes run or wait for a thread; None is one more than the `workers` have threads.

        Raises:
            ModelError: the tokenizer does not fit the weights; or what they give are no numbers.
        """
        self.description = dataclasses.replace(description, precision=engine.precision)
        self.identity = self.description.identity
        self.dimensions = description.dimensions
        self.engine = engine
        self._workers = workers
        self._at_once = at_once or workers.threads + 1
        self._pass_tokens = min(batch_size * description.max_tokens, engine.tokens_of_pass)
        # How torch computes is a setting of each thread.
        self._tokens_here = _TOKENS_HERE if engine.name == "native" else 0
        self._tokens = Tokenization(description, tokenizer)
        tokenizer.check_fits(engine.vocabulary)
        self._recent: OrderedDict[str, Vectors] = OrderedDict()
        self._gathering = Gathering()
        # Damaged weights cause an error now, not in the middle of a build.
        if self.encode_rows(["a"], "document", lambda _: None).failed.any():
            raise ModelError(
                f"the model '{description.name}' does not fit into memory, or its vectors are not numbers (NaN): its "
                "weights are damaged, or too large for bfloat16, where precision = 'float32' helps"
            )

    @property
    def token_counts(self) -> TokenCounts:
        """See `Encoder.token_counts`."""
        return self._tokens.counts

    def stream(self) -> TransformerEncoder:
        """See `LocalEncoder.stream`."""
        mine = copy.copy(self)
        mine.budget = TokenBudget(self._pass_tokens)
        return mine

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """See `Encoder.encode`. The vectors of recent queries are remembered."""
        return self._queries(texts) if role == "query" else super().encode(texts, role)

    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """See `Encoder.encode_rows`. Equal texts are encoded once."""
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        distinct = list(places)
        vectors = np.zeros((len(distinct), self.description.dimensions), np.float32)
        cut = np.zeros(len(distinct), np.bool_)
        skipped = self._tokens.prompt_tokens(role)

        def start(sequences: Sequence[Tokens], landed: SimpleQueue[Task[Vectors]]) -> Task[Vectors]:
            tokens = sum(map(len, sequences)) if len(sequences) == len(distinct) else None
            return self._workers.submit(
                lambda: self._forward(sequences, skipped),
                urgent=role == "query",
                spread=tokens is not None and tokens >= self.engine.spread_tokens,
                here=tokens is not None and tokens <= self._tokens_here,
                landed=landed,
            )

        budget = self.budget or TokenBudget(self._pass_tokens)
        passes = Passes(start, vectors, budget, is_out_of_memory, at_once=self._at_once)
        passes.run(self._tokenized(distinct, role, cut, passes.failed), progress)
        damaged = ~np.isfinite(vectors).all(1)
        vectors[damaged] = 0
        passes.failed |= damaged
        if len(distinct) == len(texts):
            return Encodings(vectors, cut, passes.failed)
        rows = np.fromiter((places[text] for text in texts), np.intp, len(texts))
        return Encodings(vectors[rows], cut[rows], passes.failed[rows])

    def _queries(self, texts: Sequence[str]) -> Vectors:
        with _remembering:
            found = {text: self._recent[text] for text in texts if text in self._recent}
        new = [text for text in dict.fromkeys(texts) if text not in found]
        if new:
            encode = super().encode
            vectors_of_new = self._gathering.encode(new, lambda texts: encode(texts, "query"))
            found.update(zip(new, vectors_of_new, strict=True))
        with _remembering:
            for text in texts:
                # A copy: a row of a matrix would keep the whole matrix in memory.
                if len(text) <= _RECENT_CHARACTERS:
                    self._recent[text] = self._recent.get(text, found[text].copy())
                    self._recent.move_to_end(text)
            while len(self._recent) > _RECENT_QUERIES:
                self._recent.popitem(last=False)
        vectors: Vectors = np.array([found[text] for text in texts], np.float32)
        return vectors.reshape(len(texts), self.description.dimensions)

    def _tokenized(
        self, texts: Sequence[str], role: Role, cut: NDArray[np.bool_], failed: NDArray[np.bool_]
    ) -> Iterator[list[Numbered[Tokens]]]:
        """The texts' tokens, chunk by chunk, the longest texts first; sets the flags in `cut` and `failed`.

        Texts without any token are left out: their vectors stay zeros.
        """
        for chunk in longest_first([len(text) for text in texts], self.description.max_tokens):
            sequences, cut[chunk] = self._tokens.tokenize([texts[i] for i in chunk], role)
            failed[chunk] = [tokens is None for tokens in sequences]
            yield [(i, tokens) for i, tokens in zip(chunk, sequences, strict=True) if tokens]

    def _forward(self, sequences: Sequence[Tokens], skipped: int) -> Vectors:
        """One pass. Pooling leaves out the first `skipped` tokens of each sequence, which are the prompt."""
        if max(map(max, sequences)) >= self.engine.vocabulary:
            raise ModelError(
                f"the tokenizer of '{self.description.name}' does not fit its weights: a token id is too high"
            )
        return self.engine.vectors(sequences, skipped)
