-- Classification without training: describe each class in a few words, and assign every text to the class with the
-- nearest description. To add a class, add a row; no training examples are needed.

CREATE TABLE classes (class VARCHAR, description VARCHAR);
INSERT INTO classes VALUES
    ('billing', 'billing and payment'),
    ('delivery', 'delivery of a parcel'),
    ('account', 'login and user account'),
    ('praise', 'praise and thanks');

CREATE TABLE messages (id INTEGER, message VARCHAR);
INSERT INTO messages VALUES
    (1, 'My package should have been here on Monday.'),
    (2, 'You charged my credit card twice.'),
    (3, 'Thanks a lot, you made my day!'),
    (4, 'I cannot remember my password.'),
    (5, 'The box was soaked and the vase inside was broken.'),
    (6, 'Why does the bill say 40 euros when the offer said 30?'),
    (7, 'Wonderful service, I will come again.'),
    (8, 'Somebody else seems to be logged in under my name.'),
    (9, 'I paid for express delivery, but nothing has come.'),
    (10, 'Your courier was so kind, thank you!');

-- Embed each text once, and compare afterwards: in the cross join, every text would be embedded once for each class.
CREATE TEMP TABLE class_vectors AS SELECT class, embed(description) AS vector FROM classes;
CREATE TEMP TABLE message_vectors AS SELECT id, message, embed(message) AS vector FROM messages;

SELECT m.id, m.message, arg_max(c.class, list_cosine_similarity(m.vector, c.vector)) AS class
FROM message_vectors m, class_vectors c
GROUP BY m.id, m.message
ORDER BY m.id;

-- How certain is the result? If the two best classes are close, a person should check the message: these are a bit of
-- both.
SELECT id, class, round(best[1] - best[2], 2) AS lead
FROM (
    SELECT m.id,
           arg_max(c.class, list_cosine_similarity(m.vector, c.vector)) AS class,
           max(list_cosine_similarity(m.vector, c.vector), 2) AS best
    FROM message_vectors m, class_vectors c
    GROUP BY m.id
)
WHERE lead < 0.14
ORDER BY lead;
