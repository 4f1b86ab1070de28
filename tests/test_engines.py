"""Which engine computes a model, what says so, and that nobody imports torch who does not need it."""

import json
import subprocess
import sys

import duckdb
import pytest

import jammi_duck
from jammi_duck import ConfigError, ModelError
from jammi_duck.encoder import engines
from jammi_duck.encoder.engines import Engines, Wanted
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.native import library
from tests.conftest import make_tiny_model

needs_native = pytest.mark.skipif(library.why_not() is not None, reason="the native engine is not here")
TEXTS = ["duck", "the water", "a " * 40, "héllo wörld", ""]
HIDDEN = ("torch", "transformers", "pandas", "regex")


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch):
    """A CPU without AMX, and no GPU."""
    monkeypatch.setattr(engines, "has_amx", lambda: False)
    monkeypatch.setattr(engines, "_DRIVERS", ())


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setattr(library, "why_not", lambda: "it was not compiled")


class TestChoice:
    @needs_native
    def test_the_native_engine_where_it_can(self):
        choice = Engines(Wanted()).choice()
        assert (choice.engine, choice.precision) == ("native", library.best_precision())
        assert Engines(Wanted(precision="float32")).choice().precision == "float32"

    def test_torch_where_it_is_asked_for(self):
        choice = Engines(Wanted("torch", "bfloat16")).choice()
        assert (choice.engine, choice.precision, choice.reason) == (
            "torch",
            "bfloat16",
            "[inference] engine is 'torch'",
        )

    def test_torch_without_the_library(self, absent):
        assert Engines(Wanted()).choice().reason == "the native engine cannot be used: it was not compiled"
        with pytest.raises(ConfigError, match="engine is 'native', and the native engine cannot be used: it was not"):
            Engines(Wanted("native")).choice()

    def test_torch_on_a_cuda_device(self, monkeypatch, tmp_path):
        assert "device is 0" in Engines(Wanted(device=0)).choice().reason
        with pytest.raises(ConfigError, match="engine is 'native', and device is 1"):
            Engines(Wanted("native", device=1)).choice()

    @needs_native
    def test_torch_is_asked_for_devices_where_there_is_a_driver(self, monkeypatch, tmp_path):
        from jammi_duck.encoder.torch_engine import placement

        asked = []
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(engines, "_DRIVERS", (tmp_path,))
        monkeypatch.setattr(placement, "cuda_devices", lambda: asked.append(1) or 1)
        assert Engines(Wanted()).choice().reason == "there is a CUDA device"
        assert Engines(Wanted(device=-1)).choice().is_native
        assert Engines(Wanted("native")).choice().is_native
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert Engines(Wanted()).choice().is_native
        assert asked == [1]

    @needs_native
    def test_torch_where_the_cpu_has_amx(self, monkeypatch):
        monkeypatch.setattr(engines, "has_amx", lambda: True)
        assert "AMX" in Engines(Wanted()).choice().reason
        assert "AMX" in Engines(Wanted(precision="bfloat16")).choice().reason
        assert Engines(Wanted("native")).choice().is_native
        assert Engines(Wanted(precision="float32")).choice().is_native

    @needs_native
    def test_torch_for_a_precision_that_the_cpu_has_no_instructions_for(self, monkeypatch):
        monkeypatch.setattr(library, "supports", lambda precision: precision == "float32")
        assert Engines(Wanted(precision="bfloat16")).choice().reason == (
            "this CPU has no instructions to multiply bfloat16"
        )

    @pytest.mark.parametrize("wanted", [Wanted("torch", "int8"), Wanted(precision="int8", device=0)])
    def test_int8_is_not_torchs(self, wanted):
        with pytest.raises(ConfigError, match="precision is int8, which only the native engine computes, and torch"):
            Engines(wanted).choice()

    def test_in_words(self, absent):
        assert Engines(Wanted()).in_words() == "torch: the native engine cannot be used: it was not compiled"
        assert Engines(Wanted("native")).in_words().startswith("none: engine is 'native'")

    @needs_native
    def test_the_native_one_in_words(self):
        assert Engines(Wanted(precision="float32")).in_words() == f"native ({library.kernels()}, float32)"


