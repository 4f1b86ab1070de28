"""Tables of words only: made, searched, refreshed and mended while no model is there."""

import json
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck import DamagedError, InputError, JammiWarning, NotFoundError
from jammi_duck.config.options import Config
from jammi_duck.doors.installation import equip
from jammi_duck.encoder.no_vectors import NO_VECTORS
from jammi_duck.storage.files.manifest import Manifest
from jammi_duck.types import Definition
from jammi_duck.work.generate import Request, define
from tests.effort import some
from tests.fakes import FakeEncoders
from tests.stock_shell import folder, needs_extension, rows  # noqa: F401
from tests.test_cli import call
from tests.test_damage import damage
from tests.test_generate import error_of
from tests.worlds import World, every_death, every_failure

NOWHERE = "fake/nowhere"
ANIMALS = "'animals', ['name', 'text'], 'id'"
GENERATE = f"FROM jammi_generate({ANIMALS}, vectors := false)"


@pytest.fixture
def jammi(fake):
    """Without a model."""
    return fake(model=NOWHERE)


@pytest.fixture
def made(animals):
    """The animals, with a table of words only."""
    animals.execute(GENERATE).fetchall()
    return animals


def name_of(con):
    ((name,),) = con.execute("SELECT embedding_table FROM jammi_tables() WHERE status = 'ready'").fetchall()
    return name


def found(con, query, *options):
    hits = con.execute(f"SELECT id FROM jammi_search('animals', '{query}'{''.join(options)})").fetchall()
    return [key for (key,) in hits]


