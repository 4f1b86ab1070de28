"""Finds the key of a provider among DuckDB's secrets, where these can be read."""

from __future__ import annotations

import re

from jammi_duck.sql import sql
from jammi_duck.types import Host

_WHICH = sql("SELECT name FROM which_secret(?, 'http')")
_MAY_READ = sql("SELECT current_setting('allow_unredacted_secrets')")
_SECRETS = sql("SELECT name, secret_string FROM duckdb_secrets(redact = false)")
_TOKEN = re.compile(r"(?:^|;)bearer_token=([^;]+)")


def bearer_token(host: Host, url: str) -> str | None:
    """The BEARER_TOKEN of the secret of the type `http` whose SCOPE is that of a URL.

    DuckDB shows it only to a database that was opened with `allow_unredacted_secrets`; otherwise there is none.
    """
    names = {name for (name,) in host.sql(_WHICH, [url])}
    ((may_read,),) = host.sql(_MAY_READ)
    if not names or not may_read:
        return None
    found = (_TOKEN.search(text) for name, text in host.sql(_SECRETS) if name in names)
    return next((match[1] for match in found if match), None)
