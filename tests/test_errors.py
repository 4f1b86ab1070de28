"""What the methods for Python raise, and what plain SQL does: one tree of errors, whose causes are DuckDB's."""

import copy
import inspect
import os
import re
import threading

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jammi_duck
from jammi_duck import (
    DamagedError,
    InputError,
    JammiError,
    JammiWarning,
    NoModelError,
    NoSourceError,
    NotFoundError,
    StorageError,
    errors,
)
from tests.effort import some


def raised(kind, call, match=None):
    """An error that is of just this class, with DuckDB's for its cause and none of DuckDB's words around it."""
    with pytest.raises(kind, match=match) as caught:
        call()
    error = caught.value
    assert type(error) is kind
    assert isinstance(error.__cause__, duckdb.Error)
    for words in ("UDF", "Python exception", "Error:", "At:", "LINE 1"):
        assert words not in str(error)
    return error


def drawn():
    """The tree at the top of errors.py: for each name that of the one above."""
    above, parents = {}, {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"(?P<branch>[│├└─ ]*)(?P<name>Jammi\w+|\w+Error)\b", line)
        if found:
            depth = len(found["branch"]) // 4
            above[depth] = found["name"]
            parents[found["name"]] = above[depth - 1] if depth else None
    return parents


def test_the_tree_is_drawn_as_it_is():
    classes = [each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__]
    assert drawn() == {each.__name__: each.__base__.__name__ if each.__base__ in classes else None for each in classes}
    for each in classes:
        assert getattr(jammi_duck, each.__name__) is each
        assert each.__name__ in jammi_duck.__all__


