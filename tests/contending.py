"""A process that works on an embedding table which others work on as well: `python -m tests.contending LOCATION SIDE`.

It refreshes, compacts, vacuums with no retention, drops, generates, searches, and asks for the status, at random and as
fast as it can, and writes each error and each wrong answer to standard output, a line for each.
"""

import random
import sys
import time
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path

import duckdb

from jammi_duck.config.options import Config
from jammi_duck.doors.installation import equip
from tests.fakes import FakeEncoders


def work(location: str, side: str, seconds: float) -> None:
    """Contend for so long, on a database of this side whose source changes all the time."""
    warnings.simplefilter("ignore")
    chance = random.Random(side)
    folder = Path(location).parent
    con = duckdb.connect(str(folder / f"{side}.duckdb"))
    con.execute("CREATE TABLE IF NOT EXISTS t AS SELECT range AS id, 'word' || range AS text FROM range(30)")
    config = Config(
        storage=location,
        model="fake/small",
        cache_dir=folder / f"cache of {side}",
        segment_rows=25,
        retention=timedelta(0),
        follow=timedelta(0),
    )
    equip(con, config, FakeEncoders())
    name = None
    if side == "0":
        name = con.execute("FROM jammi_generate('t', 'text', 'id')").fetchone()[0]
    else:
        while not con.execute("FROM jammi_recover()").fetchall():
            time.sleep(0.05)
        name = con.execute("SELECT min(embedding_table) FROM jammi_tables()").fetchone()[0]
    table = f"embedding_table := '{name}'"
    verbs = {
        f"FROM jammi_refresh('t', {table})": 8,
        f"FROM jammi_status('t', {table})": 4,
        f"FROM jammi_compact('t', {table})": 2,
        "FROM jammi_vacuum()": 4,
        f"FROM jammi_search('t', 'word1', 3, {table})": 6,
        f"FROM jammi_search('t', 'word1', 3, exact := true, filter := 'id > 5', {table})": 3,
        "FROM jammi_generate('t', 'text', 'id', reuse := true)": 1,
        "another": 1,
    }
    done, end = Counter(), time.monotonic() + seconds
    while time.monotonic() < end:
        (verb,) = chance.choices(list(verbs), list(verbs.values()))
        con.execute(
            "UPDATE t SET text = 'word' || id || ' ' || ? WHERE id % 7 = ?", [chance.random(), chance.randrange(7)]
        )
        done[verb[:25]] += 1
        try:
            if verb == "another":
                made = con.execute("FROM jammi_generate('t', 'text', 'id')").fetchone()[0]
                con.execute("FROM jammi_drop(?)", [made]).fetchall()
                continue
            rows = con.execute(verb).fetchall()
            if "search" in verb and len(rows) != 3:
                print(f"{verb}: {len(rows)} rows", flush=True)
        except duckdb.Error as error:
            print(f"{verb}: {' '.join(str(error).split())[:400]}", flush=True)
    print(f"done {dict(done)}", file=sys.stderr)
    con.close()


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], float(sys.argv[3]))
