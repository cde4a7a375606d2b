-- Create "api_keys" table
CREATE TABLE `api_keys` (`id` text NOT NULL, `organization_id` text NOT NULL, `label` text NOT NULL, `description` text NOT NULL DEFAULT (''), `scopes` json NULL, `ip_allow_list` json NULL, `expires_at` integer NULL, `created_at` integer NOT NULL, `updated_at` integer NULL, `created_by_kind` text NOT NULL, `created_by_id` text NOT NULL, `enabled` bool NOT NULL, `mode` text NOT NULL, `key_format` text NOT NULL, `owner_id` text NOT NULL DEFAULT (''), `metadata` json NULL, `rate_limit_requests` integer NOT NULL DEFAULT (0), `rate_limit_window` integer NOT NULL DEFAULT (0), `quota_limit` integer NOT NULL DEFAULT (0), `quota_refill` text NOT NULL DEFAULT (''), `quota_refill_day` integer NOT NULL DEFAULT (0), `revoked_at` integer NULL, `revoke_reason` text NOT NULL DEFAULT (''), `secret_hash` blob NOT NULL, `pepper_id` text NOT NULL, `secret_mask` text NOT NULL, `edge_hash` blob NOT NULL, `previous_hash` blob NULL, `previous_pepper_id` text NOT NULL DEFAULT (''), `previous_mask` text NOT NULL DEFAULT (''), `previous_edge_hash` blob NULL, `previous_expires_at` integer NULL, `rotations` integer NOT NULL DEFAULT (0), `notice_at` integer NULL, `version` integer NOT NULL, PRIMARY KEY (`id`));
-- Create index "api_keys_secret_hash_key" to table: "api_keys"
CREATE UNIQUE INDEX `api_keys_secret_hash_key` ON `api_keys` (`secret_hash`);
-- Create index "apikey_organization_id_id" to table: "api_keys"
CREATE INDEX `apikey_organization_id_id` ON `api_keys` (`organization_id`, `id`);
-- Create index "apikey_organization_id_owner_id_id" to table: "api_keys"
CREATE INDEX `apikey_organization_id_owner_id_id` ON `api_keys` (`organization_id`, `owner_id`, `id`);
-- Create index "apikey_organization_id_created_by_id_id" to table: "api_keys"
CREATE INDEX `apikey_organization_id_created_by_id_id` ON `api_keys` (`organization_id`, `created_by_id`, `id`);
-- Create index "apikey_previous_hash" to table: "api_keys"
CREATE UNIQUE INDEX `apikey_previous_hash` ON `api_keys` (`previous_hash`) WHERE previous_hash IS NOT NULL;
-- Create index "apikey_notice_at_id" to table: "api_keys"
CREATE INDEX `apikey_notice_at_id` ON `api_keys` (`notice_at`, `id`) WHERE notice_at IS NOT NULL;
-- Create "api_key_quotas" table
CREATE TABLE `api_key_quotas` (`id` text NOT NULL, `remaining` integer NOT NULL, `refilled_at` integer NULL, `epoch` integer NOT NULL, PRIMARY KEY (`id`));
-- Create "api_key_usage" table
CREATE TABLE `api_key_usage` (`id` text NOT NULL, `total_requests` integer NOT NULL, `last_used_at` integer NOT NULL, `previous_rotation` integer NOT NULL DEFAULT (0), `previous_requests` integer NOT NULL DEFAULT (0), `previous_last_used_at` integer NULL, PRIMARY KEY (`id`));
-- Create "deliveries" table
CREATE TABLE `deliveries` (`id` text NOT NULL, `webhook_id` text NOT NULL, `organization_id` text NOT NULL, `event_position` integer NOT NULL, `event_id` text NOT NULL, `event` text NOT NULL, `resource_id` text NOT NULL, `url` text NOT NULL, `format` text NOT NULL, `state` text NOT NULL, `trigger` text NOT NULL DEFAULT (''), `attempts` integer NOT NULL DEFAULT (0), `failures` integer NOT NULL DEFAULT (0), `response_status` integer NOT NULL DEFAULT (0), `response_body` blob NULL, `error_class` text NOT NULL DEFAULT (''), `error_message` text NOT NULL DEFAULT (''), `next_attempt_at` integer NULL, `delay` integer NOT NULL DEFAULT (0), `created_at` integer NOT NULL, `updated_at` integer NULL, `first_sent_at` integer NULL, `ended_at` integer NULL, `due_at` integer NULL, `lease` text NOT NULL DEFAULT (''), PRIMARY KEY (`id`));
-- Create index "delivery_webhook_id_event_position" to table: "deliveries"
CREATE UNIQUE INDEX `delivery_webhook_id_event_position` ON `deliveries` (`webhook_id`, `event_position`);
-- Create index "delivery_webhook_id_due_at" to table: "deliveries"
CREATE INDEX `delivery_webhook_id_due_at` ON `deliveries` (`webhook_id`, `due_at`) WHERE due_at IS NOT NULL;
-- Create index "delivery_organization_id_id" to table: "deliveries"
CREATE INDEX `delivery_organization_id_id` ON `deliveries` (`organization_id`, `id`);
-- Create index "delivery_ended_at" to table: "deliveries"
CREATE INDEX `delivery_ended_at` ON `deliveries` (`ended_at`) WHERE ended_at IS NOT NULL;
-- Create index "delivery_event_position" to table: "deliveries"
CREATE INDEX `delivery_event_position` ON `deliveries` (`event_position`) WHERE ended_at IS NULL;
-- Create "delivery_attempts" table
CREATE TABLE `delivery_attempts` (`id` integer NOT NULL PRIMARY KEY AUTOINCREMENT, `delivery_id` text NOT NULL, `number` integer NOT NULL, `trigger` text NOT NULL, `url` text NOT NULL, `started_at` integer NOT NULL, `duration` integer NOT NULL, `response_status` integer NOT NULL, `response_body` blob NULL, `error_class` text NOT NULL, `error_message` text NOT NULL);
-- Create index "deliveryattempt_delivery_id_number" to table: "delivery_attempts"
CREATE UNIQUE INDEX `deliveryattempt_delivery_id_number` ON `delivery_attempts` (`delivery_id`, `number`);
-- Create "events" table
CREATE TABLE `events` (`id` integer NOT NULL, `event_id` text NOT NULL, `organization_id` text NOT NULL, `type` text NOT NULL, `resource_id` text NOT NULL, `changes` json NULL, `actor_kind` text NOT NULL, `actor_id` text NOT NULL, `request_id` text NOT NULL, `created_at` integer NOT NULL, `payload` blob NOT NULL, PRIMARY KEY (`id`));
-- Create index "event_organization_id_id" to table: "events"
CREATE INDEX `event_organization_id_id` ON `events` (`organization_id`, `id`);
-- Create "fan_out_positions" table
CREATE TABLE `fan_out_positions` (`organization_id` text NOT NULL, `position` integer NOT NULL, `webhook_id` text NOT NULL DEFAULT (''), PRIMARY KEY (`organization_id`));
-- Create "operator_tokens" table
CREATE TABLE `operator_tokens` (`id` text NOT NULL, `hash` blob NOT NULL, `pepper_id` text NOT NULL, `created_at` integer NOT NULL, PRIMARY KEY (`id`));
-- Create index "operator_tokens_hash_key" to table: "operator_tokens"
CREATE UNIQUE INDEX `operator_tokens_hash_key` ON `operator_tokens` (`hash`);
-- Create "revisions" table
CREATE TABLE `revisions` (`id` integer NOT NULL, `position` integer NOT NULL, PRIMARY KEY (`id`));
-- Create "settings" table
CREATE TABLE `settings` (`id` text NOT NULL, `value` text NOT NULL, PRIMARY KEY (`id`));
-- Create "usage_buckets" table
CREATE TABLE `usage_buckets` (`id` integer NOT NULL PRIMARY KEY AUTOINCREMENT, `organization_id` text NOT NULL, `key_id` text NOT NULL, `width` integer NOT NULL, `start` integer NOT NULL, `code` text NOT NULL, `count` integer NOT NULL);
-- Create index "usagebucket_organization_id_key_id_width_start_code" to table: "usage_buckets"
CREATE UNIQUE INDEX `usagebucket_organization_id_key_id_width_start_code` ON `usage_buckets` (`organization_id`, `key_id`, `width`, `start`, `code`);
-- Create index "usagebucket_organization_id_width_start" to table: "usage_buckets"
CREATE INDEX `usagebucket_organization_id_width_start` ON `usage_buckets` (`organization_id`, `width`, `start`);
-- Create index "usagebucket_width_start" to table: "usage_buckets"
CREATE INDEX `usagebucket_width_start` ON `usage_buckets` (`width`, `start`);
-- Create "webhooks" table
CREATE TABLE `webhooks` (`id` text NOT NULL, `organization_id` text NOT NULL, `label` text NOT NULL, `description` text NOT NULL DEFAULT (''), `url` text NOT NULL, `events` json NOT NULL, `format` text NOT NULL, `enabled` bool NOT NULL, `disabled_reason` text NOT NULL DEFAULT (''), `sealed_key_id` text NOT NULL, `sealed` blob NOT NULL, `secret_mask` text NOT NULL, `created_at` integer NOT NULL, `created_by_kind` text NOT NULL, `created_by_id` text NOT NULL, `updated_at` integer NULL, `last_success_at` integer NULL, `last_error_class` text NOT NULL DEFAULT (''), `last_error_message` text NOT NULL DEFAULT (''), `failing_since` integer NULL, `failing_warned` bool NOT NULL DEFAULT (false), `version` integer NOT NULL, PRIMARY KEY (`id`));
-- Create index "webhook_organization_id_id" to table: "webhooks"
CREATE INDEX `webhook_organization_id_id` ON `webhooks` (`organization_id`, `id`);
-- Create "webhook_terms" table
CREATE TABLE `webhook_terms` (`from_position` integer NOT NULL, `webhook_id` text NOT NULL, `organization_id` text NOT NULL, `until_position` integer NULL, `url` text NOT NULL, `events` json NOT NULL, `format` text NOT NULL, PRIMARY KEY (`from_position`));
-- Create index "webhookterm_organization_id_webhook_id" to table: "webhook_terms"
CREATE INDEX `webhookterm_organization_id_webhook_id` ON `webhook_terms` (`organization_id`, `webhook_id`);
