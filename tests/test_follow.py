"""Searches that are always current: `fresh := true`, `jammi_follow` and `jammi_unfollow`."""

import contextlib
import threading
import time
import warnings

import duckdb
import pytest

from jammi_duck.errors import InputError, JammiWarning, NotFoundError, StateError
from jammi_duck.storage.tables.change import Change
from jammi_duck.storage.tables.followed import FollowedSources
from jammi_duck.udfs import following
from jammi_duck.work.freshen import Freshener
from jammi_duck.work.refresh import Refresher

HAS_TRIGGERS = int(duckdb.__version__.split(".")[0]) >= 2
needs_triggers = pytest.mark.skipif(not HAS_TRIGGERS, reason="DuckDB has triggers from 2.0 on")
WAYS = ["false", *(["NULL", "true"] if HAS_TRIGGERS else [])]


@pytest.fixture
def embedded(animals, jammi):
    animals.execute("SELECT * FROM jammi_generate('animals', 'text', 'id')")
    encoded(jammi)
    return animals


def encoded(jammi):
    """The texts that reached the encoder since this was last asked."""
    encoder = jammi.encoders.loaded["fake/small"]
    texts, encoder.encoded = encoder.encoded, []
    return texts


def names(con, query, k=1, **options):
    more = "".join(f", {name} := {value}" for name, value in options.items())
    return [
        name for (name,) in con.execute(f"SELECT name FROM jammi_search('animals', '{query}', {k}{more})").fetchall()
    ]


def leftovers(con):
    triggers = con.execute("SELECT count(*) FROM duckdb_triggers()").fetchall() if HAS_TRIGGERS else [(0,)]
    tables = con.execute("SELECT count(*) FROM duckdb_tables() WHERE starts_with(table_name, 'changes_')").fetchall()
    return triggers, tables


