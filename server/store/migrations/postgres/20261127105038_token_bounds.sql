-- apikeys:expand
-- Modify "access_tokens" table
ALTER TABLE "access_tokens" ADD COLUMN "counted_for" character varying NOT NULL DEFAULT '';
-- Create index "accesstoken_counted_for_created_by_id" to table: "access_tokens"
CREATE INDEX "accesstoken_counted_for_created_by_id" ON "access_tokens" ("counted_for", "created_by_id");
