ALTER TABLE "public"."passage" ADD COLUMN "passage_vector" vector(384);

SELECT count(*) FROM "public"."passage" t WHERE t."passage_vector" IS NULL AND (t."passage"::text COLLATE "C" ~  E'[^\\u0001-\\u0020\\u007F-\\u00A0\\u00AD-\\u00AD\\u034F-\\u034F\\u061C-\\u061C\\u115F-\\u1160\\u1680-\\u1680\\u17B4-\\u17B5\\u180B-\\u180F\\u2000-\\u200F\\u2028-\\u202F\\u205F-\\u206F\\u3000-\\u3000\\u3164-\\u3164\\uFE00-\\uFE0F\\uFEFF-\\uFEFF\\uFFA0-\\uFFA0\\uFFF0-\\uFFFB\\U0001BCA0-\\U0001BCA3\\U0001D173-\\U0001D17A\\U000E0000-\\U000E0FFF]') IS TRUE;

SELECT count(*) FROM "public"."passage" t WHERE t."passage_vector" IS NULL AND (t."passage"::text COLLATE "C" ~  E'[^\\u0001-\\u0020\\u007F-\\u00A0\\u00AD-\\u00AD\\u034F-\\u034F\\u061C-\\u061C\\u115F-\\u1160\\u1680-\\u1680\\u17B4-\\u17B5\\u180B-\\u180F\\u2000-\\u200F\\u2028-\\u202F\\u205F-\\u206F\\u3000-\\u3000\\u3164-\\u3164\\uFE00-\\uFE0F\\uFEFF-\\uFEFF\\uFFA0-\\uFFA0\\uFFF0-\\uFFFB\\U0001BCA0-\\U0001BCA3\\U0001D173-\\U0001D17A\\U000E0000-\\U000E0FFF]') IS NOT TRUE;

SELECT t."passage"::text, t."id"::text, t."part"::text FROM "public"."passage" t WHERE t."passage_vector" IS NULL AND t."passage"::text COLLATE "C" ~  E'[^\\u0001-\\u0020\\u007F-\\u00A0\\u00AD-\\u00AD\\u034F-\\u034F\\u061C-\\u061C\\u115F-\\u1160\\u1680-\\u1680\\u17B4-\\u17B5\\u180B-\\u180F\\u2000-\\u200F\\u2028-\\u202F\\u205F-\\u206F\\u3000-\\u3000\\u3164-\\u3164\\uFE00-\\uFE0F\\uFEFF-\\uFEFF\\uFFA0-\\uFFA0\\uFFF0-\\uFFFB\\U0001BCA0-\\U0001BCA3\\U0001D173-\\U0001D17A\\U000E0000-\\U000E0FFF]' ORDER BY t."id", t."part" LIMIT 1000;

SELECT t."passage"::text, t."id"::text, t."part"::text, t."passage", t."id", t."part" FROM "public"."passage" t WHERE t."passage_vector" IS NULL AND t."passage"::text COLLATE "C" ~  E'[^\\u0001-\\u0020\\u007F-\\u00A0\\u00AD-\\u00AD\\u034F-\\u034F\\u061C-\\u061C\\u115F-\\u1160\\u1680-\\u1680\\u17B4-\\u17B5\\u180B-\\u180F\\u2000-\\u200F\\u2028-\\u202F\\u205F-\\u206F\\u3000-\\u3000\\u3164-\\u3164\\uFE00-\\uFE0F\\uFEFF-\\uFEFF\\uFFA0-\\uFFA0\\uFFF0-\\uFFFB\\U0001BCA0-\\U0001BCA3\\U0001D173-\\U0001D17A\\U000E0000-\\U000E0FFF]' AND (t."id", t."part") > ('02e2e3af-821e-4a3e-8115-ccb9d7042df9'::uuid, 'it''s'::character varying(20)) ORDER BY t."id", t."part" LIMIT 1000;

CREATE TEMPORARY TABLE "pg_temp"."_jammi_given" ("key0" text, "key1" text, "was" text, vector vector) ON COMMIT DROP;

COPY "pg_temp"."_jammi_given" FROM STDIN (FORMAT BINARY);

ANALYZE "pg_temp"."_jammi_given" ("key0", "key1");

UPDATE "public"."passage" AS t SET "passage_vector" = g.vector::vector FROM "pg_temp"."_jammi_given" AS g WHERE t."id" = g."key0"::uuid AND t."part" = g."key1"::character varying(20) AND t."passage"::text COLLATE "C" = g.was AND t."passage_vector" IS NULL;

SELECT distance, key, text FROM (
SELECT t."passage_vector" <=> '[0.5, -1.0]'::vector AS distance, concat_ws(', ', t."id"::text, t."part"::text) AS key, t."passage"::text AS text
FROM "public"."passage" t
WHERE t."passage_vector" IS NOT NULL
ORDER BY t."passage_vector" <=> '[0.5, -1.0]'::vector
LIMIT 10
) AS nearest
WHERE distance IS NOT NULL
ORDER BY distance, key;

SELECT distance, key, text FROM (
SELECT t."passage_vector" <=> '[0.5, -1.0]'::vector AS distance, concat_ws(', ', t."id"::text, t."part"::text) AS key, t."passage"::text AS text
FROM "public"."passage" t
WHERE t."passage_vector" IS NOT NULL AND (part = 'it''s' -- all
)
ORDER BY t."passage_vector" <=> '[0.5, -1.0]'::vector
LIMIT 10
) AS nearest
WHERE distance IS NOT NULL
ORDER BY distance, key;

SELECT distance, key, text FROM (
SELECT t."passage_vector" <=> '[0.5, -1.0]'::vector AS distance, concat_ws(', ', t."id"::text, t."part"::text) AS key, t."passage"::text AS text
FROM "public"."passage" t
ORDER BY t."passage_vector" <=> '[0.5, -1.0]'::vector
LIMIT 10
) AS nearest
WHERE distance IS NOT NULL
ORDER BY distance, key;

SELECT count(t."passage_vector"), count(*) - count(t."passage_vector"), max(vector_dims(t."passage_vector")), coalesce(sum(pg_column_size(t."passage_vector")), 0) FROM "public"."passage" t;

DROP TRIGGER IF EXISTS "_jammi_column_51dc687925229083" ON "public"."passage";

DROP FUNCTION IF EXISTS "public"."_jammi_column_51dc687925229083"();

CREATE FUNCTION "public"."_jammi_column_51dc687925229083"() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF (NEW)."passage"::text COLLATE "C" IS DISTINCT FROM (OLD)."passage"::text COLLATE "C" THEN IF (NEW)."passage_vector"::text IS NOT DISTINCT FROM (OLD)."passage_vector"::text THEN NEW."passage_vector" := NULL; END IF; END IF; RETURN NEW; END';

CREATE TRIGGER "_jammi_column_51dc687925229083" BEFORE UPDATE ON "public"."passage" FOR EACH ROW EXECUTE FUNCTION "public"."_jammi_column_51dc687925229083"();

SELECT count(*) FROM pg_trigger WHERE tgrelid = 7 AND tgname = '_jammi_column_51dc687925229083';

CREATE INDEX IF NOT EXISTS "_jammi_column_51dc687925229083_index" ON "public"."passage" USING hnsw ("passage_vector" vector_cosine_ops);

SELECT count(*) FROM pg_indexes WHERE schemaname = 'public' AND indexname = '_jammi_column_51dc687925229083_index';

DROP INDEX IF EXISTS "public"."_jammi_column_51dc687925229083_index";

