"""Searches by words, and by words and vectors: the scores of plain Python, whatever has become of the table."""

import contextlib
import shutil
import tempfile
import warnings
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from jammi_duck import JammiWarning
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.retrieval import fusion
from jammi_duck.retrieval.text_query import parse
from jammi_duck.storage.index import graph, plan
from jammi_duck.storage.words.analyser import analyser
from tests.effort import some
from tests.fakes import text_vector
from tests.histories import Database
from tests.plain_bm25 import bm25, meets
from tests.test_generate import generate
from tests.test_search import fill
from tests.test_threads import run_all

ENGLISH = analyser("english")
VOCABULARY = [
    "alpha", "beta", "gamma", "delta", "E-1047", "foo_bar", "the", "running", "runs", "C++", "libssl1.1", "naïve",
    "语言学", "alphabet",
]  # fmt: skip
TEXTS = st.one_of(st.lists(st.sampled_from(VOCABULARY), max_size=9).map(" ".join), st.sampled_from([None, "", "the"]))
PIECES = st.sampled_from(
    [*VOCABULARY, "+beta", "-gamma", "-E-1047", "+runs", '"alpha beta"', '-"beta gamma"', '+"foo bar"', "al*", "+ru*",
     "-libss*", "1047", "foo", "语言", "nothing", "-the", "(delta)"]
)  # fmt: skip
QUERIES = st.lists(PIECES, min_size=1, max_size=5).map(" ".join)
FILTERS = {None: lambda key: True, "id % 2 = 0": lambda key: key % 2 == 0, "id < 3": lambda key: key < 3}
OPTIONS = st.fixed_dictionaries(
    {"k": st.integers(1, 12), "mode": st.sampled_from(["text", "hybrid", "auto"]), "exact": st.booleans()},
    optional={
        "filter": st.sampled_from(list(FILTERS)),
        "min_similarity": st.sampled_from([-0.5, 0.2, 0.5]),
        "weight": st.sampled_from([0, 0.25, 1]),
        "k1": st.sampled_from([0, 0.5, 2]),
        "b": st.sampled_from([0, 0.4, 1]),
    },
)
ASKED = st.lists(st.tuples(QUERIES, OPTIONS), min_size=2, max_size=4)
KEYS = st.sets(st.integers(0, 25), min_size=1, max_size=6)
CLOSE = 1e-5


def scored(texts, query, *, mode, weight=0.7, k1=1.2, b=0.75):
    """What each row that may be found is ranked by, its cosine and its BM25. `texts` are those of all rows, by key."""
    parsed = parse(query, ENGLISH)
    matched = bm25(ENGLISH, texts, parsed, k1, b)
    vector = text_vector(parsed.plain).astype(np.float64)
    near = {key: float(text_vector(text).astype(np.float64) @ vector) for key, text in texts.items()}
    if mode == "text":
        return matched, near, matched
    # A row needs none of the words, if it meets the conditions.
    met = [key for key, text in texts.items() if meets(ENGLISH, text, parsed)]
    highest = max(matched.values(), default=0) or 1
    return (
        {key: weight * near[key] + (1 - weight) * matched.get(key, 0.0) / highest for key in met},
        near,
        {key: matched.get(key, 0.0) for key in met},
    )


def sql_of(options):
    return "".join(f", {name} := ${name}" for name in options if name != "k")


def ask(con, query, options, verb="jammi_search"):
    options = {name: value for name, value in options.items() if value is not None}
    return con.execute(
        f"SELECT _row_id, _rank, _score, _similarity, _distance, _bm25 FROM {verb}('t', $query, $k{sql_of(options)}) "
        "ORDER BY _rank",
        {"query": query, **options},
    ).fetchall()


