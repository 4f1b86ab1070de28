"""Decides which options are used for a location, so that no secrets are sent to a location that somebody else set.

A working directory may come from anywhere, and a `jammi.toml` with it. Its options for a location (keys, an endpoint,
the cache folder, the retention) are used only for its own location, and keys are never used for a location that was
set in a less trusted place. Tables of options are never merged, because one may hold a key, and another an endpoint.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from jammi_duck.config.options import Options, options
from jammi_duck.config.redaction import is_secret_name, public_url, split_user
from jammi_duck.errors import ConfigError

OF_LOCATION = ("storage_options", "retention", "cache_dir")
_KEYS = "storage_options"
# What a file in the working directory cannot raise.
_LIMITS = ("max_requests", "max_tokens")
_MODELS = ("model", "preload_models", "server_preload_models")
_LOCAL = ("file", "local", "memory")


class Trust(IntEnum):
    """The places that set options, the most trusted first."""

    ARGUMENT = 0
    ENVIRONMENT = 1
    USER = 2
    MACHINE = 3
    FOLDER = 4


@dataclass(frozen=True)
class Given:
    """An option's value, and where it came from."""

    value: Any
    origin: object


@dataclass(frozen=True)
class Layer:
    """The options that one place sets, by their names in `Config`."""

    trust: Trust
    options: Mapping[str, Given]


def settle_layers(layers: Sequence[Layer]) -> tuple[dict[str, Given], list[str]]:
    """The options in `OF_LOCATION` that are used, and a line for each that is not.

    The layers are in order of precedence, beginning with the arguments.

    Raises:
        ConfigError: the working directory's file sets a kind of location that it may not set, or arguments do not
            belong to the location.
    """
    giving = next((layer for layer in layers if "storage" in layer.options), None)
    if giving and giving.trust is Trust.FOLDER:
        _refuse_other(giving.options["storage"])
    chosen: dict[str, Given] = {}
    unused: list[str] = []
    for name in OF_LOCATION:
        for layer in (each for each in layers if name in each.options):
            given = layer.options[name]
            if not _goes_with(name, layer, giving):
                unused.append(_told(name, layer, giving))
            elif name not in chosen:
                chosen[name] = given
                if name == _KEYS and layer.trust is Trust.FOLDER and not _has_keys(given, giving):
                    chosen[name] = Given(Options({**given.value, "anon": True}), given.origin)
                    unused.append(f"this machine's keys for AWS are not used with storage.options of {given.origin}")
            elif name == _KEYS and name not in layers[0].options:
                unused.append(f"storage.options of {given.origin} is not added to that of {chosen[name].origin}")
    return chosen, unused


def settle_providers(layers: Sequence[Layer]) -> tuple[Options, tuple[str, ...]]:
    """The arguments of each provider, from the nearest place that gives any, and the providers without the user's keys.

    The latter are those for which the working directory's file says where they are: a key would be sent there. Such a
    file does not take the user's limits away.

    Raises:
        ConfigError: the file there names a variable of the user's where it would be sent elsewhere than as a key.
    """
    chosen: dict[str, Any] = {}
    foreign: list[str] = []
    for layer in reversed([each for each in layers if "providers" in each.options]):
        given = layer.options["providers"]
        for name, arguments in given.value.items():
            if layer.trust is not Trust.FOLDER:
                chosen[name] = arguments
                continue
            _refuse_variables(given, name, arguments)
            before = chosen.get(name, {})
            if _says_where(arguments):
                foreign.append(name)
                before = {key: value for key, value in before.items() if key in _LIMITS}
            limits = {key: value for key, value in before.items() if key in _LIMITS}
            chosen[name] = Options({**before, **arguments, **limits})
    return Options(chosen), tuple(foreign)


def _says_where(arguments: Mapping[str, Any]) -> bool:
    """Whether arguments say where a provider is: by a URL, however it is put together."""
    return any(":/" in text or "//" in text for text in texts_of(arguments)) or "base_url" in arguments


def _refuse_variables(given: Given, name: str, arguments: Mapping[str, Any]) -> None:
    for key, value in arguments.items():
        has_variable = any("$" in text for text in texts_of(value))
        if has_variable and (_says_where(arguments) or not is_secret_name(key)):
            raise ConfigError(
                f"{given.origin}: {key} of [providers.{name}] has a '$…' for a value of yours: a file in the working "
                "directory may come from anywhere, and would get it. Only a key may be one, and only where the file "
                "does not say where the provider is. Give both in your own jammi.toml, or by JAMMI_PROVIDERS"
            )


