"""The verbs by which searches are always current, as methods for Python."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from jammi_duck.background import BackgroundRefresh
from jammi_duck.errors import InputError
from jammi_duck.sql import folded, template
from jammi_duck.udfs.following import FollowedRow, UnfollowedRow

if TYPE_CHECKING:
    from jammi_duck.statements import Statements

_REFRESH = template('SELECT * FROM jammi_refresh({}, model := {}, embedding_table := {}, "column" := {})')


class FollowMethods:
    """The methods of `Jammi` that follow a source."""

    _statements: Statements
    _background: dict[str, BackgroundRefresh]

    def follow(
        self,
        source: str,
        *,
        every: float | timedelta | None = None,
        triggers: bool | None = None,
        model: str | None = None,
        embedding_table: str | None = None,
        column: str | None = None,
    ) -> FollowedRow:
        """Let every search of a source see what is committed from now on: SQL's `jammi_follow`.

        Args:
            source: the name of a table or view, or the path of a file, that was embedded.
            every: refresh the source in the background instead, each so many seconds, on a thread of its own, until
                `unfollow` or until the connection is closed, which DuckDB refuses during a refresh. Searches do not
                wait for it.
            triggers: whether triggers note what changes, so that a search costs the changes and not the table. By
                default they do, where DuckDB has triggers; then DuckDB refuses MERGE INTO and RENAME for the table.
                True lets them note the keys of new rows as well, with which DuckDB refuses ON CONFLICT DO UPDATE;
                without a PRIMARY KEY or a UNIQUE constraint, they do so anyway. False compares the source each time.
            model: the embedding table of this model; by default the newest of any.
            embedding_table: this one.
            column: which of several embeddings of the source: its label, or the column that it is of. Without `every`,
                it need not be said.

        Returns:
            How it is followed: source str, embedding_table str, changes_by str (triggers, comparison or time), and
            detail str, what that means.

        Raises:
            NotFoundError: the source has no embedding table. NoSourceError: it is not there.
            InputError: it is there for this connection only, or `triggers=True` is not possible.

        Example:
            >>> jammi.follow("animals", triggers=False).changes_by
            'comparison'
            >>> con.execute("INSERT INTO animals VALUES (6, 'ant', 'an ant carries a leaf')") and None
            >>> jammi.search("animals", "an ant with a leaf", 1).project("name").fetchall()
            [('ant',)]
        """
        if every is None:
            text = template(
                'SELECT * FROM jammi_follow({}, triggers := {}, model := {}, embedding_table := {}, "column" := {})'
            )
            ((*row,),) = self._statements.rows(text, (source,), triggers, model, embedding_table, column)
            return FollowedRow(*row)
        try:
            seconds = every.total_seconds() if isinstance(every, timedelta) else float(every)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"every is {every!r}; give a number of seconds, or a timedelta") from error
        if not 0 < seconds < float("inf"):
            raise InputError(f"every is {every}; it must be more than 0 seconds")

        def refresh() -> str:
            ((table, *_),) = self._statements.rows(_REFRESH, (source,), model, embedding_table, column)
            return str(table)

        table = refresh()
        self._stop(source)
        self._background[folded(source)] = BackgroundRefresh(source, seconds, refresh)
        return FollowedRow(source, table, "time", f"it is refreshed in the background, every {seconds:g} s")

    def unfollow(self, source: str) -> UnfollowedRow:
        """Follow a source no more: SQL's `jammi_unfollow`. It ends refreshes in the background, too.

        Args:
            source: what was followed.

        Returns:
            What was done: source str, action str.

        Raises:
            InputError: the source is no name.

        Example:
            >>> jammi.follow("animals") and None
            >>> jammi.unfollow("animals").action
            'followed no more'
        """
        was_refreshed = self._stop(source)
        ((*row,),) = self._statements.rows(template("SELECT * FROM jammi_unfollow({})"), (source,))
        return UnfollowedRow(source, "followed no more") if was_refreshed else UnfollowedRow(*row)

    def _stop(self, source: str) -> bool:
        running = self._background.pop(folded(source), None)
        if running is not None:
            running.stop()
        return running is not None
