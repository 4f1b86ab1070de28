"""What may be added to a table in Python: rows of many kinds, names of any kind, pictures; and what is refused."""

import datetime
import enum
import io
from decimal import Decimal
from typing import Literal, Optional

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest
from PIL import Image

import jammi_duck
from jammi_duck import InputError
from jammi_duck.embeddings import EmbeddingFunction, Model, TextEmbeddingFunction, Vector, get_registry, register
from tests.python_tables import WithTables, embedding_tables, states, texts


class TestRowsThatDoNotFit(WithTables):
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("row", "told_of"),
        [
            ({}, "row 1 of the data has no 'n', which 't' needs"),
            ({"n": None}, "row 1 of the data has None in 'n', which 't' needs"),
            ({"n": "abc"}, "row 1 of the data has 'abc' in 'n', which is int64"),
            ({"n": 1.5}, "row 1 of the data has 1.5 in 'n', which is int64: it is no whole number"),
            ({"n": 2**70}, "row 1 of the data has 1180591620717411303424 in 'n'"),
            ({"n": 1, "s": 3}, "row 1 of the data has 3 in 's', which is string"),
            ({"n": 1, "s": "\ud800"}, r"row 1 of the data has '\\ud800' in 's', which is string"),
            ({"n": 1, "d": "yesterday"}, "row 1 of the data has 'yesterday' in 'd', which is date32"),
            ({"n": 1, "v": "abc"}, "row 1 of the data has 'abc' in 'v', which is .*give 2 numbers"),
            ({"n": 1, "v": [[1, 2], [3, 4]]}, "row 1 of the data has .* in 'v'"),
            ({"n": 1, "N2": 1}, "row 1 of the data has a field 'N2', and 't' has no such column; did you mean 'n'"),
            ({"n": 1, "vv": [1, 2]}, "row 1 of the data has a field 'vv'.*did you mean 'v'"),
            ([1], "the data has dicts and Arrow tables|row 0 of the data is of type int"),
            ("text", "row 1 of the data is of type str; it must be a dict or a model"),
        ],
    )
    def test_row_and_field_are_named_and_nothing_is_done(self, db, told, row, told_of):
        func = get_registry().get("tests-told").create(dimensions=2)

        class Rows(Model):
            n: int
            s: Optional[str] = func.SourceField(default=None)  # noqa: UP045
            d: Optional[datetime.date] = None  # noqa: UP045
            v: Vector(2) = func.VectorField()

        table = db.create_table("t", schema=Rows)
        with pytest.raises(InputError, match=told_of):
            table.add([{"n": 1, "s": "x"}, row])
        assert (told, table.count_rows(), embedding_tables(db)[0][1:]) == ([], 0, ("ready", 0))

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("data", [None, 3, "text", b"bytes", {"text": "x"}, [1], pd.Series([1])])
    def test_what_holds_no_rows(self, table, data):
        with pytest.raises(InputError, match="the data"):
            table.add(data)

    def test_what_duckdb_refuses_is_refused_before_anything_is_embedded(self, db, table, told):
        db.con.execute("CREATE UNIQUE INDEX numbers ON words (number)")
        table.add([{"text": "one", "number": 1}])
        told.clear()
        with pytest.raises(jammi_duck.JammiError, match="[Dd]uplicate key"):
            table.add([{"text": "two", "number": 2}, {"text": "again", "number": 1}])
        assert (told, table.count_rows(), states(db)) == ([], 1, [(0, 0, 0)])

    def test_fields_that_are_left_out_have_their_defaults(self, db):
        class Rows(Model):
            n: int = 7
            s: str = "it's"
            f: float = -1.5
            b: bool = True
            o: int | None = None

        table = db.create_table("t", schema=Rows)
        table.add([{"n": 1}, {"s": "given"}])
        assert db.open_table("t").add([{"o": 3}]) == 1
        db.con.execute("INSERT INTO t (n) VALUES (9)")
        rows = [tuple(row.values()) for row in table.to_arrow().to_pylist()]
        assert rows == [
            (1, "it's", -1.5, True, None),
            (7, "given", -1.5, True, None),
            (7, "it's", -1.5, True, 3),
            (9, "it's", -1.5, True, None),
        ]

    def test_members_of_enums_are_defaults_by_their_values(self, db):
        class Colour(str, enum.Enum):  # noqa: UP042 - as users write it
            RED = "red"

        class Size(enum.IntEnum):
            LARGE = 3

        class Plain(enum.Enum):
            ONE = "one"

        class Rows(Model):
            n: int
            c: Colour = Colour.RED
            s: Size = Size.LARGE
            p: Plain = Plain.ONE

        table = db.create_table("t", schema=Rows)
        table.add([{"n": 1}])
        db.con.execute("INSERT INTO t (n) VALUES (2)")
        assert [tuple(row.values())[1:] for row in table.to_arrow().to_pylist()] == [("red", 3, "one")] * 2
        assert table.search().to_pydantic(Rows)[1] == Rows(n=2)


