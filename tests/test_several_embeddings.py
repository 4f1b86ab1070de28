"""Several embeddings of one source at once: made, kept, chosen, refused, interrupted and found again."""

import contextlib
import json
import warnings

import duckdb
import numpy as np
import pytest

import jammi_duck
from jammi_duck import EncodingError, InputError, JammiWarning, NotFoundError
from jammi_duck.doors import installation
from jammi_duck.storage.tables.build import Build
from jammi_duck.work import text_buffer
from jammi_duck.work.generate import Generated
from jammi_duck.work.sync import Synced
from tests.fakes import DIMENSIONS, FakeEncoder, text_vector
from tests.stock_shell import folder as shell_folder  # noqa: F401 - a fixture
from tests.stock_shell import needs_extension, rows, shell
from tests.test_cli import call, folder  # noqa: F401 - a fixture
from tests.test_generate import error_of, nothing_is_left
from tests.worlds import World, every_death, every_failure

BOTH = "{'title': 'title', 'body': ['body', 'summary']}"
ROWS = 9
TITLES = [f"title{i}" for i in range(ROWS)]
BODIES = [f"body{i} summary{i}" if i % 3 else f"body{i}" for i in range(ROWS)]


def fill(con):
    con.execute(
        f"CREATE TABLE docs AS SELECT range AS id, 'title' || range AS title, 'body' || range AS body, "
        f"CASE WHEN range % 3 > 0 THEN 'summary' || range END AS summary FROM range({ROWS})"
    )


def generate(con, columns=BOTH, options="", told="split_part(embedding_table, '__', 1), row_count"):
    return con.execute(f"SELECT {told} FROM jammi_generate('docs', {columns}, 'id'{options})").fetchall()


def sync(con, columns=BOTH, options=""):
    told = "split_part(embedding_table, '__', 1), action, added, changed, unchanged"
    return con.execute(f"SELECT {told} FROM jammi_sync('docs', {columns}, 'id'{options})").fetchall()


def found(con, query, column, k=1, verb="jammi_search"):
    return [
        row[0]
        for row in con.execute(f"SELECT id FROM {verb}('docs', ?, {k}, \"column\" := ?)", [query, column]).fetchall()
    ]


def tables(con):
    """The embedding tables as they were begun: what their names begin with, their columns and their status."""
    told = "split_part(embedding_table, '__', 1), columns, status"
    return con.execute(f"SELECT {told} FROM jammi_tables() ORDER BY started").fetchall()


def holds(con, label, texts):
    """Whether the newest table of a label has the vectors of these texts, by their keys."""
    (name,) = con.execute(
        "SELECT embedding_table FROM jammi_tables() WHERE starts_with(embedding_table, ?) AND status = 'ready' "
        "ORDER BY started DESC LIMIT 1",
        [f"docs.{label}__"],
    ).fetchone()
    there = {int(key): vector for key, vector in con.execute(f'SELECT _row_id, vector FROM jammi."{name}"').fetchall()}
    assert there.keys() == texts.keys()
    for key, text in texts.items():
        np.testing.assert_array_equal(np.array(there[key], np.float32), text_vector(text))


@pytest.fixture
def docs(con):
    fill(con)
    return con


@pytest.fixture
def both(docs, encoded):
    generate(docs)
    encoded()
    return docs


