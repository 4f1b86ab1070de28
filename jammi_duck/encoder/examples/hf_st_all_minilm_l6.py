"""An example of a wrapper: sentence-transformers/all-MiniLM-L6-v2, computed by this package's own encoder."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from jammi_duck.encoder.loaded import LoadedEncoders

if TYPE_CHECKING:
    from jammi_duck.encoder import Encoder

_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_SHOWN = 40


def embedding_label() -> str:
    """What `jammi-duck model list` shows."""
    return "Hugging Face Sentence Transformer all-MiniLM-L6-v2"


def embedding_description() -> str:
    """What `jammi-duck model desc` shows under the label."""
    return """\
General-purpose English sentence embedding model
based on MiniLM. Optimized for semantic similarity,
clustering, and retrieval tasks. Produces 384-dimensional
float vectors. Not multilingual.
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
"""


def embedding_dim() -> int:
    """The length of each vector."""
    return 384


def embedding_encode(input_data: Any, verbose: bool = False) -> list[float]:  # noqa: ANN401 - of any type
    """The vector of one text."""
    ((_, vector),) = embedding_encode_batch(1, [(None, input_data)])
    return vector


def embedding_encode_batch(
    batch_index: int, batch: Iterable[tuple[Any, Any]], verbose: bool = False
) -> list[tuple[Any, list[float]]]:
    """The vectors of texts, each with the primary key of its row."""
    rows = list(batch)
    for number, (key, text) in enumerate(rows, 1):
        if not isinstance(text, str):
            raise TypeError(f"this model embeds texts, not {type(text).__name__}")
        if verbose:
            shown = f"(batch {batch_index}, {number}/{len(rows)}) Updating vector for row id {key}: '{text[:_SHOWN]}'"
            print(f"[INFO] {shown}", flush=True)  # noqa: T201
    vectors = _encoder().encode([text for _, text in rows])
    return [(key, vector.tolist()) for (key, _), vector in zip(rows, vectors, strict=True)]


@cache
def _encoder() -> Encoder:
    """Loaded when it is first needed, so that a list of models takes no time."""
    return LoadedEncoders(batch_size=32, most_loaded=3, precision="float32").get(_MODEL)
