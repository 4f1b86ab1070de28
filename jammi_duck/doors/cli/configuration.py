"""The command `config`: every option, its value, and where it came from."""

from __future__ import annotations

import argparse
import json
from datetime import timedelta
from pathlib import Path

from jammi_duck.config.options import Option, Options, options
from jammi_duck.config.redaction import HIDDEN, redacted
from jammi_duck.config.settings import Settings, paths
from jammi_duck.doors.cli.commands import Commands, add_command, add_json
from jammi_duck.doors.cli.output import print_objects
from jammi_duck.doors.composition import engines

_CONFIG = """\
Show every option, its value, and where it came from.

  jammi-duck config
  jammi-duck config > my.toml    a file to start from

Options come from arguments, then from variables such as JAMMI_INFERENCE__BATCH_SIZE, then
from jammi.toml in the working directory, in the user's configuration directory and in
/etc/jammi. Secret values are hidden. Options that are not used, because the location was
set by somebody else, are listed with the reason. A line says what computes models here.
"""
_UNITS = ("days", "hours", "minutes", "seconds")


def add_to(commands: Commands) -> None:
    """Add the command."""
    add_json(add_command(commands, "config", _CONFIG, _config))


def _config(called: argparse.Namespace) -> None:
    settings: Settings = called.settings
    if called.json:
        print_objects(_row(settings, option) for option in options().values())
        return
    print("# Options that are not set are comments, with their defaults. The first file that sets an option wins:")
    for path in paths():
        print(f"#   {path}{'' if path.is_file() else ' (not there)'}")
    for line in settings.unused:
        print(f"# Not used: {line}")
    print(f"# Models are computed by the engine {engines(settings.config).in_words()}")
    section = ""
    for option in options().values():
        if option.key.partition(".")[0] != section:
            section = option.key.partition(".")[0]
            print(f"\n[{section}]")
        about = settings.origin(option.name) if settings.is_set(option.name) else option.about
        print(f"{_line(settings, option):<51} # {about}")


def _row(settings: Settings, option: Option) -> dict[str, object]:
    value = _plain(getattr(settings.config, option.name))
    return {"option": option.key, "value": value, "origin": settings.origin(option.name), "about": option.about}


def _line(settings: Settings, option: Option) -> str:
    """The option as `jammi.toml` would have it; in a comment where it is not set, or hidden."""
    value = getattr(settings.config, option.name)
    line = f"{option.key.partition('.')[2]} = {shown(value)}".rstrip()
    is_comment = value is None or isinstance(value, Options) or not settings.is_set(option.name)
    return f"# {line}" if is_comment else line


def shown(value: object) -> str:
    """A value as TOML has it, secrets hidden; nothing for None."""
    plain = _plain(value)
    if isinstance(plain, dict):
        return f"{{{', '.join(f'{json.dumps(name)} = {json.dumps(text)}' for name, text in plain.items())}}}"
    # JSON lets a DEL stand as it is, and TOML does not.
    return "" if plain is None else json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")


def _plain(value: object) -> object:
    """A value as JSON and TOML have it, secrets hidden."""
    if isinstance(value, Options):
        return dict.fromkeys(value, HIDDEN)
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, Path | str):
        return redacted(str(value))
    return list(value) if isinstance(value, tuple) else value


def _duration(value: timedelta) -> str:
    """`7 days`: in the largest unit of which it is a whole number."""
    unit = next((unit for unit in _UNITS if not value % timedelta(**{unit: 1})), "seconds")
    count = value / timedelta(**{unit: 1})
    return f"{count:.15g} {unit.removesuffix('s') if count == 1 else unit}"
