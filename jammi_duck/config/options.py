"""All options: type, key in `jammi.toml`, default and meaning."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, ValidationError, convert

from jammi_duck.config.cache import default_cache_dir
from jammi_duck.config.redaction import is_secret_name, public_url, redacted, secrets_of, split_user
from jammi_duck.errors import ConfigError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
# What a model is named by.
MODEL_NAME = "PROVIDER:NAME, a name on the Hugging Face hub, such as 'org/model', or the path of a directory"

# Of the cache of vectors: there is none.
OFF = "off"

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(seconds?|minutes?|hours?|days?|weeks?|[smhdw])")
_UNITS = {unit[0]: unit for unit in ("seconds", "minutes", "hours", "days", "weeks")}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgt])(i?))?b", re.IGNORECASE)
_PORT = r"(\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
_QUERY = re.compile(r"://[^?]*\?")
# A URL of a remote store with a slip in it, or `Path("s3://bucket")`, which has one slash less.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_ALMOST_URL = re.compile(r"(s3|gs|gcs|az|abfs|memory)(?::/?(?!/)|//)(?P<rest>.*)", re.DOTALL)
_LONGEST = timedelta(days=36_500)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Options(dict[str, Any]):
    """Options for fsspec: a dict that shows no values."""

    def __repr__(self) -> str:
        return f"Options({', '.join(self)})"


@dataclass(frozen=True)
class Kind:
    """The allowed values of an option, in words, and a function that reads other ways of writing them."""

    must: str
    read: typing.Callable[[Any], object] = lambda value: value


def duration(text: str) -> timedelta | None:
    """`30s`, `5 minutes` or `7 days` as a time, or None if it is none that an option takes."""
    match = _DURATION.fullmatch(text.strip())
    try:
        found = timedelta(**{_UNITS[match[2][0]]: float(match[1])}) if match else None
    except OverflowError:
        return None
    return found if found is not None and found <= _LONGEST else None


def _duration(value: object) -> object:
    found = duration(value) if isinstance(value, str) else None
    if found is None:
        # msgspec would read a bare number as seconds.
        return None if isinstance(value, str) and value.strip().isdigit() else value
    return found


def _size(value: object) -> object:
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None:
        number, unit, binary = match.groups()
        value = int(float(number) * (1024 if binary else 1000) ** _POWERS[(unit or "").lower()])
    return None if isinstance(value, int) and value < 1 else value


def _options(value: object) -> object:
    return Options(value) if isinstance(value, Mapping) and all(isinstance(name, str) for name in value) else value


def _tables(value: object) -> object:
    if not isinstance(value, Mapping) or not all(isinstance(each, Mapping) for each in value.values()):
        return None
    return Options({str(name): Options(each) for name, each in value.items()})


def _location(value: object) -> object:
    text = str(value) if isinstance(value, Path) else value
    return None if isinstance(text, str) and _QUERY.search(text) else text


def is_url(model: str) -> bool:
    """Whether a text is a URL, by which no model is found; one in the arguments of a provider's model is none."""
    return "://" in model.partition("?")[0]


def _model(value: object) -> object:
    return None if isinstance(value, str) and is_url(value) else value


def _models(value: object) -> object:
    return None if isinstance(value, list | tuple) and None in map(_model, value) else value


def _path(value: object) -> object:
    return Path(os.path.expanduser(value)) if isinstance(value, str) and value.strip() else value


def _paths(value: object) -> object:
    return (
        [str(_path(each)) for each in value] if isinstance(value, list | tuple) and all(map(_is_path, value)) else value
    )


def _places(value: object) -> object:
    """Folders by their real paths, which links do not change afterwards, and the beginnings of URLs."""
    return list(map(_place, value)) if isinstance(value, list | tuple) and all(map(_is_path, value)) else value


def _place(value: str | Path) -> object:
    if "://" not in str(value):
        return os.path.realpath(os.path.expanduser(value))
    scheme, _, rest = str(value).partition("://")
    is_plain = _SCHEME.fullmatch(scheme) and scheme != "file" and not set(rest) & set("?#@ ") and "::" not in rest
    return value if is_plain and rest.strip("/") else None


def _is_path(value: object) -> bool:
    return isinstance(value, str | Path) and bool(str(value).strip())


