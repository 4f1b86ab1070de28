"""The embedding functions that names mean, with the arguments that the configuration adds to them.

Nothing of the registry, or of a provider, is imported before a name has a colon in it, or is the user's own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jammi_duck.config.trust import places_of
from jammi_duck.encoder.listing import ModelRow
from jammi_duck.errors import ConfigError, ModelError, NoModelError

if TYPE_CHECKING:
    from jammi_duck.config.options import Config
    from jammi_duck.encoder.functions import EmbeddingFunction
    from jammi_duck.encoder.specs import Spec

_REGISTRY = "jammi_duck.encoder.registry"


def functions_of(config: Config) -> Functions:
    """The functions of a configuration."""
    return Functions(config.providers, config.foreign_providers, config.modules)


class Functions:
    """Finds embedding functions for one configuration."""

    def __init__(
        self, sections: Mapping[str, Mapping[str, Any]], foreign: Sequence[str], modules: Sequence[str]
    ) -> None:
        """`sections` has arguments by a provider's id; those of `foreign` ones come from a place that gets no key."""
        self._sections = sections
        self._foreign = foreign
        self._modules = modules
        self._are_imported = not modules

    def get(self, name: str) -> EmbeddingFunction | None:
        """The function that a user calls by this name; None if it is that of a local model.

        Raises:
            InputError: it has arguments that cannot be.
            ModelError: there is no such function, or it cannot be made here.
        """
        spec = self.spec_of(name)
        if spec is not None:
            self._registry.trust_places(places_of(spec.arguments))
        return self.named(name)

    def named(self, name: str) -> EmbeddingFunction | None:
        """The same to look at: nothing is to be sent to the places in its name.

        Raises:
            InputError, ModelError: as `get`.
        """
        spec = self.spec_of(name)
        return None if spec is None else self._made(spec)

    def recorded(self, name: str) -> EmbeddingFunction | None:
        """The function that an embedding table records by this name; None if it is a local model.

        Raises:
            ModelError: as `get`, or it would send texts to a place that this process has not named.
        """
        spec = self.spec_of(name)
        if spec is None:
            return None
        unknown = places_of(spec.arguments) - self._known_places(spec)
        if unknown:
            raise ModelError(
                f"the embedding table's model, '{spec.id}:{spec.name}', is at {', '.join(sorted(unknown))}, and texts "
                "are sent to no place that only a file names: if you know it, give the same URL as base_url in "
                f"[providers.{spec.id}] of your jammi.toml, or call the model by its whole name once"
            )
        return self._made(spec)

    def spec_of(self, name: str) -> Spec | None:
        """What a name means, if it is no local model."""
        self._import_modules()
        # A name without a colon is somebody's own function, if they have imported the registry.
        if ":" not in name and _REGISTRY not in sys.modules:
            return None
        found: Spec | None = self._registry.spec_of(name)
        return found

    def local(self, name: str) -> str | None:
        """The name of the local model for which `id:NAME` is another word; None if it means anything else.

        Raises:
            InputError: it has arguments that cannot be.
        """
        spec = self.spec_of(name)
        cls: type[EmbeddingFunction] | None = None if spec is None else self._registry.find(spec.id)
        return self._made(spec).name if spec is not None and cls is not None and cls.is_local else None

    def class_of(self, name: str) -> type[EmbeddingFunction] | None:
        """The class of the function that a name means, if it is no local model.

        Raises:
            ModelError: there is none of this id.
        """
        spec = self.spec_of(name)
        if spec is None:
            return None
        found: type[EmbeddingFunction] = self._registry.get(spec.id)
        return found

    def rows(self) -> list[ModelRow]:
        """A row of `jammi_models()` for each provider, and each function of the user's own."""
        self._import_modules()
        return [
            ModelRow(name, label=label, family=family, origin="provider", needs=needs)
            for name, label, family, needs in self._registry.listed(self._sections)
        ]

    @property
    def _registry(self) -> Any:  # noqa: ANN401 - imported late
        return importlib.import_module(_REGISTRY).get_registry()

    def _import_modules(self) -> None:
        if self._are_imported:
            return
        for name in self._modules:
            try:
                importlib.import_module(name)
            except Exception as error:
                raise NoModelError(
                    f"the module '{name}' of [models] modules cannot be imported: {type(error).__name__}: {error}; "
                    "install it, or put its folder into PYTHONPATH"
                ) from error
        self._are_imported = True

    def _made(self, spec: Spec) -> EmbeddingFunction:
        cls: type[EmbeddingFunction] = self._registry.get(spec.id)
        section = self._section(cls, spec.id)
        named = {"name": spec.name} if spec.name else {}
        passing = set(cls.passing_keys())
        given = {key: value for key, value in section.items() if key not in passing} | named | dict(spec.arguments)
        others = {key: value for key, value in section.items() if key not in given}
        is_foreign = spec.id in self._foreign
        made: EmbeddingFunction = self._registry.build(cls, given, others, anew=False, keyless=is_foreign)
        return made

    def _section(self, cls: type[EmbeddingFunction], id: str) -> Mapping[str, Any]:
        """The arguments that the configuration has for a provider."""
        section = self._sections.get(id, {})
        unknown = sorted(set(section) - set(cls.arguments()))
        if unknown:
            known = ", ".join(sorted(cls.arguments()))
            raise ConfigError(f"[providers.{id}] sets {', '.join(unknown)}, which '{id}' has not; it has: {known}")
        if id in self._foreign and not cls.keyless_by_argument:
            raise ConfigError(
                f"[providers.{id}] of a file in the working directory says where it is, and its class may send keys "
                "there; give it in your own jammi.toml, or by JAMMI_PROVIDERS"
            )
        return section

    def _known_places(self, spec: Spec) -> set[str]:
        cls: type[EmbeddingFunction] = self._registry.get(spec.id)
        mine = {*places_of(self._sections.get(spec.id, {})), *places_of(cls.surroundings())}
        own = getattr(cls, "url", "")
        trusted: set[str] = self._registry.trusted_places
        return mine | trusted | ({own.rstrip("/")} if own else set())
