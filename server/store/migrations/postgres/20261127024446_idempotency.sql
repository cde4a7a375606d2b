-- apikeys:expand
-- Modify "api_keys" table
ALTER TABLE "api_keys" ADD COLUMN "external_id" character varying NULL;
-- Create "idempotency_records" table
CREATE TABLE "idempotency_records" ("id" character varying NOT NULL, "organization_id" character varying NOT NULL, "sealed_key_id" character varying NOT NULL, "request" bytea NOT NULL, "answer" bytea NULL, "size" bigint NOT NULL, "claim" character varying NOT NULL DEFAULT '', "claimed_until" bigint NULL, "expires_at" bigint NOT NULL, PRIMARY KEY ("id"));
-- Create index "idempotencyrecord_expires_at" to table: "idempotency_records"
CREATE INDEX "idempotencyrecord_expires_at" ON "idempotency_records" ("expires_at");
-- Create "idempotency_usage" table
CREATE TABLE "idempotency_usage" ("id" character varying NOT NULL, "records" bigint NOT NULL DEFAULT 0, "bytes" bigint NOT NULL DEFAULT 0, PRIMARY KEY ("id"));
-- Create index "apikey_organization_id_external_id" to table: "api_keys"
CREATE UNIQUE INDEX "apikey_organization_id_external_id" ON "api_keys" ("organization_id", "external_id") WHERE (external_id IS NOT NULL);