class TestGenerate:
    def test_each_has_a_table_and_a_row_in_their_order(self, docs):
        assert generate(docs, "{'body': ['body', 'summary'], 'title': 'title'}") == [
            ("docs.body", ROWS),
            ("docs.title", ROWS),
        ]
        assert tables(docs) == [
            ("docs.body", ["body", "summary"], "ready"),
            ("docs.title", ["title"], "ready"),
        ]
        holds(docs, "title", dict(enumerate(TITLES)))
        holds(docs, "body", dict(enumerate(BODIES)))

    def test_each_text_is_embedded_once(self, docs, encoded):
        generate(docs)
        assert encoded() == sorted(TITLES + BODIES)

    def test_the_source_is_read_once_for_all(self, docs):
        """A column of a view counts the rows that are read of it."""
        counts = dict.fromkeys(("title", "body"), 0)

        def counting(name):
            def counted(text: str) -> str:
                counts[name] += 1
                return text

            return counted

        for name in counts:
            docs.create_function(f"count_{name}", counting(name), side_effects=True)
        docs.execute(
            "CREATE VIEW counted AS SELECT id, count_title(title) AS title, count_body(body) AS body FROM docs"
        )
        text = "FROM jammi_generate('counted', {}, 'id')"
        docs.execute(text.format("['title', 'body']")).fetchall()
        assert counts == {"title": ROWS, "body": ROWS}
        counts.update(title=0, body=0)
        docs.execute(text.format("{'title': 'title', 'body': 'body', 'all': ['title', 'body']}")).fetchall()
        assert counts == {"title": ROWS, "body": ROWS}

    def test_what_they_skip_is_their_own(self, docs):
        docs.execute("UPDATE docs SET title = NULL WHERE id < 4")
        told = "row_count, skipped_count"
        assert generate(docs, told=told) == [(ROWS - 4, 4), (ROWS, 0)]
        docs.execute("DELETE FROM docs")
        assert generate(docs, told=told) == [(0, 0), (0, 0)]

    def test_every_option_is_for_each(self, docs, encoded):
        generate(docs, options=", model := 'fake/other', dims := 5, name := 'v2', language := 'none'")
        assert tables(docs)[0][0] == "v2.title"
        told = "SELECT DISTINCT model, dimensions FROM jammi_tables()"
        assert docs.execute(told).fetchall() == [("fake/other", 5)]
        by_name = "SELECT id FROM jammi_search('docs', 'title4', 1, embedding_table := 'v2.title')"
        assert docs.execute(by_name).fetchall() == [(4,)]
        assert generate(docs, options=", vectors := false", told="model, dimensions") == [(None, None)] * 2
        assert found(docs, "body4", "body") == [4]
        generate(docs, options=", words := false")
        error = error_of(docs, """FROM jammi_search('docs', 'body4', mode := 'text', "column" := 'body')""")
        assert "has no index of words" in error

    def test_a_cte_a_frame_and_an_open_transaction(self, docs):
        cte = f"WITH few AS (FROM docs LIMIT 3) SELECT row_count FROM jammi_generate('few', {BOTH}, 'id')"
        assert docs.execute(cte).fetchall() == [(3,), (3,)]
        docs.begin()
        docs.execute("CREATE TEMP TABLE draft AS FROM docs LIMIT 4")
        draft = f"SELECT row_count FROM jammi_generate('draft', {BOTH}, 'id')"
        assert docs.execute(draft).fetchall() == [(4,), (4,)]
        docs.rollback()

    def test_a_map_and_a_prepared_statement(self, docs):
        assert len(generate(docs, "MAP {'title': ['title'], 'body': ['body']}")) == 2
        docs.execute("DELETE FROM docs WHERE id = 0")
        docs.execute("PREPARE made AS SELECT row_count FROM jammi_generate('docs', $1, 'id')")
        assert docs.execute(f"EXECUTE made({BOTH})").fetchall() == [(ROWS - 1,), (ROWS - 1,)]

    def test_explain_builds_nothing(self, docs, jammi, storage):
        docs.execute(f"EXPLAIN FROM jammi_generate('docs', {BOTH}, 'id')")
        nothing_is_left(jammi, storage)

    def test_two_calls_in_one_query(self, docs):
        query = f"FROM jammi_generate('docs', {BOTH}, 'id') UNION ALL FROM jammi_generate('docs', 'title', 'id')"
        assert len(docs.execute(query).fetchall()) == 3
        assert [name for name, _, _ in tables(docs)].count("docs") == 1

    def test_their_texts_share_the_memory_of_one(self, docs, jammi, monkeypatch):
        """So many characters wait at a time, however many embeddings there are."""
        monkeypatch.setattr(text_buffer, "CHARACTERS", 1000)
        docs.execute("CREATE TABLE long AS SELECT range AS id, repeat('a', 100) || range AS a, a AS b FROM range(200)")
        sizes = []
        encode = FakeEncoder.encode_rows

        def noting(encoder, texts, role, progress):
            sizes.append(sum(map(len, texts)))
            return encode(encoder, texts, role, progress)

        monkeypatch.setattr(FakeEncoder, "encode_rows", noting)
        docs.execute("FROM jammi_generate('long', 'a', 'id')").fetchall()
        assert 1000 <= max(sizes) < 1200
        sizes.clear()
        docs.execute("FROM jammi_generate('long', {'a': 'a', 'b': 'b'}, 'id')").fetchall()
        assert 500 <= max(sizes) < 700
        assert sum(sizes) == 2 * docs.execute("SELECT sum(len(a)) FROM long").fetchone()[0]

    def test_many_rows_on_several_threads(self, con):
        con.execute("SET threads = 4")
        con.execute(
            "CREATE TABLE docs AS SELECT range AS id, 't' || range AS title, 'b' || range AS body FROM range(5_000)"
        )
        assert generate(con, "{'title': 'title', 'body': 'body'}") == [("docs.title", 5_000), ("docs.body", 5_000)]
        assert found(con, "b4999", "body") == found(con, "t4999", "title") == [4_999]


MISTAKES = [
    ("MAP {}", "columns are empty; give a label and its columns for each embedding, such as {'title': 'title'"),
    ("{'title': NULL}", "the columns of 'title' are NULL; give a name, or a list of names"),
    ("{'title': []}", "the columns of 'title' are []; give a name, or a list of names"),
    ("{'title': 3}", "the columns of 'title' are 3; give a name, or a list of names"),
    ("{'title': {'of': 'title'}}", "the columns of 'title' are"),
    ("{'title': ['title', 'body', 'TITLE']}", "the column 'TITLE' is there twice for 'title'; name it once"),
    ("{'a': 'title', 'b': ['TITLE']}", "'a' and 'b' are both of TITLE, and would be the same embedding; leave out one"),
    ("MAP {'Title': 'title', 'title': 'body'}", "'Title' and 'title' are the same label; call one of them something"),
    ("{'full text': 'body'}", "'full text' cannot be the label of an embedding: give 1 to 64 letters, digits"),
    ("{'.body': 'body'}", "'.body' cannot be the label of an embedding"),
    ("MAP {'': 'body'}", "'' cannot be the label of an embedding"),
    ("{'a__embedding__b': 'body'}", "without __embedding__"),
    ("{'title': 'titel', 'body': 'body'}", "no column 'titel' in 'docs'; did you mean 'title'?"),
    ("map_from_entries([('l' || range, 'c' || range) FOR range IN range(33)])", "33 embeddings are too many for one"),
    (
        "map_from_entries([('l' || i, ['c' || j FOR j IN range(i * 100, i * 100 + 100)]) FOR i IN range(11)])",
        "1,100 columns are too many for one call: name 1,000 at most",
    ),
]


