-- Always current: searches that see every change, without a refresh.

CREATE TABLE tickets (id INTEGER, body VARCHAR);
INSERT INTO tickets VALUES
    (1, 'The parcel arrived with a broken lid.'),
    (2, 'I was charged twice for one order.'),
    (3, 'The blue paint peels off after a week.');
SELECT status, row_count FROM jammi_generate('tickets', 'body', 'id');

-- A new ticket is not found, since nothing has embedded it. With fresh := true, this one search embeds it first.
INSERT INTO tickets VALUES (4, 'I cannot log in to my account since yesterday.');
SELECT id FROM jammi_search('tickets', 'password does not work', 1, fresh := true);

-- It is kept: other searches find it, too.
SELECT id FROM jammi_search('tickets', 'password does not work', 1);

-- From now on, every search sees what is committed.
SELECT source FROM jammi_follow('tickets');
INSERT INTO tickets VALUES (5, 'Where can I download the invoice as a PDF?');
UPDATE tickets SET body = 'Thank you, the login works again.' WHERE id = 4;
DELETE FROM tickets WHERE id = 2;
SELECT id FROM jammi_search('tickets', 'a bill for my tax records', 1);
SELECT count(*) AS tickets FROM jammi_search('tickets', 'money', 10, mode := 'vector');

-- `followed` says so. How the changes are found depends on the database: by triggers, or by comparing.
SELECT "current", "new", changed, gone, followed IS NOT NULL AS is_followed FROM jammi_status('tickets');

-- What is rolled back was never there.
BEGIN;
INSERT INTO tickets VALUES (6, 'The moon is made of cheese.');
ROLLBACK;
SELECT id FROM jammi_search('tickets', 'the moon', 10, mode := 'vector') WHERE id > 5;

-- No more: nothing of it is left.
SELECT action FROM jammi_unfollow('tickets');
SELECT followed FROM jammi_status('tickets');
