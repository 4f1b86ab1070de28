-- Sources: you can embed anything that DuckDB can name. A view can combine several tables or leave out rows. A TEMP
-- table or a CTE works for a single use. Even without the source, a search returns keys.

CREATE TABLE authors (id INTEGER, name VARCHAR, field VARCHAR);
INSERT INTO authors VALUES (1, 'Ada Moss', 'gardening'), (2, 'Ben Okoro', 'astronomy'), (3, 'Cleo Ruiz', 'cooking');

CREATE TABLE articles (id INTEGER, author_id INTEGER, published BOOLEAN, title VARCHAR);
INSERT INTO articles VALUES
    (1, 1, true, 'Why tomatoes split'),
    (2, 1, true, 'A hedge in three years'),
    (3, 1, false, 'Snails, and how to live with them'),
    (4, 2, true, 'The rings are younger than we thought'),
    (5, 2, true, 'Choosing your first telescope'),
    (6, 2, false, 'What a comet leaves behind'),
    (7, 3, true, 'Stock: bones, water, patience'),
    (8, 3, true, 'Knives you can keep for life'),
    (9, 3, true, 'Eggs at sixty-three degrees'),
    (10, 3, false, 'Against recipes');

-- A view: the title alone does not say that the rings are Saturn's, but the author's field helps. The view contains
-- only published articles, so searches need no filter.
CREATE VIEW published AS
SELECT articles.id, title, field, name AS author
FROM articles JOIN authors ON authors.id = author_id
WHERE published;

SELECT source, row_count FROM jammi_generate('published', ['field', 'title'], 'id');

SELECT title, author
FROM jammi_search('published', 'planets and stars', 2)
ORDER BY title;

-- A TEMP table, here with one row for each sentence, so that a search returns a sentence and not a whole page.
CREATE TEMP TABLE sentences AS
SELECT row_number() OVER () AS id, trim(sentence) AS sentence
FROM (SELECT unnest(string_split('Dig a trench as deep as the roots are long. Soak the young plants for an hour. '
    'Set them a foot apart and press the soil down. Cut them back hard in the first winter', '. ')) AS sentence);

SELECT source, row_count FROM jammi_generate('sentences', 'sentence', 'id');
SELECT sentence FROM jammi_search('sentences', 'how far from each other?', 1);

-- A CTE exists only in its own query. Both functions can use it there.
WITH drafts AS (SELECT id, title FROM articles WHERE NOT published)
SELECT source, row_count FROM jammi_generate('drafts', 'title', 'id');

WITH drafts AS (SELECT id, title FROM articles WHERE NOT published)
SELECT title FROM jammi_search('drafts', 'slimy garden pests', 1);

-- Without the source there are no columns to show, but jammi_matches still returns the keys.
SELECT _row_id, _source_id, _rank
FROM jammi_matches('drafts', 'slimy garden pests', 1);
