-- apikeys:expand
-- Add column "rate_limit_mode" to table: "api_keys"
ALTER TABLE `api_keys` ADD COLUMN `rate_limit_mode` text NULL;
-- Create "api_key_rate_limits" table
CREATE TABLE `api_key_rate_limits` (`id` text NOT NULL, `requests` integer NOT NULL DEFAULT (0), `window_seconds` integer NOT NULL DEFAULT (0), `debt` integer NOT NULL DEFAULT (0), `at` integer NOT NULL DEFAULT (0), `slot` integer NOT NULL DEFAULT (0), `reserved` integer NOT NULL DEFAULT (0), `reserved_before` integer NOT NULL DEFAULT (0), PRIMARY KEY (`id`));
