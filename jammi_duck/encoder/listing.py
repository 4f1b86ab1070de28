"""The models that can be used here without a download: what each one is, or why it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jammi_duck.encoder.card import Card, read_card
from jammi_duck.encoder.description import ModelDescription, describe
from jammi_duck.encoder.names import Found, available
from jammi_duck.errors import ModelError
from jammi_duck.types import Integer


@dataclass(frozen=True)
class ModelRow:
    """What is told of a model; of one that cannot be used, only which it is and why."""

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


_FACTS = ("family", "dimensions", "max_tokens", "pooling", "query_prompt", "document_prompt")


@dataclass(frozen=True)
class Listed:
    """A model that was found, its card, and its facts, or why it cannot be used."""

    found: Found
    card: Card
    description: ModelDescription | None
    error: str | None = None

    def row(self) -> ModelRow:
        """What is told of it."""
        row = ModelRow(self.found.name, location=str(self.found.path), origin=self.found.origin, error=self.error)
        if self.description is None:
            return row
        facts = {fact: getattr(self.description, fact) for fact in _FACTS}
        return replace(row, label=self.card.label, licence=self.card.licence, **facts)


def listed(default: str) -> list[Listed]:
    """The models that are here, by name; `default` is one of them where it is a directory."""
    return [look_at(found) for found in available(default)]


def look_at(found: Found) -> Listed:
    """A model as its directory tells of it."""
    card = read_card(found.path, found.name)
    try:
        return Listed(found, card, describe(found.path, found.name, found.revision))
    except ModelError as error:
        return Listed(found, card, None, str(error))
    # A cache holds models of all kinds, and a strange one must not hide the others.
    except Exception as error:
        return Listed(found, card, None, f"its files cannot be understood: {type(error).__name__}: {error}")
