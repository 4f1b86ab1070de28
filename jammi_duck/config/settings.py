"""Reads the options: from arguments, then the environment, then `jammi.toml`, then the defaults.

The file is read from the working directory, the user's configuration directory, and /etc/jammi. If there are several,
each option is taken from the first that sets it, except those that belong to a location (`trust.py`). A variable is
named after its key: `inference.batch_size` is `JAMMI_INFERENCE__BATCH_SIZE`. Lists and tables are given as JSON. An
unknown key is an error, and so is a value of the wrong kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jammi_duck.config.options import Config, Option, Options, options, variable
from jammi_duck.config.trust import (
    OF_LOCATION,
    Given,
    Layer,
    Trust,
    refuse_from_folder,
    runs_no_code,
    settle_layers,
    settle_providers,
)
from jammi_duck.errors import ConfigError, did_you_mean, nearest
from jammi_duck.regular_files import open_regular

FILE = "jammi.toml"
# The encoder reads this one, in tests.
_NO_OPTION = "JAMMI_KERNELS"
PREFIX = "JAMMI_"
DEFAULT, ARGUMENT = "default", "argument"

_BY_KEY = {key: option for option in options().values() for key in (option.key, option.also) if key}
_SECTIONS = list(dict.fromkeys(key.partition(".")[0] for key in _BY_KEY))
_SECRETS = options()["storage_options"]
_FILES = (Trust.FOLDER, Trust.USER, Trust.MACHINE)
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Settings:
    """A checked configuration, the origin of each option by its name in `Config`, and the options that are not used."""

    config: Config
    origins: Mapping[str, object] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def is_set(self, name: str) -> bool:
        """Whether the option was set, and is not the default."""
        return name in self.origins

    def origin(self, name: str) -> str:
        """`default`, `argument`, the variable's name, or the file and the line."""
        return str(self.origins.get(name, DEFAULT))


def load(given: Mapping[str, object] | None = None) -> Settings:
    """The current configuration; `given` contains arguments by their names in `Config`.

    Raises:
        ConfigError: a file cannot be read, a key is unknown, or a value is not allowed; the message says where it was
            set.
    """
    layers = _layers(given or {})
    found = {name: each for layer in reversed(layers) for name, each in layer.options.items()}
    chosen, unused = settle_layers(layers)
    found = {name: each for name, each in found.items() if name not in OF_LOCATION} | chosen
    values: dict[str, Any] = {name: each.value for name, each in found.items()}
    refuse_from_folder(layers)
    if "providers" in values:
        values["providers"], values["foreign_providers"] = settle_providers(layers)
    if runs_no_code(layers):
        values["wrappers"] = ()
    return Settings(Config(**values), {name: each.origin for name, each in found.items()}, tuple(unused))


def _layers(given: Mapping[str, object]) -> list[Layer]:
    """All places that set options, in order of precedence."""
    arguments = Layer(Trust.ARGUMENT, {name: Given(value, ARGUMENT) for name, value in given.items()})
    folder, *own = (Layer(trust, _table(_from_file(path, trust))) for path, trust in zip(paths(), _FILES, strict=True))
    if os.path.realpath(paths()[0]) in map(os.path.realpath, paths()[1:]):
        # The working directory may itself be the user's or the machine's configuration directory.
        folder = Layer(Trust.FOLDER, {})
    return [arguments, Layer(Trust.ENVIRONMENT, _table(_from_environment(os.environ))), folder, *own]


def _table(found: Iterable[tuple[Option, Any, object]]) -> dict[str, Given]:
    """Options by their names; tables of one place are merged."""
    table: dict[str, Given] = {}
    for option, value, origin in found:
        if option is _SECRETS and option.name in table:
            before = table[option.name]
            table[option.name] = Given(Options({**before.value, **value}), _Several(origin, before.origin))
        else:
            table[option.name] = Given(value, origin)
    return table


def paths() -> list[Path]:
    """The paths where `jammi.toml` is looked for, the nearest first, whether they exist or not."""
    home = Path(os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config"))
    return [Path.cwd() / FILE, home / "jammi" / FILE, Path("/etc/jammi") / FILE]


def _from_file(path: Path, trust: Trust) -> Iterator[tuple[Option, Any, object]]:
    """The options that a file sets; none if it does not exist."""
    try:
        text = _read(path, trust)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"cannot read the configuration file {path}: {reason}") from error
    # Imported here, because most users have no file.
    import tomllib

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # RecursionError is for values that are nested a thousand times.
        raise ConfigError(f"the configuration file {path} is no TOML: {error}") from None
    for key, value in _leaves(document):
        place = _Place(path, text, key)
        if key in _SECTIONS and not (key in _BY_KEY and isinstance(value, dict)):
            raise ConfigError(f"{place}: {key} must be a section; write [{key}] above its options")
        if "." not in key and isinstance(value, dict) and key not in _BY_KEY:
            raise ConfigError(f"{place}: there is no section [{key}]{_nearest_section(key)}")
        if key not in _BY_KEY:
            raise ConfigError(f"{place}: there is no option {key!r}{_nearest(key, _BY_KEY)}")
        option = _BY_KEY[key]
        try:
            checked = option.checked(value, key)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        yield option, checked, place


