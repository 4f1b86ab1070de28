-- Vectors for another program: jammi_infer returns a vector for every row and stores nothing. If a text cannot be
-- embedded, its row says why, and the other rows are not affected.

CREATE TABLE recipes (id INTEGER, title VARCHAR, note VARCHAR);
INSERT INTO recipes VALUES
    (1, 'Leek and potato soup', 'better on the second day'),
    (2, 'Plum cake', NULL),
    (3, NULL, '  '),
    (4, 'Flat bread', 'hot pan, no oil'),
    (5, 'Lentils with vinegar', 'serve with sausages'),
    (6, NULL, NULL);

SELECT _row_id, _source, _model, _status, _error, len(vector) AS dimensions
FROM jammi_infer('recipes', ['title', 'note'], 'id')
ORDER BY _row_id;

-- Its result is a table like any other. Here it is written to a file, with shorter vectors. Models that were trained
-- for this lose little accuracy; this one was not, and is only an example.
COPY (
    SELECT _row_id::INTEGER AS id, vector::FLOAT[64] AS vector
    FROM jammi_infer('recipes', ['title', 'note'], 'id', dims := 64)
    WHERE _status = 'ok'
    ORDER BY id
) TO 'recipes_vectors.parquet' (FORMAT parquet);

SELECT id, len(vector) AS dimensions FROM 'recipes_vectors.parquet';

-- With a LIMIT, only that many rows are embedded, so you can try and time a model on a few rows of a large table.
CREATE TEMP TABLE trial AS FROM jammi_infer('recipes', 'title', 'id') LIMIT 2;

SELECT count(*) AS rows, bool_and(_latency_ms > 0) AS measured FROM trial WHERE _status = 'ok';
