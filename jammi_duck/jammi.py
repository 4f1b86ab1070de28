"""The verbs of the SQL as methods for Python. Their docstrings are their pages, which make most of this file."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar, overload

import duckdb
import numpy as np

from jammi_duck.column_methods import ColumnMethods
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.errors import InputError
from jammi_duck.eval_methods import EvalMethods
from jammi_duck.follow_methods import FollowMethods
from jammi_duck.kept import kept
from jammi_duck.model_methods import ModelMethods
from jammi_duck.passage_methods import PassageMethods
from jammi_duck.plainly import plainly_found
from jammi_duck.raised import errors_of_ours
from jammi_duck.retrieval.search import RERANK_K
from jammi_duck.sql import NULL, Sql, Template, joined, literal, quoted, sql, template
from jammi_duck.statements import Statements
from jammi_duck.storage.tables.recovery import Action
from jammi_duck.storage.tables.removal import Removed
from jammi_duck.storage.words.analyser import ENGLISH
from jammi_duck.udfs import arguments
from jammi_duck.udfs.arguments import plain
from jammi_duck.udfs.plain_search import SEARCH_PATH, Question, question_of
from jammi_duck.udfs.sources import SearchPath
from jammi_duck.variables import with_variables
from jammi_duck.work.compact import Compacted
from jammi_duck.work.freshen import TEXTS
from jammi_duck.work.generate import Generated
from jammi_duck.work.index_words import WordsIndexed
from jammi_duck.work.refresh import Refreshed
from jammi_duck.work.sync import Synced

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.variables import Source

    Vector: TypeAlias = Sequence[float] | NDArray[np.float32] | NDArray[np.float64]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _with_arguments_of(
    like: Callable[Concatenate[Jammi, _P], duckdb.DuckDBPyRelation],
) -> Callable[[Callable[..., duckdb.DuckDBPyRelation]], Callable[Concatenate[Jammi, _P], duckdb.DuckDBPyRelation]]:
    """Give a method the parameters of another, for editors and when it is called."""
    signature = inspect.signature(like)

    def decorated(method: Callable[..., Any]) -> Callable[Concatenate[Jammi, _P], duckdb.DuckDBPyRelation]:
        @functools.wraps(method)
        def call(jammi: Jammi, /, *arguments: _P.args, **options: _P.kwargs) -> duckdb.DuckDBPyRelation:
            signature.bind(jammi, *arguments, **options)
            found: duckdb.DuckDBPyRelation = method(jammi, *arguments, **options)
            return found

        vars(call)["__signature__"] = signature
        return call

    return decorated


class Jammi(FollowMethods, EvalMethods, ColumnMethods, ModelMethods, PassageMethods):
    """What `install` returns: the verbs of the SQL as methods, on the connection that was equipped.

    A source is what SQL takes: the name of a table, a view or a DataFrame that a variable of yours holds, or the path
    of a file. It may also be the DataFrame itself (of pandas or polars), an Arrow table, or a relation of DuckDB's,
    which is known by the name of the variable that holds it.

    Errors are those of `jammi_duck.errors`, all of which are `JammiError`; what DuckDB raised is the cause. Relations
    hold rows that were found when the method was called, but for those of `infer`.

    One object may be used by many threads: each but the one that called `install` gets a cursor of its own.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        location: str,
        equip: Callable[[duckdb.DuckDBPyConnection], object],
        with_engine: Callable[..., Any],
    ) -> None:
        """`location` is where the embedding tables are.

        `equip` gives another connection the SQL functions, and `with_engine` calls a function with the engine.
        """
        self.con = con
        self.location = location
        self._equip = equip
        self._with_engine = with_engine
        self._statements = Statements(con, equip)
        # The database and the search path that a connection was last seen in.
        self._search_path: SearchPath | None = None
        self._background = {}

    def cursor(self) -> Jammi:
        """The same on a new cursor, with a transaction of its own; it is closed with the connection.

        Example:
            >>> other = jammi.cursor()
            >>> other.search("animals", "a fish", 1).project("id").fetchall()
            [(4,)]
        """
        other = Jammi(self._statements.cursor(), self.location, self._equip, self._with_engine)
        other._background = self._background
        return other

    @overload
    def embed(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
        self, text: str | None, model: str | None = None, *, role: str = "document", dims: int | None = None
    ) -> NDArray[np.float32] | None: ...
    @overload
    def embed(
        self, text: Sequence[str | None], model: str | None = None, *, role: str = "document", dims: int | None = None
    ) -> list[NDArray[np.float32] | None]: ...
    def embed(
        self,
        text: str | Sequence[str | None] | None,
        model: str | None = None,
        *,
        role: str = "document",
        dims: int | None = None,
    ) -> NDArray[np.float32] | list[NDArray[np.float32] | None] | None:
        """The vector of a text, or a list of vectors for a list of texts: SQL's `embed`.

        Args:
            text: a text, or several. One without letters has no vector: None.
            model: a name, or a directory; by default that of `install`.
            role: `document`, or `query` for a question to a model that tells the two apart.
            dims: this many of the first dimensions, brought to unit length.

        Raises:
            InputError: the role or the dimensions are none, or what is to be embedded is no text.
            NoModelError: there is no such model.
            EncodingError: a text could not be embedded.

        Example:
            >>> jammi.embed("a small cat").shape
            (64,)
            >>> [vector is None for vector in jammi.embed(["a small cat", " "])]
            [False, True]
        """
        given = arguments.texts(text)
        query = template(
            "SELECT embed(text, model := {}, role := {}, dims := {}) FROM (SELECT unnest({}::VARCHAR[]) AS text)"
        )
        rows = self._statements.rows(query, (), model, role, dims, given)
        vectors = [None if vector is None else np.array(vector, np.float32) for (vector,) in rows]
        return vectors[0] if text is None or isinstance(text, str) else vectors

    def snippet(
        self, text: str | None, query: str | None, words: int = 30, mark: str = "**", *, language: str = "english"
    ) -> str | None:
        """The passage of a text that answers a query best, with its matches marked: SQL's `jammi_snippet`.

        Args:
            text: any text.
            query: words, phrases and prefixes, as `jammi_snippet` reads them.
            words: about so many words of the text are given.
            mark: what stands before each match and behind it. A tag such as `<b>` is closed by `</b>`.
            language: by whose rules words are compared: `english`, `german` and so on, or `none`.

        Returns:
            The passage, with a `…` where it is cut; the beginning of the text if nothing matches. None for None.

        Raises:
            InputError: `words` is no whole number from 1 on, or there is no such language.

        Example:
            >>> jammi.snippet("A small cat sleeps. Two ducks swim in the pond.", "swimming duck", 6)
            '…Two **ducks** **swim** in the pond.'
        """
        query_of = template("SELECT jammi_snippet({}, {}, words := {}, mark := {}, language := {})")
        ((passage,),) = self._statements.rows(query_of, (), text, query, words, mark, language)
        return None if passage is None else str(passage)

    @overload
    def generate(
        self,
        source: Source,
        columns: str | Sequence[str],
        key: str,
        model: str | None = None,
        *,
        dims: int | None = None,
        name: str | None = None,
        reuse: bool = False,
        resume: bool = False,
        words: bool = True,
        language: str = ENGLISH,
        vectors: bool = True,
        passages: bool | Mapping[str, Any] = False,
    ) -> Generated: ...
    @overload
    def generate(
        self,
        source: Source,
        columns: Mapping[str, str | Sequence[str]],
        key: str,
        model: str | None = None,
        *,
        dims: int | None = None,
        name: str | None = None,
        reuse: bool = False,
        resume: bool = False,
        words: bool = True,
        language: str = ENGLISH,
        vectors: bool = True,
        passages: bool | Mapping[str, Any] = False,
    ) -> dict[str, Generated]: ...
    def generate(
        self,
        source: Source,
        columns: str | Sequence[str] | Mapping[str, str | Sequence[str]],
        key: str,
        model: str | None = None,
        *,
        dims: int | None = None,
        name: str | None = None,
        reuse: bool = False,
        resume: bool = False,
        words: bool = True,
        language: str = ENGLISH,
        vectors: bool = True,
        passages: bool | Mapping[str, Any] = False,
    ) -> Generated | dict[str, Generated]:
        """Embed the text of each row and keep the vectors: SQL's `jammi_generate`.

        Args:
            source: what to embed.
            columns: the columns whose texts are embedded, joined by a space; or a dict of several embeddings, the
                columns of each by its label. The source is read once for all of them.
            key: the column that names a row; its values are unique.
            model: a name, or a directory; by default that of `install`.
            dims: keep this many of the first dimensions.
            name: what to call the embedding table: `embedding_table` takes this name then. Of several embeddings, it
                is followed by a dot and the label.
            reuse: give the embedding table that is there, if it is just what this would make.
            resume: go on with a build of the same that was interrupted.
            words: index the words, too, for searches by text.
            language: that of the texts, for stop words and stemming: one of Snowball's, or 'none' for neither.
            vectors: embed the texts. Without, the table has words only and needs no model: a search in it is by text.
            passages: cut each text into passages, which are embedded and found one by one. A dict says how: `tokens`,
                the most of a passage; `overlap`, how many of them it has of the one before; `by`, "paragraph",
                "sentence" or "word"; and `title`, the columns that stand before each passage of their row.

        Returns:
            What became of it, or a dict of that by the labels: embedding_table str, source str, model str, status str,
            row_count int, skipped_count int, failed_count int, truncated_count int, dimensions int, seconds float,
            location str, requests int and tokens int, which a provider was asked; None for a local model;
            passage_count int or None, and advice str or None. A table of words only has None as its model and
            dimensions.

        Raises:
            NoSourceError: there is no such table, view or file.
            InputError: a column is not there, the key is not unique, `dims` is more than the model has, there is
                neither `words` nor `vectors`, or passages are longer than the model reads.
            ModelError: the model cannot be used; NoModelError where it cannot be found.
            BuildError: the build was interrupted.
            StorageError: the files cannot be written.

        Example:
            >>> jammi.generate("animals", ["name", "text"], "id").row_count
            5
            >>> list(jammi.generate("animals", {"name": "name", "both": ["name", "text"]}, "id"))
            ['name', 'both']
        """
        text = template(
            "SELECT * FROM jammi_generate({}, {}::JSON, {}, model := {}, dims := {}, name := {}, reuse := {}, "
            "resume := {}, words := {}, language := {}, vectors := {}, passages := {}::JSON)"
        )
        values = (key, model, dims, name, reuse, resume, words, language, vectors, _as_json(passages))
        rows = self._statements.rows(text, (source,), _as_json(columns), *values)
        return _by_label(columns, [Generated(*row) for row in rows])

    @overload
    def sync(
        self,
        source: Source,
        columns: str | Sequence[str],
        key: str,
        model: str | None = None,
        *,
        dims: int | None = None,
        name: str | None = None,
        words: bool = True,
        language: str = ENGLISH,
        vectors: bool = True,
        passages: bool | Mapping[str, Any] = False,
    ) -> Synced: ...
    @overload
    def sync(
        self,
        source: Source,
        columns: Mapping[str, str | Sequence[str]],
        key: str,
        model: str | None = None,
        *,
        dims: int | None = None,
        name: str | None = None,
        words: bool = True,
        language: str = ENGLISH,
        vectors: bool = True,
        passages: bool | Mapping[str, Any] = False,
    ) -> dict[str, Synced]: ...
    def sync(
        self,
        source: Source,
        columns: str | Sequence[str] | Mapping[str, str | Sequence[str]],
        key: str,
        model: str | None = None,
        *,
        dims: int | None = None,
        name: str | None = None,
        words: bool = True,
        language: str = ENGLISH,
        vectors: bool = True,
        passages: bool | Mapping[str, Any] = False,
    ) -> Synced | dict[str, Synced]:
        """Generate the first time, and refresh afterwards: SQL's `jammi_sync`.

        The embedding table is the newest of the same columns, key, model, dimensions and name. If there is none, a
        build of the same that was interrupted goes on, or a new one begins.

        Args:
            source: what to embed.
            columns: the columns whose texts are embedded, joined by a space; or a dict of several embeddings, all of
                which are kept current: see `generate`.
            key: the column that names a row; its values are unique.
            model: a name, or a directory; by default that of `install`.
            dims: keep this many of the first dimensions.
            name: what to call the embedding table.
            words: index the words of a new table, too.
            language: that of the texts of a new table; see `generate`.
            vectors: embed the texts, or make and refresh a table of words only; see `generate`.
            passages: cut the texts into passages; see `generate`. A table whose texts are cut otherwise is another one.

        Returns:
            What was done, or a dict of that by the labels: embedding_table str, action str (generated, resumed,
            refreshed or unchanged), row_count int, added int, changed int, deleted int, unchanged int, skipped_count
            int, failed_count int, seconds float, advice str or None; requests int and tokens int, which a provider was
            asked, or None.

        Raises:
            NoSourceError: there is no such table, view or file.
            InputError: a column is not there, the key is not unique, or `dims` is more than the model has.
            ModelError: the model cannot be used, or is not what it was; NoModelError where it cannot be found.
            BuildError: the work was interrupted.
            StorageError: the files cannot be written.

        Example:
            >>> jammi.sync("animals", "text", "id").action
            'unchanged'
        """
        text = template(
            "SELECT * FROM jammi_sync({}, {}::JSON, {}, model := {}, dims := {}, name := {}, words := {}, "
            "language := {}, vectors := {}, passages := {}::JSON)"
        )
        values = (key, model, dims, name, words, language, vectors, _as_json(passages))
        rows = self._statements.rows(text, (source,), _as_json(columns), *values)
        return _by_label(columns, [Synced(*row) for row in rows])

    def import_vectors(
        self,
        source: Source,
        vectors: Source,
        key: str,
        vector: str,
        model: str,
        columns: str | Sequence[str] | None = None,
        words: bool = True,
        language: str = ENGLISH,
        passages: bool | Mapping[str, Any] = False,
    ) -> Generated:
        """Make an embedding table of vectors that were made elsewhere: SQL's `jammi_import`. Nothing is embedded.

        Args:
            source: what the vectors are of.
            vectors: what has the vectors.
            key: the column that names a row, in both.
            vector: the column of `vectors` that has them: FLOAT[], or DOUBLE[].
            model: what made them, which embeds the questions.
            columns: the columns of `source` whose text they stand for; only with these can a refresh follow.
            words: index the words of these columns, too.
            language: that of the texts; see `generate`.
            passages: the vectors are of passages, several of one row; see `generate` for a dict that says how a refresh
                cuts what is new. It may also name the columns of `vectors` that say where a passage is in its text: as
                `start` and `end`, in characters from 0.

        Returns:
            The same as `generate`.

        Raises:
            NoSourceError: there is no such table, view or file.
            InputError: a column is not there, a key is not unique, or vectors have another length than the model's.
            ModelError: the model cannot be used; NoModelError where it cannot be found.

        Example:
            >>> con.execute("CREATE TABLE mine AS SELECT id, embed(text) AS v FROM animals") and None
            >>> jammi.import_vectors("animals", "mine", "id", "v", "fake/small", "text").row_count
            5
        """
        text = template(
            "SELECT * FROM jammi_import({}, {}, {}, {}, model := {}, cols := {}, words := {}, language := {}, "
            "passages := {}::JSON)"
        )
        names = None if columns is None else _listed(columns)
        values = (key, vector, model, names, words, language, _as_json(passages))
        return Generated(*self._row(text, (source, vectors), *values))

    def infer(
        self,
        source: Source,
        columns: str | Sequence[str],
        key: str,
        model: str | None = None,
        *,
        task: str = "text_embedding",
        dims: int | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """The vector of each row, or why there is none; nothing is kept: SQL's `jammi_infer`.

        The relation embeds when it is looked at, each time: a LIMIT or a condition spares the other rows. What goes
        wrong then is DuckDB's error.

        Args:
            source: what to embed.
            columns: the columns whose texts are embedded, joined by a space.
            key: the column that names a row.
            model: a name, or a directory; by default that of `install`.
            task: `text_embedding` is the only one.
            dims: this many of the first dimensions.

        Returns:
            A relation: _row_id VARCHAR, _source VARCHAR, _model VARCHAR, _status VARCHAR, _error VARCHAR,
            _latency_ms DOUBLE, vector FLOAT[].

        Raises:
            NoSourceError: there is no such table, view or file.
            InputError: a column is not there, or there is no such task.

        Example:
            >>> jammi.infer("animals", "text", "id").limit(2).project("_row_id, _status").fetchall()
            [('1', 'ok'), ('2', 'ok')]
        """
        # Not as parameters: with those, older versions of DuckDB would run the whole query here and now.
        names = sql("list_value({})", joined(", ", map(literal, _listed(columns))))
        text = template("SELECT * FROM jammi_infer({}, {}, {}, model := {}, task := {}, dims := {})")
        return self._statements.planned(
            text, (source,), names, *map(literal, (key, model, task, None if dims is None else str(plain(dims))))
        )

    def search(
        self,
        source: Source,
        query: str | bytes | Vector | None,
        k: int = 10,
        *,
        model: str | None = None,
        filter: str | None = None,
        exact: bool = False,
        embedding_table: str | None = None,
        min_similarity: float | None = None,
        parameters: Mapping[str, object] | None = None,
        mode: str = "auto",
        weight: float = 0.7,
        fusion: str = "weighted",
        k1: float = 1.2,
        b: float = 0.75,
        rerank: str | None = None,
        rerank_k: int = RERANK_K,
        per_row: int = 1,
        fresh: bool | None = None,
        fresh_rows: int = TEXTS,
        column: str | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """The rows of a source that answer a question best, best first: SQL's `jammi_search`.

        Args:
            source: what was embedded.
            query: some words, a vector, or a picture's bytes where pictures were embedded; None finds nothing.
            k: how many rows.
            model: search the embedding table of this model; by default the newest of any.
            filter: a condition in SQL over the columns of the source, which can change nothing.
            exact: compare with every vector, without the index.
            embedding_table: search this one.
            min_similarity: leave out rows whose cosine is less.
            parameters: values for each `$name` in the filter: they stay values, whatever is in them.
            mode: search by 'text' (its words), by 'vector', or by both ('hybrid'). 'auto' is hybrid for a text, if the
                words of the table are indexed.
            weight: in a hybrid search, of the vectors, from 0 to 1; the words have the rest.
            fusion: how a hybrid search adds both up: 'weighted', or 'rrf' for reciprocal rank fusion.
            k1: of BM25, 0 or more: how much more it counts that a word occurs often.
            b: of BM25, from 0 to 1: how much less a word counts in a long text.
            rerank: a cross-encoder that reads the query with each row's text, and ranks the rows by its scores.
            rerank_k: how many rows of the search it reads; at least `k`.
            per_row: of a table of passages, give up to so many passages of each row.
            fresh: bring in what has changed in the source first, as `refresh` does. By default, if it is followed.
            fresh_rows: embed at most so many texts for that; a warning tells of the others.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            A relation: the source's columns, then _row_id VARCHAR, _rank INTEGER, _score FLOAT, _similarity FLOAT,
            _distance FLOAT, _bm25 FLOAT. `_score` is what ranks them; NULL stands for what was not computed.
            With `rerank`, a column `_rerank` after them has the scores of the cross-encoder. Of a table of passages,
            the last columns are _passage INTEGER, _start BIGINT, _end BIGINT, _passage_text VARCHAR: which passage of
            the row's text was found; without its text where the row's has changed since.

        Raises:
            NotFoundError: the source has no embedding table. NoSourceError: it is not there.
            InputError: the query is blank, or an argument or the filter is wrong.
            NoModelError: the model that embeds the query, or the re-ranker, cannot be found.
            ModelError: it cannot be used.
            StorageError: the vectors cannot be read.

        Example:
            >>> jammi.search("animals", "a fish", 2).project("id, name").fetchall()
            [(4, 'fish'), (1, 'cat')]
            >>> jammi.search("animals", "a fish", 1, filter="name <> $n", parameters={"n": "fish"}).project("id")
            ┌───────┐
            │  id   │
            │ int32 │
            ├───────┤
            │     1 │
            └───────┘
            <BLANKLINE>
        """
        is_plain = filter is None and not parameters and rerank is None and isinstance(source, str) and not fresh
        ranking: dict[str, Any] = {"mode": mode, "weight": weight, "fusion": fusion, "k1": k1, "b": b}
        chosen: dict[str, Any] = {"model": model, "embedding_table": embedding_table, "column": column}
        freshness: dict[str, Any] = {"fresh": fresh, "fresh_rows": fresh_rows}
        options: dict[str, Any] = {"exact": exact, "min_similarity": min_similarity, "per_row": per_row}
        question = question_of(str(source), query, k, **options, **chosen, **ranking, **freshness) if is_plain else None
        found = self._found_plainly(question) if question else None
        if found is not None:
            return found
        return self._asked(
            "jammi_search",
            source,
            query,
            k,
            **chosen,
            filter=filter,
            **options,
            parameters=parameters,
            **ranking,
            rerank=rerank,
            rerank_k=rerank_k,
            **freshness,
        )

    @_with_arguments_of(search)
    def matches(self, *arguments: Any, **options: Any) -> duckdb.DuckDBPyRelation:
        """What a search finds, without the source's columns: SQL's `jammi_matches`. The arguments are `search`'s.

        The source need not be there, unless there is a filter. There are no texts to re-rank: `rerank` is an error.

        Returns:
            A relation: _row_id VARCHAR, _source_id VARCHAR, _rank INTEGER, _score FLOAT, _similarity FLOAT,
            _distance FLOAT, _bm25 FLOAT. Of a table of passages, then _passage INTEGER, _start BIGINT, _end BIGINT.

        Raises:
            JammiError: the same as `search`.

        Example:
            >>> jammi.matches("animals", "a fish", 1).project("_row_id, _rank").fetchall()
            [('4', 1)]
        """
        return self._asked("jammi_matches", *arguments, **options)

    @_with_arguments_of(search)
    def explain(self, *arguments: Any, **options: Any) -> duckdb.DuckDBPyRelation:
        """How such a search is done, a row for each stage: SQL's `jammi_explain`. The arguments are `search`'s.

        Returns:
            A relation: stage VARCHAR, detail VARCHAR, row_count BIGINT, milliseconds DOUBLE.

        Raises:
            JammiError: the same as `search`.

        Example:
            >>> [stage for stage, *_ in jammi.explain("animals", "a fish").fetchall()]
            ['table', 'encode', 'exact', 'words', 'fuse', 'fetch']
        """
        return self._asked("jammi_explain", *arguments, **options)

    def similar(
        self,
        source: Source,
        key: object,
        k: int = 10,
        *,
        model: str | None = None,
        filter: str | None = None,
        exact: bool = False,
        embedding_table: str | None = None,
        min_similarity: float | None = None,
        parameters: Mapping[str, object] | None = None,
        per_row: int = 1,
        fresh: bool | None = None,
        fresh_rows: int = TEXTS,
        column: str | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """The rows that are nearest to one row, without itself: SQL's `jammi_similar`.

        A row of passages is asked for by the mean of their vectors.

        Args:
            source: what was embedded.
            key: the key of the row. One that no row has finds nothing.
            k: how many rows.
            model: search the embedding table of this model; by default the newest of any.
            filter: a condition in SQL over the columns of the source, which can change nothing.
            exact: compare with every vector, without the index.
            embedding_table: search this one.
            min_similarity: leave out rows whose cosine is less.
            parameters: values for each `$name` in the filter.
            per_row: of a table of passages, give up to so many passages of each row.
            fresh: bring in what has changed in the source first, as `refresh` does. By default, if it is followed.
            fresh_rows: embed at most so many texts for that; a warning tells of the others.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            A relation with the columns of `search`.

        Raises:
            JammiError: the same as `search`.

        Example:
            >>> jammi.similar("animals", 3, 1).project("id").fetchall()
            [(4,)]
        """
        return self._found(
            "jammi_similar",
            source,
            key,
            k,
            model=model,
            filter=filter,
            exact=exact,
            embedding_table=embedding_table,
            min_similarity=min_similarity,
            parameters=parameters,
            per_row=per_row,
            fresh=fresh,
            fresh_rows=fresh_rows,
            column=column,
        )

    def status(
        self,
        source: Source,
        *,
        model: str | None = None,
        embedding_table: str | None = None,
        column: str | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """How an embedding table differs from its source, and what to do: SQL's `jammi_status`.

        Args:
            source: what was embedded.
            model: the embedding table of this model; by default the newest of any.
            embedding_table: this one.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            A relation of one row: embedding_table VARCHAR, current BIGINT, new BIGINT, changed BIGINT, gone BIGINT,
            coverage DOUBLE, segments INTEGER, bytes BIGINT, age INTERVAL, advice VARCHAR, followed VARCHAR, which is
            what finds changes ('triggers', 'comparison', or nothing), and passages BIGINT, how many the table has, or
            nothing where texts are embedded whole.

        Raises:
            NotFoundError: the source has no embedding table. NoSourceError: it is not there.

        Example:
            >>> jammi.status("animals").project('current, "new", changed, gone').fetchall()
            [(5, 0, 0, 0)]
        """
        text = template('SELECT * FROM jammi_status({}, model := {}, embedding_table := {}, "column" := {})')
        return self._statements.kept(text, (source,), model, embedding_table, column)

    def refresh(
        self,
        source: Source,
        *,
        model: str | None = None,
        embedding_table: str | None = None,
        column: str | None = None,
    ) -> Refreshed:
        """Bring an embedding table up to date; only texts that are new are embedded: SQL's `jammi_refresh`.

        Args:
            source: what was embedded.
            model: the embedding table of this model; by default the newest of any.
            embedding_table: this one.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            What became of it: embedding_table str, added int, changed int, deleted int, unchanged int, failed int,
            encoded int, seconds float, advice str or None; requests int and tokens int, which a provider was asked, or
            None.

        Raises:
            NotFoundError: the source has no embedding table. NoSourceError: it is not there.
            InputError: the key is not unique any more, or a column is not there.
            ModelError: the model has changed, or cannot be found.
            BuildError: the refresh was interrupted.

        Example:
            >>> con.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee hums')") and None
            >>> jammi.refresh("animals").added
            1
        """
        text = template('SELECT * FROM jammi_refresh({}, model := {}, embedding_table := {}, "column" := {})')
        return Refreshed(*self._row(text, (source,), model, embedding_table, column))

    def compact(
        self,
        source: Source,
        *,
        model: str | None = None,
        embedding_table: str | None = None,
        column: str | None = None,
    ) -> Compacted:
        """Merge the segments of an embedding table, without the rows that are gone: SQL's `jammi_compact`.

        Args:
            source: what was embedded.
            model: the embedding table of this model; by default the newest of any.
            embedding_table: this one.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            What became of it: embedding_table str, segments_before int, segments int, rows_removed int,
            bytes_before int, bytes int, seconds float.

        Raises:
            NotFoundError: the source has no embedding table.
            BuildError: the compaction was interrupted, or the table was changed again and again meanwhile.
            StorageError: files cannot be read or written.

        Example:
            >>> jammi.compact("animals").segments
            1
        """
        text = template('SELECT * FROM jammi_compact({}, model := {}, embedding_table := {}, "column" := {})')
        return Compacted(*self._row(text, (source,), model, embedding_table, column))

    def index_words(
        self,
        source: Source,
        language: str = ENGLISH,
        *,
        model: str | None = None,
        embedding_table: str | None = None,
        column: str | None = None,
    ) -> WordsIndexed:
        """Index the words of an embedding table that has no index of them, or one in another language.

        SQL's `jammi_index_words`. It reads the texts of the source, and embeds nothing.

        Args:
            source: what was embedded.
            language: that of the texts, for stop words and stemming: one of Snowball's, or 'none' for neither.
            model: the embedding table of this model; by default the newest of any.
            embedding_table: this one.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            What became of it: embedding_table str, language str, row_count int, bytes int, seconds float,
            advice str or None.

        Raises:
            NotFoundError: the source has no embedding table. NoSourceError: it is not there.
            InputError: there is no such language, the keys are not unique any more, or the table was imported without
                the columns of its text.
            StorageError: files cannot be read or written.

        Example:
            >>> jammi.index_words("animals", "none").language
            'none'
        """
        text = template('SELECT * FROM jammi_index_words({}, {}, model := {}, embedding_table := {}, "column" := {})')
        return WordsIndexed(*self._row(text, (source,), language, model, embedding_table, column))

    def check(
        self,
        source: Source,
        k: int = 10,
        *,
        model: str | None = None,
        embedding_table: str | None = None,
        column: str | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """How good the index of an embedding table is: SQL's `jammi_check`.

        Args:
            source: what was embedded.
            k: how many neighbours.
            model: the embedding table of this model; by default the newest of any.
            embedding_table: this one.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            A relation of one row: embedding_table VARCHAR, row_count BIGINT, segments INTEGER, k INTEGER,
            queries INTEGER, recall DOUBLE, index_ms DOUBLE, exact_ms DOUBLE, advice VARCHAR.

        Raises:
            NotFoundError: the source has no embedding table.
            InputError: `k` is less than 1.

        Example:
            >>> jammi.check("animals", 2).project("recall, advice").fetchall()
            [(1.0, 'the index is good')]
        """
        text = template('SELECT * FROM jammi_check({}, {}, model := {}, embedding_table := {}, "column" := {})')
        return self._statements.kept(text, (source,), k, model, embedding_table, column)

    def tables(self) -> duckdb.DuckDBPyRelation:
        """Every embedding table: SQL's `jammi_tables`.

        Returns:
            A relation: embedding_table VARCHAR, source VARCHAR, columns VARCHAR[], key VARCHAR, model VARCHAR,
            dimensions INTEGER, status VARCHAR, stage VARCHAR, row_count BIGINT, skipped_count BIGINT,
            failed_count BIGINT, truncated_count BIGINT, location VARCHAR, started TIMESTAMP, finished TIMESTAMP,
            age INTERVAL, error VARCHAR.

        Raises:
            StorageError: the location cannot be read.

        Example:
            >>> jammi.tables().project("source, status, row_count").fetchall()
            [('animals', 'ready', 5)]
        """
        return self._statements.kept(template("SELECT * FROM jammi_tables()"), ())

    def models(self) -> duckdb.DuckDBPyRelation:
        """Every model that can be used without a download: SQL's `jammi_models`.

        Returns:
            A relation: name VARCHAR, label VARCHAR, licence VARCHAR, family VARCHAR, dimensions INTEGER,
            max_tokens INTEGER, pooling VARCHAR, query_prompt VARCHAR, document_prompt VARCHAR, location VARCHAR,
            origin VARCHAR, error VARCHAR, needs VARCHAR, engine VARCHAR, engine_reason VARCHAR.

        Example:
            >>> jammi.models().filter("error IS NULL").project("name").fetchall()
            [('fake/small',), ('fake/other',)]
        """
        return self._statements.kept(template("SELECT * FROM jammi_models()"), ())

    def recover(self) -> list[Action]:
        """Settle what processes that died have left, and mend what can be mended: SQL's `jammi_recover`.

        Returns:
            An action for each table that was settled: embedding_table str, status str, action str.

        Raises:
            StorageError: the location cannot be read.

        Example:
            >>> jammi.recover()
            []
        """
        return [Action(*row) for row in self._statements.rows(template("SELECT * FROM jammi_recover()"), ())]

    def drop(self, embedding_table: str) -> Action:
        """Remove an embedding table with its files: SQL's `jammi_drop`.

        Args:
            embedding_table: its name, as `tables` lists it; ready, failed or gone.

        Returns:
            What was done: embedding_table str, status str, action str.

        Raises:
            NotFoundError: there is no such table.
            BuildError: it is being built.

        Example:
            >>> ((name,),) = jammi.tables().project("embedding_table").fetchall()
            >>> jammi.drop(name).status
            'dropped'
        """
        return Action(*self._row(template("SELECT * FROM jammi_drop({})"), (), embedding_table))

    def vacuum(self) -> list[Removed]:
        """Remove files of ours that nothing names and that are older than the retention: SQL's `jammi_vacuum`.

        Returns:
            What was removed: for each file, file str, bytes int, reason str.

        Raises:
            StorageError: the location cannot be read.

        Example:
            >>> jammi.vacuum()
            []
        """
        return [Removed(*row) for row in self._statements.rows(template("SELECT * FROM jammi_vacuum()"), ())]

    def _row(self, text: Template, tables: Sequence[object], *values: object) -> tuple[Any, ...]:
        (row,) = self._statements.rows(text, tables, *values)
        return row

    def _found_plainly(self, question: Question) -> duckdb.DuckDBPyRelation | None:
        """The rows that a search finds in a plain table; None where it is none, or the macro must say what is wrong."""
        with errors_of_ours():
            con = self._statements.con()
            if self._search_path is None:
                self._search_path = SearchPath(*con.sql(SEARCH_PATH).fetchall()[0])
            with contextlib.suppress(duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
                found = plainly_found(
                    lambda look: (_bound(con, look.state).fetchall(), _bound(con, look.columns).columns),
                    self._with_engine,
                    self._search_path,
                    question,
                )
                if found is not None:
                    return kept(con, *found, functools.partial(with_variables, given={}))
            # Where the connection is now, a name may mean something else.
            self._search_path = None
            return None

    def _asked(
        self, function: str, source: Source, query: str | bytes | Vector | None, k: int = 10, **options: Any
    ) -> duckdb.DuckDBPyRelation:
        if isinstance(query, str) and is_blank(query):
            raise InputError("the query is an empty text; give some words, or a vector")
        return self._found(function, source, arguments.query(query), k, **options)

    def _found(
        self,
        function: str,
        source: Source,
        asked: object,
        k: int,
        *,
        parameters: Mapping[str, object] | None = None,
        **options: object,
    ) -> duckdb.DuckDBPyRelation:
        parameters = arguments.parameters(parameters)

        def text(source: Sql, query: Sql, k: Sql, *values: Sql) -> Sql:
            names = [*options, *parameters]
            named = [sql("{} := {}", quoted(name), value) for name, value in zip(names, values, strict=True)]
            given, bound = named[: len(options)], joined(", ", named[len(options) :])
            packed = sql("struct_pack({})", bound) if parameters else NULL
            listed = joined(", ", [source, query, k, *given, sql("parameters := {}", packed)])
            return sql("SELECT * FROM {}({})", Sql(function), listed)

        return self._statements.kept(text, (source,), asked, k, *options.values(), *parameters.values())


def _bound(con: duckdb.DuckDBPyConnection, text: Sql) -> duckdb.DuckDBPyRelation:
    """A query of which no name is that of a variable."""
    found: duckdb.DuckDBPyRelation = with_variables(functools.partial(con.sql, text), {})
    return found


def _as_json(columns: bool | str | Sequence[str] | Mapping[str, Any]) -> str:
    """Columns, or how texts are cut, as SQL takes them: DuckDB would make a MAP of some dicts, by what is in them."""
    return json.dumps(dict(columns) if isinstance(columns, Mapping) else columns, default=list)


def _by_label(columns: str | Sequence[str] | Mapping[str, object], made: list[_T]) -> _T | dict[str, _T]:
    """What was made of columns: by their labels, if there are any."""
    return dict(zip(columns, made, strict=True)) if isinstance(columns, Mapping) else made[0]


def _listed(columns: str | Sequence[str]) -> list[str]:
    return [columns] if isinstance(columns, str) else list(columns)
