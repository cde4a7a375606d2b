-- apikeys:expand
-- Columns that are added in place: the tables can be large.
-- Add column "created_by_name" to table: "api_keys"
ALTER TABLE `api_keys` ADD COLUMN `created_by_name` text NOT NULL DEFAULT ('');
-- Add column "actor_name" to table: "events"
ALTER TABLE `events` ADD COLUMN `actor_name` text NOT NULL DEFAULT ('');
-- Create index "event_organization_id_actor_id_id" to table: "events"
CREATE INDEX `event_organization_id_actor_id_id` ON `events` (`organization_id`, `actor_id`, `id`);
-- Create index "event_actor_id_id" to table: "events"
CREATE INDEX `event_actor_id_id` ON `events` (`actor_id`, `id`);
-- Add column "created_by_name" to table: "webhooks"
ALTER TABLE `webhooks` ADD COLUMN `created_by_name` text NOT NULL DEFAULT ('');
-- Create "access_tokens" table
CREATE TABLE `access_tokens` (`id` text NOT NULL, `name` text NOT NULL, `description` text NOT NULL DEFAULT (''), `scopes` json NOT NULL, `organizations` json NOT NULL, `ip_allow_list` json NULL, `expires_at` integer NULL, `created_at` integer NOT NULL, `updated_at` integer NULL, `created_by_kind` text NOT NULL, `created_by_id` text NOT NULL, `created_by_name` text NOT NULL, `secret_hash` blob NOT NULL, `pepper_id` text NOT NULL, `secret_mask` text NOT NULL, `previous_hash` blob NULL, `previous_pepper_id` text NOT NULL DEFAULT (''), `previous_mask` text NOT NULL DEFAULT (''), `previous_expires_at` integer NULL, `rotations` integer NOT NULL DEFAULT (0), `version` integer NOT NULL, PRIMARY KEY (`id`));
-- Create index "access_tokens_secret_hash_key" to table: "access_tokens"
CREATE UNIQUE INDEX `access_tokens_secret_hash_key` ON `access_tokens` (`secret_hash`);
-- Create index "accesstoken_previous_hash" to table: "access_tokens"
CREATE UNIQUE INDEX `accesstoken_previous_hash` ON `access_tokens` (`previous_hash`) WHERE previous_hash IS NOT NULL;
-- Create index "accesstoken_created_by_id_id" to table: "access_tokens"
CREATE INDEX `accesstoken_created_by_id_id` ON `access_tokens` (`created_by_id`, `id`);
-- Create "access_token_uses" table
CREATE TABLE `access_token_uses` (`id` text NOT NULL, `used_at` integer NOT NULL, `address` text NOT NULL DEFAULT (''), PRIMARY KEY (`id`));
