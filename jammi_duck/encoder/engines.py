"""Which engine computes a model's forward passes, and why: the native one, or torch.

torch takes a second to import, so it is imported only where it computes, or to ask it for a CUDA device where there is
the driver of a GPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from jammi_duck.config.logs import log
from jammi_duck.encoder.cpu import has_amx
from jammi_duck.encoder.local.workers import Workers, workers
from jammi_duck.encoder.native import library
from jammi_duck.encoder.native.not_covered import NotCovered
from jammi_duck.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from jammi_duck.encoder.cross_encoder_description import CrossEncoderDescription
    from jammi_duck.encoder.description import ModelDescription, TransformerDescription
    from jammi_duck.encoder.local.engine import Engine, PairEngine
    from jammi_duck.encoder.torch_engine.linear import Placement

E = TypeVar("E")

# What drivers of GPUs make that torch computes on: NVIDIA's, the same under Windows, AMD's.
_DRIVERS = (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
_CLIP = "models of pictures are computed by torch"
# A GPU computes one pass at a time; another one waits for it.
_AT_ONCE_ON_GPU = 2


@dataclass(frozen=True)
class Wanted:
    """The options for engines; see `loaded.LoadedEncoders`."""

    engine: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    device: int | None = None
    gpu_memory: int | float | None = None


@dataclass(frozen=True)
class Choice:
    """The engine for all models that it computes, and its precision, which torch chooses where it is `auto`.

    `reason` says why torch computes; it is None for the native engine.
    """

    engine: str
    precision: str
    reason: str | None = None

    @property
    def is_native(self) -> bool:
        """Whether it is the native engine."""
        return self.reason is None


class Computing(NamedTuple, Generic[E]):
    """An engine, the threads that its passes run on, and how many of these run or wait at once, where it matters."""

    engine: E
    workers: Workers
    at_once: int | None = None


class Engines:
    """Loads models into the engine that computes them."""

    def __init__(self, wanted: Wanted) -> None:
        """Nothing is loaded."""
        self._wanted = wanted

    def for_texts(self, description: ModelDescription) -> Computing[Engine]:
        """A model for embeddings, loaded.

        Raises:
            ConfigError: the options cannot be used here.
            ModelError: it cannot be read, or the engine that is asked for does not compute it.
        """

        def native(precision: str) -> Engine:
            from jammi_duck.encoder.native.engine import native_engine

            return native_engine(description, precision)

        def torch(place: Placement) -> Engine:
            from jammi_duck.encoder.torch_engine.engine import TorchEngine

            return TorchEngine(description, place)

        return self._computing(description, native, torch)

    def for_pairs(self, description: CrossEncoderDescription) -> Computing[PairEngine]:
        """A cross-encoder, loaded. Raises as `for_texts` does."""

        def native(precision: str) -> PairEngine:
            from jammi_duck.encoder.native.engine import native_pair_engine

            return native_pair_engine(description, precision)

        def torch(place: Placement) -> PairEngine:
            from jammi_duck.encoder.torch_engine.engine import TorchPairEngine

            return TorchPairEngine(description, place)

        return self._computing(description, native, torch)

    def for_pictures(self, description: ModelDescription) -> Computing[Placement]:
        """Where torch computes a model of pictures. Raises as `for_texts` does."""
        choice = self.choice()
        return self._place(self._instead(description, _CLIP) if choice.is_native else choice, description)

    def choice(self) -> Choice:
        """The engine for all models that it covers.

        Raises:
            ConfigError: the options cannot be used here.
        """
        choice = _choice(self._wanted)
        if not choice.is_native and choice.precision == "int8":
            raise ConfigError(
                "precision is int8, which only the native engine computes, and torch computes here, because "
                f"{choice.reason}; it can be auto, float32 or bfloat16"
            )
        return choice

    def in_words(self) -> str:
        """The engine for all models that it covers: `native (avx512, bfloat16)`, or torch and why."""
        try:
            choice = self.choice()
        except ConfigError as error:
            return f"none: {error}"
        return f"native ({library.kernels()}, {choice.precision})" if choice.is_native else f"torch: {choice.reason}"

    def of(self, description: ModelDescription) -> tuple[str | None, str | None]:
        """The name of the engine that computes a model, and why, if it is not the native one; nothing is loaded.

        Both are None for a model that is looked up. There is no engine where the options forbid the one that could.
        """
        from jammi_duck.encoder.images.clip_description import ClipDescription
        from jammi_duck.encoder.static.description import StaticDescription

        if isinstance(description, StaticDescription):
            return None, None
        try:
            choice = self.choice()
        except ConfigError as error:
            return None, str(error)
        if not choice.is_native:
            return "torch", choice.reason
        if isinstance(description, ClipDescription):
            reason: str | None = _CLIP
        else:
            from jammi_duck.encoder.native.engine import why_not_covered

            reason = why_not_covered(description)
        if reason and self._wanted.engine == "native":
            return None, reason
        return ("torch" if reason else "native"), reason

    def _computing(
        self,
        description: TransformerDescription,
        native: Callable[[str], E],
        torch: Callable[[Placement], E],
    ) -> Computing[E]:
        choice = self.choice()
        if choice.is_native:
            try:
                pool = workers(self._wanted.threads)
                return Computing(pool.load(lambda: native(choice.precision)).result(), pool)
            except NotCovered as error:
                choice = self._instead(description, str(error))
        place, pool, at_once = self._place(choice, description)
        with _torch_for(description, choice):
            # On one core: the many small steps take several times as long if cores have to wait for each other.
            return Computing(pool.submit(lambda: torch(place)).result(), pool, at_once)

    def _instead(self, description: TransformerDescription, reason: str) -> Choice:
        """torch, for a model that the native engine does not compute."""
        if self._wanted.engine == "native":
            raise ModelError(
                f"the native engine does not compute the model '{description.name}': {reason}; torch does, with "
                "engine = 'auto' or 'torch'"
            )
        precision = self._wanted.precision
        if precision == "int8":
            log.warning("the model '%s' is not computed in int8, because %s", description.name, reason)
            precision = "auto"
        return Choice("torch", precision, reason)

    def _place(self, choice: Choice, description: TransformerDescription) -> Computing[Placement]:
        with _torch_for(description, choice):
            from jammi_duck.encoder.torch_engine.placement import limit_memory, placement
            from jammi_duck.encoder.torch_engine.threads import threads, use_cores

        pool = workers(self._wanted.threads or threads())

        def chosen() -> Placement:
            use_cores()
            return placement(choice.precision, self._wanted.device)

        # On that thread, because a thread that has once spread its work slows down others that do so later.
        place = pool.submit(chosen).result()
        if place.device.type == "cpu":
            return Computing(place, pool)
        if self._wanted.gpu_memory is not None:
            limit_memory(place.device, self._wanted.gpu_memory)
        return Computing(place, pool, _AT_ONCE_ON_GPU)


def _choice(wanted: Wanted) -> Choice:
    if wanted.engine == "torch":
        return Choice("torch", wanted.precision, "[inference] engine is 'torch'")
    is_asked = wanted.engine == "native"
    if wanted.device is not None and wanted.device >= 0:
        return _torch_or_error(wanted, f"device is {wanted.device}, a CUDA device")
    reason = library.why_not()
    if reason:
        return _torch_or_error(wanted, f"the native engine cannot be used: {reason}")
    # torch has no int8: who asks for it means the CPU.
    if not is_asked and wanted.precision != "int8" and wanted.device is None and _has_cuda():
        return _torch_or_error(wanted, "there is a CUDA device")
    reason = None if is_asked else _why_torch_is_faster(wanted.precision)
    if reason:
        return _torch_or_error(wanted, reason)
    precision = library.best_precision() if wanted.precision == "auto" else wanted.precision
    if not library.supports(precision):
        return _torch_or_error(wanted, f"this CPU has no instructions to multiply {precision}")
    return Choice("native", precision)


def _torch_or_error(wanted: Wanted, reason: str) -> Choice:
    if wanted.engine == "native":
        raise ConfigError(f"engine is 'native', and {reason}; with engine = 'auto', torch computes then")
    return Choice("torch", wanted.precision, reason)


def _why_torch_is_faster(precision: str) -> str | None:
    """Why torch, if it is installed, computes this precision faster on this CPU; None if it does not."""
    if precision in ("auto", "bfloat16") and has_amx() and _has_torch():
        return "this CPU has AMX, on which torch is faster in bfloat16"
    if precision != "int8" and library.is_plain() and _has_torch():
        return "the native engine has no code for the instructions of this CPU, so torch is faster"
    return None


def _has_torch() -> bool:
    """Whether torch is installed; it is not imported."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec("torch") is not None
    return False


def _has_cuda() -> bool:
    """Whether torch has a CUDA device. It is not asked where there is no GPU's driver."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not any(driver.exists() for driver in _DRIVERS):
        return False
    try:
        from jammi_duck.encoder.torch_engine.placement import cuda_devices
    except ModuleNotFoundError:
        return False
    return cuda_devices() > 0


@contextlib.contextmanager
def _torch_for(description: TransformerDescription, choice: Choice) -> Iterator[None]:
    """Say who needs torch, or transformers, where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise
        raise ModelError(
            f"the model '{description.name}' needs {error.name}, which is not installed: {choice.reason}; "
            f"`pip install {error.name}`"
        ) from error
