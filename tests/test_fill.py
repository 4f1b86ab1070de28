"""`jammi_fill`: the vectors of a table's texts, in a column beside them, by SQL and by Python."""

import duckdb
import numpy as np
import pyarrow.flight as flight
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow.flight import FlightClient

from jammi_duck import BuildError, InputError, NoSourceError, NotFoundError, StateError
from jammi_duck.doors.server.identity import add_token
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.udfs import filling
from tests.effort import some
from tests.fakes import FakeEncoder, text_vector
from tests.serving import config_of, in_process, make_database
from tests.stock_shell import folder, needs_extension, rows, shell  # noqa: F401 - a fixture

PASSAGES = [(1, "a small cat"), (2, None), (3, " \t"), (4, "a loud dog"), (5, "an owl"), (6, "a loud dog")]
COUNTS = "row_count, skipped_count, failed_count, left_count"
FILL = "FROM jammi_fill('passage', 'passage', 'v'{})"


@pytest.fixture
def passages(con):
    con.execute("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR, note VARCHAR DEFAULT 'x')")
    con.executemany("INSERT INTO passage (id, passage) VALUES (?, ?)", PASSAGES)
    return con


def fill(con, options="", columns=COUNTS):
    ((*found,),) = con.execute(f"SELECT {columns} {FILL.format(options)}").fetchall()
    return tuple(found)


def check(con, table="passage", texts="passage", vectors="v"):
    """Each vector is that of the row's own text; returns how many there are."""
    found = con.execute(f'SELECT "{texts}", "{vectors}" FROM {table}').fetchall()
    for text, vector in found:
        assert vector is None or np.allclose(vector, text_vector(text), atol=1e-6), text
    return sum(vector is not None for _, vector in found)


class TestFill:
    def test_rows_without_a_vector_get_one(self, passages, encoded):
        columns = "source, model, row_count, skipped_count, failed_count, left_count, dimensions"
        assert fill(passages, columns=columns) == ("passage", "fake/small", 4, 2, 0, 0, 64)
        assert passages.execute("SELECT typeof(v) FROM passage").fetchone() == ("FLOAT[64]",)
        assert check(passages) == 4
        assert encoded() == ["a loud dog", "a loud dog", "a small cat", "an owl"]
        assert fill(passages) == (0, 2, 0, 0)
        assert encoded() == []
        passages.execute("UPDATE passage SET passage = 'a quiet owl', v = NULL WHERE id = 5")
        assert fill(passages) == (1, 2, 0, 0)
        assert check(passages) == 4
        assert encoded() == ["a quiet owl"]

    def test_rows_that_fail_are_counted(self, passages):
        passages.execute("INSERT INTO passage (id, passage) VALUES (7, 'unencodable'), (8, 'a fish')")
        assert fill(passages) == (5, 2, 1, 1)
        assert check(passages) == 5

    def test_only_when_it_runs(self, passages, encoded):
        passages.execute(f"EXPLAIN {FILL.format('')}").fetchall()
        passages.execute(f"DESCRIBE {FILL.format('')}").fetchall()
        passages.execute(f"PREPARE p AS {FILL.format('')}")
        assert encoded() == []
        assert len(passages.execute("DESCRIBE passage").fetchall()) == 3
        assert passages.execute("EXECUTE p").fetchall()[0][2] == 4
        passages.execute("UPDATE passage SET v = NULL")
        assert passages.execute("EXECUTE p").fetchall()[0][2] == 4
        assert check(passages) == 4

    def test_names_of_every_kind(self, con, tmp_path):
        con.execute(f"ATTACH '{tmp_path / 'b.duckdb'}' AS b; CREATE SCHEMA b.s")
        con.execute('CREATE TABLE b.s."My table" (n INTEGER, "The ""text" VARCHAR)')
        con.execute("INSERT INTO b.s.\"My table\" VALUES (1, 'a cat')")
        source, names = 'b.S."my TABLE"', ('the "TEXT', 'the "v')
        done = con.execute("SELECT source, row_count FROM jammi_fill($1, $2, $3)", [source, *names])
        assert done.fetchall() == [(source, 1)]
        assert con.execute('SELECT len("the ""v") FROM b.s."My table"').fetchall() == [(64,)]
        con.execute("USE b.s")
        done = con.execute("SELECT row_count FROM jammi_fill($1, $2, 'w')", ['"My table"', names[0]])
        assert done.fetchall() == [(1,)]

    def test_another_model_and_key(self, passages):
        assert fill(passages, ", model := 'fake/other', key := 'id'", "model, dimensions") == ("fake/other", 8)
        passages.execute("CREATE TABLE bare AS SELECT id, passage, NULL::FLOAT[] AS v FROM passage")
        done = passages.execute("SELECT row_count FROM jammi_fill('bare', 'passage', 'v', key := ['id'])")
        assert done.fetchall() == [(4,)]
        assert check(passages, "bare") == 4

    def test_the_statements_for_within_a_transaction(self, passages):
        passages.execute("BEGIN; ALTER TABLE passage ADD COLUMN v FLOAT[64]")
        passages.execute("UPDATE passage SET v = embed(passage) WHERE v IS NULL")
        assert check(passages) == 4
        passages.execute("ROLLBACK")
        assert fill(passages) == (4, 2, 0, 0)

    def test_python(self, passages, jammi):
        done = jammi.fill("passage", "passage", "v", key="id")
        assert (done.source, done.row_count, done.skipped_count, done.left_count) == ("passage", 4, 2, 0)
        assert jammi.fill("passage", "passage", "w", model="fake/other").dimensions == 8
        with pytest.raises(NoSourceError, match="there is no table 'passag'; did you mean 'passage'\\?"):
            jammi.fill("passag", "passage", "v")
        with pytest.raises(NotFoundError, match="no column 'text' in 'passage'"):
            jammi.fill("passage", "text", "v")

    @settings(max_examples=some(25))
    @given(st.lists(st.one_of(st.none(), st.text(max_size=12))), st.integers(1, 7))
    def test_each_row_has_the_vector_of_its_own_text(self, texts, size):
        con = self.shared
        con.execute("CREATE OR REPLACE TABLE passage AS SELECT unnest($1::VARCHAR[]) AS passage", [texts])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(filling, "_BATCH_ROWS", size)
            count = sum(text is not None and not is_blank(text) for text in texts)
            assert fill(con) == (count, len(texts) - count, 0, 0)
        assert check(con) == count

    @pytest.fixture(autouse=True)
    def one_for_all_examples(self, con):
        TestFill.shared = con


