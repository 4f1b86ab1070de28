"""The played vectors: from any of them, a test can tell which text it belongs to, and in which role it was embedded.

A vector's components are pairs (cos a, sin a), whose angles are the 16-bit numbers of the text's SHA-256. So each has
length 1, and its first 32 components repeat. The vector of a query is that of the document turned by a small angle.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

PERIOD = 32
_TURNED = {"document": 0.0, "query": 0.3}
_TURNED_OTHERWISE = 0.6


def vector_of(text: str, dimensions: int, role: str = "document") -> np.ndarray:
    """The vector of a text: float32 [dimensions], of length 1."""
    return vectors_of([text], dimensions, role)[0]


def vectors_of(texts: Sequence[str], dimensions: int, role: str = "document") -> np.ndarray:
    """The vectors of texts: float32 [n, dimensions]."""
    return np.array([_repeated(period, dimensions) for period in periods_of(texts, dimensions, role)], np.float32)


def text_of(vector: Iterable[float], texts: Sequence[str], roles: Sequence[str] = ("document",)) -> tuple[str, str]:
    """The text and the role that a vector belongs to, among those given; ("", "") if there is none."""
    wanted = np.array(list(vector), np.float64)
    wanted /= np.linalg.norm(wanted)
    for role in roles:
        near = vectors_of(texts, len(wanted), role) @ wanted
        if near.max() > 1 - 1e-5:
            return texts[int(near.argmax())], role
    return "", ""


def periods_of(texts: Sequence[str], dimensions: int, role: str) -> np.ndarray:
    """What the vectors of texts repeat if they have so many dimensions: float32 [n, 32]."""
    digests = b"".join(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts)
    numbers = np.frombuffer(digests, "<u2").reshape(len(texts), PERIOD // 2)
    angles = numbers * (2 * np.pi / 65536) + _TURNED.get(role, _TURNED_OTHERWISE)
    pairs = np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(len(texts), PERIOD)
    return (pairs / np.sqrt(max(dimensions // 2, 1))).astype(np.float32)


def _repeated(period: np.ndarray, dimensions: int) -> np.ndarray:
    vector = np.tile(period, -(-dimensions // PERIOD))[:dimensions]
    if dimensions % 2:
        # A number that is left over has no other to make a pair with.
        vector[-1] = 1 if dimensions == 1 else 0
    return vector


class Item:
    """One vector of an answer. An act may change its `index`, its `values`, or what is `written` for it in JSON."""

    def __init__(self, index: int, period: np.ndarray, dimensions: int, scale: float = 1) -> None:
        self.index: object = index
        self.written: str | None = None
        self._period = period * np.float32(scale)
        self._dimensions = dimensions
        self._values: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """The components, float32."""
        if self._values is None:
            self._values = _repeated(self._period, self._dimensions)
        return self._values

    @values.setter
    def values(self, values: Iterable[float]) -> None:
        self._values = np.array(list(values), np.float32)

    def json(self) -> str:
        """The components in JSON. What repeats is formatted once: formatting is most of the work of an answer."""
        if self.written is not None:
            return self.written
        if self._values is None and not self._dimensions % PERIOD:
            return f"[{', '.join([_joined(self._period)] * (self._dimensions // PERIOD))}]"
        return f"[{_joined(self.values)}]"


_SPECIAL: Mapping[str, str] = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _joined(numbers: np.ndarray) -> str:
    return ", ".join(_SPECIAL.get(text, text) for text in (f"{number:.9g}" for number in numbers.tolist()))
