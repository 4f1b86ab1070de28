"""The methods for Python as a whole: one for each verb, what their pages promise, sources, threads and cursors."""

import dataclasses
import doctest
import gc
import inspect
import itertools
import re
import subprocess
import sys
import threading
import uuid
import weakref

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest

import jammi_duck
from jammi_duck import InputError, JammiWarning, NoSourceError, NotFoundError
from jammi_duck.jammi import Jammi
from jammi_duck.udfs.macros import macros
from tests.fakes import text_vector

ROWS = {"id": [1, 2], "text": ["a membrane cleans water", "a robot arm"]}
VERBS = [re.search(r"MACRO (\w+)\((.*?)\) AS", statement).groups() for statement in macros("")]
# A name that Python has for something else.
NAMES = {"import": "import_vectors"}
ARGUMENTS = {"cols": "columns", '"column"': "column"}
# Those with more columns, or anything at all, for texts that were cut.
WITH_PASSAGES = {"jammi_passages", "jammi_search", "jammi_matches"}
# Threads are nothing that SQL could start.
PYTHON_ONLY = {"every"}


def method_of(verb):
    name = verb.removeprefix("jammi_")
    return getattr(Jammi, NAMES.get(name, name))


class TestPages:
    @pytest.mark.parametrize(("verb", "parameters"), VERBS)
    def test_each_verb_is_a_method_with_its_arguments(self, verb, parameters):
        of_sql = [each.partition(" :=")[0] for each in parameters.split(", ") if each]
        known = list(inspect.signature(method_of(verb)).parameters)[1:]
        of_python = [name for name in known if name not in PYTHON_ONLY]
        assert [ARGUMENTS.get(each, each) for each in of_sql] == of_python

    @pytest.mark.parametrize(("verb", "parameters"), VERBS)
    def test_each_page_is_whole(self, verb, parameters):
        method = method_of(verb)
        page = inspect.getdoc(method)
        arguments = list(inspect.signature(method).parameters)[1:]
        told = page if "The arguments are `search`'s" not in page else inspect.getdoc(Jammi.search)
        for argument in arguments:
            assert re.search(rf"^    {argument}: ", told, re.MULTILINE), argument
        assert f"SQL's `{verb}`" in page
        assert "Example:" in page
        assert verb == "embed" or "Returns:" in page
        assert verb in ("jammi_models",) or "Raises:" in page
        for error in re.findall(r"\b[A-Z]\w+Error\b", page):
            assert hasattr(jammi_duck, error)

    @pytest.mark.parametrize(("verb", "parameters"), VERBS)
    def test_each_page_has_the_columns(self, jammi, animals, verb, parameters):
        jammi.generate("animals", "text", "id", passages=verb in WITH_PASSAGES)
        animals.execute("CREATE TABLE mine AS SELECT id, embed(text) AS v FROM animals")
        animals.execute("CREATE TABLE asked AS SELECT id, text FROM animals")
        animals.execute("CREATE TABLE judged AS SELECT id AS question, id AS key, 1 AS grade FROM animals")
        if verb == "jammi_generate":
            animals.execute("DELETE FROM animals WHERE id = 1")
        given = {
            "jammi_generate": ("animals", "text", "id"), "jammi_infer": ("animals", "text", "id"), "embed": ("a",),
            "jammi_snippet": ("a duck", "ducks"), "jammi_split": ("a duck",),
            "jammi_sync": ("animals", "text", "id"),
            "jammi_import": ("animals", "mine", "id", "v", "fake/small"), "jammi_similar": ("animals", 1),
            "jammi_drop": (jammi.tables().fetchall()[0][0],),
            "jammi_eval": ("animals", "asked", "judged"), "jammi_eval_queries": ("animals", "asked", "judged"),
            "jammi_eval_compare": ("animals", "asked", "judged", [{}, {}]),
            "jammi_tune": ("animals", "asked", "judged"), "jammi_fill": ("animals", "text", "vector"),
            "jammi_search_column": ("mine", "v", "owl"),
        }  # fmt: skip
        searched = ("animals", "owl") if "query" in parameters else ("animals",) if "source" in parameters else ()
        found = method_of(verb)(jammi, *given.get(verb, searched))
        page = inspect.getdoc(method_of(verb))
        told = " ".join(page.partition("Returns:")[2].partition("Raises:")[0].partition("Example:")[0].split())
        if isinstance(found, duckdb.DuckDBPyRelation):
            kinds = dict(re.findall(r"(\w+) ([A-Z]+(?:\[\])?)", told))
            columns = dict(zip(found.columns, map(str, found.types), strict=True))
            if verb in ("jammi_search", "jammi_similar", "jammi_search_column"):
                columns = {name: kind for name, kind in columns.items() if name not in ("id", "name", "text", "v")}
                kinds = kinds or dict(re.findall(r"(\w+) ([A-Z]+)", inspect.getdoc(Jammi.search)))
            assert columns.items() <= kinds.items() if verb == "jammi_similar" else columns == kinds
        elif verb not in ("embed", "jammi_snippet", "jammi_split") and found and "The same as `generate`" not in told:
            for field in dataclasses.fields(found):
                kind = str(field.type).replace("Integer", "int").partition(" |")[0]
                assert f"{field.name} {kind}" in told

    def test_the_examples_run(self, fake, animals):
        finder = doctest.DocTestFinder()
        # Of a class, it finds what stands in its own module.
        found = [finder.find(kind, "Jammi", globs={}) for kind in (Jammi, *Jammi.__bases__)]
        for example in itertools.chain.from_iterable(found):
            # The encoders of the tests know no models of the user's own.
            if example.examples and example.name != "Jammi.register_model":
                con = duckdb.connect()
                jammi = fake(con, storage=f"memory://{uuid.uuid4()}")
                con.register("rows", animals.sql("FROM animals").to_arrow_table())
                con.execute("CREATE TABLE animals AS FROM rows")
                con.unregister("rows")
                if example.name not in ("Jammi.generate", "Jammi.import_vectors"):
                    jammi.generate("animals", "text", "id")
                example.globs = {"jammi": jammi, "con": con}
                told = []
                outcome = doctest.DocTestRunner(verbose=False).run(example, out=told.append, clear_globs=False)
                assert outcome.failed == 0, "".join(told)

    def test_dir_and_help_show_what_there_is(self):
        script = (
            "import sys, jammi_duck, io, contextlib\n"
            "assert {'install', 'connect', 'Jammi'} <= set(dir(jammi_duck))\n"
            "assert not {'duckdb', 'pyarrow', 'numpy'} & set(sys.modules)\n"
            "import pydoc; print(pydoc.render_doc(jammi_duck, renderer=pydoc.plaintext))"
        )
        told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        # Python 3.13 breaks the lines of a long signature.
        assert re.search(r"install\(\s*con:", told)
        assert "Give a connection `embed`" in told
        assert re.search(r"connect\(\s*database:", told)
        assert "class Jammi" in told


