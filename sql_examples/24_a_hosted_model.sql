-- A model behind an API: here OpenAI's, with the key in OPENAI_API_KEY.
CREATE TABLE notes (id INTEGER, body VARCHAR);
INSERT INTO notes VALUES
    (1, 'The invoice is due on Friday.'),
    (2, 'Water the plants twice a week.'),
    (3, 'The invoice is due on Friday.'),
    (4, NULL);

-- Equal texts are sent once. The last columns say what was asked for.
SELECT row_count, skipped_count, dimensions, requests
FROM jammi_generate('notes', 'body', 'id', model := 'openai:text-embedding-3-small');

-- A search embeds the question with the same model.
SELECT id, round(_similarity, 2) AS similarity
FROM jammi_search('notes', 'Water the plants twice a week.', 1);

-- Arguments follow the name; this model can give shorter vectors.
SELECT len(embed('hello', 'openai:text-embedding-3-small?dimensions=256')) AS dimensions;

-- What was answered is never paid for again: these texts are known, whatever table they are in.
CREATE TABLE copies AS SELECT id + 10 AS id, body FROM notes;
SELECT row_count, requests FROM jammi_generate('copies', 'body', 'id', model := 'openai:text-embedding-3-small');

-- Each provider, and what it needs that is not there.
SELECT name, needs FROM jammi_models() WHERE name LIKE 'voyageai:%' OR name LIKE 'openai:%';
