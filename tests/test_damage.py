"""Sidecars, manifests and Parquet files that are missing, cut short, altered, or another build's."""

import shutil
import warnings
from datetime import timedelta

import duckdb
import pytest

from jammi_duck import JammiWarning
from jammi_duck.storage.files import layout
from tests.test_generate import error_of
from tests.test_search import WORDS, fill, ids


def damage(kind):
    """How a sidecar is spoilt: a function of its path and of another build's file of the same kind."""

    def missing(path, other):
        path.unlink()

    def cut_short(path, other):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[: len(content) // 2])

    def empty(path, other):
        path.unlink()
        path.write_bytes(b"")

    def altered(path, other):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x55
        path.unlink()
        path.write_bytes(content)

    def anothers(path, other):
        path.unlink()
        path.write_bytes(other.read_bytes())

    return {"missing": missing, "cut short": cut_short, "empty": empty, "altered": altered, "another's": anothers}[kind]


class TestDamage:
    @pytest.fixture
    def built(self, fake, tmp_path, storage):
        """A database file with two tables of 300 rows built, and closed; gives the first one's name, and reopens."""
        database = str(tmp_path / "db.duckdb")
        jammi = fake(duckdb.connect(database))
        fill(jammi.con, [f"{WORDS[i % 16]} {WORDS[i % 13]} n{i}" for i in range(300)])
        jammi.con.execute("CREATE TABLE other AS SELECT id + 1000 AS id, text || ' x' AS text FROM t")
        name = jammi.generate("t", "text", "id").embedding_table
        other = jammi.generate("other", "text", "id").embedding_table
        before = ids(jammi.con, "red n5", 10)
        jammi.con.close()

        def reopen(**options):
            return fake(duckdb.connect(database), **options)

        return name, other, before, reopen

    @pytest.mark.sampled(4)
    @pytest.mark.parametrize("how", ["missing", "cut short", "empty", "altered", "another's"])
    @pytest.mark.parametrize(
        "kinds",
        [["usearch"], ["rowmap"], ["vectors"], ["manifest.json"], ["usearch", "rowmap", "vectors", "manifest.json"]],
    )
    def test_search_falls_back_warns_once_and_recovers(self, built, storage, kinds, how):
        name, other, before, reopen = built
        folder = storage / "jammi_db"
        for kind in kinds:
            damage(how)(folder / f"{name}.{kind}", folder / f"{other}.{kind}")
        con = reopen().con
        with pytest.warns(JammiWarning, match="cannot be used") as caught:
            assert ids(con, "red n5", 10) == before
            assert ids(con, "red n5", 10) == before
        assert len(caught) == 1
        recovered = con.execute("SELECT embedding_table, status, action FROM jammi_recover()").fetchall()
        assert [row[:2] for row in recovered] == [(name, "ready")]
        assert "again" in recovered[0][2]
        assert con.execute("SELECT * FROM jammi_recover()").fetchall() == []
        assert ids(con, "red n5", 10) == before
        con.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert ids(reopen().con, "red n5", 10) == before

    def test_a_manifest_is_rebuilt_under_a_new_number_and_old_files_are_vacuumed(self, built, storage, fake, tmp_path):
        name, _, before, reopen = built
        folder = storage / "jammi_db"
        damage("altered")(folder / f"{name}.usearch", None)
        con = reopen().con
        con.execute("FROM jammi_recover()").fetchall()
        assert (folder / f"{name}.00002.manifest.json").exists()
        assert (folder / f"{name}.r00002.usearch").exists()
        con.close()
        con = fake(duckdb.connect(str(tmp_path / "db.duckdb")), retention=timedelta(0)).con
        removed = {file for (file,) in con.execute("SELECT file FROM jammi_vacuum()").fetchall()}
        assert {f"{name}.usearch", f"{name}.manifest.json"} <= removed
        assert f"{name}.parquet" not in removed
        assert ids(con, "red n5", 10) == before

    def test_a_parquet_that_is_gone(self, built, storage):
        name, _, before, reopen = built
        for path in (storage / "jammi_db").glob(f"{name}.*"):
            path.unlink()
        con = reopen().con
        message = error_of(con, "FROM jammi_search('t', 'red')")
        assert f"'{name}' cannot be used, every file of it is gone" in message
        ((table, status, action),) = con.execute("FROM jammi_recover()").fetchall()
        assert (table, status) == (name, "gone")
        assert "every file of it is gone" in action
        con.execute("FROM jammi_drop(?)", [name]).fetchall()
        assert "no embedding table for 't'" in error_of(con, "FROM jammi_search('t', 'red')")

    def test_a_parquet_that_is_away_for_a_while_is_not_lost(self, built, storage, tmp_path):
        name, _, before, reopen = built
        parquet = storage / "jammi_db" / f"{name}.parquet"
        parquet.rename(tmp_path / "aside")
        con = reopen().con
        con.execute("FROM jammi_recover()").fetchall()
        con.close()
        (tmp_path / "aside").rename(parquet)
        con = reopen().con
        con.execute("FROM jammi_recover()").fetchall()
        assert ids(con, "red n5", 10) == before

    def test_a_location_that_is_gone_is_left_alone(self, built, storage):
        name, other, _, reopen = built
        (storage / "jammi_db").rename(storage / "elsewhere")
        con = reopen(follow=timedelta(0)).con
        listed = "SELECT DISTINCT status, error FROM jammi_tables()"
        ((status, error),) = con.execute(listed).fetchall()
        assert (status, error.partition(";")[0]) == ("missing", f"there is nothing at {storage}")
        rows = con.execute("FROM jammi_recover()").fetchall()
        assert {(status, done.split(":")[0]) for _, status, done in rows} == {("missing", "left alone")}
        for call in ("jammi_search('t', 'red')", "jammi_status('t')", "jammi_refresh('t')"):
            message = error_of(con, f"FROM {call}")
            assert f"there is nothing at '{storage}', where '{name}' was; it may not be mounted" in message
            assert "jammi_recover() writes it again" not in message
            assert "no Parquet file" not in message
        con.execute("CREATE TABLE u AS SELECT 1 AS id, 'another' AS text")
        con.execute("FROM jammi_generate('u', 'text', 'id')").fetchall()
        listed = "SELECT source, status FROM jammi_tables() WHERE source <> 'other' ORDER BY ALL"
        assert con.execute(listed).fetchall() == [("t", "gone"), ("u", "ready")]
        shutil.rmtree(storage / "jammi_db")
        assert con.execute(listed).fetchall() == [("t", "missing"), ("u", "missing")]
        (storage / "elsewhere").rename(storage / "jammi_db")
        assert con.execute(listed).fetchall() == [("t", "ready"), ("u", "gone")]
        assert ids(con, "red n5", 1)

    def test_an_altered_parquet_is_not_searched(self, built, storage):
        name, _, _, reopen = built
        damage("altered")(storage / "jammi_db" / f"{name}.parquet", None)
        con = reopen().con
        assert ids(con, "red n5", 10)
        con.close()
        (storage / "jammi_db" / f"{name}.usearch").unlink()
        con = reopen().con
        with pytest.warns(JammiWarning, match="usearch' is missing"):
            assert ids(con, "red n5", 10)
        con.close()
        (storage / "jammi_db" / f"{name}.vectors").unlink()
        con = reopen().con
        with pytest.warns(JammiWarning, match="is missing"):
            assert "SHA-256 differs" in error_of(con, "FROM jammi_search('t', 'red')")
        assert "cannot be repaired" in con.execute("SELECT action FROM jammi_recover()").fetchall()[0][0]


class TestWords:
    """Words can be made again from the source alone: a search goes on without them, and a refresh indexes them."""

    @pytest.fixture
    def built(self, fake, tmp_path):
        """A database with two tables, closed: the first one's name, the other's, and a function that opens it."""
        database = str(tmp_path / "db.duckdb")

        def reopen(**options):
            return fake(duckdb.connect(database), segment_rows=100, **options).con

        con = reopen()
        fill(con, [f"{WORDS[i % 16]} {WORDS[i % 13]} n{i}" for i in range(300)])
        con.execute("CREATE TABLE other AS FROM t WHERE id > 5")
        names = [
            con.execute("SELECT embedding_table FROM jammi_generate(?, 'text', 'id')", [table]).fetchone()[0]
            for table in ("t", "other")
        ]
        con.close()
        return *names, reopen

    def found(self, con):
        return {mode: ids(con, "red n5", 10, mode=f"'{mode}'") for mode in ("auto", "text", "vector")}

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("how", ["missing", "cut short", "empty", "altered", "another's"])
    def test_a_refresh_indexes_them_again(self, built, storage, how):
        name, other, reopen = built
        folder = storage / "jammi_db"
        con = reopen()
        before = self.found(con)
        assert len({tuple(each) for each in before.values()}) == 3
        con.close()
        damage(how)(folder / f"{name}.00001.words", folder / f"{other}.00001.words")
        con = reopen()
        with pytest.warns(JammiWarning, match=f"the words of '{name}' cannot be used .*jammi_refresh") as caught:
            assert self.found(con) == dict.fromkeys(before, before["vector"])
        assert len(caught) == 1
        ((table, status, action),) = con.execute("FROM jammi_recover()").fetchall()
        assert (table, status) == (name, "ready")
        assert "words of a segment are missing or damaged: SELECT * FROM jammi_refresh('t'" in action
        con.execute(action.split(": ")[1].removesuffix(" indexes them again from the source")).fetchall()
        assert con.execute("SELECT encoded, unchanged FROM jammi_refresh('t')").fetchall() == [(0, 300)]
        assert self.found(con) == before
        assert con.execute("FROM jammi_recover()").fetchall() == []
        con.close()
        con = reopen(retention=timedelta(0))
        gone = {file for (file,) in con.execute("SELECT file FROM jammi_vacuum()").fetchall()}
        old = {f"{name}.00001.words"} if how != "missing" else set()
        assert gone == {f"{name}.manifest.json"} | old
        assert self.found(con) == before
        left = [layout.parse(path.name) for path in folder.glob(f"{name}*.words")]
        assert sorted((file.number, file.rebuilt > 0) for file in left) == [
            (0, False),
            (1, how != "missing"),
            (2, False),
        ]

    def test_a_manifest_that_is_gone_is_built_again_with_them(self, built, storage):
        name, _, reopen = built
        con = reopen()
        con.execute("UPDATE t SET text = text || ' Häuser' WHERE id % 10 = 0")
        con.execute("FROM jammi_refresh('t')").fetchall()
        assert con.execute("SELECT language, row_count FROM jammi_index_words('t', language := 'german')").fetchall()
        before = self.found(con)
        house = ids(con, "Haus", 100, mode="'text'")
        assert len(house) == 30
        con.close()
        for path in (storage / "jammi_db").glob(f"{name}*manifest.json"):
            path.unlink()
        con = reopen()
        with pytest.warns(JammiWarning, match="has no manifest"):
            assert ids(con, "red n5", 10) == before["vector"]
        ((action,),) = con.execute("SELECT action FROM jammi_recover()").fetchall()
        assert "words" not in action
        assert self.found(con) == before
        assert ids(con, "Haus", 100, mode="'text'") == house
        assert con.execute("FROM jammi_recover()").fetchall() == []
