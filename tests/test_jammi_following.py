"""Refresh, status, compaction, import, reuse and resume as methods in Python."""

import dataclasses

import numpy as np
import pytest

from jammi_duck import InputError, JammiError, NoModelError, NotFoundError
from jammi_duck.work.compact import Compacted
from jammi_duck.work.refresh import Refreshed
from tests.fakes import text_vector


@pytest.fixture
def built(animals, jammi):
    """The animals, embedded; gives what the build came to."""
    return jammi.generate("animals", "text", "id")


def change(con):
    """One row goes, one gets another text, two come."""
    con.execute("DELETE FROM animals WHERE id = 1")
    con.execute("UPDATE animals SET text = 'a wolf howls' WHERE id = 2")
    con.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee hums'), (7, 'wolf', 'a wolf howls')")


class TestRefresh:
    def test_a_table_follows_its_source(self, jammi, built):
        change(jammi.con)
        jammi.encoders.get("fake/small").encoded.clear()
        refreshed = jammi.refresh("animals")
        assert isinstance(refreshed, Refreshed)
        assert dataclasses.asdict(refreshed) | {"seconds": 0} == {
            "embedding_table": built.embedding_table,
            "added": 2,
            "changed": 1,
            "deleted": 1,
            "unchanged": 3,
            "failed": 0,
            "encoded": 2,
            "seconds": 0,
            "advice": None,
            "requests": None,
            "tokens": None,
        }
        assert sorted(jammi.encoders.get("fake/small").encoded) == ["a bee hums", "a wolf howls"]
        assert jammi.search("animals", "a wolf howls", 2).project("id").fetchall() == [(2,), (7,)]

    def test_the_table_can_be_named_in_two_ways(self, jammi, built):
        other = jammi.generate("animals", "text", "id", "fake/other")
        change(jammi.con)
        assert jammi.refresh("animals", model="fake/small").embedding_table == built.embedding_table
        assert jammi.status("animals").project("new").fetchall() == [(2,)]
        assert jammi.refresh("animals", embedding_table=other.embedding_table).added == 2

    def test_what_sql_refuses(self, jammi, built):
        with pytest.raises(NotFoundError, match="no embedding table for 'animal'; did you mean 'animals'"):
            jammi.refresh("animal")
        jammi.con.execute("INSERT INTO animals VALUES (5, 'elk', 'an elk')")
        with pytest.raises(InputError, match="the key 'id' of 'animals' is not unique: 1 of 6 rows"):
            jammi.refresh("animals")

    def test_no_signature_of_a_source_is_shown(self, jammi):
        source = "https://me:hush-hush@127.0.0.1:9/x.parquet?X-Amz-Signature=hush-hush"
        for call in (jammi.refresh, jammi.status, jammi.compact):
            with pytest.raises(JammiError) as caught:
                call(source)
            assert "hush" not in str(caught.value) + str(caught.value.__cause__)


class TestStatus:
    def test_before_and_after(self, jammi, built):
        columns = 'embedding_table, current, "new", changed, gone, coverage, segments, advice'
        assert jammi.status("animals").project(columns).fetchall() == [
            (built.embedding_table, 5, 0, 0, 0, 1.0, 1, None)
        ]
        change(jammi.con)
        advice = "SELECT * FROM jammi_refresh('animals') brings it up to date"
        assert jammi.status("animals").project(columns).fetchall() == [
            (built.embedding_table, 3, 2, 1, 1, 0.5, 1, advice)
        ]
        refreshed = jammi.refresh("animals")
        assert jammi.status("animals", model="fake/small").project(columns).fetchall() == [
            (built.embedding_table, 6, 0, 0, 0, 1.0, 2, refreshed.advice)
        ]

    def test_what_sql_refuses(self, jammi, built):
        with pytest.raises(NotFoundError, match="no embedding table 'nothing'; ready are: animals__"):
            jammi.status("animals", embedding_table="nothing")


class TestCompact:
    def test_segments_become_one(self, jammi, built):
        change(jammi.con)
        jammi.refresh("animals")
        found = jammi.search("animals", "water").fetchall()
        compacted = jammi.compact("animals")
        assert isinstance(compacted, Compacted)
        assert (compacted.embedding_table, compacted.segments_before, compacted.segments, compacted.rows_removed) == (
            built.embedding_table, 2, 1, 2,
        )  # fmt: skip
        assert 0 < compacted.bytes < compacted.bytes_before
        assert jammi.search("animals", "water").fetchall() == found
        again = jammi.compact("animals", model="fake/small", embedding_table=built.embedding_table)
        assert (again.segments_before, again.segments, again.rows_removed) == (1, 1, 0)

    def test_what_sql_refuses(self, jammi, built):
        with pytest.raises(NotFoundError, match="no embedding table for 'animals' of the model 'fake/other'"):
            jammi.compact("animals", model="fake/other")


