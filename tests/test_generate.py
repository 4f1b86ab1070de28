"""jammi_generate over everything that DuckDB can name, and over everything that can go wrong."""

import re

import duckdb
import numpy as np
import pandas as pd
import pytest

from jammi_duck import StorageError
from jammi_duck.errors import JammiWarning
from tests.fakes import text_vector

ONE = "SELECT row_count, skipped_count, failed_count FROM jammi_generate('{}', {}, '{}')"


def generate(con, source, columns="text", key="id"):
    columns = [columns] if isinstance(columns, str) else columns
    return con.execute(
        "SELECT row_count, skipped_count, failed_count FROM jammi_generate(?, ?, ?)", [source, columns, key]
    ).fetchall()


def vectors(con, source):
    (name,) = con.execute(
        "SELECT embedding_table FROM jammi_tables() WHERE source = ? ORDER BY started DESC LIMIT 1", [source]
    ).fetchone()
    return con.execute(f'SELECT _row_id, vector FROM jammi."{name}" ORDER BY _row_id').fetchall()


def error_of(con, query, *parameters):
    with pytest.raises(duckdb.Error) as caught:
        con.execute(query, *parameters).fetchall()
    return str(caught.value)


def nothing_is_left(jammi, storage):
    assert jammi.con.execute("SELECT count(*) FROM jammi_tables()").fetchone() == (0,)
    assert not list(storage.rglob("*.*"))


