"""What a column of vectors promises, in DuckDB and in PostgreSQL: no vector of another text, and none twice."""

import contextlib
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jammi_duck.encoder.wrapper_encoder import WrapperEncoder
from jammi_duck.encoder.wrappers import Wrappers
from jammi_duck.errors import InputError, NotFoundError
from jammi_duck.work.fill import Tried
from tests.column_worlds import DuckDB, Fake, PostgreSQL, fill_column
from tests.effort import some

PASSAGES = [
    (1, "New York City is a financial capital"),
    (2, "A fish swims in water, and this is a longer text about fish"),
    (3, None),
    (4, " \t\u00a0\u2003\ufeff"),
    (5, "The bank of New York"),
    (6, "Jesus, knowing their thoughts"),
]
DATABASES = ("duckdb", "postgresql")
# Of any value, it gives its type's name as numbers.
TYPES = """\
SEEN = []
def embedding_label():
    return 'Types'
def embedding_description():
    return 'What a value is.'
def embedding_dim():
    return 2
def embedding_encode(input_data, verbose=False):
    SEEN.append(input_data)
    if input_data == 13:
        raise ValueError('it is 13')
    return [2.0, float(len(type(input_data).__name__))]
def embedding_encode_batch(batch_index, batch, verbose=False):
    SEEN.append((batch_index, [key for key, _ in batch]))
    return [(key, embedding_encode(value)) for key, value in batch]
"""


@pytest.fixture(params=DATABASES)
def world(request):
    found = DuckDB() if request.param == "duckdb" else PostgreSQL(request.getfixturevalue("postgres"))
    yield found
    found.close()


