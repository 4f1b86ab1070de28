"""Where torch computes, and with which numbers."""

from __future__ import annotations

import torch

from jammi_duck.encoder.cpu import has_bfloat16
from jammi_duck.encoder.torch_engine.linear import Placement, packs
from jammi_duck.errors import ConfigError


def placement(precision: str, device: int | None) -> Placement:
    """The device and the precision for models; see `loaded.LoadedEncoders`.

    Raises:
        ConfigError: the device does not exist.
    """
    devices = torch.cuda.device_count()
    if device is not None and device >= devices:
        have = f"only 0 to {devices - 1}" if devices else "none that this torch can use"
        raise ConfigError(f"device is {device}, and there are CUDA devices: {have}; -1 is the CPU")
    on_cpu = device == -1 or devices == 0
    place = torch.device("cpu") if on_cpu else torch.device("cuda", device or 0)
    if precision == "auto":
        is_native = has_bfloat16() and packs(torch.bfloat16) if on_cpu else torch.cuda.is_bf16_supported()
        precision = "bfloat16" if is_native else "float32"
    return Placement(place, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def cuda_devices() -> int:
    """How many CUDA devices torch can use."""
    return torch.cuda.device_count()


def limit_memory(device: torch.device, most: int | float) -> None:
    """Limit this process to `most` of a CUDA device's memory: bytes or a fraction. The last call counts."""
    total = torch.cuda.get_device_properties(device).total_memory
    fraction = most if isinstance(most, float) else min(most / total, 1.0)
    torch.cuda.set_per_process_memory_fraction(fraction, device)
