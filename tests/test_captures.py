"""What a caller writes is bound where it stands: never to a column of the source, or to a name of ours."""

import pytest

from tests.test_generate import generate

# Every parameter of a macro, every name that our queries have, and those that a user thinks of.
NAMES = (
    "id", "text", "source", "query", "key", "k", "model", "filter", "exact", "embedding_table", "min_similarity",
    "cols", "dims", "words", "mark", "language", "mode", "weight", "fusion", "k1", "b",
    "row", "p", "t", "c0", "c1", "n", "_row_id", "_source_id", "_rank", "_score", "_similarity", "_distance",
    "_bm25", "_jammi_query", "_jammi_key", "_jammi_k", "_jammi_exact", "_jammi_least", "_jammi_token", "_jammi_given",
    "_jammi_row", "_jammi_hit", "_jammi_asked", "_jammi_a", "_jammi_changed", "_jammi_keys",
    "_jammi_hits", "_jammi_found", "_jammi_named", "_jammi_bound", "_jammi_values",
)  # fmt: skip
TEXTS = ("red apple", "diesel engine", "green apple", "ship engine")


@pytest.fixture
def source(con):
    """A table `t` whose columns have all of these names, with values that lead elsewhere where they are taken."""
    others = [f"{i} AS {name}" for i, name in enumerate(NAMES) if name not in ("id", "text", "p", "t")]
    con.execute(
        f"CREATE TABLE t AS SELECT id, text, {{'id': 2, 'text': 'no'}} AS p, {{'id': 2}} AS t, {', '.join(others)} "
        f"FROM (SELECT unnest([1, 2, 3, 4]) AS id, unnest({list(TEXTS)}) AS text)"
    )
    generate(con, "t", "text")
    return con


class TestOuterColumns:
    def test_a_key(self, source):
        for name in NAMES:
            rows = source.execute(
                f"SELECT o.{name}, s.id FROM (SELECT unnest([1, 2, 3, 4]) AS {name}) o, "
                f"jammi_similar('t', {name}, 1) s ORDER BY 1"
            )
            assert rows.fetchall() == [(1, 3), (2, 4), (3, 1), (4, 2)], name

    @pytest.mark.parametrize("function", ["jammi_search", "jammi_matches"])
    def test_a_query(self, source, function):
        for name in NAMES:
            rows = source.execute(
                f"SELECT o.{name}, s._row_id FROM (SELECT unnest({list(TEXTS)}) AS {name}) o, "
                f"{function}('t', {name}, 1) s"
            )
            assert sorted(rows.fetchall()) == sorted(zip(TEXTS, "1234", strict=True)), name

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("call", ["jammi_search('t', 'red apple'", "jammi_matches('t', 'red apple'"])
    @pytest.mark.parametrize(
        ("argument", "value", "found"),
        [
            ("k := {}", "3", 3),
            ("k := 4, min_similarity := {}", "0.9", 1),
            ("k := 2, exact := {}", "true", 2),
            ("k := 4, mode := {}", "'text'", 2),
        ],
    )
    def test_the_other_arguments(self, source, call, argument, value, found):
        for name in NAMES:
            rows = source.execute(
                f"SELECT s._row_id FROM (SELECT {value} AS {name}) o, {call}, {argument.format(name)}) s"
            )
            assert len(rows.fetchall()) == found, name

    def test_of_a_struct(self, source):
        """A STRUCT column of the source that is named like the outer table."""
        for name in NAMES:
            rows = source.execute(
                f"SELECT {name}.id, s.id FROM (FROM (VALUES (1), (2)) v(id)) AS {name}, "
                f"jammi_similar('t', {name}.id, 1) s ORDER BY 1"
            )
            assert rows.fetchall() == [(1, 3), (2, 4)], name

    def test_explain_check_and_embed(self, source):
        for name in NAMES:
            o = f"(SELECT 'red apple' AS {name}) o"
            (stages,) = source.execute(f"SELECT count(*) FROM {o}, jammi_explain('t', {name}, 1) s").fetchone()
            assert stages > 3, name
            assert source.execute(f"SELECT embed({name}) = embed('red apple') FROM {o}").fetchall() == [(True,)], name
            marked = source.execute(f"SELECT jammi_snippet({name}, {name}) FROM {o}").fetchall()
            assert marked == [("**red** **apple**",)], name
            checked = source.execute(f"SELECT c.k FROM (SELECT 2 AS {name}) o, jammi_check('t', {name}) c")
            assert checked.fetchall() == [(2,)], name


