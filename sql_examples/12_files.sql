-- Files: the path of a Parquet, CSV or JSON file can be a source, without a table in between. The vectors are in a
-- plain Parquet file, too, which any program can read without jammi_duck.

COPY (
    FROM (VALUES
        (1, 'Minutes', 'The committee agreed to repair the roof before winter.'),
        (2, 'Reminder', 'Your library books are due on the fourteenth.'),
        (3, 'Invitation', 'We are getting married in June and want you there!'),
        (4, 'Offer', 'Solar panels for your house, fitted in one day.'),
        (5, 'Complaint', 'Your dog barks from morning to night. Please do something.'),
        (6, 'Thanks', 'The soup you brought when I was ill was a great comfort.'),
        (7, 'Application', 'I have been a gardener for nine years and am looking for work.'),
        (8, 'Apology', 'I am sorry that our dog was so loud; from now on he sleeps indoors.'),
        (9, 'Postcard', 'The sea is warm, and the children have not been indoors for a week.'),
        (10, 'Condolence', 'We were so sorry to hear of your grandfather''s death.')
    ) letters(id, kind, body)
) TO 'letters.parquet' (FORMAT parquet);

SELECT source, status, row_count FROM jammi_generate('letters.parquet', 'body', 'id');

SELECT kind, body
FROM jammi_search('letters.parquet', 'a wedding', 1);

-- The file with the vectors is in the folder jammi_db of the location, under the name of the embedding table.
SET VARIABLE vectors = (
    SELECT location || '/jammi_db/' || embedding_table || '.parquet' FROM jammi_tables()
    WHERE source = 'letters.parquet'
);

SELECT column_name, column_type
FROM (DESCRIBE FROM read_parquet(getvariable('vectors')));

-- The following queries use only DuckDB and the file: which two letters are most similar?
SELECT a._row_id AS letter, b._row_id AS other, round(list_inner_product(a.vector, b.vector), 2) AS similarity
FROM read_parquet(getvariable('vectors')) a
JOIN read_parquet(getvariable('vectors')) b ON a._row_id::INTEGER < b._row_id::INTEGER
ORDER BY similarity DESC
LIMIT 1;

-- The file also records how the vectors were made.
SELECT decode(value)->>'model' AS model, decode(value)->>'columns' AS columns, decode(value)->>'key' AS key
FROM parquet_kv_metadata(getvariable('vectors'))
WHERE decode(key) = 'jammi.definition';