class TestFresh:
    def test_what_is_new_changed_and_gone_is_in_this_very_search(self, embedded, jammi):
        embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee makes honey')")
        assert names(embedded, "honey", fresh="true") == ["bee"]
        assert encoded(jammi) == ["a bee makes honey", "honey"]
        embedded.execute("UPDATE animals SET text = 'iron and steel' WHERE id = 1; DELETE FROM animals WHERE id = 6")
        assert names(embedded, "steel", fresh="true") == ["cat"]
        assert encoded(jammi) == ["iron and steel", "steel"]
        assert len(names(embedded, "honey", 10, fresh="true")) == 5
        assert embedded.execute("SELECT current, new, changed, gone FROM jammi_status('animals')").fetchall() == [
            (5, 0, 0, 0)
        ]

    def test_what_was_embedded_is_kept_for_the_next(self, embedded, jammi):
        embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee makes honey')")
        names(embedded, "honey", fresh="true")
        encoded(jammi)
        assert names(embedded, "honey") == ["bee"]
        assert names(embedded, "honey", fresh="true") == ["bee"]
        assert encoded(jammi) == ["honey", "honey"]

    def test_no_more_texts_than_it_may(self, embedded, jammi):
        embedded.execute("INSERT INTO animals SELECT 10 + range, 'n' || range, 'word' || range FROM range(5)")
        with pytest.warns(JammiWarning, match=r"'animals' has 3 new or changed rows more than .* \(fresh_rows is 2\)"):
            names(embedded, "honey", fresh="true", fresh_rows=2)
        assert len(encoded(jammi)) == 3
        with pytest.warns(JammiWarning, match="has 1 new"):
            names(embedded, "honey", fresh="true", fresh_rows=2)
        assert len(names(embedded, "honey", 20, fresh="true", fresh_rows=2)) == 10

    def test_a_transaction_sees_its_own_changes_and_leaves_nothing_wrong(self, embedded):
        embedded.execute("BEGIN")
        embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee makes honey'); DELETE FROM animals WHERE id = 1")
        embedded.execute("UPDATE animals SET text = 'iron' WHERE id = 2")
        assert names(embedded, "honey", fresh="true") == ["bee"]
        assert names(embedded, "iron", fresh="true") == ["dog"]
        embedded.execute("ROLLBACK")
        assert names(embedded, "a loud dog barks", fresh="true") == ["dog"]
        assert sorted(names(embedded, "honey", 10, fresh="true")) == ["cat", "dog", "duck", "fish", "owl"]

    @pytest.mark.parametrize(
        ("search", "wanted"),
        [
            ("jammi_search('animals', 'honey', 1, fresh := true, filter := 'id > 2')", ["bee"]),
            ("jammi_search('animals', 'honey', 1, fresh := true, filter := 'id > 6')", []),
            ("jammi_search('animals', 'honey', 1, fresh := true, exact := true, mode := 'vector')", ["bee"]),
            ("jammi_similar('animals', 6, 1, fresh := true)", ["cat"]),
            ("(SELECT _row_id AS name FROM jammi_matches('animals', 'honey', 1, fresh := true))", ["6"]),
        ],
    )
    def test_every_kind_of_search(self, embedded, search, wanted):
        embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee sleeps honey')")
        assert [name for (name,) in embedded.execute(f"SELECT name FROM {search}").fetchall()] == wanted

    def test_views_ctes_and_temp_tables(self, embedded):
        embedded.execute("CREATE VIEW seen AS SELECT id, text FROM animals WHERE id < 4")
        embedded.execute("CREATE TEMP TABLE mine AS SELECT id, text FROM animals WHERE id > 3")
        for source in ("seen", "mine"):
            embedded.execute(f"SELECT * FROM jammi_generate('{source}', 'text', 'id')")
        embedded.execute("UPDATE animals SET text = 'iron' WHERE id = 3; UPDATE mine SET text = 'steel' WHERE id = 4")
        for source, query, key in (("seen", "iron", 3), ("mine", "steel", 4)):
            found = embedded.execute(f"SELECT id FROM jammi_search('{source}', '{query}', 1, fresh := true)").fetchall()
            assert found == [(key,)]

    def test_explain_embeds_nothing(self, embedded, jammi):
        embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee makes honey')")
        embedded.execute("EXPLAIN SELECT name FROM jammi_search('animals', 'honey', 1, fresh := true)")
        assert encoded(jammi) == []

    def test_python(self, embedded, jammi):
        embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee makes honey')")
        assert jammi.search("animals", "honey", 1, fresh=True).project("name").fetchall() == [("bee",)]

    def test_mistakes(self, embedded, jammi):
        for option, said in (("0", "from 1 to"), ("1.5", "whole number"), ("1000000", "from 1 to")):
            with pytest.raises(duckdb.Error, match=f"fresh_rows is {option}; it must be.*{said}"):
                names(embedded, "honey", fresh="true", fresh_rows=option)
        embedded.execute("INSERT INTO animals VALUES (1, 'again', 'the same key')")
        with pytest.raises(InputError, match="the key 'id' of 'animals' is not unique"):
            jammi.search("animals", "honey", fresh=True)


