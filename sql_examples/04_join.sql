-- Joins: the result of a search is a table, so you can join it with any other, here to show stock and prices. The
-- texts were embedded before, but stock and prices are current.

CREATE TABLE products (sku VARCHAR, name VARCHAR, description VARCHAR);
INSERT INTO products VALUES
    ('T1', 'Brick box', '500 coloured plastic bricks to build houses, cars and castles'),
    ('T2', 'Kite', 'A light nylon kite with a long tail, for windy beaches'),
    ('T3', 'Chemistry set', 'Twenty safe experiments with crystals, colours and bubbles'),
    ('T4', 'Wooden railway', 'Tracks, a bridge and a small locomotive to put together'),
    ('T5', 'Watercolours', 'Twelve paints, two brushes and a pad of paper'),
    ('T6', 'Headlamp', 'Rechargeable lamp for running and camping at night'),
    ('T7', 'Sleeping bag', 'Warm down to minus five degrees, packs small'),
    ('T8', 'Teapot', 'Cast iron, keeps a litre of tea hot for an hour'),
    ('T9', 'Chef''s knife', 'Forged steel, 20 cm, for vegetables and meat'),
    ('T10', 'Marble run', 'Ramps and towers to assemble, marbles included'),
    ('T11', 'Jigsaw puzzle', 'A thousand pieces: the old harbour at sunset'),
    ('T12', 'Yoga mat', 'Soft, washable, does not slip');

CREATE TABLE stock (sku VARCHAR, warehouse VARCHAR, pieces INTEGER, price DECIMAL(6, 2));
INSERT INTO stock VALUES
    ('T1', 'north', 0, 34.90), ('T1', 'south', 14, 34.90), ('T2', 'north', 8, 19.00), ('T4', 'south', 3, 59.00),
    ('T6', 'north', 21, 29.50), ('T7', 'north', 5, 120.00), ('T7', 'south', 2, 120.00), ('T8', 'south', 9, 48.00),
    ('T10', 'north', 6, 42.00), ('T10', 'south', 1, 42.00), ('T11', 'south', 11, 16.00);

SELECT status, row_count FROM jammi_generate('products', ['name', 'description'], 'sku');

SELECT s._rank, s.name, sum(stock.pieces) AS pieces, any_value(stock.price) AS price
FROM jammi_search('products', 'a gift for a child who loves to build things', 3) s
JOIN stock ON stock.sku = s.sku
GROUP BY s._rank, s.name
ORDER BY s._rank;

-- A LEFT JOIN keeps products that are not in stock.
SELECT s.name, coalesce(sum(stock.pieces), 0) AS pieces
FROM jammi_search('products', 'for people who like to cook', 2) s
LEFT JOIN stock ON stock.sku = s.sku
GROUP BY s.name, s._rank
ORDER BY s._rank;
