"""Fills in the transcripts of README.md: runs each statement after `D `, and writes DuckDB's output below it.

python -m tools.transcript      writes README.md
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import duckdb

import jammi_duck

README = Path(__file__).resolve().parents[1] / "README.md"
_BLOCK = re.compile(r"(?<=<!-- transcript -->\n```sql\n).*?(?=```\n)", re.DOTALL)
_STATEMENT = re.compile(r"^D .*?;$", re.DOTALL | re.MULTILINE)


def filled(text: str) -> str:
    """The text with the current output of each transcript; all blocks share one database."""
    with tempfile.TemporaryDirectory() as folder:
        con = duckdb.connect()
        try:
            jammi_duck.install(con, storage=folder, precision="float32")
            return _BLOCK.sub(lambda block: _run(con, block[0]), text)
        finally:
            con.close()


def _run(con: duckdb.DuckDBPyConnection, block: str) -> str:
    parts = []
    for statement in _STATEMENT.findall(block):
        query = re.sub(r"^(D|\.) ", "", statement, flags=re.MULTILINE)
        if query.startswith("SELECT"):
            parts.append(f"{statement}\n{str(con.sql(query)).rstrip()}\n")
        else:
            con.execute(query)
            parts.append(f"{statement}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
