-- apikeys:expand
-- Add column "external_id" to table: "api_keys"
ALTER TABLE `api_keys` ADD COLUMN `external_id` text NULL;
-- Create "idempotency_records" table
CREATE TABLE `idempotency_records` (`id` text NOT NULL, `organization_id` text NOT NULL, `sealed_key_id` text NOT NULL, `request` blob NOT NULL, `answer` blob NULL, `size` integer NOT NULL, `claim` text NOT NULL DEFAULT (''), `claimed_until` integer NULL, `expires_at` integer NOT NULL, PRIMARY KEY (`id`));
-- Create index "idempotencyrecord_expires_at" to table: "idempotency_records"
CREATE INDEX `idempotencyrecord_expires_at` ON `idempotency_records` (`expires_at`);
-- Create "idempotency_usage" table
CREATE TABLE `idempotency_usage` (`id` text NOT NULL, `records` integer NOT NULL DEFAULT (0), `bytes` integer NOT NULL DEFAULT (0), PRIMARY KEY (`id`));
-- Create index "apikey_organization_id_external_id" to table: "api_keys"
CREATE UNIQUE INDEX `apikey_organization_id_external_id` ON `api_keys` (`organization_id`, `external_id`) WHERE external_id IS NOT NULL;
