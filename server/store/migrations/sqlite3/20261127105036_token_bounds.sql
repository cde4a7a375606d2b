-- Disable the enforcement of foreign-keys constraints
PRAGMA foreign_keys = off;
-- Create "new_access_tokens" table
CREATE TABLE `new_access_tokens` (`id` text NOT NULL, `name` text NOT NULL, `description` text NOT NULL DEFAULT (''), `scopes` json NOT NULL, `organizations` json NOT NULL, `ip_allow_list` json NULL, `expires_at` integer NULL, `created_at` integer NOT NULL, `updated_at` integer NULL, `created_by_kind` text NOT NULL, `created_by_id` text NOT NULL, `created_by_name` text NOT NULL, `secret_hash` blob NOT NULL, `pepper_id` text NOT NULL, `secret_mask` text NOT NULL, `previous_hash` blob NULL, `previous_pepper_id` text NOT NULL DEFAULT (''), `previous_mask` text NOT NULL DEFAULT (''), `previous_expires_at` integer NULL, `rotations` integer NOT NULL DEFAULT (0), `version` integer NOT NULL, `counted_for` text NOT NULL DEFAULT (''), PRIMARY KEY (`id`));
-- Copy rows from old table "access_tokens" to new temporary table "new_access_tokens"
INSERT INTO `new_access_tokens` (`id`, `name`, `description`, `scopes`, `organizations`, `ip_allow_list`, `expires_at`, `created_at`, `updated_at`, `created_by_kind`, `created_by_id`, `created_by_name`, `secret_hash`, `pepper_id`, `secret_mask`, `previous_hash`, `previous_pepper_id`, `previous_mask`, `previous_expires_at`, `rotations`, `version`) SELECT `id`, `name`, `description`, `scopes`, `organizations`, `ip_allow_list`, `expires_at`, `created_at`, `updated_at`, `created_by_kind`, `created_by_id`, `created_by_name`, `secret_hash`, `pepper_id`, `secret_mask`, `previous_hash`, `previous_pepper_id`, `previous_mask`, `previous_expires_at`, `rotations`, `version` FROM `access_tokens`;
-- Drop "access_tokens" table after copying rows
DROP TABLE `access_tokens`;
-- Rename temporary table "new_access_tokens" to "access_tokens"
ALTER TABLE `new_access_tokens` RENAME TO `access_tokens`;
-- Create index "access_tokens_secret_hash_key" to table: "access_tokens"
CREATE UNIQUE INDEX `access_tokens_secret_hash_key` ON `access_tokens` (`secret_hash`);
-- Create index "accesstoken_previous_hash" to table: "access_tokens"
CREATE UNIQUE INDEX `accesstoken_previous_hash` ON `access_tokens` (`previous_hash`) WHERE previous_hash IS NOT NULL;
-- Create index "accesstoken_created_by_id_id" to table: "access_tokens"
CREATE INDEX `accesstoken_created_by_id_id` ON `access_tokens` (`created_by_id`, `id`);
-- Create index "accesstoken_counted_for_created_by_id" to table: "access_tokens"
CREATE INDEX `accesstoken_counted_for_created_by_id` ON `access_tokens` (`counted_for`, `created_by_id`);
-- Enable back the enforcement of foreign-keys constraints
PRAGMA foreign_keys = on;