class TestEmbed:
    def test_one_and_several(self, jammi):
        assert np.allclose(jammi.embed("an owl"), text_vector("an owl"))
        assert jammi.embed("an owl").dtype == np.float32
        vectors = jammi.embed(["an owl", None, "", "a cat"])
        assert [vector is None for vector in vectors] == [False, True, True, False]
        assert np.allclose(vectors[3], text_vector("a cat"))
        assert jammi.embed([]) == []
        assert jammi.embed(None) is None
        assert jammi.embed("an owl", "fake/other").shape == (8,)
        assert jammi.embed("an owl", role="query", dims=4).shape == (4,)

    def test_what_is_wrong(self, jammi):
        with pytest.raises(InputError, match="it must be 'document' or 'query'"):
            jammi.embed("an owl", role="passage")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (3, "text is of type int; it must be a text"),
            (b"hello", "text is of type bytes; it must be a text"),
            ({"a": 1}, "text is of type dict; it must be a text"),
            (["an owl", 3], r"text\[1\] is of type int; each must be a text"),
            ([b"hello"], r"text\[0\] is of type bytes; each must be a text"),
        ],
    )
    def test_what_is_no_text(self, jammi, text, message):
        with pytest.raises(InputError, match=message):
            jammi.embed(text)


class TestRelations:
    def test_a_search_runs_once(self, jammi, words):
        found = jammi.search("t", "word7", 3)
        words.execute("DROP TABLE t")
        first = found.fetchall()
        assert first[0][:2] == (7, "word7")
        assert found.fetchall() == first
        assert (len(found), found.project("id").fetchall()[0]) == (3, (7,))
        assert found.filter("id = 7").fetchall() == first[:1]

    @pytest.mark.sampled(3)
    @pytest.mark.skipif(duckdb.__version__ < "2", reason="earlier versions run again where Arrow lacks a type")
    @pytest.mark.parametrize("verb", ["search", "matches", "explain"])
    @pytest.mark.parametrize(
        ("query", "message"),
        [
            (3, "the query is of type int; it must be a text"),
            (b"duck", "the query is a BLOB of 4 bytes, and 'fake/small' takes texts only"),
            ({"a": 1}, "the query is of type dict; it must be a text"),
            (["film", "brake"], "the query is a list, and not of numbers alone; it must be a text"),
            (["1", "2"], "the query is a list, and not of numbers alone; it must be a text"),
            ([1.0, None], "the query is a list, and not of numbers alone; it must be a text"),
            ([[1.0, 2.0]], "the query is a list, and not of numbers alone; it must be a text"),
        ],
    )
    def test_what_is_no_query(self, jammi, words, verb, query, message):
        with pytest.raises(InputError, match=message):
            getattr(jammi, verb)("t", query, 3)

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ([1], "parameters is of type list; it must be a dict such as {'center': 'ARC'}"),
            ({1: 2}, "parameters is a dict with a key that is no text; it must be"),
        ],
    )
    def test_what_are_no_parameters(self, jammi, words, parameters, message):
        with pytest.raises(InputError, match=message):
            jammi.search("t", "word7", 3, filter="id = $a", parameters=parameters)
        with pytest.raises(InputError, match=message):
            jammi.similar("t", 7, 3, filter="id = $a", parameters=parameters)

    def test_types_that_arrow_lacks(self, jammi, con):
        con.execute("CREATE TYPE mood AS ENUM ('good', 'bad')")
        con.execute(
            "CREATE TABLE odd AS SELECT uuid() AS id, 'a cat' AS text, 'good'::mood AS mood, '10101'::BIT AS bits, "
            "INTERVAL 3000000 HOURS AS i, 170141183460469231731687303715884105727 AS huge, '{}'::JSON AS j, "
            "'10:00:00+02'::TIMETZ AS z, [uuid()] AS u, {'a': [1.5]} AS s, MAP {1: 'a'} AS m"
        )
        jammi.generate("odd", "text", "id")
        found = jammi.search("odd", "a cat")
        columns = ", ".join(found.columns[:-6])
        assert found.project(columns).fetchall() == con.execute("FROM odd").fetchall()
        assert list(map(str, found.types))[:-6] == list(map(str, con.sql("FROM odd").types))

    def test_types_that_arrow_has(self, jammi, con):
        con.execute("CREATE TABLE t AS SELECT uuid() AS id, 'a cat' AS text, [uuid()] AS u, '{}'::JSON AS \"j \"\"x\"")
        jammi.generate("t", "text", "id")
        found = jammi.search("t", "a cat")
        assert found.fetchall()[0][:4] == con.execute("FROM t").fetchone()
        assert list(map(str, found.types))[:4] == list(map(str, con.sql("FROM t").types))

    def test_what_has_acted_is_no_relation(self, jammi, words):
        assert jammi.vacuum() == []
        assert jammi.recover() == []
        ((name,),) = jammi.tables().project("embedding_table").fetchall()
        dropped = jammi.drop(name)
        assert (dropped.embedding_table, dropped.status) == (name, "dropped")
        with pytest.raises(NotFoundError, match=f"no embedding table '{name}'"):
            jammi.drop(name)

    def test_an_argument_that_there_is_not(self, jammi, words):
        for method in (jammi.search, jammi.matches, jammi.explain, jammi.similar):
            with pytest.raises(TypeError, match="nonsense"):
                method("t", "word7", nonsense=1)


