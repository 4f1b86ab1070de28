"""What the CPU can multiply, according to Linux."""

from __future__ import annotations

from pathlib import Path


def has_bfloat16() -> bool:
    """Whether the CPU has instructions to multiply bfloat16."""
    return not _flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def has_amx() -> bool:
    """Whether the CPU multiplies tiles of bfloat16, several times as fast as vectors of them."""
    return "amx_bf16" in _flags()


def _flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return set()
