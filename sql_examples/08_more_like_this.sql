-- More like this: jammi_similar takes the key of a row instead of a text, for example the row that a reader is looking
-- at. The row itself is left out.

CREATE TABLE films (id INTEGER, title VARCHAR, plot VARCHAR);
INSERT INTO films VALUES
    (1, 'Cold Signal', 'In the Arctic, a radio operator hears a call for help from a ship that sank long ago.'),
    (2, 'The Last Harvest', 'Three sisters try to save the farm of their father from the bank.'),
    (3, 'Red Planet Post', 'A postman flies his small rocket between lonely colonies on Mars.'),
    (4, 'Checkmate in Riga', 'During a chess tournament the champion is forced to work as a spy.'),
    (5, 'The Understudy', 'On opening night a shy actress has to step in for the star of the play.'),
    (6, 'Beyond Jupiter', 'Far out in space, the crew of a rocket wakes up and finds its captain missing.'),
    (7, 'Olive Season', 'A widow returns to her village and takes over the farm of her parents.'),
    (8, 'Double Cipher', 'Two spies decode each other''s secret messages and fall in love.'),
    (9, 'Paws', 'A stray dog crosses the whole country to find the boy who once fed it.'),
    (10, 'Curtain Call', 'An old theatre is to be closed, and its actors put on one more play.');

SELECT status, row_count FROM jammi_generate('films', 'plot', 'id');

-- Films like number 6.
SELECT title, round(_similarity, 2) AS similarity FROM jammi_similar('films', 6, 2) ORDER BY _rank;

-- For every film, its nearest neighbour.
SELECT f.title, s.title AS more_like_this
FROM films f, jammi_similar('films', f.id, 1) s
ORDER BY f.id;

-- A search also takes a vector, here the average of two films. The vectors are in the view jammi."NAME", where NAME is
-- the embedding_table that jammi_generate returned. It contains the time of the build, so we keep it in a variable.
SET VARIABLE films = (SELECT max(embedding_table) FROM jammi_tables());
CREATE TEMP VIEW vectors AS FROM query_table('jammi."' || getvariable('films') || '"');

SELECT _row_id, _source_id, typeof(vector) AS type FROM vectors WHERE _row_id = '6';

SELECT title
FROM jammi_search('films', (
    SELECT list(value ORDER BY place)
    FROM (SELECT place, avg(value) AS value
          FROM (SELECT unnest(vector::FLOAT[]) AS value, generate_subscripts(vector::FLOAT[], 1) AS place
                FROM vectors WHERE _row_id IN ('4', '8'))
          GROUP BY place)
), 3, filter := 'id NOT IN (4, 8)')
ORDER BY _rank;
