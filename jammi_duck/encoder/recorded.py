"""The encoder of an embedding table: that with the weights that the table records, wherever the model's folder is."""

from __future__ import annotations

from pathlib import Path

from jammi_duck.encoder import Encoder, Encoders
from jammi_duck.encoder.no_vectors import NO_VECTORS
from jammi_duck.errors import ModelError, NoModelError
from jammi_duck.types import Definition

# What a query's vector depends on, and what a document's does.
QUERY = ("weights", "pooling")
DOCUMENT = (*QUERY, "prompt", "max_tokens")


def recorded_encoder(encoders: Encoders, table: str, definition: Definition, parts: tuple[str, ...]) -> Encoder:
    """The encoder for texts that are to be compared with the vectors of `table`, which has this definition.

    If it has words only, it is `NO_VECTORS`.

    Raises:
        NoModelError: the model cannot be found.
        ModelError: it is not what it was in one of these `parts` of its identity, or it cannot be loaded.
    """
    if not definition.has_vectors:
        return NO_VECTORS
    try:
        encoder = encoders.recorded(definition)
    except NoModelError as error:
        if not definition.weights or not _is_folder(definition.model):
            raise
        raise NoModelError(
            f"the model of '{table}' is not where it was: {error}. If its folder was moved, give model := 'NEW/PATH', "
            "list the directory that holds it in [models] path, or run `jammi-duck models add NEW/PATH`"
        ) from error
    # A table that was imported while the model was not available records only its name.
    told = parts if definition.weights else ()
    differing = [name for name in told if getattr(definition, name) != getattr(encoder.identity, name)]
    if encoder.dimensions < definition.dimensions:
        differing.append("dimensions")
    if differing:
        if ":" in definition.model:
            raise ModelError(
                f"the model '{definition.model}' is not what it was when '{table}' was generated: its arguments, or "
                f"variables in them, have changed ({', '.join(differing)} differ), and vectors of both must not be "
                "mixed. Set them as they were, or generate anew: SELECT * FROM "
                f"jammi_generate('{definition.source}', ...)"
            )
        raise ModelError(
            f"the model '{definition.model}' is not what it was when '{table}' was generated: its files have changed "
            f"({', '.join(differing)} differ), and vectors of both must not be mixed. Put the old files back, give the "
            "path of their folder as model := '...', or generate anew: SELECT * FROM "
            f"jammi_generate('{definition.source}', ...)"
        )
    return encoder


def _is_folder(name: str) -> bool:
    """Whether a recorded name is that of a folder: a model of the hub has exactly one slash, and no path begins so."""
    return Path(name).is_absolute() or "/" not in name
