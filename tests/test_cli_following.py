"""`jammi-duck status`, `refresh`, `compact`, `import`, and `generate --reuse --resume`."""

import json
import re

import duckdb
import pytest

from jammi_duck.work.text_buffer import TextBuffer
from tests.test_cli import call, folder  # noqa: F401 - a fixture


@pytest.fixture
def database(folder, capsys):  # noqa: F811
    """A database with a table of five animals, of which four have a text, and their embeddings."""
    with duckdb.connect("jammi_duck.duckdb") as con:
        con.execute("CREATE TABLE animals AS FROM 'animals.csv'")
    assert call(capsys, "generate animals --columns text --key id")[0] == 0
    return folder


def change():
    with duckdb.connect("jammi_duck.duckdb") as con:
        con.execute("DELETE FROM animals WHERE id = 1")
        con.execute("UPDATE animals SET text = 'a wolf' WHERE id = 2")
        con.execute("INSERT INTO animals VALUES (6, 'bee', 'a bee'), (7, 'wolf', 'a wolf')")


def of(capsys, line):
    """The one object that a command prints as JSON."""
    code, out, _ = call(capsys, f"{line} --json")
    assert code == 0
    (row,) = json.loads(out)
    return row


def facts(out):
    return dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())


class TestStatus:
    def test_a_line_for_each_fact(self, database, capsys):
        code, out, err = call(capsys, "status animals")
        told = facts(out)
        assert (code, err) == (0, "")
        assert list(told) == [
            "embedding_table", "current", "new", "changed", "gone", "coverage", "segments", "bytes", "age",
        ]  # fmt: skip
        assert (told["current"], told["new"], told["coverage"], told["segments"]) == ("4", "0", "1.0", "1")
        assert re.fullmatch(r"\d+:\d\d:\d\d", told["age"])

    def test_what_differs_and_what_to_do(self, database, capsys):
        change()
        told = facts(call(capsys, "status animals")[1])
        assert told["advice"] == "`jammi-duck refresh animals` brings it up to date"
        row = of(capsys, "status animals")
        assert [row[name] for name in ("current", "new", "changed", "gone", "coverage")] == [2, 2, 1, 1, 0.4]
        assert row["advice"] == "SELECT * FROM jammi_refresh('animals') brings it up to date"

    def test_the_advice_is_a_command_for_a_strange_name(self, folder, capsys):  # noqa: F811
        (folder / "two words.csv").write_text("id,text\n1,a cat\n")
        assert call(capsys, "generate 'two words.csv' --columns text --key id")[0] == 0
        (folder / "two words.csv").write_text("id,text\n1,a cat\n2,a dog\n")
        advised = re.search("`jammi-duck (.*?)`", call(capsys, "status 'two words.csv'")[1])[1]
        assert call(capsys, advised)[0] == 0
        assert of(capsys, "status 'two words.csv'")["new"] == 0

    def test_a_database_that_only_reads(self, database, capsys):
        (database / "jammi_duck.duckdb").chmod(0o444)
        with duckdb.connect("jammi_duck.duckdb", read_only=True):
            assert of(capsys, "status animals")["current"] == 4

    def test_wrong_calls_are_2(self, database, capsys):
        code, out, err = call(capsys, "status animal")
        assert (code, out) == (2, "")
        assert "no embedding table for 'animal'; did you mean 'animals'?" in err
        assert err.rstrip().endswith("`jammi-duck generate` makes one")
        assert call(capsys, "status animals --table nothing")[0] == 2


