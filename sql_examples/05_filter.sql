-- Filters: filter := takes a condition over the columns of the source. It is applied before the ranking: if three rows
-- pass, three rows are returned. WHERE is applied after the search, to the rows that were found.

CREATE TABLE tickets (id INTEGER, state VARCHAR, message VARCHAR);
INSERT INTO tickets VALUES
    (1, 'closed', 'I forgot my password and the reset mail never arrives.'),
    (2, 'closed', 'Cannot sign in since yesterday, it says wrong password.'),
    (3, 'open', 'The login page keeps sending me back to itself.'),
    (4, 'closed', 'My account is locked after three attempts to log in.'),
    (5, 'open', 'The invoice for March shows the wrong address.'),
    (6, 'open', 'Please cancel my subscription at the end of the month.'),
    (7, 'closed', 'I was charged twice for the same order.'),
    (8, 'open', 'The app crashes when I rotate the phone.'),
    (9, 'open', 'Two-factor codes by text message are not accepted when I log in.'),
    (10, 'closed', 'How do I export my data as a spreadsheet?'),
    (11, 'open', 'The parcel arrived with a broken lid.'),
    (12, 'closed', 'Dark mode would be kind to my eyes.');

SELECT status, row_count FROM jammi_generate('tickets', 'message', 'id');

-- The three nearest tickets, whatever their state.
SELECT id, state FROM jammi_search('tickets', 'user cannot log in', 3) ORDER BY _rank;

-- The three nearest open tickets.
SELECT id, state, message
FROM jammi_search('tickets', 'user cannot log in', 3, filter := 'state = ''open''')
ORDER BY _rank;

-- A common mistake: this finds three tickets first, and then removes the closed ones.
SELECT id, state
FROM jammi_search('tickets', 'user cannot log in', 3)
WHERE state = 'open'
ORDER BY _rank;

-- A filter may contain sub-queries. Between $$ and $$, quotes need not be doubled.
CREATE TABLE assigned (ticket INTEGER, agent VARCHAR);
INSERT INTO assigned VALUES (3, 'Ines'), (5, 'Ines'), (8, 'Tom'), (9, 'Tom'), (11, 'Ines');

SELECT id, message
FROM jammi_search('tickets', 'user cannot log in', 1,
                  filter := $$ id IN (SELECT ticket FROM assigned WHERE agent = 'Tom') $$);

-- A search always returns k rows, good or bad. min_similarity := leaves out rows that do not fit. A suitable value
-- depends on the model and on the texts, so look at some results first.
SELECT id, message
FROM jammi_search('tickets', 'user cannot log in', 12, min_similarity := 0.25)
ORDER BY _rank;