_SOMETHING = Meta(pattern=r"^[^\0]*[^\s\0][^\0]*$")
_MOST = 2**31 - 1
Flag = Annotated[bool, Kind("true or false")]
Text = Annotated[str, _SOMETHING, Kind("a text that is not empty")]
Model = Annotated[str, _SOMETHING, Kind(f"{MODEL_NAME}; no URL", _model)]
Location = Annotated[str, _SOMETHING, Kind("a path, or a URL without a query string", _location)]
Count = Annotated[int, Meta(ge=1, le=_MOST), Kind("a whole number of at least 1")]
Threads = Annotated[int, Meta(ge=1, le=1024), Kind("a whole number of at least 1, and 1024 at most")]
Device = Annotated[int, Meta(ge=-1, le=_MOST), Kind("a whole number of at least -1")]
Fraction = Annotated[float, Meta(gt=0, le=1), Kind("a number above 0, and 1 at most")]
Size = Annotated[int | Literal["auto"], Kind("'auto', or a size such as '8 GB' or '8 GiB'", _size)]
Duration = Annotated[timedelta, Kind("a duration of at least 0, such as '7 days'", _duration)]
Folder = Annotated[Path, Kind("a path", _path)]
Cache = Annotated[Path, Kind(f"a path, or '{OFF}'", _path)]
Tables = Annotated[Options, Kind("a section for each provider, such as [providers.openai]", _tables)]
Modules = Annotated[
    tuple[Annotated[str, Meta(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$")], ...], Kind("a list of modules' names")
]
Table = Annotated[Options, Kind("a table of options", _options)]
Directories = Annotated[tuple[Annotated[str, _SOMETHING], ...], Kind("a list of paths", _paths)]
Places = Annotated[
    tuple[Annotated[str, _SOMETHING], ...],
    Kind("a list of folders, and of beginnings of URLs such as 'https://example.com/photos'", _places),
]
Pixels = Annotated[int, Meta(ge=1, le=178_000_000), Kind("a whole number of at least 1, and 178,000,000 at most")]
Bytes = Annotated[int, Kind("a size such as '32 MB' or '32 MiB'", _size)]
Models = Annotated[tuple[Annotated[str, _SOMETHING], ...], Kind("a list of models' names, no URLs", _models)]
Sources = Annotated[tuple[Annotated[str, _SOMETHING], ...], Kind("a list of sources' names", _models)]
Address = Annotated[str, Meta(pattern=rf"^\S*:{_PORT}$"), Kind("a host and a port, such as '0.0.0.0:8080'")]
Precision = Annotated[Literal["auto", "float32", "bfloat16", "int8"], Kind("one of auto, float32, bfloat16, int8")]
EngineName = Annotated[Literal["auto", "native", "torch"], Kind("one of auto, native, torch")]
Level = Annotated[Literal["debug", "info", "warning", "error"], Kind("one of debug, info, warning, error")]
Format = Annotated[Literal["text", "json"], Kind("one of text, json")]


@dataclass(frozen=True)
class Key:
    """The key of an option in `jammi.toml`, whose first part is the section, its meaning, and another key it has."""

    key: str
    about: str
    also: str | None = None


@dataclass(frozen=True, kw_only=True)
class Config:
    """The checked options of one installation; `config.settings.load` reads them from all places that can set them."""

    storage: Annotated[
        Location, Key("storage.location", "where embedding tables are stored: a path, or s3://bucket/prefix")
    ] = "./artifacts"
    storage_options: Annotated[Table, Key("storage.options", "options of fsspec for the location, such as keys")] = (
        field(default_factory=Options)
    )
    database: Annotated[Text, Key("storage.database", "the database file that the command line opens")] = (
        "jammi_duck.duckdb"
    )
    segment_rows: Annotated[Count, Key("storage.segment_rows", "rows in one Parquet file")] = 500_000
    retention: Annotated[Duration, Key("storage.retention", "how long a vacuum keeps unused files")] = timedelta(days=7)
    follow: Annotated[Duration, Key("storage.follow", "how long changes by other processes may go unnoticed")] = (
        timedelta(seconds=2)
    )
    cache_dir: Annotated[Folder, Key("storage.cache_dir", "where copies of remote files are cached")] = field(
        default_factory=default_cache_dir
    )
    model: Annotated[Model, Key("inference.model", "the default model")] = DEFAULT_MODEL
    batch_size: Annotated[Count, Key("inference.batch_size", "texts of full length in one forward pass")] = 32
    engine: Annotated[
        EngineName, Key("inference.engine", "auto is native on a CPU, and torch for what that does not compute")
    ] = "auto"
    precision: Annotated[
        Precision, Key("inference.precision", "auto is bfloat16 if the hardware supports it, or else int8")
    ] = "auto"
    threads: Annotated[Threads | None, Key("inference.threads", "cores that models compute on; all by default")] = None
    max_loaded_models: Annotated[Count, Key("inference.max_loaded_models", "models that stay in memory")] = 3
    preload_models: Annotated[Models, Key("inference.preload_models", "models that install loads at once")] = ()
    models_path: Annotated[Directories, Key("models.path", "directories of models and wrappers")] = ()
    modules: Annotated[Modules, Key("models.modules", "modules that register embedding functions of your own")] = ()
    providers: Annotated[Tables, Key("providers", "the arguments of providers, such as keys")] = field(
        default_factory=Options
    )
    vectors_cache: Annotated[
        Cache | None, Key("cache.vectors", "the file of what providers answered; by default in the cache's folder")
    ] = None
    images_allow: Annotated[
        Places, Key("images.allow", "folders and URLs from which pictures may be read; none by default")
    ] = ()
    images_max_pixels: Annotated[Pixels, Key("images.max_pixels", "the most pixels of a picture")] = 50_000_000
    images_max_bytes: Annotated[Bytes, Key("images.max_bytes", "the largest file of a picture")] = 32_000_000
    device: Annotated[Device | None, Key("gpu.device", "the CUDA device, -1 for the CPU; the first by default")] = None
    gpu_memory_limit: Annotated[Size, Key("gpu.memory_limit", "the most GPU memory to use")] = "auto"
    gpu_memory_fraction: Annotated[
        Fraction, Key("gpu.memory_fraction", "the largest share of the GPU's memory to use")
    ] = 0.9
    log_level: Annotated[Level, Key("logging.level", "the lowest level that is logged")] = "info"
    log_format: Annotated[Format, Key("logging.format", "the format of a log line")] = "text"
    flight_listen: Annotated[Address, Key("server.flight_listen", "where Flight SQL is served")] = "127.0.0.1:8081"
    http_listen: Annotated[Address, Key("server.http_listen", "where HTTP is served", also="server.health_listen")] = (
        "127.0.0.1:8080"
    )
    quack_listen: Annotated[
        Address | None, Key("server.quack_listen", "where Quack, DuckDB's own protocol, is served; nowhere by default")
    ] = None
    server_preload_models: Annotated[
        Models, Key("server.preload_models", "models that are loaded before the server is ready")
    ] = ()
    server_follow: Annotated[
        Duration, Key("server.follow", "how long changes by other processes may go unnoticed by the server")
    ] = timedelta(seconds=5)
    server_refresh: Annotated[
        Sources, Key("server.refresh", "sources that the server refreshes in the background, every server.follow")
    ] = ()
    snapshot: Annotated[
        Flag, Key("server.snapshot", "serve a private copy of the database file, so that others may write to it")
    ] = False
    allow_write: Annotated[
        Flag, Key("server.allow_write", "let tokens with the role admin generate, refresh, compact, import and drop")
    ] = False
    tokens: Annotated[Folder | None, Key("server.tokens", "the file of tokens that `jammi-duck token` makes")] = None
    allow_anonymous: Annotated[
        Flag, Key("server.allow_anonymous", "let anybody in who reaches the server, wherever it listens")
    ] = False
    tls_certificate: Annotated[
        Folder | None, Key("server.tls_certificate", "the server's certificates, a PEM file")
    ] = None
    tls_key: Annotated[Folder | None, Key("server.tls_key", "the key of the certificate, a PEM file")] = None
    tls_client_ca: Annotated[
        Folder | None, Key("server.tls_client_ca", "whose certificates clients must have, a PEM file")
    ] = None
    max_queries: Annotated[Count, Key("server.max_queries", "queries that run at once")] = 16
    max_waiting: Annotated[Count, Key("server.max_waiting", "queries that wait for others before one is refused")] = 128
    query_timeout: Annotated[Duration, Key("server.query_timeout", "how long a query may take")] = timedelta(minutes=5)
    idle_timeout: Annotated[
        Duration, Key("server.idle_timeout", "how long an unused prepared statement or session is kept")
    ] = timedelta(hours=1)
    max_result_rows: Annotated[
        Count | None, Key("server.max_result_rows", "rows of one result; no limit by default")
    ] = None
    max_result_bytes: Annotated[Size, Key("server.max_result_bytes", "bytes of one result; auto is no limit")] = "auto"
    drain: Annotated[Duration, Key("server.drain", "how long running queries may go on when the server ends")] = (
        timedelta(seconds=30)
    )
    # No option, since nobody sets it: of the wrappers in `models_path`, only those of these names may run; None is all.
    wrappers: tuple[str, ...] | None = None
    # Likewise: the providers whose place a file in the working directory has named; they get no key of the user's.
    foreign_providers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check and normalise; a user in the location's URL moves to the options, under fsspec's names.

        Raises:
            ConfigError: naming the option, its value, and what it may be.
        """
        for option in options().values():
            object.__setattr__(self, option.name, option.checked(getattr(self, option.name), option.name))
        almost = _ALMOST_URL.fullmatch(self.storage)
        if almost is not None:
            meant = redacted(public_url(f"{almost[1]}://{almost['rest']}"))
            raise ConfigError(
                f"storage is a path that is almost a URL; did you mean '{meant}'? A local folder of that name is "
                "written with './' before it"
            )
        location, user, password = split_user(self.storage)
        if user or password:
            names = ("key", "secret") if location.startswith("s3:") else ("username", "password")
            given = {name: text for name, text in zip(names, (user, password), strict=True) if text}
            object.__setattr__(self, "storage", location)
            object.__setattr__(self, "storage_options", Options({**given, **self.storage_options}))

    @property
    def secrets(self) -> frozenset[str]:
        """The values to hide; for `jammi_duck.config.redaction.redacted`."""
        return secrets_of(self.storage_options) | frozenset(
            text for each in self.providers.values() for name, text in each.items() if _is_key(name, text)
        )

    @property
    def vectors_path(self) -> Path | None:
        """The file of the vectors that providers have answered; None if there is to be none."""
        if self.vectors_cache == Path(OFF):
            return None
        return self.vectors_cache or self.cache_dir / "vectors.sqlite"

    @property
    def gpu_memory(self) -> int | float:
        """The most GPU memory to use: a number of bytes (int), or a fraction of the GPU's memory (float)."""
        return self.gpu_memory_fraction if self.gpu_memory_limit == "auto" else self.gpu_memory_limit


def _is_key(name: str, value: object) -> bool:
    """Whether an argument of a provider is a secret, and no placeholder for one."""
    return isinstance(value, str) and len(value) >= 4 and "$" not in value and is_secret_name(name)


def variable(key: str) -> str:
    """The environment variable of a key."""
    return "JAMMI_" + key.upper().replace(".", "__")


@dataclass(frozen=True)
class Option:
    """A field of `Config`: `name` is its name there and as an argument, `key` and `also` its keys in `jammi.toml`."""

    name: str
    key: str
    also: str | None
    about: str
    kind: Kind
    type: Any
    default: Any

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable(self.key)

    @property
    def is_secret(self) -> bool:
        """Whether its value must be hidden."""
        return isinstance(self.default, Options)

    def checked(self, value: Any, where: str, *, text: bool = False) -> Any:  # noqa: ANN401 - of any type
        """The value, converted to the type in `Config`. With `text`, a number may be given as text.

        Raises:
            ConfigError: the value is not allowed; the message says `where` it was set.
        """
        if value is None and self.default is None:
            return None
        try:
            converted = convert(self.kind.read(value), self.type, strict=not text)
            is_good = _in_range(converted)
        except (ValidationError, OverflowError, UnicodeError):
            is_good = False
        if not is_good:
            raise ConfigError(f"{where} is {self._shown(value)}; it must be {self.kind.must}")
        return converted

    def _shown(self, value: object) -> str:
        """A wrong value, in a form that an error may show."""
        if self.is_secret or isinstance(value, dict):
            return "wrong"
        return redacted(repr(public_url(value) if isinstance(value, str) else value))


def _in_range(value: object) -> bool:
    """What types cannot express: a duration must fit into dates, and a text must be UTF-8."""
    if isinstance(value, timedelta):
        return timedelta(0) <= value <= _LONGEST
    if isinstance(value, str):
        value.encode()
    return True


@functools.cache
def options() -> dict[str, Option]:
    """All options by name."""
    hints = typing.get_type_hints(Config, include_extras=True)
    found = {}
    for each in dataclasses.fields(Config):
        if not hasattr(hints[each.name], "__metadata__"):
            continue
        default = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        key = next(part for part in hints[each.name].__metadata__ if isinstance(part, Key))
        kind = _kind(hints[each.name])
        found[each.name] = Option(each.name, key.key, key.also, key.about, kind, hints[each.name], default)
    return found


def _kind(hint: Any) -> Kind:  # noqa: ANN401 - there is no type of annotations
    """The Kind of a type, or of the one beside None in it."""
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, Kind):
            return part
    return next(_kind(inner) for inner in typing.get_args(hint) if inner is not type(None))
