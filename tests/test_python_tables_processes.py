"""Tables in Python in other processes, in ones that die, and in threads."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import pytest

import jammi_duck
from jammi_duck import ConfigError, InputError, ModelError, NoModelError, StorageError
from jammi_duck.embeddings import Model, Vector, connect, get_registry, register
from jammi_duck.work.adding import Addition
from tests.python_tables import ROOT, Told, WithTables, embedded_as, states, texts


def run(script, folder, *, check=True):
    """Run Python in a process of its own."""
    text = textwrap.dedent(
        """
        import os, sys, json
        sys.path.insert(0, {root!r})
        from jammi_duck.embeddings import *
        folder = {folder!r}

        def registered():
            from tests.python_tables import Told
            return register("tests-told")(Told)
        """
    ).format(root=str(ROOT), folder=str(folder)) + textwrap.dedent(script)
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", text],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


class TestAnotherProcess(WithTables):
    def test_a_function_that_is_not_imported_says_what_to_import(self, tmp_path, words):
        with connect(tmp_path) as db:
            db.create_table("words", data=[{"text": "hello world"}, {"text": "goodbye world"}], schema=words)
        done = run(
            """
            db = connect(folder)
            table = db.open_table("words")
            for work in (lambda: table.search("hello").to_list(), lambda: table.add([{"text": "more"}])):
                try:
                    work()
                except Exception as error:
                    print(type(error).__name__, error)
            print(table.add([{"text": "with one", "vector": [1.0] * 16}]))
            print(table.search([1.0] * 16).limit(1).to_list()[0]["text"])
            registered()
            print(table.search("hello").limit(1).to_list()[0]["text"], table.count_rows())
            """,
            tmp_path,
        )
        *errors, added, found, last = done.stdout.splitlines()
        assert len(errors) == 2
        for error in errors:
            assert error.startswith("NoModelError")
            assert "import" in error
            assert "@register('tests-told')" in error
        assert (added, found, last) == ("1", "with one", "hello world 3")

    def test_a_variable_that_is_not_set_says_what_to_set(self, tmp_path):
        class Keyed(Told):
            api_key: str | None = None
            label: str = ""

        registry = get_registry()
        registry.set_var("tests-key", "sk-a-secret-value")
        func = register("tests-keyed")(Keyed).create(api_key="$var:tests-key", label="$var:tests-label:a:b")

        class Words(Model):
            text: str = func.SourceField()
            vector: Vector(func.ndims()) = func.VectorField()

        with connect(tmp_path) as db:
            table = db.create_table("words", data=[{"text": "hello"}], schema=Words)
            assert texts(table.search("hello")) == ["hello"]
        for file in (each for each in tmp_path.rglob("*") if each.is_file()):
            assert b"sk-a-secret" not in file.read_bytes(), file
        done = run(
            """
            from tests.python_tables import Told
            class Keyed(Told):
                api_key: str | None = None
                label: str = ""
            register("tests-keyed")(Keyed)
            db = connect(folder)
            table = db.open_table("words")
            for work in (lambda: table.search("hello").to_list(), lambda: table.add([{"text": "more"}])):
                try:
                    work()
                except Exception as error:
                    print(type(error).__name__, error)
            get_registry().set_var("tests-key", "sk-another")
            print(table.search("hello").to_list()[0]["text"])
            """,
            tmp_path,
        )
        *errors, found = done.stdout.splitlines()
        assert len(errors) == 2
        assert all("set_var('tests-key'" in error and error.startswith("InputError") for error in errors), errors
        assert found == "hello"

    def test_a_literal_secret_is_refused(self):
        class Keyed(Told):
            api_key: str | None = None

        with pytest.raises(InputError, match=r"\$var:api_key"):
            register("tests-keyed")(Keyed).create(api_key="sk-literal")

    def test_a_folder_that_another_process_has_open(self, tmp_path, words):
        with connect(tmp_path) as db:
            db.create_table("words", schema=words)
            done = run("connect(folder)", tmp_path, check=False)
            assert "StorageError" in done.stderr
            assert "is open in another process, and DuckDB lets one process write to a file at a time" in done.stderr
            # In one process, there may be several.
            with connect(tmp_path) as other:
                assert other.table_names() == ["words"]
        run("connect(folder).close()", tmp_path)

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        "moment",
        [
            "patch(Addition, 'make')",
            "patch(Addition, 'write')",
            "patch(Addition, 'commit')",
            "patch(Addition, 'commit', after=True)",
            "patch(Addition, 'commit', after=True, calls=2)",
        ],
    )
    def test_one_that_dies_leaves_all_of_an_addition_or_nothing(self, tmp_path, moment, told):
        func = get_registry().get("tests-told").create()
        other = get_registry().get("tests-told").create(dimensions=4)

        class Pages(Model):
            title: str = func.SourceField()
            title_vector: Vector(16) = func.VectorField()
            body: str = other.SourceField()
            body_vector: Vector(4) = other.VectorField()

        with connect(tmp_path) as db:
            db.create_table("pages", data=[{"title": "first", "body": "first"}], schema=Pages)
        done = run(
            f"""
            import signal
            from jammi_duck.embeddings.writing import Writing
            from jammi_duck.work.adding import Addition
            registered()
            def patch(owner, name, after=False, calls=1):
                real, left = getattr(owner, name), [calls]
                def method(*arguments, **options):
                    if not after and left[0] == 1:
                        os.kill(os.getpid(), signal.SIGKILL)
                    done = real(*arguments, **options)
                    left[0] -= 1
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return done
                setattr(owner, name, method)
            table = connect(folder).open_table("pages")
            {moment}
            lost = {{"title": "lost", "body": "lost", "body_vector": [1, 2, 3, 4]}}
            table.add([lost, {{"title": "gone", "body": "gone"}}])
            """,
            tmp_path,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        told.clear()
        with connect(tmp_path) as db:
            table = db.open_table("pages")
            for column in ("title", "body"):
                assert [row["title"] for row in table.search("lost gone", column).to_list()] == ["first"]
            assert [row["title"] for row in table.search().to_list()] == ["first"]
            assert states(db) == [(0, 0, 0), (0, 0, 0)]
            table.add([{"title": "lost", "body": "lost"}])
            assert sorted(told) == ["lost", "lost", *["lost gone"] * 2]
            assert {row["title"] for row in table.search("lost", "body").to_list()} == {"first", "lost"}

    def test_pydantic_is_asked_for_where_it_is_missing(self, tmp_path):
        script = "import sys; sys.modules['pydantic'] = None; from jammi_duck.embeddings import get_registry, Model"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
        assert "ImportError: tables in Python need pydantic: pip install 'jammi-duck[tables]'" in done.stderr

    def test_nothing_of_it_is_imported_before_it_is_used(self, tmp_path):
        script = (
            "import duckdb, jammi_duck, sys; jammi_duck.install(duckdb.connect()); import jammi_duck.embeddings;"
            "print([name for name in sys.modules if name == 'pydantic' or name.startswith('jammi_duck.embeddings.')])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert done.stdout.strip() == "[]"

    def test_what_sql_has_changed_meanwhile_is_found(self, tmp_path, words, told):
        with connect(tmp_path) as db:
            db.create_table("words", data=[{"text": "first"}, {"text": "second"}], schema=words)
        with duckdb.connect(str(tmp_path / "tables.duckdb")) as con:
            con.execute("UPDATE words SET text = 'third' WHERE text = 'first'")
        told.clear()
        done = run(
            """
            from tests.python_tables import asked
            registered()
            table = connect(folder).open_table("words")
            for _ in range(2):
                print([row["text"] for row in table.search("third").limit(1).to_list()], asked)
            """,
            tmp_path,
        )
        assert done.stdout.splitlines() == ["['third'] ['third', 'third']", "['third'] ['third', 'third', 'third']"]


class TestThreads(WithTables):
    def test_additions_and_searches_at_once(self, db, table):
        table.add([{"text": "there from the beginning"}])

        def add(thread):
            for number in range(5):
                table.add([{"text": f"thread {thread} number {number}"}, {"text": f"also {thread} {number}"}])
                assert texts(table.search("there from the beginning").limit(1)) == ["there from the beginning"]
            return thread

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(add, range(4))) == [0, 1, 2, 3]
        assert table.count_rows() == 41
        assert states(db) == [(0, 0, 0)]
        for thread in range(4):
            text = f"thread {thread} number 3"
            found = table.search(text).limit(1).to_list()
            assert found[0]["_distance"] == pytest.approx(0, abs=1e-5)
            assert found[0]["vector"] == embedded_as(found[0]["text"])

    def test_nobody_sees_half_an_addition(self, db, table, before):
        table.add([{"text": "first"}])
        seen = []

        def look():
            with ThreadPoolExecutor(1) as pool:
                seen.append(pool.submit(lambda: (table.count_rows(), texts(table.search("second")))).result())

        before(Addition, "commit", look)
        before(Addition, "write", look)
        table.add([{"text": "second"}])
        assert seen == [(1, ["first"])] * 2
        assert sorted(texts(table.search("second"))) == ["first", "second"]

    def test_a_search_waits_while_vectors_are_there_and_rows_not_yet(self, db, table, told, before):
        table.add([{"text": "first"}])
        told.clear()
        searching = []

        def look():
            thread = threading.Thread(target=lambda: searching.append(texts(table.search("second"))))
            thread.start()
            searching.append(thread)

        before(Addition, "commit", look, after=True)
        table.add([{"text": "second", "vector": np.eye(16)[0]}])
        thread = next(each for each in searching if isinstance(each, threading.Thread))
        thread.join()
        assert states(db) == [(0, 0, 0)]
        assert texts(table.search(np.eye(16)[0]).limit(1)) == ["second"]
        # Nothing was taken for a row that is gone, and embedded again.
        assert told.count("first") == 0


class TestConnections(WithTables):
    def test_a_folder_is_made(self, tmp_path):
        with connect(tmp_path / "a" / "b") as db:
            assert db.table_names() == []
        assert (tmp_path / "a" / "b" / "tables.duckdb").is_file()

    def test_what_is_no_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="is a file; give a folder, or a connection"):
            connect(tmp_path / "file")
        with pytest.raises(StorageError, match="no folder of this machine"):
            connect("s3://bucket/db")
        with pytest.raises(StorageError, match="cannot be made"):
            connect(tmp_path / "file" / "below")
        with pytest.raises(ConfigError, match="no option 'modle'; did you mean 'model'"):
            connect(tmp_path / "db", modle="x")

    def test_vectors_elsewhere(self, tmp_path, words):
        with connect(tmp_path / "db", storage=tmp_path / "vectors") as db:
            db.create_table("words", data=[{"text": "hello"}], schema=words)
        assert any((tmp_path / "vectors" / "jammi_db").iterdir())

    def test_a_closed_one_says_so(self, tmp_path, words):
        db = connect(tmp_path)
        table = db.create_table("words", schema=words)
        db.close()
        with pytest.raises(jammi_duck.JammiError, match="closed"):
            table.add([{"text": "x"}])

    def test_a_model_that_is_gone_is_no_obstacle_to_what_needs_none(self, db, table, told):
        table.add([{"text": "hello"}])
        get_registry()._own.pop("tests-told")
        with pytest.raises((NoModelError, ModelError), match="tests-told"):
            table.search("hello").to_list()
        assert len(table.search(np.ones(16)).to_list()) == 1
        assert texts(table.search("hello", query_type="fts")) == ["hello"]
        assert table.count_rows() == 1