def _read(path: Path, trust: Trust) -> str:
    """A file's text. In the working directory, it must belong to the user, as git requires of a repository."""
    with open_regular(path) as file:
        owner = os.fstat(file.fileno()).st_uid
        if trust is Trust.FOLDER and owner not in (0, os.geteuid()):
            raise ConfigError(
                f"the configuration file {path} belongs to another user (uid {owner}), so it is not used: run "
                "elsewhere, or make it yours (chown), if you know what is in it"
            )
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"the configuration file {path} is larger than {_MOST_BYTES} bytes")
    return content.decode("utf-8-sig")


def _leaves(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys of a file, as `section.key`; keys outside of a section unchanged."""
    for section, content in document.items():
        if isinstance(content, dict) and section in _SECTIONS and section not in _BY_KEY:
            yield from ((f"{section}.{key}", value) for key, value in content.items())
        else:
            yield section, content


@dataclass(frozen=True)
class _Several:
    """Two origins of the options in one table."""

    nearer: object
    farther: object

    def __str__(self) -> str:
        return f"{self.nearer}, {self.farther}"


@dataclass(frozen=True)
class _Place:
    """A key in a file; as a text, it is the file and the line, which is searched only then."""

    path: Path
    # There may be secrets in it.
    text: str = field(repr=False)
    key: str

    def __str__(self) -> str:
        return f"{self.path}:{self._line()}"

    def _line(self) -> int:
        """The line on which the key begins: the lines before it are valid TOML without the key."""
        lines = self.text.split("\n")
        without, beyond = 0, len(lines)
        while beyond - without > 1:
            middle = end = (without + beyond) // 2
            # Within a multi-line text or list, the lines so far are not valid TOML.
            while (found := _keys("\n".join([*lines[:end], ""]))) is None and end < beyond:
                end += 1
            if found is None or self.key in found:
                beyond = middle
            else:
                without = end
        return without + 1


def _keys(text: str) -> set[str] | None:
    """The keys in a file, or None if it is not TOML."""
    import tomllib

    try:
        return {name for name, _ in _leaves(tomllib.loads(text))}
    except (ValueError, RecursionError):
        return None


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[Option, Any, str]]:
    """The options that variables set; each key of a table may have its own variable."""
    variables = {variable(key): option for key, option in _BY_KEY.items()}
    for name in sorted(environment):
        upper = name.upper()
        if not upper.startswith(PREFIX) or name == _NO_OPTION:
            continue
        try:
            environment[name].encode()
        except UnicodeEncodeError:
            raise ConfigError(f"the environment variable {name} is not UTF-8") from None
        if upper in variables:
            option = variables[upper]
            yield option, option.checked(_read_variable(option, name, environment[name]), name, text=True), name
        elif upper.startswith(f"{_SECRETS.variable}__"):
            inner = name[len(_SECRETS.variable) + 2 :].lower()
            yield _SECRETS, Options({inner: _read_inner(environment[name])}), name
        else:
            raise ConfigError(f"the environment variable {name} sets no option{_nearest(upper, variables)}")


def _read_variable(option: Option, name: str, text: str) -> object:
    """A variable's value: JSON if the option is a list or a table, otherwise the text."""
    import json

    if not isinstance(option.default, tuple | dict):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        shown = "" if option.is_secret else f", not {text!r}"
        raise ConfigError(f"{name} must be {option.kind.must}, as JSON{shown}") from None


def _read_inner(text: str) -> object:
    """The value of an option of fsspec: JSON if it is a table, a list, true or false, otherwise the text."""
    import json

    if text[:1] not in ("{", "[") and text not in ("true", "false"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _nearest_section(wrong: str) -> str:
    return did_you_mean(wrong, _SECTIONS) or f"; there are: {', '.join(_SECTIONS)}"


def _nearest(wrong: str, known: Iterable[str]) -> str:
    """A suggestion: a similar name in the same section, or one with the same last part; otherwise all names."""
    names = {_parts(name): name for name in known}
    section, last = _parts(wrong)
    # An option of no section is near to none of another's.
    inside = {parts[1]: name for parts, name in names.items() if section and parts[0] == section}
    candidates = inside or {parts[1]: name for parts, name in names.items()}
    near = nearest(last, candidates)
    if near is not None:
        return f"; did you mean '{candidates[near]}'?"
    return f"; there are: {', '.join(inside.values())}" if inside else f"; sections are: {', '.join(_SECTIONS)}"


def _parts(name: str) -> tuple[str, str]:
    """The section and the rest of a key or of a variable, in lower case."""
    section, _, last = name.removeprefix(PREFIX).lower().replace("__", ".").rpartition(".")
    return section, last