class TestTransactions:
    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE passage SET passage = 'a bear' WHERE id = 1",
            "UPDATE passage SET note = 'y' WHERE id = 1",
            "UPDATE passage SET v = NULL WHERE id = 5",
            "INSERT INTO passage (id, passage) VALUES (9, 'a bear')",
            "DELETE FROM passage WHERE id = 1",
            "ALTER TABLE passage ADD COLUMN more INTEGER",
        ],
    )
    def test_one_that_has_changed_the_rows_is_refused(self, passages, encoded, change):
        fill(passages)
        passages.execute("UPDATE passage SET v = NULL WHERE id = 1")
        encoded()
        passages.execute(f"BEGIN; {change}")
        error = 'COMMIT first; or within the transaction: UPDATE passage SET "v" = embed\\("passage"\\) WHERE "v" IS'
        with pytest.raises(duckdb.Error, match=f"'passage' has changes that are not committed.*{error}"):
            fill(passages)
        passages.execute("ROLLBACK")
        assert encoded() == []
        assert fill(passages)[0] == 1
        assert check(passages) == 4

    def test_one_that_has_changed_nothing_sees_the_vectors_once_it_is_over(self, passages):
        passages.execute("ALTER TABLE passage ADD COLUMN v FLOAT[64]; BEGIN; CREATE TABLE other (i INTEGER)")
        passages.execute("SELECT count(*) FROM passage").fetchall()
        assert fill(passages) == (4, 2, 0, 0)
        assert check(passages) == 0
        passages.execute("COMMIT; FROM other")
        assert check(passages) == 4

    def test_a_batch_that_is_written_stays(self, passages, monkeypatch, jammi):
        monkeypatch.setattr(filling, "_BATCH_ROWS", 1)
        real, calls = FakeEncoder.encode_rows, []

        def encode(self, texts, role, progress):
            calls.append(texts)
            if len(calls) == 3:
                jammi._with_engine(lambda engine: engine.jobs.interrupt())
            return real(self, texts, role, progress)

        monkeypatch.setattr(FakeEncoder, "encode_rows", encode)
        with pytest.raises(BuildError, match="the fill was interrupted"):
            jammi.fill("passage", "passage", "v")
        assert 1 <= check(passages) < 4
        monkeypatch.undo()
        assert fill(passages)[3] == 0
        assert check(passages) == 4

    def test_others_that_write_to_the_same_rows(self, passages, jammi, before):
        fill(passages)
        passages.execute("UPDATE passage SET v = NULL WHERE id = 4")
        other = passages.cursor()

        def delete():
            other.execute("BEGIN; DELETE FROM passage WHERE id = 4")

        before(FakeEncoder, "encode_rows", delete)
        with pytest.raises(StateError, match="'passage' is changed by another transaction at the same time"):
            jammi.fill("passage", "passage", "v")
        other.execute("ROLLBACK")
        assert jammi.fill("passage", "passage", "v").row_count == 1
        other.close()

    def test_a_text_that_changes_meanwhile(self, passages, before):
        other = passages.cursor()
        before(FakeEncoder, "encode_rows", lambda: other.execute("UPDATE passage SET passage = 'a bear' WHERE id = 1"))
        assert fill(passages)[0] == 4
        assert check(passages) == 4
        other.close()