@pytest.fixture
def passages(world):
    world.run("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
    for row in PASSAGES:
        world.run("INSERT INTO passage VALUES ($1, $2)", *row)
    return world


class TestFill:
    def test_rows_without_a_vector_get_one(self, passages):
        done = passages.filled()
        assert (done.filled, done.skipped, done.failed, done.left) == (4, 2, 0, 0)
        assert passages.check() == [None, PASSAGES[3][1]]
        assert passages.filled(again := Fake()).filled == 0
        assert again.texts == []
        passages.run("UPDATE passage SET passage = 'Alice', v = NULL WHERE id = 5")
        assert passages.filled(again).filled == 1
        assert again.texts == ["Alice"]
        passages.check()

    @pytest.mark.parametrize(("size", "batches", "wanted"), [(2, 1, 2), (1, 3, 3), (3, 1, 3), (100, 1, 4), (1, 100, 4)])
    def test_so_many_rows(self, passages, size, batches, wanted):
        done = passages.filled(size=size, batches=batches, to_the_end=False)
        assert (done.filled, done.left) == (wanted, 4 - wanted)
        passages.check()

    def test_all_batches_are_encoded_on_one_thread(self, passages):
        threads = set()
        done = passages.filled(Fake(lambda _: threads.add(threading.current_thread())), size=1)
        assert done.filled == 4
        assert len(threads) == 1

    def test_an_error_waits_for_the_batch_that_is_being_encoded(self, passages, monkeypatch):
        column = passages.column("passage", "passage", "v")
        column.create(Fake.dimensions)
        begun, is_writing = [], threading.Event()

        def meanwhile(texts):
            begun.append(texts)
            if len(begun) == 2:
                assert is_writing.wait(10)
                time.sleep(0.2)

        def failing(*_):
            is_writing.set()
            raise OSError("the database is away")

        encoder = Fake(meanwhile)
        monkeypatch.setattr(column, "write", failing)
        with pytest.raises(OSError, match="the database is away"):
            fill_column(column, encoder, size=1)
        assert (len(begun), len(encoder.texts)) == (2, 2)
        monkeypatch.undo()
        assert fill_column(column, encoder, size=1).filled == 4
        passages.check()

    def test_rows_that_fail_end_nothing_and_are_named(self, passages):
        passages.run("INSERT INTO passage VALUES (7, 'bad one'), (8, 'bad two'), (9, 'good')")
        column = passages.column("passage", "passage", "v")
        column.create(Fake.dimensions)
        named, tried, encoder = [], Tried(), Fake()
        told = {"failed": lambda _, row, reason: named.append((row.key, reason)), "tried": tried}
        done = fill_column(column, encoder, size=1, **told)
        assert (done.filled, done.failed, done.left) == (5, 2, 2)
        assert [key for key, _ in named] == ["7", "8"]
        assert "not enough memory" in named[0][1]
        # Once is enough, for as long as the text is the same.
        assert fill_column(column, encoder, **told).failed == 0
        passages.run("UPDATE passage SET passage = 'bad too' WHERE id = 8")
        assert fill_column(column, encoder, **told).failed == 1
        assert sum("bad" in text for text in encoder.texts) == 3

    @pytest.mark.parametrize(
        "key",
        [
            "a INTEGER, b VARCHAR, PRIMARY KEY (a, b)", "a UUID PRIMARY KEY, b INTEGER",
            "b VARCHAR PRIMARY KEY, a INTEGER", "a TIMESTAMPTZ PRIMARY KEY, b DECIMAL(9, 2)",
            "a DATE, b DECIMAL(9, 2), PRIMARY KEY (b, a)", "a TIMESTAMP PRIMARY KEY, b INTEGER",
            "a INTEGER, b DOUBLE PRECISION PRIMARY KEY", "a TIME PRIMARY KEY, b INT",
        ],
    )  # fmt: skip
    def test_keys_of_all_kinds(self, world, key):
        name = '"s.x"."a ""%table\'"'
        world.run('CREATE SCHEMA "s.x"')
        world.run(f'CREATE TABLE {name} ({key}, "the %text" VARCHAR)')
        first = "a INTEGER"
        made = {
            "a UUID": "'0aeb0f47-1e4a-4e5a-8f4b-2b9f0c7d0a0' || i", "a TIMESTAMPTZ": "'2020-01-01 00:00:00.1234+00'",
            "a DATE": "'2020-01-0' || i", "a TIMESTAMP": "'2020-01-01 00:00:0' || i || '.123456'",
            "a TIME": "'01:02:0' || i",
        }  # fmt: skip
        first = next((value for start, value in made.items() if f"{start} " in key or f"{start}," in key), "'1'")
        kind = key.partition("a ")[2].partition(",")[0].partition(" ")[0]
        for i in range(1, 10):
            value = first.replace("|| i", f"|| '{i}'").replace(".1234+", f".123{i}+")
            world.run(f"INSERT INTO {name} (a, b, \"the %text\") VALUES (CAST({value} AS {kind}), '{i}', 'text {i}')")
        columns = ("the %text", 'V"%')
        column = world.column(name, *columns)
        column.create(Fake.dimensions)
        assert fill_column(column, Fake()).filled == 9
        assert world.run(f'SELECT count("V""%") FROM {name}') == [(9,)]
        assert len(column.nearest([1.0] * 8, 20, None)) == 9

    def test_a_key_that_is_named(self, world):
        world.run("CREATE TABLE t (a INTEGER, b VARCHAR, c INTEGER, passage VARCHAR)")
        world.run("INSERT INTO t VALUES (1, 'x', 1, 'one'), (1, 'y', 2, 'two'), (2, 'x', NULL, 'three')")
        for key, said in ((["a"], "the key a of 't' is the same in several rows"), (["c"], "c of 't' is NULL in some")):
            with pytest.raises(InputError, match=said):
                world.column("t", "passage", "v", key=key)
        with pytest.raises(NotFoundError, match="no column 'z' in 't'"):
            world.column("t", "passage", "v", key=["z"])
        column = world.column("t", "passage", "v", key=["a", "b"])
        column.create(Fake.dimensions)
        assert column.key == ("a", "b")
        assert fill_column(column, Fake()).filled == 3
        assert [near.key for near in column.nearest([1.0] * 8, 3, "passage = 'two'")] == ["1, y"]
        assert world.check("t") == []

    def test_what_is_refused(self, passages):
        passages.run("CREATE VIEW seen AS SELECT * FROM passage")
        passages.run("CREATE TABLE other (id INT PRIMARY KEY, passage VARCHAR, v INT)")
        for table, columns, error, said in (
            ("seen", ("passage", "v"), InputError, "'seen' is a view"),
            ("passages", ("passage", "v"), NotFoundError, "no table 'passages' .* did you mean 'passage'"),
            ("passage", ("passag", "v"), NotFoundError, "no column 'passag' .* did you mean 'passage'"),
            ("passage", ("id", "v"), InputError, "(?i)'id' of 'passage' is INTEGER, and a model reads texts"),
            ("other", ("passage", "v"), InputError, "(?i)'v' of 'other' is INTEGER, and the model's vectors are"),
            ("a.b.c.d", ("passage", "v"), InputError, "names no table"),
        ):
            with pytest.raises(error, match=said):
                passages.filled(table=table, columns=columns)
        with pytest.raises(NotFoundError, match="no column 'v'"):
            passages.column("passage", "passage", "v").nearest([1.0], 1, None)
        passages.filled()
        with pytest.raises(InputError, match=r"(?i)'v' of 'passage' is .*8.* and the model's vectors are .*3"):
            passages.column("passage", "passage", "v").create(3)

    def test_rows_that_come_meanwhile_are_filled(self, passages):
        other = passages.another()
        more = [
            "INSERT INTO passage (id, passage) VALUES (0, 'before all others')",
            "UPDATE passage SET passage = 'changed' WHERE id = 1",
        ]
        encoder = Fake(lambda _: more and other.run(more.pop()))
        assert passages.filled(encoder, size=1).left == 0
        assert passages.check() == [None, PASSAGES[3][1]]
        other.close()

    def test_texts_are_compared_by_their_bytes(self, world):
        # The PostgreSQL of the tests has no ICU, and so none that calls texts equal.
        collation = "NOCASE" if world.name == "duckdb" else '"C"'
        world.run(f"CREATE TABLE t (id INTEGER PRIMARY KEY, passage VARCHAR COLLATE {collation})")
        world.run("INSERT INTO t VALUES (1, 'Text'), (2, 'a')")
        other = world.another()
        change = ["UPDATE t SET passage = 'TEXT' WHERE lower(passage) = 'text'"]
        encoder = Fake(lambda texts: change and other.run(change.pop()))
        assert world.filled(encoder, "t", to_the_end=False).filled == 1
        assert world.check("t") == ["TEXT"]
        other.close()


@pytest.fixture
def types(tmp_path):
    """The encoder of a wrapper that takes values of any type."""
    (tmp_path / "types.py").write_text(TYPES)
    return WrapperEncoder(Wrappers([str(tmp_path)]).get("types"))


def test_a_table_in_several_schemas_is_named_with_one(world):
    for schema in ("b", "a"):
        world.run(f"CREATE SCHEMA {schema}")
        world.run(f"CREATE TABLE {schema}.t (id INTEGER PRIMARY KEY, passage VARCHAR)")
    with pytest.raises(InputError, match=r"several schemas have a table 't': a, b; .* as in -t a\.t"):
        world.column("t", "passage", "v")
    assert world.column("b.t", "passage", "v").create(3)
    assert not world.column("b.t", "passage", "v").create(3)


def test_a_column_without_vectors_is_neither_measured_nor_watched(passages):
    passages.run("ALTER TABLE passage ADD COLUMN price INTEGER")
    column = passages.column("passage", "passage", "price")
    for action in (column.size, lambda: column.instrument(index=False)):
        with pytest.raises(InputError, match="the column 'price' of 'passage' is (INTEGER|integer): name one of vect"):
            action()


class TestValuesOfAnyType:
    @pytest.mark.parametrize(
        ("kind", "values", "seen"),
        [
            ("INTEGER", ["1", "13", "NULL"], [1, 13]),
            ("DOUBLE PRECISION", ["1.5", "'NaN'"], [1.5, "nan"]),
            ("INTEGER[]", ["ARRAY[1, 2]", "ARRAY[3]"], [[1, 2], [3]]),
            ("BOOLEAN", ["true", "false"], [True, False]),
            ("VARCHAR", ["'x'", "'  '"], ["x"]),
        ],
    )
    def test_a_wrapper_gets_values_and_keys_as_they_are(self, world, types, kind, values, seen):
        world.run(f"CREATE TABLE t (a INTEGER, b VARCHAR, x {kind}, PRIMARY KEY (a, b))")
        for place, value in enumerate(values):
            world.run(f"INSERT INTO t VALUES ({place}, 'k', {value})")
        column = world.column("t", "x", "v", any_type=True)
        column.create(2)
        reasons = []
        done = fill_column(column, types, size=10, failed=lambda _, row, reason: reasons.append((row.key, reason)))
        (number, keys), *given = types.wrapper._module.SEEN[: len(seen) + 1]
        assert (number, keys) == (1, [(place, "k") for place in range(len(seen))])
        assert [str(each) if each != each else each for each in given] == seen
        assert (done.filled, done.skipped) == (len(seen) - len(reasons), len(values) - len(seen))
        assert [key for key, _ in reasons] == (["1, k"] if 13 in seen else [])
        assert all("raised ValueError: it is 13" in reason for _, reason in reasons)
        # As the wrapper gives them: not of length 1.
        ((found,),) = world.run("SELECT v FROM t WHERE a = 0")
        assert tuple(world.vector(found)) == (2.0, len(type(seen[0]).__name__))

    def test_many_at_once(self, world, types):
        world.run("CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER)")
        world.run("INSERT INTO t SELECT i, i + 100 FROM generate_series(1, 10) s(i)")
        column = world.column("t", "x", "v", any_type=True)
        column.create(2)
        assert fill_column(column, types, size=10, workers=3).filled == 10
        batches = [each for each in types.wrapper._module.SEEN if isinstance(each, tuple)]
        assert sorted(keys for _, keys in batches) == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


TEXTS = st.none() | st.sampled_from(["cat", "dog", "owl", "bad", "", "é" * 50, "CAT"])
CHANGES = st.sampled_from([
    "UPDATE passage SET passage = $2 WHERE id = $1 AND v IS NULL",
    "UPDATE passage SET passage = $2, v = NULL WHERE id = $1",
    "DELETE FROM passage WHERE id = $1 AND ($2::VARCHAR IS NULL OR true)",
    "INSERT INTO passage (id, passage) SELECT $1 + 100, $2 "
    "WHERE NOT EXISTS (SELECT 1 FROM passage WHERE id = $1 + 100)",
    "UPDATE passage SET id = id + 50, passage = $2, v = NULL WHERE id = $1 "
    "AND NOT EXISTS (SELECT 1 FROM passage WHERE id = $1 + 50)",
])  # fmt: skip


def interleaved(world, data):
    """Change rows while others are encoded and written; every vector is that of its text, and none is missing."""
    change = st.tuples(CHANGES, st.integers(0, 9), TEXTS)
    # The encoder calls from another thread, which draws nothing.
    planned = data.draw(st.lists(st.lists(change, max_size=3), max_size=8))
    texts = data.draw(st.lists(TEXTS, max_size=8))
    size, batches = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    lock = threading.Lock()
    world.run("DROP TABLE IF EXISTS passage")
    world.run("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
    for row in [(-1, "first"), *enumerate(texts)]:
        world.run("INSERT INTO passage VALUES ($1, $2)", *row)
    column = world.column("passage", "passage", "v")
    column.create(Fake.dimensions)
    # DuckDB refuses what two transactions change at once.
    write = column.write
    column.write = lambda *given: locked(lock, write, *given)
    with contextlib.closing(world.another()) as other:

        def meanwhile(_):
            for statement, *values in planned.pop() if planned else []:
                locked(lock, other.run, statement, *values)

        fill_column(column, Fake(meanwhile), size=size, batches=batches)
    world.check()
    world.filled()
    assert [text for text in world.check() if text and "bad" not in text] == []
    world.close_columns()


def locked(lock, act, *values):
    with lock:
        return act(*values)


HISTORIES = {"deadline": None, "suppress_health_check": list(HealthCheck)}


class TestHistories:
    @settings(max_examples=some(60), **HISTORIES)
    @given(st.data())
    def test_no_row_gets_the_vector_of_another_text(self, world, data):
        interleaved(world, data)

    @pytest.mark.long
    @settings(max_examples=1000, **HISTORIES)
    @given(st.data())
    def test_a_thousand_histories(self, world, data):
        interleaved(world, data)
