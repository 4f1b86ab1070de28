"""Wrappers, models in the user's own Python: where they are found, what they may give, and who may run them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

import jammi_duck
from jammi_duck import ConfigError, ModelError
from jammi_duck.config import settings
from jammi_duck.doors.cli import main
from jammi_duck.doors.composition import loaded_encoders
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.wrapper_encoder import WrapperEncoder
from jammi_duck.encoder.wrappers import FUNCTIONS, Wrappers
from tests.conftest import put_in_cache
from tests.test_encoder_contract import EncoderContract

ROOT = Path(__file__).resolve().parents[1]
LIST = "hf_st_all_minilm_l6\tHugging Face Sentence Transformer all-MiniLM-L6-v2\n"
DESC = """\
------------------------------------------------------
| Hugging Face Sentence Transformer all-MiniLM-L6-v2 |
------------------------------------------------------
General-purpose English sentence embedding model
based on MiniLM. Optimized for semantic similarity,
clustering, and retrieval tasks. Produces 384-dimensional
float vectors. Not multilingual.
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2

"""
# Of a text, it gives its length and 1; of 'bad' and the like, what it may not.
SIZES = """\
from decimal import Decimal

STRANGE = {
    'short': [1.0], 'long': [1.0, 2.0, 3.0], 'nan': [1.0, float('nan')], 'huge': [1e300, 1.0], 'text': 'ab',
    'none': None, 'hole': [1.0, None], 'nested': [[1.0, 2.0]], 'ragged': [[1.0], 2.0], 'words': ['1', '2'],
}

def embedding_label():
    return 'Sizes'

def embedding_description():
    return 'How long a value is.\\nAnd 1.'

def embedding_dim():
    return 2

def embedding_encode(input_data, verbose=False):
    if input_data == 'bad':
        raise ValueError('it is bad')
    if input_data == 'exit':
        raise SystemExit(3)
    if isinstance(input_data, str) and input_data in STRANGE:
        return STRANGE[input_data]
    return [float(len(str(input_data))), Decimal(1)]

def embedding_encode_batch(batch_index, batch, verbose=False):
    return [(key, embedding_encode(value)) for key, value in batch]
