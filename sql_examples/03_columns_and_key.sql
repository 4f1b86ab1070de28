-- Columns and key: several columns can be embedded as one text, a key identifies each row, and the result of
-- jammi_generate counts what happened to the rows.

CREATE TABLE books (isbn VARCHAR, title VARCHAR, blurb VARCHAR, price DECIMAL(6, 2));
INSERT INTO books VALUES
    ('978-01', 'The Salt Road', 'A merchant crosses the Sahara with two camels and a debt.', 12.50),
    ('978-02', 'Night Shift', 'A nurse in a city hospital tells of twenty years of working after dark.', 18.00),
    ('978-03', 'Bread Without Fuss', 'Forty loaves for people with little time and a small oven.', 22.00),
    ('978-04', 'Orbit', 'Six astronauts repair a space station that somebody has damaged on purpose.', 9.90),
    ('978-05', 'How Rivers Think', 'What water does to stone, and stone to water: geology for walkers.', 24.00),
    ('978-06', 'A History of Chess', NULL, 30.00),
    ('978-07', 'The Beekeeper''s Daughter', 'After the funeral she inherits eleven hives and a secret.', 11.00),
    ('978-08', NULL, NULL, 5.00),
    ('978-09', 'The Complete Annals', repeat('The king rode out, and the chronicler wrote it down. ', 60), 80.00);

-- The columns are joined by a space, so a row is found by either. NULLs are left out: of 978-06, only the title is
-- embedded. 978-08 has no text at all and is skipped. A model reads a few hundred words at most: of 978-09, only the
-- beginning is embedded, and it is counted as truncated. Where that is more than a few rows, a warning names what helps:
-- see 25_long_texts.sql.
SELECT source, model, status, row_count, skipped_count, failed_count, truncated_count, dimensions
FROM jammi_generate('books', ['title', 'blurb'], 'isbn');

-- The key can have nearly any type. It must be unique and not NULL. _row_id is the key as text.
SELECT _row_id, isbn, title, price
FROM jammi_search('books', 'board games', 1);

SELECT title, blurb
FROM jammi_search('books', 'crime in space', 1);

-- jammi_tables shows the same facts later, for every embedding table.
SELECT source, columns, key, status, row_count
FROM jammi_tables();
