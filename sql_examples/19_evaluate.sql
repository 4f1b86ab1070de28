-- Evaluate: how good is a search, and is another way to search better? All you need are questions, and judgements of which
-- rows answer them.

CREATE TABLE tickets (id INTEGER, title VARCHAR, body VARCHAR);
INSERT INTO tickets VALUES
    (1, 'Locked out', 'I forgot my password and cannot log in.'),
    (2, 'Please help!', 'The app says that my account is blocked.'),
    (3, 'Order 5512', 'I would like a refund, the lamp is not what I expected.'),
    (4, 'My bill', 'I was charged twice for one purchase.'),
    (5, 'Where is it?', 'The parcel has not arrived yet.'),
    (6, 'Very disappointed', 'The box was crushed and the lamp inside is broken.'),
    (7, 'Settings', 'How do I change the language of the menus?'),
    (8, 'Urgent', 'Can I get the invoice with the address of my company?');

-- Two embedding tables: is it enough to embed the titles?
SELECT status, row_count FROM jammi_generate('tickets', 'title', 'id', name := 'titles');
SELECT status, row_count FROM jammi_generate('tickets', ['title', 'body'], 'id', name := 'texts');

-- A question has an id and a text.
CREATE TABLE questions AS FROM (VALUES
    ('login', 'sign in does not work'),
    ('money', 'you took too much money'),
    ('damage', 'it came in pieces'),
    ('late', 'nothing was delivered'),
    ('paper', 'receipt for the tax office'),
    ('return', 'I want to send it back'),
    ('holiday', 'opening hours at Christmas')) t(id, text);

-- A judgement says how well a row answers a question: 2 for very well, 1 for somewhat, 0 for not at all.
CREATE TABLE judgements AS FROM (VALUES
    ('login', 1, 2), ('login', 2, 1), ('money', 4, 2), ('money', 3, 1), ('damage', 6, 2), ('late', 5, 2), ('late', 6, 0),
    ('paper', 8, 2), ('return', 3, 2), ('return', 6, 1), ('holiday', 7, 0)) t(question, key, grade);

-- Each metric is a mean over the questions, from 0 to 1. With other questions it would be another: `low` and `high` say how
-- far it may move. No row answers the last question, so it is left out.
SELECT metric, round(value, 2) AS value, round(low, 2) AS low, round(high, 2) AS high, question_count, skipped_count
FROM jammi_eval('tickets', 'questions', 'judgements', k := 3, embedding_table := 'titles');

-- What was found for each question, the worst first: the keys, their grades (NULL for rows that nobody has judged), and
-- what was missed.
SELECT question, round(ndcg, 2) AS ndcg, keys, grades, missed
FROM jammi_eval_queries('tickets', 'questions', 'judgements', k := 3, embedding_table := 'titles')
ORDER BY ndcg, question;

-- Are the whole texts better? Each way to search is compared with the first, question by question. A p-value below 0.05
-- means that this is hardly by chance. With six questions, only a way that wins all of them gets there.
SELECT way, options, round(value, 2) AS value, round(difference, 2) AS difference, round(p_value, 3) AS p_value, won, lost
FROM jammi_eval_compare('tickets', 'questions', 'judgements',
    [{'embedding_table': 'titles'}, {'embedding_table': 'texts'}], k := 3);