def check(hits, texts, may, query, k=10, filter=None, min_similarity=None, exact=False, mode="auto", **numbers):
    """The hits are the best of the rows that may be found, with their own numbers, ties by the row id."""
    scores, near, matched = scored(texts, query, mode=mode, **numbers)
    least = -2.0 if min_similarity is None else min_similarity
    sure = {key: score for key, score in scores.items() if may(key) and near[key] >= least + CLOSE}
    possible = {key: score for key, score in scores.items() if may(key) and near[key] >= least - CLOSE}
    assert min(k, len(sure)) <= len(hits) <= min(k, len(possible))
    assert [rank for _, rank, *_ in hits] == list(range(1, len(hits) + 1))
    found = [int(key) for key, *_ in hits]
    assert len(set(found)) == len(found)
    assert set(found) <= possible.keys()
    for key, _, score, similarity, distance, own in hits:
        assert score == pytest.approx(scores[int(key)], abs=CLOSE)
        assert own == pytest.approx(matched[int(key)], abs=CLOSE)
        if mode == "text" and min_similarity is None:
            assert similarity is distance is None
        else:
            assert similarity == pytest.approx(near[int(key)], abs=CLOSE)
            assert distance == pytest.approx(1 - similarity, abs=CLOSE)
    ranked = [(-score, key) for key, _, score, *_ in hits]
    assert ranked == sorted(ranked)
    if len(hits) == k:
        assert {key for key, score in sure.items() if score > hits[-1][2] + 2 * CLOSE} <= set(found)


