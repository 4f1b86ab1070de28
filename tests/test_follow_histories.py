"""Whatever happens to a table that is followed, its searches are those of its committed rows: random histories."""

import contextlib
import warnings

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jammi_duck.errors import JammiWarning
from tests.fakes import text_vector
from tests.test_follow import WAYS


class TestHistories:
    """Whatever happens to a table, its searches are those of its committed rows."""

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("way", [*WAYS, "fresh"])
    @pytest.mark.parametrize("key", ["INTEGER", "VARCHAR PRIMARY KEY"])
    @settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_histories(self, fake, way, key, data):
        History(fake, way, key).run(data)

    @pytest.mark.long
    @pytest.mark.parametrize("way", [*WAYS, "fresh"])
    @pytest.mark.parametrize("key", ["INTEGER", "VARCHAR PRIMARY KEY"])
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_many_histories(self, fake, way, key, data):
        History(fake, way, key).run(data)


TEXTS = st.none() | st.sampled_from(["", *(f"word{i} other{i % 3}" for i in range(12))])
KEYS = st.integers(0, 7)
CHANGES = st.one_of(
    st.tuples(
        st.just("INSERT INTO t (id, text) SELECT $1, $2 WHERE NOT EXISTS (FROM t WHERE id = $1::VARCHAR)"), KEYS, TEXTS
    ),
    st.tuples(st.just("UPDATE t SET text = $2 WHERE id = $1::VARCHAR"), KEYS, TEXTS),
    st.tuples(st.just("DELETE FROM t WHERE id = $1::VARCHAR AND ($2 IS NULL OR true)"), KEYS, TEXTS),
    st.tuples(st.just("UPDATE t SET other = $2 WHERE id <> $1::VARCHAR"), KEYS, TEXTS),
    st.tuples(
        st.just("UPDATE t SET text = (SELECT any_value(u.text) FROM t u WHERE u.id = ($1 + 1)::VARCHAR) "
                "WHERE id = $1::VARCHAR AND ($2 IS NULL OR true)"), KEYS, TEXTS,
    ),
)  # fmt: skip
WHOLE = [
    "BEGIN", "COMMIT", "ROLLBACK", "TRUNCATE t", "ALTER TABLE t ADD COLUMN IF NOT EXISTS more INTEGER",
    "CREATE OR REPLACE TABLE t AS FROM t",
    "CREATE OR REPLACE TABLE t AS SELECT * REPLACE (text || ' new' AS text) FROM t",
    "ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t", "SELECT * FROM jammi_refresh('t')",
    "SELECT * FROM jammi_compact('t')", "FROM jammi_search('t', 'word1', 20, fresh := true)",
    "FROM jammi_search('t', 'word1', 20)", "CHECKPOINT",
]  # fmt: skip
QUERY = "word1 other2"


class History:
    def __init__(self, fake, way, key):
        self.jammi = fake()
        self.way = way
        self.first, self.second = self.jammi.con, self.jammi.cursor().con
        self.first.execute(f"CREATE TABLE t (id {key}, other VARCHAR, text VARCHAR)")
        self.first.execute("INSERT INTO t SELECT range, NULL, 'word' || range FROM range(4)")
        self.first.execute("SELECT * FROM jammi_generate('t', 'text', 'id')")
        if way != "fresh":
            self.first.execute(f"SELECT * FROM jammi_follow('t', triggers := {way})")

    def run(self, data):
        steps = st.lists(st.tuples(st.booleans(), st.one_of(CHANGES, CHANGES, st.sampled_from(WHOLE))), max_size=12)
        try:
            for is_first, change in data.draw(steps):
                statement, *values = (change,) if isinstance(change, str) else change
                # The first connection searches, outside of transactions.
                in_first = is_first and statement not in ("BEGIN", "COMMIT", "ROLLBACK")
                self.change(self.first if in_first else self.second, statement, values)
                self.check()
        finally:
            self.first.close()
            self.second.close()

    def change(self, con, statement, values):
        try:
            with warnings.catch_warnings():
                # An earlier transaction of the second connection may see less than there is by now.
                warnings.simplefilter("ignore", JammiWarning)
                con.execute(statement, values)
        except duckdb.Error:
            # Conflicts, and transactions that are none.
            if con is self.second:
                with contextlib.suppress(duckdb.TransactionException):
                    con.execute("ROLLBACK")

    def check(self):
        asked = QUERY.split()
        option = ", fresh := true" if self.way == "fresh" else ""
        search = f"SELECT id, text, _similarity FROM jammi_search('t', '{QUERY}', 100, mode := 'vector'{option})"
        encoder = self.jammi.encoders.loaded["fake/small"]
        found = self.first.execute(search).fetchall()
        rows = self.first.execute("SELECT id, text FROM t WHERE text <> ''").fetchall()
        assert sorted((key, text) for key, text, _ in found) == sorted(rows), asked
        vector = text_vector(QUERY)
        for _, text, similarity in found:
            assert np.isclose(similarity, float(vector @ text_vector(text)), atol=1e-3), text
        # Nothing is embedded that was embedded already.
        encoder.encoded.clear()
        self.first.execute(search).fetchall()
        assert encoder.encoded == [QUERY]
