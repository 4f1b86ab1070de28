-- Near duplicates: pairs of rows that say the same in other words, which neither DISTINCT nor a comparison of letters
-- can find. First we find the pairs, then we list the rows without the repetitions.

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

SELECT status, row_count FROM jammi_generate('listings', 'title', 'id');

-- For each row, find other rows that are very near, and show each pair once. The two bicycles for adults are a pair;
-- the one for children is not near enough.
CREATE TEMP TABLE pairs AS
SELECT l.id, s.id AS other, s._similarity AS similarity
FROM listings l, jammi_similar('listings', l.id, 10, min_similarity := 0.7) s
WHERE l.id < s.id;

SELECT p.id, x.title, p.other, y.title AS other_title, round(p.similarity, 2) AS similarity
FROM pairs p JOIN listings x ON x.id = p.id JOIN listings y ON y.id = p.other
ORDER BY p.id, p.other;

-- Keep the first row of each group.
SELECT id, title
FROM listings
WHERE id NOT IN (SELECT other FROM pairs)
ORDER BY id;
