-- Explain and check: how a search was done, and how good the index is. Both need no knowledge of indexes to be read.

CREATE TABLE stars AS
SELECT range AS id, CASE WHEN range % 50 = 0 THEN 'red' ELSE 'white' END AS colour, 'star number ' || range AS name
FROM range(400);

SELECT status, row_count FROM jammi_generate('stars', 'name', 'id');

-- A row for each stage of a search. `milliseconds` says how long it took, which is not shown here, as it is another
-- each time.
SELECT stage, row_count
FROM jammi_explain('stars', 'the star with the number seven', 3, filter := 'colour = ''red''');

-- Of 8 rows that pass every vector is compared, which is quicker than to ask the index.
SELECT _rank, name
FROM jammi_search('stars', 'the star with the number one hundred', 2, filter := 'colour = ''red''')
ORDER BY _rank;

-- What share of the true neighbours does a search find? For as few rows as these, all: they are compared one by one.
SELECT row_count, k, queries, recall, advice FROM jammi_check('stars', k := 5);