class History(RuleBasedStateMachine):
    """A table in segments of five rows that follows its source, and is searched after any step."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="words-"))
        self.database = Database(self.folder, "db", str(self.folder / "artifacts"))
        self.table = {}
        self.patch = pytest.MonkeyPatch()
        self.quiet = contextlib.ExitStack()
        self.quiet.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".* of the texts are longer than the model reads")

    @initialize(texts=st.lists(TEXTS, min_size=6, max_size=16), by_graph=st.booleans(), few=st.booleans())
    def build(self, texts, by_graph, few):
        """With `few`, each arm of a hybrid search gives no more rows than are wanted: others must be looked for."""
        self.patch.setattr(*((graph, "graph_ms") if by_graph else (plan, "exact_ms")), lambda *_: 0.0)
        if few:
            self.patch.setattr(fusion, "_LEAST", 1)
            self.patch.setattr(fusion, "_FOR_EACH", 1)
        self.database.open()
        self.database.put(dict(enumerate(texts)))
        self.database.con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
        self.refreshed()

    def refreshed(self):
        self.table = {key: text for key, text in self.database.source.items() if text}

    @rule(first=st.integers(0, 20), texts=st.lists(TEXTS, min_size=1, max_size=8))
    def put(self, first, texts):
        self.database.put(dict(enumerate(texts, first)))

    @rule(keys=KEYS)
    def delete(self, keys):
        self.database.delete(sorted(keys))

    @rule(asked=ASKED)
    def refresh(self, asked):
        self.database.con.execute("FROM jammi_refresh('t')").fetchall()
        self.refreshed()
        self.search_the_table(asked)

    @rule(first=st.integers(0, 20), texts=st.lists(TEXTS, max_size=8), keys=KEYS, asked=ASKED)
    def change_and_refresh(self, first, texts, keys, asked):
        self.put(first, texts)
        self.delete(keys)
        self.refresh(asked)

    @rule(asked=ASKED)
    def compact(self, asked):
        self.database.con.execute("FROM jammi_compact('t')").fetchall()
        self.search_the_table(asked)

    @rule()
    def open_again(self):
        self.database.close()
        self.database.open()

    @rule(asked=ASKED)
    def search_the_table(self, asked):
        """Its rows are those of the last refresh."""
        for query, options in asked:
            options = {name: value for name, value in options.items() if name != "filter"}
            hits = ask(self.database.other, query, options, "jammi_matches")
            check(hits, self.table, lambda _: True, query, **options)

    @rule(query=QUERIES, options=OPTIONS)
    def search_the_source(self, query, options):
        """Rows that the source has lost, or that do not pass, are not found, and change no score."""
        passes, source = FILTERS[options.get("filter")], self.database.source
        options = {**options, "filter": options.get("filter") or "true"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JammiWarning)
            hits = ask(self.database.con, query, options)
        check(hits, self.table, lambda key: key in source and passes(key), query, **options)

    def teardown(self):
        self.database.close()
        self.quiet.close()
        self.patch.undo()
        shutil.rmtree(self.folder)


HEALTH = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


class TestHistory(History.TestCase):
    settings = settings(max_examples=10, stateful_step_count=10, deadline=None, suppress_health_check=HEALTH)


@pytest.mark.long
class TestLongHistory(History.TestCase):
    settings = settings(max_examples=250, stateful_step_count=25, deadline=None, suppress_health_check=HEALTH)


NOTES = {
    1: "The engine reports E-1047 after the update",
    2: "A broken pipe was repaired after the storm",
    3: "libssl1.1 reports a broken pipe on windows",
    4: "Engines that run on water",
    5: "The pipe is broken",
    6: "C++ programs report errors",
}


GENERATED = st.one_of(
    st.text(max_size=40), st.lists(st.one_of(PIECES, st.sampled_from([*'"+-*()“”„ '])), max_size=12).map("".join)
)


@given(st.lists(GENERATED, min_size=250, max_size=250))
@settings(max_examples=some(20), suppress_health_check=list(HealthCheck))
def test_five_thousand_texts_are_no_error(six_notes, texts):
    """In either mode; and each finds what plain Python finds."""
    for mode in ("text", "hybrid"):
        rows = six_notes.execute(
            "SELECT q, _row_id, _score FROM (SELECT DISTINCT unnest($1) AS q), jammi_matches('t', q, 10, mode := $2)",
            [texts, mode],
        ).fetchall()
        found = {text: {} for text in texts}
        for text, key, score in rows:
            found[text][int(key)] = score
        for text in texts[::10]:
            is_asked = mode == "text" or not is_blank(parse(text, ENGLISH).plain)
            wanted = scored(NOTES, text, mode=mode)[0] if is_asked else {}
            assert found[text] == pytest.approx(wanted, abs=CLOSE)


@pytest.fixture(scope="module")
def six_notes(tmp_path_factory):
    """The notes, for all examples of a test."""
    from jammi_duck.config.options import Config
    from jammi_duck.doors.installation import equip
    from tests.fakes import FakeEncoders

    folder = tmp_path_factory.mktemp("notes")
    con = duckdb.connect()
    equip(con, Config(storage=str(folder), model="fake/small", cache_dir=folder / "cache"), FakeEncoders())
    con.execute("CREATE TABLE t (id INTEGER, text VARCHAR)")
    con.executemany("INSERT INTO t VALUES (?, ?)", list(NOTES.items()))
    generate(con, "t")
    yield con
    con.close()


def test_two_refresh_while_four_search(fake):
    """Each answer is that of a state that was, or will be: the words of a state fit its rows."""
    root = fake(segment_rows=50).con
    fill(root, [f"word{i} common" for i in range(120)])
    generate(root, "t")
    done = []

    def connection():
        own = root.cursor()
        fake(own, segment_rows=50)
        return own

    def refresh(first):
        con = connection()
        for i in range(6):
            con.execute(
                f"INSERT INTO t SELECT range, 'new{first}x{i} common' FROM range({first + i * 5}, {first + i * 5 + 5})"
            )
            con.execute("FROM jammi_refresh('t')").fetchall()
            if i % 3 == 2:
                with contextlib.suppress(duckdb.Error):
                    con.execute("FROM jammi_compact('t')").fetchall()
        done.append(first)

    def search(seed):
        con = connection()
        rounds = 0
        while rounds < 5 or (len(done) < 2 and rounds < 200):
            rounds += 1
            i = (seed + 17 * rounds) % 120
            for mode in ("text", "hybrid"):
                hits = ask(con, f"word{i} +word{i}", {"k": 3, "mode": mode}, "jammi_matches")
                assert hits[0][0] == str(i)
            assert len(ask(con, "common", {"k": 1000, "mode": "text"}, "jammi_matches")) >= 120

    run_all([lambda: refresh(1000), lambda: refresh(2000), *(lambda seed=seed: search(seed) for seed in range(4))])
    root.execute("FROM jammi_refresh('t')").fetchall()
    source = dict(root.execute("SELECT id, text FROM t").fetchall())
    assert len(source) == 180
    check(ask(root, "common new2000x3", {"k": 20}), source, lambda _: True, "common new2000x3", k=20)


def test_a_row_that_is_best_in_neither_arm_may_be_best_in_both(con, monkeypatch):
    """Where each arm gives only as many rows as are wanted, the others that may be best are looked for."""
    monkeypatch.setattr(fusion, "_LEAST", 1)
    monkeypatch.setattr(fusion, "_FOR_EACH", 1)
    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(VOCABULARY, rng.integers(2, 9))) for _ in range(80)]
    fill(con, texts)
    generate(con, "t")
    table = dict(enumerate(texts))
    for _ in range(25):
        query = " ".join(rng.choice(VOCABULARY, 3))
        for weight in (0.25, 0.5, 0.7):
            hits = ask(con, query, {"k": 1, "weight": weight}, "jammi_matches")
            check(hits, table, lambda _: True, query, k=1, weight=weight)
