-- Search by meaning: jammi_generate embeds a table once and stores the vectors, and jammi_search finds the rows nearest
-- to a question. LIKE compares words; this compares meanings.

CREATE TABLE inventions (id INTEGER, year INTEGER, description VARCHAR);
INSERT INTO inventions VALUES
    (1, 1994, 'A porous film through which water passes, while salt and bacteria stay behind.'),
    (2, 2011, 'A bicycle brake that charges a battery whenever the rider slows down.'),
    (3, 2003, 'An injector without a needle: a jet of air pushes the vaccine through the skin.'),
    (4, 1998, 'Window glass that darkens when the sun shines on it, to keep the office cool.'),
    (5, 2009, 'A collar that tells the owner where a lost dog is.'),
    (6, 2001, 'A wheelchair that climbs stairs on three small wheels on either side.'),
    (7, 2014, 'A glue that hardens under water, made of the protein of mussels.'),
    (8, 2018, 'A robot arm that picks ripe strawberries without bruising them.'),
    (9, 2016, 'A toothbrush that counts how long each tooth has been brushed.'),
    (10, 1988, 'A parachute that lowers a small aircraft when its engine fails.'),
    (11, 2020, 'Packaging made of seaweed, which rots in the garden within a month.'),
    (12, 2007, 'A loudspeaker whose sound is heard on one seat only.');

-- jammi_generate takes three arguments: the table, the column with the text, and the key.
SELECT status, row_count FROM jammi_generate('inventions', 'description', 'id');

-- The result has the columns of the table, then _row_id, _rank, _similarity and _distance. The best row comes first.
SELECT id, year, description, _rank, round(_similarity, 2) AS similarity, round(_distance, 2) AS distance
FROM jammi_search('inventions', 'membrane that cleans water', 2)
ORDER BY _rank;

-- No description contains the words "fruit", "walk" or "plastic".
SELECT description FROM jammi_search('inventions', 'machines for the fruit harvest', 1);
SELECT description FROM jammi_search('inventions', 'help for people who cannot walk', 1);
SELECT description FROM jammi_search('inventions', 'what could replace plastic bags?', 1);