class TestGenerate:
    def test_gives_a_row_without_a_model(self, animals, jammi):
        animals.execute("INSERT INTO animals VALUES (6, NULL, NULL), (7, '', ' ')")
        built = jammi.generate("animals", ["name", "text"], "id", vectors=False)
        assert (built.model, built.dimensions, built.status, built.row_count) == (None, None, "ready", 5)
        assert (built.skipped_count, built.failed_count, built.truncated_count) == (2, 0, 0)
        assert "animals__embedding__words__2" in built.embedding_table
        (table,) = animals.execute("SELECT model, dimensions, columns, row_count FROM jammi_tables()").fetchall()
        assert table == (None, None, ["name", "text"], 5)

    def test_has_no_vectors_and_no_index_over_them(self, made, storage):
        kinds = Counter(path.suffix for path in (storage / "jammi_db").iterdir())
        assert kinds == {".parquet": 1, ".rowmap": 1, ".words": 1, ".json": 1}
        names = [name for name, *_ in made.execute(f'SELECT * FROM jammi."{name_of(made)}" LIMIT 0').description]
        assert names == ["_row_id", "_source_id", "_model_id", "_text_digest"]
        digests = f"""SELECT count(*) FROM animals JOIN jammi."{name_of(made)}" ON id::VARCHAR = _row_id
            WHERE unhex(md5(name || ' ' || text)) = _text_digest"""
        assert made.execute(digests).fetchone() == (5,)

    @pytest.mark.parametrize("verb", ["generate", "sync"])
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ("words := false", "leave nothing to store"),
            ("model := 'fake/small'", "model is fake/small, and vectors := false .* words only"),
            ("dims := 3", "dims is 3, and vectors := false .* words only"),
        ],
    )
    def test_what_contradicts_it_is_refused(self, animals, storage, verb, options, words):
        with pytest.raises(duckdb.Error, match=words):
            animals.execute(f"FROM jammi_{verb}({ANIMALS}, vectors := false, {options})")
        assert not storage.exists()

    def test_reuse_and_sync_find_a_table_of_the_same_language(self, made, jammi):
        name = name_of(made)
        assert jammi.generate("animals", ["name", "text"], "id", vectors=False, reuse=True).embedding_table == name
        synced = jammi.sync("animals", ["name", "text"], "id", vectors=False)
        assert (synced.embedding_table, synced.action) == (name, "unchanged")
        german = jammi.sync("animals", ["name", "text"], "id", vectors=False, language="german")
        assert (german.action, german.embedding_table != name) == ("generated", True)
        again = jammi.generate("animals", ["name", "text"], "id", vectors=False, language="german", reuse=True)
        assert again.embedding_table == german.embedding_table

    def test_a_second_look_at_a_relation_makes_no_second_table(self, animals):
        relation = animals.sql(GENERATE)
        relation.fetchall()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JammiWarning)
            relation.fetchall()
        assert name_of(animals)

    def test_no_torch_is_loaded(self, tmp_path):
        script = f"""if True:
            import sys, duckdb, jammi_duck
            con = duckdb.connect()
            jammi_duck.install(con, storage={str(tmp_path / "artifacts")!r}, model={str(tmp_path / "no model")!r})
            con.execute("CREATE TABLE t AS SELECT 1 AS id, 'a duck swims' AS text")
            con.execute("FROM jammi_generate('t', 'text', 'id', vectors := false)").fetchall()
            con.execute("INSERT INTO t VALUES (2, 'another duck')")
            con.execute("FROM jammi_refresh('t')").fetchall()
            print(con.execute("SELECT id FROM jammi_search('t', 'swimming ducks')").fetchall())
            print(sys.modules.keys() & {{"torch", "transformers", "tokenizers", "huggingface_hub", "usearch"}})"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert done.stdout.splitlines() == ["[(1,), (2,)]", "set()"]


class TestSearch:
    def test_is_by_words(self, made):
        (row,) = made.execute("SELECT * EXCLUDE (text) FROM jammi_search('animals', 'swimming')").fetchall()
        assert row[:4] == (3, "duck", "3", 1)
        score, similarity, distance, bm25 = row[4:]
        assert score == bm25 > 0
        assert (similarity, distance) == (None, None)
        assert found(made, "swimming", ", mode := 'text'") == [3]
        assert found(made, '"lives in water" -duck') == [4]
        assert found(made, "zebra") == found(made, " ") == found(made, "the") == []

    def test_filters_and_joins(self, made):
        assert found(made, "water night", ", filter := 'id > 3'") in ([5, 4], [4, 5])
        joined = made.execute(
            "SELECT q, s.id FROM (VALUES ('barks'), ('small'), (NULL)) t(q), jammi_search('animals', q, 1) s ORDER BY q"
        ).fetchall()
        assert joined == [("barks", 2), ("small", 1)]
        assert made.execute("SELECT _row_id FROM jammi_matches('animals', 'barks')").fetchall() == [("2",)]
        stages = made.execute("SELECT stage, detail FROM jammi_explain('animals', 'barks')").fetchall()
        assert [stage for stage, _ in stages] == ["table", "words", "fetch"]
        assert stages[0][1].endswith("1 segment, words only")

    def test_in_python(self, made, jammi):
        assert [row[0] for row in jammi.search("animals", "barks").fetchall()] == [2]
        assert len(jammi.matches("animals", "water").fetchall()) == 2

    def test_is_evaluated(self, made):
        made.execute("CREATE TABLE q AS FROM (VALUES (1, 'barks'), (2, 'swimming')) t(id, text)")
        made.execute("CREATE TABLE j AS FROM (VALUES (1, 2, 1), (2, 4, 1)) t(question, key, grade)")
        metrics = dict(made.execute("SELECT metric, value FROM jammi_eval('animals', 'q', 'j')").fetchall())
        assert metrics["hit"] == metrics["recall"] == 0.5

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize(
        ("call", "what"),
        [
            ("jammi_search('animals', [1.0, 2.0])", "a search for a vector"),
            ("jammi_search('animals', [1.0, 2.0], mode := 'text')", "a search for a vector"),
            ("jammi_search('animals', 'cat', mode := 'hybrid')", "mode := 'hybrid'"),
            ("jammi_search('animals', 'cat', mode := 'vector')", "mode := 'vector'"),
            ("jammi_search('animals', 'cat', min_similarity := 0.5)", "min_similarity"),
            ("jammi_matches('animals', 'cat', min_similarity := 0.5)", "min_similarity"),
            ("jammi_similar('animals', 1)", "jammi_similar"),
            ("jammi_check('animals')", "jammi_check"),
        ],
    )
    def test_what_needs_vectors_is_refused_with_what_to_do(self, made, jammi, call, what):
        error = error_of(made, f"FROM {call}")
        assert f"'{name_of(made)}' has words only" in error
        assert f"and {what} needs vectors" in error
        assert "jammi_generate('animals', ['name', 'text'], 'id') makes a table with vectors" in error
        name = jammi.generate("animals", ["name", "text"], "id", "fake/small").embedding_table
        words = jammi.generate("animals", ["name", "text"], "id", name="newest", vectors=False).embedding_table
        error = error_of(made, f"FROM {call}")
        assert f"'{words}' has words only" in error
        assert f"embedding_table := '{name}'" in error

    def test_there_is_no_weight_to_tune(self, made):
        made.execute("CREATE TABLE q AS SELECT range AS id, 'barks' AS text FROM range(5)")
        made.execute("CREATE TABLE j AS SELECT id AS question, 2 AS key, 1 AS grade FROM q")
        assert "words only: it is searched for a text, and jammi_tune needs vectors" in error_of(
            made, "FROM jammi_tune('animals', 'q', 'j')"
        )

    def test_methods_raise_the_same(self, made, jammi):
        for search in (lambda: jammi.similar("animals", 1), lambda: jammi.search("animals", "cat", mode="vector")):
            with pytest.raises(InputError, match="words only"):
                search()


class TestBesideATableOfVectors:
    def test_the_newest_is_searched_and_the_model_finds_the_other(self, made, jammi):
        words = name_of(made)
        vectors = jammi.generate("animals", ["name", "text"], "id", "fake/small").embedding_table
        query = "SELECT id, _bm25 IS NULL, _similarity IS NULL FROM jammi_search('animals', 'barks', 1{})"
        assert made.execute(query.format("")).fetchall() == [(2, False, False)]
        assert made.execute(query.format(f", embedding_table := '{words}'")).fetchall() == [(2, False, True)]
        newest = jammi.generate("animals", ["name", "text"], "id", name="newest", vectors=False).embedding_table
        assert made.execute(query.format("")).fetchall() == [(2, False, True)]
        assert made.execute(query.format(", model := 'fake/small'")).fetchall() == [(2, False, False)]
        assert jammi.sync("animals", ["name", "text"], "id", "fake/small").embedding_table == vectors
        assert jammi.sync("animals", ["name", "text"], "id", vectors=False).embedding_table == newest

    def test_a_model_does_not_find_it(self, made, jammi):
        with pytest.raises(NotFoundError, match="of the model 'fake/small'; there are: words only, without a model"):
            jammi.search("animals", "cat", model="fake/small")
        with pytest.raises(NotFoundError, match="has words only, and no vectors of a model; leave model out"):
            jammi.search("animals", "cat", model="fake/small", embedding_table=name_of(made))

    def test_tables_of_other_columns_are_told_of(self, made, jammi):
        jammi.generate("animals", "text", "id", "fake/small")
        with pytest.warns(JammiWarning, match="embedding tables of different columns"):
            made.execute("FROM jammi_search('animals', 'barks')").fetchall()


class TestRefresh:
    def test_indexes_what_is_new_and_encodes_nothing(self, made, jammi):
        made.execute("INSERT INTO animals VALUES (6, 'wolf', 'a wolf howls'), (7, 'wolf', 'a wolf howls')")
        made.execute("UPDATE animals SET text = 'a seal dives' WHERE id = 1; DELETE FROM animals WHERE id = 2")
        status = made.execute("SELECT current, \"new\", changed, gone FROM jammi_status('animals')").fetchone()
        assert status == (3, 2, 1, 1)
        refreshed = jammi.refresh("animals")
        counts = (refreshed.added, refreshed.changed, refreshed.deleted, refreshed.unchanged, refreshed.encoded)
        assert counts == (2, 1, 1, 3, 0)
        assert [found(made, query) for query in ("howling", "diving", "sleeps", "barks")] == [[6, 7], [1], [], []]
        assert made.execute("SELECT coverage FROM jammi_status('animals')").fetchone() == (1,)

    def test_a_text_that_is_there_is_taken_over(self, made, jammi):
        made.execute("INSERT INTO animals SELECT id + 10, name, text FROM animals")
        assert jammi.refresh("animals").added == 5
        assert found(made, "barks") == [12, 2]

    def test_compact(self, made, jammi):
        made.execute("INSERT INTO animals VALUES (6, 'wolf', 'a wolf howls'); DELETE FROM animals WHERE id = 2")
        jammi.refresh("animals")
        scores = made.execute("SELECT id, _score FROM jammi_search('animals', 'a wolf in water')").fetchall()
        compacted = jammi.compact("animals")
        assert (compacted.segments_before, compacted.segments, compacted.rows_removed) == (2, 1, 1)
        assert made.execute("SELECT id, _score FROM jammi_search('animals', 'a wolf in water')").fetchall() == scores

    def test_another_language(self, made, jammi):
        made.execute("UPDATE animals SET text = 'die Häuser am See' WHERE id = 1")
        jammi.refresh("animals")
        assert found(made, "Haus") == []
        assert jammi.index_words("animals", "german").language == "german"
        assert found(made, "Haus") == [1]
        made.execute("INSERT INTO animals VALUES (6, 'x', 'noch ein Haus')")
        jammi.refresh("animals")
        assert sorted(found(made, "Häuser")) == [1, 6]

    def test_drop_and_vacuum(self, made, jammi, storage):
        name = name_of(made)
        made.execute("FROM jammi_vacuum()").fetchall()
        assert found(made, "barks") == [2]
        jammi.drop(name)
        assert "no embedding table for 'animals'" in error_of(made, "FROM jammi_search('animals', 'barks')")
        assert list((storage / "jammi_db").iterdir()) == []


class TestLaw:
    """Whatever becomes of the rows, a table of words only answers as one with vectors does in text mode."""

    TEXTS = st.lists(st.sampled_from("duck ducks water owl night the E-1047".split()), max_size=5).map(" ".join)
    ROWS = st.dictionaries(st.integers(0, 9), st.none() | TEXTS, max_size=8)

    @settings(max_examples=some(15))
    @given(ROWS, st.lists(ROWS, max_size=2), st.booleans(), st.lists(TEXTS, min_size=1, max_size=3))
    def test_text_mode(self, first, later, compacts, queries):
        with tempfile.TemporaryDirectory() as place, duckdb.connect() as con:
            config = Config(storage=place, model="fake/small", cache_dir=Path(place), segment_rows=3)
            jammi = equip(con, config, FakeEncoders(), {})
            con.execute("CREATE TABLE t (id INTEGER, text VARCHAR)")
            fill(con, first)
            both = [jammi.generate("t", "text", "id").embedding_table]
            both.append(jammi.generate("t", "text", "id", vectors=False).embedding_table)
            for changed in later:
                fill(con, changed)
                for name in both:
                    jammi.refresh("t", embedding_table=name)
                    if compacts:
                        jammi.compact("t", embedding_table=name)
            for query in queries:
                search = "SELECT _row_id, _rank, _score, _bm25 FROM jammi_search('t', ?, embedding_table := '{}'{})"
                expected = con.execute(search.format(both[0], ", mode := 'text'"), [query]).fetchall()
                assert con.execute(search.format(both[1], ""), [query]).fetchall() == expected


def fill(con, texts):
    con.execute("DELETE FROM t")
    if texts:
        con.executemany("INSERT INTO t VALUES (?, ?)", list(texts.items()))


class TestDamage:
    @pytest.fixture
    def reopened(self, fake, tmp_path):
        """`reopened(damaged)` gives the connection after `damaged` was called with the table's name."""
        database = str(tmp_path / "db.duckdb")
        con = fake(duckdb.connect(database), model=NOWHERE).con
        con.execute(
            "CREATE TABLE animals AS FROM (VALUES (1, 'a cat', 'x'), (2, 'a dog barks', 'y')) t(id, text, name)"
        )
        con.execute(GENERATE).fetchall()
        con.execute("CREATE TABLE others AS SELECT id + 5 AS id, 'another ' || text AS text, name FROM animals")
        con.execute(GENERATE.replace("animals", "others")).fetchall()
        names = [path.name.removesuffix(".words") for path in sorted(tmp_path.rglob("*.words"))]
        con.close()

        def after(damaged):
            damaged(*names)
            return fake(duckdb.connect(database), model=NOWHERE)

        return after

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("how", ["missing", "cut short", "empty", "altered", "another's"])
    @pytest.mark.parametrize("kind", ["rowmap", "manifest.json"])
    def test_the_answers_stay_and_are_mended(self, reopened, storage, kind, how):
        files = storage / "jammi_db"
        jammi = reopened(lambda name, other: damage(how)(files / f"{name}.{kind}", files / f"{other}.{kind}"))
        assert found(jammi.con, "barks") == [2]
        actions = jammi.con.execute("SELECT action FROM jammi_recover()").fetchall()
        assert [action for (action,) in actions] == ["built 1 of 1 indexes and the manifest again"]
        assert jammi.con.execute("FROM jammi_recover()").fetchall() == []
        assert found(jammi.con, "barks") == [2]

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("how", ["missing", "cut short", "empty", "altered", "another's"])
    def test_words_that_cannot_be_used_are_an_error_until_a_refresh(self, reopened, storage, how):
        files = storage / "jammi_db"
        jammi = reopened(lambda name, other: damage(how)(files / f"{name}.words", files / f"{other}.words"))
        for _ in range(2):
            with pytest.raises(DamagedError, match=r"cannot be used .* FROM jammi_refresh\('animals', .* indexes them"):
                jammi.search("animals", "barks")
        ((said,),) = jammi.con.execute("SELECT action FROM jammi_recover()").fetchall()
        assert "jammi_refresh('animals'" in said
        jammi.refresh("animals")
        assert found(jammi.con, "barks") == [2]
        assert jammi.con.execute("FROM jammi_recover()").fetchall() == []


