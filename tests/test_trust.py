"""What a file in the working directory, or a database's catalog, can bring about: no key leaves, no file goes."""

import contextlib
import json
import os
import socket
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import duckdb
import pytest

from jammi_duck import ConfigError
from jammi_duck.config import cache, settings
from jammi_duck.storage.files.location import open_store
from jammi_duck.types import Definition
from tests.test_settings import here, write  # noqa: F401
from tests.test_shadows import TABLE
from tools.program import in_pipe

SECRETS = ("AKIAUSERSKEY", "users-secret", "users-token", "users-password")


class Recorder(contextlib.AbstractContextManager):
    """A server that keeps everything that it is sent, and has nothing to give."""

    def __enter__(self):
        self.got = []

        class Handler(BaseHTTPRequestHandler):
            def answer(handler):
                body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                self.got.append(f"{handler.requestline}\n{handler.headers}\n{body}")
                handler.send_response(404)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def leaked(self):
        return [secret for secret in SECRETS if any(secret in each for each in self.got)]


@pytest.fixture
def recorder():
    with Recorder() as found:
        yield found


@pytest.fixture
def listener():
    """A socket that counts who connects: `listener.port`, `listener.count`."""

    class Listener:
        count = 0

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()
                    Listener.count += 1

        threading.Thread(target=accept, daemon=True).start()
        Listener.port = server.getsockname()[1]
        yield Listener


AWS = {
    "AWS_ACCESS_KEY_ID": "AKIAUSERSKEY",
    "AWS_SECRET_ACCESS_KEY": "users-secret",
    "AWS_SESSION_TOKEN": "users-token",
}
KEYS = 'key = "AKIAUSERSKEY"\nsecret = "users-secret"\ntoken = "users-token"\n'


def users(folder, text):
    (folder / "config/jammi/jammi.toml").write_text(text)