class TestModels:
    def of(self, path, **options):
        return LoadedEncoders(4, 3, **options).get(str(path))

    @needs_native
    def test_both_engines_give_the_same_vectors(self, tmp_path):
        model = make_tiny_model(tmp_path / "tiny")
        native, torch = (self.of(model, precision="float32", engine=engine) for engine in ("native", "torch"))
        assert (native.engine.name, torch.engine.name) == ("native", "torch")
        for role in ("document", "query"):
            cosines = (native.encode(TEXTS, role) * torch.encode(TEXTS, role)).sum(1)
            assert cosines.min() > 0.999999
        assert native.identity == torch.identity

    @needs_native
    def test_a_model_that_is_not_covered(self, tmp_path):
        model = make_tiny_model(tmp_path / "odd", hidden=24)
        assert self.of(model).engine.name == "torch"
        with pytest.raises(ModelError, match="the native engine does not compute the model .*24.*torch does, with"):
            self.of(model, engine="native")

    @needs_native
    def test_int8_of_a_model_that_is_not_covered(self, tmp_path, caplog):
        model = make_tiny_model(tmp_path / "odd", hidden=24)
        encoder = self.of(model, precision="int8")
        assert encoder.identity.precision in ("float32", "bfloat16")
        assert "is not computed in int8, because" in caplog.text

    @needs_native
    def test_a_precision_that_a_model_has_not_is_not_recorded(self, tmp_path, monkeypatch):
        from jammi_duck.encoder.native import proof

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(proof, "LEAST_COSINE", 1.1)
        encoder = self.of(make_tiny_model(tmp_path / "tiny"), precision="int8")
        assert encoder.identity.precision in ("float32", "bfloat16")

    def test_what_jammi_models_says(self, tiny_model, tmp_path, absent):
        con = duckdb.connect()
        jammi_duck.install(con, storage=tmp_path / "artifacts", model=str(tiny_model))
        found = con.execute("SELECT engine, engine_reason FROM jammi_models() WHERE name = ?", [str(tiny_model)])
        assert found.fetchall() == [("torch", "the native engine cannot be used: it was not compiled")]

    @needs_native
    def test_what_jammi_models_says_of_the_native_engine(self, tmp_path):
        con = duckdb.connect()
        covered, odd = make_tiny_model(tmp_path / "tiny"), make_tiny_model(tmp_path / "odd", hidden=24)
        jammi_duck.install(con, storage=tmp_path / "artifacts", models_path=[tmp_path])
        found = con.execute("SELECT location, engine, engine_reason FROM jammi_models()").fetchall()
        rows = {location: facts for location, *facts in found}
        assert rows[str(covered)] == ["native", None]
        engine, reason = rows[str(odd)]
        assert engine == "torch"
        assert "24" in reason


_HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
if {absent!r}:
    sys.meta_path.insert(0, Hidden())
"""
_GENERATE = """
import duckdb, jammi_duck
con = duckdb.connect({database!r})
jammi_duck.install(con, storage={storage!r}, model={model!r})
con.execute("CREATE TABLE t AS SELECT range AS id, 'a duck ' || range AS text FROM range(20)")
con.sql("FROM jammi_generate('t', 'text', 'id')").fetchall()
"""
_EMBED_AND_SEARCH = """
import duckdb, jammi_duck, json
con = duckdb.connect({database!r})
jammi = jammi_duck.install(con, storage={storage!r}, model={model!r})
vector = con.sql("SELECT embed('a duck')").fetchall()[0][0]
found = con.sql("FROM jammi_search('t', 'duck 7', 3)").fetchall()
found += con.sql("FROM jammi_search('t', 'duck 7', 3, filter := 'id < 9')").fetchall()
found += jammi.search("t", "duck 8", 3).fetchall()
print(json.dumps([len(vector), len(found), [name for name in {hidden!r} if name in sys.modules]]))
"""


def run(script, **filled):
    done = subprocess.run(
        [sys.executable, "-c", (_HIDE + script).format(hidden=HIDDEN, **filled)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout, done.stderr


@needs_native
class TestWithoutTorch:
    @pytest.mark.parametrize("absent", [False, True])
    def test_the_main_job_neither_imports_nor_needs_it(self, tmp_path, absent):
        model = str(make_tiny_model(tmp_path / "tiny"))
        filled = dict(storage=str(tmp_path / "artifacts"), database=str(tmp_path / "db"), model=model, absent=absent)
        out, err = run(_GENERATE, **filled)
        assert not out, err
        out, err = run(_EMBED_AND_SEARCH, **filled)
        assert json.loads(out or "[]") == [32, 9, []], err

    def test_who_needs_it_says_so(self, tmp_path):
        model = make_tiny_model(tmp_path / "odd", hidden=24)
        script = "from jammi_duck.encoder.loaded import LoadedEncoders\nLoadedEncoders(4, 3, device=-1).get({model!r})"
        _, err = run(script, model=str(model), absent=True)
        assert "needs torch, which is not installed: " in err
        assert err.rstrip().endswith("`pip install torch`")
