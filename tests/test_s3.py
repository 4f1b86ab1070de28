"""The main job on a real S3 server: build, search, view, recover, drop; and the user's own s3:// stays theirs."""

import duckdb
import pytest

from jammi_duck import JammiWarning, StorageError
from tests.conftest import S3_WRITER
from tests.test_generate import error_of, generate
from tests.test_search import fill, ids

pytestmark = pytest.mark.s3


@pytest.fixture
def bucket(s3_server, request):
    return s3_server.bucket(f"main-{abs(hash(request.node.name)) % 10**9}")


@pytest.fixture
def remote(fake, s3_server, bucket, tmp_path):
    def install(con=None, cache="cache"):
        options = {"storage_options": s3_server.options(), "cache_dir": tmp_path / cache}
        return fake(con, storage=f"s3://{bucket}/some/where", segment_rows=200, **options)

    return install


def test_the_main_job(remote, bucket):
    con = remote().con
    fill(con, [f"word{i}" for i in range(500)])
    row = con.execute("SELECT row_count, location FROM jammi_generate('t', 'text', 'id')").fetchall()
    assert row == [(500, f"s3://{bucket}/some/where")]
    assert ids(con, "word7", 1) == [7]
    (name,) = con.execute("SELECT embedding_table FROM jammi_tables()").fetchall()[0]
    counted = con.execute(f'SELECT count(*), max(len(vector)) FROM jammi."{name}"').fetchall()
    assert counted == [(500, 64)]
    con.close()
    fresh = remote(cache="another cache").con
    assert fresh.execute("SELECT _row_id FROM jammi_matches('t', 'word9', 1)").fetchall() == [("9",)]
    assert fresh.execute(f'SELECT count(*) FROM jammi."{name}"').fetchall() == [(500,)]
    dropped = fresh.execute("SELECT action FROM jammi_drop(?)", [name]).fetchall()
    assert dropped == [("removed 16 files",)]
    assert "no embedding table" in error_of(fresh, "FROM jammi_matches('t', 'word9', 1)")


def test_damage_and_recovery(remote, s3_server, bucket):
    import s3fs

    con = remote().con
    fill(con, [f"word{i}" for i in range(300)])
    generate(con, "t")
    (name,) = con.execute("SELECT embedding_table FROM jammi_tables()").fetchall()[0]
    con.close()
    filesystem = s3fs.S3FileSystem(**s3_server.options(), skip_instance_cache=True)
    path = f"{bucket}/some/where/jammi_db/{name}"
    filesystem.pipe_file(f"{path}.usearch", b"not an index")
    filesystem.rm_file(f"{path}.00001.rowmap")
    con = remote(cache="another cache").con
    fill(con, [f"word{i}" for i in range(300)])
    with pytest.warns(JammiWarning, match="cannot be used"):
        assert ids(con, "word7", 1) == [7]
    assert con.execute("SELECT status FROM jammi_recover()").fetchall() == [("ready",)]
    assert ids(con, "word250", 1) == [250]


def test_wrong_credentials(fake, s3_server, bucket, tmp_path):
    with pytest.raises(StorageError) as caught:
        fake(storage=f"s3://{bucket}/x", storage_options=s3_server.options(secret="wrong-secret"))
    assert f"cannot list 's3://{bucket}/x/jammi_db/'" in str(caught.value)
    assert "wrong-secret" not in str(caught.value)


def test_a_mistyped_bucket(fake, s3_server, tmp_path):
    with pytest.raises(StorageError) as caught:
        fake(storage="s3://no-such-bucket/x", storage_options=s3_server.options(**S3_WRITER))
    assert str(caught.value) == (
        "there is no bucket 'no-such-bucket' for 's3://no-such-bucket/x', or these keys cannot see it; check its name, "
        "and the keys and the endpoint_url in storage.options"
    )


def test_secrets_are_written_nowhere(remote, tmp_path, s3_server, bucket):
    con = remote(duckdb.connect(str(tmp_path / "db.duckdb"))).con
    fill(con, ["a"])
    generate(con, "t")
    con.execute("CHECKPOINT")
    con.close()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"testsecret" not in path.read_bytes()


def test_two_databases_on_one_bucket(remote, tmp_path):
    first = remote(duckdb.connect(str(tmp_path / "1.duckdb"))).con
    second = remote(duckdb.connect(str(tmp_path / "2.duckdb")), cache="another cache").con
    for con, word in ((first, "one"), (second, "two")):
        fill(con, [f"{word} {i}" for i in range(20)])
        generate(con, "t")
    assert first.execute("SELECT count(*) FROM jammi_tables()").fetchall() == [(1,)]
    first.execute("FROM jammi_recover()").fetchall()
    assert first.execute("SELECT count(DISTINCT embedding_table) FROM jammi_tables()").fetchall() == [(2,)]
