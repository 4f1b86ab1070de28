"""Lines that a user would type wrong, at least two for each verb: the answer has the right name, or the right call."""

import re

import duckdb
import pytest

from jammi_duck.udfs.macros import macros
from tests.test_cli import call
from tests.test_generate import error_of
from tools.program import in_pipe

# What was typed, and what the answer says; TABLE is the name of the embedding table of `patents`.
MISTAKES = [
    ("SELECT embed()", "embed(text, model := NULL, role := 'document', dims := NULL)"),
    ("SELECT embed(titel) FROM patents", '"title"'),
    ("SELECT embed(title, role := 'question') FROM patents", "role is 'question'; it must be 'document' or 'query'"),
    ("SELECT embed(title, dims := 'many') FROM patents", "dims is many; it must be a whole number"),
    ("SELECT embed(title, dims := 500) FROM patents", "dims is 500; 'fake/small' has 1 to 64"),
    ("SELECT embed(encode(title)) FROM patents", "this is a BLOB, which is bytes: write decode(...)"),
    ("SELECT embedd('a')", 'Did you mean "embed"?'),
    ("SELECT jammi_snippet(title) FROM patents", "jammi_snippet(text, query, words := 30, mark := '**', "),
    ("SELECT jammi_snippet(title, 'cat', language := 'englisch') FROM patents", "did you mean 'english'?"),
    ("SELECT jammi_snippet(encode(title), 'cat') FROM patents", "this is a BLOB, which is bytes: write decode(...)"),
    ("SELECT jammi_snipet('a', 'b')", 'Did you mean "jammi_snippet"?'),
    ("SELECT jammi_split()", "jammi_split(text, tokens := NULL, overlap := NULL, by := 'paragraph', model := NULL)"),
    ("SELECT jammi_split(titel) FROM patents", '"title"'),
    ("SELECT jammi_split(title, 200) FROM patents", "tokens is 200, and 'fake/small' reads 8 tokens"),
    ("SELECT jammi_split(title, tokens := 'many') FROM patents", "tokens is many; it must be a whole number"),
    ("SELECT jammi_split(title, overlap := 5) FROM patents", "overlap is 5; it must be from 0 to 4"),
    ("SELECT jammi_split(title, by := 'paragraf') FROM patents", "did you mean 'paragraph'?"),
    ("SELECT jammi_split(encode(title)) FROM patents", "this is a BLOB, which is bytes: write decode(...)"),
    ("SELECT jammi_splits('a')", 'Did you mean "jammi_split"?'),
    ("FROM jammi_generate('patent', 'title', 'id')", 'Did you mean "patents"?'),
    ("FROM jammi_generate('patents', 'titel', 'id')", "no column 'titel' in 'patents'; did you mean 'title'?"),
    ("FROM jammi_generate('patents', 'title', 'idd')", "no column 'idd' in 'patents'; did you mean 'id'?"),
    ("FROM jammi_generate('patents', 'title')", "jammi_generate(source, cols, key, "),
    ("FROM jammi_generate('patents', 'title, abstract', 'id')", "as a list, ['title', 'abstract'], and one column as"),
    ("FROM jammi_generate('patents', 'id', ['title', 'abstract'])", "as a list, ['title', 'abstract'], and one column"),
    ("FROM jammi_generate('patents', 'id', ['title'])", "as a list, ['title'], and one column as the key"),
    ("FROM jammi_generate('patents', ['title', NULL], 'id')", "columns are ['title', NULL]; give a name, or a list of"),
    (
        "FROM jammi_generate('patents', {'title': 'titel'}, 'id')",
        "no column 'titel' in 'patents'; did you mean 'title'?",
    ),
    ("FROM jammi_generate('patents', {'title': ''}, 'id')", "no column '' in 'patents'; columns: id, title, abstract"),
    ("FROM jammi_generate('patents', [{'a': 'title'}], 'id')", "give a name, or a list of names that is not empty"),
    ("FROM jammi_generate('patents', {'a': 'title', 'b': ['title']}, 'id')", "would be the same embedding; leave out"),
    (
        "FROM jammi_sync('patents', {'the title': 'title'}, 'id')",
        "'the title' cannot be the label of an embedding: give",
    ),
    ("FROM jammi_generate('patents', columns := 'title', key := 'id')", "jammi_generate(source, cols, key, "),
    ("FROM jammi_generate('patents', 'title', 'id', model = 'fake/small')", "is written name := value"),
    ("FROM jammi_generate('patents', 'title', 'id', dims := 'all')", "dims is all; it must be a whole number"),
    ("FROM jammi_generate('patents', 'title', 'id', 'fake/small', name = 'a')", "dims is false: an optional argument"),
    ("SELECT jammi_generate('patents', 'title', 'id')", "has to be called in a FROM clause"),
    ("FROM jammi_genrate('patents', 'title', 'id')", 'Did you mean "jammi_generate"?'),
    ("FROM jammi_sync('patent', 'title', 'id')", 'Did you mean "patents"?'),
    ("FROM jammi_sync('patents', 'titel', 'id')", "no column 'titel' in 'patents'; did you mean 'title'?"),
    ("FROM jammi_sync('patents', 'title')", "jammi_sync(source, cols, key, "),
    ("FROM jammi_sync('patents', 'id', ['title'])", "as a list, ['title'], and one column as the key"),
    ("FROM jammi_sync('patents', 'title', 'id', name := 'my titles')", "give 1 to 64 letters, digits, or any"),
    ("FROM jammi_status('patent')", "no embedding table for 'patent'; did you mean 'patents'?"),
    ("FROM jammi_status('TABLE')", "is an embedding table, and no source; name its source, 'patents', and"),
    ("FROM jammi_status('patents', embedding_table := 'titles')", "no embedding table 'titles'; ready are: TABLE"),
    ("FROM jammi_status('patents', model = 'fake/small')", "is written name := value"),
    ("FROM jammi_status('patents', model := 'fake/smal')", "of the model 'fake/smal'; there are: fake/small"),
    ("FROM jammi_status()", "jammi_status(source, "),
    ("FROM jammi_refresh('patent')", "did you mean 'patents'?"),
    ("FROM jammi_refresh('patents', embedding_table = 'TABLE')", "is written name := value, and what stands in its"),
    ("FROM jammi_refresh('tickets')", "SELECT * FROM jammi_generate('tickets', columns, key) makes one"),
    ("FROM jammi_refresh('TABLE')", "name its source, 'patents', and this one as embedding_table"),
    ("FROM jammi_refresh('patents', embedding_table := 'TABLEx')", "did you mean 'TABLE'?"),
    ("FROM jammi_compact('patent')", "did you mean 'patents'?"),
    ("FROM jammi_compact('TABLE')", "name its source, 'patents', and this one as embedding_table"),
    ("FROM jammi_compact('patents', embedding_table = 'TABLE')", "is a comparison, name = value"),
    ("FROM jammi_compact('patents', embedding_table := 'titles')", "no embedding table 'titles'; ready are: TABLE"),
    ("FROM jammi_passages('patent')", "no embedding table for 'patent'; did you mean 'patents'?"),
    (
        "FROM jammi_passages('patents')",
        "the texts of 'TABLE' were not cut into passages: generate with passages := true",
    ),
    ("FROM jammi_passages('TABLE')", "name its source, 'patents', and this one as embedding_table"),
    ("FROM jammi_passages('patents', model = 'fake/small')", "is written name := value"),
    ("FROM jammi_passages()", "jammi_passages(source, model := NULL, embedding_table := NULL, "),
    ("FROM jammi_passage('patents')", 'Did you mean "jammi_passages"?'),
    (
        "FROM jammi_generate('patents', 'title', 'id', passages := 256)",
        "passages is 256; give true, or how texts are cut:",
    ),
    (
        "FROM jammi_generate('patents', 'title', 'id', passages := 'yes')",
        "give true, or how texts are cut: {'tokens': 200,",
    ),
    (
        "FROM jammi_generate('patents', 'title', 'id', passages := {'token': 200})",
        "passages has no 'token'; did you mean 'tokens'? it has tokens, overlap, by, title",
    ),
    (
        "FROM jammi_generate('patents', 'title', 'id', passages := {'tokens': 200})",
        "tokens is 200, and 'fake/small' reads 8 tokens: it must be from",
    ),
    (
        "FROM jammi_generate('patents', 'title', 'id', passages := {'tokens': '8'})",
        'tokens is "8"; it must be a whole number of tokens, such as 200',
    ),
    (
        "FROM jammi_generate('patents', 'title', 'id', passages := {'overlap': 5})",
        "overlap is 5; it must be from 0 to 4",
    ),
    (
        "FROM jammi_generate('patents', 'title', 'id', passages := {'by': 'line'})",
        "by is 'line'; it must be 'paragraph',",
    ),
    ("FROM jammi_generate('patents', 'title', 'id', passages := {'by': 3})", "by is 3; it must be a text, such as"),
    (
        "FROM jammi_generate('patents', 'title', 'id', passages := {'title': 'title'})",
        "title is title, and there is no other column whose text is to be cut: name the columns with the text as well",
    ),
    (
        "FROM jammi_generate('patents', 'abstract', 'id', passages := {'title': 'titel'})",
        "no column 'titel' in 'patents'; did you mean 'title'?",
    ),
    ("FROM jammi_generate('patents', 'title', 'id', passages := {'title': []})", "the columns in title are []; give a"),
    ("FROM jammi_generate('patents', 'title', 'id', tokens := 200)", "vectors := true, passages := false)"),
    (
        "FROM jammi_sync('patents', 'title', 'id', passages := [200])",
        "passages is [200]; give true, or how texts are cut",
    ),
    (
        "FROM jammi_sync('patents', 'title', 'id', passages := {'over': 1})",
        "passages has no 'over'; did you mean 'overlap'?",
    ),
    (
        "FROM jammi_sync('patents', 'title', 'id', passages := {'tokens': 9})",
        "tokens is 9, and 'fake/small' reads 8 tokens",
    ),
    ("FROM jammi_generate('patents', 'title', 'id', language := 'englisch')", "did you mean 'english'?"),
    (
        "FROM jammi_sync('patents', 'title', 'id', language := NULL)",
        "give the language of the texts, 'none' for any, or words := false",
    ),
    ("FROM jammi_index_words('patent')", "no embedding table for 'patent'; did you mean 'patents'?"),
    ("FROM jammi_index_words('TABLE')", "name its source, 'patents', and this one as embedding_table"),
    ("FROM jammi_index_words('tickets')", "SELECT * FROM jammi_generate('tickets', columns, key) makes one"),
    ("FROM jammi_index_words('patents', language := 'germn')", "no language 'germn'; did you mean 'german'?"),
    ("FROM jammi_index_words('patents', language = 'german')", "language is false: an optional argument is written"),
    ("FROM jammi_index_words('patents', words := true)", "jammi_index_words(source, language := 'english', "),
    ("FROM jammi_indexwords('patents')", 'Did you mean "jammi_index_words"?'),
    ("FROM jammi_import('patents', 'vector', 'id', 'v', model := 'fake/small')", 'Did you mean "vectors"?'),
    ("FROM jammi_import('patents', 'vectors', 'id', 'w', model := 'fake/small')", "'vectors'; columns: id, v"),
    ("FROM jammi_import('patents', 'vectors', 'v', 'id', model := 'fake/small')", "'patents'; columns: id, title"),
    ("FROM jammi_import('vectors', 'patents', 'id', 'v', model := 'fake/small')", "no column 'v' in 'patents'"),
    ("FROM jammi_import('patents', 'vectors', 'id', 'id', model := 'fake/small')", "must be a list or an array of num"),
    ("FROM jammi_import('patents', 'vectors', 'id', 'v')", "jammi_import needs the name of the model"),
    ("FROM jammi_import('patents', 'vectors', 'id', 'v', model = 'fake/small')", "is written name := value"),
    ("FROM jammi_import('patents', 'vectors', 'id', 'v', 'fake/small', columns := 'title')", "cols := NULL"),
    ("FROM jammi_import('patents', 'vectors', 'id', 'v', 'fake/small', 'titel')", "did you mean 'title'?"),
    ("FROM jammi_follow('patent')", "no embedding table for 'patent'; did you mean 'patents'?"),
    ("FROM jammi_follow('patents', trigger := true)", "jammi_follow"),
    ("FROM jammi_follow('patents', model := 'fake/other')", "no embedding table for 'patents'"),
    ("FROM jammi_unfollow(patents)", "jammi_unfollow"),
    ("FROM jammi_unfollow('')", "names no table, view or file"),
    ("FROM jammi_fill('patent', 'title', 'v')", "there is no table 'patent'; did you mean 'patents'?"),
    ("FROM jammi_fill('patents', 'titel', 'v')", "no column 'titel' in 'patents'; did you mean 'title'?"),
    ("FROM jammi_fill('patents', ['title', 'abstract'], 'v')", "no column '[title, abstract]' in 'patents'"),
    (
        "FROM jammi_fill('patents', 'title', 'abstract')",
        "'abstract' of 'patents' is VARCHAR, and the model's vectors are",
    ),
    ("FROM jammi_fill('patents', 'title')", "jammi_fill(source, text, vector, "),
    ("FROM jammi_fill('patents', 'title', 'v', model = 'fake/small')", "is written name := value"),
    ("FROM jammi_search_column('patent', 'v', 'cat')", 'Did you mean "patents"?'),
    ("FROM jammi_search_column('patents', 'titel', 'cat')", "no column 'titel' in 'patents'; did you mean 'title'?"),
    ("FROM jammi_search_column('patents', 'title', 'cat')", "is VARCHAR, which is no vector: name a column of type"),
    ("FROM jammi_search_column('patents', 'cat')", "jammi_search_column(source, vector, query, "),
    (
        "FROM jammi_search_column('patents', 'title', 'cat', 3, model = 'fake/small')",
        'Referenced column "model" was not',
    ),
    ("FROM jammi_search_column('patents', 'title', 'cat', filter := 'titel = 1')", "titel"),
    ("FROM jammi_infer('patent', 'title', 'id')", 'Did you mean "patents"?'),
    ("FROM jammi_infer('patents', 'titel', 'id')", "did you mean 'title'?"),
    ("FROM jammi_infer('patents', 'title')", "jammi_infer(source, cols, key, "),
    ("FROM jammi_infer('patents', 'title', 'id', task := 'embedding')", "did you mean 'text_embedding'?"),
    ("FROM jammi_infer('patents', 'title', 'id', model = 'fake/small')", "is written name := value"),
    ("FROM jammi_search('patent', 'cat')", "did you mean 'patents'?"),
    ("FROM jammi_search('cat', 'patents')", "no embedding table for 'cat'; there are some for: patents"),
    ("FROM jammi_search('TABLE', 'cat')", "name its source, 'patents', and this one as embedding_table"),
    (
        "FROM jammi_search('patents', 'cat', embedding_table := 'titles')",
        "no embedding table 'titles'; ready are: TABLE",
    ),
    ("FROM jammi_search('patents')", "jammi_search(source, query, k := 10, "),
    ("FROM jammi_search('patents', 'cat', '3 rows')", "k is 3 rows; it must be a whole number"),
    (
        "FROM jammi_search('patents', 'cat', \"column\" := 'title')",
        "'patents' has no embedding 'title'; 'TABLE' of title",
    ),
    ("FROM jammi_search('patents', 'cat', \"column\" := 'a', embedding_table := 'TABLE')", "leave out one of them"),
    ("FROM jammi_search('patents', 'cat', column := 'title')", 'syntax error at or near "column"'),
    ("FROM jammi_search('patents', 'cat', 0)", "k is 0; it must be at least 1"),
    ("FROM jammi_search('patents', 'cat', 3, filter = 'id = 1')", "model is false: an optional argument is written"),
    ("FROM jammi_search('patents', [0.1, 0.2])", "the query vector has 2 dimensions; 'TABLE' has 64"),
    ("FROM jammi_search('patents', 'cat', mode := 'hybird')", "no mode 'hybird'; did you mean 'hybrid'?"),
    ("FROM jammi_search('patents', 'cat', mode := 'words')", "there are auto, hybrid, text, vector"),
    ("FROM jammi_search('patents', embed('cat'), mode := 'text')", "is searched with mode := 'vector'"),
    ("FROM jammi_search('patents', 'cat', weight := 30)", "from 0, for words alone, to 1, for vectors alone"),
    ("FROM jammi_search('patents', 'cat', weight := 'half')", "weight is half; it must be a number"),
    ("FROM jammi_search('patents', 'cat', fusion := 'ranks')", "no fusion 'ranks'; there are weighted, rrf"),
    ("FROM jammi_search('patents', 'cat', k1 := -1)", "k1 is -1; it must be from 0 to 1,000, such as 1.2"),
    ("FROM jammi_search('patents', 'cat', b := 75)", "b is 75; it must be from 0 to 1, such as 0.75"),
    (
        "FROM jammi_search('patents', 'cat', per_row := 3)",
        "per_row gives several passages of a row, and 'TABLE' has each text as a whole; SELECT * FROM "
        "jammi_generate('patents', ['title', 'abstract'], 'id', passages := true)",
    ),
    ("FROM jammi_search('patents', 'cat', per_row := 0)", "per_row is 0; it must be at least 1, for the best passage"),
    ("FROM jammi_search('patents', 'cat', per_row := 'all')", "per_row is all; it must be a whole number"),
    (
        "FROM jammi_similar('patents', 1, per_row := 2)",
        "jammi_generate('patents', ['title', 'abstract'], 'id', passages := true)",
    ),
    ("FROM jammi_matches('patents', 'cat', per_row := -1)", "per_row is -1; it must be at least 1"),
    ("FROM jammi_search('patents', 'cat', filter := 'titel = 1')", '"title"'),
    ("FROM jammi_search('patents', 'cat', filter := '')", "write a condition such as 'year > 2020', or NULL for none"),
    ("FROM jammi_search('patents', 'cat', filter := 'id = $id')", "write parameters := {'id': value}"),
    ("FROM jammi_similar('patent', 1)", "did you mean 'patents'?"),
    ("FROM jammi_similar(1, 'patents')", "no embedding table for '1'; there are some for: patents"),
    ("FROM jammi_similar('patents')", "jammi_similar(source, key, k := 10, "),
    ("FROM jammi_similar('TABLE', 1)", "name its source, 'patents', and this one as embedding_table"),
    ("FROM jammi_matches('patent', 'cat')", "did you mean 'patents'?"),
    ("FROM jammi_matches('TABLE', 'cat')", "name its source, 'patents', and this one as embedding_table"),
    ("FROM jammi_matches('patents', 'cat', model := 'fake/smal')", "there are: fake/small"),
    ("FROM jammi_explain('patent', 'cat')", "did you mean 'patents'?"),
    ("FROM jammi_explain('patents')", "jammi_explain(source, query, k := 10, "),
    ("FROM jammi_explain('tickets', 'cat')", "SELECT * FROM jammi_generate('tickets', columns, key) makes one"),
    ("FROM jammi_check('patent')", "did you mean 'patents'?"),
    ("FROM jammi_check('TABLE')", "name its source, 'patents', and this one as embedding_table"),
    ("FROM jammi_check('patents', k := 'all')", "k is all; it must be a whole number"),
    ("FROM jammi_eval('patent', 'asked', 'judged')", "no embedding table for 'patent'; did you mean 'patents'?"),
    ("FROM jammi_eval('patents', 'tickets')", "jammi_eval(source, questions, judgements, k := 10, "),
    ("FROM jammi_eval('patents', 'tickets', 'judged')", "no column 'text' in 'tickets'; columns: id, body. Name the"),
    ("FROM jammi_eval('patents', 'ticket', 'judged')", 'Did you mean "tickets"?'),
    ("FROM jammi_eval_queries('patents', 'vectors', 'judged')", "Name the columns with question_columns := ['...']"),
    ("FROM jammi_eval_queries('patents')", "jammi_eval_queries(source, questions, judgements, k := 10, "),
    ("FROM jammi_eval_compare('patents', 'tickets', 'judged')", "(source, questions, judgements, ways, k := 10, "),
    ("FROM jammi_eval_compare('patents', 'tickets', 'judged', [{'exat': 1}, {'exat': 2}])", "did you mean 'exact'?"),
    ("FROM jammi_tune('patents', 'tickets', 'judged', metric := 'ndgc')", "did you mean 'ndcg'? metrics: recall"),
    ("FROM jammi_tune('patents', 'tickets')", "jammi_tune(source, questions, judgements, k := 10, "),
    ("FROM jammi_tables('patents')", "jammi_tables()"),
    ("FROM jammi_table()", 'Did you mean "jammi_tables"?'),
    ("SELECT jammi_tables()", "has to be called in a FROM clause"),
    ("FROM jammi_models('fake/small')", "jammi_models()"),
    ("FROM jammi_model()", 'Did you mean "jammi_models"?'),
    ("FROM jammi_recover('TABLE')", "jammi_recover()"),
    ("FROM jammi_recovery()", 'Did you mean "jammi_recover"?'),
    ("FROM jammi_drop('patents')", "'patents' is a source, and no embedding table; its embedding tables: TABLE"),
    ("FROM jammi_drop('TABLEx')", "no embedding table 'TABLEx'; did you mean 'TABLE'?"),
    ("FROM jammi_drop()", "jammi_drop(embedding_table)"),
    ("FROM jammi_drop(NULL)", "SELECT * FROM jammi_tables() lists them"),
    ("FROM jammi_vacuum(older_than := '1 day')", "jammi_vacuum()"),
    ("FROM jammi_vacum()", 'Did you mean "jammi_vacuum"?'),
]
# The same for `jammi-duck`, with a database that has a view `animals` (id, name, text) with embeddings.
COMMANDS = [
    ("serach animals duck", "'search'"),
    ("search animal duck", "no embedding table for 'animal'; did you mean 'animals'? there are some for: animals"),
    ("search animals.csv duck", "no embedding table for 'animals.csv'; did you mean 'animals'?"),
    ("search TABLE duck", "name its source, 'animals', and this one as embedding_table (--table on the command line)"),
    ("search animals", "the following arguments are required: QUERY"),
    ("search animals duck -k ten", "argument -k: invalid number value: 'ten'"),
    ("search animals duck --columns nam", "no column 'nam' in 'animals'; did you mean 'name'?"),
    ("search animals duck --parameter c", "'c' is not NAME=VALUE"),
    ("search animals duck --table texts", "no embedding table 'texts'; ready are: TABLE"),
    ("generate animal --columns text --key id", "did you mean 'animals'? `jammi-duck sources list` shows what there"),
    ("generate animals --columns txt --key id", "no column 'txt' in 'animals'; did you mean 'text'?"),
    ("generate animals --columns text", "the following arguments are required: --key"),
    ("generate animals --columns text --key id --by line", "argument --by: invalid choice: 'line'"),
    ("generate animals --columns text --key id --tokens 9999", "tokens is 9999, and "),
    (
        "generate animals --columns text --key id --title text",
        "title is text, and there is no other column whose text is",
    ),
    ("sync animals --columns text --key id --passages 200", "unrecognized arguments: 200"),
    ("passages animals", "generate with passages := true (passages=True in Python, --passages on the command line)"),
    ("passages animal", "no embedding table for 'animal'; did you mean 'animals'?"),
    ("generate animals --columns text --key name,id", "and one column as the key"),
    ("generate animals --columns text --key id --model https://h/acme/m", "a name on the Hugging Face hub, such as"),
    ("eval animal animals animals --judgement-columns id,id,id", "did you mean 'animals'?"),
    ("eval animals animals", "the following arguments are required: JUDGEMENTS"),
    ("eval animals animals animals", "Name the columns with judgement_columns := ['...'], in this order: the question"),
    ("refresh animal", "did you mean 'animals'?"),
    ("index-words animal", "did you mean 'animals'?"),
    ("index-words animals --language germn", "did you mean 'german'?"),
    ("index-word animals", "'index-words'"),
    ("search animals duck --mode hybird", "argument --mode: invalid choice: 'hybird'"),
    ("refresh TABLE", "name its source, 'animals', and this one as embedding_table (--table on the command line)"),
    ("status animals --model tiny", "there are: "),
    ("drop animals", "'animals' is a source, and no embedding table; its embedding tables: TABLE"),
    ("drop TABLEx", "did you mean 'TABLE'?"),
    ("tables --wait 30", "'30' is not a duration; write it as 30s or '5 minutes'"),
    ("tables --db jami_duck.duckdb", "`jammi-duck sources add NAME --path FILE --db jami_duck.duckdb` makes one"),
    ("models list animals", "unrecognized arguments: animals"),
    ("models describe all-MiniLM-L6-v2", "'desc'"),
    ("sources add owls animals.csv", "the following arguments are required: --path"),
    ("sources add animals --path animals.csv", "--replace takes a view's place"),
    ("import animals vectors.parquet id v", "the following arguments are required: --model"),
]


