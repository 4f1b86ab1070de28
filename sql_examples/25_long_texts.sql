-- Long texts: a model reads the first few hundred words of a text, and no more. With passages := true each text is cut
-- into passages that the model reads whole. A search finds rows as before, and says which passage answers.

CREATE TABLE contracts (id INTEGER, title VARCHAR, body VARCHAR);
INSERT INTO contracts VALUES
    (1, 'Lease of a van', '# Term

The lease begins on the first of May and ends after twelve months. Either party may end it in writing, with a notice
of thirty days.

# Repairs

The owner repairs the engine and the brakes. The driver pays for tyres, oil and broken glass.

# Return

The van is brought back to the yard in Lyon. If it is brought to any other yard, the driver bears the cost of moving
it.'),
    (2, 'Sale of a piano', '# Price

The piano costs four thousand euros. Half of it is due when the contract is signed, the rest on delivery.

# Delivery

The seller has the piano carried up to the third floor, and tuned once when it has stood there for two weeks.

# Return

Within ten days the buyer may send the piano back without giving a reason. The seller then pays for the transport.'),
    (3, 'Storage of furniture', 'Boxes are kept dry and locked. Rent is paid by the month.');

-- Most texts need no options. Here the passages are short, so that a small example has several of them.
SELECT row_count, passage_count, truncated_count
FROM jammi_generate('contracts', ['title', 'body'], 'id', passages := {'tokens': 40, 'title': 'title'});

-- Each row is found once, by its best passage.
SELECT id, _passage, _start, _passage_text, round(_similarity, 2) AS similarity
FROM jammi_search('contracts', 'who pays if I send it back?', 2, mode := 'vector');

-- With per_row, more passages of a row follow its best one. k still counts rows.
SELECT id, _rank, _passage, split_part(_passage_text, chr(10), 1) AS heading
FROM jammi_search('contracts', 'what does the driver pay for?', 1, per_row := 2);

-- How each row was cut. Start and end count characters, and the title is not among them.
SELECT _row_id, _passage, _start, _end, split_part(_passage_text, chr(10), 1) AS first_line
FROM jammi_passages('contracts');

-- A row that has changed is still found, but its old passage is no longer shown. A refresh embeds only passages that
-- are new: here one of the three of this contract.
UPDATE contracts SET body = replace(body, 'thirty days', 'sixty days') WHERE id = 1;
SELECT current, changed, passages FROM jammi_status('contracts');
SELECT id, _passage, _passage_text FROM jammi_search('contracts', 'how much notice must be given?', 1);
SELECT changed, unchanged, encoded FROM jammi_refresh('contracts');
SELECT id, right(_passage_text, 14) AS passage_ends FROM jammi_search('contracts', 'how much notice must be given?', 1);

-- The cutter works on any text, without an embedding table.
SELECT id, unnest(jammi_split(body, tokens := 16, overlap := 4, by := 'word'), recursive := true)
FROM contracts WHERE id = 3;