def places_of(arguments: Mapping[str, Any]) -> set[str]:
    """The URLs in arguments, by which something is sent to a place."""
    return {text for text in texts_of(arguments) if "://" in text}


def origins_of(arguments: Mapping[str, Any]) -> set[str]:
    """The same, each with its scheme, host and port alone."""
    found = set()
    for text in places_of(arguments):
        scheme, _, rest = split_user(text)[0].partition("://")
        found.add(f"{scheme}://{re.split(r'[/?#]', rest, maxsplit=1)[0]}".lower())
    return found


def texts_of(value: object) -> Iterator[str]:
    """All texts within a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from texts_of(each)


def runs_no_code(layers: Sequence[Layer]) -> bool:
    """Whether the working directory's file chooses the directories of models: what lies there is data, and no code."""
    giving = next((layer for layer in layers if "models_path" in layer.options), None)
    return giving is not None and giving.trust is Trust.FOLDER


def refuse_from_folder(layers: Sequence[Layer]) -> None:
    """Raise ConfigError if the working directory's file runs code, names a file that is written, or has others read."""
    _refuse_places(layers)
    for name in _MODELS:
        giving = next((layer for layer in layers if name in layer.options), None)
        if giving is not None and giving.trust is Trust.FOLDER:
            for model in texts_of(giving.options[name].value):
                if set(model.partition("?")[2]) & set("/$%"):
                    raise ConfigError(
                        f"{giving.options[name].origin}: a file in the working directory may name a provider's model, "
                        "and not say where it is; give its arguments in your own jammi.toml"
                    )
    for name in ("modules", "vectors_cache"):
        giving = next((layer for layer in layers if name in layer.options), None)
        if giving is not None and giving.trust is Trust.FOLDER:
            raise ConfigError(
                f"{giving.options[name].origin}: {options()[name].key} is not taken from a file in the working "
                "directory, which may come from anywhere; set it in your own jammi.toml, or by "
                f"{options()[name].variable}"
            )


def _refuse_places(layers: Sequence[Layer]) -> None:
    """Raise ConfigError if the working directory's file lets pictures be read from elsewhere."""
    giving = next((layer for layer in layers if "images_allow" in layer.options), None)
    if giving is None or giving.trust is not Trust.FOLDER:
        return
    given, here = giving.options["images_allow"], os.path.realpath(os.curdir)
    for place in given.value:
        if "://" in place or os.path.commonpath([place, here]) != here:
            raise ConfigError(
                f"{given.origin}: a file in the working directory may allow folders in it, and not '{place}'; allow "
                "others in your own jammi.toml, by JAMMI_IMAGES__ALLOW, or as images_allow of install"
            )


def _goes_with(name: str, layer: Layer, giving: Layer | None) -> bool:
    """Whether a layer's option is used for the location that `giving` sets; None is the default location."""
    if giving is None or layer is giving:
        return True
    if layer.trust is Trust.FOLDER:
        return False
    location = str(giving.options["storage"].value)
    if name != _KEYS or _is_local(location):
        return True
    # A location with a user in its URL has its own keys.
    return giving.trust < layer.trust and split_user(location) == (location, None, None)


def _is_local(location: str) -> bool:
    return "://" not in location or location.partition("://")[0] in _LOCAL


def _told(name: str, layer: Layer, giving: Layer | None) -> str:
    """The reason why a layer's option is not used. Raises ConfigError if it is an argument."""
    location = giving.options["storage"] if giving else Given("", "")
    shown = public_url(str(location.value))
    if layer.trust is Trust.ARGUMENT:
        raise ConfigError(
            f"{name} is given for '{shown}', which {location.origin} names: secrets go to no location that somebody "
            "else has named; give storage, too"
        )
    return (
        f"{options()[name].key} of {layer.options[name].origin} is not used for '{shown}', which {location.origin} "
        "names; give both in one place"
    )


def _refuse_other(location: Given) -> None:
    text = str(location.value)
    if not (_is_local(text) or text.startswith("s3://")) or ("://" in text and "::" in text):
        raise ConfigError(
            f"{location.origin}: a file in the working directory may name a path or s3://bucket/prefix, not "
            f"'{public_url(text)}'; give others as an argument, by JAMMI_STORAGE__LOCATION, or in your own jammi.toml"
        )


def _has_keys(given: Given, giving: Layer | None) -> bool:
    """Whether the working directory's options include keys. Without any, s3fs would sign with the keys of this machine.

    With only a key and no secret, it refuses to sign.
    """
    location = str(giving.options["storage"].value) if giving else ""
    return any((given.value.get("key"), given.value.get("secret"), *split_user(location)[1:]))
