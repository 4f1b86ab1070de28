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
from tests.engines import INT8
from tests.test_cross_encoder import make_reranker

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
        if library.supports("int8"):
            assert Engines(Wanted(precision="int8")).choice().is_native
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
    def test_torch_where_only_the_plain_kernels_run(self, monkeypatch):
        monkeypatch.setattr(library, "is_plain", lambda: True)
        monkeypatch.setenv(library.VARIABLE, "plain")
        for precision in ("auto", "float32", "bfloat16"):
            choice = Engines(Wanted(precision=precision, device=-1)).choice()
            assert choice.reason == (
                "the native engine has no code for the instructions of this CPU, so torch is faster"
            )
        assert Engines(Wanted(precision="int8")).choice().is_native
        asked = Engines(Wanted("native"))
        assert (asked.choice().engine, asked.choice().precision) == ("native", "float32")
        assert asked.in_words() == "native (plain, float32)"

    @needs_native
    @pytest.mark.parametrize("kind", ["plain", "amx"])
    def test_the_native_engine_on_any_cpu_without_torch(self, monkeypatch, kind):
        monkeypatch.setattr(engines, "_has_torch", lambda: False)
        monkeypatch.setattr(engines, "has_amx", lambda: kind == "amx")
        monkeypatch.setattr(library, "is_plain", lambda: kind == "plain")
        assert Engines(Wanted()).choice().is_native

    def test_whether_torch_is_installed_is_seen_without_it(self):
        asked = "from jammi_duck.encoder import engines\nprint(engines._has_torch(), 'torch' in sys.modules)"
        assert [run(asked, absent=absent)[0].split() for absent in (False, True)] == [
            ["True", "False"],
            ["False", "False"],
        ]

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
    def test_forced_kernels_are_no_wrong_option(self, tiny_model, tmp_path, monkeypatch):
        monkeypatch.setenv(library.VARIABLE, "plain")
        con = duckdb.connect()
        jammi_duck.install(con, storage=tmp_path / "artifacts", model=str(tiny_model), engine="native")
        found = con.execute("SELECT engine FROM jammi_models() WHERE name = ?", [str(tiny_model)]).fetchall()
        assert found == [("native",)]
        assert len(con.execute("SELECT embed('a duck')").fetchone()[0]) == 32

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
    def test_int8_of_a_model_that_is_not_covered(self, tmp_path, monkeypatch, caplog):
        monkeypatch.setenv(library.VARIABLE, INT8)
        model = make_tiny_model(tmp_path / "odd", hidden=24)
        encoder = self.of(model, precision="int8")
        assert encoder.identity.precision in ("float32", "bfloat16")
        assert "is not computed in int8, because" in caplog.text

    @needs_native
    def test_other_kernels_are_another_model(self, tmp_path, monkeypatch):
        model = make_tiny_model(tmp_path / "tiny")
        fastest = self.of(model, engine="native", precision="float32")
        assert self.of(model, engine="native", precision="float32") is fastest
        monkeypatch.setenv(library.VARIABLE, "plain")
        assert self.of(model, engine="native", precision="float32") is not fastest

    @needs_native
    def test_a_precision_that_a_model_has_not_is_not_recorded(self, tmp_path, monkeypatch):
        from jammi_duck.encoder.native import proof

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(proof, "LEAST_COSINE", 1.1)
        monkeypatch.setenv(library.VARIABLE, INT8)
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
_CONNECT = """
import duckdb, jammi_duck, json
con = duckdb.connect({database!r})
jammi = jammi_duck.install(con, storage={storage!r}, model={model!r})
"""
_WRITE = (
    _CONNECT
    + """
con.execute("CREATE TABLE t AS SELECT range AS id, 'a duck ' || range AS text FROM range(20)")
made = con.execute("SELECT row_count, status FROM jammi_generate('t', 'text', 'id')").fetchall()
con.execute("INSERT INTO t VALUES (20, 'water')")
renewed = con.execute("SELECT added, encoded FROM jammi_refresh('t')").fetchall()
print(json.dumps([made, renewed, [name for name in {torch!r} if name in sys.modules]]))
"""
)
_EMBED_AND_SEARCH = (
    _CONNECT
    + """
vector = con.sql("SELECT embed('a duck')").fetchall()[0][0]
found = con.sql("FROM jammi_search('t', 'duck 7', 3)").fetchall()
found += con.sql("FROM jammi_search('t', 'duck 7', 3, filter := 'id < 9')").fetchall()
found += jammi.search("t", "duck 8", 3).fetchall()
found += jammi.search("t", "duck 8", 3, rerank={reranker!r}).fetchall()
print(json.dumps([len(vector), len(found), [name for name in {hidden!r} if name in sys.modules]]))
"""
)
_COMMAND = """
import json
from jammi_duck.doors.cli import main
code = main({command!r})
print(json.dumps([code, [name for name in {torch!r} if name in sys.modules]]))
"""


