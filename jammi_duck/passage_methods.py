"""The verbs that cut texts and show how they were cut, as methods for Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jammi_duck.sql import template

if TYPE_CHECKING:
    import duckdb

    from jammi_duck.statements import Statements
    from jammi_duck.variables import Source


class PassageMethods:
    """The methods of `Jammi` that cut texts, and tell of it."""

    _statements: Statements

    def passages(
        self,
        source: Source,
        *,
        model: str | None = None,
        embedding_table: str | None = None,
        column: str | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """How the text of each row was cut into passages: SQL's `jammi_passages`.

        Args:
            source: what was embedded, with `passages`.
            model: the embedding table of this model; by default the newest of any.
            embedding_table: this one.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            A relation with a row for each passage, by rows and passages: _row_id VARCHAR, _passage INTEGER,
            _start BIGINT, _end BIGINT, _passage_text VARCHAR, or nothing where the row's text has changed since.

        Raises:
            NotFoundError: the source has no embedding table. NoSourceError: it is not there.
            InputError: its texts were not cut.

        Example:
            >>> jammi.generate("animals", "text", "id", passages={"by": "sentence"}).passage_count
            5
            >>> jammi.passages("animals").project("_row_id, _start, _passage_text").fetchall()[0]
            ('1', 0, 'a small cat sleeps')
        """
        text = template('SELECT * FROM jammi_passages({}, model := {}, embedding_table := {}, "column" := {})')
        return self._statements.kept(text, (source,), model, embedding_table, column)

    def split(
        self,
        text: str | None,
        tokens: int | None = None,
        overlap: int | None = None,
        by: str = "paragraph",
        model: str | None = None,
    ) -> list[dict[str, Any]] | None:
        """The passages of a long text, each short enough for a model to read whole: SQL's `jammi_split`.

        Args:
            text: any text.
            tokens: how many tokens of the model's a passage has at most; by default 128, or fewer if it reads fewer.
            overlap: each passage begins with up to so many tokens of the one before; by default none.
            by: what is kept together where it fits: a `paragraph`, a `sentence`, or only a `word`.
            model: a name, or a directory; by default that of `install`.

        Returns:
            A dict for each passage: its number `_passage`, `_start` and `_end`, its text `_passage_text`, which is
            `text[_start:_end]`. An empty list for a blank text. None for None.

        Raises:
            InputError: an option does not fit the model, or the model takes pictures.
            NoModelError: there is no such model.
            EncodingError: the model's tokenizer fails at the text.

        Example:
            >>> jammi.split("  A small cat sleeps.")
            [{'_passage': 0, '_start': 2, '_end': 21, '_passage_text': 'A small cat sleeps.'}]
        """
        query = template('SELECT jammi_split({}, tokens := {}, overlap := {}, "by" := {}, model := {})')
        ((found,),) = self._statements.rows(query, (), text, tokens, overlap, by, model)
        return None if found is None else list(found)
