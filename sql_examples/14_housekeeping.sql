-- Housekeeping: see what there is, drop old builds, and check that all files are whole. Nothing is ever overwritten or
-- removed on its own, so a table that is embedded every night needs this now and then.

CREATE TABLE notes (id INTEGER, note VARCHAR);
INSERT INTO notes VALUES
    (1, 'Water the plants on Thursday'), (2, 'The spare key is under the third flowerpot'),
    (3, 'Ask Maria about the tent'), (4, 'Bicycle: new brake pads, front and back'),
    (5, 'Idea for a birthday cake: beetroot and chocolate'), (6, 'Doctor, Monday at ten'),
    (7, 'Return the drill to Henrik'), (8, 'Tax papers are in the blue folder'),
    (9, 'Swimming lessons start in May'), (10, 'Mow the lawn before it rains'),
    (11, 'Wi-Fi password on the back of the router'), (12, 'Film night: something funny');

SELECT status FROM jammi_generate('notes', 'note', 'id');
SELECT status FROM jammi_generate('notes', 'note', 'id');
SELECT status FROM jammi_generate('notes', 'note', 'id');

-- What is there, and how large is it?
SELECT source, status, count(*) AS builds, sum(row_count) AS vectors, max(age) < INTERVAL 1 HOUR AS fresh
FROM jammi_tables()
GROUP BY source, status;

SELECT regexp_replace(embedding_table, '__\d+T\d+.*', '__(time)') AS embedding_table, count(*) AS builds
FROM jammi_tables()
GROUP BY ALL;

-- Drop all builds of a source but the newest.
SELECT d.status, d.action
FROM (
    SELECT embedding_table FROM jammi_tables()
    WHERE status = 'ready'
    QUALIFY row_number() OVER (PARTITION BY source ORDER BY started DESC) > 1
) old, jammi_drop(old.embedding_table) d;

SELECT count(*) AS builds FROM jammi_tables();
SELECT note FROM jammi_search('notes', 'Where are the documents for the tax office?', 1);

-- jammi_recover rebuilds indexes that are lost or damaged, and finds tables that others have put into the location.
-- It returns what it did: no row, if all was well.
SELECT count(*) AS repairs FROM jammi_recover();

-- jammi_vacuum removes files that belong to no table any more, such as those of a build that was killed, once they
-- are a week old.
SELECT count(*) AS files FROM jammi_vacuum();