class TestMistakes:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(("columns", "told"), MISTAKES, ids=[told[:50] for _, told in MISTAKES])
    def test_they_are_told_before_any_work(self, docs, jammi, storage, encoded, columns, told):
        for verb in ("jammi_generate", "jammi_sync"):
            assert told in error_of(docs, f"FROM {verb}('docs', {columns}, 'id')")
        assert encoded() == []
        nothing_is_left(jammi, storage)

    def test_a_key_that_repeats(self, docs, jammi, storage):
        docs.execute("INSERT INTO docs FROM docs LIMIT 1")
        assert "is not unique" in error_of(docs, f"FROM jammi_generate('docs', {BOTH}, 'id')")
        nothing_is_left(jammi, storage)

    def test_bytes_of_any_of_them(self, docs, jammi, storage):
        docs.execute("ALTER TABLE docs ALTER summary TYPE BLOB")
        assert "the column 'summary' of 'docs' is a BLOB" in error_of(
            docs, f"FROM jammi_generate('docs', {BOTH}, 'id')"
        )
        nothing_is_left(jammi, storage)

    def test_as_many_as_may_be(self, docs):
        columns = ", ".join(f"c{i}" for i in range(32))
        docs.execute(
            "CREATE TABLE wide AS SELECT id, " + ", ".join(f"'a{i}' AS c{i}" for i in range(32)) + " FROM docs"
        )
        labelled = "{" + ", ".join(f"'{name}': '{name}'" for name in columns.split(", ")) + "}"
        assert len(docs.execute(f"FROM jammi_generate('wide', {labelled}, 'id')").fetchall()) == 32

    @pytest.mark.parametrize(
        "verb",
        ["jammi_import('docs', 'v', 'id', 'v', model := 'fake/small', cols := {}", "jammi_infer('docs', {}, 'id'"],
    )
    def test_where_there_is_one_only(self, docs, verb):
        docs.execute("CREATE TABLE v AS SELECT id, embed(title) AS v FROM docs")
        error = error_of(docs, f"FROM {verb.replace('{}', BOTH)})")
        assert "give a name, or a list of names that is not empty" in error


