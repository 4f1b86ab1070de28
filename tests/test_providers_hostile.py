"""What a provider may do: no vector comes to a wrong row, every row is accounted for, and an error says what to do."""

import re

import numpy as np
import pytest

from tests.endpoint import Endpoint
from tests.endpoint.acts import NAMED, failing, limited, ok, rate_headers, redirect
from tests.hostile import VARIABLES, WITH_INDEX, check_error, check_resumed

FORMS = ("openai", "cohere", "ollama")
# After these, a request has its answer. What is not UTF-8 stands where nobody looks.
GOOD = ("ok", "chunked", "gzip", "hints", "drip", "reordered", "not UTF-8")
# A request that gets these would get them again.
DENIED = ("401", "402", "403", "404", "429 out of quota", "echo 401", "echo 404")
# An answer that may show a mistake in the arguments, or a server that is none.
ONCE_AND_FOR_ALL = ("204", "all are longer", "all are empty")
# Of these, some vectors can be used.
PARTLY = tuple(name for name in NAMED if name.startswith(("one is", "one has")))
SLOW = ("hang", "stall")
LARGE = ("flood", "flood that is declared", "gzip bomb", "endless headers")
TOLD = {
    "": limited(0.4),
    "milliseconds": limited(0.4, milliseconds=True),
    "date": limited(0.4, as_date=True),
    "503": failing(503, headers={"Retry-After": "0.4"}),
}


def acts_of(form):
    """The acts that can happen in a form: not each has indexes, or codes for errors."""
    left_out = ["reordered", "no index", *(name for name in NAMED if name.startswith("index"))]
    left_out = [] if form in WITH_INDEX else left_out
    left_out += [] if form in ("openai", "azure") else ["429 out of quota"]
    return [name for name in NAMED if name not in left_out]


def cases(quick):
    """Each form with each act; without `long`, only those that `quick` says."""
    return [
        pytest.param(form, act, id=f"{form}-{act}", marks=() if quick(form, act) else pytest.mark.long)
        for form in VARIABLES
        for act in acts_of(form)
    ]


def forms(*quick):
    """All forms; without `long`, only these."""
    return [pytest.param(form, marks=() if form in quick else pytest.mark.long) for form in VARIABLES]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("form", forms(*FORMS))
def test_all_that_passes_happens_once(worlds, form):
    """One request after the other meets something, and is made again."""
    world = worlds(form)
    world.fill("all once", 300)
    names = [name for name in acts_of(form) if name not in (*DENIED, *ONCE_AND_FOR_ALL)]
    world.endpoint.acts = ["ok", *(each for name in names for each in (name, "ok"))]
    outcome = world.build(max_in_flight=1, batch_size=3, timeout=0.5)
    assert not outcome.error
    assert (len(world.check(outcome)), outcome.failed) == (305, 0)
    assert {NAMED[name].name for name in names} <= {request.act for request in world.endpoint.requests}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("form", "act"),
    cases(lambda form, act: form in FORMS and act in ("401", *ONCE_AND_FOR_ALL, *DENIED[form != "openai" :: 6])),
)
def test_it_happens_once(worlds, form, act):
    world = worlds(form)
    world.fill(f"once {act}")
    world.endpoint.acts = [act]
    outcome = world.build(max_in_flight=1, timeout=0.3 if act in SLOW else 10)
    vectors = world.check(outcome)
    if act in DENIED or (act in ONCE_AND_FOR_ALL and outcome.error):
        check_error(outcome.error, form)
        # Whether vectors have the right width is known only when they have been read: others may be under way.
        assert len(world.endpoint.requests) == 1 or act.startswith("all are")
        assert not vectors
        check_resumed(world)
    else:
        assert not outcome.error
        assert (len(vectors), outcome.failed) == (30, 0)


