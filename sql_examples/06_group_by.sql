-- Aggregates: count and compare the rows that a search finds. This answers questions about many texts at once, such as
-- "which hotel do guests find noisy?", even if no column contains the answer.

CREATE TABLE reviews (id INTEGER, hotel VARCHAR, stars INTEGER, review VARCHAR);
INSERT INTO reviews VALUES
    (1, 'Astoria', 2, 'We hardly slept: the street below our window was loud until four.'),
    (2, 'Astoria', 3, 'Nice staff, but the walls are thin and we heard every word next door.'),
    (3, 'Astoria', 5, 'The breakfast buffet alone is worth the stay.'),
    (4, 'Astoria', 2, 'Music from the bar kept us awake all night.'),
    (5, 'Bellevue', 5, 'What a view! The whole bay lies under the balcony.'),
    (6, 'Bellevue', 4, 'Quiet rooms and a soft bed. We slept like stones.'),
    (7, 'Bellevue', 2, 'The shower was cold and the towels were dirty.'),
    (8, 'Bellevue', 1, 'There was hair in the sink and dust under the bed.'),
    (9, 'Central', 4, 'Two minutes from the station, very handy for an early train.'),
    (10, 'Central', 3, 'The lift rattled so loudly that it woke the children.'),
    (11, 'Central', 4, 'Friendly people at the desk who knew every museum.'),
    (12, 'Central', 3, 'The croissants were stale and the coffee came from a machine.');

SELECT status, row_count FROM jammi_generate('reviews', 'review', 'id');

-- Which hotel gets the complaints about noise? A search finds texts about the subject, including praise for quiet
-- rooms. The number of stars distinguishes praise from complaints.
SELECT _rank, hotel, stars, review
FROM jammi_search('reviews', 'it was too loud to sleep', 4)
ORDER BY _rank;

SELECT hotel, count(*) AS complaints
FROM jammi_search('reviews', 'it was too loud to sleep', 4)
WHERE stars <= 3
GROUP BY hotel
ORDER BY complaints DESC, hotel;

-- The nearest review of each hotel for a subject, with its similarity. Only the vectors are asked: what is not clean is
-- told in many words, and "room" is in reviews of all kinds.
SELECT hotel, round(max(_similarity), 2) AS nearest, arg_min(review, _rank) AS review
FROM jammi_search('reviews', 'the room was not clean', 12, mode := 'vector')
GROUP BY hotel
ORDER BY nearest DESC;
