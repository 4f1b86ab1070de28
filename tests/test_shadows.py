"""A database file whose macros and views have the names of what we call: none of them runs."""

import contextlib
import json

import duckdb
import pytest

from jammi_duck import InputError, StorageError
from tests.stock_shell import folder, needs_extension, rows, shell  # noqa: F401
from tools.program import in_pipe

RAN = "a macro of the file ran"


def shadow_everything(con):
    """A macro for every function of DuckDB, which a file may hold: with up to six arguments, each ends in an error."""
    kinds = con.execute(
        "SELECT function_name, bool_or(function_type LIKE '%table%') FROM duckdb_functions() "
        "WHERE database_name = 'system' AND function_name NOT LIKE '\\_jammi%' ESCAPE '\\' GROUP BY 1"
    ).fetchall()
    con.execute("CREATE SCHEMA away; USE away")
    made = 0
    for name, is_table in kinds:
        # The first is called to say that another was; the second, DuckDB 1.4 calls by itself, and by its short name.
        if name == "error" or (name == "arg_min" and duckdb.__version__ < "1.5"):
            continue
        body = f"TABLE SELECT system.main.error('{RAN}') AS x" if is_table else f"system.main.error('{RAN}')"
        heads = [f"({', '.join('abcdef'[:count])}) AS {body}" for count in range(7)]
        quoted = name.replace('"', '""')
        with contextlib.suppress(duckdb.Error):
            con.execute(f'CREATE MACRO memory.main."{quoted}"{", ".join(heads)}')
            made += 1
    con.execute("USE memory.main")
    return made


def everything(con):
    """What all of the verbs give, one after another, without names and times."""
    con.execute("SELECT embedding_table FROM jammi_generate('t', 'text', 'id')")
    (name,) = con.fetchone()
    ways = [{"embedding_table": name, "exact": exact} for exact in (False, True)]
    for statement, *given in (
        ("SELECT row_count FROM jammi_generate('t', 'text', 'id', reuse := true)",),
        ("SELECT row_count FROM jammi_generate('t', ?, 'id', dims := 32)", ["text", "id"]),
        # A STRUCT in the user's own query is made by the user's own macro.
        ("SELECT row_count FROM jammi_generate('t', ?::JSON, 'id')", '{"text": "text", "both": ["id", "text"]}'),
        ("SELECT action FROM jammi_sync('t', ?::JSON, 'id')", '{"key": "id", "text": "text", "more": ["text", "id"]}'),
        ("SELECT id FROM jammi_search('t', 'word7', 1, \"column\" := 'both')",),
        ("SELECT id, _rank FROM jammi_search('t', 'word7', 2, embedding_table := ?)", name),
        ("SELECT id FROM jammi_search('t', 'word7', 2, filter := 'id = 3', embedding_table := ?)", name),
        ("SELECT id FROM questions, jammi_search('t', q, 1, embedding_table := ?)", name),
        ("SELECT id FROM jammi_similar('t', 7, 1, exact := true, embedding_table := ?)", name),
        ("SELECT _row_id FROM jammi_matches('t', ?, 1, embedding_table := ?)", [0.5] * 64, name),
        ("SELECT stage FROM jammi_explain('t', 'word7', 1, embedding_table := ?)", name),
        ("SELECT row_count FROM jammi_check('t', embedding_table := ?)", name),
        ("SELECT metric, value, low FROM jammi_eval('t', 'asked', 'judged', embedding_table := ?)", name),
        ("SELECT question, keys, missed FROM jammi_eval_queries('t', 'asked', 'judged', embedding_table := ?)", name),
        ("SELECT p_value FROM jammi_eval_compare('t', 'asked', 'judged', ?)", ways),
        ("SELECT _row_id, _status FROM jammi_infer('t', 'text', 'id') ORDER BY _row_id",),
        ("SELECT row_count, skipped_count, left_count FROM jammi_fill('asked', 'text', 'v')",),
        ("SELECT id, _row_id, _rank FROM jammi_search_column('asked', 'v', 'word2', 3, filter := 'id < 4')",),
        ("SELECT id, _row_id FROM questions, jammi_search_column('asked', 'v', q, 1, key := ?)", ["id", "text"]),
        ("SELECT embed('word7')",),
        ("SELECT id, jammi_split(text, by := 'word') FROM t ORDER BY id LIMIT 2",),
        (
            "SELECT passage_count FROM jammi_generate('t', 'text', 'id', name := 'cut', passages := ?::JSON)",
            '{"by": "word", "title": "id"}',
        ),
        ("FROM jammi_passages('t', embedding_table := 'cut')",),
        ("SELECT id, _passage_text FROM jammi_search('t', 'word7', 1, embedding_table := 'cut')",),
        ("SELECT row_count FROM jammi_import('t', 'made', 'id', 'v', model := 'fake/small')",),
        (
            "SELECT passage_count FROM jammi_import('t', 'parts', 'id', 'v', model := 'fake/small', cols := 'text', "
            "passages := ?::JSON)",
            '{"start": "a", "end": "b", "title": "id"}',
        ),
        ("DELETE FROM t WHERE id = 1",),
        ("UPDATE t SET text = 'new' WHERE id = 2",),
        ("INSERT INTO t VALUES (11, 'more')",),
        ("SELECT id FROM jammi_search('t', 'word7', 2, embedding_table := ?)", name),
        ("SELECT new, changed, gone FROM jammi_status('t', embedding_table := ?)", name),
        ("SELECT added, changed, deleted FROM jammi_refresh('t', embedding_table := 'cut')",),
        ("SELECT added, changed, deleted FROM jammi_refresh('t', embedding_table := ?)", name),
        ("SELECT row_count FROM jammi_generate('t', 'text', 'id', reuse := true)",),
        ("SELECT segments, rows_removed FROM jammi_compact('t', embedding_table := ?)", name),
        (f'SELECT _row_id FROM jammi."{name}" ORDER BY _row_id',),
        ("SELECT status FROM jammi_recover()",),
        ("SELECT origin FROM jammi_models() WHERE name = 'none'",),
        ("SELECT row_count FROM jammi_generate('long', 'text', 'id', passages := ?::JSON)", '{"title": "id"}'),
        ("SELECT id, _rank, _passage, _passage_text FROM jammi_search('long', 'word7 a', 2, per_row := 2)",),
        ("SELECT id, _passage_text FROM jammi_search('long', 'b', 2, filter := 'id < 3', per_row := 2)",),
        ("SELECT id, _passage FROM jammi_similar('long', 1, 2, per_row := 2)",),
        ("SELECT _row_id, _passage FROM jammi_matches('long', 'b', 2)",),
        ("SELECT file FROM jammi_vacuum()",),
        ("SELECT source, status FROM jammi_tables() ORDER BY started",),
        ("SELECT status FROM jammi_drop(?)", name),
    ):
        try:
            yield statement.replace(name, "NAME"), con.execute(statement, given).fetchall()
        except Exception as error:
            yield statement.replace(name, "NAME"), str(error)


