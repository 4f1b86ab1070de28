"""A model of the library: its tensors are packed when it is made, and its passes run on any thread."""

from __future__ import annotations

import ctypes
import itertools
import math
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.encoder.local.workers import cores_here
from jammi_duck.encoder.native.families import Part, Plan
from jammi_duck.encoder.native.library import POOLINGS, PRECISIONS, MatrixSlot, Result, functions, kernels_number
from jammi_duck.encoder.native.not_covered import NotCovered
from jammi_duck.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.encoder.local.engine import Tokens
    from jammi_duck.encoder.native.mapped_weights import Floats

# Packing is bound by memory: more threads than this gain nothing.
_MOST_THREADS = 4


class Forward:
    """Token ids to what poolings make of the vectors of a sequence's tokens. Threads may share it.

    Token ids are below `vocabulary`, and a token takes `products` products in the layers' matrices.
    """

    def __init__(self, plan: Plan, precision: str, model: str) -> None:
        """Pack the tensors of a plan; `model` is the model's name in messages.

        Raises:
            NotCovered: the library does not compute models of this shape, or not in this precision.
            MemoryError: they do not fit into memory.
        """
        self._model = model
        self._library = functions()
        self._hidden = int(plan.shape.hidden)
        self.vocabulary = int(plan.shape.vocabulary)
        matrices = itertools.chain.from_iterable(plan.matrices.values())
        self.products = sum(math.prod(part.tensor.shape) for part in matrices)
        result = ctypes.c_int()
        made = self._library.encoder_new(
            ctypes.byref(plan.shape), PRECISIONS.index(precision), kernels_number(), ctypes.byref(result)
        )
        self._check(result.value)
        self._encoder = ctypes.c_void_p(made)
        # At the exit of the process, a pass may still run.
        free = weakref.finalize(self, self._library.encoder_free, self._encoder)
        free.atexit = False  # type: ignore[misc]  # typeshed has it as a slot
        # The library reads them where they are.
        self._words = plan.words.readable()
        self._put(plan)

    def pooled(
        self,
        sequences: Sequence[Tokens],
        poolings: Sequence[str],
        skipped: int,
        types: Sequence[Tokens] | None = None,
        threads: int = 1,
    ) -> Floats:
        """One pass: what each pooling makes of each sequence's tokens without the first `skipped`, one after the other.

        `types` has the token types of each sequence; without them, all are 0. The result is [n, poolings * hidden],
        zeros where no tokens are left. Up to `threads` threads share the work, which changes no number.

        Raises:
            ModelError: a token id, a type or a length is more than the model has.
            MemoryError: there is not enough memory.
        """
        if not sequences:
            return np.empty((0, len(poolings) * self._hidden), np.float32)
        lengths = np.fromiter(map(len, sequences), np.int32, len(sequences))
        tokens = int(lengths.sum(dtype=np.int64))
        ids = self._flat(sequences, tokens)
        kinds = None if types is None else self._flat(types, tokens)
        modes = np.array([POOLINGS.index(mode) for mode in poolings], np.int32)
        out = np.empty((len(sequences), len(modes) * self._hidden), np.float32)
        self._check(
            self._library.encoder_forward(
                self._encoder, len(sequences), lengths.ctypes.data, ids.ctypes.data,
                None if kinds is None else kinds.ctypes.data, len(modes), modes.ctypes.data, skipped, threads,
                out.ctypes.data,
            )
        )  # fmt: skip
        return out

    def _flat(self, sequences: Sequence[Tokens], count: int) -> NDArray[np.int32]:
        try:
            return np.fromiter(itertools.chain.from_iterable(sequences), np.int32, count)
        except OverflowError:
            raise self._beyond() from None

    def _put(self, plan: Plan) -> None:
        library, encoder = self._library, self._encoder
        for (layer, slot), parts in plan.vectors.items():
            first = 0
            for part in parts:
                tensor = part.tensor.readable()
                count = math.prod(tensor.shape)
                self._check(
                    library.encoder_put_vector(
                        encoder, layer, slot, first, count, tensor.address, tensor.number, part.scale
                    )
                )
                first += count
        for layer, (rotation, reach) in enumerate(plan.layers):
            self._check(library.encoder_set_layer(encoder, layer, rotation, reach))
        words = self._words
        self._check(library.encoder_map_words(encoder, *words.shape, words.address, words.number))
        with ThreadPoolExecutor(min(_MOST_THREADS, cores_here() or 1)) as pool:
            list(pool.map(self._put_matrix, plan.matrices, plan.matrices.values()))
        self._check(library.encoder_check(encoder))

    def _put_matrix(self, place: tuple[int, MatrixSlot], parts: Sequence[Part]) -> None:
        first = 0
        for part in parts:
            tensor = part.tensor.readable()
            rows, columns = tensor.shape
            self._check(
                self._library.encoder_put_matrix(
                    self._encoder, *place, first, rows, columns, tensor.address, tensor.number, part.scale
                )
            )
            first += rows

    def _check(self, result: int) -> None:
        if result == Result.DONE:
            return
        if result == Result.NO_MEMORY:
            raise MemoryError(f"there is not enough memory for the model '{self._model}'")
        if result == Result.BAD_INPUT:
            raise self._beyond()
        if result in (Result.BAD_SHAPE, Result.NO_KERNELS):
            raise NotCovered("the library has no kernels for its shape, or not in this precision on this CPU")
        raise ModelError(f"the weights of '{self._model}' do not fit its config.json")

    def _beyond(self) -> ModelError:
        return ModelError(
            f"the tokenizer of '{self._model}' does not fit its weights: a token id or type is too high, or there are "
            "more tokens in a text than they have positions"
        )


def linear(kernels: int, x: Floats, weights: Floats, bias: Floats | None) -> Floats:
    """A linear layer, x W^T + bias, in float32; x is [rows, inputs], W [outputs, inputs], by `enum kernels`.

    A row of the result does not depend on the other rows.

    Raises:
        ModelError: they do not fit each other.
    """
    if x.shape[1] != weights.shape[1]:
        raise ModelError(f"a layer for {weights.shape[1]} numbers comes after {x.shape[1]} of them")
    y = np.empty((len(x), len(weights)), np.float32)
    result = functions().encoder_linear(
        kernels, *x.shape, len(weights), x.ctypes.data, weights.ctypes.data,
        None if bias is None else bias.ctypes.data, y.ctypes.data,
    )  # fmt: skip
    if result != Result.DONE:
        raise ModelError(f"a layer of {x.shape[1]} inputs and {len(weights)} outputs cannot be computed")
    return y
