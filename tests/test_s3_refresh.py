"""A table follows its source on a real S3 server, and over a network on which requests break."""

import os
import threading
from datetime import timedelta

import numpy as np
import pytest

from jammi_duck.storage.files import layout
from jammi_duck.storage.files.location import open_store
from jammi_duck.storage.files.object_store import ObjectStore
from jammi_duck.storage.tables import change as changes
from tests.fakes import text_vector
from tests.network import READ_TIMEOUT, Network
from tests.test_generate import error_of
from tests.test_search import fill

pytestmark = pytest.mark.s3

TEXTS = [f"word{i}" for i in range(12)]
NOW = [*TEXTS[:3], "other", *TEXTS[4:], "new"]


@pytest.fixture
def bucket(s3_server, request):
    return s3_server.bucket(f"refresh-{abs(hash(request.node.name)) % 10**9}")


@pytest.fixture
def remote(fake, s3_server, bucket, tmp_path):
    """Opens a database on the bucket, which has a cache of its own and forgets what nothing names at once.

    It looks for what others have done when it is told to, however long a test takes.
    """

    def install(cache, endpoint=s3_server.endpoint):
        return fake(
            storage=f"s3://{bucket}/some/where",
            storage_options={
                **s3_server.options(),
                "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"},
                "config_kwargs": {"read_timeout": READ_TIMEOUT if endpoint != s3_server.endpoint else 60},
            },
            cache_dir=tmp_path / cache,
            segment_rows=5,
            retention=timedelta(0),
            follow=timedelta(days=1),
        ).con

    return install


@pytest.fixture
def files(s3_server, bucket, tmp_path):
    """Tells the names of the bucket's files."""
    store = open_store(f"s3://{bucket}/some/where", tmp_path / "no cache", s3_server.options())
    return lambda: set(store.files())


@pytest.fixture
def network(s3_server):
    network = Network(s3_server.endpoint)
    yield network
    network.close()


def change(con, texts):
    con.execute("DROP TABLE IF EXISTS t")
    fill(con, texts)


def refresh(con):
    return con.execute("SELECT added, changed, deleted, encoded FROM jammi_refresh('t')").fetchall()


def holds(con, texts):
    """The table has exactly these texts by key, in its view as in both kinds of search."""
    (name,) = con.execute("SELECT embedding_table FROM jammi_tables() WHERE status = 'ready'").fetchone()
    found = dict(con.execute(f'SELECT _row_id, vector FROM jammi."{name}"').fetchall())
    assert found.keys() == {str(key) for key in range(len(texts))}
    for key, text in enumerate(texts):
        np.testing.assert_allclose(found[str(key)], text_vector(text), atol=1e-6)
    for exact in (False, True):
        hits = con.execute(
            "SELECT _row_id, _similarity FROM jammi_matches('t', ?, 100, exact := ?, mode := 'vector')",
            [texts[0], exact],
        ).fetchall()
        assert {key for key, _ in hits} == found.keys()
        for key, near in hits:
            assert near == pytest.approx(float(text_vector(texts[int(key)]) @ text_vector(texts[0])), abs=1e-6)


def test_a_history_of_two_databases(remote, monkeypatch):
    first = remote("first cache")
    change(first, TEXTS)
    first.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
    second = remote("second cache")
    change(second, TEXTS)
    for con in (first, second):
        holds(con, TEXTS)

    fewer = [*TEXTS[:4], "new", TEXTS[6], TEXTS[5], "new"]
    change(second, fewer)
    assert refresh(second) == [(0, 4, 4, 1)]
    holds(second, fewer)
    holds(first, TEXTS)

    # The second database compacts, and the first refreshes at the same time: neither is lost.
    commit, waiting = changes.manifest.commit, [True]

    def late(*arguments):
        if waiting and waiting.pop():
            assert second.execute("SELECT segments FROM jammi_compact('t')").fetchall() == [(2,)]
        return commit(*arguments)

    more = [*TEXTS, "more", "and more"]
    change(first, more)
    with monkeypatch.context() as patch:
        patch.setattr(changes.manifest, "commit", late)
        assert refresh(first) == [(6, 4, 0, 8)]
    assert not waiting
    holds(first, more)

    second.execute("FROM jammi_recover()").fetchall()
    holds(second, more)
    assert second.execute("SELECT segments FROM jammi_compact('t')").fetchall() == [(3,)]
    first.execute("FROM jammi_recover()").fetchall()
    first.execute("FROM jammi_vacuum()").fetchall()
    third = remote("third cache")
    for con in (first, second, third):
        holds(con, more)
    assert refresh(first) == [(0, 0, 0, 0)]