class TestChoice:
    def test_a_search_is_of_the_one_that_is_named(self, both):
        assert found(both, "title3", "title") == [3]
        assert found(both, "summary4", "body") == [4]
        assert found(both, "body5", "BODY") == [5]
        vector = """SELECT id FROM jammi_search('docs', embed('body6'), 1, "column" := 'body', mode := 'vector')"""
        assert both.execute(vector).fetchall() == [(6,)]
        no_match = """SELECT count(*) FROM jammi_search('docs', 'summary', mode := 'text', "column" := 'title')"""
        assert both.execute(no_match).fetchall() == [(0,)]

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize(
        ("call", "expected"),
        [
            ("_row_id FROM jammi_matches('docs', 'body7', 1, {})", "7"),
            ("count(*) FROM jammi_similar('docs', 3, 4, {})", 4),
            ("row_count FROM jammi_explain('docs', 'body7', 1, {}) WHERE stage = 'fetch'", 1),
            ("current FROM jammi_status('docs', {})", ROWS),
            ("recall FROM jammi_check('docs', {})", 1.0),
            ("unchanged FROM jammi_refresh('docs', {})", ROWS),
            ("segments FROM jammi_compact('docs', {})", 1),
            ("language FROM jammi_index_words('docs', 'none', {})", "none"),
            ("value FROM jammi_eval('docs', 'asked', 'judged', 1, {}) WHERE metric = 'hit'", 1.0),
            ("hit FROM jammi_eval_queries('docs', 'asked', 'judged', 1, {}) LIMIT 1", 1.0),
            ("weight FROM jammi_tune('docs', 'asked', 'judged', 1, {})", 0.7),
        ],
    )
    def test_every_verb_that_chooses_has_it(self, both, call, expected):
        both.execute("CREATE TABLE asked AS SELECT id, body AS text FROM docs")
        both.execute("CREATE TABLE judged AS SELECT id AS question, id AS key, 1 AS grade FROM docs")
        named = call.format("\"column\" := 'body'")
        assert both.execute(f"SELECT {named}").fetchone() == (expected,)
        both.execute("PREPARE named AS SELECT " + call.format('"column" := $1'))
        assert both.execute("EXECUTE named('body')").fetchone() == (expected,)
        error = error_of(both, f"SELECT {call.replace(', {}', '')}")
        assert "'docs' has several embeddings: title, body" in error

    def test_a_comparison_of_ways(self, both):
        both.execute("CREATE TABLE asked AS SELECT id, body AS text FROM docs")
        both.execute("CREATE TABLE judged AS SELECT id AS question, id AS key, 1 AS grade FROM docs")
        ways = "[{'column': 'body', 'mode': 'vector'}, {'column': 'title', 'mode': 'vector'}]"
        query = f"SELECT value FROM jammi_eval_compare('docs', 'asked', 'judged', {ways}, 1, metric := 'hit')"
        body, title = both.execute(query).fetchall()
        assert body > title

    def test_by_its_column_where_it_has_no_label(self, docs):
        generate(docs, "'title'")
        generate(docs, "['body', 'summary']")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert found(docs, "title3", "title") == found(docs, "title3", "TITLE") == [3]
        with pytest.warns(JammiWarning, match="embedding tables of different columns"):
            docs.execute("FROM jammi_search('docs', 'body3')").fetchall()

    def test_a_label_goes_before_a_column(self, docs):
        generate(docs, "{'title': ['title', 'body'], 'short': 'title'}")
        both = """SELECT columns FROM jammi_tables() WHERE embedding_table IN
            (SELECT embedding_table FROM jammi_status('docs', "column" := ?))"""
        assert docs.execute(both, ["title"]).fetchall() == [(["title", "body"],)]
        assert docs.execute(both, ["short"]).fetchall() == [(["title"],)]

    def test_beside_a_model(self, both):
        generate(both, options=", model := 'fake/other'")
        told = """SELECT _row_id, len(vector) FROM jammi_search('docs', 'body3', 1, "column" := 'body', model := ?) s,
            (SELECT embed('a', ?) AS vector)"""
        for model, dimensions in (("fake/small", DIMENSIONS), ("fake/other", 8)):
            assert both.execute(told, [model, model]).fetchall() == [("3", dimensions)]
        error = error_of(both, """FROM jammi_search('docs', 'a', model := 'fake/none', "column" := 'body')""")
        assert "of the model 'fake/none'" in error

    def test_not_beside_an_embedding_table(self, both):
        error = error_of(both, """FROM jammi_search('docs', 'a', embedding_table := 'docs.body', "column" := 'body')""")
        assert "each says which embedding table is meant; leave out one of them" in error
        by_name = "SELECT id FROM jammi_search('docs', 'body3', 1, embedding_table := 'docs.body')"
        assert both.execute(by_name).fetchall() == [(3,)]

    def test_one_that_there_is_not(self, both):
        error = error_of(both, """FROM jammi_search('docs', 'a', "column" := 'boddy')""")
        assert "'docs' has no embedding 'boddy'; did you mean 'body'? there are: title, body" in error
        error = error_of(both, """FROM jammi_refresh('docs', "column" := 'summary')""")
        assert "'docs' has no embedding 'summary'; there are: title, body" in error

    def test_one_that_there_is_not_among_those_without_labels(self, docs):
        generate(docs, "'title'")
        error = error_of(docs, """FROM jammi_search('docs', 'a', "column" := 'titel')""")
        assert "did you mean 'title'? there are: title" in error
        generate(docs, "['body', 'summary']")
        error = error_of(docs, """FROM jammi_search('docs', 'a', "column" := 'body')""")
        assert "has no embedding 'body'; there are: title; 'docs__embedding__small__" in error
        assert "of body, summary is meant by embedding_table := '...'" in error

    def test_a_source_that_has_none(self, docs):
        assert "no embedding table for 'docs'" in error_of(
            docs, """FROM jammi_search('docs', 'a', "column" := 'body')"""
        )

    def test_the_newest_of_a_label(self, both):
        both.execute("UPDATE docs SET title = 'new', body = 'other' WHERE id = 3")
        generate(both)
        assert found(both, "other", "body") == [3]
        assert [name for name, _, _ in tables(both)] == ["docs.title", "docs.body"] * 2

    def test_in_a_join_and_a_view(self, both):
        query = """SELECT q.text, s.id FROM (VALUES ('body2'), ('body7')) q(text),
            jammi_search('docs', q.text, 1, "column" := 'body') s ORDER BY 1"""
        assert both.execute(query).fetchall() == [("body2", 2), ("body7", 7)]
        both.execute("""CREATE VIEW best AS SELECT id FROM jammi_search('docs', 'body8', 1, "column" := 'body')""")
        assert both.execute("FROM best").fetchall() == [(8,)]

    def test_with_a_filter_and_fresh(self, both):
        both.execute("INSERT INTO docs VALUES (50, 'title50', 'body50', NULL)")
        options = """filter := 'id > 5', fresh := true, "column" := 'body'"""
        assert both.execute(f"SELECT id FROM jammi_search('docs', 'body50', 1, {options})").fetchall() == [(50,)]
        # The other is as it was.
        current = 'SELECT "new" FROM jammi_status(\'docs\', "column" := ?)'
        assert [both.execute(current, [each]).fetchone() for each in ("title", "body")] == [(1,), (0,)]

    def test_a_source_that_is_followed(self, both):
        row = both.execute("SELECT source, changes_by FROM jammi_follow('docs', triggers := false)").fetchall()
        assert row == [("docs", "comparison")]
        both.execute("INSERT INTO docs VALUES (50, 'new title', 'new body', NULL)")
        assert found(both, "new body", "body") == found(both, "new title", "title") == [50]