class TestSources:
    def test_table(self, animals):
        row = animals.execute("SELECT * FROM jammi_generate('animals', ['name', 'text'], 'id')").fetchone()
        names = [column[0] for column in animals.description]
        assert names == [
            "embedding_table", "source", "model", "status", "row_count", "skipped_count", "failed_count",
            "truncated_count", "dimensions", "seconds", "location", "requests", "tokens", "passage_count", "advice",
        ]  # fmt: skip
        assert row[1:9] == ("animals", "fake/small", "ready", 5, 0, 0, 0, 64)

    def test_view_temp_table_in_an_open_transaction_and_cte(self, animals):
        animals.execute("CREATE VIEW wet AS FROM animals WHERE text LIKE '%water%'")
        assert generate(animals, "wet") == [(2, 0, 0)]
        animals.begin()
        animals.execute("CREATE TEMP TABLE draft AS FROM animals LIMIT 3")
        assert generate(animals, "draft") == [(3, 0, 0)]
        animals.rollback()
        rows = animals.execute(
            "WITH two AS (FROM animals LIMIT 2) SELECT row_count FROM jammi_generate('two', 'text', 'id')"
        )
        assert rows.fetchall() == [(2,)]

    def test_dataframe_by_variable_and_registered(self, con):
        frame = pd.DataFrame({"id": [1, 2], "text": ["one", "two"]})
        assert con.sql("SELECT row_count FROM jammi_generate('frame', 'text', 'id')").fetchall() == [(2,)]
        con.register("registered", frame)
        assert generate(con, "registered") == [(2, 0, 0)]

    @pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
    def test_file(self, animals, tmp_path, kind):
        path = str(tmp_path / f"animals.{kind}")
        animals.execute(f"COPY animals TO '{path}'")
        assert generate(animals, path) == [(5, 0, 0)]
        found = animals.execute("SELECT id FROM jammi_search(?, 'duck', 1)", [path]).fetchall()
        assert found == [(3,)]

    def test_empty_table_and_one_row(self, animals):
        animals.execute("CREATE TABLE none AS FROM animals LIMIT 0")
        assert generate(animals, "none") == [(0, 0, 0)]
        assert animals.execute("SELECT * FROM jammi_search('none', 'duck')").fetchall() == []
        assert animals.execute("SELECT * FROM jammi_search('none', 'duck', exact := true)").fetchall() == []
        assert vectors(animals, "none") == []
        animals.execute("CREATE TABLE one AS FROM animals LIMIT 1")
        assert generate(animals, "one") == [(1, 0, 0)]
        assert animals.execute("SELECT id FROM jammi_search('one', 'duck')").fetchall() == [(1,)]

    def test_another_schema_and_a_strange_name(self, animals):
        animals.execute("CREATE SCHEMA farm; CREATE TABLE farm.animals AS FROM animals LIMIT 2")
        strange = "x'; DROP TABLE animals; --"
        animals.execute(f'CREATE TABLE "{strange}" AS FROM animals')
        assert generate(animals, "farm.animals") == [(2, 0, 0)]
        assert generate(animals, f'"{strange}"') == [(5, 0, 0)]
        sources = animals.execute("SELECT source FROM jammi_tables() ORDER BY 1").fetchall()
        assert sources == [("farm.animals",), (strange.casefold(),)]
        assert animals.execute("SELECT count(*) FROM animals").fetchone() == (5,)
        found = animals.execute("SELECT id FROM jammi_search(?, 'owl', 1)", [f'"{strange}"']).fetchall()
        assert found == [(5,)]

    def test_strange_keys_and_columns(self, con):
        con.execute("""CREATE TABLE odd AS FROM (VALUES
            ('it''s', 'a "quoted" word'), ('--;', 'semi;colon'), ('\u200b', 'zero width')) t("the 'key'", "c"";d")""")
        assert generate(con, "odd", ['c";d'], "the 'key'") == [(3, 0, 0)]
        found = con.execute("""SELECT "the 'key'" FROM jammi_search('odd', 'semi;colon', 1)""").fetchall()
        assert found == [("--;",)]

    def test_prepared_and_parameters(self, animals):
        animals.execute("PREPARE build AS SELECT status FROM jammi_generate($1, $2, $3)")
        for _ in range(2):
            assert animals.execute("EXECUTE build('animals', ['text'], 'id')").fetchall() == [("ready",)]
            animals.execute("DELETE FROM animals WHERE id = 1")
        assert animals.execute("SELECT count(*) FROM jammi_tables()").fetchone() == (2,)

    def test_inside_another_statement(self, animals):
        animals.execute("CREATE TABLE report AS SELECT * FROM jammi_generate('animals', 'text', 'id')")
        assert animals.execute("SELECT row_count FROM report").fetchall() == [(5,)]

    def test_two_in_one_query(self, animals):
        animals.execute("CREATE TABLE pets AS FROM animals LIMIT 2")
        query = (
            "SELECT source, row_count FROM jammi_generate('animals', 'text', 'id') "
            "UNION ALL SELECT source, row_count FROM jammi_generate('pets', 'text', 'id')"
        )
        assert sorted(animals.execute(query).fetchall()) == [("animals", 5), ("pets", 2)]

    def test_explain_builds_nothing(self, animals, jammi, storage):
        animals.execute("EXPLAIN SELECT * FROM jammi_generate('animals', 'text', 'id')")
        nothing_is_left(jammi, storage)

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize(
        "kind",
        [
            "TINYINT",
            "BIGINT",
            "UBIGINT",
            "HUGEINT",
            "DECIMAL(9,2)",
            "DOUBLE",
            "VARCHAR",
            "DATE",
            "TIMESTAMP",
            "BOOLEAN",
        ],
    )
    def test_key_types_find_their_way_back(self, con, kind):
        value = {"DATE": "'2024-02-29'", "TIMESTAMP": "'2024-02-29 12:34:56.789'", "BOOLEAN": "true"}.get(kind, "42")
        con.execute(f"CREATE TABLE typed AS SELECT CAST({value} AS {kind}) AS id, 'some text' AS text")
        generate(con, "typed")
        assert con.execute("SELECT count(*) FROM jammi_search('typed', 'text')").fetchone() == (1,)

    def test_uuid_and_enum_keys(self, con):
        con.execute("CREATE TYPE mood AS ENUM ('glad', 'sad')")
        con.execute("CREATE TABLE u AS SELECT uuid() AS id, 'sad'::mood AS mood, 'some text' AS text")
        for key in ("id", "mood"):
            generate(con, "u", key=key)
            assert con.execute("SELECT count(*) FROM jammi_search('u', 'text')").fetchone() == (1,)


