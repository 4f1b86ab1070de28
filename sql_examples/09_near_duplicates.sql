-- Near-duplicates: pairs of rows that say the same in other words, which neither DISTINCT nor a comparison of letters
-- can find. First the pairs, then a list from which the repetitions are gone.

CREATE TABLE listings (id INTEGER, title VARCHAR);
INSERT INTO listings VALUES
    (1, 'Used men''s bicycle, 28 inch, seven gears'),
    (2, 'Garden table made of teak with four chairs'),
    (3, 'Gentleman''s bike for sale, 28", 7-speed, second-hand'),
    (4, 'Electric guitar with amplifier, for beginners'),
    (5, 'Children''s bicycle, 16 inch, with training wheels'),
    (6, 'Teak garden set: one table, four chairs'),
    (7, 'Baby cot in white, with mattress'),
    (8, 'Beginner''s electric guitar, amplifier included'),
    (9, 'Washing machine, three years old, works well'),
    (10, 'Well-working washing machine, 3 years old');

SET VARIABLE listings = (SELECT embedding_table FROM jammi_generate('listings', 'title', 'id'));
CREATE TEMP VIEW vectors AS FROM query_table('jammi."' || getvariable('listings') || '"');

-- Each pair once, by a self-join. Stored vectors have the length 1, so their inner product is their similarity. Both
-- bicycles for grown-ups are near each other, and the one for children keeps its distance.
CREATE TEMP TABLE pairs AS
SELECT a._row_id::INTEGER AS id, b._row_id::INTEGER AS other, array_inner_product(a.vector, b.vector) AS similarity
FROM vectors a JOIN vectors b ON a._row_id::INTEGER < b._row_id::INTEGER;

SELECT p.id, x.title, p.other, y.title AS other_title, round(p.similarity, 2) AS similarity
FROM pairs p JOIN listings x ON x.id = p.id JOIN listings y ON y.id = p.other
WHERE p.similarity > 0.7
ORDER BY p.id, p.other;

-- The first of each group stays.
SELECT id, title
FROM listings
WHERE id NOT IN (SELECT other FROM pairs WHERE similarity > 0.7)
ORDER BY id;

-- A self-join compares each row with each: good for some thousands of rows. For more, let each row search for its
-- nearest neighbours; that takes the index, and comes to the same.
SELECT DISTINCT least(v._row_id::INTEGER, s.id) AS id, greatest(v._row_id::INTEGER, s.id) AS other
FROM vectors v, jammi_search('listings', v.vector, 3) s
WHERE s.id <> v._row_id::INTEGER AND s._similarity > 0.7
ORDER BY ALL;
