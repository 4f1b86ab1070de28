"""The databases that a column of vectors may be in, as the tests use them: DuckDB, and PostgreSQL."""

import json

import duckdb
import numpy as np

from jammi_duck.doors.host import ConnectionHost
from jammi_duck.encoder import Encoder, Encodings
from jammi_duck.udfs.vector_column import VectorColumn
from jammi_duck.work.fill import fill
from tests.fakes import text_vector

# A wrapper that needs no model; `sleep` is how many seconds it takes for a batch.
LETTERS = """\
import time

def embedding_label():
    return 'Letters'

def embedding_description():
    return 'Counts letters.'

def embedding_dim():
    return 3

def embedding_encode(input_data, verbose=False):
    if 'bad' in input_data:
        raise ValueError('it is bad')
    return [1.0 + input_data.count('a'), 1.0 + input_data.count('e'), float(len(input_data))]

def embedding_encode_batch(batch_index, batch, verbose=False):
    time.sleep({sleep})
    return [(key, embedding_encode(value)) for key, value in batch]
"""


class Fake(Encoder):
    """Gives each text its vector, and does something else before; a text with `bad` in it fails."""

    dimensions = 8

    def __init__(self, meanwhile=lambda texts: None):
        self.meanwhile = meanwhile
        self.texts = []

    def encode_rows(self, texts, role, progress):
        self.meanwhile(texts)
        self.texts += texts
        vectors = np.array([vector_of(text) for text in texts], np.float32).reshape(-1, self.dimensions)
        return Encodings(vectors, np.zeros(len(texts), bool), np.array(["bad" in text for text in texts], bool))


def vector_of(text):
    vector = np.asarray(text_vector(text, Fake.dimensions), np.float32)
    return vector / np.linalg.norm(vector)


class World:
    """A database with one connection, and columns in it."""

    def filled(
        self, encoder=None, table="passage", *, size=2, batches=1, to_the_end=True, columns=("passage", "v"), **more
    ):
        """Fill the column, which may be missing."""
        column = self.column(table, *columns, **more)
        encoder = encoder or Fake()
        column.create(encoder.dimensions)
        return fill_column(column, encoder, size=size, batches=batches, to_the_end=to_the_end)

    def check(self, table="passage", columns=("passage", "v")):
        """Every vector is that of the row's own text; returns the texts without one."""
        rows = [
            (text, self.vector(found))
            for text, found in self.run(f'SELECT "{columns[0]}", "{columns[1]}" FROM {table}')
        ]
        for text, vector in rows:
            assert vector is None or np.allclose(vector, vector_of(text), atol=1e-6), text
        return [text for text, vector in rows if vector is None]


def fill_column(column, encoder, *, size=2, batches=1, to_the_end=True, **more):
    return fill(
        column,
        encoder,
        batch_size=size,
        batches=batches,
        to_the_end=to_the_end,
        began=lambda *_: None,
        encoded=lambda *_: None,
        **more,
    )


class DuckDB(World):
    name = "duckdb"

    def __init__(self, path=":memory:"):
        self.con = duckdb.connect(str(path))
        self.url = str(path)

    def run(self, statement, *values):
        return self.con.execute(statement, values).fetchall()

    def column(self, *names, kind=VectorColumn, **options):
        host = ConnectionHost()
        host.add(self.con)
        return kind(host, *names, **options)

    def vector(self, found):
        return found

    def another(self):
        """The same database for another thread."""
        other = object.__new__(DuckDB)
        other.con, other.url = self.con.cursor(), self.url
        return other

    def close_columns(self):
        """Close what columns have opened."""

    def close(self):
        self.con.close()


class PostgreSQL(World):
    name = "postgresql"

    def __init__(self, server, database=None):
        import psycopg

        self.server = server
        self.database = database or server.new_database()
        self.url = server.url(self.database)
        self.con = psycopg.connect(self.url, autocommit=True, cursor_factory=psycopg.RawCursor)
        self.opened = []

    def run(self, statement, *values):
        cursor = self.con.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def column(self, *names, kind=None, url=None, **options):
        from jammi_duck.doors.columns.connections import Connections
        from jammi_duck.doors.columns.server_column import ServerColumn

        connections = Connections(url or self.url)
        self.opened.append(connections)
        return (kind or ServerColumn)(connections, *names, **options)

    def vector(self, found):
        return None if found is None else json.loads(found)

    def another(self):
        return PostgreSQL(self.server, self.database)

    def close_columns(self):
        while self.opened:
            self.opened.pop().close()

    def close(self):
        self.close_columns()
        self.con.close()
