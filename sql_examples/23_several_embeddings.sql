-- Several embeddings of one source: the source is read once, and each gets an embedding table of its own. A title that
-- says it all is not drowned by a long text, and a search says which of them it means.

CREATE TABLE talks (id INTEGER, title VARCHAR, speaker VARCHAR, summary VARCHAR);
INSERT INTO talks VALUES
    (1, 'Bread', 'Ada Miller', 'How yeast makes dough rise, why it rests overnight, and what steam does to a crust.'),
    (2, 'The sea at night', 'Tom Okafor', 'Plankton that glows, squid that hunt, and how divers bake in the sun before a dive.'),
    (3, 'Keeping bees', 'Ines Duarte', 'A year with a hive: swarms in May, honey in July, sugar water before winter.'),
    (4, 'Cables under oceans', 'Ada Miller', 'Ships that repair fibres in deep water, and sharks that bite them.');

-- A label for each, and its columns.
SELECT split_part(embedding_table, '__', 1) AS embedding, row_count, dimensions
FROM jammi_generate('talks', {'title': 'title', 'text': ['speaker', 'summary']}, 'id');

SELECT title, round(_similarity, 2) AS similarity FROM jammi_search('talks', 'baking', 2, "column" := 'title', mode := 'vector');
SELECT title, round(_similarity, 2) AS similarity FROM jammi_search('talks', 'baking', 2, "column" := 'text', mode := 'vector');

-- Words are apart, too: a name that only the text has.
SELECT title FROM jammi_search('talks', 'Duarte', "column" := 'text', mode := 'text');
SELECT count(*) AS found FROM jammi_search('talks', 'Duarte', "column" := 'title', mode := 'text');

-- Rows that are near by both: each search ranks by itself, and the ranks are added up.
SELECT t.title, a._rank AS by_title, b._rank AS by_text
FROM jammi_matches('talks', 'life in the ocean', 4, "column" := 'title', mode := 'vector') a
JOIN jammi_matches('talks', 'life in the ocean', 4, "column" := 'text', mode := 'vector') b USING (_row_id)
JOIN talks t ON t.id::VARCHAR = _row_id
ORDER BY a._rank + b._rank, t.id
LIMIT 2;

-- The same labels keep all of them up to date.
UPDATE talks SET title = 'Sourdough' WHERE id = 1;
INSERT INTO talks VALUES (5, 'Whales that sing', 'Tom Okafor', 'Songs that travel a thousand miles, and who listens.');
SELECT split_part(embedding_table, '__', 1) AS embedding, action, added, changed, unchanged
FROM jammi_sync('talks', {'title': 'title', 'text': ['speaker', 'summary']}, 'id');