ALWAYS = (
    "html",
    "one has NaN",
    "401",
    "one short",
    "reset within",
    "429",
    "one is longer",
    "all are zeros",
    "drip",
    "echo 500",
)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("form", "act"), cases(lambda form, act: form in FORMS and act in ALWAYS[: 10 if form == "openai" else 3])
)
def test_it_happens_always(worlds, form, act):
    world = worlds(form)
    world.fill(f"always {act}")
    world.endpoint.acts = lambda _: act
    outcome = world.build(max_in_flight=1, timeout=0.3 if act in SLOW else 10)
    vectors = world.check(outcome)
    assert len(world.endpoint.requests) < 50
    if act in GOOD:
        assert (len(vectors), outcome.failed) == (30, 0)
    elif outcome.error:
        check_error(outcome.error, form)
        assert not vectors
        check_resumed(world)
    else:
        assert act in PARTLY or act.startswith("all are")
        assert outcome.failed > 0


def test_errors_that_pass_after_a_vector_that_is_none(worlds):
    """The request for it alone is made again as often as any other."""
    world = worlds("openai")
    world.fill("after none")
    world.endpoint.acts = ["one has NaN", "500", "503"]
    outcome = world.build(batch_size=32, max_retries=2)
    assert not outcome.error
    assert (len(world.check(outcome)), outcome.failed) == (30, 0)


@pytest.mark.parametrize(("begins", "retries"), [([], 0), ([], 2), (["one has NaN"], 2)])
def test_an_error_says_how_often_the_provider_was_asked(worlds, begins, retries):
    world = worlds("openai")
    world.fill(f"how often {begins} {retries}")
    world.endpoint.acts = [*begins, *["500"] * 20]
    outcome = world.build(batch_size=32, max_retries=retries)
    check_error(outcome.error, "openai")
    assert f"it was asked {retries + 2} times" in str(outcome.error)
    assert len(world.endpoint.requests) == len(begins) + retries + 2
    check_resumed(world)


def test_a_batch_that_is_refused_was_asked_once(worlds):
    world = worlds("openai")
    world.fill("refused")
    world.endpoint.acts = ["400", *["503"] * 20]
    outcome = world.build(batch_size=32, max_retries=3)
    assert "it was asked 5 times" in str(outcome.error)
    assert len(world.endpoint.requests) == 5


def test_a_part_of_a_batch_is_blamed_only_where_the_provider_answers(worlds):
    """A batch fails as a whole, then both halves; what asks whether the provider answers at all is made again."""
    world = worlds("openai")
    world.fill("half")
    world.endpoint.acts = [*["500"] * 3, "ok", *["500"] * 4, "503", "503"]
    outcome = world.build(batch_size=32, max_retries=2)
    assert not outcome.error
    assert (len(world.check(outcome)), outcome.failed) == (30, 0)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("form", forms(*FORMS))
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))])
def test_many_things_happen_at_once(worlds, form, seed):
    """Each request meets something by chance, with eight of them under way."""
    world = worlds(form)
    world.fill(f"storm {seed}", 200)
    draw = np.random.default_rng(seed)
    names = [name for name in acts_of(form) if name not in (*DENIED, *ONCE_AND_FOR_ALL, *LARGE, *SLOW)]
    chosen = [str(draw.choice(names)) if draw.random() < 0.25 else "ok" for _ in range(1000)]
    world.endpoint.acts = ["ok", *chosen]
    outcome = world.build(batch_size=5, max_in_flight=8, max_retries=6, timeout=5)
    assert not outcome.error
    assert len(world.check(outcome)) >= 195
    assert world.endpoint.sums["at_once"] <= 8


@pytest.mark.parametrize(
    ("acts", "texts"), [(("flood", "gzip bomb"), 40), pytest.param(LARGE, 200, marks=pytest.mark.long)]
)
def test_memory_does_not_grow_with_answers(worlds, acts, texts):
    world = worlds("openai")
    world.fill("memory", texts)
    queries = []
    for act in ("ok", *acts):
        world.con.execute(f"CREATE OR REPLACE TABLE \"{act}\" AS SELECT id, '{act} {texts}|' || body AS body FROM docs")
        options = f"words := false, model := '{world.model(max_retries=0)}'"
        queries.append(f"SELECT status FROM jammi_generate('{act}', 'body', 'id', {options})")
    world.endpoint.acts = lambda request: next(
        (act for act in acts if request.texts[0].startswith(f"{act} {texts}|")), None
    )
    with world.process(*queries) as process:
        said, errors = process.communicate(timeout=300)
    usual, *others = (int(line) for line in said.split() if line.isdigit())
    assert len(others) == len(acts), errors
    assert {act: more - usual for act, more in zip(acts, others, strict=True) if more - usual > 100_000} == {}