class TestWhatIsNoTable:
    @pytest.mark.parametrize(
        ("source", "error"),
        [
            ("seen", "'seen' is a view, and vectors are stored in tables"),
            ("brief", "'brief' is a TEMP table or view.*UPDATE brief SET \"v\" = embed"),
            ("temp.brief", "'temp.brief' is a TEMP table or view"),
            ("c", "there is no table 'c'.*a CTE or a DataFrame cannot be written to"),
            ("new", "'new' is not committed yet.*UPDATE new SET"),
            ("passages", "there is no table 'passages'; did you mean 'passage'\\?"),
            ("p.parquet", "'p.parquet' is a file, and vectors are stored in tables"),
            ("duckdb_tables", "no table|is a view"),
        ],
    )
    def test_is_told(self, passages, source, error):
        passages.execute("CREATE VIEW seen AS FROM passage; CREATE TEMP TABLE brief AS FROM passage")
        passages.execute("BEGIN; CREATE TABLE new AS FROM passage")
        query = "SELECT * FROM jammi_fill('{}', 'passage', 'v')"
        with pytest.raises(duckdb.Error, match=error):
            passages.execute(f"WITH c AS (FROM passage) {query.format(source)}").fetchall()
        passages.execute("ROLLBACK")

    def test_the_statement_instead_has_the_model(self, passages):
        passages.execute("CREATE TEMP TABLE brief AS SELECT passage, NULL::FLOAT[] AS v FROM passage")
        with pytest.raises(duckdb.Error) as told:
            passages.execute("FROM jammi_fill('brief', 'passage', 'v', model := 'fake/other')").fetchall()
        statement = str(told.value).partition(": write ")[2].partition("\n")[0]
        passages.execute(statement)
        assert passages.execute("SELECT DISTINCT len(v) FROM brief WHERE v IS NOT NULL").fetchall() == [(8,)]

    def test_what_stands_before_a_table_is_not_taken_for_it(self, passages, encoded):
        query = "SELECT * FROM jammi_fill('passage', 'passage', 'v')"
        with pytest.raises(duckdb.Error, match="is not the table .*passage.* in this query, but a CTE, a TEMP table"):
            passages.execute(f"WITH passage AS (SELECT 'x' AS passage) {query}").fetchall()
        passages.execute("CREATE TEMP TABLE passage AS FROM passage")
        with pytest.raises(duckdb.Error, match="is not the table"):
            passages.execute(query).fetchall()
        assert encoded() == []
        passages.execute("DROP TABLE temp.passage")
        assert fill(passages)[0] == 4

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ("'passage', 'text', 'v'", "no column 'text' in 'passage'"),
            ("'passage', 'id', 'v'", "the column 'id' of 'passage' is INTEGER, and a model reads texts"),
            ("'passage', 'passage', 'note'", "'note' of 'passage' is VARCHAR, and the model's vectors are FLOAT"),
            ("'passage', 'passage', 'w'", "'w' of 'passage' is FLOAT.3., and the model's vectors are FLOAT.64."),
            ("'passage', 'passage', 'v', model := 'nowhere'", "no model 'nowhere'"),
            ("'passage', 'passage', 'v', key := 'none'", "none"),
            ("'passage', 'passage', NULL", "needs a table, its column with the text, and its column for the vectors"),
            ("NULL, 'passage', 'v'", "needs a table"),
        ],
    )
    def test_arguments_that_are_wrong(self, passages, encoded, arguments, error):
        passages.execute("ALTER TABLE passage ADD COLUMN w FLOAT[3]")
        with pytest.raises(duckdb.Error, match=error):
            passages.execute(f"FROM jammi_fill({arguments})").fetchall()
        assert encoded() == []
        assert len(passages.execute("DESCRIBE passage").fetchall()) == 4

    def test_a_database_that_is_read_only(self, fake, tmp_path):
        with duckdb.connect(tmp_path / "r.duckdb") as con:
            con.execute("CREATE TABLE passage AS SELECT 'a cat' AS passage")
        jammi = fake(duckdb.connect(tmp_path / "r.duckdb", read_only=True))
        with pytest.raises(InputError, match="the database 'r' of 'passage' is open read-only"):
            jammi.fill("passage", "passage", "v")