class TestText:
    def test_columns_are_joined_by_one_space_in_their_given_order(self, con, jammi):
        con.execute("CREATE TABLE t AS SELECT 1 AS id, 'left' AS a, NULL::VARCHAR AS b, 'right' AS c, 7 AS n")
        generate(con, "t", ["c", "b", "a", "n"])
        assert jammi.encoders.get("fake/small").encoded == ["right left 7"]

    def test_rows_without_text_are_skipped_and_those_that_fail_are_counted(self, con):
        con.execute("""CREATE TABLE t AS FROM (VALUES
            (1, 'ok'), (2, NULL), (3, ''), (4, '  \t'), (5, 'unencodable'),
            (6, 'one two three four five six seven eight nine')) t(id, text)""")
        query = (
            "SELECT row_count, skipped_count, failed_count, truncated_count, dimensions, advice "
            "FROM jammi_generate('t', 'text', 'id')"
        )
        with pytest.warns(JammiWarning, match="50 % of the texts are longer than the model reads") as warned:
            (row,) = con.execute(query).fetchall()
        assert row[:-1] == (2, 3, 1, 1, 64)
        assert row[-1] in str(warned[0].message)
        assert [key for key, _ in vectors(con, "t")] == ["1", "6"]

    def test_digest_is_the_md5_of_the_embedded_text(self, animals):
        generate(animals, "animals", ["name", "text"])
        (name,) = animals.execute("SELECT embedding_table FROM jammi_tables()").fetchone()
        same = animals.execute(
            f"""SELECT count(*) FROM animals a JOIN jammi."{name}" e ON a.id::VARCHAR = e._row_id
            WHERE lower(hex(e._text_digest)) = md5(concat_ws(' ', a.name, a.text))"""
        ).fetchone()
        assert same == (5,)


class TestDimensions:
    @pytest.fixture
    def short(self, animals, jammi):
        return jammi.generate("animals", "text", "id", dims=5)

    def test_vectors_are_cut_and_made_unit_vectors_again(self, animals, short):
        assert (short.dimensions, short.row_count) == (5, 5)
        whole = text_vector("a small cat sleeps")[:5]
        assert vectors(animals, "animals")[0][1] == pytest.approx(whole / np.linalg.norm(whole))
        asked = "SELECT dimensions FROM jammi_tables() UNION SELECT dimensions FROM jammi_catalog.embedding_tables"
        assert animals.execute(asked).fetchall() == [(5,)]

    @pytest.mark.parametrize("exact", ["true", "false"])
    def test_a_text_is_cut_for_the_search_a_vector_is_not(self, animals, short, exact):
        query = f"SELECT id, _similarity FROM jammi_search('animals', ?, 2, exact := {exact}, mode := 'vector')"
        by_text = animals.execute(query, ["a fish lives in water"]).fetchall()
        assert by_text[0] == (4, pytest.approx(1))
        cut = animals.execute("SELECT embed('a fish lives in water', dims := 5)").fetchone()[0]
        assert animals.execute(query, [cut]).fetchall() == by_text
        message = f"the query vector has 64 dimensions; '{short.embedding_table}' has 5"
        assert message in error_of(animals, query, [text_vector("fish").tolist()])

    def test_a_lost_index_is_built_again(self, animals, short, storage):
        for sidecar in storage.rglob("*.usearch"):
            sidecar.unlink()
        animals.execute("FROM jammi_recover()").fetchall()
        assert list(storage.rglob("*.usearch"))
        assert animals.execute("SELECT id FROM jammi_search('animals', 'an owl hunts at night', 1)").fetchall() == [
            (5,)
        ]

    def test_all_of_them_is_the_same_as_none_given(self, animals, jammi):
        one, other = (jammi.generate("animals", "text", "id", dims=dims) for dims in (None, 64))
        query = "SELECT count(DISTINCT fingerprint) FROM jammi_catalog.embedding_tables"
        assert animals.execute(query).fetchone() == (1,)
        assert one.dimensions == other.dimensions


