"""What every store keeps to, run over a disk, memory, and a real S3 server."""

import os
import threading
from datetime import UTC, datetime, timedelta

import fsspec
import pytest

from jammi_duck import DamagedError, StorageError
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.location import open_store
from jammi_duck.storage.files.store import FileDigest

NAME = "docs__embedding__m__20260325T120000"
FILE = f"{NAME}.parquet"
BUILD = "0123abcd" * 4


def put(store, file, content):
    scratch = store.scratch(file, BUILD)
    scratch.write_bytes(content)
    return store.create(file, scratch)


class StoreContract:
    """`place` gives a location and fsspec options; each test gets a new one."""

    @pytest.fixture
    def store(self, place, tmp_path):
        location, options = place
        return open_store(location, tmp_path / "cache", options)

    @pytest.fixture
    def again(self, place, tmp_path):
        """The same location, opened by another process with a cache of its own."""
        location, options = place
        return open_store(location, tmp_path / "another cache", options)

    def test_nothing_is_there_at_first(self, store):
        assert store.files() == {}
        assert store.scratches() == {}

    def test_a_file_is_there_whole(self, store, again):
        digest = put(store, FILE, b"some bytes")
        assert digest.size == 10
        assert again.read(FILE) == b"some bytes"
        assert again.checked(digest).read_bytes() == b"some bytes"
        found, path = again.found(FILE)
        assert found == digest
        assert path.read_bytes() == b"some bytes"
        with pytest.raises(FileNotFoundError):
            again.found(f"{NAME}.00001.parquet")
        stored = again.files()[FILE]
        assert stored.size == 10
        assert abs(datetime.now(UTC) - stored.modified) < timedelta(minutes=5)
        assert store.scratches() == {}

    def test_a_scratch_file_is_no_file(self, store):
        scratch = store.scratch(FILE, BUILD)
        scratch.write_bytes(b"half")
        assert store.files() == {}
        assert [layout.is_scratch(name, BUILD) for name in store.scratches()] == [True]
        assert not layout.is_scratch(scratch.name, "ffff" * 8)
        store.discard(scratch.name)
        store.discard(scratch.name)
        assert store.scratches() == {}

    def test_nothing_is_overwritten(self, store, again):
        put(store, FILE, b"first")
        with pytest.raises(FileExistsError):
            put(again, FILE, b"second")
        assert again.read(FILE) == b"first"

    def test_of_many_that_create_one_file_one_wins(self, store):
        outcomes = []

        def create(content):
            try:
                put(store, FILE, content)
                outcomes.append(content)
            except FileExistsError:
                pass

        threads = [threading.Thread(target=create, args=(b"%d" % i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 1
        assert store.read(FILE) == outcomes[0]

    def test_delete_and_delete_again(self, store, again):
        put(store, FILE, b"x")
        again.delete(FILE)
        again.delete(FILE)
        assert store.files() == {}
        with pytest.raises(FileNotFoundError):
            store.read(FILE)

    def test_what_is_missing_or_other_is_damaged(self, store, again):
        with pytest.raises(DamagedError, match="missing"):
            again.checked(FileDigest(FILE, 1, "0" * 64))
        digest = put(store, FILE, b"right")
        with pytest.raises(DamagedError, match="SHA-256 differs"):
            again.checked(FileDigest(FILE, digest.size, "0" * 64))
        with pytest.raises(DamagedError, match="has 5 bytes instead of 6"):
            again.checked(FileDigest(FILE, 6, digest.sha256[:-1] + "x"))

    @pytest.mark.parametrize("file", ["../outside", "a/b", "", "..", "back\\slash"])
    def test_no_name_leaves_the_folder(self, store, file):
        with pytest.raises(DamagedError, match="not the name of a file"):
            store.read(file)

    def test_a_larger_file(self, store, again):
        content = bytes(range(256)) * 4096 * 24
        digest = put(store, FILE, content)
        assert again.checked(digest).read_bytes() == content

    def test_an_empty_file(self, store, again):
        digest = put(store, FILE, b"")
        assert again.checked(digest).read_bytes() == b""

    def test_no_upload_is_left(self, store):
        put(store, FILE, b"x")
        assert store.abort_uploads(datetime.now(UTC) + timedelta(days=1)) == []


class TestDisk(StoreContract):
    @pytest.fixture
    def place(self, tmp_path):
        return str(tmp_path / "artifacts"), {}

    def test_it_is_on_the_disk_before_it_has_its_name_and_its_name_before_that_is_told(self, store, monkeypatch):
        """No test can cut the power: the order tells what would be left."""
        done = []

        def note(name):
            real = getattr(os, name)

            def noted(target, *others):
                done.append((name, (os.fstat if name == "fsync" else os.stat)(target).st_ino))
                return real(target, *others)

            monkeypatch.setattr(os, name, noted)

        for name in ("fsync", "link", "unlink"):
            note(name)
        put(store, FILE, b"x")
        file, folder = (os.stat(path).st_ino for path in (store.path(FILE), os.path.dirname(store.path(FILE))))
        assert done == [("fsync", file), ("link", file), ("fsync", folder), ("unlink", file)]

    def test_locations_are_made_absolute(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert open_store("./artifacts", tmp_path).location == str(tmp_path / "artifacts")
        for name in ("x", "a#b", "a?b=c"):
            assert open_store(f"file://{tmp_path}/{name}", tmp_path).location == f"{tmp_path}/{name}"
        with pytest.raises(StorageError, match="is not absolute"):
            open_store("file://host/x", tmp_path)

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        store = open_store("/proc/1/nowhere", tmp_path)
        with pytest.raises(StorageError, match="cannot create the folder '/proc/1/nowhere/jammi_db'"):
            store.scratch(FILE, BUILD)


class TestMemory(StoreContract):
    @pytest.fixture
    def place(self, request):
        filesystem = fsspec.filesystem("memory")
        location = f"memory://{request.node.name}"
        yield location, {}
        if filesystem.exists(location):
            filesystem.rm(location, recursive=True)


@pytest.mark.s3
class TestS3(StoreContract):
    @pytest.fixture
    def place(self, s3_server, request):
        bucket = s3_server.bucket(f"contract-{abs(hash(request.node.name)) % 10**9}")
        return f"s3://{bucket}/some/prefix", s3_server.options()

    def test_unfinished_uploads_are_ended(self, store):
        filesystem = store.filesystem
        bucket, _, key = store.url_path(FILE).partition("/")
        filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
        filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key="elsewhere/file")
        assert store.abort_uploads(datetime.now(UTC) - timedelta(days=1)) == []
        assert store.abort_uploads(datetime.now(UTC) + timedelta(days=1)) == [FILE]
        assert store.abort_uploads(datetime.now(UTC) + timedelta(days=1)) == []
        assert [upload["Key"] for upload in filesystem.list_multipart_uploads(bucket)] == ["elsewhere/file"]

    def test_an_upload_that_breaks_leaves_nothing(self, store, monkeypatch):
        def broken(*arguments, **options):
            raise ConnectionResetError("connection reset")

        scratch = store.scratch(FILE, BUILD)
        scratch.write_bytes(b"x" * 10)
        with monkeypatch.context() as patch:
            patch.setattr(store.filesystem, "put_file", broken)
            with pytest.raises(StorageError, match="connection reset"):
                store.create(FILE, scratch)
        assert store.files() == {}

    def test_wrong_credentials(self, s3_server, store, tmp_path):
        wrong = s3_server.options(secret="wrong")
        with pytest.raises(StorageError, match="cannot list 's3://"):
            open_store(store.location, tmp_path, wrong).files()


def test_unknown_protocols_are_refused(tmp_path):
    with pytest.raises(StorageError, match="cannot open the location 'nope://x'"):
        open_store("nope://x", tmp_path)
