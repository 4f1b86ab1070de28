"""No text is paid for twice: not if it comes twice, not in the next build, and not after a crash."""

import contextlib
import re
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.endpoint.acts import NAMED, Act
from tests.hostile import check_resumed
from tests.serving import waited_for

FORMS = ("openai", "cohere", "ollama")
FIRST_OF_FORMS = ("openai", *(pytest.param(form, marks=pytest.mark.long) for form in FORMS[1:]))


class TestOnce:
    @pytest.mark.parametrize("form", FIRST_OF_FORMS)
    def test_equal_texts_are_sent_once(self, worlds, form):
        world = worlds(form)
        world.fill(f"equal {form}", 7)
        world.con.execute("INSERT INTO docs SELECT 1000 + row_number() OVER (), body FROM docs, range(600)")
        world.texts |= dict(world.con.execute("SELECT id::VARCHAR, body FROM docs").fetchall())
        outcome = world.build()
        assert len(world.vectors()) == 12 * 601
        assert outcome.failed == 0
        assert sorted(world.endpoint.sent) == sorted({text for text in world.texts.values() if (text or "").strip()})

    @pytest.mark.parametrize("form", FORMS)
    def test_the_same_again_sends_nothing(self, worlds, form):
        world = worlds(form)
        world.fill(f"again {form}")
        world.build()
        world.endpoint.forget()
        outcome = world.build()
        assert len(world.check(outcome)) == 30
        assert not world.endpoint.requests
        world.con.execute("UPDATE docs SET body = 'a changed text' WHERE id = 3")
        world.texts["3"] = "a changed text"
        world.con.execute("FROM jammi_refresh('docs')").fetchall()
        assert world.endpoint.sent == ["a changed text"]

    def test_another_process_sends_nothing(self, worlds):
        world = worlds("openai")
        world.fill("another process")
        world.build()
        world.endpoint.forget()
        with world.process(world.query()) as process:
            said, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "ready" in errors
        assert not world.endpoint.requests

    def test_a_query_is_another_text(self, worlds):
        world = worlds("cohere")
        world.fill("queries")
        world.build()
        world.endpoint.forget()
        text = world.texts["7"]
        search = "SELECT id FROM jammi_search('docs', $1, 1, mode := 'vector')"
        assert world.con.execute(search, [text]).fetchall() == [(7,)]
        assert [(request.texts, request.role) for request in world.endpoint.requests] == [([text], "query")]
        world.con.execute(search, [text]).fetchall()
        assert len(world.endpoint.requests) == 1

    def test_failures_are_not_kept(self, worlds):
        world = worlds("openai")
        world.fill("failures")
        world.endpoint.refuses = "text 13 "
        assert world.build().failed == 1
        world.endpoint.refuses = ""
        world.endpoint.forget()
        outcome = world.build()
        assert (len(world.check(outcome)), outcome.failed) == (30, 0)
        assert world.endpoint.sent == [world.texts["13"]]

    def test_two_at_once_send_each_text_once(self, worlds):
        world = worlds("openai")
        world.fill("two at once", 100)
        together = threading.Barrier(2)
        world.endpoint.acts = lambda request: (
            Act("together", lambda exchange: (together.wait(20), NAMED["ok"](exchange))) if request.number < 2 else None
        )
        sql = f"SELECT count(embed(body, '{world.model()}')) FROM docs"
        with ThreadPoolExecutor(2) as pool:
            counts = list(pool.map(lambda con: con.execute(sql).fetchall(), [world.con, world.other()]))
        assert counts == [[(105,)]] * 2
        assert len(world.endpoint.sent) == 100


class TestInterrupted:
    @pytest.mark.parametrize("form", FIRST_OF_FORMS)
    def test_a_process_that_is_killed_has_kept_what_was_answered(self, worlds, form):
        world = worlds(form)
        world.fill(f"killed {form}", 200)
        before = kept(world)
        world.endpoint.acts = lambda request: None if request.number < 6 else "hang"
        with world.process(world.query(max_in_flight=2, timeout=600)) as process:
            # Six answers have come, and their vectors are in the file.
            waited_for(lambda: len(world.endpoint.requests) == 8 and kept(world) == before + 60)
            process.kill()
        answered = world.endpoint.answered
        assert len(answered) == 60
        world.endpoint.forget()
        world.endpoint.acts = ()
        outcome = world.build()
        assert len(world.check(outcome)) == 205
        assert sorted([*answered, *world.endpoint.sent]) == sorted(set(filter(None, map(_text, world.texts.values()))))

    @pytest.mark.long
    @pytest.mark.parametrize("seed", range(10))
    def test_a_process_that_is_killed_at_any_time(self, worlds, seed):
        world = worlds("openai")
        world.fill(f"killed at {seed}", 1000)
        world.endpoint.delay = 0.01
        before = kept(world)
        with world.process(world.query(max_in_flight=4, batch_size=5)) as process:
            waited_for(lambda: len(world.endpoint.requests) > np.random.default_rng(seed).integers(1, 150))
            process.kill()
            process.wait()
            written = kept(world) - before
        answered = world.endpoint.answered
        world.endpoint.forget()
        world.endpoint.delay = 0
        outcome = world.build()
        assert len(world.check(outcome)) == 1005
        assert len(world.endpoint.sent) == 1000 - written
        assert len(answered) >= written

    def test_ctrl_c(self, worlds):
        world = worlds("openai")
        world.fill("ctrl-c")
        world.endpoint.acts = lambda _: "hang"
        with world.process(world.query(timeout=600)) as process:
            waited_for(lambda: world.endpoint.requests)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert "nterrupt" in errors
        check_resumed(world)


class TestBudget:
    @pytest.mark.parametrize("form", FORMS)
    def test_requests(self, worlds, form):
        world = worlds(form)
        world.fill(f"requests {form}")
        outcome = world.build(max_requests=2)
        assert re.search(r"max_requests is 2.* 2 requests with \d+ tokens.*run the same again", str(outcome.error))
        assert len(world.endpoint.requests) == 2
        check_resumed(world)

    @pytest.mark.parametrize("form", FORMS)
    def test_tokens(self, worlds, form):
        world = worlds(form)
        world.fill(f"tokens {form}", 100)
        outcome = world.build(max_tokens=450)
        assert re.search(r"max_tokens is 450.*run the same again", str(outcome.error))
        assert 0 < sum(request.call.tokens for request in world.endpoint.requests) <= 450
        check_resumed(world, 105)

    @pytest.mark.parametrize("form", FORMS)
    def test_what_is_told_is_what_was_used(self, worlds, form):
        world = worlds(form)
        world.fill(f"used {form}")
        outcome = world.build()
        assert outcome.row["requests"] == 3
        assert outcome.row["tokens"] == sum(request.call.tokens for request in world.endpoint.requests)

    def test_so_many_are_under_way(self, worlds):
        world = worlds("openai")
        world.fill("under way", 100)
        together = threading.Barrier(4)
        world.endpoint.acts = lambda request: (
            Act("together", lambda exchange: (together.wait(20), NAMED["ok"](exchange))) if request.number < 8 else None
        )
        assert not world.build(max_in_flight=4).error
        assert world.endpoint.sums["at_once"] == 4


def kept(world):
    """How many vectors the cache has; other processes may have it open."""
    path = world.folder / "cache" / "vectors.sqlite"
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as con:
        try:
            return con.execute("SELECT count(*) FROM vectors").fetchone()[0]
        except sqlite3.OperationalError:
            return 0


def _text(text):
    return text if (text or "").strip() else None
