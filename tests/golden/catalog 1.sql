CREATE SCHEMA jammi_catalog;
CREATE TABLE jammi_catalog.embedding_tables (
    build VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, source VARCHAR NOT NULL, columns VARCHAR[] NOT NULL, key VARCHAR NOT NULL,
    model VARCHAR NOT NULL, dimensions INTEGER NOT NULL, definition VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL,
    status VARCHAR NOT NULL, stage VARCHAR, row_count BIGINT, skipped_count BIGINT, failed_count BIGINT,
    truncated_count BIGINT, location VARCHAR NOT NULL, owner VARCHAR, started TIMESTAMP NOT NULL, finished TIMESTAMP,
    error VARCHAR
);
CREATE TABLE jammi_catalog.segments (
    build VARCHAR NOT NULL, segment INTEGER NOT NULL, row_count BIGINT NOT NULL, parquet VARCHAR NOT NULL,
    bytes BIGINT NOT NULL, sha256 VARCHAR NOT NULL
);
INSERT INTO jammi_catalog.embedding_tables VALUES ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 't__embedding__small__20260325T120000', 't', ['text'], 'id', 'fake/small', 64, '{"columns":["text"],"dimensions":64,"key":"id","max_tokens":8,"model":"fake/small","pooling":"mean","precision":"float32","prompt":"","revision":null,"source":"t","weights":"0000000000000000000000000000000000000000000000000000000000000000"}', 'f334109c98d976e9cec3edb0d2081b305906131eecfb89769ddf8e7bd1c5e460', 'ready', NULL, 3, 0, 0, 0, 'LOCATION', NULL, '2026-03-25 12:00:00', '2026-03-25 12:00:09', NULL);
INSERT INTO jammi_catalog.embedding_tables VALUES ('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'u__embedding__small__20260325T120000', 'u', ['text'], 'id', 'fake/small', 64, '{"columns":["text"],"dimensions":64,"key":"id","max_tokens":8,"model":"fake/small","pooling":"mean","precision":"float32","prompt":"","revision":null,"source":"u","weights":"0000000000000000000000000000000000000000000000000000000000000000"}', '9130a3f52a4a151c3b7662f184490aab06447f63e71900b424e3cf87f7401e7c', 'failed', NULL, 0, 0, 0, 0, 'LOCATION', NULL, '2026-03-25 12:00:00', '2026-03-25 12:00:09', 'no room');
INSERT INTO jammi_catalog.embedding_tables VALUES ('cccccccccccccccccccccccccccccccc', 'v__embedding__small__20260325T120000', 'v', ['text'], 'id', 'fake/small', 64, '{"columns":["text"],"dimensions":64,"key":"id","max_tokens":8,"model":"fake/small","pooling":"mean","precision":"float32","prompt":"","revision":null,"source":"v","weights":"0000000000000000000000000000000000000000000000000000000000000000"}', '9db8e4dd0893fd8249a47c0f3b2aa05b67ba7be2026282c105b8b9dc47169515', 'dropped', NULL, 0, 0, 0, 0, 'LOCATION', NULL, '2026-03-25 12:00:00', '2026-03-25 12:00:09', NULL);
INSERT INTO jammi_catalog.segments VALUES ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 0, 3, 't__embedding__small__20260325T120000.parquet', 1234, '5555555555555555555555555555555555555555555555555555555555555555');
CREATE TABLE jammi_catalog.version AS SELECT 1 AS version;
