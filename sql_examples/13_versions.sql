-- Versions: every jammi_generate creates a new embedding table, and the old ones stay. A search uses the newest, unless
-- you name an older one, for example to compare two ways of composing the text.

CREATE TABLE courses (id INTEGER, title VARCHAR, summary VARCHAR);
INSERT INTO courses VALUES
    (1, 'Numbers that lie', 'How charts and averages mislead, and how to read them.'),
    (2, 'From seed to table', 'Grow vegetables on a balcony.'),
    (3, 'Hello, world', 'Write your first program in an afternoon.'),
    (4, 'Standing up', 'Speak in front of a hundred people without fear.'),
    (5, 'Slow looking', 'One painting, two hours.'),
    (6, 'Wood, glue, patience', 'Build a chair that lasts.'),
    (7, 'The honest portrait', 'Take photographs of people as they are.'),
    (8, 'Small money', 'Make a household budget and keep to it.');

-- jammi_generate returns the name of the embedding table. We keep both names in variables.
SET VARIABLE by_title = (SELECT embedding_table FROM jammi_generate('courses', 'title', 'id'));
SET VARIABLE by_both = (SELECT embedding_table FROM jammi_generate('courses', ['title', 'summary'], 'id'));

SELECT source, columns, status, row_count
FROM jammi_tables()
ORDER BY len(columns);

-- A search uses the newest table, unless you name another: by a text or a variable, not by a sub-query.
SELECT title FROM jammi_search('courses', 'learn to code', 1);
SELECT title FROM jammi_search('courses', 'public speaking', 1);
SELECT title
FROM jammi_search('courses', 'public speaking', 1, embedding_table := getvariable('by_title'));

-- A comparison: how similar is the right course to the question in each version?
SELECT n.title, round(o._similarity, 2) AS by_title, round(n._similarity, 2) AS by_both
FROM jammi_search('courses', 'talk to a large audience', 8) n
JOIN jammi_search('courses', 'talk to a large audience', 8, embedding_table := getvariable('by_title')) o ON o.id = n.id
WHERE n.id = 4;

-- The vectors are as old as their build, while the other columns are read from the table as it is now. What has changed
-- since? The MD5 of each text is stored with its vector, so SQL can tell. (jammi_status counts the same rows.)
UPDATE courses SET summary = 'Carve a spoon from green birch.' WHERE id = 6;
INSERT INTO courses VALUES (9, 'Night walks', 'Find your way by the stars.');

CREATE TEMP VIEW vectors AS FROM query_table('jammi."' || getvariable('by_both') || '"');
SELECT c.id, c.title, CASE WHEN v._row_id IS NULL THEN 'new' ELSE 'changed' END AS what
FROM courses c LEFT JOIN vectors v ON v._row_id = c.id::VARCHAR
WHERE lower(hex(v._text_digest)) IS DISTINCT FROM md5(concat_ws(' ', c.title, c.summary))
ORDER BY c.id;

-- A new build. From now on, it is the newest.
SELECT row_count FROM jammi_generate('courses', ['title', 'summary'], 'id');
SELECT title FROM jammi_search('courses', 'whittling a spoon', 1);
SELECT title FROM jammi_search('courses', 'astronomy', 1);