class TestValuesThatWouldChange(WithTables):
    NOON = datetime.datetime(2026, 1, 2, 12)

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("kind", "bad", "good", "told_of"),
        [
            ("INT", Decimal("1.9"), Decimal(2), "no whole number"),
            ("INT", float("inf"), 2.0, "no whole number"),
            ("HUGEINT", 1.5, 2.0, "no whole number"),
            ("HUGEINT", Decimal("1.5"), 2, "no whole number"),
            ("STRUCT(a INT)", {"a": 1.5}, {"a": 2}, "no whole number"),
            ("STRUCT(a INT)[]", [{"a": 1}, {"a": 1.5}], [{"a": 2}], "no whole number"),
            ("BIGINT[]", [1, 1.5], [2], "no whole number"),
            ("FLOAT", 1e39, 2.5, "too large for a FLOAT"),
            ("DATE", NOON, datetime.datetime(2026, 1, 2), "has a time"),
            ("DATE", pd.Timestamp(NOON), pd.Timestamp(2026, 1, 2), "has a time"),
        ],
    )
    def test_row_and_field_are_named(self, db, kind, bad, good, told_of):
        db.con.execute(f"CREATE TABLE t (x {kind})")
        table = db.open_table("t")
        with pytest.raises(InputError, match=f"row 1 of the data has .* in 'x', which is .*: .*{told_of}"):
            table.add([{"x": good}, {"x": bad}])
        assert table.add([{"x": good}, {"x": None}]) == 2
        with pytest.raises(InputError, match="row 1 of the data has .* in 'x'"):
            table.add(pa.table({"x": pa.array([good, bad])}))
        assert table.add(pa.table({"x": pa.array([good, None])})) == 2

    def test_vectors_of_doubles_stay_as_they_are(self, db):
        schema = pa.schema([("vector", pa.list_(pa.float64(), 2)), ("n", pa.int64())])
        table = db.create_table("t", [{"vector": [0.1, 1e-300], "n": 1}], schema=schema)
        table.add(pa.table({"vector": pa.array([[0.3, 1e300]]), "n": [2]}))
        assert table.to_arrow()["vector"].to_pylist() == [[0.1, 1e-300], [0.3, 1e300]]
        assert table.search([1.0, 0.0]).limit(1).to_list()[0]["vector"] == [0.1, 1e-300]