@pytest.fixture(scope="module")
def patents(lasting):
    """A connection with `patents`, whose embedding table is given, and tables without embeddings."""
    con = lasting().con
    con.execute(
        "CREATE TABLE patents AS FROM (VALUES (1, 'cat', 'a small cat sleeps'), (2, 'dog', 'a loud dog barks')) "
        "t(id, title, abstract)"
    )
    con.execute("CREATE TABLE tickets AS SELECT id, title AS body FROM patents")
    con.execute("CREATE TABLE vectors AS SELECT id, [1.0, 2.0] AS v FROM patents")
    con.execute("CREATE TABLE asked AS SELECT id, title AS text FROM patents")
    con.execute("CREATE TABLE judged AS SELECT id AS question, id AS key, 1 AS grade FROM patents")
    query = "SELECT embedding_table FROM jammi_generate('patents', ['title', 'abstract'], 'id')"
    return con, con.execute(query).fetchone()[0]


@pytest.mark.parametrize(("typed", "words"), MISTAKES)
def test_the_answer_names_the_right_line(patents, typed, words):
    if "$id" in typed and duckdb.__version__ < "1.5":
        pytest.skip("this DuckDB refuses the parameter itself")
    con, table = patents
    message = error_of(con, typed.replace("TABLE", table))
    assert words.replace("TABLE", table) in message, message
    assert con.execute("SELECT embedding_table FROM jammi_tables()").fetchall() == [(table,)]