class TestMistakes:
    """Each is answered before any work: no row in the catalog, no file."""

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ("'animals', 'txt', 'id'", "no column 'txt' in 'animals'; did you mean 'text'? columns: id, name, text"),
            ("'animals', 'text', 'nr'", "no column 'nr' in 'animals'; columns: id, name, text"),
            ("'animals', [], 'id'", "columns are []"),
            ("'animals', 5, 'id'", "columns are 5"),
            ("'animals', NULL, 'id'", "none of them may be NULL"),
            ("'animals', 'text', NULL", "none of them may be NULL"),
            ("'animal', 'text', 'id'", "Table with name animal does not exist"),
            ("'animals', 'text', 'id', model := 'nope'", "no model 'nope'"),
            ("'animals', 'text', 'id', dims := 65", "dims is 65; 'fake/small' has 1 to 64"),
            ("'animals', 'text', 'id', dims := 0", "dims is 0; 'fake/small' has 1 to 64"),
        ],
    )
    def test_wrong_argument(self, animals, jammi, storage, call, message):
        assert message in error_of(animals, f"SELECT * FROM jammi_generate({call})")
        nothing_is_left(jammi, storage)

    @pytest.mark.parametrize("columns", ["'bytes'", "['text', 'bytes']", "['BYTES', 'text']"])
    def test_bytes_are_no_text(self, animals, jammi, storage, columns):
        animals.execute("CREATE VIEW stored AS SELECT *, encode(text) AS bytes FROM animals")
        for verb in ("generate", "infer"):
            message = error_of(animals, f"FROM jammi_{verb}('stored', {columns}, 'id')")
            assert re.search("the column '(bytes|BYTES)' of 'stored' is a BLOB, which is bytes and no text", message)
            assert re.search(r'has decode\("(bytes|BYTES)"\) in its place', message)
        animals.execute("CREATE TABLE vectors AS SELECT id, [1.0, 2.0] AS v FROM animals")
        imported = f"jammi_import('stored', 'vectors', 'id', 'v', model := 'fake/small', cols := {columns})"
        assert "of 'stored' is a BLOB" in error_of(animals, f"FROM {imported}")
        nothing_is_left(jammi, storage)

    def test_a_missing_column_is_named_for_a_cte_too(self, animals):
        query = "WITH animals AS (SELECT 1 AS nr, 'x' AS words) SELECT * FROM jammi_generate('animals', 'word', 'nr')"
        assert "did you mean 'words'? columns: nr, words" in error_of(animals, query)

    def test_keys_that_are_null_repeated_or_unfit(self, con, jammi, storage):
        con.execute(
            """CREATE TABLE t AS SELECT * FROM (VALUES (1, 1, 'a'), (NULL, 1, 'b'), (3, 1, 'c')) t(n, same, text)"""
        )
        query = "SELECT * FROM jammi_generate('t', 'text', '{}')"
        assert "is NULL in 1 of 3 rows" in error_of(con, query.format("n"))
        assert "is not unique: 2 of 3 rows repeat another's" in error_of(con, query.format("same"))
        con.execute("CREATE TABLE same AS FROM (VALUES (INTERVAL 1 MONTH, 'a'), (INTERVAL 30 DAYS, 'b')) t(n, text)")
        assert "is not unique" in error_of(con, "FROM jammi_generate('same', 'text', 'n')")
        con.execute("CREATE VIEW zoned AS SELECT now() AS id, [1] AS list, 'x' AS text")
        assert "TIMESTAMP WITH TIME ZONE" in error_of(con, "SELECT * FROM jammi_generate('zoned', 'text', 'id')")
        assert "INTEGER[]" in error_of(con, "SELECT * FROM jammi_generate('zoned', 'text', 'list')")
        nothing_is_left(jammi, storage)


