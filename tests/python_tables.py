"""A function and a table for the tests of tables in Python, and what they ask of both."""

from pathlib import Path

import pytest

from jammi_duck.embeddings import (
    Model,
    TextEmbeddingFunction,
    Vector,
    connect,
    get_registry,
    register,
)
from tests.fakes import text_vector

ROOT = Path(__file__).parents[1]
asked = []


class Told(TextEmbeddingFunction):
    """Notes what it is asked for; near for texts that share words."""

    dimensions: int = 16

    def ndims(self):
        return self.dimensions

    def generate_embeddings(self, texts):
        asked.extend(texts)
        return [self.vector(text) for text in texts]

    def vector(self, text):
        if "none" in text:
            return None
        if "nan" in text:
            return [float("nan")] * self.dimensions
        return text_vector(text, self.dimensions)


class WithTables:
    """The fixtures: a folder `db`, a `table` in it, and which texts its function was `told`."""

    @pytest.fixture(autouse=True)
    def told(self):
        """What has reached the function since the test began, or since it was cleared."""
        register("tests-told")(Told)
        asked.clear()
        return asked

    @pytest.fixture
    def func(self, told):
        return get_registry().get("tests-told").create(max_retries=0)

    @pytest.fixture
    def words(self, func):
        class Words(Model):
            text: str = func.SourceField()
            vector: Vector(func.ndims()) = func.VectorField()
            number: int = 0

        return Words

    @pytest.fixture
    def db(self, tmp_path):
        with connect(tmp_path / "db") as db:
            yield db

    @pytest.fixture
    def table(self, db, words):
        return db.create_table("words", schema=words)


def texts(found):
    return [row["text"] for row in found.to_list()]


def embedded_as(text, dimensions=16):
    return pytest.approx(text_vector(text, dimensions).tolist(), abs=1e-6)


def embedding_tables(db):
    return db.jammi.tables().project("embedding_table, status, row_count").fetchall()


def states(db):
    """Whether each embedding table is what its rows say: what is new, changed and gone."""
    found = []
    for source, name in db.jammi.tables().project("source, embedding_table").fetchall():
        found += db.jammi.status(source, embedding_table=name).project('"new", changed, gone').fetchall()
    return found