class TestInterrupted:
    """A build and a refresh die at an operation on files or on the catalog, or one fails; the next goes on."""

    # Every operation takes minutes; the tests of tables with vectors try each, in mostly the same code.
    STEPS = (pytest.param(23, id="some"), pytest.param(1, id="all", marks=pytest.mark.long))

    @pytest.fixture
    def world(self, fake, tmp_path):
        location = str(tmp_path / "world" / "artifacts")
        world = World(fake, tmp_path, location, segment_rows=1, retention=timedelta(0), model=NOWHERE)
        con = world.open()
        con.execute("CREATE TABLE animals (id INTEGER, name VARCHAR, text VARCHAR)")
        con.execute("INSERT INTO animals VALUES (1, 'cat', 'sleeps'), (2, 'dog', 'barks'), (3, 'owl', 'hunts')")
        con.close()
        return world

    @pytest.fixture(params=[every_death, every_failure], ids=["death", "failure"])
    def endings(self, request, world, monkeypatch):
        """`endings(work, step)` gives a connection after each way in which `work` can end."""

        def each(work, step):
            for ended in request.param(world, monkeypatch, work, step):
                if request.param is every_failure:
                    yield ended[0]
                else:
                    con = world.open()
                    yield con
                    con.close()

        return each

    @pytest.mark.parametrize("step", STEPS)
    def test_a_build(self, endings, step):
        def build(con):
            con.execute(GENERATE.replace(")", ", resume := true)")).fetchall()

        outcomes = set()
        for con in endings(build, step):
            is_ready = bool(con.execute("FROM jammi_tables() WHERE status = 'ready'").fetchall())
            if not is_ready:
                assert "no embedding table" in error_of(con, "FROM jammi_search('animals', 'barks')")
                build(con)
            assert [found(con, query) for query in ("barks", "hunting")] == [[2], [3]]
            outcomes.add(is_ready)
        assert False in outcomes

    @pytest.mark.parametrize("step", STEPS)
    def test_a_refresh(self, world, endings, step):
        con = world.open()
        con.execute(GENERATE).fetchall()
        con.execute("INSERT INTO animals VALUES (4, 'seal', 'dives'), (5, 'boar', 'digs'), (6, 'crow', 'sings')")
        con.execute("UPDATE animals SET text = 'runs' WHERE id = 1; DELETE FROM animals WHERE id = 2")
        con.close()
        before, after = [[1], [], [], [3]], [[], [1], [4], [3]]

        def answers(con):
            with warnings.catch_warnings():
                # The source has other rows than the table, until it is refreshed.
                warnings.simplefilter("ignore", JammiWarning)
                return [found(con, query) for query in ("sleeping", "running", "diving", "hunting")]

        def refresh(con):
            con.execute("FROM jammi_refresh('animals')").fetchall()

        outcomes = []
        for con in endings(refresh, step):
            outcomes.append(answers(con))
            refresh(con)
            assert answers(con) == after
        assert before in outcomes
        assert all(each in (before, after) for each in outcomes)


