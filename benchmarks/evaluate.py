"""`jammi_eval` over the questions of SciFact, against the searches alone: a LATERAL join with `jammi_matches`.

Both are warm: the questions' vectors are known. They take turns, in an order that moves on by one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from functools import partial

import duckdb

import jammi_duck
from benchmarks.common import DATA, show
from benchmarks.rounds import HEADER, Report, interleave

NAME = "scifact"
EVALUATION = "FROM jammi_eval('corpus', 'questions', 'judgements', judgement_columns := ['qid', 'docid', 'score'])"
SEARCHES = "SELECT q.id, m._row_id, m._rank FROM questions q, jammi_matches('corpus', q.text, 10) m"


def main() -> None:
    """Print both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="after the one that warms up")
    parser.add_argument("--quick", action="store_true", help="a trial: 3 rounds, the judged documents, and no goal")
    options = parser.parse_args()
    if not (DATA / NAME).exists():
        sys.exit(f"This benchmark needs {DATA / NAME}, which is not part of the project.")
    load, rounds = os.getloadavg()[0], 3 if options.quick else options.rounds
    report = Report(is_trial=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        con = duckdb.connect()
        con.execute("SET enable_progress_bar = false")
        jammi_duck.install(con, storage=folder)
        for table, file in (("corpus", "corpus"), ("questions", "queries"), ("judgements", "qrels")):
            con.execute(f"CREATE TABLE {table} AS FROM read_parquet($1)", [str(DATA / NAME / f"{file}.parquet")])
        if options.quick:
            con.execute("DELETE FROM corpus WHERE id NOT IN (SELECT docid FROM judgements)")
        con.execute("FROM jammi_generate('corpus', ['title', 'text'], 'id')").fetchall()
        measures = {query: partial(_seconds, con, query) for query in (EVALUATION, SEARCHES)}
        samples = interleave("evaluations", measures, rounds)
        rows, questions = (
            con.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in ("corpus", "questions")
        )
        con.close()
    report.compare("jammi_eval", samples[EVALUATION], "the searches alone", samples[SEARCHES], "s", "<= 1.2")
    show(f"Evaluation: {questions} questions, {rows:,} documents, {rounds} rounds", HEADER, report.lines)
    print(f"Other load on the machine when it began (average of a minute): {load:.1f}.")
    report.end()


def _seconds(con: duckdb.DuckDBPyConnection, query: str) -> float:
    began = time.perf_counter()
    con.execute(query).fetchall()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