class TestMacros:
    """Macros that a database holds."""

    def test_those_with_the_names_of_duckdbs_functions(self, fake, tmp_path):
        def run(shadowed):
            con = duckdb.connect()
            con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
            con.execute("CREATE TABLE questions AS SELECT 'word7' AS q")
            con.execute("CREATE TABLE long AS SELECT id, repeat(text || ' a b c. ', 5) AS text FROM t")
            con.execute("CREATE TABLE asked AS SELECT range AS id, 'word' || range AS text FROM range(4)")
            con.execute("CREATE TABLE judged AS SELECT range AS question, range AS key, 1 AS grade FROM range(4)")
            con.execute("CREATE TABLE made AS SELECT range AS id, list_resize([1.0], 64, 0.5) AS v FROM range(10)")
            con.execute(
                "CREATE TABLE parts AS SELECT id, v, 0 AS a, 2 AS b FROM made UNION ALL SELECT id, v, 3, 5 FROM made"
            )
            made = shadow_everything(con) if shadowed else 0
            fake(con, storage=tmp_path / str(shadowed))
            return list(everything(con)), made

        plain, _ = run(False)
        same, made = run(True)
        assert not any(isinstance(given, str) for _, given in plain), plain
        assert same == plain
        assert made > 400

    def test_the_methods_of_python(self, fake, tmp_path):
        def run(shadowed):
            con = duckdb.connect()
            con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
            if shadowed:
                shadow_everything(con)
                # Those that DuckDB calls for a parameter are refused.
                for name in ("array_extract", "map_extract", "map_extract_value", "struct_extract"):
                    con.execute(f"DROP MACRO IF EXISTS main.{name}")
            jammi = fake(con, storage=tmp_path / str(shadowed))
            jammi.generate("t", "text", "id")
            given = {"id": 3, "text": "a\x00b", "no": None}
            filtered = "id = $id AND text <> $text AND $no IS NULL"
            for found in (
                jammi.search("t", "word7", 2, filter=filtered, parameters=given),
                jammi.search("t", [0.5] * 64, 2),
                jammi.similar("t", 7, 1),
                jammi.status("t").select("new", "changed", "gone"),
                jammi.check("t").select("row_count"),
                jammi.infer("t", ["text"], "id").select("_row_id", "_status"),
            ):
                yield found.fetchall()

        assert list(run(True)) == list(run(False))

    @pytest.mark.parametrize("name", ["array_extract", "struct_extract", "map_extract"])
    def test_none_is_called_for_a_parameter(self, fake, name):
        jammi = fake()
        jammi.con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
        jammi.generate("t", "text", "id")
        jammi.con.execute(f"CREATE MACRO {name}(a, b) AS system.main.error('{RAN}')")
        with pytest.raises(InputError, match=f'a macro would be called: DROP MACRO "memory"."main"."{name}"'):
            jammi.search("t", "word7", 2, filter="id = $id", parameters={"id": 3})

    def test_one_that_comes_with_a_database_is_seen_at_once(self, fake, tmp_path):
        jammi = fake()
        jammi.con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
        jammi.generate("t", "text", "id")
        found = "FROM jammi_search('memory.main.t', 'word7', 2, filter := 'id = $id', parameters := {'id': 3})"
        assert len(jammi.con.execute(found).fetchall()) == 1
        with duckdb.connect(tmp_path / "other.duckdb") as other:
            other.execute(f"CREATE MACRO array_extract(a, b) AS system.main.error('{RAN}')")
        jammi.con.execute(f"ATTACH '{tmp_path / 'other.duckdb'}' AS other; USE other")
        with pytest.raises(duckdb.Error, match='a macro would be called: DROP MACRO "other"."main"."array_extract"'):
            jammi.con.execute(found)

    @pytest.mark.parametrize(
        ("macro", "named"),
        [
            ("_jammi_embed(a, b, c, d) AS [1.0]", "main._jammi_embed"),
            ("_JAMMI_Select(a) AS 'x'", "main._JAMMI_Select"),
            ("jammi_search(a, b, c) AS TABLE SELECT 1", "main.jammi_search"),
            ("away.jammi_tables() AS TABLE SELECT 1", "away.jammi_tables"),
        ],
    )
    def test_one_with_a_name_of_ours_is_refused(self, fake, tmp_path, macro, named):
        con = duckdb.connect(tmp_path / "file.duckdb")
        con.execute(f"CREATE SCHEMA away; CREATE MACRO {macro}")
        with pytest.raises(StorageError, match=f"the database 'file' has a macro {named}, which would take the place"):
            fake(con)
        assert con.execute("SELECT count(*) FROM duckdb_schemas() WHERE schema_name LIKE 'jammi%'").fetchone() == (0,)
        schema, _, name = named.partition(".")
        kind = "MACRO TABLE" if "TABLE" in macro else "MACRO"
        con.execute(f'DROP {kind} {schema}."{name}"')
        fake(con)

    def test_one_that_comes_later_is_not_called(self, words):
        before = words.execute("SELECT id FROM jammi_search('t', 'word7', 3)").fetchall()
        vector = words.execute("SELECT embed('word7')").fetchall()
        words.execute("CREATE MACRO _jammi_embed(a, b, c, d) AS [1.0]")
        words.execute("CREATE MACRO _jammi_selection(a, b, c, d, e, f, g, h, i, j) AS 'SELECT 1 AS _jammi_token'")
        words.execute("CREATE MACRO embed(a) AS [2.0]")
        words.execute("CREATE SCHEMA s; CREATE MACRO s.embed(a) AS [2.0]; SET search_path = 's,main'")
        assert words.execute("SELECT embed('word7')").fetchall() == vector
        assert words.execute("SELECT id FROM jammi_search('main.t', 'word7', 3)").fetchall() == before

    def test_a_users_own_embed_does_not_keep_ours_from_being_installed(self, fake):
        con = duckdb.connect()
        con.execute("CREATE MACRO embed(a) AS [2.0]")
        fake(con)
        assert len(con.execute("SELECT embed('word7')").fetchone()[0]) == 64


