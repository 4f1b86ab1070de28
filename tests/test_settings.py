"""Options come from arguments, the environment, `jammi.toml` and defaults; what is wrong is named with its place."""

import re
import traceback
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jammi_duck
from jammi_duck import ConfigError, JammiError
from jammi_duck.config import settings
from jammi_duck.config.options import Config, options
from jammi_duck.config.redaction import public_url, redacted, secrets_of, split_user


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, and an empty configuration directory of the user below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "jammi").mkdir(parents=True)
    return tmp_path


def write(folder, text):
    (folder / "jammi.toml").write_text(text)


class TestOrder:
    def test_defaults(self, here):
        found = settings.load()
        assert found.config == Config()
        assert {found.origin(name) for name in options()} == {"default"}

    def test_each_option_comes_from_the_nearest(self, here, monkeypatch):
        write(
            here / "config" / "jammi",
            "[inference]\nmodel = 'users'\nbatch_size = 1\nthreads = 1\nprecision = 'float32'",
        )
        write(here, "[inference]\nmodel = 'projects'\nbatch_size = 2\n\nthreads = 2")
        monkeypatch.setenv("JAMMI_INFERENCE__MODEL", "environments")
        monkeypatch.setenv("JAMMI_INFERENCE__BATCH_SIZE", "3")
        found = settings.load({"model": "arguments"})
        config = found.config
        assert (config.model, config.batch_size, config.threads, config.precision) == ("arguments", 3, 2, "float32")
        assert [found.origin(name) for name in ("model", "batch_size", "threads", "precision", "device")] == [
            "argument",
            "JAMMI_INFERENCE__BATCH_SIZE",
            f"{here}/jammi.toml:5",
            f"{here}/config/jammi/jammi.toml:5",
            "default",
        ]

    def test_the_places(self, here, monkeypatch):
        user, system = here / "config/jammi/jammi.toml", Path("/etc/jammi/jammi.toml")
        assert settings.paths() == [here / "jammi.toml", user, system]
        monkeypatch.delenv("XDG_CONFIG_HOME")
        assert settings.paths()[1] == Path("~/.config/jammi/jammi.toml").expanduser()

    def test_variables_of_fsspec_add_up_and_take_the_place_of_a_file(self, here, monkeypatch):
        write(here, "[storage.options]\nkey = 'file'\n[storage.options.client_kwargs]\nendpoint_url = 'http://x'")
        monkeypatch.setenv("JAMMI_STORAGE__OPTIONS", '{"key": "table", "use_ssl": true}')
        monkeypatch.setenv("JAMMI_STORAGE__OPTIONS__KEY", "variable")
        monkeypatch.setenv("JAMMI_STORAGE__OPTIONS__SECRET", "123")
        monkeypatch.setenv("JAMMI_STORAGE__OPTIONS__ANON", "false")
        found = settings.load()
        assert found.config.storage_options == {"key": "variable", "secret": "123", "anon": False, "use_ssl": True}
        assert "storage.options of " in found.unused[0]
        assert found.unused[0].endswith("is not added to that of " + found.origin("storage_options"))
        assert settings.load({"storage_options": {"a": 1}}).config.storage_options == {"a": 1}

    def test_install_takes_them(self, here, monkeypatch):
        write(here, "[storage]\nlocation = 'vectors'\nretention = '2 days'")
        monkeypatch.setenv("JAMMI_STORAGE__SEGMENT_ROWS", "7")
        con = duckdb.connect()
        jammi = jammi_duck.install(con)
        assert jammi.location == str(here / "vectors")
        other = duckdb.connect()
        assert jammi_duck.install(other, storage=here / "mine").location == str(here / "mine")
        con.close()
        other.close()

    def test_install_refuses_before_anything_is_touched(self, here):
        write(here, "[storage]\nlocation = ''")
        con = duckdb.connect(here / "db.duckdb")
        with pytest.raises(ConfigError, match=r"jammi.toml:2: storage.location is ''"):
            jammi_duck.install(con)
        assert con.sql("SELECT count(*) FROM duckdb_schemas() WHERE schema_name LIKE 'jammi%'").fetchall() == [(0,)]
        con.close()