class TestFollow:
    @pytest.mark.parametrize("triggers", WAYS)
    def test_every_search_sees_what_is_committed(self, embedded, jammi, triggers):
        ((source, table, by, detail),) = embedded.execute(
            f"SELECT * FROM jammi_follow('animals', triggers := {triggers})"
        ).fetchall()
        assert source == "animals"
        assert table.startswith("animals__embedding")
        assert by == ("comparison" if triggers == "false" else "triggers")
        assert detail
        for _ in range(2):
            embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee makes honey')")
            assert names(embedded, "honey") == ["bee"]
            embedded.execute("UPDATE animals SET text = 'iron' WHERE id = 1; DELETE FROM animals WHERE id = 6")
            assert names(embedded, "iron") == ["cat"]
            assert len(names(embedded, "honey", 10)) == 5
            assert jammi.search("animals", "iron", 1).project("name").fetchall() == [("cat",)]
            assert encoded(jammi) == ["a bee makes honey", "honey", "iron", "iron", "honey", "iron"]
            embedded.execute("UPDATE animals SET text = 'a small cat sleeps' WHERE id = 1")
            assert jammi.search("animals", "a small cat sleeps", 1).project("name").fetchall() == [("cat",)]
            encoded(jammi)
        embedded.execute("UPDATE animals SET text = 'zebra' WHERE id = 1")
        assert names(embedded, "zebra", fresh="false") != ["cat"]
        assert jammi.search("animals", "zebra", 1, fresh=False).project("name").fetchall() != [("cat",)]
        assert embedded.execute("SELECT changed, followed FROM jammi_status('animals')").fetchall() == [(1, by)]

    @pytest.mark.parametrize("triggers", WAYS)
    def test_unfollow_removes_it_all(self, embedded, triggers):
        embedded.execute(f"SELECT * FROM jammi_follow('animals', triggers := {triggers})")
        names(embedded, "honey")
        unfollow = "SELECT * FROM jammi_unfollow('animals')"
        assert embedded.execute(unfollow).fetchall() == [("animals", "followed no more")]
        assert leftovers(embedded) == ([(0,)], [(0,)])
        embedded.execute("UPDATE animals SET text = 'zebra' WHERE id = 1")
        assert names(embedded, "zebra") != ["cat"]
        assert embedded.execute(unfollow).fetchall() == [("animals", "was not followed")]
        assert embedded.execute("SELECT followed FROM jammi_status('animals')").fetchall() == [(None,)]

    def test_what_is_the_same_is_not_embedded_again(self, embedded, jammi):
        embedded.execute("SELECT * FROM jammi_follow('animals')")
        embedded.execute("UPDATE animals SET name = upper(name)")
        embedded.execute("DELETE FROM animals WHERE id = 2")
        embedded.execute("INSERT INTO animals VALUES (2, 'dog', 'a loud dog barks')")
        assert names(embedded, "honey", 10, mode="'vector'") != []
        assert encoded(jammi) == ["honey"]

    @needs_triggers
    @pytest.mark.parametrize("key", ["", ", PRIMARY KEY (id)", ", UNIQUE (name)"])
    def test_other_programs_can_write_as_before(self, jammi, con, key):
        con.execute(f"CREATE TABLE animals (id INTEGER, name VARCHAR, text VARCHAR{key})")
        con.execute("INSERT INTO animals VALUES (1, 'cat', 'a small cat sleeps')")
        con.execute("SELECT * FROM jammi_generate('animals', 'text', 'id'); SELECT * FROM jammi_follow('animals')")
        con.execute("INSERT INTO animals VALUES (2, 'dog', 'a loud dog barks')")
        if "PRIMARY" in key:
            con.execute("INSERT OR REPLACE INTO animals VALUES (1, 'bee', 'honey')")
            con.execute("INSERT INTO animals VALUES (2, 'ant', 'leaf') ON CONFLICT (id) DO UPDATE SET text = 'leaf'")
            assert names(con, "honey") == ["bee"]
            assert names(con, "leaf") == ["dog"]
        con.execute("ALTER TABLE animals ADD COLUMN more VARCHAR")
        con.execute("INSERT INTO animals VALUES (3, 'owl', 'an owl hunts', 'x')")
        assert names(con, "owl") == ["owl"]
        con.execute("TRUNCATE animals")
        assert names(con, "owl") == []

    @needs_triggers
    def test_a_program_without_jammi_can_write(self, fake, tmp_path):
        file = str(tmp_path / "a.duckdb")
        latest = {"storage_compatibility_version": "latest"}
        con = fake(duckdb.connect(file, config=latest)).con
        con.execute("CREATE TABLE animals AS SELECT 1 AS id, 'cat' AS name, 'a small cat sleeps' AS text")
        con.execute("SELECT * FROM jammi_generate('animals', 'text', 'id')")
        assert con.execute("SELECT changes_by FROM jammi_follow('animals')").fetchall() == [("triggers",)]
        names(con, "cat")
        con.close()
        other = file.replace("a.duckdb", "b.duckdb")
        (tmp_path / "a.duckdb").rename(other)
        with duckdb.connect(other) as plain:
            plain.execute("INSERT INTO animals VALUES (2, 'bee', 'honey')")
            plain.execute("BEGIN; INSERT INTO animals VALUES (3, 'ant', 'leaf'); ROLLBACK")
        jammi = fake(duckdb.connect(other))
        assert names(jammi.con, "honey", 9) == ["bee", "cat"]
        assert encoded(jammi) == ["honey", "honey"]

    @needs_triggers
    def test_a_file_without_triggers_is_compared(self, fake, tmp_path):
        old = {"storage_compatibility_version": "v1.5.0"}
        jammi = fake(duckdb.connect(str(tmp_path / "a.duckdb"), config=old))
        jammi.con.execute("CREATE TABLE animals AS SELECT 1 AS id, 'cat' AS name, 'a small cat sleeps' AS text")
        jammi.con.execute("SELECT * FROM jammi_generate('animals', 'text', 'id')")
        assert jammi.follow("animals").changes_by == "comparison"
        with pytest.raises(InputError, match="no triggers can be made on 'animals'.*Leave triggers out"):
            jammi.follow("animals", triggers=True)
        jammi.con.execute("INSERT INTO animals VALUES (2, 'bee', 'honey')")
        assert names(jammi.con, "honey") == ["bee"]

    @needs_triggers
    def test_a_table_that_is_made_anew_gets_its_triggers_again(self, embedded, jammi):
        embedded.execute("SELECT * FROM jammi_follow('animals')")
        names(embedded, "honey")
        embedded.execute("CREATE OR REPLACE TABLE animals AS SELECT 1 AS id, 'cat' AS name, 'honey' AS text")
        assert names(embedded, "honey", 9) == ["cat"]
        embedded.execute("INSERT INTO animals VALUES (2, 'bee', 'leaf')")
        assert names(embedded, "leaf") == ["bee"]
        assert leftovers(embedded) == ([(3,)], [(1,)])
        embedded.execute("DROP TABLE animals")
        with pytest.raises(duckdb.Error, match="animals"):
            names(embedded, "leaf")
        assert jammi.unfollow("animals").action == "followed no more"
        assert leftovers(embedded) == ([(0,)], [(0,)])

    @needs_triggers
    def test_many_notes_are_compared(self, embedded, jammi):
        embedded.execute("SELECT * FROM jammi_follow('animals'); FROM jammi_search('animals', 'x')")
        for _ in range(3):
            embedded.execute("INSERT INTO animals SELECT 100 + range, 'n', NULL FROM range(4000)")
            embedded.execute("DELETE FROM animals WHERE id >= 100")
        embedded.execute("UPDATE animals SET text = 'honey' WHERE id = 1")
        assert names(embedded, "honey") == ["cat"]
        changes = "SELECT changes FROM jammi_catalog.followed"
        ((table,),) = embedded.execute(changes).fetchall()
        assert embedded.execute(f"SELECT count(*) FROM jammi_catalog.{table}").fetchall() == [(0,)]

    def test_few_segments_however_many_changes(self, embedded):
        embedded.execute("SELECT * FROM jammi_follow('animals')")
        for i in range(30):
            embedded.execute(f"INSERT INTO animals VALUES ({i + 10}, 'n{i}', 'word{i} other{i}')")
            embedded.execute(f"UPDATE animals SET text = 'again{i} some{i}' WHERE id = {i // 2 + 10}")
            assert names(embedded, f"again{i} some{i}") == [f"n{i // 2}"]
        status = "SELECT segments < 12, current, new, changed, gone FROM jammi_status('animals')"
        assert embedded.execute(status).fetchall() == [(True, 35, 0, 0, 0)]
        ((table,),) = embedded.execute("SELECT embedding_table FROM jammi_tables()").fetchall()
        assert embedded.execute(f'SELECT count(*) FROM jammi."{table}"').fetchall() == [(35,)]

    def test_files_and_views(self, con, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write = "COPY (SELECT range AS id, 'word' || range * {} AS text FROM range(3)) TO 'a.parquet'"
        con.execute(write.format(1))
        con.execute("CREATE TABLE t AS FROM 'a.parquet'; CREATE VIEW v AS FROM t WHERE id < 2")
        for source in ("a.parquet", "v"):
            con.execute(f"SELECT * FROM jammi_generate('{source}', 'text', 'id')")
            followed = con.execute(f"SELECT changes_by FROM jammi_follow('{source}')").fetchall()
            assert followed == [("comparison",)]
        con.execute(write.format(7))
        con.execute("UPDATE t SET text = 'honey' WHERE id = 1")
        assert con.execute("SELECT id FROM jammi_search('a.parquet', 'word14', 1)").fetchall() == [(2,)]
        assert con.execute("SELECT id FROM jammi_search('v', 'honey', 1)").fetchall() == [(1,)]

    @needs_triggers
    def test_embeddings_by_another_key(self, embedded):
        embedded.execute("SELECT * FROM jammi_follow('animals')")
        embedded.execute("SELECT * FROM jammi_generate('animals', 'text', 'name')")
        for word in ("zebra", "iron"):
            embedded.execute(f"UPDATE animals SET text = '{word}' WHERE id = 3")
            assert names(embedded, word) == ["duck"]
        embedded.execute("SELECT * FROM jammi_follow('animals')")
        embedded.execute("UPDATE animals SET text = 'steel' WHERE id = 3")
        assert names(embedded, "steel") == ["duck"]
        assert leftovers(embedded) == ([(3,)], [(1,)])

    def test_embeddings_without_the_columns_of_their_text(self, embedded):
        embedded.execute("SELECT * FROM jammi_follow('animals')")
        embedded.execute(
            "CREATE TABLE v AS SELECT id, list_transform(range(64), lambda x: x + id)::FLOAT[64] AS v FROM animals"
        )
        embedded.execute("SELECT * FROM jammi_import('animals', 'v', 'id', 'v', model := 'fake/small')")
        embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'honey')")
        with pytest.warns(JammiWarning, match="is followed.*imported without the columns of its text.*with cols"):
            assert len(names(embedded, "honey", 9)) == 5

    @needs_triggers
    @pytest.mark.parametrize(("file", "table"), [("Zoo", "ÄPFEL"), ("ÄRZTE", "Äpfel"), ('a"b', "o'Neil")])
    def test_names_in_both_cases(self, fake, tmp_path, monkeypatch, file, table):
        con = fake(duckdb.connect(str(tmp_path / f"{file}.db"), config={"storage_compatibility_version": "latest"})).con
        con.execute(f"""CREATE TABLE "{table}" AS SELECT 1 AS "Id", 'honey' AS "Text" """)
        con.execute("SELECT * FROM jammi_generate($1, 'text', 'id')", [f'"{table}"'])
        followed = con.execute("SELECT changes_by FROM jammi_follow($1, triggers := true)", [f'"{table}"']).fetchall()
        assert followed == [("triggers",)]
        search = """SELECT "Id" FROM jammi_search($1, 'leaf', 1)"""
        con.execute(search, [f'"{table}"'])
        con.execute(f"""INSERT INTO "{table}" VALUES (2, 'leaf')""")
        monkeypatch.setattr(following, "changes", None)
        assert con.execute(search, [f'"{table}"']).fetchall() == [(2,)]

    def test_a_collation_hides_no_change(self, con):
        con.execute("CREATE TABLE t (id VARCHAR COLLATE NOCASE, text VARCHAR COLLATE NOCASE)")
        con.execute(
            "INSERT INTO t VALUES ('a', 'honey'), ('b', 'leaf'); SELECT * FROM jammi_generate('t', 'text', 'id')"
        )
        con.execute("SELECT * FROM jammi_follow('t', triggers := false); FROM jammi_search('t', 'x')")
        con.execute("UPDATE t SET id = 'A' WHERE id = 'a'; UPDATE t SET text = 'LEAF' WHERE id = 'b'")
        assert con.execute("SELECT id FROM jammi_search('t', 'honey', 1)").fetchall() == [("A",)]
        assert con.execute("SELECT current, new, changed, gone FROM jammi_status('t')").fetchall() == [(2, 0, 0, 0)]

    def test_evaluations_are_current_too(self, embedded):
        embedded.execute("SELECT * FROM jammi_follow('animals')")
        embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee makes honey')")
        embedded.execute(
            "CREATE TABLE q AS SELECT 1 AS id, 'honey' AS text; "
            "CREATE TABLE j AS SELECT 1 AS question, 6 AS key, 1 AS grade"
        )
        found = embedded.execute(
            "SELECT value FROM jammi_eval('animals', 'q', 'j', 1) WHERE metric = 'ndcg'"
        ).fetchall()
        assert found == [(1.0,)]

    def test_what_cannot_be_brought_in_is_told(self, embedded):
        embedded.execute("SELECT * FROM jammi_follow('animals')")
        embedded.execute("INSERT INTO animals VALUES (1, 'again', 'the same key')")
        with pytest.warns(
            JammiWarning, match="'animals' is followed, and its changes cannot be brought in.*not unique"
        ):
            assert names(embedded, "a loud dog barks") == ["dog"]
        embedded.execute("DELETE FROM animals WHERE name = 'again'")
        assert names(embedded, "a loud dog barks") == ["dog"]

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("triggers", WAYS)
    @pytest.mark.parametrize("place", ["note", "noted", "_live", "finish", "forget"])
    def test_whatever_fails_the_next_search_is_right(self, embedded, monkeypatch, triggers, place):
        embedded.execute(f"SELECT * FROM jammi_follow('animals', triggers := {triggers})")
        names(embedded, "honey")
        embedded.execute(
            "INSERT INTO animals VALUES (6, 'bee', 'honey'); UPDATE animals SET text = 'iron' WHERE id = 1"
        )
        embedded.execute("DELETE FROM animals WHERE id = 2")
        kind = {"note": FollowedSources, "noted": FollowedSources, "_live": Freshener}.get(place, Change)

        def fail(*_, **__):
            raise OSError("the disk is full")

        with monkeypatch.context() as broken, warnings.catch_warnings():
            warnings.simplefilter("ignore", JammiWarning)
            broken.setattr(kind, place, fail)
            names(embedded, "honey", 9)
        for query, wanted in (("honey", "bee"), ("iron", "cat")):
            assert names(embedded, query) == [wanted]
        assert len(names(embedded, "honey", 9, mode="'vector'")) == 5
        status = "SELECT current, new, changed, gone FROM jammi_status('animals')"
        assert embedded.execute(status).fetchall() == [(5, 0, 0, 0)]

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("triggers", WAYS)
    @pytest.mark.parametrize("place", [(Freshener, "freshen"), (Refresher, "begin"), (Change, "finish")])
    def test_what_others_bring_in_meanwhile_may_be_rolled_back(self, embedded, jammi, monkeypatch, triggers, place):
        embedded.execute(f"SELECT * FROM jammi_follow('animals', triggers := {triggers})")
        names(embedded, "honey")
        other = jammi.cursor().con
        embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'honey')")
        other.execute("BEGIN; UPDATE animals SET text = 'zebra' WHERE id = 1; DELETE FROM animals WHERE id = 2")
        kind, name = place
        real, waiting = getattr(kind, name), [True]

        def meanwhile(*arguments, **options):
            if waiting and threading.current_thread() is threading.main_thread():
                waiting.clear()
                refresh = threading.Thread(target=lambda: other.execute("SELECT * FROM jammi_refresh('animals')"))
                refresh.start()
                refresh.join(60)
            return real(*arguments, **options)

        monkeypatch.setattr(kind, name, meanwhile)
        names(embedded, "honey")
        assert not waiting
        other.execute("ROLLBACK")
        found = embedded.execute("SELECT name, _similarity FROM jammi_search('animals', 'a small cat sleeps', 9)")
        assert dict(found.fetchall())["cat"] == pytest.approx(1)
        assert len(names(embedded, "honey", 9, mode="'vector'")) == 6

    def test_mistakes(self, embedded, jammi):
        embedded.execute("CREATE TEMP TABLE mine AS FROM animals; SELECT * FROM jammi_generate('mine', 'text', 'id')")
        embedded.execute("CREATE TABLE other (id INT)")
        for source, error, said in (
            ("mine", InputError, "'mine' is there for this connection only.*fresh := true"),
            ("other", NotFoundError, "no embedding"),
            ("nothing", NotFoundError, "nothing"),
        ):
            with pytest.raises(error, match=said):
                jammi.follow(source)
        for every, said in ((0, "it must be more than 0"), ("often", "a number of seconds, or a timedelta")):
            with pytest.raises(InputError, match=f"every is '?{every}'?; .*{said}"):
                jammi.follow("animals", every=every)
        assert leftovers(embedded) == ([(0,)], [(0,)])

    def test_in_the_background(self, embedded, jammi):
        followed = jammi.follow("animals", every=0.05)
        assert (followed.source, followed.changes_by) == ("animals", "time")
        embedded.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee makes honey')")
        end = time.monotonic() + 30
        # A count that differs is warned of.
        warnings.simplefilter("ignore", JammiWarning)
        while names(embedded, "honey") != ["bee"]:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert jammi.cursor().unfollow("Animals").action == "followed no more"
        assert not any(thread.name.startswith("jammi-follow") for thread in threading.enumerate())

    def test_the_background_ends_with_the_connection(self, embedded, jammi):
        jammi.follow("animals", every=0.01)
        while True:
            # DuckDB refuses while a refresh runs.
            with contextlib.suppress(duckdb.Error):
                embedded.close()
                break
        for thread in threading.enumerate():
            if thread.name.startswith("jammi-follow"):
                thread.join(30)
                assert not thread.is_alive()

    def test_the_background_may_wait_for_ever(self, embedded, jammi):
        jammi.follow("animals", every=1e12)
        time.sleep(0.2)
        assert any(thread.name.startswith("jammi-follow") for thread in threading.enumerate())
        jammi.unfollow("animals")

    @needs_triggers
    def test_a_transaction_in_the_way_is_told(self, embedded, jammi):
        jammi.follow("animals")
        other = jammi.cursor().con
        other.execute("BEGIN; DROP TABLE animals")
        for triggers in (None, True):
            with pytest.raises(StateError, match="not over has changed 'animals'.*COMMIT or ROLLBACK"):
                jammi.follow("animals", triggers=triggers)
        other.execute("ROLLBACK")
        assert jammi.follow("animals").changes_by == "triggers"

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("triggers", WAYS)
    def test_many_search_and_write_at_once(self, embedded, jammi, triggers):
        embedded.execute(f"SELECT * FROM jammi_follow('animals', triggers := {triggers})")
        failures = []

        def work(number):
            other = jammi.cursor()
            try:
                for i in range(6):
                    word = f"word{number}x{i}"
                    other.con.execute(f"INSERT INTO animals VALUES ({number * 100 + i + 10}, '{word}', '{word}')")
                    found = other.search("animals", word, 1, mode="vector").project("name").fetchall()
                    assert found == [(word,)]
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        texts = [text for text in encoded(jammi) if text.startswith("word")]
        assert len(texts) == 48
