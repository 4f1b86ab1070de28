"""What a search answers in the stock shell where keys changed their type, names capture each other, texts are blank."""

from tests.stock_shell import folder, needs_extension, rows, shell

__all__ = ["folder"]

pytestmark = [needs_extension]


KEYS = (("range::INTEGER", "DOUBLE"), ("DATE '2024-02-28' + range::INTEGER", "TIMESTAMP"))


def test_a_key_of_another_type(folder):
    made = [
        f"CREATE TABLE k{i} AS SELECT {value} AS id, 'word' || range AS text FROM range(4);"
        f"FROM jammi_generate('k{i}', 'text', 'id'); ALTER TABLE k{i} ALTER id TYPE {after}"
        for i, (value, after) in enumerate(KEYS)
    ]
    assert shell(";".join(made)).stderr == ""
    searches = [
        f"SELECT {i} AS k, text FROM jammi_search('k{i}', 'word3', 9{options})"
        for i in range(len(KEYS))
        for options in ("", ", filter := 'true'")
    ]
    found = rows(f"SELECT k, text, count(*) AS n FROM ({' UNION ALL '.join(searches)}) GROUP BY ALL ORDER BY ALL")
    assert found == [{"k": k, "text": f"word{number}", "n": 2} for k in range(len(KEYS)) for number in range(4)]
    assert rows("SELECT count(*) AS n FROM k1, jammi_similar('k1', k1.id, 9) s") == [{"n": 12}]


def test_an_outer_column_that_is_called_as_one_of_the_source(folder):
    rows("FROM jammi_generate('t', 'text', 'id')")
    found = rows("SELECT o.id, s.id AS near FROM (VALUES (1), (2)) o(id), jammi_similar('t', id, 1) s ORDER BY 1")
    assert found == [{"id": 1, "near": 2}, {"id": 2, "near": 1}]
    asked = "(VALUES ('the duck in water'), ('a loud dog')) o(text)"
    found = rows(f"SELECT o.text = s.text AS same FROM {asked}, jammi_search('t', text, 1) s")
    assert found == [{"same": True}, {"same": True}]


def test_blank_questions_do_not_stop_the_others(folder):
    rows("FROM jammi_generate('t', 'text', 'id')")
    asked = "(VALUES (1, ''), (2, NULL), (3, chr(8203)), (4, 'a loud dog')) o(n, q)"
    assert rows(f"SELECT n, s.id FROM {asked}, jammi_search('t', q, 1) s") == [{"n": 4, "id": 2}]
