"""What histories of a table are made of: databases with sources of their own, and what a fresh build would hold."""

from datetime import timedelta

import duckdb
import numpy as np

from jammi_duck.config.options import Config
from jammi_duck.doors.installation import equip
from jammi_duck.storage.files.location import open_store
from tests.fakes import FakeEncoders, text_vector

SEGMENT_ROWS = 5


def has_text(text):
    return text is not None and bool(text.strip())


def embedded(source):
    """What a fresh build of a source holds."""
    return {key: text for key, text in source.items() if has_text(text) and "unencodable" not in text}


def to_encode(source, table):
    """The texts of a source that no row of a table has."""
    return set(filter(has_text, source.values())) - set(table.values())


def nearest(table, query, k):
    """An exact search in plain numpy: keys and similarities, best first, ties by the key as text."""
    vector = text_vector(query).astype(np.float64)
    near = sorted((-np.float32(text_vector(text).astype(np.float64) @ vector), str(key)) for key, text in table.items())
    return [(key, np.clip(-similarity, -1, 1)) for similarity, key in near[:k]]


class Database:
    """A database file, its source, and two connections to it, which look at each call for what others have done."""

    def __init__(self, folder, side, location):
        self.file = str(folder / f"{side}.duckdb")
        self.cache = folder / f"cache of {side}"
        self.location = location
        self.source = {}
        self.con = self.other = None
        con = duckdb.connect(self.file)
        con.execute("CREATE TABLE t (id INTEGER, text VARCHAR)")
        con.close()

    def open(self):
        self.con, self.encoders = duckdb.connect(self.file), FakeEncoders()
        config = Config(
            storage=self.location,
            model="fake/small",
            cache_dir=self.cache,
            segment_rows=SEGMENT_ROWS,
            retention=timedelta(0),
            follow=timedelta(0),
        )
        try:
            equip(self.con, config, self.encoders)
            self.other = self.con.cursor()
            equip(self.other, config, self.encoders)
        except BaseException:
            self.close()
            raise

    def close(self):
        for con in (self.other, self.con):
            if con:
                con.close()
        self.con = self.other = None

    @property
    def encoded(self):
        return self.encoders.get("fake/small").encoded

    def store(self):
        return open_store(self.location, self.cache)

    def put(self, rows):
        for key, text in rows.items():
            known = key in self.source
            statement = "UPDATE t SET text = $2 WHERE id = $1" if known else "INSERT INTO t VALUES ($1, $2)"
            self.con.execute(statement, [key, text])
        self.source |= rows

    def delete(self, keys):
        self.con.execute("DELETE FROM t WHERE list_contains(?, id)", [keys])
        for key in keys:
            self.source.pop(key, None)


def ask(con, query, *parameters):
    """The only row of an answer, as a dict."""
    cursor = con.execute(query, list(parameters))
    names = [column[0] for column in cursor.description]
    (row,) = cursor.fetchall()
    return dict(zip(names, row, strict=True))
