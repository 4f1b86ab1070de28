"""`connect`: a folder with tables whose rows are embedded as they are added."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import duckdb
import pyarrow as pa

from jammi_duck.doors import installation
from jammi_duck.doors.database_file import expanded
from jammi_duck.embeddings.fitting import BadVectors, Column, OnBad, Rows, fitted
from jammi_duck.embeddings.layout import KEY, Place, Record, creation, label_of
from jammi_duck.embeddings.rows import Given, collected, inferred
from jammi_duck.embeddings.stored import belonging, cursor_of, identity_of
from jammi_duck.embeddings.table import Table
from jammi_duck.embeddings.writing import Target, Writing
from jammi_duck.errors import InputError, NotFoundError, StorageError, did_you_mean, enumerated
from jammi_duck.raised import errors_of_ours
from jammi_duck.sql import Sql, folded, joined, sql
from jammi_duck.udfs.engine import Engine
from jammi_duck.work.adding import Addition
from jammi_duck.work.generate import Request

if TYPE_CHECKING:
    from pydantic import BaseModel

    from jammi_duck.embeddings.schema import Embedded
    from jammi_duck.jammi import Jammi

Mode: TypeAlias = Literal["create", "overwrite", "exist_ok"]
MODES = ("create", "overwrite", "exist_ok")
FILE = "tables.duckdb"
_HELD = "Could not set lock on file"
_TABLES = sql(
    "SELECT table_name, 'table' FROM duckdb_tables() WHERE database_name = ? AND schema_name = 'main' AND NOT internal "
    "UNION ALL SELECT view_name, 'view' FROM duckdb_views() WHERE database_name = ? AND schema_name = 'main' "
    "AND NOT internal"
)


def connect(uri: str | os.PathLike[str] | duckdb.DuckDBPyConnection, **options: Any) -> Connection:
    """Open a folder with tables, and make it if it is not there.

    The rows are in a DuckDB file, `tables.duckdb`, and the vectors beside it in embedding tables: SQL sees all of it.

    Args:
        uri: the folder; or a connection of DuckDB, for tables that SQL has made.
        options: those of `jammi_duck.install`; `storage` is where the vectors go, by default the folder.

    Returns:
        A connection. It is a context, which closes it.

    Raises:
        StorageError: the folder cannot be used, or another process has it open.
        ConfigError: there is no such option.

    Example:
        >>> db = connect("./db")
        >>> db.table_names()
        []
    """
    with errors_of_ours():
        if isinstance(uri, duckdb.DuckDBPyConnection):
            return Connection(installation.install(uri, **options))
        folder = _folder(uri)
        try:
            con = installation.connect(folder / FILE, **{"storage": folder, **options})
        except duckdb.IOException as error:
            if _HELD not in str(error):
                raise
            raise StorageError(
                f"'{folder}' is open in another process, and DuckDB lets one process write to a file at a time: close "
                f"it there, or end that process. DuckDB says: {str(error).splitlines()[0]}"
            ) from error
        return Connection(installation.install(con), owned=True)


def _folder(uri: str | os.PathLike[str]) -> Path:
    name = expanded(os.fspath(uri))
    if "://" in name:
        raise StorageError(
            f"'{name}' is no folder of this machine: the rows are in a DuckDB file. Give a folder, and the URL as "
            "storage= for the vectors"
        )
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise StorageError(
            f"'{name}' is a file; give a folder, or a connection: connect(jammi_duck.connect('{name}', storage=...))"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the folder '{name}' cannot be made: {error}") from error
    return folder


class Connection:
    """Tables whose rows are embedded as they are added. `con` and `jammi` are the same for SQL."""

    def __init__(self, jammi: Jammi, *, owned: bool = False) -> None:
        """Around a connection that has the functions; one that is `owned` is closed with this."""
        self.jammi = jammi
        self.con = jammi.con
        self._is_owned = owned
        self._database: str = jammi._with_engine(lambda engine: engine.host.home())

    def create_table(
        self,
        name: str,
        data: Any = None,  # noqa: ANN401 - whatever holds rows
        schema: type[BaseModel] | pa.Schema | None = None,
        mode: Mode = "create",
        *,
        on_bad_vectors: OnBad = "error",
        fill_value: float = 0.0,
    ) -> Table:
        """Make a table, and add rows to it.

        Args:
            name: any name.
            data: rows, as for `Table.add`; without `schema`, they say which columns there are.
            schema: a model, whose `SourceField` and `VectorField` say what is embedded, or an Arrow schema.
            mode: `create` refuses a name that is taken, `overwrite` replaces the table, once the new one is complete,
                and `exist_ok` opens the table that is there, as it is.
            on_bad_vectors: as for `Table.add`.
            fill_value: as for `Table.add`.

        Returns:
            The table.

        Raises:
            InputError: the name is taken, or the schema or a row cannot be used. Nothing was made.
            ModelError: a function cannot be used.
            EncodingError: a row could not be embedded.
            StorageError: the files cannot be written.

        Example:
            >>> table = db.create_table("words", schema=Words, mode="overwrite")
            >>> db.create_table("points", [{"vector": [1.0, 0.0], "item": "a"}]).count_rows()
            1
        """
        if mode not in MODES:
            near = did_you_mean(str(mode), MODES) or ";"
            raise InputError(f"mode is {mode!r}{near} it must be one of {enumerated(MODES)}")
        bad = BadVectors(on_bad_vectors, fill_value)
        kind, name = self._found(_checked_name(name))
        if kind and (mode == "create" or kind == "view"):
            raise InputError(
                f"there is a {kind} '{name}'; open_table('{name}') opens it, and mode='overwrite' replaces a table"
            )
        rows = None if data is None else collected(data)
        new = _new(name, data, rows, schema)
        if kind and mode == "exist_ok":
            table = self.open_table(name)
            if schema is not None:
                _check_same(table, new.schema)
            return table
        fit = fitted([] if rows is None else rows, new.columns, name, bad)
        place = Place(self._database, name)
        for each in self.jammi._with_engine(self._created, place, new, fit, bad, kind is not None):
            self.jammi.drop(each)
        return Table(self.jammi, place)

    def _created(
        self, engine: Engine, place: Place, new: _New, rows: Rows, bad: BadVectors, replace: bool
    ) -> list[str]:
        """Make a table, with its rows and embedding tables; gives the embedding tables of one that it replaces."""
        identity = identity_of(engine, place)
        widths = {each.name: each.width or 0 for each in new.columns}
        with cursor_of(engine) as cursor:
            earlier = belonging(engine, cursor, place) if replace else []
            statement = creation(cursor, place, new.schema, new.defaults, replace=replace)
            requests = [(_request(engine, identity, pair, widths[pair.vector]), pair.vector) for pair in new.embedded]
            targets: list[Target] = []
            try:
                for request, vector in requests:
                    addition = Addition(engine.tables, engine.encoders, engine.jobs, request, rows.table.num_rows)
                    targets.append(Target(addition, vector))
                Writing(engine, cursor, place, rows, bad, targets, make=_recording(statement, place, targets)).write()
            except BaseException as error:
                for target in targets:
                    target.addition.abandon(error)
                raise
        return earlier

    def open_table(self, name: str) -> Table:
        """Open a table: one that was made here, or any other of the database, or a view.

        Args:
            name: its name.

        Returns:
            The table.

        Raises:
            NotFoundError: there is none.

        Example:
            >>> db.open_table("words").search("greetings").limit(1).to_list()
        """
        kind, own = self._found(name)
        if kind is None:
            known = sorted(self._known())
            near = did_you_mean(str(name), known) or ";"
            raise NotFoundError(f"there is no table '{name}'{near} tables: {enumerated(known) or 'none'}")
        return Table(self.jammi, Place(self._database, own), is_view=kind == "view")

    def table_names(self) -> list[str]:
        """The names of the tables, sorted; views are left out.

        Returns:
            The names.

        Example:
            >>> db.table_names()
            ['words']
        """
        return sorted(name for name, kind in self._known().items() if kind == "table")

    def drop_table(self, name: str, ignore_missing: bool = False) -> None:
        """Remove a table with its vectors.

        Args:
            name: its name.
            ignore_missing: do nothing if there is none.

        Raises:
            NotFoundError: there is none.
            InputError: it is a view.

        Example:
            >>> db.drop_table("words")
        """
        kind, _ = self._found(name)
        if kind is None and ignore_missing:
            return
        table = self.open_table(name)
        if kind == "view":
            raise InputError(f"'{name}' is a view; DROP VIEW in SQL removes it")
        self.jammi._with_engine(self._dropped, table.place)

    def _dropped(self, engine: Engine, place: Place) -> None:
        with cursor_of(engine) as cursor:
            made = belonging(engine, cursor, place)
            cursor.begin()
            cursor.execute(sql("DROP TABLE {}", place.sql))
            # Nothing of it is lost where DuckDB refuses.
            for name in made:
                self.jammi.drop(name)
            cursor.commit()

    def close(self) -> None:
        """Close the connection, if `connect` has opened it."""
        if self._is_owned:
            self.con.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _known(self) -> dict[str, str]:
        """The tables and views, with what they are."""

        def known(engine: Engine) -> dict[str, str]:
            with cursor_of(engine) as cursor:
                return dict(cursor.execute(_TABLES, [self._database, self._database]).fetchall())

        found: dict[str, str] = self.jammi._with_engine(known)
        return found

    def _found(self, name: str) -> tuple[str | None, str]:
        """What a name is, and how it is spelled."""
        known = self._known()
        own = next((each for each in known if folded(each) == folded(str(name))), None)
        return (None, name) if own is None else (known[own], own)


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name or "\x00" in name:
        raise InputError(f"a table cannot be called {name!r}; give a text that is not empty")
    if folded(name).startswith("_jammi_"):
        raise InputError(f"'{name}' is a name of jammi_duck's own; give the table another")
    return name


@dataclass(frozen=True)
class _New:
    """What a new table is to be: its columns, plain defaults, and what functions embed."""

    schema: pa.Schema
    defaults: Mapping[str, Any]
    embedded: Sequence[Embedded]

    @property
    def columns(self) -> list[Column]:
        """The columns, as rows have to fit them."""
        return [Column(each.name, each.type, each.nullable, self.defaults.get(each.name)) for each in self.schema]


def _new(name: str, data: Any, rows: Given | None, schema: Any) -> _New:  # noqa: ANN401 - as `create_table` got them
    """What a table is to be by its schema, or by its rows.

    Raises:
        InputError: there is neither, or they cannot be used.
    """
    if schema is None and isinstance(data, list) and data and hasattr(data[0], "model_dump"):
        schema = type(data[0])
    if schema is None:
        if rows is None:
            raise InputError(f"the table '{name}' needs data, or a schema")
        return _New(inferred(rows, name), {}, [])
    if isinstance(schema, pa.Schema):
        return _New(schema.remove_metadata(), {}, [])
    from jammi_duck.embeddings.schema import arrow_schema, defaults_of, embedded_in, is_model

    if not is_model(schema):
        raise InputError(f"schema is {schema!r}; give a subclass of Model, or an Arrow schema")
    return _New(arrow_schema(schema), defaults_of(schema), embedded_in(schema))


def _check_same(table: Table, schema: pa.Schema) -> None:
    there, wanted = table.schema.names, schema.names
    if there != wanted:
        raise InputError(
            f"the table '{table.name}' has the columns {enumerated(there)}, and the schema has {enumerated(wanted)}; "
            f"open_table('{table.name}') opens it as it is"
        )


def _recording(statement: Sql, place: Place, targets: Sequence[Target]) -> Sql:
    """The statement that makes a table, and those that record in it what makes its vectors."""
    made = [(each.vector, each.addition.name, each.addition.definition) for each in targets if each.vector]
    records = [(vector, Record(name, told.columns[0], told.model or "")) for vector, name, told in made]
    return joined("; ", [statement, *(record.comment(place, vector) for vector, record in records)])


def _request(engine: Engine, identity: str, pair: Embedded, width: int) -> Request:
    """What embeds a column.

    Raises:
        InputError: the vectors have another width than those of the function.
        ModelError: the function cannot be used.
    """
    model = pair.function.spec
    dimensions = engine.encoders.get(model).dimensions
    if width != dimensions:
        raise InputError(
            f"'{pair.vector}' has vectors of {width} numbers, and '{model}' makes vectors of {dimensions}; write "
            "Vector(func.ndims())"
        )
    pictures = engine.encoders.takes_images(model)
    asked = Request(identity, (pair.source,), KEY, model, embedding=label_of(pair.vector), pictures=pictures)
    # A picture has no words.
    return dataclasses.replace(asked, language=None) if pictures else asked