class TestRefresh:
    def test_a_table_follows_its_source(self, database, capsys):
        change()
        row = of(capsys, "refresh animals")
        assert [row[name] for name in ("added", "changed", "deleted", "unchanged", "failed", "encoded")] == [
            2, 1, 1, 2, 0, 2,
        ]  # fmt: skip
        found = json.loads(call(capsys, "search animals 'a wolf' -k 2 --json")[1])
        assert sorted(row["id"] for row in found) == [2, 7]

    def test_what_it_prints(self, database, capsys):
        code, out, err = call(capsys, "refresh animals")
        told = facts(out)
        assert code == 0
        assert (told["unchanged"], told["encoded"], "advice" in told) == ("4", "0", False)
        change()
        for i in range(8):
            with duckdb.connect("jammi_duck.duckdb") as con:
                con.execute("INSERT INTO animals (id, text) VALUES (?, ?)", [100 + i, f"a wolf {i}"])
            told = facts(call(capsys, "refresh animals")[1])
        assert told["advice"].endswith("`jammi-duck compact animals` makes searches faster")

    def test_a_model_and_a_table(self, database, capsys, tiny_model):
        first = of(capsys, "status animals")["embedding_table"]
        second = of(capsys, "generate animals --columns name --key id")["embedding_table"]
        assert of(capsys, f"refresh animals --model {tiny_model}")["embedding_table"] == second
        assert of(capsys, f"refresh animals --table {first}")["embedding_table"] == first
        code, _, err = call(capsys, "refresh animals --model fake/other")
        assert (code, "of the model 'fake/other'" in err) == (2, True)

    def test_rows_that_could_not_be_embedded_are_3(self, folder, capsys, monkeypatch):  # noqa: F811
        from tests.fakes import FakeEncoders

        monkeypatch.setattr("jammi_duck.doors.installation.loaded_encoders", lambda _: FakeEncoders())
        monkeypatch.setenv("JAMMI_INFERENCE__MODEL", "fake/small")
        (folder / "animals.csv").write_text("id,text\n1,a cat\n")
        assert call(capsys, "generate animals.csv --columns text --key id")[0] == 0
        (folder / "animals.csv").write_text("id,text\n1,a cat\n2,unencodable\n")
        code, out, _ = call(capsys, "refresh animals.csv")
        assert (code, facts(out)["failed"]) == (3, "1")


class TestCompact:
    def test_segments_become_one(self, database, capsys):
        change()
        assert call(capsys, "refresh animals")[0] == 0
        before = of(capsys, "status animals")
        code, out, _ = call(capsys, "compact animals")
        told = facts(out)
        assert (code, told["segments_before"], told["segments"], told["rows_removed"]) == (0, "2", "1", "2")
        assert int(told["bytes_before"]) == before["bytes"]
        after = of(capsys, "status animals")
        assert (after["segments"], after["bytes"], after["advice"]) == (1, int(told["bytes"]), None)
        assert of(capsys, "compact animals")["rows_removed"] == 0


class TestImport:
    @pytest.fixture
    def vectors(self, database, capsys):
        """The vectors of the animals in a file, from the embedding table, which is dropped."""
        with duckdb.connect("jammi_duck.duckdb") as con:
            rows = "SELECT name, location FROM jammi_catalog.embedding_tables"
            ((table, location),) = con.execute(rows).fetchall()
            stored = f"read_parquet('{location}/jammi_db/{table}.parquet')"
            con.execute(f"COPY (SELECT _row_id::INTEGER AS id, vector FROM {stored}) TO 'vectors.parquet'")
        assert call(capsys, f"drop {table}")[0] == 0
        return database

    def test_vectors_are_found_and_refreshed(self, vectors, capsys, tiny_model):
        row = of(capsys, f"import animals vectors.parquet id vector --model {tiny_model} --columns text")
        assert (row["source"], row["status"], row["row_count"], row["dimensions"]) == ("animals", "ready", 4, 32)
        assert json.loads(call(capsys, "search animals 'a small cat' -k 1 --json")[1])[0]["id"] == 1
        assert of(capsys, "status animals")["coverage"] == 1
        change()
        assert of(capsys, "refresh animals")["encoded"] == 2

    def test_what_it_prints(self, vectors, capsys, tiny_model):
        code, out, _ = call(capsys, f"import animals vectors.parquet id vector --model {tiny_model}")
        assert (code, facts(out)["row_count"]) == (0, "4")

    def test_wrong_calls_are_2(self, vectors, capsys, tiny_model):
        code, out, err = call(capsys, f"import animals vectors.parquet id vectr --model {tiny_model}")
        assert (code, out) == (2, "")
        assert err.startswith("jammi-duck: no column 'vectr' in 'vectors.parquet'; did you mean 'vector'?")
        code, _, err = call(capsys, f"import animals nothing id vector --model {tiny_model}")
        assert (code, "there is no table, view or file 'nothing'" in err) == (2, True)