class TestImport:
    @pytest.fixture
    def vectors(self, animals):
        """Vectors of the animals, three times as long as those that the model makes."""
        rows = animals.execute("SELECT id, text FROM animals").fetchall()
        animals.execute("CREATE TABLE mine (id INTEGER, v FLOAT[64])")
        for key, text in rows:
            animals.execute("INSERT INTO mine VALUES (?, ?)", [key, (3 * text_vector(text)).tolist()])
        return animals

    def test_vectors_are_taken_as_they_are(self, vectors, jammi):
        taken = jammi.import_vectors("animals", "mine", "id", "v", "fake/small", "text")
        assert (taken.source, taken.model, taken.status, taken.row_count) == ("animals", "fake/small", "ready", 5)
        assert jammi.encoders.get("fake/small").encoded == []
        assert jammi.search("animals", "an owl hunts at night", 1).project("id").fetchall() == [(5,)]
        (stored,) = jammi.con.execute(
            f"SELECT vector FROM jammi.\"{taken.embedding_table}\" WHERE _row_id = '5'"
        ).fetchone()
        assert np.allclose(stored, text_vector("an owl hunts at night"), atol=1e-6)
        change(jammi.con)
        assert jammi.refresh("animals").encoded == 2

    def test_without_columns_nothing_new_can_be_embedded(self, vectors, jammi):
        jammi.import_vectors("animals", "mine", "id", "v", "fake/small")
        jammi.con.execute("DELETE FROM animals WHERE id = 1")
        assert jammi.refresh("animals").deleted == 1
        jammi.con.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee hums')")
        with pytest.raises(InputError, match=r"imported without the columns of its text, so 1 new rows"):
            jammi.refresh("animals")

    def test_a_model_may_be_fetched_later(self, vectors, jammi):
        known = jammi.encoders.loaded.pop("fake/small")
        taken = jammi.import_vectors("animals", "mine", "id", "v", "fake/small", "text")
        assert (taken.model, taken.dimensions) == ("fake/small", 64)
        assert jammi.search("animals", text_vector("an owl hunts at night"), 1).project("id").fetchall() == [(5,)]
        jammi.con.execute("DELETE FROM animals WHERE id = 1")
        assert (jammi.refresh("animals").deleted, jammi.refresh("animals").encoded) == (1, 0)
        with pytest.raises(NoModelError, match="no model 'fake/small'"):
            jammi.search("animals", "owl").fetchall()
        jammi.encoders.loaded["fake/small"] = known
        change(jammi.con)
        assert jammi.refresh("animals").encoded == 2
        assert jammi.search("animals", "an owl hunts at night", 1).project("id").fetchall() == [(5,)]

    def test_what_sql_refuses(self, vectors, jammi):
        with pytest.raises(InputError, match="no column 'vec' in 'mine'"):
            jammi.import_vectors("animals", "mine", "id", "vec", "fake/small", ["text"])
        with pytest.raises(InputError, match="the vectors have 64 dimensions; 'fake/other' gives 8"):
            jammi.import_vectors("animals", "mine", "id", "v", "fake/other")
        assert jammi.tables().fetchall() == []


class TestReuse:
    def test_a_table_that_is_up_to_date_is_given_again(self, jammi, built):
        again = jammi.generate("animals", "text", "id", reuse=True)
        assert dataclasses.replace(again, seconds=built.seconds) == built
        assert len(jammi.tables()) == 1

    def test_another_is_made_where_it_is_not(self, jammi, built):
        change(jammi.con)
        other = jammi.generate("animals", "text", "id", reuse=True)
        assert (other.embedding_table != built.embedding_table, other.row_count) == (True, 6)
        jammi.con.execute("DELETE FROM animals WHERE id = 3")
        assert jammi.generate("animals", "text", "id").embedding_table != other.embedding_table


class TestResume:
    @pytest.fixture
    def interrupted(self, fake):
        """A build of 9,000 rows whose source has failed at the end, and does so no more."""
        jammi = fake(segment_rows=1000)
        jammi.con.execute("CREATE TABLE flag AS SELECT true AS broken")
        jammi.con.execute(
            "CREATE VIEW many AS SELECT range AS id, CASE WHEN range = 8500 AND (SELECT broken FROM flag) "
            "THEN error('the disk is away') ELSE 'text ' || range END AS text FROM range(9000)"
        )
        with pytest.raises(JammiError, match="the disk is away"):
            jammi.generate("many", "text", "id")
        assert len(jammi.encoders.get("fake/small").encoded) >= 4000
        jammi.con.execute("UPDATE flag SET broken = false")
        jammi.encoders.get("fake/small").encoded.clear()
        return jammi

    def test_a_build_goes_on_where_it_was(self, interrupted):
        done = interrupted.generate("many", "text", "id", resume=True)
        assert (done.status, done.row_count) == ("ready", 9000)
        assert 500 <= len(interrupted.encoders.get("fake/small").encoded) <= 5000
        assert interrupted.tables().project("embedding_table, status").fetchall() == [(done.embedding_table, "ready")]
        assert interrupted.search("many", "text 8500", 1).project("id").fetchall() == [(8500,)]

    def test_a_refresh_does_the_same(self, interrupted):
        done = interrupted.refresh("many")
        assert done.added == done.encoded == len(interrupted.encoders.get("fake/small").encoded)
        assert (done.added + done.unchanged, done.unchanged >= 4000) == (9000, True)
        assert interrupted.tables().project("embedding_table, status").fetchall() == [(done.embedding_table, "ready")]

    def test_without_it_all_is_embedded(self, interrupted):
        done = interrupted.generate("many", "text", "id")
        assert (done.row_count, len(interrupted.encoders.get("fake/small").encoded)) == (9000, 9000)
        assert sorted(interrupted.tables().project("status").fetchall()) == [("failed",), ("ready",)]
