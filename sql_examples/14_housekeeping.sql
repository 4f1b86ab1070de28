-- Housekeeping: list embedding tables, drop old builds, and repair damaged files. Nothing is overwritten or removed
-- automatically, so a table that is generated every night needs this from time to time.

CREATE TABLE notes (id INTEGER, note VARCHAR);
INSERT INTO notes VALUES
    (1, 'Water the plants on Thursday'), (2, 'The spare key is under the third flowerpot'),
    (3, 'Ask Maria about the tent'), (4, 'Bicycle: new brake pads, front and back'),
    (5, 'Idea for a birthday cake: beetroot and chocolate'), (6, 'Doctor, Monday at ten'),
    (7, 'Return the drill to Henrik'), (8, 'Tax papers are in the blue folder'),
    (9, 'Swimming lessons start in May'), (10, 'Mow the lawn before it rains'),
    (11, 'Wi-Fi password on the back of the router'), (12, 'Film night: something funny');

SELECT status FROM jammi_generate('notes', 'note', 'id');
INSERT INTO notes VALUES (13, 'Library books are due on the tenth');
SELECT status FROM jammi_generate('notes', 'note', 'id');
INSERT INTO notes VALUES (14, 'Buy candles');
SELECT status FROM jammi_generate('notes', 'note', 'id');

-- Which embedding tables exist, and how large are they?
SELECT source, status, count(*) AS builds, sum(row_count) AS vectors, max(age) < INTERVAL 1 HOUR AS fresh
FROM jammi_tables()
GROUP BY source, status;

SELECT regexp_replace(embedding_table, '__\d+T\d+.*', '__(time)') AS embedding_table, count(*) AS builds
FROM jammi_tables()
GROUP BY ALL;

-- Drop all builds of a source except the newest.
SELECT d.status, d.action
FROM (
    SELECT embedding_table FROM jammi_tables()
    WHERE status = 'ready'
    QUALIFY row_number() OVER (PARTITION BY source ORDER BY started DESC) > 1
) old, jammi_drop(old.embedding_table) d;

SELECT count(*) AS builds FROM jammi_tables();
SELECT note FROM jammi_search('notes', 'Where are the documents for the tax office?', 1);

-- jammi_recover rebuilds lost or damaged indexes, and finds embedding tables that other databases have written to the
-- location. It returns what it did: no rows if nothing was wrong.
SELECT count(*) AS repairs FROM jammi_recover();

-- jammi_vacuum removes files that no longer belong to a table, such as those of a build that was killed, when they are
-- a week old.
SELECT count(*) AS files FROM jammi_vacuum();
