"""Opens the store of a location, which is a local path or a URL that fsspec supports."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jammi_duck.config.redaction import public_url, redacted, secrets_of
from jammi_duck.errors import StorageError
from jammi_duck.storage.files.local_store import LocalStore
from jammi_duck.storage.files.object_store import ObjectStore
from jammi_duck.storage.files.store import Store

if TYPE_CHECKING:
    from pathlib import Path


def open_store(location: str, cache_dir: Path, options: Mapping[str, Any] | None = None) -> Store:
    """The store at a local path or an fsspec URL; nothing is created or contacted yet.

    Raises:
        StorageError: the protocol is unknown, or its package is not installed.
    """
    protocol, _, rest = location.partition("://")
    if not rest and "://" not in location:
        return LocalStore(location)
    if protocol in ("file", "local"):
        if not os.path.isabs(rest):
            raise StorageError(f"the location '{location}' is not absolute; write {protocol}:///path, or a plain path")
        return LocalStore(rest)
    import fsspec

    secrets = secrets_of(options or {})
    extra = {"use_listings_cache": False, "skip_instance_cache": True} if protocol == "s3" else {}
    try:
        filesystem, root = fsspec.core.url_to_fs(location, **{**extra, **(options or {})})
    except (ImportError, ValueError, TypeError, OSError) as error:
        cure = "pip install 'jammi-duck[s3]'" if protocol == "s3" else "use a local path, s3:// or memory://"
        reason = redacted(str(error), secrets)
        raise StorageError(f"cannot open the location '{public_url(location)}': {reason}; {cure}") from None
    name = filesystem.unstrip_protocol(root).rstrip("/")
    return ObjectStore(name, filesystem, root, cache_dir, secrets)