def test_every_verb_has_mistakes():
    for statement in macros("0" * 16):
        verb = re.search(r" MACRO (\w+)\(", statement)[1]
        assert sum(bool(re.search(rf"\b{verb}\b", f"{typed} {words}")) for typed, words in MISTAKES) >= 2, verb


@pytest.fixture(scope="module")
def animals_folder(tmp_path_factory, tiny_model):
    """A folder with a database that has a view with embeddings, and the name of its embedding table."""
    folder = tmp_path_factory.mktemp("animals")
    (folder / "animals.csv").write_text("id,name,text\n1,cat,a small cat\n2,dog,a loud dog\n")
    model = {"JAMMI_INFERENCE__MODEL": str(tiny_model)}
    for command in ("sources add animals --path animals.csv", "generate animals --columns text --key id"):
        done = in_pipe(f"jammi-duck {command}", folder, **model)
        assert done.returncode == 0, done.stderr
    return folder, re.search(r"^embedding_table +(\S+)$", done.stdout, re.MULTILINE)[1]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("typed", "words"), COMMANDS)
def test_a_command_names_the_right_line(animals_folder, monkeypatch, tiny_model, capsys, typed, words):
    folder, table = animals_folder
    monkeypatch.chdir(folder)
    monkeypatch.setenv("JAMMI_INFERENCE__MODEL", str(tiny_model))
    code, out, err = call(capsys, typed.replace("TABLE", table))
    assert (code, out) == (2, "")
    assert words.replace("TABLE", table) in re.sub(r"\s+", " ", err), err