class TestKeys:
    """Keys stay with the location that they were given for."""

    @pytest.fixture
    def layers(self, here, monkeypatch):  # noqa: F811
        """Has one place give an option: `layers(place, name, value)`; `load` then takes the arguments."""
        machine = here / "machine"
        machine.mkdir()
        files = [here / "jammi.toml", here / "config/jammi/jammi.toml", machine / "jammi.toml"]
        monkeypatch.setattr(settings, "paths", lambda: files)
        texts, arguments = {}, {}

        def give(place, name, value):
            if place == 0:
                arguments[{"location": "storage", "options": "storage_options"}[name]] = value
            elif place == 1:
                monkeypatch.setenv(f"JAMMI_STORAGE__{name.upper()}", value if name == "location" else json.dumps(value))
            else:
                file = files[{2: 1, 3: 2, 4: 0}[place]]
                shown = json.dumps(value) if name == "location" else f"{{ key = {json.dumps(value['key'])} }}"
                texts[file] = texts.get(file, "[storage]\n") + f"{name} = {shown}\n"
                file.write_text(texts[file])
            return arguments

        return give

    @pytest.mark.parametrize("of_location", range(5))
    @pytest.mark.parametrize("of_options", range(5))
    def test_they_go_to_who_is_trusted_no_less(self, layers, of_location, of_options):
        # 0 arguments, 1 environment, 2 the user's file, 3 the machine's, 4 the working directory.
        layers(of_location, "location", "s3://bucket/prefix")
        arguments = layers(of_options, "options", {"key": "mine"})
        if of_options == of_location:
            found = settings.load(arguments)
            assert (found.config.storage_options, found.unused) == ({"key": "mine"}, ())
        elif of_options == 0:
            with pytest.raises(ConfigError, match="storage_options is given for 's3://bucket/prefix'"):
                settings.load(arguments)
        else:
            goes = of_location < of_options < 4
            found = settings.load(arguments)
            assert found.config.storage_options == ({"key": "mine"} if goes else {})
            assert len(found.unused) == (not goes)

    @pytest.mark.parametrize("of_options", range(5))
    def test_a_location_on_this_disk_takes_them_for_sources(self, layers, of_options):
        layers(4, "location", "./st")
        arguments = layers(of_options, "options", {"key": "mine"})
        assert settings.load(arguments).config.storage_options["key"] == "mine"

    def test_a_location_with_keys_has_no_others(self, here, monkeypatch):  # noqa: F811
        monkeypatch.setenv("JAMMI_STORAGE__LOCATION", "s3://KEY:SECRET@bucket/x")
        users(here, '[storage.options]\nendpoint_url = "http://elsewhere"\n')
        assert settings.load().config.storage_options == {"key": "KEY", "secret": "SECRET"}

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("who", "options"),
        [
            pytest.param(who, options, marks=[pytest.mark.long] if who != "environment" and options else [])
            for who in ("environment", "user's file", "~/.aws")
            for options in (
                "",
                'key = "theirs"\n',
                'secret = "theirs"\n',
                'token = "t"\n',
                "anon = false\n",
                'profile = "default"\n',
                'key = ""\nsecret = ""\n',
            )
        ],
    )
    def test_no_key_reaches_a_folders_endpoint(self, here, recorder, options, who):  # noqa: F811
        env = {"XDG_CONFIG_HOME": str(here / "config"), "HOME": str(here)}
        if who == "environment":
            env |= AWS
        elif who == "user's file":
            users(here, f'[storage]\nlocation = "s3://mine/x"\n[storage.options]\n{KEYS}')
        else:
            (here / ".aws").mkdir()
            lines = [f"{name.lower()} = {value}" for name, value in AWS.items()]
            (here / ".aws/credentials").write_text("\n".join(["[default]", *lines, ""]))
        # No server for the metadata of a machine is asked, either.
        env["AWS_EC2_METADATA_DISABLED"] = "true"
        text = f'[storage]\nlocation = "s3://theirs/x"\n[storage.options]\nendpoint_url = "{recorder.endpoint}"\n'
        write(here, text + options)
        done = in_pipe("jammi-duck tables", here, **env)
        # A profile that is not there, or half of a pair of keys, is an error before.
        assert recorder.got or "profile" in options or "theirs" in options
        assert recorder.leaked == []
        assert not any(secret in done.stdout + done.stderr for secret in SECRETS)

    def test_a_folders_endpoint_does_not_get_the_users_bucket(self, here, recorder):  # noqa: F811
        users(here, '[storage]\nlocation = "s3://mine/x"\n')
        write(here, f'[storage.options]\nendpoint_url = "{recorder.endpoint}"\n')
        env = {"XDG_CONFIG_HOME": str(here / "config"), **AWS}
        done = in_pipe("jammi-duck config", here, **env)
        assert recorder.got == []
        assert "# Not used: storage.options of " in done.stdout
        assert "endpoint_url" not in done.stdout.replace("Not used", "")

    def test_keys_in_one_place_with_the_location_go_there(self, here, recorder):  # noqa: F811
        text = f'[storage]\nlocation = "s3://mine/x"\n[storage.options]\nendpoint_url = "{recorder.endpoint}"\n'
        users(here, text + KEYS)
        in_pipe("jammi-duck tables", here, XDG_CONFIG_HOME=str(here / "config"))
        assert recorder.leaked == ["AKIAUSERSKEY", "users-token"]

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("location", ["ftp://{}/x", "sftp://{}/x", "simplecache::s3://b/x", "s3://b::file://{}"])
    def test_a_folder_names_a_path_or_s3(self, here, listener, location):  # noqa: F811
        host = f"127.0.0.1:{listener.port}"
        users(here, '[storage.options]\nusername = "users-password"\npassword = "users-password"\n')
        write(here, f'[storage]\nlocation = "{location.format(host)}"\n')
        done = in_pipe("jammi-duck tables", here, XDG_CONFIG_HOME=str(here / "config"))
        assert (done.returncode, done.stdout, listener.count) == (2, "", 0)
        assert "may name a path or s3://bucket/prefix" in done.stderr

    def test_a_catalog_sends_keys_nowhere(self, here, listener):  # noqa: F811
        with contextlib.closing(duckdb.connect(here / "theirs.duckdb")) as con:
            con.execute(f"CREATE SCHEMA jammi_catalog; {TABLE}")
            made = Definition("s", ("c",), "k", "m", None, "0" * 64, "mean", "", "float32", 9, 3)
            con.execute(
                "INSERT INTO jammi_catalog.embedding_tables (build, name, source, columns, key, model, dimensions, "
                "definition, fingerprint, status, location, started) VALUES ('b', 'n', 's', ['c'], 'k', 'm', 3, ?, "
                "?, 'ready', ?, now()::TIMESTAMP)",
                [made.to_json(), made.fingerprint, f"ftp://127.0.0.1:{listener.port}/x"],
            )
        users(here, '[storage]\nlocation = "./st"\n[storage.options]\nusername = "me"\npassword = "users-password"\n')
        done = in_pipe("jammi-duck tables --db theirs.duckdb", here, XDG_CONFIG_HOME=str(here / "config"))
        assert (done.returncode, listener.count) == (0, 0)
        assert "which is not opened" in done.stderr


