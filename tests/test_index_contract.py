"""What every kind of index keeps to, of which a table may have several; and how one is chosen among them."""

import numpy as np
import pyarrow as pa
import pytest

from jammi_duck.errors import DamagedError
from jammi_duck.storage.files import layout
from jammi_duck.storage.index import plan
from jammi_duck.storage.index.exact import similarities
from jammi_duck.storage.index.graph import Graph

ROWS, WIDTH = 500, 8


@pytest.fixture(scope="module")
def vectors():
    random = np.random.default_rng(3).standard_normal((ROWS, WIDTH)).astype(np.float32)
    return random / np.linalg.norm(random, axis=1, keepdims=True)


class IndexContract:
    """A kind inherits this, and gives itself as `kind`."""

    @pytest.fixture
    def file(self, kind, vectors, tmp_path):
        """An index of the vectors, which came in two parts."""
        path = tmp_path / f"t.{kind.sidecar}"
        builder = kind.build(path, ROWS, WIDTH)
        ids = pa.array([f"r{i}" for i in range(ROWS)])
        assert builder.add(0, ids[:300], vectors[:300]) == 300
        assert builder.add(300, ids[300:], vectors[300:]) == ROWS - 300
        builder.save()
        return path

    def test_its_files_have_a_name_of_their_own(self, kind):
        assert layout.is_sidecar(layout.sidecar("t__embedding__m__20260325T120000", 2, kind.sidecar))
        assert kind.sidecar not in ("rowmap", "vectors")

    def test_what_was_built_is_whole(self, kind, file, vectors):
        kind.verify(file, ROWS, WIDTH)
        assert kind.open(file, vectors) is not None

    @pytest.mark.parametrize(("rows", "width"), [(ROWS + 1, WIDTH), (ROWS - 1, WIDTH), (ROWS, WIDTH * 2)])
    def test_that_of_another_segment_is_refused(self, kind, file, rows, width):
        with pytest.raises(DamagedError, match=f"'{file.name}' "):
            kind.verify(file, rows, width)
        with pytest.raises(DamagedError, match=f"'{file.name}' "):
            kind.open(file, np.zeros((rows, width), np.float32))

    @pytest.mark.parametrize(
        "damaged",
        [lambda whole: b"", lambda whole: whole[:-1], lambda whole: whole + b"\0", lambda whole: b"?" * len(whole)],
        ids=["empty", "cut", "longer", "something else"],
    )
    def test_a_damaged_one_is_refused(self, kind, file, vectors, damaged):
        content = damaged(file.read_bytes())
        file.unlink()
        file.write_bytes(content)
        with pytest.raises(DamagedError, match=f"'{file.name}' "):
            kind.verify(file, ROWS, WIDTH)
        with pytest.raises(DamagedError, match=f"'{file.name}' "):
            kind.open(file, vectors)


class VectorIndexContract(IndexContract):
    """For a kind whose index finds rows near to vectors."""

    @pytest.fixture
    def index(self, kind, file, vectors):
        return kind.open(file, vectors)

    @pytest.mark.parametrize("count", [1, 7])
    @pytest.mark.parametrize("share", [1.0, 0.2])
    def test_finds_the_nearest_by_their_exact_similarity(self, index, vectors, count, share):
        queries = vectors[:count]
        allowed = None if share == 1 else np.random.default_rng(1).random(ROWS) < share
        found, sure = index.search(queries, 10, ROWS, allowed)
        assert found.positions.shape == found.similarities.shape
        assert sure.all()
        for query, positions, near in zip(queries, found.positions, found.similarities, strict=True):
            there = positions >= 0
            assert (near[~there] == -np.inf).all()
            right = similarities(vectors[None], query[None])[0]
            assert np.array_equal(near[there], right[positions[there]])
            best = np.argsort(-right if allowed is None else np.where(allowed, -right, np.inf))[:10]
            # An index that several threads have built may have lost the way to a row.
            assert len(set(best) - set(positions[there])) <= 2
            assert allowed is None or allowed[positions[there]].all()

    def test_is_not_sure_where_it_has_found_too_few(self, index, vectors):
        allowed = np.zeros(ROWS, bool)
        allowed[np.argmin(vectors @ vectors[0])] = True
        assert not index.search(vectors[:1], 1, 5, allowed)[1].any()

    def test_asks_for_more_where_fewer_are_allowed_and_more_takes_longer(self, index):
        wanted = [index.neighbours(allowed, 10) for allowed in (ROWS, ROWS // 4, 20)]
        assert wanted == sorted(wanted)
        assert 10 <= wanted[0] <= wanted[-1] <= ROWS
        assert index.ms(100, 10, 1) <= index.ms(400, 10, 1)
        assert index.name.isidentifier()


class TestGraph(VectorIndexContract):
    @pytest.fixture
    def kind(self):
        return Graph()


class Index:
    """One that takes so long."""

    def __init__(self, ms):
        self.takes = ms

    def neighbours(self, allowed, k):
        return 2 * k

    def ms(self, wanted, k, queries):
        return self.takes


def test_the_quickest_index_is_asked_unless_to_look_at_every_vector_is_quicker(monkeypatch):
    monkeypatch.setattr(plan, "exact_ms", lambda *_: 2.0)
    slow, quick = Index(3.0), Index(1.0)
    for indexes in ([slow, quick], [quick, slow]):
        chosen = plan.choose(indexes, 1000, 1000, 10, dimensions=8, queries=1)
        assert chosen == plan.Plan(False, quick, 20, 1.0, 2.0)
    assert plan.choose([slow], 1000, 1000, 10, dimensions=8, queries=1) == plan.Plan(True, slow, 20, 3.0, 2.0)
    # As many neighbours as there are rows are no choice.
    assert plan.choose([quick], 20, 20, 10, dimensions=8, queries=1).exact