def test_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAMMI_INFERENCE__MODEL", str(tmp_path / "no model"))
    (tmp_path / "animals.csv").write_text("id,text\n1,a small cat\n2,the duck in water\n")
    code, out, err = call(capsys, "generate animals.csv --columns text --key id --no-vectors")
    assert code == 0, err
    assert "dimensions" not in out
    assert call(capsys, "sync animals.csv --columns text --key id --no-vectors --json")[0] == 0
    code, out, err = call(capsys, "search animals.csv duck --json")
    assert [row["_similarity"] for row in json.loads(out)] == [None]
    code, out, err = call(capsys, "generate animals.csv --columns text --key id --no-vectors --model x")
    assert (code, "--no-vectors on the command line" in err) == (2, True)
    code, out, err = call(capsys, "tables --json")
    assert [row["model"] for row in json.loads(out)] == [None]


@needs_extension
def test_the_stock_shell(folder, monkeypatch):  # noqa: F811
    monkeypatch.setenv("JAMMI_INFERENCE__MODEL", str(folder / "no model"))
    assert rows("SELECT row_count, model FROM jammi_generate('t', 'text', 'id', vectors := false)") == [
        {"row_count": 2, "model": None}
    ]
    assert rows("SELECT id FROM jammi_search('t', 'ducks')") == [{"id": 1}]