class TestColumnsOfTheSource:
    def test_all_are_there_with_their_own_values(self, source):
        found = source.execute("FROM jammi_search('t', 'green apple', 1)")
        names = [column[0] for column in found.description]
        row = dict(zip(names, found.fetchone(), strict=True))
        ours = {"_row_id", "_rank", "_score", "_similarity", "_distance", "_bm25"}
        assert len(set(map(str.lower, names))) == len(names) == len(NAMES) + len(ours)
        for i, name in enumerate(NAMES):
            if name not in ("id", "text", "p", "t"):
                assert row[f"_{name}" if name in ours or name.startswith("_jammi_") else name] == i
        assert (row["_row_id"], row["_rank"], row["id"], row["text"]) == ("3", 1, 3, "green apple")

    @pytest.mark.parametrize("name", ["_jammi_key", "_jammi_token", "_jammi_rank", "__jammi_row_id", "_Jammi_Found"])
    def test_in_a_filter_they_are_the_sources_own(self, con, name):
        con.execute(f"CREATE TABLE t AS SELECT range AS id, 'cat' AS text, {{'n': range}} AS {name} FROM range(5)")
        generate(con, "t", "text")
        con.execute("CREATE TABLE u AS SELECT 2 AS n")
        for condition in (
            f"{name}.n = 2",
            f"t.{name}.n = 2",
            f"{name.upper()} = {{'n': 2}}",
            f"{name} = $x",
            f"EXISTS (FROM u WHERE u.n = t.{name}.n)",
        ):
            given = ", parameters := {'x': {'n': 2}}" if "$" in condition else ""
            text = f"SELECT id FROM jammi_search('t', 'cat', 9, filter := $f${condition}$f${given})"
            assert con.execute(text).fetchall() == [(2,)], condition

    def test_one_more_underscore_wherever_it_is_taken(self, con):
        con.execute("CREATE TABLE t AS SELECT 1 AS id, 'x' AS text, 7 AS _RANK, 8 AS __rank, 9 AS _ranks, 10 AS rank")
        generate(con, "t", "text")
        found = con.execute("FROM jammi_search('t', 'x')")
        names = [column[0] for column in found.description]
        assert names[:6] == ["id", "text", "__RANK", "___rank", "_ranks", "rank"]
        assert found.fetchone()[:6] == (1, "x", 7, 8, 9, 10)

    @pytest.mark.parametrize("name", ["key", "n", "c0", "_rank", "_jammi_key", "_jammi_row", "_jammi_changed"])
    def test_as_the_key_and_the_text(self, con, name):
        con.execute(f"CREATE TABLE t AS SELECT unnest([1, 2]) AS \"{name}\", unnest(['cat', 'dog']) AS words")
        con.execute("CREATE TABLE u AS SELECT unnest([1, 2]) AS number, unnest(['cat', 'dog']) AS \"" + name + '"')
        generate(con, "t", "words", name)
        generate(con, "u", name, "number")
        assert con.execute("SELECT _row_id FROM jammi_search('t', 'dog', 1, filter := 'true')").fetchall() == [("2",)]
        assert con.execute("SELECT words FROM jammi_similar('t', 1, 1)").fetchall() == [("dog",)]
        assert con.execute("SELECT number FROM jammi_search('u', 'dog', 1)").fetchall() == [(2,)]
        for table in "tu":
            assert con.execute(f"SELECT current, new, changed, gone FROM jammi_status('{table}')").fetchall() == [
                (2, 0, 0, 0)
            ]
            con.execute(f"FROM jammi_refresh('{table}')").fetchall()
        assert con.execute(f"SELECT _row_id FROM jammi_infer('u', '{name}', 'number') ORDER BY 1").fetchall() == [
            ("1",),
            ("2",),
        ]