def run(script, **filled):
    done = subprocess.run(
        [sys.executable, "-c", (_HIDE + script).format(hidden=HIDDEN, torch=HIDDEN[:2], **filled)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout, done.stderr


def last(out):
    """The last line, as DuckDB may have shown its progress before it."""
    return json.loads((out.splitlines() or ["null"])[-1])


@needs_native
class TestWithoutTorch:
    @pytest.mark.parametrize("absent", [False, True])
    def test_the_main_job_neither_imports_nor_needs_it(self, tmp_path, absent):
        model, reranker = str(make_tiny_model(tmp_path / "tiny")), str(make_reranker("bert", tmp_path / "reranker"))
        filled = dict(storage=str(tmp_path / "artifacts"), database=str(tmp_path / "db"), model=model, absent=absent)
        out, err = run(_WRITE, **filled)
        assert last(out) == [[[20, "ready"]], [[1, 1]], []], err
        out, err = run(_EMBED_AND_SEARCH, **filled, reranker=reranker)
        # DuckDB 1 imports pandas by itself.
        pandas = [] if absent or duckdb.__version__ >= "2" else ["pandas"]
        assert last(out) == [32, 12, pandas], err

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("absent", [False, True])
    def test_nor_does_the_command_line(self, tmp_path, monkeypatch, absent):
        model = str(make_tiny_model(tmp_path / "tiny"))
        monkeypatch.setenv("JAMMI_STORAGE__DATABASE", str(tmp_path / "db"))
        monkeypatch.setenv("JAMMI_STORAGE__LOCATION", str(tmp_path / "artifacts"))
        monkeypatch.setenv("JAMMI_INFERENCE__MODEL", model)
        with duckdb.connect(tmp_path / "db") as con:
            con.execute("CREATE TABLE t AS SELECT range AS id, 'a duck ' || range AS text FROM range(20)")
        for command in (
            ["generate", "t", "--columns", "text", "--key", "id"],
            ["search", "t", "duck 7"],
            ["refresh", "t"],
            ["models", "desc", model],
            ["config"],
        ):
            out, err = run(_COMMAND, command=command, absent=absent)
            assert last(out) == [0, []], f"{command}: {err}"

    def test_who_needs_it_says_so(self, tmp_path, clip):
        odd = make_tiny_model(tmp_path / "odd", hidden=24)
        script = (
            "from jammi_duck.encoder.loaded import LoadedEncoders\nLoadedEncoders(4, 3, **{options!r}).get({model!r})"
        )
        for model, options, reason in (
            (odd, {"device": -1}, "24"),
            (odd, {"device": 0}, "device is 0, a CUDA device"),
            (odd, {"engine": "torch"}, "[inference] engine is 'torch'"),
            (clip, {}, "models of pictures are computed by torch"),
        ):
            _, err = run(script, model=str(model), absent=True, options=options)
            assert f"the model '{model}' needs torch, which is not installed: " in err
            assert reason in err
            assert err.rstrip().endswith("`pip install torch`")
