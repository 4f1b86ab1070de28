"""The embedding functions that names mean, with the arguments that the configuration adds to them.

Nothing of the registry, or of a provider, is imported before a name has a colon in it, or is the user's own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jammi_duck.config.redaction import split_user
from jammi_duck.config.trust import origins_of, places_of
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

    def get(self, name: str, *, trusted: bool = True) -> EmbeddingFunction | None:
        """The function that a user calls by this name; None if it is that of a local model.

        The places that it names are `trusted` from then on, if it is the user who names them.

        Raises:
            InputError: it has arguments that cannot be.
            ModelError: there is no such function, or it cannot be made here.
        """
        spec = self.spec_of(name)
        if spec is None:
            return None
        made = self._made(spec)
        if trusted:
            self._registry.trust_places(origins_of(vars(made).get("_values", {})))
        return made

    def recorded(self, name: str) -> EmbeddingFunction | None:
        """The function that an embedding table records by this name; None if it is a local model.

        Raises:
            ModelError: as `get`, or it would send texts to a place that this process has not named.
        """
        spec = self.spec_of(name)
        if spec is None:
            return None
        made = self._made(spec, recorded=True)
        named = {key: value for key, value in vars(made).get("_values", {}).items() if key in spec.arguments}
        unknown = origins_of(named) - self._known_places(spec)
        if unknown or any(split_user(place)[1] for place in places_of(named)):
            raise ModelError(
                f"the embedding table's model, '{spec.id}:{spec.name}', is at "
                f"{', '.join(sorted(origins_of(named)))}, and texts are sent to no place that only "
                f"a file names: if you know it, give the same URL as base_url in [providers.{spec.id}] of your own "
                "jammi.toml, or call the model by its whole name once"
            )
        return made

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

    def _made(self, spec: Spec, *, recorded: bool = False) -> EmbeddingFunction:
        """The function of a name: what decides vectors in the configuration is added, unless that is `recorded`."""
        cls: type[EmbeddingFunction] = self._registry.get(spec.id)
        section = self._section(cls, spec.id)
        is_foreign = spec.id in self._foreign
        passing = set(cls.passing_keys())
        given = ({"name": spec.name} if spec.name else {}) | dict(spec.arguments)
        if recorded:
            others = {} if is_foreign else {key: value for key, value in section.items() if key in passing}
            is_foreign = False
        else:
            given = {key: value for key, value in section.items() if key not in passing} | given
            others = {key: value for key, value in section.items() if key not in given}
        made: EmbeddingFunction = self._registry.build(
            cls, given, others, anew=False, keyless=is_foreign, recorded=recorded
        )
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
        """Where a provider is according to itself, the environment, the user's own configuration, and this process."""
        cls: type[EmbeddingFunction] = self._registry.get(spec.id)
        section = {} if spec.id in self._foreign else self._registry.resolved_or_left(self._sections.get(spec.id, {}))
        own = {"url": getattr(cls, "url", "")}
        trusted: set[str] = self._registry.trusted_places
        return origins_of(section) | origins_of(cls.surroundings()) | origins_of(own) | trusted
