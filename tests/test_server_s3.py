"""A server whose source and whose embedding table are on S3."""

import duckdb
import pyarrow.flight as flight
import pytest

import jammi_duck
from jammi_duck.doors.s3 import read_s3_through_fsspec
from jammi_duck.doors.server.identity import add_token
from tests.serving import PATENTS, config_of, in_process

pytestmark = [
    pytest.mark.minilm,
    pytest.mark.s3,
    pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning"),
]


@pytest.fixture
def remote(s3_server, tmp_path):
    """A database over patents in a bucket, the options by which it is opened, and what writes the patents anew."""
    import s3fs

    s3_server.bucket("served")
    storage_options = s3_server.options()
    options = {
        "storage": "s3://served/artifacts",
        "storage_options": storage_options,
        "cache_dir": str(tmp_path / "cache"),
    }
    source = "s3://served/patents.parquet"

    def write(patents):
        with duckdb.connect() as con:
            con.execute("CREATE TABLE p (id BIGINT, title VARCHAR, abstract VARCHAR, year INTEGER)")
            con.executemany("INSERT INTO p VALUES (?, ?, ?, ?)", patents)
            con.execute(f"COPY p TO '{tmp_path / 'patents.parquet'}'")
        files = s3fs.S3FileSystem(**storage_options, skip_instance_cache=True)
        files.put_file(str(tmp_path / "patents.parquet"), "served/patents.parquet")

    write(PATENTS)
    file = tmp_path / "my.duckdb"
    con = jammi_duck.connect(file, **options)
    read_s3_through_fsspec(con, storage_options)
    con.execute(f"CREATE VIEW patents AS FROM '{source}'")
    con.execute("SELECT * FROM jammi_generate('patents', ['title', 'abstract'], 'id')").fetchall()
    con.close()
    return file, options, write


def test_source_and_embedding_table_on_s3(remote, tmp_path):
    file, options, write = remote
    tokens = tmp_path / "tokens.json"
    admin = add_token(tokens, "a", "admin")
    config = config_of(file, **options, tokens=str(tokens), allow_write=True)
    with in_process(config) as (_, port), flight.connect(f"grpc://127.0.0.1:{port}") as client:
        header = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {admin}".encode())])

        def rows(text):
            return client.do_get(flight.Ticket(text.encode()), header).read_all().to_pylist()

        assert rows("SELECT count(*) AS n FROM patents") == [{"n": 5}]
        search = "SELECT id FROM jammi_search('patents', '{}', 1)"
        assert rows(search.format("clean water")) == [{"id": 1}]
        names = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'jammi'"
        ((name,),) = [each.values() for each in rows(names)]
        assert rows(f'SELECT count(*) AS n FROM jammi."{name}"') == [{"n": 5}]
        with pytest.raises(flight.FlightUnauthorizedError, match="is not read"):
            rows("FROM 's3://served/patents.parquet'")
        write([*PATENTS, (6, "Kite", "a kite that flies in storms", 2024)])
        assert rows("SELECT added FROM jammi_refresh('patents')") == [{"added": 1}]
        assert rows(search.format("flying kites")) == [{"id": 6}]
        assert rows(f'SELECT count(*) AS n FROM jammi."{name}"') == [{"n": 6}]
