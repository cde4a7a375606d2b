-- Disable the enforcement of foreign-keys constraints
PRAGMA foreign_keys = off;
-- Create "new_api_key_usage" table
CREATE TABLE `new_api_key_usage` (`id` text NOT NULL, `total_requests` integer NOT NULL, `last_used_at` integer NOT NULL, `previous_rotation` integer NOT NULL DEFAULT (0), `previous_requests` integer NOT NULL DEFAULT (0), `previous_last_used_at` integer NULL, `last_ip` text NOT NULL DEFAULT (''), `last_user_agent` text NOT NULL DEFAULT (''), `addresses_day` integer NOT NULL DEFAULT (0), `addresses_count` integer NOT NULL DEFAULT (0), `addresses` blob NULL, PRIMARY KEY (`id`));
-- Copy rows from old table "api_key_usage" to new temporary table "new_api_key_usage"
INSERT INTO `new_api_key_usage` (`id`, `total_requests`, `last_used_at`, `previous_rotation`, `previous_requests`, `previous_last_used_at`) SELECT `id`, `total_requests`, `last_used_at`, `previous_rotation`, `previous_requests`, `previous_last_used_at` FROM `api_key_usage`;
-- Drop "api_key_usage" table after copying rows
DROP TABLE `api_key_usage`;
-- Rename temporary table "new_api_key_usage" to "api_key_usage"
ALTER TABLE `new_api_key_usage` RENAME TO `api_key_usage`;
-- Create "api_key_refusals" table
CREATE TABLE `api_key_refusals` (`id` text NOT NULL, `key_id` text NOT NULL, `at` integer NOT NULL, `code` text NOT NULL, `via` text NOT NULL, `ip` text NOT NULL, `user_agent` text NOT NULL, `actor_kind` text NOT NULL, `actor_id` text NOT NULL, `actor_name` text NOT NULL, PRIMARY KEY (`id`));
-- Create index "apikeyrefusal_key_id_id" to table: "api_key_refusals"
CREATE INDEX `apikeyrefusal_key_id_id` ON `api_key_refusals` (`key_id`, `id`);
-- Create "api_key_refusal_totals" table
CREATE TABLE `api_key_refusal_totals` (`id` text NOT NULL, `total` integer NOT NULL, PRIMARY KEY (`id`));
-- Enable back the enforcement of foreign-keys constraints
PRAGMA foreign_keys = on;
