"""A model whose folder was moved, renamed or replaced, and the names of model folders."""

import json
import os
import re
import shutil

import duckdb
import pytest
from safetensors.numpy import load_file, save_file

import jammi_duck
from jammi_duck import ModelError, NoModelError, NotFoundError
from jammi_duck.doors.cli import main
from jammi_duck.encoder import digest
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.names import own_directory
from tests.stock_shell import needs_extension, shell
from tests.stock_shell import rows as shell_rows

TEXTS = "(VALUES (1, 'the duck'), (2, 'water'), (3, 'a dog barks')) t(id, text)"


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_model):
    """A working directory with a model `ft`; the user has named no others."""
    shutil.copytree(tiny_model, tmp_path / "ft")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def opened(place):
    """`opened(**options)` gives a Jammi on a database of its own, which has the table `t`, and the same storage."""
    connections = []

    def open_one(**options):
        con = duckdb.connect()
        connections.append(con)
        con.execute(f"CREATE TABLE t AS FROM {TEXTS}")
        return jammi_duck.install(con, **{"storage": str(place / "artifacts"), "precision": "float32", **options})

    yield open_one
    for con in connections:
        con.close()


def make_other(model):
    """Give a model other weights, in files of the same size."""
    tensors = load_file(model / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file({**tensors, name: -tensors[name]}, model / "model.safetensors", metadata={"format": "pt"})


def search(jammi, **options):
    return [(row[0], row[-2]) for row in jammi.search("t", "the duck", 3, **options).fetchall()]


class TestMoved:
    @pytest.mark.parametrize("storage", [None, "memory://moved"])
    def test_the_new_path_finds_the_table(self, opened, place, storage):
        options = {"storage": storage} if storage else {}
        jammi = opened(**options)
        made = jammi.generate("t", "text", "id", "./ft")
        before = search(jammi)
        (place / "ft").rename(place / "renamed")
        other = opened(**options)
        assert search(other, model="./renamed") == before
        sql = "SELECT id, _similarity FROM jammi_search('t', 'the duck', 3, model := './renamed')"
        assert [row[0] for row in other.con.execute(sql).fetchall()] == [row[0] for row in before]
        assert other.status("t", model="./renamed").fetchall()[0][0] == made.embedding_table
        other.con.execute("INSERT INTO t VALUES (4, 'duck')")
        refreshed = other.refresh("t", model=str(place / "renamed"))
        assert (refreshed.embedding_table, refreshed.encoded) == (made.embedding_table, 1)
        (row,) = other.tables().project("model, row_count").fetchall()
        assert row == (str(place / "ft"), 4)
        # It is known by now.
        assert search(other)[0][0] == 1

    def test_the_table_itself_and_the_new_path(self, opened, place):
        made = opened().generate("t", "text", "id", "./ft")
        (place / "ft").rename(place / "renamed")
        jammi = opened()
        with pytest.raises(NoModelError, match="is not where it was"):
            search(jammi, embedding_table=made.embedding_table)
        assert search(jammi, model="./renamed", embedding_table=made.embedding_table)[0][0] == 1
        shutil.copytree("renamed", "other")
        make_other(place / "other")
        with pytest.raises(NotFoundError, match=r"of the model .*ft \(weights differ\), not './other'"):
            search(jammi, model="./other", embedding_table=made.embedding_table)

    def test_another_model_at_the_new_path_is_refused(self, opened, place):
        jammi = opened()
        jammi.generate("t", "text", "id", "./ft")
        (place / "ft").rename(place / "other")
        make_other(place / "other")
        there = re.escape(f"of the model './other'; there are: {place / 'ft'} (weights differ)")
        for ask in (search, lambda jammi, **options: jammi.refresh("t", **options)):
            with pytest.raises(NotFoundError, match=there):
                ask(opened(), model="./other")

    def test_another_pooling_is_another_model(self, opened, place):
        opened().generate("t", "text", "id", "./ft")
        (place / "ft" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
        (place / "ft").rename(place / "cls")
        with pytest.raises(NotFoundError, match=r"\(pooling differ\)"):
            search(opened(), model="./cls")

    def test_a_folder_that_is_gone(self, opened, place):
        made = opened().generate("t", "text", "id", "./ft")
        shutil.rmtree(place / "ft")
        jammi = opened(models_path=["/no/such/directory"])
        jammi.con.execute("UPDATE t SET text = 'duck' WHERE id = 3")
        for ask in (search, lambda jammi: jammi.refresh("t")):
            with pytest.raises(NoModelError) as caught:
                ask(jammi)
            for part in (
                f"the model of '{made.embedding_table}' is not where it was",
                f"no model at '{place / 'ft'}'",
                f"no model folder in '/no/such/directory', '{own_directory()}' has its weights",
                "model := 'NEW/PATH'",
                "[models] path",
                "jammi-duck models add NEW/PATH",
            ):
                assert part in str(caught.value)
        # What needs no model works.
        assert jammi.status("t").fetchall()[0][0] == made.embedding_table
        assert len(jammi.similar("t", 1, 2).fetchall()) == 2

    def test_two_paths_of_one_model(self, opened, place):
        shutil.copytree(place / "ft", place / "copy")
        jammi = opened()
        first, second = (jammi.generate("t", "text", "id", path).embedding_table for path in ("./ft", "./copy"))
        assert first in jammi.explain("t", "water", 1, model="./ft").fetchall()[0][1]
        assert second in jammi.explain("t", "water", 1, model="./copy").fetchall()[0][1]
        shutil.copytree(place / "ft", place / "third")
        assert second in jammi.explain("t", "water", 1, model="./third").fetchall()[0][1]
        # The table by the folder that is gone is searched with the other one.
        shutil.rmtree(place / "ft")
        assert search(jammi, embedding_table=first)[0][0] == 1

    def test_a_build_is_used_again(self, opened, place):
        made = opened().generate("t", "text", "id", "./ft")
        (place / "ft").rename(place / "renamed")
        again = opened().generate("t", "text", "id", "./renamed", reuse=True)
        assert again.embedding_table == made.embedding_table


class TestReplaced:
    def test_another_model_in_its_place_is_not_compared(self, opened, place):
        opened().generate("t", "text", "id", "./ft")
        make_other(place / "ft")
        jammi = opened()
        with pytest.raises(ModelError, match=r"its files have changed \(weights differ\)"):
            search(jammi)
        with pytest.raises(ModelError, match=r"its files have changed \(weights differ\)"):
            search(jammi, model="./ft")

    def test_a_folder_is_what_it_holds_now(self, opened, place):
        jammi = opened()
        old = jammi.generate("t", "text", "id", "./ft").embedding_table
        before = search(jammi)
        shutil.copytree(place / "ft", place / "old")
        make_other(place / "ft")
        new = jammi.generate("t", "text", "id", "./ft").embedding_table
        assert jammi.tables().project("model").distinct().fetchall() == [(str(place / "ft"),)]
        assert new in jammi.explain("t", "water", 1, model="./ft").fetchall()[0][1]
        # Of tables that record the same path, the one with the weights that the folder has now is meant.
        shutil.rmtree(place / "ft")
        (place / "old").rename(place / "ft")
        assert old in jammi.explain("t", "water", 1, model="./ft").fetchall()[0][1]
        assert search(jammi, model="./ft") == before

    @pytest.mark.filterwarnings("ignore:.*longer than the model reads")
    @pytest.mark.parametrize("differs", ["weights", "pooling", "prompt"])
    def test_a_sync_embeds_anew_and_then_refreshes_that(self, opened, place, differs):
        old = opened().sync("t", "text", "id", "./ft")
        if differs == "weights":
            make_other(place / "ft")
        elif differs == "pooling":
            (place / "ft" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
        else:
            prompts = {"prompts": {"document": "passage: "}}
            (place / "ft" / "config_sentence_transformers.json").write_text(json.dumps(prompts))
        jammi = opened()
        new = jammi.sync("t", "text", "id", "./ft")
        assert (new.action, new.row_count) == ("generated", 3)
        assert new.embedding_table != old.embedding_table
        jammi.con.execute("INSERT INTO t VALUES (4, 'duck')")
        again = jammi.sync("t", "text", "id", "./ft")
        assert (again.action, again.added, again.embedding_table) == ("refreshed", 1, new.embedding_table)

    def test_a_sync_goes_back_to_the_table_of_the_old_files(self, opened, place):
        old = opened().sync("t", "text", "id", "./ft")
        shutil.copytree(place / "ft", place / "old")
        make_other(place / "ft")
        assert opened().sync("t", "text", "id", "./ft").embedding_table != old.embedding_table
        shutil.rmtree(place / "ft")
        (place / "old").rename(place / "ft")
        again = opened().sync("t", "text", "id", "./ft")
        assert (again.action, again.embedding_table) == ("unchanged", old.embedding_table)

    @pytest.mark.parametrize("resume", ["sync", "generate"])
    def test_an_interrupted_build_of_other_files_is_not_resumed(self, opened, place, resume):
        jammi = opened(segment_rows=1000)
        broken = "SELECT range AS id, CASE WHEN range = 8500 AND {} THEN error('broken') ELSE 'duck' END AS text"
        jammi.con.execute(f"CREATE VIEW many AS {broken.format('true')} FROM range(9000)")
        with pytest.raises(jammi_duck.JammiError, match="broken"):
            jammi.sync("many", "text", "id", "./ft")
        jammi.con.execute(f"CREATE OR REPLACE VIEW many AS {broken.format('false')} FROM range(9000)")
        make_other(place / "ft")
        if resume == "sync":
            assert jammi.sync("many", "text", "id", "./ft").action == "generated"
        else:
            assert jammi.generate("many", "text", "id", "./ft", resume=True).row_count == 9000
        assert sorted(jammi.tables().project("status").fetchall()) == [("failed",), ("ready",)]

    def test_the_right_one_is_taken_from_the_models_path(self, opened, place):
        jammi = opened()
        jammi.generate("t", "text", "id", "./ft")
        before = search(jammi)
        shutil.copytree(place / "ft", place / "models" / "old")
        make_other(place / "ft")
        assert search(opened(models_path=["models"])) == before


class TestModelsPath:
    @pytest.fixture
    def moved(self, opened, place):
        """The ranking of a table whose model is now in `models/elsewhere`, beside others."""
        jammi = opened()
        jammi.generate("t", "text", "id", "./ft")
        before = search(jammi)
        (place / "models").mkdir()
        (place / "ft").rename(place / "models" / "elsewhere")
        shutil.copytree(place / "models" / "elsewhere", place / "models" / "ft")
        make_other(place / "models" / "ft")
        (place / "models" / "broken").mkdir()
        (place / "models" / "broken" / "config.json").write_text("[")
        (place / "models" / "empty").mkdir()
        (place / "models" / "loop").symlink_to("loop")
        return before

    def test_an_argument(self, moved, opened, place):
        for path in (["models"], [place / "models"], ("/no/such", str(place / "models"))):
            jammi = opened(models_path=path)
            assert search(jammi) == moved
            names = jammi.models().filter("error IS NULL").project("name").fetchall()
            assert {("elsewhere",), ("ft",)} <= set(names)
        jammi.con.execute("INSERT INTO t VALUES (4, 'duck')")
        assert jammi.refresh("t").encoded == 1

    def test_a_variable_and_a_file(self, moved, opened, place, monkeypatch):
        (place / "jammi.toml").write_text('[models]\npath = ["models"]\n')
        assert search(opened()) == moved
        (place / "jammi.toml").unlink()
        monkeypatch.setenv("JAMMI_MODELS__PATH", json.dumps([str(place / "models")]))
        assert search(opened()) == moved

    def test_weights_are_read_once(self, moved, opened, monkeypatch):
        jammi = opened(models_path=["models"])
        search(jammi)

        def read(path, *_):
            raise AssertionError(f"{path} is read again")

        monkeypatch.setattr(digest, "_sha256", read)
        assert search(jammi) == moved

    def test_what_cannot_be_it_is_not_read(self, moved, opened, place, monkeypatch):
        (place / "models" / "ft" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
        real, read = digest.sha256, []
        monkeypatch.setattr("jammi_duck.encoder.description.sha256", lambda path: read.append(path) or real(path))
        assert search(opened(models_path=["models"])) == moved
        assert read
        assert not [path for path in read if path.parent.name == "ft"]

    @pytest.mark.parametrize("wrong", ["models", [""], [1], {"a": 1}])
    def test_what_it_may_be(self, opened, wrong):
        with pytest.raises(jammi_duck.ConfigError, match="models_path is .*; it must be a list of paths"):
            opened(models_path=wrong)

    def test_a_model_out_of_its_folder_is_refused_as_everywhere(self, moved, opened, place):
        weights = place / "models" / "elsewhere" / "model.safetensors"
        weights.rename(place / "weights.safetensors")
        weights.symlink_to(place / "weights.safetensors")
        with pytest.raises(NoModelError, match="has its weights"):
            search(opened(models_path=["models"]))


def run(capsys, *words):
    code = main(list(words))
    return code, *capsys.readouterr()


class TestNames:
    def test_a_name_works_everywhere(self, opened, place, monkeypatch, capsys):
        table = opened().generate("t", "text", "id", "./ft").embedding_table
        assert run(capsys, "models", "add", "./ft", "--name", "support") == (
            0,
            f"model := 'support' now means {place / 'ft'}\n",
            "",
        )
        (place / "elsewhere").mkdir()
        monkeypatch.chdir(place / "elsewhere")
        jammi = opened()
        assert table in jammi.explain("t", "water", 1, model="support").fetchall()[0][1]
        made = jammi.generate("t", "text", "id", "support")
        assert (made.model, "__support__" in made.embedding_table) == ("support", True)
        assert jammi.con.execute("SELECT len(embed('x', 'support'))").fetchall() == [(32,)]
        (row,) = jammi.models().filter("name = 'support'").project("location, origin, error").fetchall()
        assert row == (str(place / "ft"), "directory", None)
        assert "support\tsupport\n" in run(capsys, "models", "list")[1]
        assert str(place / "ft") in run(capsys, "models", "desc", "support")[1]

    def test_another_folder_under_the_same_name(self, opened, place, capsys):
        run(capsys, "models", "add", "ft", "--name", "support")
        old = opened().sync("t", "text", "id", "support")
        shutil.copytree(place / "ft", place / "other")
        make_other(place / "other")
        told = f"model := 'support' now means {place / 'other'}; before, it meant {place / 'ft'}\n"
        assert run(capsys, "models", "add", "other", "--name", "support") == (0, told, "")
        new = opened().sync("t", "text", "id", "support")
        assert (new.action, new.embedding_table == old.embedding_table) == ("generated", False)
        assert opened().sync("t", "text", "id", "support").action == "unchanged"
        told = f"model := 'support' now means {place / 'other'}\n"
        assert run(capsys, "models", "add", "other", "--name", "support") == (0, told, "")

    def test_a_moved_folder_is_added_again(self, opened, place, capsys):
        run(capsys, "models", "add", "ft", "--name", "support")
        jammi = opened()
        jammi.generate("t", "text", "id", "support")
        before = search(jammi)
        (place / "ft").rename(place / "renamed")
        with pytest.raises(
            NoModelError, match=r"its folder '.*ft' is gone; if it was moved, run `jammi-duck models add"
        ):
            search(opened())
        listed = json.loads(run(capsys, "models", "list", "--json")[1])
        assert "ft' is gone" in next(row["error"] for row in listed if row["name"] == "support")
        assert run(capsys, "models", "add", "renamed", "--name", "support")[0] == 0
        assert search(opened()) == search(opened(), model="support") == before

    def test_a_name_of_any_kind_finds_a_moved_model(self, opened, place, capsys):
        opened().generate("t", "text", "id", "./ft")
        (place / "ft").rename(place / "renamed")
        assert run(capsys, "models", "add", "renamed") == (0, f"model := 'renamed' now means {place / 'renamed'}\n", "")
        assert search(opened())[0][0] == 1

    def test_a_forgotten_name(self, opened, place, capsys, hub_cache):
        run(capsys, "models", "add", "ft", "--name", "support")
        opened().generate("t", "text", "id", "support")
        expected = f"'support' is forgotten; the model stays in {place / 'ft'}\n"
        assert run(capsys, "models", "remove", "support") == (0, expected, "")
        assert (place / "ft" / "config.json").is_file()
        # Its table is not looked for on the hub.
        with pytest.raises(NoModelError, match="no model 'support'; no model folder in"):
            search(opened())
        assert search(opened(), model="ft")[0][0] == 1
        with pytest.raises(NoModelError, match="hf download sentence-transformers/support"):
            opened().generate("t", "text", "id", "support")

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "../ft", "a/b", "/etc/passwd", "https://host/x", "~", "-x", "a b", "a\\b", "x" * 101]
    )
    def test_what_is_no_name(self, place, capsys, name):
        for words in (["models", "add", "ft", f"--name={name}"], ["models", "remove", "--", name]):
            code, out, err = run(capsys, *words)
            assert (code, out) == (2, "")
            assert err.startswith(f"jammi-duck: '{name}' ")
        assert not (place / "data").exists()

    def test_a_path_out_of_the_directory_is_not_followed(self, opened, place):
        shutil.copytree(place / "ft", place / "models" / "inner" / "deep")
        for name in ("inner/deep", "../models/inner", "deep/../inner/deep"):
            encoders = LoadedEncoders(4, 2, path=[str(place / "models")])
            assert encoders.weights_and_pooling(name) is None
            assert encoders.names(name) == {name, str((place / name).resolve())}

    def test_names_that_are_taken(self, place, capsys, hub_cache, tiny_model):
        from tests.conftest import put_in_cache

        put_in_cache(hub_cache, "sentence-transformers/taken", tiny_model)
        code, _, err = run(capsys, "models", "add", "ft", "--name", "taken")
        assert (code, "is the model 'sentence-transformers/taken' already" in err) == (2, True)
        shutil.copytree(place / "ft", own_directory() / "mine")
        code, _, err = run(capsys, "models", "add", "ft", "--name", "mine")
        assert (code, "is no link" in err) == (2, True)
        assert run(capsys, "models", "remove", "mine")[0] == 2

    def test_what_is_no_model_gets_no_name(self, place, capsys):
        (place / "empty").mkdir()
        assert "no model at 'empty'" in run(capsys, "models", "add", "empty")[2]
        (place / "ft" / "tokenizer.json").unlink()
        assert "has no tokenizer.json" in run(capsys, "models", "add", "ft")[2]
        assert not (place / "data").exists()

    def test_removing_asks_what_was_meant(self, place, capsys):
        run(capsys, "models", "add", "ft", "--name", "support")
        assert "did you mean 'support'?" in run(capsys, "models", "remove", "suport")[2]
        assert os.listdir(own_directory()) == ["support"]


def test_the_commands(place, capsys):
    duckdb.connect("a.duckdb").execute(f"CREATE TABLE t AS FROM {TEXTS}").close()
    common = ("--db", "a.duckdb")
    assert run(capsys, "generate", "t", "--columns", "text", "--key", "id", "--model", "./ft", *common)[0] == 0
    (place / "ft").rename(place / "renamed")
    code, _, err = run(capsys, "search", "t", "water", *common)
    assert (code, "jammi-duck models add NEW/PATH" in err) == (1, True)
    code, out, _ = run(capsys, "search", "t", "water", "-k", "1", "--json", "--model", "./renamed", *common)
    assert (code, json.loads(out)[0]["id"]) == (0, 2)
    assert run(capsys, "status", "t", "--model", "renamed", *common)[0] == 0
    assert run(capsys, "models", "add", "renamed", "--name", "support")[0] == 0
    assert run(capsys, "search", "t", "water", *common)[0] == 0
    assert run(capsys, "refresh", "t", "--model", "support", *common)[0] == 0


@needs_extension
def test_the_shell(place, monkeypatch):
    pytest.importorskip("duckdb_cli")
    shell(f"CREATE TABLE t AS FROM {TEXTS}")
    shell_rows("FROM jammi_generate('t', 'text', 'id', model := './ft')")
    (place / "ft").rename(place / "renamed")
    assert shell_rows("SELECT id FROM jammi_search('t', 'water', 1, model := './renamed')") == [{"id": 2}]
    monkeypatch.setenv("JAMMI_MODELS__PATH", json.dumps([str(place)]))
    assert shell_rows("SELECT id FROM jammi_search('t', 'water', 1)") == [{"id": 2}]
