-- Refresh: when a table has changed, a refresh updates its embedding table. It embeds only new texts, so a refresh each
-- night costs little if little has changed.

CREATE TABLE recipes (id INTEGER, name VARCHAR, dish VARCHAR);
INSERT INTO recipes VALUES
    (1, 'Monday soup', 'Lentils, carrots and cumin, simmered for an hour.'),
    (2, 'Fish on a stick', 'Mackerel grilled over charcoal with lemon.'),
    (3, 'Sunday bread', 'A slow sourdough with rye and caraway.'),
    (4, 'Green bowl', 'Spinach, peas and mint with yoghurt.'),
    (5, 'Sticky rice', 'Sweet rice steamed in banana leaves.'),
    (6, 'Midnight toast', 'Cheese melted on old bread, with mustard.');

SELECT status, row_count FROM jammi_generate('recipes', 'dish', 'id');

-- Everything is up to date. `advice` says what to do: NULL means nothing.
SELECT "current", "new", changed, gone, coverage, advice FROM jammi_status('recipes');

-- One row is deleted, one gets another text, and three are added, two of them with the same text.
DELETE FROM recipes WHERE id = 5;
UPDATE recipes SET dish = 'Rhubarb baked under a crust of almonds.' WHERE id = 4;
INSERT INTO recipes VALUES
    (7, 'Birthday cake', 'Three layers of chocolate and sour cherries.'),
    (8, 'The same cake', 'Three layers of chocolate and sour cherries.'),
    (9, 'Winter pot', 'Beef and beetroot, stewed with bay leaves.');

SELECT "current", "new", changed, gone, round(coverage, 2) AS coverage, advice FROM jammi_status('recipes');

-- A refresh updates the same embedding table. Four rows need a vector, but two share a text: the model encodes three.
SELECT added, changed, deleted, unchanged, encoded FROM jammi_refresh('recipes');
SELECT name FROM jammi_search('recipes', 'a sweet dessert with fruit', 3) ORDER BY name;

-- If nothing has changed, nothing is embedded or written.
SELECT added, changed, deleted, unchanged, encoded FROM jammi_refresh('recipes');

-- A row with a new key and the same text keeps its vector: nothing is encoded.
UPDATE recipes SET id = 100 WHERE id = 9;
SELECT added, changed, deleted, unchanged, encoded FROM jammi_refresh('recipes');

-- Each refresh with new rows adds a segment, and deleted rows stay in the old segments. A compaction merges segments.
SELECT segments_before, segments, rows_removed, bytes < bytes_before AS smaller FROM jammi_compact('recipes');
SELECT name FROM jammi_search('recipes', 'a stew of meat', 1);

-- For a script that runs again and again: jammi_sync generates the first time, and refreshes afterwards.
SELECT action, row_count, unchanged FROM jammi_sync('recipes', 'dish', 'id');
SELECT count(*) AS embedding_tables FROM jammi_tables();

-- Import existing vectors, here from `embed`, usually from a file. Refreshes keep this embedding table up to date, too.
CREATE TABLE vectors AS SELECT id, embed(dish) AS embedding FROM recipes WHERE id < 8;
SELECT status, row_count
FROM jammi_import('recipes', 'vectors', 'id', 'embedding', model := 'all-MiniLM-L6-v2', cols := 'dish');
SELECT added, unchanged, encoded FROM jammi_refresh('recipes');
