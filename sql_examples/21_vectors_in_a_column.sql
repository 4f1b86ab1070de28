-- Vectors in a column of your own table: jammi_fill embeds the rows that have none, and jammi_search_column compares them
-- all. There is no embedding table and no index. For many rows, or many searches, jammi_generate makes these.

CREATE TABLE recipes (id INTEGER PRIMARY KEY, name VARCHAR, text VARCHAR, minutes INTEGER);
INSERT INTO recipes VALUES
    (1, 'Minestrone', 'A thick soup of vegetables and beans.', 60),
    (2, 'Tiramisu', 'Layers of cream and of biscuits in coffee.', 40),
    (3, 'Gazpacho', 'Tomatoes and cucumbers, blended and served ice-cold.', 15),
    (4, 'Pancakes', 'Thin cakes of batter, fried in butter.', 20),
    (5, 'To be written', NULL, 5);

-- The column is added, and each row with a text gets its vector.
SELECT row_count, skipped_count, left_count, dimensions FROM jammi_fill('recipes', 'text', 'vector');

-- The best rows for a question, with the columns of jammi_search.
SELECT name, _row_id, _rank, round(_similarity, 2) AS similarity
FROM jammi_search_column('recipes', 'vector', 'chilled and refreshing', 2);

-- A filter comes before the ranking; its values may be parameters.
SELECT name, minutes
FROM jammi_search_column('recipes', 'vector', 'something sweet', 1, filter := 'minutes < $most', parameters := {'most': 30});

-- To have a row embedded again, set its vector NULL together with its text. The next fill embeds it, and new rows.
UPDATE recipes SET text = 'Pears in red wine with cinnamon.', vector = NULL WHERE id = 5;
SELECT row_count, left_count FROM jammi_fill('recipes', 'text', 'vector');

-- Within a transaction, two statements do the same. The column's length is that of the model's vectors.
BEGIN;
CREATE TABLE drinks AS FROM (VALUES (1, 'hot chocolate'), (2, 'lemonade with ice')) t(id, text);
ALTER TABLE drinks ADD COLUMN vector FLOAT[384];
UPDATE drinks SET vector = embed(text) WHERE vector IS NULL;
COMMIT;

-- One search for each row of another table.
SELECT q.question, s.text
FROM (VALUES ('cocoa'), ('citrus fruit')) q(question),
     jammi_search_column('drinks', 'vector', q.question, 1) s
ORDER BY q.question;
