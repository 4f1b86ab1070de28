"""The demo: the documentation of this machine's Python, embedded and searched in SQL."""

from __future__ import annotations

import ast
import io
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from jammi_duck.doors.database_file import create
from jammi_duck.doors.installation import install

QUERIES = ("parse command line arguments", "compress a file", "talk to a web server")

_GENERATE = "SELECT embedding_table, row_count, seconds FROM jammi_generate('pydoc', ['name', 'doc'], 'id')"
_SEARCH = "SELECT kind, name, round(_similarity, 3) AS similarity FROM jammi_search('pydoc', '{}', 5, mode := 'vector')"
_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "_bundled"}

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def run(folder: Path) -> None:
    """Build the table `pydoc`, embed it, and search it three times by meaning; everything stays in `folder`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    folder.mkdir(parents=True, exist_ok=True)
    database, storage = folder / "pydoc.duckdb", folder / "artifacts"
    create(database)
    con = duckdb.connect(str(database))
    try:
        jammi = install(con, storage=storage)
        rows = list(docstrings(Path(sysconfig.get_path("stdlib"))))
        _fill(con, rows)
        print(f"pydoc: {len(rows):,} docstrings of Python's standard library, in {database}\n")
        old = "SELECT embedding_table FROM jammi_tables() WHERE source = 'pydoc' AND status = 'ready'"
        for name in con.execute(old).fetchall():
            con.execute("FROM jammi_drop(?)", name).fetchall()
        _show(con, _GENERATE)
        for query in QUERIES:
            _show(con, _SEARCH.format(query))
        print(f"The vectors and their indexes are in {jammi.location}/jammi_db. Continue with:\n")
        print(f"  {sys.executable}\n  >>> import jammi_duck")
        print(f"  >>> con = jammi_duck.connect({str(database)!r}, storage={str(storage)!r})")
        print("  >>> con.sql(\"SELECT name, doc FROM jammi_search('pydoc', 'wait for a child process', 3)\").show()")
        print('  >>> con.sql("SELECT * FROM jammi_tables()").show()')
    finally:
        con.close()


def docstrings(library: Path) -> Iterator[tuple[int, str, str, str]]:
    """Id, kind, name and text of every docstring in a folder of Python sources, which are read and never run."""
    found = 0
    for path in sorted(library.rglob("*.py")):
        inner = path.relative_to(library)
        if _NOT_LIBRARY.isdisjoint(inner.parts):
            for kind, name, text in _documented(path, ".".join(inner.with_suffix("").parts)):
                found += 1
                yield found, kind, name.removesuffix(".__init__"), text


def _documented(path: Path, module: str) -> Iterator[tuple[str, str, str]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    waiting: list[tuple[_Documented, str]] = [(tree, module)]
    while waiting:
        node, name = waiting.pop()
        text = ast.get_docstring(node)
        if text:
            yield _kind(node), name.replace(".__init__.", "."), text
        inner = [
            child for child in node.body if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        waiting += [(child, f"{name}.{child.name}") for child in reversed(inner)]


def _kind(node: _Documented) -> str:
    if isinstance(node, ast.Module):
        return "module"
    return "class" if isinstance(node, ast.ClassDef) else "function"


def _fill(con: duckdb.DuckDBPyConnection, rows: list[tuple[int, str, str, str]]) -> None:
    names = ("id", "kind", "name", "doc")
    arriving = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    con.register("arriving", arriving)
    con.execute("CREATE OR REPLACE TABLE pydoc AS SELECT id, kind, name, doc FROM arriving ORDER BY id")
    con.unregister("arriving")


def _show(con: duckdb.DuckDBPyConnection, query: str) -> None:
    print(f"D {query};")
    print(con.sql(query))
    print()