class TestWhatPandasHasForNull(WithTables):
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("missing", [pd.NaT, pd.NA, float("nan"), np.float64("nan"), None])
    def test_it_is_null_in_each_kind_of_column(self, db, missing):
        class Rows(Model):
            n: int
            s: str | None
            d: datetime.date | None
            t: datetime.datetime | None
            b: bool | None
            y: bytes | None
            many: list[str] | None
            v: Vector(2)

        table = db.create_table("t", schema=Rows)
        table.add([{"n": 1, **dict.fromkeys("sdtby", missing), "many": missing, "v": missing}])
        assert list(table.to_arrow().to_pylist()[0].values()) == [1] + [None] * 7
        with pytest.raises(InputError, match="row 0 of the data has (None|.*nan.*) in 'n'"):
            table.add([{"n": missing}])

    def test_a_number_that_is_none_stays_one_in_a_column_of_numbers(self, db):
        table = db.create_table("t", schema=pa.schema([("f", pa.float64())]))
        table.add([{"f": float("nan")}, {"f": pd.NA}])
        assert str(table.to_arrow()["f"].to_pylist()) == "[nan, None]"

    def test_columns_are_those_of_the_other_rows(self, db):
        missing = float("nan")
        rows = [{"s": missing, "d": pd.NaT, "f": missing}, {"s": "a", "d": datetime.date(2026, 1, 2), "f": 1.5}]
        table = db.create_table("t", rows)
        assert table.schema.types == [pa.string(), pa.date32(), pa.float64()]
        assert [row["s"] for row in table.to_arrow().to_pylist()] == [None, "a"]

    def test_a_text_that_is_missing_has_no_vector(self, table, told):
        table.add([{"text": pd.NA}, {"text": float("nan")}, {"text": "there"}])
        assert (told, table.count_rows("text IS NULL")) == (["there"], 2)


class TestKindsOfData(WithTables):
    ROWS = ({"text": "first", "number": 1}, {"text": "second", "number": 2})

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        "made",
        [
            list,
            tuple,
            iter,
            lambda rows: ([row] for row in rows),
            lambda rows: pa.Table.from_pylist(list(rows)),
            lambda rows: pa.RecordBatch.from_pylist(list(rows)),
            lambda rows: pa.Table.from_pylist(list(rows)).to_reader(),
            lambda rows: iter(pa.Table.from_pylist(list(rows)).to_batches(1)),
            lambda rows: pd.DataFrame(list(rows)),
            lambda rows: pd.DataFrame(list(rows)).set_index("text").reset_index(),
            lambda rows: pl.DataFrame(list(rows)),
            lambda rows: pl.DataFrame(list(rows)).lazy(),
            lambda rows: duckdb.from_arrow(pa.Table.from_pylist(list(rows))),
        ],
    )
    def test_each_is_added(self, table, made):
        assert table.add(made(self.ROWS)) == 2
        assert [(row["text"], row["number"]) for row in table.to_arrow().to_pylist()] == [("first", 1), ("second", 2)]
        assert texts(table.search("second").limit(1)) == ["second"]

    def test_models_are_rows(self, table, words):
        table.add([words(text="first"), words(text="second", vector=np.eye(16)[0], number=2)])
        rows = table.search(np.eye(16)[0]).limit(1).to_pydantic(words)
        assert rows == [words(text="second", vector=np.eye(16)[0], number=2)]

    def test_a_model_that_calls_its_fields_otherwise(self, db):
        class Rows(Model):
            name: str = pydantic.Field(alias="called")

        table = db.create_table("t", data=[Rows(called="x")])
        assert table.search().to_pydantic(Rows) == [Rows(called="x")]

    def test_vectors_of_dataframes_and_arrow(self, table):
        vector = np.eye(16, dtype=np.float32)[2]
        table.add(pd.DataFrame({"text": ["a", "b"], "vector": [vector, None]}))
        table.add(pl.DataFrame({"text": ["c"], "vector": [vector.tolist()]}))
        table.add(
            pa.table({"text": ["d"], "vector": pa.array([vector.astype(int).tolist()], pa.list_(pa.int64(), 16))})
        )
        found = table.search(vector).limit(3).to_list()
        assert {row["text"] for row in found} == {"a", "c", "d"}
        assert all(row["vector"] == vector.tolist() for row in found)

    def test_columns_of_arrow_that_do_not_fit(self, table):
        with pytest.raises(InputError, match="row 1 of the data has 'x' in 'number', which is int64"):
            table.add(pa.table({"text": ["a", "b"], "number": ["1", "x"]}))
        with pytest.raises(InputError, match="the data has a column 'nunber'.*did you mean 'number'"):
            table.add(pa.table({"text": ["a"], "nunber": [1]}))
        with pytest.raises(InputError, match="the data has the column 'text' twice"):
            table.add(pa.table([pa.array(["a"]), pa.array(["b"])], ["text", "TEXT"]))
        assert table.count_rows() == 0

    def test_every_kind_of_field_comes_back_as_it_went(self, db):
        class Colour(enum.Enum):
            RED = "red"

        class Inner(Model):
            a: int
            b: list[str]

        class Rows(Model):
            i: int
            f: float
            b: bool
            s: str
            y: bytes
            d: datetime.date
            t: datetime.datetime
            h: datetime.time
            o: str | None
            lit: Literal["a", "b"]
            e: Colour
            many: list[int]
            inner: Inner
            inners: list[Inner]
            vector: Vector(2)

        now = datetime.datetime(2026, 1, 2, 3, 4, 5, 678)
        row = Rows(
            i=-(2**62), f=0.1, b=True, s="ü", y=b"\x00\xff", d=now.date(), t=now, h=now.time(), o=None, lit="b",
            e=Colour.RED, many=[1, 2], inner=Inner(a=1, b=["x"]), inners=[Inner(a=2, b=[])], vector=[0.5, 0.25],
        )  # fmt: skip
        table = db.create_table("t", data=[row])
        assert table.search().to_pydantic(Rows) == [row]
        assert table.search([0.5, 0.25]).to_pydantic(Rows) == [row]

    @pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.long)])
    def test_many_rows_at_once(self, db, count):
        class Many(TextEmbeddingFunction):
            def ndims(self):
                return 4

            def generate_embeddings(self, texts):
                return np.array([[1.0, int(text), int(text) % 97, 1] for text in texts])

        func = register("tests-many")(Many).create()

        class Rows(Model):
            text: str = func.SourceField()
            vector: Vector(4) = func.VectorField()

        table = db.create_table("t", schema=Rows)
        assert table.add({"text": str(number)} for number in range(count)) == count
        assert table.count_rows() == count
        assert embedding_tables(db)[0][1:] == ("ready", count)