class TestWidths:
    def test_of_all_vectors_after_some_were_right(self, worlds):
        world = worlds("openai")
        world.fill("widths of all")
        world.endpoint.acts = ["ok", "all are longer"]
        outcome = world.build(max_in_flight=1)
        assert (len(world.check(outcome)), outcome.failed) == (30, 0)

    def test_a_model_that_is_not_known_is_asked_for_its_width(self, worlds):
        world = worlds("ollama")
        world.fill("unknown width")
        world.endpoint.dimensions = 24
        outcome = world.build(dimensions=None)
        world.endpoint.dimensions = None
        vectors = world.check(outcome, of_build=3)
        assert (len(vectors), outcome.row["dimensions"]) == (30, 24)

    @pytest.mark.parametrize("act", ["all are empty", "one is a number", "html"])
    def test_a_model_that_is_not_known_does_not_tell_it(self, worlds, act):
        world = worlds("openai")
        world.fill(f"no width {act}")
        world.endpoint.acts = lambda _: act
        outcome = world.build(dimensions=None)
        assert outcome.error
        assert "'openai'" in str(outcome.error)
        assert not re.search("AssertionError|TypeError|ValueError|dimensions=0", str(outcome.error))


class TestRefusals:
    @pytest.mark.parametrize("form", FORMS)
    def test_of_one_text(self, worlds, form):
        world = worlds(form)
        world.fill("of one")
        world.endpoint.refuses = "text 13 "
        outcome = world.build()
        world.endpoint.refuses = ""
        vectors = world.check(outcome)
        assert outcome.failed == 1
        assert {key for key, text in world.texts.items() if (text or "").strip()} - set(vectors) == {"13"}
        # Halves of halves, and not each text alone.
        assert len(world.endpoint.requests) < 15

    @pytest.mark.parametrize("form", FORMS)
    def test_of_many_texts_at_once(self, worlds, form):
        world = worlds(form)
        world.fill("of many")
        world.endpoint.most_texts = 3
        outcome = world.build()
        world.endpoint.most_texts = None
        assert (len(world.check(outcome)), outcome.failed) == (30, 0)

    @pytest.mark.parametrize("form", FORMS)
    def test_of_much_at_once(self, worlds, form):
        world = worlds(form)
        world.fill("of much")
        world.endpoint.acts = lambda request: "413" if len(request.body) > 200 else None
        outcome = world.build()
        assert (len(world.check(outcome)), outcome.failed) == (30, 0)

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("act", ["400", "422"])
    def test_of_all_texts_is_no_fault_of_any(self, worlds, form, act):
        world = worlds(form)
        world.fill(f"of all {act}")
        world.endpoint.acts = lambda _: act
        outcome = world.build(max_in_flight=1)
        assert outcome.error
        check_error(outcome.error, form)
        # Each batch, and a text that cannot be wrong.
        assert len(world.endpoint.requests) <= 6
        check_resumed(world)

    @pytest.mark.parametrize("form", FORMS)
    def test_infer_says_why(self, worlds, form):
        world = worlds(form)
        world.fill("reasons", 5)
        world.endpoint.refuses = "text 3 "
        infer = f"SELECT _row_id, _status, _error FROM jammi_infer('docs', 'body', 'id', model := '{world.model()}')"
        failed = [row for row in world.con.execute(infer).fetchall() if row[0] == "3"]
        world.endpoint.refuses = ""
        assert [row[1] for row in failed] == ["error"]
        assert "400" in failed[0][2]