@needs_extension
class TestShell:
    def test_it_fills(self, folder):  # noqa: F811
        assert rows(f"SELECT {COUNTS} FROM jammi_fill('t', 'text', 'v')") == [
            {"row_count": 2, "skipped_count": 1, "failed_count": 0, "left_count": 0}
        ]
        near = "list_cosine_similarity(v::FLOAT[], embed(text)) > 0.999"
        assert rows(f"SELECT id, {near} AS own FROM t WHERE v IS NOT NULL ORDER BY id") == [
            {"id": 1, "own": True}, {"id": 2, "own": True},
        ]  # fmt: skip
        found = rows("SELECT id FROM jammi_search_column('t', 'v', 'the duck in water', 1)")
        assert found == [{"id": 1}]
        refused = shell("BEGIN; UPDATE t SET v = NULL; FROM jammi_fill('t', 'text', 'v')")
        assert refused.returncode == 1
        assert "COMMIT first" in refused.stderr
        assert shell("FROM jammi_fill('t', 'text', 'w')", "-readonly").stderr.count("is open read-only") == 1


@pytest.mark.minilm
class TestServer:
    @pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning")
    def test_an_admin_fills_and_readers_search(self, tmp_path):
        tokens = tmp_path / "tokens.json"
        file = make_database(tmp_path)
        reader, admin = add_token(tokens, "r", "reader"), add_token(tokens, "a", "admin")
        part = add_token(tokens, "p", "reader", ["notes"])
        with in_process(config_of(file, tokens=str(tokens), allow_write=True)) as (_, port):
            with FlightClient(f"grpc://127.0.0.1:{port}") as client:

                def ask(token, text):
                    options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])
                    info = client.get_flight_info(flight.FlightDescriptor.for_command(text.encode()), options)
                    return client.do_get(info.endpoints[0].ticket, options).read_all().to_pylist()

                query = "SELECT row_count, left_count FROM jammi_fill('notes', 'note', 'v')"
                with pytest.raises(flight.FlightUnauthorizedError, match="this client only reads"):
                    ask(reader, query)
                with pytest.raises(flight.FlightUnauthorizedError, match="this token cannot call jammi_fill"):
                    ask(part, query)
                assert ask(admin, query) == [{"row_count": 20, "left_count": 0}]
                search = "SELECT id FROM jammi_search_column('notes', 'v', 'note 7', 1)"
                for token in (reader, part, admin):
                    assert ask(token, search) == [{"id": 7}]
                chosen = search.replace("1)", "1, filter := 'id < 3', key := 'id')")
                assert ask(part, chosen)[0]["id"] < 3
                for text in (
                    "SELECT id FROM jammi_search_column('patents', 'v', 'water')",
                    search.replace("1)", "1, filter := 'id IN (SELECT id FROM patents)')"),
                ):
                    with pytest.raises(flight.FlightUnauthorizedError, match="this token has no"):
                        ask(part, text)