class TestUnnamed:
    def test_it_is_refused_where_there_are_several(self, both):
        for verb in (
            "jammi_search('docs', 'a')",
            "jammi_refresh('docs')",
            "jammi_status('docs')",
            "jammi_similar('docs', 1)",
        ):
            error = error_of(both, f"FROM {verb}")
            assert "'docs' has several embeddings: title, body; say which is meant, with \"column\" := 'title'" in error

    def test_it_is_known_which_where_there_is_one(self, docs):
        generate(docs, "{'body': 'body'}")
        assert docs.execute("SELECT id FROM jammi_search('docs', 'body3', 1)").fetchall() == [(3,)]

    def test_a_newer_table_without_a_label_is_meant(self, both):
        generate(both, "['title', 'body']")
        with pytest.warns(JammiWarning, match="different columns"):
            found = both.execute("SELECT id FROM jammi_search('docs', 'title3 body3', 1)").fetchall()
        assert found == [(3,)]

    def test_an_older_table_without_a_label_is_not(self, docs):
        generate(docs, "'title'")
        generate(docs)
        assert "has several embeddings: title, body" in error_of(docs, "FROM jammi_search('docs', 'a')")

    def test_several_of_different_calls(self, docs):
        generate(docs, "{'title': 'title'}")
        generate(docs, "{'body': 'body'}")
        assert "has several embeddings: title, body" in error_of(docs, "FROM jammi_search('docs', 'a')")

    def test_one_that_is_left(self, both):
        (name,) = both.execute("SELECT embedding_table FROM jammi_tables() WHERE columns = ['title']").fetchone()
        both.execute("FROM jammi_drop(?)", [name]).fetchall()
        assert both.execute("SELECT id FROM jammi_search('docs', 'body3', 1)").fetchall() == [(3,)]

    def test_one_whose_files_are_gone_is_not_taken_for_the_other(self, both, storage):
        for path in (storage / "jammi_db").glob("docs.body__*"):
            path.unlink()
        both.execute("FROM jammi_recover()").fetchall()
        assert "has several embeddings: title, body" in error_of(both, "FROM jammi_search('docs', 'a')")
        assert "cannot be used" in error_of(both, """FROM jammi_search('docs', 'a', "column" := 'body')""")
        assert found(both, "title3", "title") == [3]

    def test_what_a_table_advises_names_it(self, both):
        both.execute("UPDATE docs SET title = 'other' WHERE id = 1")
        (advice,) = both.execute("""SELECT advice FROM jammi_status('docs', "column" := 'title')""").fetchone()
        statement = advice.partition(" brings")[0]
        assert "embedding_table := 'docs.title__embedding__" in statement
        assert both.execute(statement).fetchall()[0][2] == 1


class TestReuse:
    def test_each_is_used_again_if_nothing_has_changed(self, both, encoded):
        names = both.execute("SELECT embedding_table FROM jammi_tables() ORDER BY started").fetchall()
        told = "embedding_table"
        assert generate(both, options=", reuse := true", told=told) == names
        assert encoded() == []
        both.execute("UPDATE docs SET body = 'other' WHERE id = 1")
        (title,), (body,) = generate(both, options=", reuse := true", told=told)
        assert (title, body != names[1][0]) == (names[0][0], True)
        assert encoded() == sorted(["other summary1" if i == 1 else text for i, text in enumerate(BODIES)])
        three = generate(
            both, "{'body': ['BODY', 'summary'], 'all': ['title', 'body'], 'title': 'title'}", ", reuse := true", told
        )
        assert [three[0], three[2]] == [(body,), (title,)]
        assert len(encoded()) == ROWS

    def test_one_alone_is_no_other_than_it_was(self, both, encoded):
        """What was made with a label is not used for what has none, and the other way round."""
        ((name,),) = generate(both, "'title'", ", reuse := true", "embedding_table")
        assert name.startswith("docs__embedding__")
        assert sync(both, "'title'") == [("docs", "unchanged", 0, 0, ROWS)]
        assert sync(both, "{'heading': 'title'}") == [("docs.heading", "generated", ROWS, 0, 0)]

    def test_a_relation_that_is_looked_at_again(self, docs, encoded):
        relation = docs.sql(f"SELECT embedding_table FROM jammi_generate('docs', {BOTH}, 'id')")
        first = relation.fetchall()
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            assert relation.fetchall() == first
        assert len(tables(docs)) == 2
        assert len(encoded()) == 2 * ROWS


class TestSync:
    def test_it_keeps_all_of_them_current(self, docs, encoded):
        assert sync(docs) == [("docs.title", "generated", ROWS, 0, 0), ("docs.body", "generated", ROWS, 0, 0)]
        encoded()
        assert sync(docs) == [("docs.title", "unchanged", 0, 0, ROWS), ("docs.body", "unchanged", 0, 0, ROWS)]
        docs.execute("UPDATE docs SET body = 'other', summary = NULL WHERE id = 1")
        docs.execute("INSERT INTO docs VALUES (50, 'title50', NULL, NULL)")
        assert sync(docs) == [("docs.title", "refreshed", 1, 0, ROWS), ("docs.body", "refreshed", 0, 1, ROWS - 1)]
        assert encoded() == ["other", "title50"]
        holds(docs, "title", {**dict(enumerate(TITLES)), 50: "title50"})
        holds(docs, "body", {**dict(enumerate(BODIES)), 1: "other"})

    def test_one_more_is_made_beside_the_others(self, both):
        both.execute("DELETE FROM docs WHERE id = 0")
        assert sync(
            both, "{'all': ['title', 'body'], 'title': 'title', 'short': 'summary', 'body': ['body', 'summary']}"
        ) == [
            ("docs.all", "generated", ROWS - 1, 0, 0),
            ("docs.title", "refreshed", 0, 0, ROWS - 1),
            ("docs.short", "generated", ROWS - 3, 0, 0),
            ("docs.body", "refreshed", 0, 0, ROWS - 1),
        ]
        assert "has several embeddings: title, body, all, short" in error_of(both, "FROM jammi_search('docs', 'a')")

    def test_of_one_name(self, docs):
        assert sync(docs, options=", name := 'a'")[0][:2] == ("a.title", "generated")
        assert sync(docs, options=", name := 'b'")[0][:2] == ("b.title", "generated")
        assert sync(docs, options=", name := 'a'")[0][:2] == ("a.title", "unchanged")


class Stumbling(FakeEncoder):
    """Fails at a text with `broken` in it."""

    broken = "nothing"

    def encode_rows(self, texts, role, progress):
        if any(self.broken in text for text in texts):
            raise EncodingError("the model is gone")
        return super().encode_rows(texts, role, progress)