class TestWaits:
    """That a request does not come too early can be told; that it does not come late is not looked at."""

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize(
        ("form", "act"),
        [
            pytest.param(form, act, id=f"{form}-{told}", marks=() if form == "openai" or not told else pytest.mark.long)
            for form in FORMS
            for told, act in TOLD.items()
        ],
    )
    def test_as_long_as_it_is_told(self, worlds, form, act):
        world = worlds(form)
        world.fill(f"waits {act.name} {id(act)}")
        world.endpoint.acts = [act]
        outcome = world.build(max_wait=10, max_in_flight=1)
        assert (len(world.check(outcome)), outcome.failed) == (30, 0)
        first = world.endpoint.requests[0]
        again = next(request for request in world.endpoint.requests[1:] if request.texts == first.texts)
        assert again.began - first.began >= 0.35

    def test_nobody_asks_meanwhile(self, worlds):
        """429 is about the account: all requests wait, and not only that one."""
        world = worlds("openai")
        world.fill("all wait", 100)
        world.endpoint.acts = lambda request: limited(0.5) if request.number == 4 else None
        outcome = world.build(max_wait=10, max_in_flight=1)
        assert len(world.check(outcome)) == 105
        began = [request.began for request in world.endpoint.requests]
        assert np.diff(began)[4] >= 0.45

    @pytest.mark.parametrize("status", [200, 429])
    def test_until_there_are_requests_left(self, worlds, status):
        world = worlds("openai")
        world.fill(f"rate {status}")
        headers = rate_headers(0.4)
        world.endpoint.acts = [ok(headers) if status == 200 else limited(headers=headers)]
        outcome = world.build(max_wait=10, max_in_flight=1)
        assert len(world.check(outcome)) == 30
        first, second = world.endpoint.requests[:2]
        assert second.began - first.began >= 0.35

    @pytest.mark.parametrize("form", FORMS)
    def test_longer_than_is_allowed_is_an_error(self, worlds, form):
        world = worlds(form)
        world.fill("too long")
        world.endpoint.acts = [limited(3600)]
        outcome = world.build(max_in_flight=1)
        assert "3,600 s" in str(outcome.error)
        assert "max_wait" in str(outcome.error)
        check_resumed(world)

    @pytest.mark.parametrize("value", ["-5", "nan", "inf", "1e999", "soon", "", "Fri, 99 Foo 2020 00:00:00 GMT"])
    def test_nonsense_is_no_number(self, worlds, value):
        world = worlds("openai")
        world.fill(f"nonsense {value}")
        world.endpoint.acts = [failing(429, headers={"Retry-After": value, "x-ratelimit-reset-requests": value})]
        outcome = world.build(max_in_flight=1)
        assert (len(world.check(outcome)), outcome.failed) == (30, 0)


class TestRedirects:
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize(
        ("form", "status"),
        [
            pytest.param(form, status, marks=() if form == "openai" or status == 307 else pytest.mark.long)
            for form in (*FORMS, "azure", "gemini-text")
            for status in (301, 302, 303, 307, 308)
        ],
    )
    def test_nothing_goes_elsewhere(self, worlds, form, status):
        world = worlds(form)
        world.fill(f"redirect {status}")
        with Endpoint(key=None) as elsewhere:
            target = f"http://localhost:{elsewhere.port}"
            world.endpoint.acts = lambda request: redirect(status, target + request.path)
            outcome = world.build(max_in_flight=1)
            assert not world.check(outcome)
            assert elsewhere.connections == 0
        assert str(status) in str(outcome.error)
        assert "redirect to localhost" in str(outcome.error)
        check_resumed(world)

    @pytest.mark.parametrize(
        "location", ["//localhost:{port}/v1", "/v1/embeddings", "\\\\x", "", "http://[::1", "file:///etc/passwd"]
    )
    def test_to_other_locations(self, worlds, location):
        world = worlds("openai")
        world.fill(f"location {location}")
        with Endpoint(key=None) as elsewhere:
            world.endpoint.acts = lambda _: redirect(307, location.format(port=elsewhere.port))
            outcome = world.build(max_in_flight=1)
            assert elsewhere.connections == 0
        assert "307" in str(outcome.error)
        assert len(world.endpoint.requests) == 1