def catalog(con, *, embedding_tables=None, then=""):
    """A catalog as jammi_duck makes it, but for what stands in the place of one table."""
    con.execute("CREATE SCHEMA jammi_catalog; CREATE SEQUENCE ran")
    con.execute(embedding_tables or "SELECT 1")
    con.execute(then or "SELECT 1")


COLUMNS = (
    "build VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, source VARCHAR NOT NULL, columns VARCHAR[] NOT NULL, key "
    "VARCHAR NOT NULL, model VARCHAR NOT NULL, dimensions INTEGER NOT NULL, definition VARCHAR NOT NULL, "
    "fingerprint VARCHAR NOT NULL, status VARCHAR NOT NULL, stage VARCHAR, row_count BIGINT, skipped_count BIGINT, "
    "failed_count BIGINT, truncated_count BIGINT, location VARCHAR NOT NULL, owner VARCHAR, started TIMESTAMP NOT "
    "NULL, finished TIMESTAMP, error VARCHAR"
)
TABLE = f"CREATE TABLE jammi_catalog.embedding_tables ({COLUMNS})"
VIEW = f"CREATE VIEW jammi_catalog.embedding_tables AS SELECT {{}}, {', '.join(f'NULL AS c{i}' for i in range(19))}"
FOREIGN = [
    (VIEW.format("nextval('ran')"), "", "a view jammi_catalog.embedding_tables"),
    ("CREATE VIEW jammi_catalog.segments AS SELECT nextval('ran') AS build", "", "a view jammi_catalog.segments"),
    (TABLE.replace("error VARCHAR", "error VARCHAR DEFAULT nextval('ran')::VARCHAR"), "", "error that is computed"),
    (TABLE.replace("error VARCHAR", "error VARCHAR AS (upper(name))"), "", "error that is computed"),
    (TABLE.replace("error VARCHAR", "error VARCHAR CHECK (upper(error) <> '')"), "", "a CHECK on jammi_catalog.embedd"),
    (TABLE.replace("row_count BIGINT", "row_count VARCHAR"), "", "in which 'row_count' is no BIGINT"),
    ("CREATE TABLE jammi_catalog.embedding_tables (build VARCHAR)", "", "in which 'name' is no VARCHAR"),
    (TABLE, "CREATE INDEX i ON jammi_catalog.embedding_tables (upper(name))", "an index i on jammi_catalog.embedding"),
]