def frames(con):
    """The same rows as everything that DuckDB reads as a table."""
    table = pa.table(ROWS)
    return {
        "pandas": pd.DataFrame(ROWS),
        "arrow": table,
        "reader": table.to_reader(),
        "dataset": pyarrow.dataset.dataset(table),
        "relation": con.sql("FROM (VALUES (1, 'a membrane cleans water'), (2, 'a robot arm')) t(id, text)"),
        "polars": pl.DataFrame(ROWS),
        "lazy": pl.LazyFrame(ROWS),
        "stream": Stream(table),
    }


class Stream:
    """A table of another library, which hands its rows over as Arrow does."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


class TestFrames:
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("kind", ["pandas", "arrow", "reader", "dataset", "relation", "polars", "lazy", "stream"])
    def test_by_name_and_themselves(self, jammi, con, kind):
        tickets = frames(con)[kind]
        assert jammi.generate(tickets, "text", "id").row_count == 2
        tickets = frames(con)[kind]
        assert jammi.search("tickets", "a robot arm", 1).project("id, text").fetchall() == [(2, "a robot arm")]
        tickets = frames(con)[kind]
        assert jammi.search(tickets, "a robot arm", 1).project("id, text").fetchall() == [(2, "a robot arm")]
        tickets = frames(con)[kind]
        again = jammi.generate("tickets", "text", "id", reuse=True)
        assert (again.row_count, again.source, len(jammi.tables())) == (2, "temp.tickets", 1)

    def test_every_verb_takes_them(self, jammi, con):
        tickets = pd.DataFrame(ROWS)
        vectors = pa.table({"id": [1, 2], "v": [text_vector(text).tolist() for text in ROWS["text"]]})
        assert jammi.import_vectors(tickets, vectors, "id", "v", "fake/small", "text").row_count == 2
        assert jammi.status(tickets).project("current").fetchall() == [(2,)]
        tickets.loc[2] = (3, "a cat")
        assert jammi.refresh(tickets).added == 1
        assert jammi.compact(tickets).segments == 1
        assert jammi.check(tickets, 1).project("recall").fetchall() == [(1.0,)]
        assert jammi.matches(tickets, "a cat", 1).project("_row_id").fetchall() == [("3",)]
        assert jammi.similar(tickets, 3, 5, filter="id < 3").project("id").order("id").fetchall() == [(1,), (2,)]
        assert len(jammi.explain(tickets, "a cat")) > 2

    def test_infer_is_looked_at_later(self, jammi, con):
        def inferred():
            tickets = pd.DataFrame(ROWS)
            by_name = jammi.infer("tickets", "text", "id")
            return by_name, jammi.infer(tickets, "text", "id")

        for relation in inferred():
            gc.collect()
            for _ in range(2):
                assert relation.project("_row_id, _status").fetchall() == [("1", "ok"), ("2", "ok")]

    def test_variables_of_the_module_and_of_functions_around(self, jammi):
        tickets = pd.DataFrame(ROWS)

        def build():
            return jammi.generate(tickets, "text", "id")

        assert build().source == "temp.tickets"
        names = {"jammi": jammi, "frame": tickets}
        exec("def f(): return jammi.generate(frame, 'text', 'id').source", names)
        assert names["f"]() == "temp.frame"

    def test_one_without_a_name(self, jammi):
        with pytest.raises(InputError, match="a DataFrame is known by the name of the variable that holds it"):
            jammi.generate(pd.DataFrame(ROWS), "text", "id")
        jammi.con.register("tickets", pd.DataFrame(ROWS))
        assert jammi.generate("tickets", "text", "id").row_count == 2

    def test_one_of_the_name_of_a_table(self, jammi, con):
        Tickets = pd.DataFrame(ROWS)
        con.execute("CREATE TABLE tickets AS SELECT 7 AS id, 'a cat' AS text")
        with pytest.raises(InputError, match="the database has a table or view of that name"):
            jammi.generate(Tickets, "text", "id")
        assert jammi.generate("tickets", "text", "id").row_count == 1

    def test_a_reader_of_the_name_of_a_table_keeps_its_rows(self, jammi, con):
        tickets = pa.table(ROWS).to_reader()
        con.execute("CREATE TABLE tickets AS SELECT 7 AS id, 'a cat' AS text")
        assert jammi.generate("tickets", "text", "id").row_count == 1
        assert tickets.read_all().num_rows == 2

    def test_what_is_no_table(self, jammi):
        words = ["a cat"]
        for source in (words, object(), 7, pa.array(["a cat"]), pd.Series(["a cat"])):
            with pytest.raises(InputError, match=f"a {type(source).__name__} is no source"):
                jammi.generate(source, "text", "id")
        with pytest.raises(NoSourceError, match="there is no table, view or file 'words'"):
            jammi.generate("words", "text", "id")
        with pytest.raises(NoSourceError):
            jammi.generate("self.words", "text", "id")

    def test_none_of_our_own_variables_is_found(self, jammi):
        for name in ("con", "given", "frame", "names", "values", "call"):
            with pytest.raises(NoSourceError):
                jammi.generate(name, "text", "id")


class TestThreads:
    def test_one_object_for_many(self, jammi, words):
        start, wrong = threading.Barrier(6), []

        def search(number):
            start.wait()
            for i in range(5):
                wanted = (number + i) % 10
                found = jammi.search("t", f"word{wanted}", 1).project("id").fetchall()
                if found != [(wanted,)]:
                    wrong.append((wanted, found))

        threads = [threading.Thread(target=search, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_a_cursor_is_closed_with_its_thread(self, jammi, words):
        cursors = []

        def search():
            jammi.search("t", "word7", 1).fetchall()
            cursors.append(weakref.ref(jammi._statements.con()))
            assert cursors[-1]() is jammi._statements.con()

        for _ in range(3):
            thread = threading.Thread(target=search)
            thread.start()
            thread.join()
        gc.collect()
        assert [cursor() for cursor in cursors] == [None] * 3
        assert jammi._statements.con() is jammi.con

    def test_another_thread_has_a_transaction_of_its_own(self, jammi, words):
        words.begin()
        words.execute("DELETE FROM t")
        counts = []
        thread = threading.Thread(target=lambda: counts.append(len(jammi.search("t", "word7"))))
        thread.start()
        thread.join()
        counts.append(len(jammi.search("t", "word7")))
        words.rollback()
        assert counts == [10, 0]

    def test_cursor(self, jammi, words):
        other = jammi.cursor()
        assert (other.location, other.con is not jammi.con) == (jammi.location, True)
        other.con.begin()
        other.con.execute("DELETE FROM t WHERE id = 7")
        with pytest.warns(JammiWarning, match="has 9 rows now"):
            assert other.search("t", "word7", 1).project("id").fetchall() != [(7,)]
        assert jammi.search("t", "word7", 1).project("id").fetchall() == [(7,)]
        other.con.rollback()
        jammi.con.close()
        with pytest.raises(jammi_duck.JammiError, match="closed"):
            other.search("t", "word7", 1)
        with pytest.raises(jammi_duck.JammiError, match="closed"):
            jammi.cursor()