class TestGenerate:
    def test_reuse(self, database, capsys):
        first = of(capsys, "status animals")["embedding_table"]
        assert of(capsys, "generate animals --columns text --key id --reuse")["embedding_table"] == first
        change()
        assert of(capsys, "generate animals --columns text --key id --reuse")["embedding_table"] != first

    def test_resume(self, folder, capsys, monkeypatch):  # noqa: F811
        monkeypatch.setenv("JAMMI_STORAGE__SEGMENT_ROWS", "1000")
        last = "CASE WHEN range = 8900 THEN error('it is away') ELSE 'the duck' END"
        with duckdb.connect("jammi_duck.duckdb") as con:
            con.execute(f"CREATE VIEW many AS SELECT range AS id, {last} AS text FROM range(9000)")
        code, _, err = call(capsys, "generate many --columns text --key id")
        assert (code, "it is away" in err) == (1, True)
        with duckdb.connect("jammi_duck.duckdb") as con:
            con.execute("CREATE OR REPLACE VIEW many AS SELECT range AS id, 'the duck' AS text FROM range(9000)")
        row = of(capsys, "generate many --columns text --key id --resume")
        assert (row["status"], row["row_count"]) == ("ready", 9000)
        tables = json.loads(call(capsys, "tables --json")[1])
        assert [(each["embedding_table"], each["status"]) for each in tables] == [(row["embedding_table"], "ready")]


class TestSync:
    def test_the_same_command_is_right_at_each_run(self, folder, capsys):  # noqa: F811
        with duckdb.connect("jammi_duck.duckdb") as con:
            con.execute("CREATE TABLE animals AS FROM 'animals.csv'")
        line = "sync animals --columns text --key id"
        told = [of(capsys, line) for _ in range(2)]
        change()
        told.append(of(capsys, line))
        assert [row["action"] for row in told] == ["generated", "unchanged", "refreshed"]
        assert len({row["embedding_table"] for row in told}) == 1
        assert (told[-1]["added"], told[-1]["changed"], told[-1]["deleted"]) == (2, 1, 1)
        assert len(json.loads(call(capsys, "tables --json")[1])) == 1

    def test_a_line_for_each_fact(self, database, capsys):
        code, out, _ = call(capsys, "sync animals --columns text --key id")
        assert (code, facts(out)["action"], facts(out)["unchanged"]) == (0, "unchanged", "4")

    def test_a_name_for_the_table(self, database, capsys):
        assert of(capsys, "sync animals --columns name --key id --name names")["action"] == "generated"
        assert of(capsys, "status animals --table names")["current"] == 5
        assert of(capsys, "generate animals --columns text --key id --name names")["embedding_table"].startswith(
            "names_"
        )

    def test_a_mistake(self, database, capsys):
        code, _, err = call(capsys, "sync animals --columns txt --key id")
        assert (code, "did you mean 'text'?" in err) == (2, True)


class TestExitCodes:
    def test_status_tells_whether_rows_have_changed(self, database, capsys):
        assert call(capsys, "status animals --exit-code")[0] == 0
        change()
        assert call(capsys, "status animals")[0] == 0
        code, out, _ = call(capsys, "status animals --exit-code")
        assert (code, facts(out)["new"]) == (4, "2")
        assert call(capsys, "status animals --exit-code --json")[0] == 4
        call(capsys, "refresh animals")
        assert call(capsys, "status animals --exit-code")[0] == 0