class TestValues:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("JAMMI_STORAGE__RETENTION", "90 minutes", timedelta(minutes=90)),
            ("JAMMI_STORAGE__RETENTION", "1.5 weeks", timedelta(weeks=1.5)),
            ("JAMMI_STORAGE__RETENTION", "P2D", timedelta(days=2)),
            ("JAMMI_STORAGE__RETENTION", "2d", timedelta(days=2)),
            ("JAMMI_STORAGE__FOLLOW", "1.5s", timedelta(seconds=1.5)),
            ("JAMMI_STORAGE__FOLLOW", "5m", timedelta(minutes=5)),
            ("JAMMI_GPU__MEMORY_LIMIT", "auto", "auto"),
            ("JAMMI_GPU__MEMORY_LIMIT", "8 GB", 8_000_000_000),
            ("JAMMI_GPU__MEMORY_LIMIT", "1.5GiB", 1_610_612_736),
            ("JAMMI_GPU__MEMORY_LIMIT", "4096", 4096),
            ("JAMMI_GPU__MEMORY_FRACTION", "0.5", 0.5),
            ("JAMMI_GPU__DEVICE", "-1", -1),
            ("JAMMI_INFERENCE__PRELOAD_MODELS", '["a", "b"]', ("a", "b")),
            ("JAMMI_STORAGE__CACHE_DIR", "~/cache", Path.home() / "cache"),
            ("jammi_logging__format", "json", "json"),
        ],
    )
    def test_texts(self, here, monkeypatch, name, text, value):
        monkeypatch.setenv(name, text)
        (option,) = [option for option in options().values() if option.variable == name.upper()]
        assert getattr(settings.load().config, option.name) == value

    def test_gpu_memory_is_a_limit_or_a_fraction(self):
        assert Config(gpu_memory_limit="1 kB").gpu_memory == 1000
        assert Config(gpu_memory_fraction=0.25).gpu_memory == 0.25

    @given(st.integers())
    def test_a_number_is_the_same_from_everywhere(self, number):
        def outcome(read):
            try:
                return read()
            except ConfigError as error:
                return str(error).split(" is ", 1)[1].replace("'", "")

        option = options()["batch_size"]
        assert outcome(lambda: option.checked(number, "x")) == outcome(
            lambda: option.checked(str(number), "x", text=True)
        )


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("[inference]\n\nbatchsize = 1", 3, "there is no option 'inference.batchsize'; did you mean"),
            ("batch_size = 1", 1, "there is no option 'batch_size'; did you mean 'inference.batch_size'?"),
            ("[gpu]\nwarp = 9", 2, "there is no option 'gpu.warp'; there are: gpu.device, gpu.memory_limit"),
            ("[inferense]\nbatch_size = 1", 1, "there is no section [inferense]; did you mean 'inference'?"),
            ("[x]\ny = 1", 1, "there is no section [x]; there are: storage, inference, models, providers, cache"),
            ("storage = 's3://b'", 1, "storage must be a section; write [storage] above its options"),
            ("# no\n[inference]\nbatch_size = '64'", 3, "inference.batch_size is '64'; it must be a whole number"),
            ("[inference]\nmodel = ''", 2, "inference.model is ''; it must be PROVIDER:NAME, a name on the"),
            ("[inference]\npreload_models = [\n 'a',\n 1,\n]\nthreads = 2", 2, "inference.preload_models is ['a', 1]"),
            ("[inference]\nmodel = '''\na'''\nthreads = 1.5", 4, "inference.threads is 1.5; it must be a whole number"),
            ("[gpu]\nmemory_fraction = 0.0", 2, "gpu.memory_fraction is 0.0; it must be a number above 0"),
            ("[logging]\nlevel = 'loud'", 2, "logging.level is 'loud'; it must be one of debug, info, warning, error"),
            ("[storage]\nretention = 7", 2, "storage.retention is 7; it must be a duration of at least 0, such"),
            ("[server]\nhttp_listen = 'here'", 2, "server.http_listen is 'here'; it must be a host and a port"),
        ],
    )  # fmt: skip
    def test_in_a_file(self, here, text, line, message):
        write(here, text)
        with pytest.raises(ConfigError, match=re.escape(f"{here}/jammi.toml:{line}: {message}")):
            settings.load()

    @given(st.integers(0, 40), st.integers(1, 40), st.sampled_from(["\n", "\r\n"]))
    def test_the_line_is_right_wherever_it_is(self, before, after, newline):
        lines = [f"# \u2028 {i}" for i in range(before)] + ["[inference]", 'model = """', "[gpu]", 'threads = 1"""']
        lines += [""] * after + ["batch_size = 0"] + ["# more"] * after
        place = settings._Place(Path("f"), newline.join(lines), "inference.batch_size")
        assert str(place) == f"f:{before + 4 + after + 1}"

    def test_a_long_file_is_read_at_once(self, here, monkeypatch):
        write(here, "# a comment\n" * 20_000 + "[inference]\nthreads = 2")
        parsed = []
        monkeypatch.setattr(settings, "_keys", lambda text: parsed.append(text))
        assert settings.load().config.threads == 2
        assert parsed == []

    def test_a_file_that_is_no_toml(self, here):
        write(here, "[inference]\nbatch_size = \n")
        with pytest.raises(ConfigError, match=rf"{here}/jammi.toml is no TOML: .*line 2"):
            settings.load()
        for text in ("a = " + "[" * 5000, "[inference]\nbatch_size = " + "9" * 5000):
            write(here, text)
            with pytest.raises(ConfigError, match=r"jammi.toml is no TOML|it must be a whole number"):
                settings.load()
        (here / "jammi.toml").write_bytes(b"\xff")
        with pytest.raises(ConfigError, match=r"cannot read .*jammi.toml: it is not UTF-8"):
            settings.load()
        (here / "jammi.toml").unlink()
        (here / "jammi.toml").mkdir()
        with pytest.raises(ConfigError, match=r"cannot read .*jammi.toml: Is a directory"):
            settings.load()

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("JAMMI_INFERENCE__BATCHSIZE", "1", "sets no option; did you mean 'JAMMI_INFERENCE__BATCH_SIZE'?"),
            ("JAMMI_MODEL", "x", "JAMMI_MODEL sets no option; did you mean 'JAMMI_INFERENCE__MODEL'?"),
            ("JAMMI_GPU__WARP", "x", "sets no option; there are: JAMMI_GPU__DEVICE, JAMMI_GPU__MEMORY_LIMIT"),
            ("JAMMI_INFERENCE__MODEL", "https://h/a/b", "MODEL is 'https://h/a/b'; it must be PROVIDER:NAME"),
            ("JAMMI_INFERENCE__PRELOAD_MODELS", '["http://h/a"]', "it must be a list of models' names, no URLs"),
            ("JAMMI_ZZZ", "x", "sets no option; sections are: storage, inference, models, providers, cache"),
            ("JAMMI_INFERENCE__BATCH_SIZE", "many", "BATCH_SIZE is 'many'; it must be a whole number of at least 1"),
            ("JAMMI_INFERENCE__BATCH_SIZE", "", "JAMMI_INFERENCE__BATCH_SIZE is ''; it must be a whole number"),
            ("JAMMI_INFERENCE__PRELOAD_MODELS", "a, b", "must be a list of models' names, no URLs, as JSON, not 'a"),
            ("JAMMI_STORAGE__RETENTION", "7", "JAMMI_STORAGE__RETENTION is '7'; it must be a duration of at least 0"),
            ("JAMMI_STORAGE__RETENTION", "999999999 days", "RETENTION is '999999999 days'; it must be a duration"),
            ("JAMMI_INFERENCE__THREADS", "100000", "JAMMI_INFERENCE__THREADS is '100000'; it must be a whole number"),
            ("JAMMI_GPU__MEMORY_LIMIT", "0 GB", "JAMMI_GPU__MEMORY_LIMIT is '0 GB'; it must be 'auto', or a size"),
            ("JAMMI_SERVER__HTTP_LISTEN", "x:99999", "JAMMI_SERVER__HTTP_LISTEN is 'x:99999'; it must be a host"),
            ("JAMMI_INFERENCE__MODEL", "a\udcff", "the environment variable JAMMI_INFERENCE__MODEL is not UTF-8"),
            ("JAMMI_INFERENCE__PRELOAD_MODELS", "[" * 20000, "JAMMI_INFERENCE__PRELOAD_MODELS must be a list of"),
            ("JAMMI_INFERENCE__PRELOAD_MODELS", '"a"', "JAMMI_INFERENCE__PRELOAD_MODELS is 'a'; it must be a list"),
        ],
    )  # fmt: skip
    def test_in_the_environment(self, here, monkeypatch, name, text, message):
        monkeypatch.setenv(name, text)
        with pytest.raises(ConfigError, match=re.escape(message)):
            settings.load()


