-- Snippets: jammi_snippet shows where a text answers a query. It returns the best passage of the text, with the matches
-- marked. A search finds the row by its meaning; the snippet shows what the row says about it.

CREATE TABLE manuals (id INTEGER, title VARCHAR, body VARCHAR);
INSERT INTO manuals VALUES
    (1, 'Espresso machine',
        'Fill the tank with cold water. Switch the machine on and wait for the green light. Once a month, run the '
        'descaling program: error E-1047 means that lime blocks the pump. Never use vinegar, which harms the seals.'),
    (2, 'Bread oven',
        'Heat the oven for an hour before you bake. Spray water on the walls, so that the crust stays thin. Clean the '
        'stone with a dry brush; soap leaves a taste.'),
    (3, 'Rice cooker',
        'Wash the rice until the water runs clear. The cooker switches itself off and keeps the rice warm for hours.');

SELECT status, row_count FROM jammi_generate('manuals', 'body', 'id');

SELECT q.question, s.title, jammi_snippet(s.body, q.question, 12) AS passage
FROM (VALUES ('lime in the pump of the coffee machine'), ('cleaning the baking stone')) q(question),
     jammi_search('manuals', q.question, 1) s
ORDER BY q.question;

-- It works on any text, without a search, too. A query may have phrases, beginnings of words, and codes.
SELECT title, jammi_snippet(body, '"green light" switch* E-1047', words := 10) AS passage FROM manuals ORDER BY id;

-- For a web page: a tag is closed by itself. The text is escaped first, so that nothing in it can be a tag.
SELECT jammi_snippet(replace(replace(body, '&', '&amp;'), '<', '&lt;'), 'rice', words := 6, mark := '<mark>') AS html
FROM manuals
WHERE id = 3;

-- Words are compared by the rules of a language: here, Häuser is found by Haus.
SELECT jammi_snippet('Am Ufer stehen alte Häuser aus Holz.', 'Haus am See', language := 'german') AS passage;
