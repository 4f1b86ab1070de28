-- Refresh: tables change, and their embeddings follow. Only texts that are new go to the model, so that a refresh each
-- night costs little where little has changed.

CREATE TABLE recipes (id INTEGER, name VARCHAR, dish VARCHAR);
INSERT INTO recipes VALUES
    (1, 'Monday soup', 'Lentils, carrots and cumin, simmered for an hour.'),
    (2, 'Fish on a stick', 'Mackerel grilled over charcoal with lemon.'),
    (3, 'Sunday bread', 'A slow sourdough with rye and caraway.'),
    (4, 'Green bowl', 'Spinach, peas and mint with yoghurt.'),
    (5, 'Sticky rice', 'Sweet rice steamed in banana leaves.'),
    (6, 'Midnight toast', 'Cheese melted on old bread, with mustard.');

SELECT status, row_count FROM jammi_generate('recipes', 'dish', 'id');

-- All is up to date. `advice` is what to do: NULL is nothing.
SELECT "current", "new", changed, gone, coverage, advice FROM jammi_status('recipes');

-- A row goes, one gets another text, and three come, two of which have the same text.
DELETE FROM recipes WHERE id = 5;
UPDATE recipes SET dish = 'Rhubarb baked under a crust of almonds.' WHERE id = 4;
INSERT INTO recipes VALUES
    (7, 'Birthday cake', 'Three layers of chocolate and sour cherries.'),
    (8, 'The same cake', 'Three layers of chocolate and sour cherries.'),
    (9, 'Winter pot', 'Beef and beetroot, stewed with bay leaves.');

SELECT "current", "new", changed, gone, round(coverage, 2) AS coverage, advice FROM jammi_status('recipes');

-- A refresh keeps the embedding table. Of the four rows that need a vector, two share a text: the model encodes three.
SELECT added, changed, deleted, unchanged, encoded FROM jammi_refresh('recipes');
SELECT name FROM jammi_search('recipes', 'a sweet dessert with fruit', 3) ORDER BY name;

-- If nothing has changed, nothing is embedded and nothing is written.
SELECT added, changed, deleted, unchanged, encoded FROM jammi_refresh('recipes');

-- A row that moves to another key keeps its text, and so its vector: nothing is encoded.
UPDATE recipes SET id = 100 WHERE id = 9;
SELECT added, changed, deleted, unchanged, encoded FROM jammi_refresh('recipes');

-- Each refresh with new rows adds a segment, and rows that are gone stay in the old ones. A compaction merges them.
SELECT segments_before, segments, rows_removed, bytes < bytes_before AS smaller FROM jammi_compact('recipes');
SELECT name FROM jammi_search('recipes', 'a stew of meat', 1);

-- For a script that generates each time it runs: where nothing has changed, the table that is there is given again.
SELECT row_count FROM jammi_generate('recipes', 'dish', 'id', reuse := true);
SELECT count(*) AS embedding_tables FROM jammi_tables();

-- Vectors from elsewhere: here from `embed`, as they might come from a file. They follow their source from now on, too.
CREATE TABLE vectors AS SELECT id, embed(dish) AS embedding FROM recipes WHERE id < 8;
SELECT status, row_count
FROM jammi_import('recipes', 'vectors', 'id', 'embedding', model := 'all-MiniLM-L6-v2', cols := 'dish');
SELECT added, unchanged, encoded FROM jammi_refresh('recipes');