class TestNetwork:
    """A request of a refresh, of a compaction or of a search goes wrong on the way to the server, or back."""

    @pytest.fixture
    def behind(self, remote, network):
        con = remote("cache", network.endpoint)
        change(con, TEXTS)
        con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
        change(con, NOW)
        return con

    @pytest.mark.parametrize("kind", ["reset before", "reset after", "busy"])
    def test_uploads_are_tried_again(self, behind, network, kind):
        """Where only the answer was lost, the second try is told by a 412 that the name is taken, and finds itself."""
        for ending in (".00003.parquet", "usearch", "deleted.parquet", "manifest.json"):
            network.breaks(kind, "PUT", ending)
        assert refresh(behind) == [(1, 1, 0, 2)]
        assert network.struck == [kind] * 4
        holds(behind, NOW)

    @pytest.mark.parametrize("kind", ["reset after", "busy"])
    def test_uploads_of_a_compaction_are_tried_again(self, behind, network, kind):
        refresh(behind)
        for ending in (".parquet", "usearch", "deleted.parquet", "manifest.json"):
            network.breaks(kind, "PUT", ending)
        assert behind.execute("SELECT segments FROM jammi_compact('t')").fetchall() == [(3,)]
        assert network.struck == [kind] * 4
        holds(behind, NOW)

    @pytest.mark.parametrize("kind", ["reset before", "reset within", "busy"])
    def test_reading_is_tried_again(self, behind, remote, network, bucket, kind):
        """By a database that has no file of the table in its cache."""
        refresh(behind)
        reader = remote("another cache", network.endpoint)
        change(reader, NOW)
        for ending in (".parquet", "usearch", "manifest.json", bucket):
            network.breaks(kind, "GET", ending)
        network.breaks(kind, "HEAD", "rowmap")
        assert refresh(reader) == [(0, 0, 0, 0)]
        holds(reader, NOW)
        assert network.struck == [kind] * 5

    def test_what_stalls_is_tried_again(self, behind, remote, network):
        network.breaks("stalled", "PUT", "manifest.json")
        assert refresh(behind) == [(1, 1, 0, 2)]
        network.breaks("stalled", "GET", ".parquet")
        reader = remote("another cache", network.endpoint)
        change(reader, NOW)
        assert refresh(reader) == [(0, 0, 0, 0)]
        assert network.struck == ["stalled", "stalled"]
        holds(reader, NOW)

    @pytest.mark.parametrize("ending", ["usearch", "manifest.json"])
    def test_a_server_that_refuses(self, behind, network, files, ending):
        """The table is as it was, only vectors and their words are left, and a second refresh takes these."""
        before = files()
        network.breaks("denied", "PUT", ending)
        assert "cannot write 's3://" in error_of(behind, "FROM jammi_refresh('t')")
        assert network.struck
        assert {layout.parse(file).kind for file in files() - before} == {"parquet", "words"}
        assert behind.execute("SELECT current, new, changed FROM jammi_status('t')").fetchall() == [(11, 1, 1)]
        assert refresh(behind) == [(1, 1, 0, 0)]
        holds(behind, NOW)

    @pytest.mark.long
    def test_a_server_that_stays_busy(self, behind, network, files):
        before = files()
        network.breaks("busy", "PUT", "manifest.json", times=100)
        assert "cannot write 's3://" in error_of(behind, "FROM jammi_refresh('t')")
        network.calm()
        assert {layout.parse(file).kind for file in files() - before} == {"parquet", "words"}
        assert refresh(behind) == [(1, 1, 0, 0)]
        holds(behind, NOW)


def test_a_slow_reader_sees_the_state_that_it_began_with(remote):
    """While a database downloads a state's files, another refreshes and compacts."""
    first = remote("first cache")
    change(first, TEXTS)
    first.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
    second = remote("second cache")
    change(second, TEXTS)
    began, go_on = threading.Event(), threading.Event()
    real = ObjectStore._arriving

    def download(store, file, wanted=None):
        if layout.parse(file).kind == "usearch" and "second" in os.fspath(store._cache) and not began.is_set():
            began.set()
            assert go_on.wait(60)
        return real(store, file, wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectStore, "_arriving", download)
        reader = threading.Thread(target=lambda: second.execute("FROM jammi_matches('t', 'word3', 1)").fetchall())
        reader.start()
        assert began.wait(60)
        change(first, TEXTS[:6])
        refresh(first)
        first.execute("FROM jammi_compact('t')").fetchall()
        go_on.set()
        reader.join()
    holds(second, TEXTS)
    second.execute("FROM jammi_recover()").fetchall()
    holds(second, TEXTS[:6])
