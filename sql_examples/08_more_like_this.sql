-- More like this: instead of a text, a search takes a vector, for instance that of a row the reader has just seen.
-- The vectors of an embedding table stand in the view jammi."NAME", where NAME is what jammi_generate returned.

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

-- The name holds the time of the build, so it is new every time: a variable remembers it.
SET VARIABLE films = (SELECT embedding_table FROM jammi_generate('films', 'plot', 'id'));
CREATE TEMP VIEW vectors AS FROM query_table('jammi."' || getvariable('films') || '"');

SELECT _row_id, _source_id, typeof(vector) AS type FROM vectors WHERE _row_id = '6';

-- Films like number 6. The nearest to a vector is the row that it came from, so leave that one out.
SET VARIABLE seen = (SELECT vector FROM vectors WHERE _row_id = '6');
SELECT title, round(_similarity, 2) AS similarity
FROM jammi_search('films', getvariable('seen'), 3)
WHERE id <> 6
ORDER BY _rank;

-- The same for every film: its nearest neighbour.
SELECT f.title, s.title AS more_like_this
FROM films f
JOIN vectors v ON v._row_id = f.id::VARCHAR,
     jammi_search('films', v.vector, 2) s
WHERE s.id <> f.id
ORDER BY f.id;