def engine_of(con):
    return installation._installations[installation._installation_of(con)].engine


class TestErrors:
    @pytest.fixture
    def stumbling(self, jammi):
        encoder = jammi.encoders.loaded["fake/small"] = Stumbling("fake/small")
        return encoder

    @pytest.mark.parametrize("broken", ["title3", "body3"])
    def test_of_one_ends_all(self, docs, stumbling, storage, broken):
        stumbling.broken = broken
        assert "the model is gone" in error_of(docs, f"FROM jammi_generate('docs', {BOTH}, 'id')")
        # At once, and not when the next call settles it.
        engine = engine_of(docs)
        assert engine.jobs.at_work() == {}
        assert [entry.status for entry in engine.tables.catalog.entries()] == ["failed", "failed"]
        assert {path.suffix for path in storage.rglob("*") if path.is_file()} <= {""}
        stumbling.broken = "nothing"
        assert generate(docs) == [("docs.title", ROWS), ("docs.body", ROWS)]

    @pytest.mark.parametrize("place", [1, 2])
    def test_no_table_is_ready_before_all_can_be(self, docs, monkeypatch, place):
        """The index of one cannot be made: the other was complete, and is not ready either."""
        finish, calls = Build.finish, []

        def failing(build, *arguments):
            calls.append(build)
            if len(calls) == place:
                raise OSError("the disk is full")
            return finish(build, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Build, "finish", failing)
            assert "the disk is full" in error_of(docs, f"FROM jammi_generate('docs', {BOTH}, 'id')")
        assert [status for _, _, status in tables(docs)] == ["failed", "failed"]
        assert len(generate(docs, options=", resume := true")) == 2

    def test_a_second_that_cannot_begin_ends_the_first(self, docs, monkeypatch, storage):
        opened, calls = Build.open, []

        def failing(build):
            calls.append(build)
            if len(calls) == 2:
                raise OSError("no place")
            return opened(build)

        with monkeypatch.context() as patch:
            patch.setattr(Build, "open", failing)
            assert "no place" in error_of(docs, f"FROM jammi_generate('docs', {BOTH}, 'id')")
        assert engine_of(docs).jobs.at_work() == {}
        assert [status for _, _, status in tables(docs)] == ["failed", "failed"]
        assert not [path for path in storage.rglob("*") if path.is_file()]

    def test_a_source_that_changes_between_its_readings(self, docs):
        docs.execute("CREATE SEQUENCE s")
        docs.execute("CREATE VIEW moving AS SELECT id, title, body FROM docs WHERE nextval('s') > 5")
        error = error_of(docs, "FROM jammi_generate('moving', {'title': 'title', 'body': 'body'}, 'id')")
        assert "was counted with" in error
        assert [status for _, _, status in tables(docs)] == ["failed", "failed"]

    def test_an_interrupt_ends_all(self, docs, jammi, monkeypatch):
        engine = engine_of(docs)
        encode = FakeEncoder.encode_rows

        def interrupting(encoder, texts, role, progress):
            engine.jobs.interrupt()
            return encode(encoder, texts, role, progress)

        with monkeypatch.context() as patch:
            patch.setattr(FakeEncoder, "encode_rows", interrupting)
            assert "the build was interrupted" in error_of(docs, f"FROM jammi_generate('docs', {BOTH}, 'id')")
        assert engine.jobs.at_work() == {}
        assert [status for _, _, status in tables(docs)] == ["failed", "failed"]
        assert len(generate(docs)) == 2


class TestInterrupted:
    @pytest.fixture
    def interrupted(self, fake, monkeypatch):
        """Builds that were interrupted before their last segments, of two whole ones each."""
        jammi = fake(segment_rows=4)
        fill(jammi.con)

        def interrupt(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Build, "finish", interrupt)
            with pytest.raises((KeyboardInterrupt, duckdb.Error)):
                generate(jammi.con)
        jammi.con.execute("FROM jammi_recover()").fetchall()
        assert [status for _, _, status in tables(jammi.con)] == ["failed", "failed"]
        jammi.encoders.get("fake/small").encoded.clear()
        jammi.con.execute("UPDATE docs SET body = 'other' WHERE id = 0")
        self.encoded = jammi.encoders.get("fake/small").encoded
        return jammi.con

    @pytest.mark.parametrize("how", ["generate", "sync"])
    def test_each_goes_on(self, interrupted, how):
        if how == "generate":
            assert generate(interrupted, options=", resume := true") == [("docs.title", ROWS), ("docs.body", ROWS)]
        else:
            assert [row[:2] for row in sync(interrupted)] == [("docs.title", "resumed"), ("docs.body", "resumed")]
        assert sorted(self.encoded) == ["body8 summary8", "other", "title8"]
        assert [name for name, _, _ in tables(interrupted)] == ["docs.title", "docs.body"]
        holds(interrupted, "body", {**dict(enumerate(BODIES)), 0: "other"})

    def test_some_go_on_and_others_begin(self, interrupted):
        columns = "{'all': ['title', 'body'], 'body': ['body', 'summary'], 'title': 'title'}"
        assert [row[:2] for row in sync(interrupted, columns)] == [
            ("docs.all", "generated"),
            ("docs.body", "resumed"),
            ("docs.title", "resumed"),
        ]

    def test_a_refresh_goes_on_with_the_one_that_is_named(self, interrupted):
        assert "has several embeddings: title, body" in error_of(interrupted, "FROM jammi_refresh('docs')")
        interrupted.execute("""FROM jammi_refresh('docs', "column" := 'title')""").fetchall()
        assert [row[0::2] for row in tables(interrupted)] == [("docs.title", "ready"), ("docs.body", "failed")]
        assert found(interrupted, "title3", "title") == [3]