class TestAlmostUrls:
    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("s3:/bucket/x", "s3://bucket/x"),
            ("s3:bucket", "s3://bucket"),
            ("s3//bucket", "s3://bucket"),
            (Path("s3://bucket/x"), "s3://bucket/x"),
            ("memory:x", "memory://x"),
            ("s3:KEY:hush@bucket/x", "s3://bucket/x"),
        ],
    )
    def test_no_folder_is_made_of_them(self, here, written, meant):
        with (
            pytest.raises(ConfigError, match=re.escape(f"did you mean '{meant}'?")) as refused,
            duckdb.connect() as con,
        ):
            jammi_duck.install(con, storage=written)
        assert "hush" not in str(refused.value)
        assert [path.name for path in here.iterdir()] == ["config"]

    @pytest.mark.parametrize("written", ["s3", "s3/x", "./s3:/x", "a/s3:x", "s3-vectors", "/s3//x"])
    def test_folders_are_folders(self, here, written):
        with duckdb.connect() as con:
            assert jammi_duck.install(con, storage=written).location == str((here / written).absolute())


class TestSecrets:
    def test_a_user_in_the_location_becomes_an_option(self):
        config = Config(storage="s3://KEYID:se%2Fcret/x@bucket/prefix")
        assert (config.storage, config.storage_options) == (
            "s3://bucket/prefix",
            {"key": "KEYID", "secret": "se/cret/x"},
        )
        assert "cret/x" not in repr(config)
        other = Config(storage="ftp://me:hush@host/x", storage_options={"password": "other"})
        assert (other.storage, other.storage_options) == ("ftp://host/x", {"username": "me", "password": "other"})

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("JAMMI_STORAGE__LOCATION", "s3://KEY:hush-hush@b/x?token=hush-hush"),
            ("JAMMI_STORAGE__OPTIONS", "hush-hush"),
            ("JAMMI_STORAGE__OPTIONS", '["hush-hush"]'),
            ("JAMMI_STORAGE__OPTION__SECRET", "hush-hush"),
            ("JAMMI_STORAGE__LOCATION", "https://me:hu@hush-hush@h/it's x?sig=hush-hush"),
        ],
    )
    def test_no_error_shows_them(self, here, monkeypatch, name, text):
        monkeypatch.setenv(name, text)
        with pytest.raises(ConfigError) as caught:
            settings.load()
        assert name in str(caught.value)
        assert "hush-hush" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__

    @pytest.mark.parametrize(
        "text",
        [
            "[[storage]]\noptions = {secret = 'hush-hush'}",
            "[storage.location]\nsecret = 'hush-hush'",
            "[storage.location.deeper]\nsecret = 'hush-hush'",
        ],
    )
    def test_no_table_in_the_wrong_place_is_shown(self, here, text):
        write(here, text)
        with pytest.raises(ConfigError) as caught:
            settings.load()
        assert "hush" not in str(caught.value)

    def test_python_shows_no_signature_of_a_source(self, here):
        con = duckdb.connect()
        jammi = jammi_duck.install(con)
        source = "https://me:hush-hush@127.0.0.1:9/x.parquet?X-Amz-Signature=hush-hush"
        for call in (jammi.generate, jammi.infer):
            with pytest.raises(JammiError) as caught:
                call(source, "text", "id")
            assert "hush" not in "".join(traceback.format_exception(caught.value))
        con.close()

    def test_an_option_in_a_file_that_is_no_table(self, here):
        write(here, "[storage]\noptions = 'hush-hush'")
        with pytest.raises(ConfigError, match=r"jammi.toml:2: storage.options is wrong; it must be a table of options"):
            settings.load()

    @pytest.mark.parametrize(
        ("url", "public"),
        [
            ("s3://KEY:se/cr+et@bucket/x.parquet", "s3://bucket/x.parquet"),
            ("s3://KEY:se/cr@et@bucket/x", "s3://bucket/x"),
            ("http://u:pa@ss@host/x", "http://host/x"),
            ("s3://bucket/mail@home.parquet", "s3://bucket/mail@home.parquet"),
            ("https://me:hush@host:8080/a@b.csv?sig=hush&x=1", "https://host:8080/a@b.csv"),
            ("http://host:8080/users/a@b.csv", "http://host:8080/users/a@b.csv"),
            ("/home/me@work/what?x=1", "/home/me@work/what?x=1"),
        ],
    )
    def test_urls(self, url, public):
        assert public_url(url) == public
        assert split_user(public)[1:] == (None, None)

    def test_texts(self):
        inner = {"aws_secret_access_key": "hushhush", "region_name": "eu-west"}
        secrets = secrets_of({"key": "AKIA", "client_kwargs": inner, "anon": False})
        lists = {"pwd": ["long pass"], "headers": [("Authorization", "Bearer x")]}
        assert secrets_of(lists) >= {"long pass", "Bearer x"}
        assert secrets == {"AKIA", "hushhush"}
        text = "no access for AKIA/hushhush in eu-west: GET https://me:x@host/f?X-Amz-Signature=abc (403)"
        assert redacted(text, secrets) == "no access for ***/*** in eu-west: GET https://***@host/f?*** (403)"
