-- apikeys:expand
-- Modify "api_key_usage" table
ALTER TABLE "api_key_usage" ADD COLUMN "last_ip" character varying NOT NULL DEFAULT '', ADD COLUMN "last_user_agent" character varying NOT NULL DEFAULT '', ADD COLUMN "addresses_day" bigint NOT NULL DEFAULT 0, ADD COLUMN "addresses_count" bigint NOT NULL DEFAULT 0, ADD COLUMN "addresses" bytea NULL;
-- Create "api_key_refusals" table
CREATE TABLE "api_key_refusals" ("id" character varying NOT NULL, "key_id" character varying NOT NULL, "at" bigint NOT NULL, "code" character varying NOT NULL, "via" character varying NOT NULL, "ip" character varying NOT NULL, "user_agent" character varying NOT NULL, "actor_kind" character varying NOT NULL, "actor_id" character varying NOT NULL, "actor_name" character varying NOT NULL, PRIMARY KEY ("id"));
-- Create index "apikeyrefusal_key_id_id" to table: "api_key_refusals"
CREATE INDEX "apikeyrefusal_key_id_id" ON "api_key_refusals" ("key_id", "id");
-- Create "api_key_refusal_totals" table
CREATE TABLE "api_key_refusal_totals" ("id" character varying NOT NULL, "total" bigint NOT NULL, PRIMARY KEY ("id"));