class TestMethods:
    @pytest.fixture
    def built(self, animals, jammi):
        return jammi.generate("animals", "text", "id")

    def test_nothing_is_found(self, jammi, built):
        for call in (jammi.status, jammi.refresh, jammi.compact, jammi.check):
            raised(
                NotFoundError, lambda call=call: call("birds"), "^no embedding table for 'birds'; there are some for"
            )
        for call in (jammi.search, jammi.explain, jammi.similar):
            raised(NotFoundError, lambda call=call: call("birds", "owl"), "^no embedding table for 'birds'")
        raised(NotFoundError, lambda: jammi.search("animals", "owl", embedding_table="x"), "^no embedding table 'x'")

    def test_what_would_make_it_is_told_apart(self, jammi, built):
        error = raised(NotFoundError, lambda: jammi.status("birds"))
        assert error.remedy == "SELECT * FROM jammi_generate('birds', columns, key) makes one"
        assert str(error) == f"{error.message}. {error.remedy}"

    def test_there_is_no_source(self, jammi, built):
        error = raised(
            NoSourceError,
            lambda: jammi.generate("animal", "text", "id"),
            "^there is no table, view or file 'animal'; did you mean 'animals'\\?",
        )
        assert error.name == "animal"
        error = raised(NoSourceError, lambda: jammi.generate("xyz", "text", "id"), "^there is no [^;]* 'xyz'$")
        assert error.name == "xyz"
        error = raised(NoSourceError, lambda: jammi.infer("no.csv", "text", "id"), "^there is no table, view or file")
        assert error.name.endswith("no.csv")

    def test_an_argument_is_wrong(self, jammi, built):
        raised(InputError, lambda: jammi.generate("animals", "txt", "id"), "^no column 'txt' in 'animals'; did you")
        raised(InputError, lambda: jammi.infer("animals", "text", "idd"), "^no column 'idd' in 'animals'; did you")
        raised(InputError, lambda: jammi.search("animals", "owl", 0), "^k is 0; it must be at least 1")
        raised(InputError, lambda: jammi.search("animals", [1.0, 2.0]), "dimensions")
        for condition in ("bo dy", "nothing = 1", "id = (SELECT"):
            raised(InputError, lambda condition=condition: jammi.search("animals", "owl", filter=condition))
        in_a_filter = "id IN (SELECT id FROM nowhere)"
        raised(NoSourceError, lambda: jammi.search("animals", "owl", filter=in_a_filter), "'nowhere'")

    def test_a_model_is_not_there(self, jammi, built):
        raised(NoModelError, lambda: jammi.generate("animals", "text", "id", "fake/none"), "^no model 'fake/none'$")
        known = jammi.encoders.loaded.pop("fake/small")
        raised(NoModelError, lambda: jammi.search("animals", "an owl"), "^no model 'fake/small'$")
        jammi.encoders.loaded["fake/small"] = known

    def test_files_are_damaged(self, jammi, built, storage):
        (parquet,) = storage.rglob("*.parquet")
        parquet.write_bytes(parquet.read_bytes()[:-50])
        for index in storage.rglob("*.usearch"):
            index.unlink()
        raised(DamagedError, lambda: jammi.compact("animals"))

    def test_a_source_fails_in_its_midst(self, jammi):
        jammi.con.execute("CREATE VIEW broken AS SELECT 1 AS id, error('the disk is away') AS text")
        raised(JammiError, lambda: jammi.generate("broken", "text", "id"), "^the disk is away$")

    def test_a_file_that_duckdb_cannot_read(self, jammi, tmp_path):
        (tmp_path / "x.parquet").write_bytes(b"PAR1 no PAR1")
        raised(JammiError, lambda: jammi.generate(tmp_path / "x.parquet", "text", "id"))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_nobody_may_read(self, jammi, tmp_path):
        (tmp_path / "x.csv").write_bytes(b"id,text\n1,a cat\n")
        (tmp_path / "x.csv").chmod(0)
        raised(StorageError, lambda: jammi.generate(tmp_path / "x.csv", "text", "id"))

    def test_the_connection_is_closed(self, jammi, built):
        jammi.con.close()
        raised(JammiError, lambda: jammi.search("animals", "owl"), "closed")

    def test_a_warning_that_is_an_error(self, jammi, built):
        with pytest.raises(JammiWarning) as caught:
            jammi.search("animals", str([0.5] * 64))
        assert isinstance(caught.value.__cause__, duckdb.Error)

    def test_a_fault_of_ours_is_told_as_one(self, jammi, built, monkeypatch):
        def broken(*_, **__):
            raise KeyError("owl")

        monkeypatch.setattr(jammi.encoders.loaded["fake/small"], "encode", broken)
        error = raised_by(lambda: jammi.search("animals", "an owl hunts"))
        assert (type(error), str(error)) == (JammiError, "KeyError: 'owl'")

    def test_an_interrupt_stays_one(self, jammi, built, monkeypatch):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(jammi.encoders.loaded["fake/small"], "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            jammi.search("animals", "an owl hunts")

    def test_all_of_a_text_that_looks_like_more(self, jammi, built):
        name = "a\n\nAt:\n  b(1): c\n\nLINE 1: d"
        with pytest.raises(NotFoundError) as caught:
            jammi.search("animals", "owl", embedding_table=name)
        assert f"no embedding table '{name}'" in str(caught.value)

    def test_zero_bytes(self, jammi, built):
        with pytest.raises(NotFoundError, match=r"no embedding table 'a\\0b'"):
            jammi.search("animals", "owl", embedding_table="a\x00b")


def raised_by(call):
    with pytest.raises(JammiError) as caught:
        call()
    return caught.value


def test_threads_do_not_mix_their_errors(jammi, animals, fake):
    jammi.generate("animals", "text", "id")
    cursors = [fake(animals.cursor()) for _ in range(4)]
    wrong = []

    def search(cursor, names):
        for name in names:
            error = raised_by(lambda name=name: cursor.search("animals", "owl", embedding_table=name))
            if type(error) is not NotFoundError or not str(error).startswith(f"no embedding table '{name}';"):
                wrong.append((name, error))
            error = raised_by(lambda name=name: cursor.search("animals", "owl", -int(name[1:])))
            if type(error) is not InputError or not str(error).startswith(f"k is -{int(name[1:])};"):
                wrong.append((name, error))

    # Each name of one thread is the beginning of names of others.
    threads = [
        threading.Thread(target=search, args=(cursor, [f"x{'1' * (1 + (number + i) % 5)}" for i in range(10)]))
        for number, cursor in enumerate(cursors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_errors_can_be_copied():
    for error in (NotFoundError("none", "make one"), NoSourceError("no x", "x"), InputError("no")):
        again = copy.copy(error)
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@given(name=st.text())
@settings(max_examples=some(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_through(jammi, name):
    error = raised_by(lambda: jammi.drop(name))
    assert type(error) is NotFoundError
    assert str(error) == str(NotFoundError(f"no embedding table '{name}'; none is ready"))


class TestPlainSQL:
    def test_a_query_that_cannot_be_planned_has_our_text_alone(self, animals):
        for query, text in (
            ("FROM jammi_status('birds')", "NotFoundError: no embedding table for 'birds'; there are none yet."),
            ("FROM jammi_refresh('a\"b')", "InputError: 'a\"b' names no table, view or file"),
            ("FROM jammi_generate('animals', [], 'id')", "InputError: columns are []; give a name"),
            ("SELECT nothing FROM jammi_compact('birds')", "NotFoundError: no embedding table for 'birds'"),
        ):
            with pytest.raises(duckdb.InvalidInputException) as caught:
                animals.execute(query)
            assert str(caught.value).startswith(f"Invalid Input Error: {text}")

    def test_one_that_fails_as_it_runs_keeps_duckdbs_class(self, animals):
        with pytest.raises(duckdb.InvalidInputException) as caught:
            animals.execute("FROM jammi_search('birds', 'owl')")
        assert "NotFoundError: no embedding table for 'birds'; there are none yet." in str(caught.value)