class TestCrashes:
    @pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.long)])
    def test_a_process_that_dies_at_any_operation(self, fake, tmp_path, monkeypatch, step):
        world = World(fake, tmp_path, str(tmp_path / "world" / "artifacts"), segment_rows=4)
        con = world.open()
        fill(con)
        con.close()
        outcomes = set()
        for death in every_death(world, monkeypatch, generate, step):
            con = world.open()
            ready = [name for name, _, status in tables(con) if status == "ready"]
            assert {status for _, _, status in tables(con)} <= {"ready", "failed"}, death.at
            outcomes.add(len(ready))
            for name in ready:
                label = name.removeprefix("docs.")
                holds(con, label, dict(enumerate(TITLES if label == "title" else BODIES)))
            assert [row[0] for row in sync(con)] == ["docs.title", "docs.body"], death.at
            assert found(con, "title3", "title") == found(con, "body3 summary3", "body") == [3]
            con.close()
        assert {0, 2} <= outcomes

    @pytest.mark.parametrize("step", [31, pytest.param(1, marks=pytest.mark.long)])
    def test_a_disk_that_fails_at_any_operation(self, fake, tmp_path, monkeypatch, step):
        """An error ends all of them at once: none goes on."""
        world = World(fake, tmp_path, str(tmp_path / "world" / "artifacts"), segment_rows=4)
        con = world.open()
        fill(con)
        con.close()
        outcomes = set()
        for con, has_failed, at in every_failure(world, monkeypatch, generate, step):
            engine = engine_of(con)
            assert engine.jobs.at_work() == {}, at
            # One whose manifest was written is ready then, whatever came after that.
            con.execute("FROM jammi_recover()").fetchall()
            statuses = [entry.status for entry in engine.tables.catalog.entries()]
            assert set(statuses) <= {"ready", "failed"}, at
            assert has_failed or statuses == ["ready", "ready"], at
            outcomes.add(statuses.count("ready"))
            assert [row[0] for row in sync(con)] == ["docs.title", "docs.body"], at
            assert found(con, "title3", "title") == found(con, "body3 summary3", "body") == [3]
        assert {0, 2} <= outcomes


class TestFiles:
    def test_a_label_survives_the_catalog(self, both, fake, storage):
        other = fake(duckdb.connect())
        fill(other.con)
        assert found(other.con, "body3", "body") == [3]
        assert "has several embeddings: title, body" in error_of(other.con, "FROM jammi_search('docs', 'a')")
        assert [row[1] for row in sync(other.con)] == ["unchanged", "unchanged"]

    def test_and_the_manifest(self, both, fake, storage):
        for path in (storage / "jammi_db").glob("*.manifest.json"):
            definition = json.loads(path.read_text())["definition"]
            assert definition["embedding"] == ("title" if definition["columns"] == ["title"] else "body")
            path.unlink()
        both.execute("FROM jammi_recover()").fetchall()
        other = fake(duckdb.connect())
        fill(other.con)
        assert found(other.con, "body3", "body") == [3]

    def test_one_alone_has_none_in_its_files(self, docs, storage):
        generate(docs, "'title'")
        (path,) = (storage / "jammi_db").glob("*.manifest.json")
        assert "embedding" not in json.loads(path.read_text())["definition"]

    def test_a_refresh_and_a_compaction_keep_it(self, both):
        both.execute("UPDATE docs SET body = 'other' WHERE id = 1")
        sync(both)
        both.execute("""FROM jammi_compact('docs', "column" := 'body')""").fetchall()
        both.execute("""FROM jammi_index_words('docs', 'none', "column" := 'body')""").fetchall()
        assert found(both, "other", "body") == [1]


class TestPython:
    def test_a_dict_gives_a_dict(self, jammi, docs):
        made = jammi.generate("docs", {"title": "title", "body": ["body", "summary"]}, "id")
        assert {label: (type(each), each.row_count) for label, each in made.items()} == {
            "title": (Generated, ROWS),
            "body": (Generated, ROWS),
        }
        assert made["body"].embedding_table.startswith("docs.body__embedding__")
        synced = jammi.sync("docs", {"body": ("body", "summary"), "title": np.array(["title"])}, "id")
        assert {label: (type(each), each.action) for label, each in synced.items()} == {
            "body": (Synced, "unchanged"),
            "title": (Synced, "unchanged"),
        }

    def test_any_labels(self, jammi, docs):
        """DuckDB would make a MAP of such a dict."""
        made = jammi.generate("docs", {"key": ["title"], "value": ["body"]}, "id")
        assert list(made) == ["key", "value"]
        assert jammi.search("docs", "body3", 1, column="value").project("id").fetchall() == [(3,)]

    def test_a_frame(self, jammi):
        import pandas as pd

        frame = pd.DataFrame({"id": [1, 2], "a": ["one", "two"], "b": ["three", "four"]})
        assert [each.row_count for each in jammi.generate(frame, {"a": "a", "b": "b"}, "id").values()] == [2, 2]
        assert jammi.search("frame", "four", 1, column="b").project("id").fetchall() == [(2,)]

    def test_the_methods_choose(self, jammi, both):
        for options in ({}, {"filter": "id >= 0"}):
            found = jammi.search("docs", "body3", 1, column="body", **options)
            assert found.project("id").fetchall() == [(3,)]
            with pytest.raises(InputError, match="has several embeddings: title, body"):
                jammi.search("docs", "body3", 1, **options)
            with pytest.raises(NotFoundError, match="did you mean 'body'"):
                jammi.search("docs", "body3", 1, column="boddy", **options)
        assert jammi.matches("docs", "body3", 1, column="body").fetchall()[0][0] == "3"
        assert jammi.refresh("docs", column="body").unchanged == ROWS
        assert jammi.status("docs", column="title").fetchall()[0][1] == ROWS
        with pytest.raises(InputError, match="several"):
            jammi.refresh("docs")

    def test_mistakes(self, jammi, docs):
        for columns, told in (({}, "are empty"), ({"a": None}, "are NULL"), ({"a b": "title"}, "cannot be the label")):
            with pytest.raises(InputError, match=told):
                jammi.generate("docs", columns, "id")


