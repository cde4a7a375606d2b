-- apikeys:expand
-- Modify "api_keys" table
ALTER TABLE "api_keys" ADD COLUMN "created_by_name" character varying NOT NULL DEFAULT '';
-- Modify "events" table
ALTER TABLE "events" ADD COLUMN "actor_name" character varying NOT NULL DEFAULT '';
-- Create index "event_actor_id_id" to table: "events"
CREATE INDEX "event_actor_id_id" ON "events" ("actor_id", "id");
-- Create index "event_organization_id_actor_id_id" to table: "events"
CREATE INDEX "event_organization_id_actor_id_id" ON "events" ("organization_id", "actor_id", "id");
-- Modify "webhooks" table
ALTER TABLE "webhooks" ADD COLUMN "created_by_name" character varying NOT NULL DEFAULT '';
-- Create "access_tokens" table
CREATE TABLE "access_tokens" ("id" character varying NOT NULL, "name" character varying NOT NULL, "description" character varying NOT NULL DEFAULT '', "scopes" jsonb NOT NULL, "organizations" jsonb NOT NULL, "ip_allow_list" jsonb NULL, "expires_at" bigint NULL, "created_at" bigint NOT NULL, "updated_at" bigint NULL, "created_by_kind" character varying NOT NULL, "created_by_id" character varying NOT NULL, "created_by_name" character varying NOT NULL, "secret_hash" bytea NOT NULL, "pepper_id" character varying NOT NULL, "secret_mask" character varying NOT NULL, "previous_hash" bytea NULL, "previous_pepper_id" character varying NOT NULL DEFAULT '', "previous_mask" character varying NOT NULL DEFAULT '', "previous_expires_at" bigint NULL, "rotations" bigint NOT NULL DEFAULT 0, "version" bigint NOT NULL, PRIMARY KEY ("id"));
-- Create index "access_tokens_secret_hash_key" to table: "access_tokens"
CREATE UNIQUE INDEX "access_tokens_secret_hash_key" ON "access_tokens" ("secret_hash");
-- Create index "accesstoken_created_by_id_id" to table: "access_tokens"
CREATE INDEX "accesstoken_created_by_id_id" ON "access_tokens" ("created_by_id", "id");
-- Create index "accesstoken_previous_hash" to table: "access_tokens"
CREATE UNIQUE INDEX "accesstoken_previous_hash" ON "access_tokens" ("previous_hash") WHERE (previous_hash IS NOT NULL);
-- Create "access_token_uses" table
CREATE TABLE "access_token_uses" ("id" character varying NOT NULL, "used_at" bigint NOT NULL, "address" character varying NOT NULL DEFAULT '', PRIMARY KEY ("id"));
