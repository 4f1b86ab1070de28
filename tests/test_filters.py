"""A filter is a condition: it may read what it names, it may change nothing, and its parameters stay values."""

import contextlib
import datetime
import itertools

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jammi_duck.udfs.filters import check
from jammi_duck.udfs.filters.trees import parse
from tests.effort import some
from tests.fakes import FakeEncoder
from tests.test_generate import error_of

ROWS = 12
# What would show that something has run: embedding tables, tables, a sequence, calls of Python functions, files.
ACTS = (
    "_jammi_clock(1) > 0",
    "nextval('counted') > 0",
    "setval('counted', 70) > 0",
    "random() < 2",
    "setseed(0.5) IS NULL",
    "uuid() IS NOT NULL",
    "counting('a') = 'a'",
    "lower(id) = 'a'",
    "id = ANY (SELECT lower(id) FROM t)",
    "generating() > 0",
    "other.generating() > 0",
    "main.generating() > 0",
    "indirect(1) > 0",
    "defaulted() > 0",
    "write_log('a') IS NULL",
    "getvariable('secret') = 'x'",
    "current_setting('threads') > 0",
    "current_query() <> ''",
    "json_serialize_plan('SELECT counting(''a'')') IS NOT NULL",
    "error('a') IS NULL",
    "id.counting() = 'a'",
    "COLUMNS(lambda c: counting(c) = c) IS NOT NULL",
    "list_transform([1], lambda x: nextval('counted')) IS NOT NULL",
    "list_filter(['a'], lambda x: counting(x) = x) IS NOT NULL",
    "{'a': nextval('counted')}.a > 0",
    "[nextval('counted')][1] > 0",
    "TRY(nextval('counted')) > 0",
    "nextval('counted')::VARCHAR COLLATE nocase = '1'",
)
TABLES = (
    "jammi_generate('t', 'text', 'id')",
    "jammi_refresh('t')",
    "jammi_compact('t')",
    "jammi_recover()",
    "jammi_vacuum()",
    "jammi_tables()",
    "jammi_drop((SELECT embedding_table FROM jammi_tables()))",
    "jammi_import('t', 'v', 'id', 'v', model := 'm')",
    "jammi_search('t', 'x')",
    "query('FROM jammi_generate(''t'', ''text'', ''id'')')",
    "query_table('acting')",
    "enable_profiling(save_location := 'profile')",
    "enable_logging()",
    "read_csv('secrets.csv')",
    "'secrets.csv'",
    "read_text('secrets.csv')",
    "glob('*')",
    "duckdb_secrets()",
    "duckdb_settings()",
    "duckdb_tables",
    "information_schema.tables",
    "sniff_csv('secrets.csv')",
    "acting",
    "main.acting",
    "over_acting",
    "round_about",
    "makes('t')",
    "secretly",
    "temp.secretly",
    "frame",
    "variable",
    "(PIVOT t ON id USING sum(id))",
    "(DESCRIBE t)",
    "(SHOW TABLES)",
    "t TABLESAMPLE 50%",
    "range(3)",
)


@pytest.fixture
def calls():
    return []


@pytest.fixture
def full(con, calls, tmp_path, monkeypatch):
    """A connection whose database is full of what acts when it is read or called."""
    monkeypatch.chdir(tmp_path)
    return filled(con, calls, tmp_path)