class TestFile:
    """The file itself."""

    def test_another_users_is_not_used(self, here, monkeypatch):  # noqa: F811
        write(here, "[inference]\nthreads = 2")
        owner = os.stat(here / "jammi.toml").st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        if owner == 0:
            assert settings.load().config.threads == 2
            try:
                os.chown(here / "jammi.toml", 4711, -1)
            except PermissionError:
                pytest.skip("no right to give files away")
        with pytest.raises(ConfigError, match=r"jammi.toml belongs to another user \(uid \d+\), so it is not used"):
            settings.load()

    @pytest.mark.parametrize("kind", ["fifo", "device", "large"])
    def test_it_is_not_waited_for(self, here, kind):  # noqa: F811
        file = here / "jammi.toml"
        if kind == "fifo":
            os.mkfifo(file)
        elif kind == "device":
            file.symlink_to("/dev/zero")
        else:
            with file.open("wb") as sparse:
                sparse.truncate(1 << 40)
        with pytest.raises(ConfigError, match=r"jammi.toml: it is no regular file|is larger than 1048576 bytes"):
            settings.load()

    def test_what_it_says_of_a_vacuum_is_for_its_own_location(self, here):  # noqa: F811
        write(here, f'[storage]\nretention = "0 seconds"\ncache_dir = "{here}/mine"\n')
        assert settings.load().config.retention == timedelta(0)
        users(here, '[storage]\nlocation = "./st"')
        found = settings.load()
        assert (found.config.retention, found.config.cache_dir) == (timedelta(days=7), cache.default_cache_dir())
        assert [line.split(" of ")[0] for line in found.unused] == ["storage.retention", "storage.cache_dir"]

    def test_a_database_is_a_file(self, here):  # noqa: F811
        write(here, '[storage]\ndatabase = "md:theirs"\n')
        duckdb.connect(here / "md:theirs").close()
        done = in_pipe("jammi-duck tables", here)
        assert (done.returncode, done.stderr) == (0, "")


class TestCache:
    """What a vacuum deletes in `cache_dir`."""

    @pytest.fixture
    def vacuum(self, fake, tmp_path):
        """Vacuums with a cache; everything in it is old."""

        def run(**options):
            for path in tmp_path.rglob("*"):
                os.utime(path, (0, 0), follow_symlinks=False)
            con = fake(retention=timedelta(0), **options).con
            return {file for (file,) in con.execute("SELECT file FROM jammi_vacuum()").fetchall()}

        return run

    def test_only_what_it_has_put_there_goes(self, vacuum, tmp_path):
        folder = tmp_path / "cache/files"
        cache.make(folder)
        digest, arriving, link, directory = "a" * 64, f"{'b' * 16}.tmp", "c" * 64, "d" * 64
        for name in (digest, arriving, "thesis.docx", "A" * 64, "e" * 63, ".hidden"):
            (folder / name).write_text("x")
        (tmp_path / "mine.txt").write_text("x")
        (folder / link).symlink_to(tmp_path / "mine.txt")
        (folder / directory).mkdir()
        before = {path.name for path in folder.iterdir()}
        assert vacuum() == {digest, arriving}
        assert {path.name for path in folder.iterdir()} == before - {digest, arriving}
        assert (tmp_path / "mine.txt").exists()

    @pytest.mark.parametrize("kind", ["not marked", "marked by others", "a link"])
    def test_a_folder_of_somebody_else_stays(self, vacuum, tmp_path, kind, caplog):
        folder = tmp_path / "cache/files"
        folder.parent.mkdir()
        if kind == "a link":
            cache.make(tmp_path / "another")
            folder.symlink_to(tmp_path / "another")
        else:
            folder.mkdir()
        if kind == "marked by others":
            (folder / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
        (folder / ("a" * 64)).write_text("x")
        assert vacuum() == set()
        assert (folder / ("a" * 64)).exists()
        assert "which jammi_duck has not made" in caplog.text

    def test_the_default_place_was_ours_before_there_was_a_mark(self, vacuum, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
        folder = tmp_path / "home/jammi_duck/files"
        folder.mkdir(parents=True)
        (folder / ("a" * 64)).write_text("x")
        assert vacuum(cache_dir=cache.default_cache_dir()) == {"a" * 64}

    def test_scratch_files_are_looked_for_in_a_folder_of_its_own_only(self, tmp_path):
        for made, cache_dir in ((True, tmp_path / "one"), (False, tmp_path / "two")):
            store = open_store("memory://scratches", cache_dir)
            if not made:
                Path(store._scratch).mkdir(parents=True)
            scratch = store.scratch("t__embedding__m__20260101T000000.parquet", "0" * 32)
            scratch.write_text("half")
            assert len(store.scratches()) == made

    def test_two_that_make_it_at_once(self, tmp_path):
        threads = [threading.Thread(target=cache.make, args=[tmp_path / "c" / "files"]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [path.name for path in (tmp_path / "c").iterdir()] == ["files"]
        assert cache.is_ours(tmp_path / "c/files")

    def test_a_folders_cache_is_not_yours(self, here):  # noqa: F811
        (here / "mine/files").mkdir(parents=True)
        kept = [here / "mine/files/thesis.docx", here / "mine/files" / ("a" * 64)]
        for path in kept:
            path.write_text("years of work")
        write(here, f'[storage]\nlocation = "./st"\ncache_dir = "{here}/mine"\nretention = "0 seconds"\n')
        time.sleep(0.01)
        done = in_pipe("jammi-duck vacuum", here)
        assert done.returncode == 0
        assert all(path.exists() for path in kept)
