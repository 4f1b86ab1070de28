-- Versions: one source can have several embedding tables, for example to compare two ways of composing the text. Give
-- each a name, and a search chooses one by it.

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

SELECT row_count FROM jammi_generate('courses', 'title', 'id', name := 'by_title');
SELECT row_count FROM jammi_generate('courses', ['title', 'summary'], 'id', name := 'by_both');

-- The full name begins with the name that was given.
SELECT regexp_replace(embedding_table, '__.*', '') AS name, source, columns, status, row_count
FROM jammi_tables()
ORDER BY len(columns);

-- A search that names none would use the newest, and warn once that there is another of other columns.
SELECT title FROM jammi_search('courses', 'learn to code', 1, embedding_table := 'by_both');
SELECT title FROM jammi_search('courses', 'public speaking', 1, embedding_table := 'by_both');
SELECT title FROM jammi_search('courses', 'public speaking', 1, embedding_table := 'by_title');

-- A comparison: how similar is the right course to the question in each version?
SELECT n.title, round(o._similarity, 2) AS by_title, round(n._similarity, 2) AS by_both
FROM jammi_search('courses', 'talk to a large audience', 8, embedding_table := 'by_both') n
JOIN jammi_search('courses', 'talk to a large audience', 8, embedding_table := 'by_title') o ON o.id = n.id
WHERE n.id = 4;

-- The vectors are as old as their build, while the other columns are read from the table as it is now. What has changed
-- since? The MD5 of each text is stored with its vector, so SQL can tell. (jammi_status counts the same rows.)
UPDATE courses SET summary = 'Carve a spoon from green birch.' WHERE id = 6;
INSERT INTO courses VALUES (9, 'Night walks', 'Find your way by the stars.');

SET VARIABLE by_both = (SELECT embedding_table FROM jammi_tables() WHERE embedding_table LIKE 'by\_both%' ESCAPE '\');
CREATE TEMP VIEW vectors AS FROM query_table('jammi."' || getvariable('by_both') || '"');
SELECT c.id, c.title, CASE WHEN v._row_id IS NULL THEN 'new' ELSE 'changed' END AS what
FROM courses c LEFT JOIN vectors v ON v._row_id = c.id::VARCHAR
WHERE lower(hex(v._text_digest)) IS DISTINCT FROM md5(concat_ws(' ', c.title, c.summary))
ORDER BY c.id;

-- A new build of the same name. From now on, the name means this one.
SELECT row_count FROM jammi_generate('courses', ['title', 'summary'], 'id', name := 'by_both');
SELECT title FROM jammi_search('courses', 'whittling a spoon', 1, embedding_table := 'by_both');
SELECT title FROM jammi_search('courses', 'astronomy', 1, embedding_table := 'by_both');
