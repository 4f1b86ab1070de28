"""A dbt-duckdb plugin: models, hooks and tests of a dbt project call `embed`, `jammi_generate` and `jammi_search`.

plugins:
  - module: jammi_duck.dbt
    config:
      storage: ./artifacts
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dbt.adapters.duckdb.plugins import BasePlugin
from dbt_common.exceptions import DbtRuntimeError

from jammi_duck.doors.installation import install, unknown_option
from jammi_duck.errors import ConfigError, JammiError

if TYPE_CHECKING:
    import duckdb


class Plugin(BasePlugin):
    """Equips every connection that dbt opens; its `config:` takes the options of `install`."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Check the names of the options, before dbt opens the database.

        Raises:
            DbtRuntimeError: an option is unknown.
        """
        self._options = self._own_config(plugin_config)
        if not isinstance(self._options, Mapping):
            raise _shown(ConfigError("its config is no table; write `config:` and below it a line for each option"))
        unknown = unknown_option(self._options)
        if unknown is not None:
            raise _shown(ConfigError(unknown))

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Register the functions, which all cursors share."""
        self._install(conn)

    def configure_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Create the macros, which belong to one cursor."""
        self._install(cursor)

    def _own_config(self, merged: Mapping[str, Any]) -> Mapping[str, Any]:
        """The `config:` of this plugin as written, because dbt-duckdb adds DuckDB's `settings:` to it."""
        for definition in reversed((self.creds and self.creds.plugins) or []):
            if self.name == (definition.alias or definition.module.split(".")[-1]):
                return definition.config or {}
        return merged

    def _install(self, con: duckdb.DuckDBPyConnection) -> None:
        try:
            install(con, **self._options)
        except JammiError as error:
            raise _shown(error) from error


def _shown(error: JammiError) -> DbtRuntimeError:
    """The error as a DbtRuntimeError, of which dbt prints only the message."""
    return DbtRuntimeError(f"plugin jammi_duck.dbt in profiles.yml: {error}")