"""


def with_batch(body, source=SIZES):
    """The wrapper with another function for batches."""
    start = source.index("def embedding_encode_batch")
    return source[:start] + f"def embedding_encode_batch(batch_index, batch, verbose=False):\n    {body}\n"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def write(folder):
    """Writes a wrapper: `write(source, name)`; returns it, loaded."""

    def written(source=SIZES, name="sizes"):
        (folder / f"{name}.py").write_text(source)
        return Wrappers([str(folder)]).get(name)

    return written


@pytest.fixture
def con(folder, write, tmp_path):
    write()
    con = jammi_duck.connect(storage=tmp_path / "st", cache_dir=tmp_path / "cache", models_path=[folder], model="sizes")
    yield con
    con.close()


class TestFinding:
    def test_a_file_of_the_name_in_a_named_folder(self, write, folder):
        wrapper = write()
        assert (wrapper.name, wrapper.label, wrapper.dimensions) == ("sizes", "Sizes", 2)
        assert wrapper.path == folder / "sizes.py"

    def test_never_in_the_working_directory_unless_it_is_named(self, write, folder, monkeypatch):
        write()
        monkeypatch.chdir(folder)
        assert Wrappers().get("sizes") is None
        assert Wrappers(["."]).get("sizes").path == folder / "sizes.py"

    @pytest.mark.parametrize(
        "name", ["../sizes", "models/sizes", "sizes.py", ".sizes", "", "1st", "é", "a-b", "__init__", "a" * 200, "x\0"]
    )
    def test_what_is_no_plain_name_is_none(self, write, folder, name):
        write()
        (folder / "__init__.py").write_text(SIZES)
        (folder / "inner").mkdir()
        assert Wrappers([str(folder / "inner"), str(folder)]).get(name) is None

    def test_the_first_folder_counts_and_the_users_before_ours(self, write, folder, tmp_path):
        write(name="hf_st_all_minilm_l6")
        other = tmp_path / "other"
        other.mkdir()
        assert Wrappers([str(other), str(folder)]).get("hf_st_all_minilm_l6").label == "Sizes"
        (other / "hf_st_all_minilm_l6.py").write_text(SIZES.replace("'Sizes'", "'Others'"))
        assert Wrappers([str(other), str(folder)]).get("hf_st_all_minilm_l6").label == "Others"

    def test_another_program_is_not_run(self, folder):
        (folder / "train.py").write_text("raise RuntimeError('it has run')")
        assert Wrappers([str(folder)]).get("train") is None

    def test_it_is_loaded_once_and_again_when_it_changes(self, write, folder):
        first = write()
        assert Wrappers([str(folder)]).get("sizes") is first
        assert write(SIZES + "\n# another\n") is not first
        assert not (folder / "__pycache__").exists()

    def test_its_classes_can_be_pickled_and_its_traceback_has_its_lines(self, write):
        source = "import pickle\nclass Size:\n    pass\npickle.dumps(Size())\n" + SIZES
        assert write(source).label == "Sizes"

    def test_it_does_not_hide_or_replace_a_module(self, write):
        write(name="json")
        assert sys.modules["json"] is json
        assert "sizes" not in sys.modules

    def test_a_model_of_the_same_name_comes_after_it(self, write, folder, tiny_model, monkeypatch):
        write()
        monkeypatch.chdir(folder)
        (folder / "sizes").symlink_to(tiny_model)
        assert LoadedEncoders(4, 2, path=[str(folder)]).get("sizes").dimensions == 2
        assert LoadedEncoders(4, 2, path=[str(folder)]).get("./sizes").dimensions == 32


class TestRefusals:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("embedding_label = 1", "lacks embedding_label\\(\\), embedding_description\\(\\), embedding_dim\\(\\), "),
            (SIZES.replace("def embedding_dim", "def dim"), r"sizes.py' lacks embedding_dim\(\); add to it"),
            (SIZES + "\nembedding_dim = 3", r"lacks embedding_dim\(\)"),
            (
                SIZES.replace("return 2\n", "return 0\n"),
                r"embedding_dim\(\) of .* returned int 0; it must return a whole",
            ),
            (SIZES.replace("return 2\n", "return '2'\n"), "returned str '2'"),
            (SIZES.replace("return 2\n", "return True\n"), "returned bool True"),
            (
                SIZES.replace("return 2\n", "return 1 // 0\n"),
                r"embedding_dim\(\) of .* raised ZeroDivisionError: .*line",
            ),
            (SIZES.replace("'Sizes'", "' '"), r"embedding_label\(\) of .* it must return a text that is not empty"),
            (SIZES.replace("'How long", "b'How long"), r"embedding_description\(\) of .* returned bytes"),
            ("import no_such_module\n" + SIZES, r"cannot be loaded: ModuleNotFoundError: .*no_such_module' \(line 1\)"),
            ("raise SystemExit(2)\n" + SIZES, r"cannot be loaded: SystemExit: 2 \(line 1\)"),
            (SIZES + "\ndef (", "cannot be loaded: SyntaxError"),
        ],
    )
    def test_a_wrapper_that_is_none(self, write, folder, source, message):
        with pytest.raises(ModelError, match=message) as caught:
            write(source)
        assert f"'{folder / 'sizes.py'}'" in str(caught.value)
        assert not [name for name in sys.modules if name.startswith("_jammi_duck_wrapper_sizes") and source in name]

    def test_a_file_that_cannot_be_read(self, folder):
        (folder / "sizes.py").write_bytes(b"#" * (2 << 20))
        with pytest.raises(ModelError, match="cannot read the wrapper .*is larger than"):
            Wrappers([str(folder)]).get("sizes")

    def test_a_broken_one_hides_no_other(self, write, folder):
        write()
        (folder / "broken.py").write_text(SIZES + "\ndef (")
        found = dict(Wrappers([str(folder)]).listed(examples=False))
        assert isinstance(found.pop("broken"), ModelError)
        assert [each.label for each in found.values()] == ["Sizes"]


class TestBatches:
    def test_vectors_are_as_the_wrapper_gives_them_in_the_order_of_the_rows(self, write):
        wrapper = write(with_batch("return [(k, [float(len(str(v))), 1]) for k, v in reversed(list(batch))]"))
        made = wrapper.encode_batch(7, [("a", "x"), ("b", "xyz")])
        assert [each.tolist() for each in made] == [[1.0, 1.0], [3.0, 1.0]]
        assert made[0].dtype == np.float32
        assert wrapper.encode_batch(1, []) == []

    def test_keys_and_values_are_what_they_were(self, write):
        body = "batch = list(batch); SEEN.append((batch_index, batch, verbose)); return [(k, (1, 2)) for k, _ in batch]"
        wrapper = write("SEEN = []\n" + with_batch(body))
        rows = [(1, b"bytes"), (["a", 2], {"a": [1]}), ((1, None), None), ("é", object())]
        assert [each.tolist() for each in wrapper.encode_batch(3, rows, verbose=True)] == [[1.0, 2.0]] * 4
        ((number, seen, verbose),) = wrapper._module.SEEN
        assert (number, seen, verbose) == (3, rows, True)
        assert all(a is b for given, row in zip(seen, rows, strict=True) for a, b in zip(given, row, strict=True))

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("bad", r"embedding_encode raised ValueError: it is bad \(line \d+\)"),
            ("exit", r"embedding_encode raised SystemExit: 3"),
            ("short", r"it gave 1 numbers, and embedding_dim\(\) is 2"),
            ("long", r"it gave 3 numbers"),
            ("nan", r"it gave nan as number 2 of the vector, which is no finite FLOAT"),
            ("huge", r"it gave 1e\+300 as number 1"),
            ("hole", r"it gave None as number 2"),
            ("text", "it gave str 'ab' instead of a vector"),
            ("none", "it gave None instead of a vector"),
            ("nested", r"it gave list \[\[1.0, 2.0\]\] instead of a vector"),
            ("ragged", r"it gave list \[\[1.0\], 2.0\] instead of a vector"),
            ("words", r"it gave list \['1', '2'\] instead of a vector"),
        ],
    )
    def test_a_bad_row_fails_alone(self, write, value, reason):
        first, second, third = write().encode_batch(1, [(1, "good"), (2, value), (3, "better")])
        assert (first.tolist(), third.tolist()) == ([4.0, 1.0], [6.0, 1.0])
        assert re.match(reason, second), second

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("return [(1, [1, 1])]", "embedding_encode_batch gave no vector for the key int 2"),
            (
                "return [(1, [1, 1]), (9, [2, 2])]",
                "no vector for the key int 2; it gave a vector for the key int 9, which",
            ),
            ("return [(1, [1, 1]), (2, [1, 1]), (2, [2, 2])]", "gave 2 vectors for the key int 2"),
            ("return [(1, [1, 1]), (2, [1, 1], 5)]", "no vector for the key int 2; it gave tuple .* is no pair"),
            (
                "return [(1, [1, 1]), (str(2), [1, 1])]",
                "no vector for the key int 2; it gave a vector for the key str '2'",
            ),
        ],
    )
    def test_wrong_keys_fail_the_rows_that_they_leave_out(self, write, body, reason):
        first, second = write(with_batch(body)).encode_batch(1, [(1, "a"), (2, "b")])
        assert first.tolist() == [1.0, 1.0]
        assert re.search(reason, second), second

    @pytest.mark.parametrize("body", ["return None", "yield (1, [1, 1]); raise KeyError(1)", "raise SystemExit"])
    def test_a_batch_that_fails_as_a_whole_is_tried_row_by_row(self, write, body):
        made = write(with_batch(body)).encode_batch(1, [(1, "a"), (2, "bad"), (3, "abc")])
        assert (made[0].tolist(), made[2].tolist()) == ([1.0, 1.0], [3.0, 1.0])
        assert "it is bad" in made[1]

    def test_ctrl_c_is_none_of_its_errors(self, write):
        with pytest.raises(KeyboardInterrupt):
            write(with_batch("raise KeyboardInterrupt")).encode_batch(1, [(1, "a")])


class TestContract(EncoderContract):
    @pytest.fixture
    def encoder(self, write):
        return WrapperEncoder(write())


class TestSql:
    def test_embed_gives_unit_vectors(self, con):
        ((found,),) = con.execute("SELECT embed('abc', 'sizes')").fetchall()
        assert np.allclose(found, np.array([3, 1]) / 10**0.5)
        assert con.execute("SELECT embed('  ', 'sizes')").fetchall() == [(None,)]

    def test_a_table_of_it_is_searched_and_refreshed(self, con, folder, write):
        con.execute("CREATE TABLE t AS SELECT * FROM (VALUES (1, 'a'), (2, 'abcdefgh'), (3, 'bad')) t(id, text)")
        made = con.execute("SELECT model, row_count, failed_count, dimensions FROM jammi_generate('t', 'text', 'id')")
        assert made.fetchall() == [("sizes", 2, 1, 2)]
        search = "SELECT id FROM jammi_search('t', 'abcdefg', 1, mode := 'vector')"
        assert con.execute(search).fetchall() == [(2,)]
        con.execute("INSERT INTO t VALUES (4, 'abcdefg')")
        assert con.execute("SELECT encoded FROM jammi_refresh('t')").fetchall()[0][0] >= 1
        assert con.execute(search).fetchall() == [(4,)]
        (folder / "sizes.py").rename(folder / "renamed.py")
        assert con.execute("SELECT id FROM jammi_search('t', 'abcdef', 1, mode := 'vector')").fetchall() == [(4,)]
        (folder / "renamed.py").unlink()
        with pytest.raises(duckdb.Error, match=r"no wrapper 'sizes': there is no file 'sizes.py'"):
            con.execute("FROM jammi_search('t', 'abcdefghi', 1)").fetchall()

    def test_a_changed_file_is_a_changed_model(self, con, write):
        con.execute("CREATE TABLE t AS SELECT 1 AS id, 'a' AS text")
        con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
        write(SIZES + "\n# changed\n")
        with pytest.raises(duckdb.Error, match=r"its files have changed \(weights differ\)"):
            con.execute("FROM jammi_search('t', 'other', 1)").fetchall()

    def test_a_row_that_fails_is_named(self, con):
        con.execute("CREATE TABLE t AS SELECT * FROM (VALUES (1, 'a'), (2, 'bad'), (3, 'short')) t(id, text)")
        rows = con.execute("SELECT _row_id, _error FROM jammi_infer('t', 'text', 'id') ORDER BY 1").fetchall()
        assert rows[0] == ("1", None)
        assert rows[1][1].startswith("the wrapper 'sizes' failed: embedding_encode raised ValueError: it is bad (line")
        assert rows[2][1] == "the wrapper 'sizes' failed: it gave 1 numbers, and embedding_dim() is 2"
        with pytest.raises(duckdb.Error, match="the text 'bad' of 3 characters could not be embedded: the wrapper"):
            con.execute("SELECT embed('bad', 'sizes')").fetchall()

    def test_a_vector_of_zeros_fails(self, con, write):
        write(with_batch("return [(k, [0, 0]) for k, _ in batch]"), "zeros")
        with pytest.raises(duckdb.Error, match="a vector of zeros, which has no direction"):
            con.execute("SELECT embed('a', 'zeros')").fetchall()

    def test_models_of_ours_are_as_they_were(self, con, tiny_model):
        assert con.execute(f"SELECT len(embed('duck', '{tiny_model}'))").fetchall() == [(32,)]
        assert "sizes" not in {name for (name,) in con.execute("SELECT name FROM jammi_models()").fetchall()}


class TestWhoMayRunIt:
    """Code runs only from a folder that the user has named."""

    @pytest.fixture
    def ran(self, folder, tmp_path, monkeypatch):
        """Whether the wrapper has run; the working directory is another one, without options of the user."""
        (folder / "spy.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n" + SIZES)
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        return (tmp_path / "ran").exists

    @pytest.mark.parametrize("who", ["argument", "environment", "user's file", "working directory's file"])
    def test_who_may_name_it(self, ran, folder, tmp_path, monkeypatch, who):
        text = f"[models]\npath = [{json.dumps(str(folder))}]\n"
        given = {}
        if who == "argument":
            given = {"models_path": [str(folder)]}
        elif who == "environment":
            monkeypatch.setenv("JAMMI_MODELS__PATH", json.dumps([str(folder)]))
        elif who == "user's file":
            (tmp_path / "config/jammi").mkdir(parents=True)
            (tmp_path / "config/jammi/jammi.toml").write_text(text)
        else:
            Path("jammi.toml").write_text(text)
        encoders = loaded_encoders(settings.load(given).config)
        if who == "working directory's file":
            with pytest.raises(
                ModelError, match=r"spy.py' is Python code, which is not run here: its folder has to be"
            ):
                encoders.get("spy")
            assert main(["model", "list"]) == main(["models", "list"]) == 0
        else:
            assert encoders.get("spy").dimensions == 2
        assert ran() == (who != "working directory's file")

    def test_the_users_own_name_for_a_folder_goes_before_the_working_directorys(self, ran, folder):
        Path("jammi.toml").write_text("[models]\npath = ['/elsewhere']\n")
        assert settings.load({"models_path": [str(folder)]}).config.wrappers is None
        assert settings.load().config.wrappers == ()

    @pytest.mark.parametrize("named", [(), ("spy",)])
    def test_a_servers_clients_name_it_only_if_the_server_does(self, ran, folder, hub_cache, tiny_model, named):
        pytest.importorskip("grpc")
        from jammi_duck.doors.server.admission import Cores
        from jammi_duck.doors.server.models import ModelDeniedError, ServedEncoders

        inner = LoadedEncoders(4, 2, path=[str(folder)], wrappers=named)
        served = ServedEncoders(inner, "acme/default", named, lambda _: None, Cores(1))
        if named:
            assert served.get("spy").dimensions == 2
            return
        with pytest.raises(ModelDeniedError, match="this server has no model 'spy'"):
            served.get("spy")
        with pytest.raises(ModelDeniedError, match="this server has no model 'hf_st_all_minilm_l6'"):
            served.get("hf_st_all_minilm_l6")
        # The bare name of a model that is here passes for its name.
        put_in_cache(hub_cache, "acme/spy", tiny_model)
        with pytest.raises(ModelError, match="is not run here"):
            served.get("spy")
        assert not ran()

    def test_serve_runs_the_wrappers_that_it_names(self, folder, monkeypatch, tmp_path):
        service = pytest.importorskip("jammi_duck.doors.server.service")
        got = []

        def loaded(config):
            got.append(config)
            raise ConfigError("enough")

        monkeypatch.setattr(service, "loaded_encoders", loaded)
        monkeypatch.setenv("JAMMI_SERVER__PRELOAD_MODELS", '["spy"]')
        assert main(["serve", "--models", str(folder)]) == 2
        assert (got[0].models_path, got[0].wrappers[1:]) == ((str(folder),), ("spy",))


class TestCommands:
    def test_the_example_is_listed_and_described_as_the_toolkit_does(self, capsys, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        assert main(["model", "list"]) == 0
        assert capsys.readouterr() == (LIST, "")
        for command in ("model", "models"):
            assert main([command, "desc", "hf_st_all_minilm_l6"]) == 0
            assert capsys.readouterr() == (DESC, "")

    def test_the_program_prints_the_same_bytes(self, tmp_path):
        command = [Path(sys.executable).with_name("jammi-duck"), "model", "desc", "hf_st_all_minilm_l6"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout == DESC.encode()

    def test_those_of_a_folder_and_one_that_is_broken(self, write, folder, capsys, caplog):
        write()
        (folder / "broken.py").write_text(SIZES + "\ndef (")
        assert main(["model", "list", "--models", str(folder)]) == 0
        out, _ = capsys.readouterr()
        assert out == LIST + "sizes\tSizes\n"
        assert main(["model", "desc", "sizes", "--models", str(folder)]) == 0
        assert capsys.readouterr().out == "---------\n| Sizes |\n---------\nHow long a value is.\nAnd 1.\n\n"
        assert main(["model", "desc", "broken", "--models", str(folder)]) == 1
        assert "broken.py' cannot be loaded: SyntaxError" in capsys.readouterr().err

    def test_the_list_of_all_models_begins_with_them(self, write, folder, hub_cache, tiny_model, capsys, monkeypatch):
        monkeypatch.setattr("jammi_duck.encoder.names._carried_folder", lambda: None)
        put_in_cache(hub_cache, "acme/good", tiny_model)
        write()
        assert main(["models", "list", "--models", str(folder)]) == 0
        assert capsys.readouterr().out.startswith("sizes\tSizes\nacme/good\tgood\n")
        assert main(["models", "list", "--json", "--models", str(folder)]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [(row["name"], row["dimensions"], row["origin"]) for row in rows[:2]] == [
            ("sizes", 2, "python"),
            ("acme/good", 32, "cache"),
        ]

    def test_a_model_of_files_is_described_alike(self, tiny_model, capsys):
        assert main(["model", "desc", str(tiny_model)]) == 0
        lines = capsys.readouterr().out.split("\n")
        assert lines[:3] == ["-------------", "| tiny-bert |", "-------------"]
        assert "Produces 32-dimensional float vectors." in lines
        assert lines[-2:] == ["", ""]

    def test_one_that_is_not_there(self, hub_cache, capsys):
        assert main(["model", "desc", "hf_st_all_minilm_l7"]) == 1
        assert "no model 'hf_st_all_minilm_l7' on this machine" in capsys.readouterr().err


class TestExample:
    @pytest.mark.minilm
    def test_its_vectors_are_those_of_the_model(self, capsys):
        wrapper = Wrappers().get("hf_st_all_minilm_l6")
        made = wrapper.encode_batch(2, [("a", "a duck"), ("b", 7), ("c", "water")], verbose=False)
        right = LoadedEncoders(4, 2, "float32").get("all-MiniLM-L6-v2").encode(["a duck", "water"])
        assert np.abs(np.array([made[0], made[2]]) - right).max() < 1e-5
        assert made[1].startswith("embedding_encode raised TypeError: this model embeds texts, not int")
        wrapper.encode_batch(2, [("k", "a duck")], verbose=True)
        assert capsys.readouterr().out == "[INFO] (batch 2, 1/1) Updating vector for row id k: 'a duck'\n"

    def test_it_has_the_functions_of_a_wrapper(self):
        assert all(callable(getattr(Wrappers().get("hf_st_all_minilm_l6")._module, name)) for name in FUNCTIONS)


def test_the_wrapper_of_the_page_about_models_works(folder, tmp_path):
    section = (ROOT / "docs" / "models.md").read_text().partition("\n## Your own Python\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (query,) = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    (folder / "letters.py").write_text(block)
    con = jammi_duck.connect(storage=tmp_path / "st", cache_dir=tmp_path / "cache", models_path=[folder])
    con.execute("CREATE TABLE animals AS SELECT * FROM (VALUES (1, 'duck'), (2, 'fish')) t(id, name)")
    for statement in query.split(";")[:-1]:
        found = con.execute(statement).fetchall()
    assert found == [("duck",)]
    con.close()