class TestRefreshAll:
    def test_the_newest_table_of_each_definition(self, database, capsys):
        names = of(capsys, "generate animals --columns name --key id --name names")["embedding_table"]
        newest = of(capsys, "generate animals --columns text --key id")["embedding_table"]
        change()
        code, out, _ = call(capsys, "refresh --all --json")
        rows = {row["embedding_table"]: (row["added"], row["changed"]) for row in json.loads(out)}
        assert (code, rows) == (0, {newest: (2, 1), names: (2, 0)})
        code, out, _ = call(capsys, "refresh --all")
        assert (code, out.count("unchanged"), out.count("embedding_table")) == (0, 2, 2)

    def test_the_case_of_letters_is_no_other_definition(self, database, capsys):
        newest = of(capsys, "generate animals --columns Text --key ID")["embedding_table"]
        change()
        code, out, _ = call(capsys, "refresh --all --json")
        assert (code, [row["embedding_table"] for row in json.loads(out)]) == (0, [newest])

    def test_tables_of_two_names(self, database, capsys):
        named = of(capsys, "generate animals --columns text --key id --name other")["embedding_table"]
        change()
        rows = {row["embedding_table"]: row["added"] for row in json.loads(call(capsys, "refresh --all --json")[1])}
        assert (len(rows), rows[named], set(rows.values())) == (2, 2, {2})

    def test_a_source_that_is_gone_does_not_stop_the_others(self, database, capsys, caplog):
        with duckdb.connect("jammi_duck.duckdb") as con:
            con.execute("CREATE TABLE a_first AS FROM animals")
        of(capsys, "generate a_first --columns text --key id")
        change()
        with duckdb.connect("jammi_duck.duckdb") as con:
            con.execute("DROP TABLE a_first")
        code, out, _ = call(capsys, "refresh --all --json")
        assert (code, [row["added"] for row in json.loads(out)]) == (1, [2])
        assert re.search(r"a_first__embedding__\S+ was not refreshed: there is no table", caplog.text)

    def test_a_source_that_changes_while_it_is_read_does_not_stop_the_others(self, database, capsys, caplog):
        with duckdb.connect("jammi_duck.duckdb") as con:
            con.execute("CREATE VIEW a_first AS SELECT id, text FROM animals")
        first = of(capsys, "generate a_first --columns text --key id")["embedding_table"]
        change()
        with duckdb.connect("jammi_duck.duckdb") as con:
            con.execute("CREATE OR REPLACE VIEW a_first AS SELECT id, text || random() AS text FROM animals")
        for words in ("refresh --all --json", "refresh --all"):
            caplog.clear()
            code, out, _ = call(capsys, words)
            assert code == 1
            assert f"{first} was not refreshed: the source did not give the same rows" in caplog.text
            assert re.findall(r"\b\w+(?=__embedding__)", out) == ["animals"]

    @pytest.mark.parametrize("form", ["", " --json"])
    def test_an_interrupt_stops_it_and_shows_what_is_done(self, database, capsys, monkeypatch, form):
        with duckdb.connect("jammi_duck.duckdb") as con:
            con.execute("CREATE TABLE b AS FROM animals; CREATE TABLE c AS FROM animals")
        for source in ("b", "c"):
            of(capsys, f"generate {source} --columns text --key id")
        change()
        with duckdb.connect("jammi_duck.duckdb") as con:
            for source in ("b", "c"):
                con.execute(f"UPDATE {source} SET text = 'press ' || id WHERE id = 1")
        real, pressed = TextBuffer.add, []

        def press(buffer, texts, job, advance):
            listed = list(texts)
            if any(text.startswith("press") for _, text in listed):
                pressed.append(job.work.name)
                job.is_interrupted = True
            return real(buffer, listed, job, advance)

        monkeypatch.setattr(TextBuffer, "add", press)
        code, out, err = call(capsys, f"refresh --all{form}")
        assert (code, "was interrupted" in err, len(pressed)) == (1, True, 1)
        assert pressed[0].startswith("b__")
        assert re.findall(r"\b\w+(?=__embedding__)", out) == ["animals"]

    def test_it_is_all_or_one(self, database, capsys):
        for words in ("refresh", "refresh animals --all"):
            code, _, err = call(capsys, words)
            assert (code, "name the source to refresh, or all of them with --all" in err) == (2, True)
        code, _, err = call(capsys, "refresh --all --table x")
        assert (code, "leave out --model, --table and --column" in err) == (2, True)
