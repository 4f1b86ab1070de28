"""Searches behind a server that are always current."""

import duckdb
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from pyarrow.flight import FlightClient, FlightDescriptor

import jammi_duck
from tests.serving import config_of, in_process, make_database, waited_for

pytestmark = [
    pytest.mark.minilm,
    # The server's own process leaves it out.
    pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning"),
]
SEARCH = "SELECT id FROM jammi_search('patents', 'a teapot that sings', 1)"


@pytest.fixture
def file(tmp_path):
    return make_database(tmp_path)


def ids(client, text=SEARCH):
    info = client.get_flight_info(FlightDescriptor.for_command(text.encode()))
    return client.do_get(info.endpoints[0].ticket).read_all()["id"].to_pylist()


def add_teapot(folder):
    """One more row in the file behind the view `patents`."""
    file, new = folder / "patents.parquet", folder / "new.parquet"
    with duckdb.connect() as con:
        con.execute(
            f"COPY (FROM '{file}' UNION ALL SELECT 77, 'Teapot', 'A teapot that sings when it boils.', 2020) TO '{new}'"
        )
    new.replace(file)


@pytest.mark.filterwarnings("ignore:'patents' has 6 rows now:jammi_duck.errors.JammiWarning")
def test_what_is_refreshed_in_the_background(file, tmp_path):
    config = config_of(file, server_refresh=["patents", "nothing"], server_follow="0.1 seconds")
    with in_process(config) as (_, port), FlightClient(f"grpc://127.0.0.1:{port}") as client:
        assert ids(client) != [77]
        add_teapot(tmp_path)
        waited_for(lambda: ids(client) == [77])


@pytest.mark.parametrize("allow_write", [False, True])
def test_a_followed_source(file, tmp_path, allow_write):
    jammi = jammi_duck.install(
        con := duckdb.connect(str(file)), storage=str(tmp_path / "artifacts"), cache_dir=str(tmp_path / "cache")
    )
    assert jammi.follow("patents").changes_by == "comparison"
    con.close()
    with in_process(config_of(file, allow_write=allow_write)) as (_, port):
        with FlightClient(f"grpc://127.0.0.1:{port}") as client:
            assert ids(client) != [77]
            add_teapot(tmp_path)
            assert ids(client) == [77]
            assert ids(client, SEARCH.replace(", 1)", ", 1, filter := 'id > 0')")) == [77]


def test_readers_may_not_ask_for_fresh_rows(file):
    with in_process(config_of(file)) as (_, port), FlightClient(f"grpc://127.0.0.1:{port}") as client:
        for text in (SEARCH.replace(", 1)", ", 1, fresh := true)"), "SELECT * FROM jammi_follow('patents')"):
            with pytest.raises((flight.FlightError, pa.ArrowException), match="admin"):
                ids(client, text)
