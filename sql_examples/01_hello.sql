-- Hello: embed() turns a text into a vector, a list of numbers that represents its meaning. Texts with similar meanings
-- get vectors with similar directions, so plain SQL can compare them, even if they share no word.
--
-- To run a file like this one in Python:
--     con = jammi_duck.connect()
--     for statement in con.extract_statements(Path('01_hello.sql').read_text()):
--         print(con.execute(statement).fetchall())

-- All vectors have the same length, whether the text is long or short. NULL and blank texts have no vector.
SELECT len(embed('Hello, duck!')) AS hello,
       len(embed('A paragraph that goes on for quite some time about ducks and ponds.')) AS paragraph,
       embed('   ') AS blank;

-- How similar are two texts? The cosine similarity is 1 if they mean the same, and around 0 if they have nothing to do
-- with each other.
SELECT round(list_cosine_similarity(embed('How do I get my money back?'),
                                    embed('We refund your purchase within two weeks.')), 2) AS same_matter,
       round(list_cosine_similarity(embed('How do I get my money back?'),
                                    embed('The museum opens at nine.')), 2) AS another_matter;

-- It is a function like any other, and works on whole columns.
CREATE TABLE sentences (id INTEGER, sentence VARCHAR);
INSERT INTO sentences VALUES
    (1, 'The cat is asleep on the sofa.'),
    (2, 'A kitten naps on the couch.'),
    (3, 'Our trains run every ten minutes.'),
    (4, 'You never wait long for the metro here.'),
    (5, 'She paid the bill in cash.');

SELECT a.sentence, b.sentence AS compared_with,
       round(list_cosine_similarity(embed(a.sentence), embed(b.sentence)), 2) AS similarity
FROM sentences a JOIN sentences b ON a.id < b.id
ORDER BY similarity DESC, a.id, b.id
LIMIT 2;
