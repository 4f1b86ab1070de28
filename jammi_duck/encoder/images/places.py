"""Where pictures may be read from: only from folders and URLs that the user has listed, and never more than a limit."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

from jammi_duck.config.redaction import public_url
from jammi_duck.errors import EncodingError, InputError, JammiError
from jammi_duck.regular_files import open_regular

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from jammi_duck.config.options import Config

# How long a server may take for one picture.
_SECONDS = 30.0
_STEP = 1 << 20
_WEB = ("http", "https")
# What programs may read in several ways, or as a URL in a URL.
_ODD = re.compile(r"[\x00-\x1f\x7f\\]|::")


@dataclass(frozen=True)
class PictureLimits:
    """The options of `[images]`: where pictures may be read from, and how large one may be."""

    allow: Sequence[str] = ()
    max_pixels: int = 50_000_000
    max_bytes: int = 32_000_000

    @classmethod
    def of(cls, config: Config) -> PictureLimits:
        """Those of a configuration."""
        return cls(config.images_allow, config.images_max_pixels, config.images_max_bytes)


class Places:
    """Reads files from the places that are allowed: folders by their real paths, URLs by how they begin."""

    def __init__(self, limits: PictureLimits) -> None:
        """Nothing is looked up."""
        self._folders = [place for place in limits.allow if "://" not in place]
        self._urls = [place.rstrip("/") for place in limits.allow if "://" in place]
        self._most = limits.max_bytes

    def read(self, name: str) -> bytes:
        """The content of a file, by its path or its URL.

        Raises:
            InputError: it is in no place that is allowed, too large, or cannot be read.
            EncodingError: no place is allowed at all.
        """
        if not self._folders and not self._urls:
            raise EncodingError(
                f"'{public_url(name)}' is a path or a URL, and pictures are read from no place that is not listed: set "
                f'[images] allow = ["{_place_of(name)}"] in your own jammi.toml, or images_allow=[...] of install; '
                "pictures in a BLOB column need no place"
            )
        try:
            with self._opened(name) as file:
                return self._content(file, name)
        except JammiError:
            raise
        except Exception as error:
            raise InputError(f"'{public_url(name)}' cannot be read: {_reason(error)}") from error

    def _content(self, file: Any, name: str) -> bytes:  # noqa: ANN401 - a file, or a stream of fsspec
        parts, size = [], 0
        # A stream may give less than it is asked for.
        while part := file.read(_STEP):
            size += len(part)
            if size > self._most:
                raise InputError(f"'{public_url(name)}' has more than {self._most:,} bytes ([images] max_bytes)")
            parts.append(part)
        return b"".join(parts)

    def _opened(self, name: str) -> Any:  # noqa: ANN401 - a context with a file in it
        if name.startswith("file://"):
            name = unquote(name.removeprefix("file://"))
        return self._remote(name) if "://" in name else self._local(name)

    def _local(self, name: str) -> BinaryIO:
        self._check_folder(os.path.realpath(name), name)
        file = open_regular(name)
        # A link may have been put there since.
        try:
            self._check_folder(os.path.realpath(f"/proc/self/fd/{file.fileno()}"), name)
        except BaseException:
            file.close()
            raise
        return file

    def _check_folder(self, path: str, name: str) -> None:
        if not any(_is_inside(path, folder) for folder in self._folders):
            raise self._refusal(name)

    @contextmanager
    def _remote(self, url: str) -> Iterator[Any]:
        if not self._is_allowed(url):
            raise self._refusal(url)
        if urlsplit(url).scheme not in _WEB:
            filesystem = _filesystem(urlsplit(url).scheme)
            yield io.BytesIO(filesystem.cat_file(url, start=0, end=self._most + 1))
            return
        # A size spares a request for it, and blocks of 0 are a plain stream.
        with _web().open(url, "rb", size=1, block_size=0) as file:
            if file.r.status >= 300:
                raise InputError(f"'{public_url(url)}' cannot be read: the server redirects, which is not followed")
            yield file

    def _is_allowed(self, url: str) -> bool:
        """Whether a URL begins with an allowed one, and does not lead out of it."""
        path = unquote(unquote(url.partition("://")[2]))
        if _ODD.search(url) or "\\" in path or not {".", ".."}.isdisjoint(path.split("/")):
            return False
        return any(url == place or url.startswith(f"{place}/") for place in self._urls)

    @staticmethod
    def _refusal(name: str) -> InputError:
        # It does not say what is listed: whoever asks may be a client of a server.
        return InputError(
            f"'{public_url(name)}' is in no place that pictures may be read from; if it is to be, add "
            f'"{_place_of(name)}" to [images] allow'
        )


def _is_inside(path: str, folder: str) -> bool:
    """Whether a real path is that of a folder, or of something in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _place_of(name: str) -> str:
    """What would have to be allowed for a file to be read."""
    url = public_url(name)
    return url.rpartition("/")[0] if "://" in name else os.path.dirname(os.path.realpath(name))


def _filesystem(scheme: str) -> AbstractFileSystem:
    import fsspec

    try:
        return fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise EncodingError(f"pictures cannot be read from {scheme}://: {error}") from error


def _web() -> AbstractFileSystem:
    """As a server could lead to any other place, it is not followed; it has so many seconds."""
    try:
        import aiohttp
        from fsspec.implementations.http import HTTPFileSystem
    except ImportError as error:
        raise EncodingError("pictures by URL need aiohttp: pip install 'jammi-duck[images]'") from error
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    return HTTPFileSystem(allow_redirects=False, client_kwargs={"timeout": timeout})


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return public_url(getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__)
