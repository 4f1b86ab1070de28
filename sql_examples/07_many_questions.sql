-- Many questions at once: a search in FROM may use the columns of a table to its left. One query answers all questions
-- of a table, and encodes them together, which is far faster than one after the other.

CREATE TABLE answers (id INTEGER, answer VARCHAR);
INSERT INTO answers VALUES
    (1, 'Parcels arrive within three working days; abroad it takes a week.'),
    (2, 'You may send anything back within thirty days, and we refund the full price.'),
    (3, 'We take credit cards, bank transfers and cash on delivery.'),
    (4, 'Our shop in Harbour Street is open from nine to six, except on Sundays.'),
    (5, 'Choose "forgotten password" on the login page, and a new one is mailed to you.'),
    (6, 'All lamps have a warranty of five years.'),
    (7, 'Vouchers can be bought at the desk or online, from ten euros.'),
    (8, 'We deliver furniture to your door, but do not carry it upstairs.'),
    (9, 'To leave the newsletter, follow the link at the foot of any issue.'),
    (10, 'Spare parts are available for ten years after the last sale.');

CREATE TABLE questions (id INTEGER, question VARCHAR);
INSERT INTO questions VALUES
    (1, 'How long does shipping take?'),
    (2, 'Can I return it if I do not like it?'),
    (3, 'Are you closed at weekends?'),
    (4, 'I cannot log in'),
    (5, NULL),
    (6, 'How do I unsubscribe?'),
    (7, 'Do you sell elephants?');

SELECT status, row_count FROM jammi_generate('answers', 'answer', 'id');

-- A question that is NULL has no results.
SELECT q.id, q.question, s._rank, s.answer, round(s._similarity, 2) AS similarity
FROM questions q, jammi_search('answers', q.question, 2) s
ORDER BY q.id, s._rank;

-- LEFT JOIN LATERAL keeps questions without an answer, here including those without a good one.
SELECT q.id, s.id AS answer_id
FROM questions q LEFT JOIN LATERAL (
    FROM jammi_search('answers', q.question, 1, min_similarity := 0.4)
) s ON true
ORDER BY q.id;