class TestTables:
    """Tables of the catalog that are something else."""

    @pytest.mark.parametrize(("tables", "then", "named"), FOREIGN)
    @pytest.mark.parametrize("read_only", [False, True])
    def test_nothing_of_them_is_read(self, fake, tmp_path, tables, then, named, read_only):
        with contextlib.closing(duckdb.connect(tmp_path / "their.db")) as con:
            catalog(con, embedding_tables=tables, then=then)
        con = duckdb.connect(tmp_path / "their.db", read_only=read_only)
        with pytest.raises(StorageError, match=f"the database 'their' has .*{named}"):
            fake(con)
        assert con.execute("SELECT last_value FROM duckdb_sequences()").fetchall() == [(None,)]
        con.close()

    @pytest.mark.parametrize("tables", [VIEW.format("nextval('ran')"), FOREIGN[2][0]])
    def test_nothing_of_them_is_read_whatever_the_case_of_their_names(self, fake, tables):
        con = duckdb.connect()
        con.execute("CREATE SCHEMA Jammi_Catalog; CREATE SEQUENCE ran")
        con.execute(tables.replace("embedding_tables", "Embedding_Tables"))
        with pytest.raises(StorageError, match="the database 'memory' has"):
            fake(con)
        assert con.execute("SELECT last_value FROM duckdb_sequences()").fetchall() == [(None,)]

    @pytest.mark.skipif(duckdb.__version__ < "2", reason="there were no triggers")
    def test_a_trigger(self, fake):
        con = duckdb.connect()
        con.execute("CREATE TABLE y (z VARCHAR)")
        on = "AFTER INSERT ON jammi_catalog.embedding_tables REFERENCING NEW TABLE AS x FOR EACH STATEMENT"
        catalog(con, embedding_tables=TABLE, then=f"CREATE TRIGGER t {on} INSERT INTO y SELECT name FROM x")
        with pytest.raises(StorageError, match="a trigger t on jammi_catalog.embedding_tables"):
            fake(con)

    def test_one_that_comes_after_the_installation(self, fake):
        con = fake().con
        con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
        catalog(con, embedding_tables=VIEW.format("nextval('ran')"))
        with pytest.raises(duckdb.Error, match="the database 'memory' has a view jammi_catalog.embedding_tables"):
            con.execute("FROM jammi_generate('t', 'text', 'id')")
        assert con.execute("SELECT last_value FROM duckdb_sequences()").fetchall() == [(None,)]

    def test_a_table_of_before_and_more_columns_are_taken(self, fake):
        con = duckdb.connect()
        catalog(
            con,
            embedding_tables=TABLE.replace("error VARCHAR", "error VARCHAR, later VARCHAR, one INTEGER DEFAULT 1"),
            then=(
                "CREATE TABLE jammi_catalog.segments (build VARCHAR, segment INTEGER, row_count BIGINT, "
                "parquet VARCHAR, bytes BIGINT, sha256 VARCHAR)"
            ),
        )
        assert fake(con).con.execute("FROM jammi_tables()").fetchall() == []

    def test_a_table_in_the_place_of_a_view_stays(self, words, fake, tmp_path):
        (name,) = words.execute("SELECT embedding_table FROM jammi_tables()").fetchone()
        with contextlib.closing(duckdb.connect(tmp_path / "my.db")) as con:
            con.execute(f'CREATE SCHEMA jammi; CREATE TABLE jammi."{name}" AS SELECT 42 AS x')
            con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
            fake(con)
            assert con.execute(f'FROM jammi."{name}"').fetchall() == [(42,)]
            assert con.execute("SELECT id FROM jammi_search('t', 'word7', 1)").fetchall() == [(7,)]