HOSTILE = [
    "a b",
    'q"q',
    "a.b",
    "it's",
    "Ünïcödé 猫",
    "select",
    "main.words",
    "--",
    "x.parquet",
    "json",
    "*",
    "a\nb",
    "1",
    "x" * 200,
]


class TestHostileNames(WithTables):
    @pytest.mark.sampled(4)
    @pytest.mark.parametrize("name", HOSTILE)
    def test_of_tables(self, db, words, name):
        table = db.create_table(name, data=[{"text": "hello"}], schema=words)
        table.add([{"text": "goodbye"}])
        assert texts(table.search("hello").limit(1)) == ["hello"]
        assert texts(db.open_table(name).search("goodbye", query_type="fts")) == ["goodbye"]
        assert db.table_names() == [name]
        quoted = name.replace('"', '""')
        db.con.execute(f"DELETE FROM \"{quoted}\" WHERE text = 'hello'")
        assert texts(table.search("hello")) == ["goodbye"]
        db.create_table(name, schema=words, mode="overwrite")
        db.drop_table(name)
        assert (db.table_names(), embedding_tables(db)) == ([], [])

    @pytest.mark.sampled(4)
    @pytest.mark.parametrize("name", [*HOSTILE, "c0", "c1", "r", "key", "_jammi_text_"])
    def test_of_columns(self, db, func, name):
        vector = f"{name} v"
        fields = {name: (str, func.SourceField()), vector: (Vector(16), func.VectorField())}
        if name.startswith("_") or name == "json":
            # Pydantic has these for itself.
            schema = pa.schema([(name, pa.string()), (vector, pa.list_(pa.float32(), 16))])
        else:
            schema = pydantic.create_model("M", __base__=Model, **fields)
        table = db.create_table("t", schema=schema)
        table.add([{name: "hello"}, {name: "goodbye", vector: np.eye(16)[0]}])
        (found,) = db.open_table("t").search(np.eye(16)[0], vector).limit(1).to_list()
        assert (found[name], found[vector]) == ("goodbye", np.eye(16)[0].tolist())
        assert table.search("hello").limit(1).select([name]).to_list()[0][name] == "hello"
        table.refresh()
        assert table.search("goodbye", query_type="fts").to_list()[0][name] == "goodbye"