class TestFormat:
    def definition(self):
        return define(Request("t", ("text",), "id", ""), NO_VECTORS.identity, 0)

    def test_the_definition_says_that_it_is_needed_to_know_of_it(self):
        fields = json.loads(self.definition().to_json())
        assert (fields["features"], fields["dimensions"], fields["model"]) == (["words only"], 0, "")
        assert Definition.from_json(self.definition().to_json()) == self.definition()

    @pytest.mark.parametrize(
        "change", [{"features": []}, {"dimensions": 3}, {"words": None}, {"features": None}], ids=str
    )
    def test_one_that_contradicts_itself_is_refused(self, change):
        fields = {**json.loads(self.definition().to_json()), **change}
        with pytest.raises(DamagedError, match="contradicts its features or its words"):
            Definition.from_fields(fields)

    def test_the_manifest_names_no_index_of_vectors(self, made, storage):
        ((path),) = storage.rglob("*.manifest.json")
        document = json.loads(path.read_text())
        assert not document.keys() & {"backend", "metric"}
        assert document["dimensions"] == 0
        assert document["segments"][0].keys() == {"number", "rows", "parquet", "rowmap", "words"}
        found = Manifest.from_bytes(path.read_bytes(), path.name)
        assert json.loads(found.to_bytes()) == document

    def test_a_version_that_does_not_know_it_refuses_it_by_its_name(self, made, fake, storage, monkeypatch):
        from jammi_duck import fields

        monkeypatch.setattr(fields, "FEATURES", frozenset())
        files = {path.name for path in (storage / "jammi_db").iterdir()}
        earlier = fake(duckdb.connect()).con
        ((status, error),) = earlier.execute("SELECT status, action FROM jammi_recover()").fetchall()
        assert (status, "needs the feature 'words only'" in error) == ("refused", True)
        earlier.execute("FROM jammi_vacuum()").fetchall()
        assert {path.name for path in (storage / "jammi_db").iterdir()} == files