class TestFailures:
    def test_a_location_that_cannot_be_read_is_refused_at_once(self, fake, tmp_path):
        blocked = tmp_path / "file"
        blocked.write_text("not a folder")
        with pytest.raises(StorageError, match="file/jammi_db': Not a directory"):
            fake(storage=str(blocked))

    def test_a_location_that_cannot_be_written(self, animals, storage):
        storage.write_text("not a folder")
        message = error_of(animals, "SELECT * FROM jammi_generate('animals', 'text', 'id')")
        assert f"'{storage}/jammi_db': Not a directory" in message
        status, error = animals.execute("SELECT status, error FROM jammi_catalog.embedding_tables").fetchone()
        assert (status, "Not a directory" in error) == ("failed", True)

    def test_a_disk_that_fails_in_the_middle(self, animals, storage, monkeypatch):
        from jammi_duck.storage.files.parquet import SegmentWriter

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(SegmentWriter, "write", full)
        assert "No space left on device" in error_of(animals, "FROM jammi_generate('animals', 'text', 'id')")
        status, error = animals.execute("SELECT status, error FROM jammi_tables()").fetchone()
        assert status == "failed"
        assert "No space left on device" in error
        assert not [path for path in storage.rglob("*") if path.is_file()]

    def test_an_error_elsewhere_in_the_query_is_settled_by_the_next_build(self, fake, storage):
        jammi = fake()
        con = jammi.con
        con.execute("CREATE TABLE t AS SELECT range AS id, 'text ' || range AS text FROM range(20000)")
        con.execute(
            "CREATE VIEW broken AS SELECT id, CASE WHEN id = 19999 THEN error('boom') ELSE text END AS text FROM t"
        )
        assert "boom" in error_of(con, "FROM jammi_generate('broken', 'text', 'id')")
        assert generate(con, "t") == [(20000, 0, 0)]
        statuses = con.execute("SELECT source, status FROM jammi_tables() ORDER BY 1").fetchall()
        assert statuses == [("broken", "failed"), ("t", "ready")]
        assert not list(storage.rglob(".*"))

    def test_a_result_that_nobody_reads_is_settled(self, animals):
        animals.execute("SELECT 1 FROM jammi_generate('animals', 'text', 'id') LIMIT 0").fetchall()
        assert animals.execute("SELECT count(*) FROM jammi_tables() WHERE status = 'building'").fetchone() == (0,)

    def test_rollback_leaves_the_files_and_search_finds_no_rows_that_never_were(self, animals):
        animals.begin()
        animals.execute("CREATE TABLE draft AS FROM animals")
        generate(animals, "draft")
        animals.rollback()
        assert animals.execute("SELECT status FROM jammi_tables()").fetchall() == [("ready",)]
        assert len(animals.execute("SELECT * FROM jammi_matches('draft', 'duck', 2)").fetchall()) == 2
        animals.execute("CREATE TABLE draft AS FROM animals WHERE id = 3")
        with pytest.warns(JammiWarning, match="'draft' has 1 rows now, and had 5"):
            assert animals.execute("SELECT id FROM jammi_search('draft', 'duck')").fetchall() == [(3,)]


class TestMany:
    @pytest.mark.parametrize("threads", [1, 4])
    def test_segments_and_threads_lose_no_row(self, fake, threads):
        jammi = fake(segment_rows=700)
        con = jammi.con
        con.execute(f"SET threads = {threads}")
        con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || (range % 97) AS text FROM range(9000)")
        assert generate(con, "t") == [(9000, 0, 0)]
        (name,) = con.execute("SELECT embedding_table FROM jammi_tables()").fetchone()
        keys = con.execute(f'SELECT count(*), count(DISTINCT _row_id) FROM jammi."{name}"').fetchone()
        assert keys == (9000, 9000)
        assert con.execute("SELECT count(*) FROM jammi_catalog.segments").fetchone() == (13,)
        found = con.execute("SELECT text FROM jammi_search('t', 'word5', 50)").fetchall()
        assert found == [("word5",)] * 50


class TestWideSources:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("columns", [2046, 2047, 4094, 5000])
    @pytest.mark.parametrize("first", [True, False])
    def test_any_number_of_columns(self, con, columns, first):
        """DuckDB tells of 2,048 of them at a time."""
        others = ", ".join(f"{i} AS c{i}" for i in range(columns))
        key = "range AS id"
        texts = "'word' || range AS text"
        con.execute(
            f"CREATE TABLE t AS SELECT {key if first else texts}, {others}, {texts if first else key} FROM range(3)"
        )
        assert generate(con, "t") == [(3, 0, 0)]
        assert con.execute("SELECT id, c7 FROM jammi_search('t', 'word1', 1)").fetchall() == [(1, 7)]
        assert con.execute("SELECT id FROM jammi_similar('t', 1, 1, filter := 'c7 = 7')").fetchall() in ([(0,)], [(2,)])
        assert con.execute("SELECT current FROM jammi_status('t')").fetchall() == [(3,)]
        missing = error_of(con, "FROM jammi_generate('t', 'txt', 'id')")
        # Where the last look has 2,048, nobody can say that there is no other, and DuckDB says it in its words.
        assert ("no column 'txt'" if columns in (2047, 5000) else "empty set of columns") in missing
        con.execute("DELETE FROM t WHERE c0 = 0 AND text = 'word2'")
        assert generate(con, "t") == [(2, 0, 0)]