class Colours(EmbeddingFunction):
    """The colour of a picture, or of its name."""

    takes_bytes = True

    def ndims(self):
        return 3

    def compute_source_embeddings(self, values):
        return [self.vector(Image.open(io.BytesIO(value))) for value in values]

    def compute_query_embeddings(self, query):
        is_name = isinstance(query, str)
        return [self.vector(Image.new("RGB", (1, 1), query))] if is_name else self.compute_source_embeddings([query])

    def vector(self, image):
        return np.array(image.convert("RGB").resize((1, 1)).getpixel((0, 0)), float)


class TestImages(WithTables):
    def test_bytes_and_pictures_are_rows_and_queries(self, db):
        func = register("tests-colours")(Colours).create()

        class Pictures(Model):
            picture: bytes = func.SourceField()
            vector: Vector(3) = func.VectorField()
            name: str

        table = db.create_table("pictures", schema=Pictures)
        red, green = (Image.new("RGB", (4, 4), name) for name in ("red", "green"))
        buffer = io.BytesIO()
        green.save(buffer, "PNG")
        table.add([{"picture": red, "name": "red"}, {"picture": buffer.getvalue(), "name": "green"}])
        table.add([{"picture": None, "name": "none"}])
        for query in (red, "red"):
            assert [row["name"] for row in table.search(query).limit(1).to_list()] == ["red"]
        assert [row["name"] for row in table.search(buffer.getvalue()).limit(1).to_list()] == ["green"]
        assert table.search().to_list()[1]["picture"] == buffer.getvalue()
        assert states(db) == [(0, 0, 0)]

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "F", "RGBa", "PA", "RGBX", "I;16", "1"])
    def test_pictures_of_any_mode(self, db, mode):
        func = register("tests-colours")(Colours).create()

        class Pictures(Model):
            picture: bytes = func.SourceField()
            vector: Vector(3) = func.VectorField()

        between = {"RGBa": "RGBA", "PA": "P", "I;16": "L"}.get(mode, mode)
        picture = Image.new("RGB", (4, 4), "white").convert(between).convert(mode)
        table = db.create_table("pictures", [{"picture": picture}], schema=Pictures)
        assert table.search(picture).to_list()[0]["_distance"] == pytest.approx(0, abs=1e-6)
        assert table.to_arrow()["vector"][0].as_py() == pytest.approx([3**-0.5] * 3, abs=1e-2)

    def test_a_picture_that_cannot_be_saved_is_named(self, db, monkeypatch):
        def refused(*arguments, **options):
            raise ValueError("conversion not supported")

        monkeypatch.setattr(Image.Image, "convert", refused)
        func = register("tests-colours")(Colours).create()

        class Pictures(Model):
            picture: bytes = func.SourceField()
            vector: Vector(3) = func.VectorField()

        table = db.create_table("pictures", schema=Pictures)
        with pytest.raises(InputError, match="row 0 of the data has a picture in 'picture', and .*LAB.*give its bytes"):
            table.add([{"picture": Image.new("LAB", (1, 1))}])
        with pytest.raises(InputError, match="LAB.*give its bytes"):
            table.search(Image.new("LAB", (1, 1)))
