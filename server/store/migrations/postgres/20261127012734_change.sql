-- apikeys:expand
-- Modify "api_keys" table
ALTER TABLE "api_keys" ADD COLUMN "rate_limit_mode" character varying NULL;
-- Create "api_key_rate_limits" table
CREATE TABLE "api_key_rate_limits" ("id" character varying NOT NULL, "requests" bigint NOT NULL DEFAULT 0, "window_seconds" bigint NOT NULL DEFAULT 0, "debt" bigint NOT NULL DEFAULT 0, "at" bigint NOT NULL DEFAULT 0, "slot" bigint NOT NULL DEFAULT 0, "reserved" bigint NOT NULL DEFAULT 0, "reserved_before" bigint NOT NULL DEFAULT 0, PRIMARY KEY ("id"));
