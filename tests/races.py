"""What tests of races ask of a table."""

import duckdb
import pytest

from jammi_duck.storage.tables.build import Build


def ask(con, query, *parameters):
    return con.execute(query, list(parameters)).fetchall()


def fill(con, keys, text="word"):
    con.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER, text VARCHAR)")
    con.executemany("INSERT INTO t VALUES (?, ?)", [(key, f"{text}{key}") for key in keys])


def generate(con, extra=""):
    return ask(con, f"SELECT embedding_table, row_count FROM jammi_generate('t', 'text', 'id'{extra})")[0]


def refresh(con):
    return ask(con, "SELECT added, changed, deleted FROM jammi_refresh('t')")


def found(con):
    """The keys that the view, a search by graph, an exact one and one by words find: all the same."""
    ((name,),) = ask(con, "SELECT embedding_table FROM jammi_tables() WHERE status = 'ready'")
    ways = [f'SELECT _row_id FROM jammi."{name}"']
    by_vectors = "SELECT _row_id FROM jammi_matches('t', 'word1', 1000, mode := 'vector', exact := {})"
    ways += [by_vectors.format(exact) for exact in (False, True)]
    view, graph, exact = (sorted(int(key) for (key,) in ask(con, query)) for query in ways)
    assert view == graph == exact
    return view


def interrupt():
    raise KeyboardInterrupt


def interrupted_build(con, extra=""):
    """Leaves a build whose process seems to have died before its last segment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Build, "finish", lambda *_: interrupt())
        with pytest.raises((KeyboardInterrupt, duckdb.Error)):
            generate(con, extra)
    con.execute("FROM jammi_recover()").fetchall()
