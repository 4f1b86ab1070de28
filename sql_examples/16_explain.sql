-- Explain and check: how a search was executed, and how good the index is.

CREATE TABLE stars AS
SELECT range AS id, CASE WHEN range % 50 = 0 THEN 'red' ELSE 'white' END AS colour, 'star number ' || range AS name
FROM range(400);

SELECT status, row_count FROM jammi_generate('stars', 'name', 'id');

-- One row for each stage of a search. The column `milliseconds` has the time of each; it is left out here because it
-- varies.
SELECT stage, row_count
FROM jammi_explain('stars', 'the star with the number seven', 3, filter := 'colour = ''red''');

-- Only 8 rows pass the filter, so the search compares their vectors one by one, which is faster than using the index.
SELECT _rank, name
FROM jammi_search('stars', 'the star with the number one hundred', 2, filter := 'colour = ''red''')
ORDER BY _rank;

-- What share of the true neighbours does a search find? With so few rows, all: they are compared one by one.
SELECT row_count, k, queries, recall, advice FROM jammi_check('stars', k := 5);
