"""The models available without a download, each with its description, or the reason why it cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jammi_duck.encoder.card import Card, read_card
from jammi_duck.encoder.description import ModelDescription, describe
from jammi_duck.encoder.engines import Engines
from jammi_duck.encoder.names import WORDLLAMA, Found, available, gone, is_model
from jammi_duck.errors import ModelError
from jammi_duck.types import Integer


@dataclass(frozen=True)
class ModelRow:
    """A row of `jammi_models()`; a model that cannot be used has only its name, its place and the reason."""

    name: str
    label: str | None = None
    family: str | None = None
    dimensions: Integer | None = None
    max_tokens: Integer | None = None
    pooling: str | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    location: str | None = None
    origin: str | None = None
    licence: str | None = None
    error: str | None = None
    needs: str | None = None
    engine: str | None = None
    engine_reason: str | None = None


_FACTS = ("family", "dimensions", "max_tokens", "pooling", "query_prompt", "document_prompt")


@dataclass(frozen=True)
class Listed:
    """A model that was found, its card, and its description, or the reason why it cannot be used."""

    found: Found
    card: Card
    description: ModelDescription | None
    error: str | None = None

    def row(self, engines: Engines) -> ModelRow:
        """The row of `jammi_models()` for it; `engines` would compute it."""
        row = ModelRow(self.found.name, location=str(self.found.path), origin=self.found.origin, error=self.error)
        if self.description is None:
            return row
        facts = {fact: getattr(self.description, fact) for fact in _FACTS}
        # A model without a limit has 0 there.
        facts["max_tokens"] = facts["max_tokens"] or None
        engine, reason = engines.of(self.description)
        return replace(
            row, label=self.card.label, licence=self.card.licence, engine=engine, engine_reason=reason, **facts
        )


def listed(default: str, path: Sequence[str] = ()) -> list[Listed]:
    """The models available without a download, sorted by name; includes `default` if that is a directory.

    `path` lists directories with model folders.
    """
    return [look_at(found) for found in available(default, path)]


def look_at(found: Found) -> Listed:
    """The card and the description of a model, read from its directory."""
    card = read_card(found.path, found.name)
    if found.is_local or found.name == WORDLLAMA:
        card = replace(card, link=str(found.path))
    if found.is_local and not is_model(found.path):
        return Listed(found, card, None, gone(found))
    try:
        return Listed(found, card, describe(found.path, found.name, found.revision))
    except ModelError as error:
        return Listed(found, card, None, str(error))
    # A cache contains models of all kinds; one that cannot be read must not hide the others.
    except Exception as error:
        return Listed(found, card, None, f"its files cannot be understood: {type(error).__name__}: {error}")