class TestCommands:
    @pytest.fixture
    def database(self, folder):  # noqa: F811
        with duckdb.connect("jammi_duck.duckdb") as con:
            fill(con)
        return folder

    def test_generate_and_search(self, database, capsys):
        code, out, _ = call(capsys, "generate docs --key id --column title --column body=body,summary")
        assert code == 0
        names = [line.split()[1] for line in out.splitlines() if line.startswith("embedding_table")]
        assert [name.partition("__")[0] for name in names] == ["docs.title", "docs.body"]
        code, out, _ = call(capsys, 'search docs "body3 summary3" -k 1 --column body --columns id --json')
        assert (code, json.loads(out)[0]["id"]) == (0, 3)
        code, _, err = call(capsys, "search docs body3")
        assert (code, "--column on the command line" in err) == (2, True)
        code, _, err = call(capsys, "search docs body3 --column boddy")
        assert (code, "did you mean 'body'?" in err) == (2, True)
        for command in ("status", "refresh", "compact", "index-words"):
            assert call(capsys, f"{command} docs --column title")[0] == 0
            assert call(capsys, f"{command} docs")[0] == 2

    def test_sync_and_refresh_all(self, database, capsys):
        command = "sync docs --key id --column title --column body=body,summary --json"
        assert [row["action"] for row in json.loads(call(capsys, command)[1])] == ["generated", "generated"]
        assert [row["action"] for row in json.loads(call(capsys, command)[1])] == ["unchanged", "unchanged"]
        with duckdb.connect("jammi_duck.duckdb") as con:
            con.execute("INSERT INTO docs VALUES (50, 'title50', 'body50', NULL)")
        code, out, _ = call(capsys, "refresh --all --json")
        assert (code, [row["added"] for row in json.loads(out)]) == (0, [1, 1])
        code, _, err = call(capsys, "refresh --all --column title")
        assert (code, "leave out --model, --table and --column" in err) == (2, True)

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ("--column title,body", "has no label: write LABEL=title,body, or for one embedding alone --columns"),
            ("--column a=title --column a=body", "--column names 'a' twice"),
            ("--column a=title --column A=body", "'a' and 'A' are the same label"),
            ("--column =title", "cannot be the label of an embedding"),
            ("--column a=", "has an empty name in it"),
            ("--column title --columns body", "not allowed with argument"),
            ("", "one of the arguments --columns --column is required"),
        ],
    )
    def test_mistakes(self, database, capsys, options, told):
        code, _, err = call(capsys, f"generate docs --key id {options}")
        assert (code, told in err) == (2, True)


@needs_extension
class TestStockShell:
    def test_it_has_the_same(self, shell_folder):  # noqa: F811
        shell("CREATE TABLE docs AS SELECT id, text AS title, text || ' again' AS body FROM t")
        made = rows("SELECT row_count FROM jammi_generate('docs', {'title': 'title', 'body': ['body']}, 'id')")
        assert made == [{"row_count": 2}, {"row_count": 2}]
        found = rows("""SELECT id FROM jammi_search('docs', 'the duck in water again', 1, "column" := 'body')""")
        assert found == [{"id": 1}]
        assert "has several embeddings: title, body" in shell("FROM jammi_search('docs', 'duck')").stderr


# The server's own process leaves this out; DuckDB gives such advice once.
@pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning")
def test_over_http(tmp_path, tiny_model):
    from jammi_duck.doors.server.http_api import Caller, search
    from jammi_duck.doors.server.identity import ANYBODY, Gate
    from jammi_duck.doors.server.service import Service
    from tests.serving import config_of

    file, options = tmp_path / "my.duckdb", {"model": str(tiny_model), "cache_dir": str(tmp_path / "cache")}
    con = jammi_duck.connect(file, storage=str(tmp_path / "artifacts"), **options)
    fill(con)
    generate(con)
    con.close()
    service = Service(config_of(file, **options), Gate(None, open_to_all=True))

    def asked(**keys):
        body = json.dumps({"source": "docs", "query": "title3", "k": 1, "columns": ["id"], **keys}).encode()
        return json.loads(search(service, ANYBODY, body, Caller(service)))["rows"][0]["id"]

    with contextlib.closing(service):
        for plain in ({}, {"filter": "id < 5"}):
            assert asked(column="title", **plain) == 3
            assert asked(column="body", query="body2 summary2", **plain) == 2
            with pytest.raises(InputError, match="has several embeddings: title, body"):
                asked(**plain)
