-- Words only: an embedding table without vectors. It needs no model and is made in a moment; a search in it finds the
-- rows that have the words of the query, ranked by BM25. It suits names, codes, and machines that run no model.

CREATE TABLE parts (id INTEGER, name VARCHAR, description VARCHAR);
INSERT INTO parts VALUES
    (1, 'Pump P-204', 'A gear pump for cooking oil. Replaces P-203.'),
    (2, 'Valve V-11', 'A steel valve that closes when the power fails.'),
    (3, 'Filter F-7', 'Filters water for the pumps of the P-200 series.'),
    (4, 'Seal kit S-204', 'Seals for the pump P-204, of rubber.');

SELECT status, row_count, model FROM jammi_generate('parts', ['name', 'description'], 'id', vectors := false);

-- Endings do not matter, and a code is found whole or by its parts. There is a BM25, and no similarity.
SELECT name, round(_score, 2) AS score, round(_bm25, 2) AS bm25, _similarity FROM jammi_search('parts', 'P-203', 2);

-- A phrase, and a word that must not be there.
SELECT name FROM jammi_search('parts', '"gear pump" -rubber');

-- Many searches at once, with a filter.
SELECT q.text, s.name
FROM (VALUES ('filtered water'), ('power failure')) q(text), jammi_search('parts', q.text, 1, filter := 'id < 4') s
ORDER BY q.text;

-- A refresh reads new and changed texts, and encodes nothing.
INSERT INTO parts VALUES (5, 'Hose H-9', 'A hose for hot water.');
SELECT added, changed, deleted, encoded FROM jammi_refresh('parts');
SELECT name FROM jammi_search('parts', 'hoses');

-- If vectors are wanted later, make another embedding table. The newest is searched, and this one has both.
SELECT dimensions FROM jammi_generate('parts', ['name', 'description'], 'id');
SELECT name, _similarity > 0 AS has_similarity, _bm25 > 0 AS has_word
FROM jammi_search('parts', 'what stops the flow in a blackout?', 1);
