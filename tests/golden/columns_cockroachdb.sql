ALTER TABLE "public"."passage" ADD COLUMN "passage_vector" vector(384);

SELECT count(*) FROM "public"."passage" t WHERE t."passage_vector" IS NULL AND (t."passage"::text ~  E'[^\\x{0}-\\x{20}\\x{7F}-\\x{A0}\\x{AD}-\\x{AD}\\x{34F}-\\x{34F}\\x{61C}-\\x{61C}\\x{115F}-\\x{1160}\\x{1680}-\\x{1680}\\x{17B4}-\\x{17B5}\\x{180B}-\\x{180F}\\x{2000}-\\x{200F}\\x{2028}-\\x{202F}\\x{205F}-\\x{206F}\\x{3000}-\\x{3000}\\x{3164}-\\x{3164}\\x{FE00}-\\x{FE0F}\\x{FEFF}-\\x{FEFF}\\x{FFA0}-\\x{FFA0}\\x{FFF0}-\\x{FFFB}\\x{1BCA0}-\\x{1BCA3}\\x{1D173}-\\x{1D17A}\\x{E0000}-\\x{E0FFF}]') IS TRUE;

SELECT count(*) FROM "public"."passage" t WHERE t."passage_vector" IS NULL AND (t."passage"::text ~  E'[^\\x{0}-\\x{20}\\x{7F}-\\x{A0}\\x{AD}-\\x{AD}\\x{34F}-\\x{34F}\\x{61C}-\\x{61C}\\x{115F}-\\x{1160}\\x{1680}-\\x{1680}\\x{17B4}-\\x{17B5}\\x{180B}-\\x{180F}\\x{2000}-\\x{200F}\\x{2028}-\\x{202F}\\x{205F}-\\x{206F}\\x{3000}-\\x{3000}\\x{3164}-\\x{3164}\\x{FE00}-\\x{FE0F}\\x{FEFF}-\\x{FEFF}\\x{FFA0}-\\x{FFA0}\\x{FFF0}-\\x{FFFB}\\x{1BCA0}-\\x{1BCA3}\\x{1D173}-\\x{1D17A}\\x{E0000}-\\x{E0FFF}]') IS NOT TRUE;

SELECT t."passage"::text, t."id"::text, t."part"::text FROM "public"."passage" t WHERE t."passage_vector" IS NULL AND t."passage"::text ~  E'[^\\x{0}-\\x{20}\\x{7F}-\\x{A0}\\x{AD}-\\x{AD}\\x{34F}-\\x{34F}\\x{61C}-\\x{61C}\\x{115F}-\\x{1160}\\x{1680}-\\x{1680}\\x{17B4}-\\x{17B5}\\x{180B}-\\x{180F}\\x{2000}-\\x{200F}\\x{2028}-\\x{202F}\\x{205F}-\\x{206F}\\x{3000}-\\x{3000}\\x{3164}-\\x{3164}\\x{FE00}-\\x{FE0F}\\x{FEFF}-\\x{FEFF}\\x{FFA0}-\\x{FFA0}\\x{FFF0}-\\x{FFFB}\\x{1BCA0}-\\x{1BCA3}\\x{1D173}-\\x{1D17A}\\x{E0000}-\\x{E0FFF}]' ORDER BY t."id", t."part" LIMIT 1000;

SELECT t."passage"::text, t."id"::text, t."part"::text, t."passage", t."id", t."part" FROM "public"."passage" t WHERE t."passage_vector" IS NULL AND t."passage"::text ~  E'[^\\x{0}-\\x{20}\\x{7F}-\\x{A0}\\x{AD}-\\x{AD}\\x{34F}-\\x{34F}\\x{61C}-\\x{61C}\\x{115F}-\\x{1160}\\x{1680}-\\x{1680}\\x{17B4}-\\x{17B5}\\x{180B}-\\x{180F}\\x{2000}-\\x{200F}\\x{2028}-\\x{202F}\\x{205F}-\\x{206F}\\x{3000}-\\x{3000}\\x{3164}-\\x{3164}\\x{FE00}-\\x{FE0F}\\x{FEFF}-\\x{FEFF}\\x{FFA0}-\\x{FFA0}\\x{FFF0}-\\x{FFFB}\\x{1BCA0}-\\x{1BCA3}\\x{1D173}-\\x{1D17A}\\x{E0000}-\\x{E0FFF}]' AND (t."id", t."part") > ('02e2e3af-821e-4a3e-8115-ccb9d7042df9'::uuid, 'it''s'::character varying(20)) ORDER BY t."id", t."part" LIMIT 1000;

UPDATE "public"."passage" AS t SET "passage_vector" = g.vector::vector FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS g ("key0", "key1", "was", "vector") WHERE t."id" = g."key0"::uuid AND t."part" = g."key1"::character varying(20) AND t."passage"::text = g.was AND t."passage_vector" IS NULL;

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

SELECT count(t."passage_vector"), count(*) - count(t."passage_vector"), max(vector_dims(t."passage_vector")), coalesce(sum(pg_column_size(t."passage_vector")), 0) FROM "public"."passage" t AS OF SYSTEM TIME follower_read_timestamp();

DROP TRIGGER IF EXISTS "_jammi_column_51dc687925229083" ON "public"."passage";

DROP FUNCTION IF EXISTS "public"."_jammi_column_51dc687925229083"();

CREATE FUNCTION "public"."_jammi_column_51dc687925229083"() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF (NEW)."passage"::text IS DISTINCT FROM (OLD)."passage"::text THEN IF (NEW)."passage_vector"::text IS NOT DISTINCT FROM (OLD)."passage_vector"::text THEN NEW."passage_vector" := NULL; END IF; END IF; RETURN NEW; END';

CREATE TRIGGER "_jammi_column_51dc687925229083" BEFORE UPDATE ON "public"."passage" FOR EACH ROW EXECUTE FUNCTION "public"."_jammi_column_51dc687925229083"();

SELECT count(*) FROM pg_trigger WHERE tgrelid = 7 AND tgname = '_jammi_column_51dc687925229083';

CREATE VECTOR INDEX IF NOT EXISTS "_jammi_column_51dc687925229083_index" ON "public"."passage" ("passage_vector" vector_cosine_ops);

SELECT count(*) FROM pg_indexes WHERE schemaname = 'public' AND indexname = '_jammi_column_51dc687925229083_index';

DROP INDEX IF EXISTS "public"."passage"@"_jammi_column_51dc687925229083_index";

