"""The models loaded in this process, shared by all connections; the least recently used ones are unloaded."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from jammi_duck.encoder.description import describe, weights_digest
from jammi_duck.encoder.listing import ModelRow, listed
from jammi_duck.encoder.names import Found, find, full_name, verify
from jammi_duck.errors import ConfigError, JammiError, ModelError

if TYPE_CHECKING:
    import torch

    from jammi_duck.encoder import Encoder
    from jammi_duck.encoder.description import ModelDescription
    from jammi_duck.encoder.local.linear import Placement

_loaded: OrderedDict[tuple[object, ...], Encoder] = OrderedDict()
_loading: dict[tuple[object, ...], threading.Lock] = {}
_sharing = threading.Lock()


def _after_fork() -> None:
    """A forked child can use the loaded models; only the locks are made anew."""
    global _sharing
    _sharing = threading.Lock()
    _loading.clear()


os.register_at_fork(after_in_child=_after_fork)


class LoadedEncoders:
    """See `jammi_duck.encoder.Encoders`. All installations of a process share the loaded models."""

    def __init__(
        self,
        batch_size: int,
        most_loaded: int,
        precision: str = "auto",
        threads: int | None = None,
        device: int | None = None,
        gpu_memory: int | float | None = None,
    ) -> None:
        """`batch_size` texts of full length fit one forward pass; at most `most_loaded` models stay.

        `precision` is float32, bfloat16, or auto: bfloat16 where the hardware computes it natively. `threads` is the
        number of cores to use, by default all. `device` is the number of a CUDA device, -1 for the CPU, by default the
        first CUDA device, if there is one. `gpu_memory` is the most of its memory that this process uses: a number of
        bytes, or a fraction.
        """
        self._batch_size = batch_size
        self._most_loaded = most_loaded
        self._options = (precision, threads, device)
        self._gpu_memory = gpu_memory
        self._found: dict[str, Found] = {}

    def get(self, name: str) -> Encoder:
        """See `Encoders.get`: a name as on the hub, a bare name, or a local directory."""
        found = self._found.get(name) or find(name)
        if not found.is_local:
            self._found[name] = found
        key = (found, self._batch_size, *self._options)
        with _sharing:
            loading = _loading.setdefault(key, threading.Lock())
        # Only callers that need this model wait while it is loaded.
        with loading:
            encoder = _loaded.get(key) or self._checked_load(found)
            with _sharing:
                _loaded[key] = encoder
                _loaded.move_to_end(key)
                while len(_loaded) > self._most_loaded:
                    _loaded.popitem(last=False)
        return encoder

    def _checked_load(self, found: Found) -> Encoder:
        """As `_load`; any error caused by a malformed directory becomes a ModelError."""
        try:
            return self._load(found)
        except (JammiError, MemoryError, ImportError):
            raise
        except BaseException as error:
            # tokenizers is written in Rust; its panics are not subclasses of Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(
                f"the model '{found.name}' cannot be loaded from '{found.path}': {reason}; a file there is malformed"
            ) from error

    def _load(self, found: Found) -> Encoder:
        description = describe(found.path, found.name, found.revision)
        with ThreadPoolExecutor(1) as beside:
            # Hashing takes as long as loading, so it runs on another core.
            weights = beside.submit(_checked_digest, found, description)
            from jammi_duck.encoder.local.transformer import TransformerEncoder
            from jammi_duck.encoder.local.workers import workers

            precision, threads, device = self._options
            pool = workers(threads)
            # On that thread, because a thread that has once spread its work slows down others that do so later.
            place = pool.submit(lambda: placement(precision, device)).result()
            if place.device.type == "cuda" and self._gpu_memory is not None:
                limit_memory(place.device, self._gpu_memory)
            named = dataclasses.replace(description, precision=str(place.dtype).removeprefix("torch."))
            encoder = TransformerEncoder(named, place, pool, self._batch_size)
            encoder.description = dataclasses.replace(named, weights=weights.result())
            encoder.identity = encoder.description.identity
        return encoder

    def names(self, name: str) -> set[str]:
        """See `Encoders.names`."""
        return {name, full_name(name), str(Path(name).expanduser().resolve())}

    def available(self, default: str) -> list[ModelRow]:
        """See `Encoders.available`."""
        return [each.row() for each in listed(default)]


def _checked_digest(found: Found, description: ModelDescription) -> str:
    verify(found)
    return weights_digest(description)


def placement(precision: str, device: int | None) -> Placement:
    """The device and the precision for models; see `LoadedEncoders`.

    Raises:
        ConfigError: the device does not exist, or does not support the precision.
    """
    import torch

    from jammi_duck.encoder.local.linear import Placement, packs

    devices = torch.cuda.device_count()
    if device is not None and device >= devices:
        have = f"only 0 to {devices - 1}" if devices else "none that this torch can use"
        raise ConfigError(f"device is {device}, and there are CUDA devices: {have}; -1 is the CPU")
    on_cpu = device == -1 or devices == 0
    place = torch.device("cpu") if on_cpu else torch.device("cuda", device or 0)
    if precision == "auto":
        is_native = _has_bfloat16() and packs(torch.bfloat16) if on_cpu else torch.cuda.is_bf16_supported()
        precision = "bfloat16" if is_native else "float32"
    return Placement(place, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def limit_memory(device: torch.device, most: int | float) -> None:
    """Limit this process to `most` of a CUDA device's memory: bytes or a fraction. The last call counts."""
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    fraction = most if isinstance(most, float) else min(most / total, 1.0)
    torch.cuda.set_per_process_memory_fraction(fraction, device)


def _has_bfloat16() -> bool:
    """Whether the CPU has instructions to multiply bfloat16, according to Linux."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return not words.isdisjoint({"avx512_bf16", "amx_bf16"})
