-- apikeys:expand
-- Create "leases" table
CREATE TABLE "leases" ("name" character varying NOT NULL, "holder" character varying NOT NULL, "token" bigint NOT NULL, "until" timestamptz NOT NULL, PRIMARY KEY ("name"));
