"""Takes one measure in a new process, started by benchmarks.encode, and prints a number, without interpreter start.

child.py install                            seconds to equip a connection
child.py vector                             seconds to equip a connection, and to embed a first text in SQL
child.py first CONTENDER MODEL              seconds to import, load, and encode a first text
child.py peak CONTENDER MODEL TEXTS.json    peak memory in MB, after encoding all texts

A contender is `sentence-transformers`, or one of ours in contenders.py.
"""

import sys
import time

BEGAN = time.perf_counter()


def main() -> None:
    """Run the measure that the arguments name."""
    measure, *rest = sys.argv[1:]
    if measure in ("install", "vector"):
        import duckdb

        import jammi_duck

        con = duckdb.connect()
        jammi_duck.install(con)
        if measure == "vector":
            con.execute("SELECT embed('a first text')").fetchall()
        print(time.perf_counter() - BEGAN)
        return

    from pathlib import Path

    from benchmarks import contenders

    is_ours = rest[0] != contenders.SENTENCE_TRANSFORMERS
    encode = contenders.ours(rest[0]) if is_ours else contenders.sentence_transformers(Path(rest[1]))
    encode(["a first text"])
    if measure == "first":
        print(time.perf_counter() - BEGAN)
        return

    import json

    from benchmarks.common import peak_mb

    encode(json.loads(Path(rest[2]).read_text()))
    print(peak_mb())


if __name__ == "__main__":
    main()