@pytest.fixture(scope="module")
def kept(lasting, tmp_path_factory):
    """Such a connection, for tests that leave it as it was, and what tells that they did."""
    folder, calls = tmp_path_factory.mktemp("kept"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        con = filled(lasting(storage=str(folder / "artifacts")).con, calls, folder)
        yield con, lambda: world(con, calls, folder)


def filled(con, calls, folder):
    (folder / "secrets.csv").write_text("id\n1\n2\n")
    con.execute(f"CREATE TABLE t AS SELECT i AS id, 'text number ' || i AS text FROM range({ROWS}) r(i)")
    con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()

    def counting(text):
        calls.append(text)
        return text

    con.create_function("counting", counting, ["VARCHAR"], "VARCHAR")
    con.create_function("lower", lambda number: counting(str(number)), ["BIGINT"], "VARCHAR")
    con.execute("CREATE SEQUENCE counted; CREATE SCHEMA other")
    generates = "(SELECT count(*) FROM jammi_generate('t', 'text', 'id'))"
    con.execute(f"CREATE MACRO generating() AS {generates}; CREATE MACRO other.generating() AS {generates}")
    con.execute(
        "CREATE MACRO indirect(n) AS n + generating(); CREATE MACRO defaulted(n := 7) AS n + nextval('counted')"
    )
    con.execute("CREATE MACRO makes(name) AS TABLE SELECT 1 AS id FROM jammi_generate(name, 'text', 'id')")
    con.execute("CREATE VIEW acting AS SELECT generating() AS id; CREATE VIEW over_acting AS FROM acting")
    con.execute(
        "CREATE VIEW b AS SELECT 1 AS id; CREATE VIEW round_about AS FROM b; CREATE OR REPLACE VIEW b AS FROM acting"
    )
    con.execute("CREATE TEMP VIEW secretly AS FROM query(counting('SELECT 1 AS id'))")
    con.register("frame", con.sql("SELECT 1 AS id").to_arrow_table())
    return con


def world(con, calls, folder):
    counted = con.execute("SELECT last_value FROM duckdb_sequences()").fetchall()
    tables = con.execute("SELECT table_name FROM duckdb_tables() ORDER BY ALL").fetchall()
    embedded = con.execute("SELECT embedding_table, status, finished FROM jammi_tables()").fetchall()
    files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    return counted, tables, embedded, files, list(calls)


def found(con, predicate, more="", given=()):
    text = f"SELECT id FROM jammi_search('t', 'text', 100, filter := ?{more})"
    return sorted(id for (id,) in con.execute(text, [predicate, *given]).fetchall())


def expected(con, predicate):
    return sorted(id for (id,) in con.execute(f"SELECT id FROM t WHERE {predicate}").fetchall())


def ways_in(source):
    """Sub-queries that read this, in every place that a table may stand in."""
    yield from (
        f"id IN (SELECT id FROM {source})",
        f"EXISTS (FROM {source})",
        f"(SELECT count(*) FROM t JOIN {source} s ON true) >= 0",
        f"id IN (WITH c AS (FROM {source}) SELECT id FROM c)",
        f"id IN (SELECT id FROM t UNION ALL SELECT id FROM {source})",
        f"id = ANY (SELECT (SELECT max(id) FROM (FROM {source})) FROM t)",
        f"id IN (WITH RECURSIVE r AS (SELECT 1 AS id UNION SELECT s.id FROM {source} s, r) SELECT id FROM r)",
    )


class TestActs:
    @pytest.mark.parametrize("predicate", ACTS)
    def test_what_acts_is_refused_and_named(self, kept, predicate):
        con, world = kept
        before = world()
        assert "the filter '" in error_of(con, f"FROM jammi_search('t', 'x', filter := $f${predicate}$f$)")
        assert world() == before

    @pytest.mark.parametrize("source", TABLES)
    def test_what_may_not_be_read_is_refused(self, kept, source):
        con, world = kept
        variable = con.sql("FROM jammi_tables()")  # noqa: F841 - DuckDB finds it by its name
        before = world()
        for predicate in ways_in(source):
            with pytest.raises(duckdb.Error):
                found(con, predicate)
        assert world() == before

    def test_the_way_there_is_told(self, kept):
        said = error_of(kept[0], "FROM jammi_search('t', 'x', filter := 'id IN (FROM over_acting)')")
        assert "uses view over_acting, which uses view acting, which uses macro generating, which calls" in said
        assert "calls jammi_generate, and a filter may change nothing" in said

    @given(
        acting=st.one_of(
            st.sampled_from([act for act in ACTS if "COLUMNS" not in act]),
            st.sampled_from(TABLES).flatmap(lambda source: st.sampled_from(list(ways_in(source)))),
        ),
        around=st.lists(
            st.sampled_from(
                [
                    "(id < 3) AND ({})",
                    "({}) OR id > 3",
                    "NOT ({})",
                    "CASE WHEN {} THEN true ELSE false END",
                    "CASE WHEN id < 0 THEN ({}) END",
                    "coalesce({}, true)",
                    "({}) IS NULL",
                    "({}) BETWEEN false AND true",
                    "true IN (false, ({}))",
                    "({})::VARCHAR = 'true'",
                    "list_contains([true], ({}))",
                    "id IN (SELECT id FROM t WHERE ({}))",
                    "EXISTS (SELECT 1 FROM t GROUP BY ({}))",
                    "EXISTS (SELECT 1 FROM t GROUP BY id HAVING ({}))",
                    "id IN (SELECT id FROM t ORDER BY ({}) LIMIT 3)",
                    "EXISTS (SELECT count(*) FILTER (({})) FROM t)",
                    "EXISTS (SELECT sum(id) OVER (ORDER BY ({})) FROM t)",
                    "EXISTS (SELECT 1 FROM t JOIN t u ON ({}))",
                    "EXISTS (FROM (VALUES (({}))))",
                    "EXISTS (SELECT DISTINCT ON (({})) 1 FROM t)",
                    "EXISTS (SELECT * REPLACE (({}) AS id) FROM t)",
                    "EXISTS (SELECT unnest([({})]))",
                    "harmless({})",
                ]
            ),
            max_size=4,
        ),
    )
    @settings(max_examples=some(150), deadline=None)
    def test_wherever_it_stands(self, kept, acting, around):
        con, world = kept
        con.execute("CREATE OR REPLACE MACRO harmless(x) AS x IS NOT NULL")
        before = world()
        predicate = acting
        for place in around:
            predicate = place.format(predicate)
        with pytest.raises(duckdb.Error):
            found(con, predicate)
        assert world() == before

    @pytest.mark.parametrize("temp", ["", "TEMP"])
    @pytest.mark.parametrize(
        ("macro", "predicate"),
        [
            ("upper(x)", "upper(text) = 'TEXT NUMBER 3'"),
            ('"+"(a, b)', "id + 1 = 4"),
            ("current_date()", "current_date > DATE '2020-01-01' AND id = 3"),
            ("contains(a, b)", "text.contains('3')"),
            ("date_part(a, b)", "extract(year FROM DATE '2020-01-01') = 2020 AND id = 3"),
            ("count_star()", "id = (SELECT count(*) FROM t WHERE id < 3)"),
        ],
    )
    def test_a_macro_in_the_place_of_a_function_of_duckdbs_is_not_called(
        self, full, calls, tmp_path, temp, macro, predicate
    ):
        full.execute(f"CREATE {temp} MACRO {macro} AS counting('called')")
        before = world(full, calls, tmp_path)
        assert found(full, predicate) == [3]
        assert world(full, calls, tmp_path) == before

    def test_a_name_that_comes_to_act_is_looked_at_again(self, full):
        full.execute("CREATE MACRO small(n) AS n < 3; CREATE VIEW few AS SELECT id FROM t WHERE id < 2")
        for _ in range(2):
            assert found(full, "small(id)") == [0, 1, 2]
            assert found(full, "id IN (FROM few)") == [0, 1]
        full.execute("CREATE OR REPLACE MACRO small(n) AS n < 2; CREATE OR REPLACE VIEW few AS SELECT 5 AS id")
        assert found(full, "small(id)") == [0, 1]
        assert found(full, "id IN (FROM few)") == [5]
        full.execute("CREATE OR REPLACE MACRO small(n) AS n < generating(); CREATE OR REPLACE VIEW few AS FROM acting")
        for predicate in ("small(id)", "id IN (FROM few)"):
            assert "calls jammi_generate" in error_of(full, f"FROM jammi_search('t', 'x', filter := '{predicate}')")
        full.execute("DROP VIEW few; CREATE TABLE few AS SELECT 7 AS id")
        assert found(full, "id IN (FROM few)") == [7]

    def test_a_macro_is_parsed_once_however_often_it_is_called(self, full, monkeypatch):
        full.execute(
            "; ".join(f"CREATE MACRO d{n}(x) AS {f'd{n - 1}(x) + d{n - 1}(x)' if n else 'x'}" for n in range(6))
        )
        parsed = []
        monkeypatch.setattr(check, "parse", lambda host, text: parsed.append(text) or parse(host, text))
        assert found(full, "d5(id) > 64") == expected(full, "d5(id) > 64") == list(range(3, ROWS))
        assert len(parsed) == len(set(parsed)) == 6

    @pytest.mark.parametrize(
        ("made", "predicate", "message"),
        [
            (
                "CREATE MACRO a(x) AS x; CREATE MACRO b(x) AS a(x); CREATE OR REPLACE MACRO a(x) AS b(x)",
                "a(1)",
                "without",
            ),
            (
                "CREATE VIEW a AS SELECT 1 AS id; CREATE VIEW b AS FROM a; CREATE OR REPLACE VIEW a AS FROM b",
                "id IN (FROM a)",
                "without an end",
            ),
            (
                ";".join(f"CREATE MACRO d{n}(x) AS {f'd{n - 1}(x) + d{n - 1}(x)' if n else 'x'}" for n in range(24)),
                "d23(id) > 0",
                "too large",
            ),
        ],
    )
    def test_what_has_no_end_is_refused(self, full, made, predicate, message):
        try:
            full.execute(made)
        except duckdb.Error:
            pytest.skip("this DuckDB does not let it be made")
        assert message in error_of(full, f"FROM jammi_search('t', 'x', filter := '{predicate}')")


# DuckDB fetches an extension, and loads it, for a type, a collation or a function that it does not have.
FETCHES = (
    "TRY_CAST('1.2.3.4' AS INET) IS NULL",
    "[]::STRUCT(a INET)[] = []",
    "INET '1.2.3.4' IS NULL",
    "list_transform(['1'], lambda x: x::INET) = []",
    "text COLLATE klingon = 'x'",
    "text COLLATE nocase.klingon = 'x'",
    "list_aggr([1], 'host') = 1",
    "array_aggregate([1], 'html_escape') = 1",
    "list_aggr([1], lower('HOST')) = 1",
    "json_transform('1', '\"INET\"') IS NULL",
    "from_json('1', '\"INET\"') IS NULL",
    "by_name('host') = 1",
)
# A model from the hub, or a folder that only the filter names.
MODELS = ("'someone/some-model'", "'/etc'", "text", "'fake/' || 'small'", "$model")


class TestFetches:
    @pytest.mark.parametrize("predicate", FETCHES)
    def test_no_extension_is_fetched(self, kept, predicate):
        # DuckDB 1 refuses such a macro itself.
        with contextlib.suppress(duckdb.InvalidInputException):
            kept[0].execute("CREATE OR REPLACE MACRO by_name(n) AS list_aggregate([1], n)")
        assert "InputError: the filter" in error_of(kept[0], f"FROM jammi_search('t', 'x', filter := $${predicate}$$)")

    @pytest.mark.parametrize("model", MODELS)
    def test_no_model_is_fetched_or_read(self, kept, model):
        given = ", parameters := {'model': 'fake/small'}" if "$" in model else ""
        predicate = f"embed(text, {model}) IS NULL"
        said = error_of(
            kept[0], f"FROM jammi_search('t', 'x', filter := '{predicate.replace(chr(39), 2 * chr(39))}'{given})"
        )
        assert "it may use the default model, and those of embedding tables" in said

    def test_models_in_use(self, full):
        full.execute("FROM jammi_generate('t', 'text', 'id', model := 'fake/other')").fetchall()
        predicate = "len(embed(text, 'fake/other')) = 8 AND len(embed(text, NULL)) = len(embed(text, 'fake/small'))"
        assert found(full, predicate) == list(range(ROWS))

    @pytest.mark.parametrize("given", ["store_rejects = true", "STORE_REJECTS := true", "rejects_table => 'made'"])
    def test_reading_a_file_makes_no_tables(self, full, tmp_path, given):
        (tmp_path / "bad.csv").write_text("id\n1\nx\n")
        full.execute(f"CREATE VIEW rejecting AS FROM read_csv('bad.csv', columns = {{'id': 'INTEGER'}}, {given})")
        assert "which makes tables" in error_of(full, "FROM jammi_search('t', 'x', filter := 'id IN (FROM rejecting)')")


HARMLESS = st.recursive(
    st.sampled_from(
        [
            "id < 5",
            "t.id % 3 = 1",
            "text LIKE '%1%'",
            "text ILIKE 'TEXT%'",
            "id BETWEEN 2 AND 7",
            "id IN (1, 4, 9)",
            "id NOT IN (SELECT id FROM t WHERE id > 4)",
            "length(text) > 13",
            "upper(text) = 'TEXT NUMBER 3'",
            "text.upper().trim() = 'TEXT NUMBER 4'",
            "id IS NOT DISTINCT FROM 4",
            "CASE WHEN id > 4 THEN id = 7 ELSE id = 1 END",
            "id = ANY ([2, 3])",
            "id::VARCHAR = '3'",
            "TRY_CAST(text AS INTEGER) IS NULL",
            "regexp_matches(text, '[24]')",
            "text SIMILAR TO '.*[13]'",
            "coalesce(nullif(id, 3), 8) = 8",
            "[id, 7][1] = 6",
            "{'a': id}.a = 5",
            "MAP {'a': id}['a'] = 5",
            "list_sum([id, 1]) = 4",
            "list_filter([1, 2, 3], lambda x: x = id) <> []",
            "list_reduce([id, 2], lambda x, y: x + y) = 5",
            "list_transform([id, 2], lambda x, i: x * i)[1] = 4",
            "[x * 2 FOR x IN [id, 2] IF x > 3] = [8]",
            "half(id) = 1.5",
            "kind(id) = 'DOUBLE'",
            "list_aggregate([id, 3], 'max') = 3",
            "list_aggr([id, 4], 'quantile_cont', 0.5) = 3.5",
            "array_aggr([text, 'b'], 'string_agg', '-') = 'text number 3-b'",
            "EXISTS (SELECT 1 FROM t u WHERE u.id = t.id + 8)",
            "id > (SELECT avg(x.id) FROM t x)",
            "id IN (SELECT id FROM few)",
            "id IN (SELECT r FROM (SELECT id AS r, row_number() OVER (ORDER BY id DESC) AS n FROM t) WHERE n < 3)",
            "id IN (WITH c(i) AS (SELECT id + 1 FROM t) SELECT i FROM c WHERE i > 8)",
            "id IN (WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 2 FROM r WHERE n < 6) SELECT n FROM r)",
            "id IN (SELECT unnest([1, 5]))",
            "id IN (VALUES (2), (3))",
            "id IN (SELECT id FROM t EXCEPT SELECT id FROM few)",
            "small(id, y := 4)",
            "id IN (FROM below(3))",
            "('{\"a\": 3}'::JSON->>'a')::INTEGER = id",
            "(date_trunc('month', DATE '2020-02-03') + INTERVAL (id) DAY) > DATE '2020-02-08'",
            "1.5e0 * id > 10 AND -id < 0.5",
            "text = 'it''s'",
            "id ** 2 = 9 OR id // 2 = 4",
            "text COLLATE nocase = 'TEXT NUMBER 2'",
            "text[1:4] = 'text' AND id = 6",
            "concat_ws('-', id, text) = '3-text number 3'",
            "id = 10::DECIMAL(9, 2)",
            "current_date > DATE '2020-01-01'",
            "(SELECT count(DISTINCT id) FILTER (WHERE id > 2) FROM t) > id",
            "(id < 5) IS TRUE",
            "(id < 5) IS NOT FALSE",
            "text LIKE 'text!%' ESCAPE '!' OR text NOT LIKE 't!%' ESCAPE '!' AND id < 4",
            "[x + 1 for x in [id, 2] if x > 2] = [4]",
        ]
    ),
    lambda inner: st.one_of(
        inner.map("NOT ({})".format),
        st.tuples(inner, st.sampled_from(["AND", "OR", "=", "IS DISTINCT FROM"]), inner).map(
            lambda parts: "({}) {} ({})".format(*parts)
        ),
        inner.map("id IN (SELECT t.id FROM t WHERE {})".format),
        inner.map("coalesce(({}), false)".format),
    ),
    max_leaves=5,
)


# What a macro may stand for, which DuckDB's parser reads otherwise where something else is around it.
MACROS = [
    "x < 4", "x >= 4", "x = 4", "x <> 4", "x IN (2, 4)", "x NOT IN (2, 4)", "x IS DISTINCT FROM 4",
    "x IS NOT DISTINCT FROM 4", "x BETWEEN 2 AND 4", "x NOT BETWEEN 2 AND 4", "x IS NULL", "x IS NOT NULL",
    "x > 2 AND x < 5", "x < 2 OR x > 5", "NOT (x < 4)", "x::VARCHAR LIKE '2%'", "x::VARCHAR NOT LIKE '2%'",
    "EXISTS (SELECT 1 WHERE x > 3)", "CASE WHEN x > 3 THEN true ELSE false END", "-x < -3", "x + 1 < 4",
    "(x < 4) = (x > 2)", "coalesce(x < 4, false)", "x::VARCHAR COLLATE nocase = 'A'", "x = ANY (SELECT 3)", "true",
]  # fmt: skip
AROUND = ["NOT (NOT {})", "id > 1 AND ({} AND id < 9)", "{} OR id = 1", "CASE WHEN NOT {} THEN id > 2 END"]
MORE_AROUND = [
    "{}", "NOT {}", "{} AND id > 1", "{} = true", "({}) IS NULL", "{} IS NOT DISTINCT FROM false",
    "id IN (SELECT id FROM t WHERE NOT {})", "{}::INTEGER + 1 > 1", "-({}::INTEGER) < 0", "[{}][1]",
    "true BETWEEN {} AND true", "{} IN (true)",
]  # fmt: skip


class TestHarmless:
    @pytest.mark.parametrize("around", AROUND + [pytest.param(each, marks=pytest.mark.long) for each in MORE_AROUND])
    def test_a_macro_may_stand_anywhere(self, full, around):
        for number, body in enumerate(MACROS):
            full.execute(f"CREATE MACRO test{number}(x) AS {body}")
            predicate = around.format(f"test{number}(id)")
            assert found(full, predicate) == expected(full, predicate), predicate

    @pytest.mark.parametrize(
        "predicate",
        [
            "(id < 5) IS TRUE",
            "(id < 5) IS NOT FALSE",
            "text LIKE '%!4' ESCAPE '!'",
            "[x + 1 for x in [id] if x > 2] = [4]",
        ],
    )
    def test_what_duckdb_writes_otherwise(self, kept, predicate):
        assert found(kept[0], predicate) == expected(kept[0], predicate)

    @given(predicate=HARMLESS)
    @settings(max_examples=some(120), deadline=None)
    def test_finds_what_where_finds(self, kept, predicate):
        full, _ = kept
        full.execute("CREATE OR REPLACE VIEW few AS SELECT id FROM t WHERE id < 4")
        full.execute("CREATE OR REPLACE MACRO small(x, y) AS x < y")
        full.execute("CREATE OR REPLACE MACRO below(n) AS TABLE SELECT id FROM t WHERE id < n")
        full.execute("CREATE OR REPLACE MACRO half(n DOUBLE) AS n / 2")
        full.execute("CREATE OR REPLACE MACRO kind(n DOUBLE) AS typeof(n)")
        assert found(full, predicate) == expected(full, predicate)

    @pytest.mark.parametrize("name", ["count", "list", "max", "query", "range", "unnest", "_jammi_search"])
    def test_a_name_that_a_function_of_ours_has_stays_a_name(self, kept, name):
        full, _ = kept
        column = '"md5(x)"'
        assert found(full, f"id IN (WITH {name}(i) AS (SELECT id FROM t) SELECT i FROM {name} WHERE i > 10)") == [11]
        assert found(full, f"id IN (SELECT i FROM (SELECT id FROM t) {name}(i) WHERE i > 10)") == [11]
        assert found(full, f"id IN (SELECT {column} FROM (SELECT id AS {column} FROM t) WHERE {column} > 10)") == [11]
        assert found(full, f"id = 7 AND text <> '{name}(1)'") == [7]

    def test_a_temp_table_goes_before_its_namesake(self, full):
        full.execute("CREATE TABLE chosen AS SELECT 1 AS id; CREATE TEMP TABLE chosen AS SELECT 2 AS id")
        assert found(full, "id IN (FROM chosen)") == [2]
        assert found(full, "id IN (FROM temp.chosen)") == [2]
        assert found(full, "id IN (FROM memory.main.chosen)") == [1]

    def test_names_are_those_of_the_callers_search_path(self, full):
        full.execute("CREATE SCHEMA s; CREATE TABLE s.few AS SELECT 3 AS id; CREATE VIEW s.over AS FROM few")
        full.execute("CREATE VIEW few AS SELECT 4 AS id")
        assert found(full, "id IN (FROM s.over)") == [3]
        assert found(full, "id IN (FROM few)") == [4]

    @pytest.mark.parametrize("current", ["main", "elsewhere"])
    @pytest.mark.parametrize(
        "body",
        ["SELECT id FROM main.t WHERE chosen(id)", "SELECT id FROM few", "FROM listed()", "SELECT picked() AS id"],
    )
    def test_what_a_view_names_is_looked_for_beside_it_first(self, full, body, current):
        for schema, number in ("main", 3), ("s", 5), ("elsewhere", 7):
            full.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}; CREATE MACRO {schema}.chosen(n) AS n = {number}")
            full.execute(f"CREATE TABLE {schema}.few AS SELECT {number} AS id")
        full.execute("CREATE MACRO s.picked() AS (SELECT id FROM few); CREATE MACRO s.listed() AS TABLE FROM few")
        full.execute(f"CREATE VIEW s.v AS {body}; USE {current}")
        text = "SELECT id FROM jammi_search('main.t', 'text', 100, filter := 'id IN (FROM s.v)')"
        assert full.execute(text).fetchall() == full.execute("FROM s.v").fetchall() == [(5,)]

    def test_names_that_are_not_ascii(self, full):
        full.execute('CREATE VIEW "Ärmel" AS SELECT 4 AS id; CREATE MACRO "Öse"(n) AS n = 5')
        assert found(full, 'id IN (FROM "Ärmel")') == [4]
        assert found(full, '"Öse"(id)') == [5]

    def test_a_view_reads_a_temp_table_as_duckdb_does(self, full):
        full.execute(
            "CREATE TABLE few AS SELECT 1 AS id; CREATE VIEW over AS FROM few; CREATE TEMP TABLE few AS SELECT 2 AS id"
        )
        assert found(full, "id IN (FROM over)") == expected(full, "id IN (FROM over)") == [2]

    def test_a_view_may_read_files_that_it_names(self, full):
        full.execute("CREATE VIEW listed AS FROM read_csv('secrets.csv'); CREATE VIEW named AS FROM 'secrets.csv'")
        assert found(full, "id IN (FROM listed)") == found(full, "id IN (FROM named)") == [1, 2]

    @pytest.mark.parametrize(
        "number",
        ["1.5e0", "1e300", "1e-7", "0.1e0", "123456789.125e0", "1.50", "99999999999999999999", "1e5", ".5", "5e0 / 3"],
    )
    def test_numbers_keep_their_types(self, kept, number):
        full, _ = kept
        (kind,) = full.execute(f"SELECT typeof({number})").fetchone()
        (text,) = full.execute(f"SELECT ({number})::VARCHAR").fetchone()
        assert found(full, f"typeof({number}) = '{kind}' AND ({number})::VARCHAR = '{text}' AND id = 3") == [3]

    def test_embed(self, full):
        near = "list_cosine_similarity(embed(text), embed('text number 3', role := 'query'))"
        assert found(full, f"{near} > 0.99 AND embed(text, dims := 8) IS NOT NULL") == [3]

    def test_it_is_evaluated_once(self, full, monkeypatch):
        seen, encode = [], FakeEncoder.encode
        monkeypatch.setattr(FakeEncoder, "encode", lambda *a: seen.append(a[1]) or encode(*a))
        full.execute("SELECT id FROM jammi_search('t', 'x', 2, filter := $$embed(text)[1] > -2$$)").fetchall()
        embedded = list(itertools.chain.from_iterable(texts for texts in seen if texts != ["x"]))
        assert len(embedded) == ROWS + 2

    def test_a_doubled_key_brings_no_row_that_does_not_pass(self, full):
        full.execute("INSERT INTO t SELECT id, 'hidden' FROM t")
        rows = full.execute("SELECT text FROM jammi_search('t', 'x', 99, filter := 'text <> ''hidden''')").fetchall()
        assert len(rows) == ROWS
        assert ("hidden",) not in rows

    def test_many_values_and_deep_nests(self, full):
        assert found(full, f"id IN ({', '.join(map(str, range(5, 20_000)))})") == list(range(5, ROWS))
        assert found(full, " OR ".join(f"id = {n}" for n in range(700))) == list(range(ROWS))
        for depth in (50, 500, 3000):
            deep = f"id{' + 0' * depth} = 3"
            if depth == 50:
                assert found(full, deep) == [3]
            else:
                said = error_of(full, f"FROM jammi_search('t', 'x', filter := '{deep}')")
                assert "is nested too deeply" in said or "expression depth" in said


VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.dates(datetime.date(1, 1, 2)),
    st.datetimes(datetime.datetime(1, 1, 2)),
    st.decimals(-(10**9), 10**9, allow_nan=False, places=4),
    st.uuids(),
    st.sampled_from(["x' OR 'a'='a", "'; DROP TABLE t; --", "$name", "\x00", '"', "a" * 100_000]),
)


class TestParameters:
    @given(values=st.dictionaries(st.text("abc' \"$é", min_size=1, max_size=4), VALUES, min_size=1, max_size=3))
    @settings(max_examples=some(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_values_arrive_as_they_are(self, full, jammi, values):
        values = {name: value for name, value in values.items() if name.strip() and "$" not in name}
        if len({name.lower() for name in values}) < len(values) or not values:
            return
        full.execute("CREATE OR REPLACE TABLE given AS SELECT 3 AS id")
        for place, value in enumerate(values.values()):
            kind = full.execute("SELECT typeof(?)", [value]).fetchall()[0][0]
            full.execute(f"ALTER TABLE given ADD COLUMN v{place} {kind}")
            full.execute(f"UPDATE given SET v{place} = ?", [value])
        same = " AND ".join(
            f"v{place} IS NOT DISTINCT FROM ${_quoted(name)} AND typeof(v{place}) = typeof(${_quoted(name)})"
            for place, name in enumerate(values)
        )
        rows = jammi.search("t", "x", filter=f"id IN (SELECT id FROM given WHERE {same})", parameters=values)
        assert [row[0] for row in rows.fetchall()] == [3]

    def test_a_value_never_becomes_sql(self, full, jammi):
        for text in ("x' OR 'a'='a", "text number 3' --", "$b", "text number 3\x00"):
            assert jammi.search("t", "x", filter="text = $a", parameters={"a": text}).fetchall() == []
        hit = jammi.search("t", "x", filter="text = $a", parameters={"a": "text number 3"})
        assert hit.project("id").fetchall() == [(3,)]

    @pytest.mark.parametrize(
        ("predicate", "parameters", "ids"),
        [
            ("id = $i", "{'i': 3}", [3]),
            ("id = $i", "MAP {'i': 3}", [3]),
            ("id = $i AND text = $t", "{'i': 3, 't': 'text number 3'}", [3]),
            ("id IN (SELECT unnest($ids))", "{'ids': [3, 4]}", [3, 4]),
            ("list_contains($ids, id)", "{'ids': [3, 4]}", [3, 4]),
            ("id = $s.a", "{'s': {'a': 3}}", [3]),
            ("id = struct_extract($s, 'a')", "{'s': {'a': 3}}", [3]),
            ("id IS NOT DISTINCT FROM $n", "{'n': NULL}", []),
            ("id IN (SELECT id FROM t WHERE id < $i)", "{'i': 2}", [0, 1]),
            ("is_it(id, $i)", "{'i': 2}", [2]),
            ("embed(text)[1] IS NOT NULL AND id = $i", "{'i': 2::DECIMAL(9, 1)}", [2]),
        ],
    )
    def test_structs_and_maps(self, kept, predicate, parameters, ids):
        kept[0].execute("CREATE OR REPLACE MACRO is_it(a, b) AS a = b")
        assert found(kept[0], predicate, f", parameters := {parameters}") == ids

    @pytest.mark.parametrize(
        ("predicate", "parameters", "message"),
        [
            ("id = $i", "NULL", "the filter names $i, and no parameter 'i' was given"),
            ("id = $i", "MAP {'j': 3}", "no parameter 'i' was given; there are: j"),
            ("id = $i", "{'i': 3, 'j': 4}", "the parameter 'j' was given, and the filter does not name $j"),
            ("id = 3", "{'j': 4}", "the parameter 'j' was given, and the filter does not name $j"),
            ("id = 3", "5", "parameters have no names"),
            ("id = $1", "{'i': 3}", "has a parameter without a name"),
            ("id = ?", "{'i': 3}", "has a parameter without a name"),
        ],
    )
    @pytest.mark.parametrize("verb", ["search", "matches", "explain"])
    def test_mistakes(self, kept, verb, predicate, parameters, message):
        said = error_of(kept[0], f"FROM jammi_{verb}('t', 'x', filter := '{predicate}', parameters := {parameters})")
        # To DuckDB 1.4, a NULL in a CTE is an INTEGER, and no parameter can be taken of that.
        of_duckdb = parameters == "NULL" and duckdb.__version__ < "1.5" and "array_extract(INTEGER" in said
        assert message in said or of_duckdb

    def test_a_struct_without_the_name(self, full):
        said = error_of(full, "FROM jammi_search('t', 'x', filter := 'id = $center', parameters := {'centre': 3})")
        assert "center" in said or duckdb.__version__ < "1.5"

    def test_parameters_without_a_filter(self, full):
        said = error_of(full, "FROM jammi_search('t', 'x', parameters := {'a': 3})")
        assert "the parameter 'a' was given" in said

    def test_prepared_statements(self, full):
        more = ", parameters := {'i': ?, 't': ?}"
        assert found(full, "id = $i AND text = $t", more, [3, "text number 3"]) == [3]
        full.execute(
            "PREPARE find AS SELECT id FROM jammi_search('t', 'x', filter := 'id = $i', parameters := {'i': $1})"
        )
        assert full.execute("EXECUTE find(3)").fetchall() == [(3,)]
        assert full.execute("EXECUTE find(4)").fetchall() == [(4,)]
        assert found(full, "id = $i", ", parameters := ?", [{"i": 5}]) == [5]

    def test_each_row_of_a_lateral_join_has_its_own(self, full):
        rows = full.execute(
            "SELECT q.n, s.id FROM range(10) q(n), jammi_search('t', 'x', filter := 'id = $i', "
            "parameters := {'i': q.n}) s"
        ).fetchall()
        assert sorted(rows) == [(n, n) for n in range(10)]
        rows = full.execute(
            "SELECT q.n, s.id FROM range(10) q(n), jammi_similar('t', q.n, filter := 'id < $i', "
            "parameters := MAP {'i': q.n}) s"
        ).fetchall()
        assert sorted(rows) == [(n, i) for n in range(10) for i in range(n)]

    @pytest.mark.parametrize("verb", ["search", "matches", "similar"])
    def test_those_of_a_sub_query_are_each_rows_own(self, kept, verb):
        full, _ = kept
        asked = "q.n" if verb == "similar" else "'x'"
        for predicate in ("id IN (SELECT unnest($ids))", "id IN (SELECT id FROM t WHERE list_contains($ids, id))"):
            rows = full.execute(
                f"SELECT q.n, s._row_id FROM range(4) q(n), jammi_{verb}('t', {asked}, filter := '{predicate}', "
                "parameters := {'ids': [q.n + 5, q.n + 6]}) s"
            ).fetchall()
            assert sorted(rows) == [(n, str(n + more)) for n in range(4) for more in (5, 6)]

    def test_the_other_verbs(self, full, jammi):
        given = {"i": 5}
        assert len(jammi.similar("t", 3, 99, filter="id < $i", parameters=given).fetchall()) == 4
        stages = jammi.explain("t", "x", 99, filter="id < $i", parameters=given).fetchall()
        assert {row[0]: row[2] for row in stages}["filter"] == 5
        rows = full.execute("FROM jammi_matches('t', 'x', 99, filter := 'id < $i', parameters := {'i': 5})")
        assert len(rows.fetchall()) == 5


def _quoted(name):
    return '"' + name.replace('"', '""') + '"'
