"""The library in C that this folder's sources are compiled to: whether it is there, what it can do, and its functions.

encoder.h describes the functions; the numbers and the structure here are those of that file.
"""

from __future__ import annotations

import ctypes
import functools
import os
from enum import IntEnum
from pathlib import Path

from jammi_duck.errors import ConfigError

FILE = Path(__file__).with_name("libjammi_encoder.so")
# Forces the kernels by their name, so that one machine tests all that it has.
VARIABLE = "JAMMI_KERNELS"
_VERSION = 1


class Result(IntEnum):
    """`enum result`."""

    DONE = 0
    NO_MEMORY = 1
    BAD_SHAPE = 2
    BAD_TENSOR = 3
    INCOMPLETE = 4
    BAD_INPUT = 5
    NO_KERNELS = 6


PRECISIONS = ("float32", "bfloat16", "int8")
KERNELS = ("plain", "avx2", "avx512")
# How the numbers of a tensor are written, as safetensors calls it.
NUMBERS = ("F32", "F16", "BF16")
POOLINGS = ("mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")


class Activation(IntEnum):
    """`enum activation`."""

    GELU = 0
    GELU_TANH = 1
    RELU = 2
    SILU = 3


class MatrixSlot(IntEnum):
    """`enum matrix_slot`."""

    QKV = 0
    MIXED = 1
    UP = 2
    DOWN = 3


class VectorSlot(IntEnum):
    """`enum vector_slot`."""

    QKV_BIAS = 0
    MIXED_BIAS = 1
    UP_BIAS = 2
    DOWN_BIAS = 3
    ATTENTION_NORM = 4
    ATTENTION_NORM_BIAS = 5
    OUTPUT_NORM = 6
    OUTPUT_NORM_BIAS = 7
    POSITION_TABLE = 8
    TYPE_TABLE = 9
    EMBEDDING_NORM = 10
    EMBEDDING_NORM_BIAS = 11
    FINAL_NORM = 12
    FINAL_NORM_BIAS = 13
    ROTATION_TABLE = 14
    RELATIVE_TABLE = 15


class CShape(ctypes.Structure):
    """`struct shape`."""

    _fields_ = (
        *(
            (name, ctypes.c_int32)
            for name in (
                "hidden", "heads", "inner", "layers", "vocabulary", "positions", "types", "padding", "activation",
                "pre_norm", "gated", "rotations", "relative",
            )
        ),
        ("eps", ctypes.c_float),
    )  # fmt: skip


def why_not() -> str | None:
    """Why the library cannot be used here; None if it can."""
    return _loaded()[1]


def functions() -> ctypes.CDLL:
    """The library, its functions with the types of their arguments. They run without the interpreter's lock.

    Raises:
        ConfigError: it cannot be used; see `why_not`.
    """
    library, reason = _loaded()
    if library is None:
        raise ConfigError(f"the native engine cannot be used: {reason}")
    return library


def kernels() -> str:
    """The kernels of the passes: the fastest ones that this CPU has, or those that JAMMI_KERNELS names.

    Raises:
        ConfigError: there are none of that name here, or the library cannot be used.
    """
    library, asked = functions(), os.environ.get(VARIABLE)
    here = [name for number, name in enumerate(KERNELS) if library.encoder_supports(number, 0)]
    if asked and asked not in here:
        raise ConfigError(f"{VARIABLE} is '{asked}'; on this CPU it can be {', '.join(here)}, or not set")
    return asked or here[-1]


def is_plain() -> bool:
    """Whether this CPU has only the plain kernels, for any CPU, which are slow.

    Raises:
        ConfigError: the library cannot be used.
    """
    return not any(functions().encoder_supports(number, 0) for number in range(1, len(KERNELS)))


def kernels_number() -> int:
    """The number of `kernels` in `enum kernels`. Raises ConfigError as it does."""
    return KERNELS.index(kernels())


def supports(precision: str) -> bool:
    """Whether passes can be computed in this precision here. Raises ConfigError if JAMMI_KERNELS has a wrong name."""
    if precision not in PRECISIONS or why_not():
        return False
    return bool(functions().encoder_supports(kernels_number(), PRECISIONS.index(precision)))


def best_precision() -> str:
    """The fastest precision that costs little: bfloat16, or int8, if the CPU multiplies in them; otherwise float32.

    Raises:
        ConfigError: JAMMI_KERNELS has a wrong name, or the library cannot be used.
    """
    if kernels() == "plain":
        return "float32"
    return next(precision for precision in ("bfloat16", "int8", "float32") if supports(precision))


@functools.cache
def _loaded() -> tuple[ctypes.CDLL | None, str | None]:
    if not FILE.is_file():
        return (
            None,
            f"it was not compiled when the package was installed, as without a C compiler ('{FILE}' is missing)",
        )
    try:
        library = ctypes.CDLL(str(FILE))
        version = library.encoder_version()
    except (OSError, AttributeError) as error:
        return None, f"it was compiled for another system: {error}"
    if version != _VERSION:
        return None, f"'{FILE}' has version {version} of its interface, not {_VERSION}: install the package again"
    _declare(library)
    return library, None


def _declare(library: ctypes.CDLL) -> None:
    int32, int64, pointer, real = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
    shape, result = ctypes.POINTER(CShape), ctypes.POINTER(ctypes.c_int)
    library.encoder_supports.argtypes = (int32, int32)
    library.encoder_new.argtypes = (shape, int32, int32, result)
    library.encoder_new.restype = pointer
    library.encoder_free.argtypes = (pointer,)
    library.encoder_free.restype = None
    library.encoder_put_matrix.argtypes = (pointer, int32, int32, int64, int64, int64, pointer, int32, real)
    library.encoder_put_vector.argtypes = (pointer, int32, int32, int64, int64, pointer, int32, real)
    library.encoder_map_words.argtypes = (pointer, int64, int64, pointer, int32)
    library.encoder_set_layer.argtypes = (pointer, int32, int32, int32)
    library.encoder_check.argtypes = (pointer,)
    library.encoder_forward.argtypes = (
        pointer, int64, pointer, pointer, pointer, int32, pointer, int64, int64, pointer,
    )  # fmt: skip
    library.encoder_linear.argtypes = (int32, int64, int64, int64, pointer, pointer, pointer, pointer)