class TestListing:
    """A file of somebody else's that is only listed."""

    @pytest.fixture
    def theirs(self, tmp_path):
        """A folder with a database whose every view, default and macro counts up a sequence."""
        with contextlib.closing(duckdb.connect(tmp_path / "jammi_duck.duckdb")) as con:
            catalog(con, embedding_tables=VIEW.format("nextval('ran')"))
            con.execute("CREATE VIEW v AS SELECT nextval('ran') AS x; CREATE SCHEMA jammi")
            con.execute("CREATE VIEW jammi.v AS SELECT nextval('ran') AS x")
            names = ("duckdb_tables", "duckdb_views", "duckdb_databases", "duckdb_extensions", "current_database")
            # DuckDB 1.4 cannot list its own views any more where such a macro is.
            for name in names if duckdb.__version__ > "1.5" else ():
                kind = "AS" if name == "current_database" else "AS TABLE SELECT"
                with contextlib.suppress(duckdb.Error):
                    con.execute(f"CREATE MACRO {name}() {kind} nextval('ran')")
        return tmp_path

    @pytest.mark.parametrize("line", ["tables", "sources list --json", "config", "recover", "vacuum"])
    def test_nothing_runs(self, theirs, line):
        done = in_pipe(f"jammi-duck {line}", theirs)
        refused = line in ("tables", "recover", "vacuum")
        assert done.returncode == refused, done.stderr
        if refused:
            assert "has a view jammi_catalog.embedding_tables, which jammi_duck does not make" in done.stderr
        if line.startswith("sources"):
            assert [row["source"] for row in json.loads(done.stdout)] == ["jammi_catalog.embedding_tables", "v"]
        with contextlib.closing(duckdb.connect(theirs / "jammi_duck.duckdb", read_only=True)) as con:
            assert con.execute("SELECT last_value FROM system.main.duckdb_sequences()").fetchall() == [(None,)]


@needs_extension
class TestShell:
    """The same in the stock shell."""

    def test_a_macro_that_comes_later_is_not_called(self, folder):  # noqa: F811
        ((vector,),) = (row.values() for row in rows("SELECT embed('a duck')::VARCHAR AS v"))
        macros = "CREATE MACRO _jammi_embed(a, b, c, d) AS [1.0]; CREATE MACRO embed(a) AS [2.0]; "
        done = shell(f"SELECT len(embed('x')); {macros} SELECT embed('a duck')::VARCHAR AS v", "-json")
        assert vector in done.stdout

    def test_one_of_the_file_is_refused(self, folder):  # noqa: F811
        assert shell("CREATE MACRO _jammi_search(a) AS 'x'").returncode == 0
        done = shell("FROM jammi_tables()")
        assert done.returncode == 1
        assert "has a macro main._jammi_search, which would take the place of a function" in done.stderr

    def test_a_view_of_the_file_is_not_read(self, folder):  # noqa: F811
        view = VIEW.format("nextval('ran')")
        assert shell(f"CREATE SCHEMA jammi_catalog; CREATE SEQUENCE ran; {view}").returncode == 0
        done = shell("FROM jammi_tables()")
        assert "has a view jammi_catalog.embedding_tables, which jammi_duck does not make" in done.stderr
        assert rows("SELECT last_value FROM duckdb_sequences()") == [{"last_value": None}]
