"""The engine of a model whose passes the library in C computes; `Engine` says what an engine is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from jammi_duck.config.logs import log
from jammi_duck.encoder.config_check import check_size, checked
from jammi_duck.encoder.cross_encoder_description import CrossEncoderDescription
from jammi_duck.encoder.description import ModelDescription, TransformerDescription
from jammi_duck.encoder.local.engine import Engine, PairEngine, Tokens
from jammi_duck.encoder.local.workers import cores_here
from jammi_duck.encoder.model_files import read_json
from jammi_duck.encoder.native.families import plan
from jammi_duck.encoder.native.forward import Forward
from jammi_duck.encoder.native.heads import head
from jammi_duck.encoder.native.int8_texts import TEXTS
from jammi_duck.encoder.native.library import kernels, supports, why_not
from jammi_duck.encoder.native.mapped_weights import Floats, MappedWeights
from jammi_duck.encoder.native.modules import Step, activation_of_torch, step, unit
from jammi_duck.encoder.native.not_covered import NotCovered
from jammi_duck.encoder.native.proof import LEAST_COSINE, LEAST_MEAN, proof
from jammi_duck.encoder.native.sharing import Sharing
from jammi_duck.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jammi_duck.encoder.local.pairs import PairTokens
    from jammi_duck.types import Vectors

__all__ = ["NotCovered", "native_engine", "native_pair_engine", "why_not_covered"]

# More tokens in a pass do not fit into the caches of a core.
_PASS_TOKENS = 2048
E = TypeVar("E", "NativeEngine", "NativePairEngine")


class NativeEngine(Engine):
    """See `Engine`. `kernels` are those that were the fastest, or asked for, when it was made."""

    name = "native"
    tokens_of_pass = _PASS_TOKENS

    def __init__(self, forward: Forward, precision: str, description: ModelDescription, steps: Sequence[Step]) -> None:
        """`steps` come after pooling."""
        self.precision = precision
        self.kernels = kernels()
        self.vocabulary = forward.vocabulary
        self._forward = forward
        self._sharing = Sharing(precision, forward.products)
        self.spread_tokens = self._sharing.least_tokens
        self._poolings = description.pooling.split("+")
        self._dimensions = description.dimensions
        self._steps = steps

    def vectors(self, sequences: Sequence[Tokens], skipped: int) -> Vectors:
        """See `Engine.vectors`. A sequence's vector does not depend on the others, bit for bit.

        Raises:
            MemoryError: there is not enough memory.
            ModelError: a token id is too high, or there are more tokens than positions.
        """
        x = self._sharing.run(
            sum(map(len, sequences)),
            cores_here() or 1,
            lambda threads: self._forward.pooled(sequences, self._poolings, skipped, threads=threads),
        )
        for each in self._steps:
            x = each(x)
        # Only the first numbers if the model says so (truncate_dim).
        return unit(x[:, : self._dimensions])


class NativePairEngine(PairEngine):
    """See `PairEngine`, and `NativeEngine`."""

    name = "native"
    tokens_of_pass = _PASS_TOKENS

    def __init__(
        self,
        forward: Forward,
        precision: str,
        description: CrossEncoderDescription,
        pooling: str,
        steps: Sequence[Step],
    ) -> None:
        """`steps` come after pooling; the last makes the score."""
        self.precision = precision
        self.kernels = kernels()
        self.vocabulary = forward.vocabulary
        self._forward = forward
        self._sharing = Sharing(precision, forward.products)
        self._pooling = pooling
        self._steps = steps
        self._has_types = description.has_types

    def pooled(self, pairs: Sequence[PairTokens]) -> Floats:
        """What the head makes the scores of, [n, hidden]."""
        types = [pair.types for pair in pairs] if self._has_types else None
        ids = [pair.ids for pair in pairs]
        return self._sharing.run(
            sum(map(len, ids)),
            cores_here() or 1,
            lambda threads: self._forward.pooled(ids, (self._pooling,), 0, types, threads=threads),
        )

    def scores(self, pairs: Sequence[PairTokens]) -> NDArray[np.float32]:
        """See `PairEngine.scores`, and `NativeEngine.vectors`."""
        x = self.pooled(pairs)
        for each in self._steps:
            x = each(x)
        return x


def native_engine(description: ModelDescription, precision: str) -> NativeEngine:
    """The engine of an embedding model in `precision`, or in another one if its vectors lose too much in int8.

    Raises:
        NotCovered: this model is not computed here, or none is.
        ModelError: the weights cannot be read, or do not fit config.json.
        ConfigError: JAMMI_KERNELS has a wrong name.
        MemoryError: the model does not fit into memory.
    """
    _check_here(precision)
    config, weights = _read(description)
    planned = plan(config, weights, description.max_tokens)
    steps = [step(module, description.name) for module in description.modules]

    def made(precision: str) -> NativeEngine:
        return NativeEngine(Forward(planned, precision, description.name), precision, description, steps)

    if precision != "int8":
        return made(precision)

    def probe() -> Callable[[NativeEngine], Floats]:
        from jammi_duck.encoder.local.tokens import CuttingTokenizer, Tokenization

        tokens = Tokenization(description, CuttingTokenizer(description))
        sequences = [each for each in tokens.tokenize(TEXTS, "document")[0] if each]
        skipped = tokens.prompt_tokens("document")
        return lambda engine: engine.vectors(sequences, skipped)

    return _proven(made, probe, description)


def native_pair_engine(description: CrossEncoderDescription, precision: str) -> NativePairEngine:
    """The engine of a cross-encoder. In int8, the vectors that its scores are made of are compared. See above."""
    _check_here(precision)
    config, weights = _read(description)
    planned = plan(config, weights, description.max_tokens)
    pooling, steps = head(config, description, weights)
    steps.append(activation_of_torch(description.activation))

    def made(precision: str) -> NativePairEngine:
        forward = Forward(planned, precision, description.name)
        return NativePairEngine(forward, precision, description, pooling, steps)

    if precision != "int8":
        return made(precision)

    def probe() -> Callable[[NativePairEngine], Floats]:
        from jammi_duck.encoder.local.pairs import PairTokenization

        pairs = PairTokenization(description).tokenize(list(zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True)))
        found = [each for each in pairs if each]
        return lambda engine: unit(engine.pooled(found))

    return _proven(made, probe, description)


def why_not_covered(description: ModelDescription) -> str | None:
    """Why `native_engine` does not compute a model, as its files say without being loaded; None if it does."""
    try:
        plan(*_read(description), description.max_tokens)
        for module in description.modules:
            step(module, description.name)
    except NotCovered as error:
        return str(error)
    # What is damaged is said when the model is loaded.
    except Exception:
        return None
    return None


def _check_here(precision: str) -> None:
    reason = why_not()
    if reason:
        raise NotCovered(reason)
    if not supports(precision):
        raise NotCovered(f"this CPU has no kernels for {precision} (it has {kernels()})")


def _read(description: TransformerDescription) -> tuple[dict[str, Any], MappedWeights]:
    path, name = description.path, description.name
    config = checked(read_json(path / "config.json"), name)
    weights = MappedWeights(path, name)
    check_size(config, sum(file.stat().st_size for file in path.glob("*.safetensors")), name)
    return config, weights


def _proven(
    made: Callable[[str], E], probe: Callable[[], Callable[[E], Floats]], description: TransformerDescription
) -> E:
    """The engine in int8, if the vectors that a `probe` makes with it are near those in float32; otherwise another."""

    def compare() -> tuple[Floats, Floats]:
        run = probe()
        try:
            exact = run(made("float32"))
        except MemoryError as error:
            raise ModelError(
                f"the model '{description.name}' cannot be computed in int8: it is compared with float32 once, for "
                "which there is not enough memory; precision = 'auto' needs no comparison"
            ) from error
        return run(made("int8")), exact

    shown, precision = proof(description, compare), "int8"
    if not shown.holds:
        precision = "bfloat16" if supports("bfloat16") else "float32"
        log.warning(
            "the model '%s' loses too much in int8: over %d texts, the cosine to float32 is %.4f at least and %.4f on "
            "average, and has to be %s and %s; it is computed in %s",
            description.name, len(TEXTS), shown.lowest, shown.mean, LEAST_COSINE, LEAST_MEAN, precision,
        )  # fmt: skip
    return made(precision)
