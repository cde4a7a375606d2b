-- Create "usage_units" table
CREATE TABLE `usage_units` (`id` integer NOT NULL PRIMARY KEY AUTOINCREMENT, `organization_id` text NOT NULL, `kind` text NOT NULL, `width` integer NOT NULL, `start` integer NOT NULL, `name` text NOT NULL, `calls` integer NOT NULL, `units` integer NOT NULL);
-- Create index "usageunit_organization_id_kind_width_start_name" to table: "usage_units"
CREATE UNIQUE INDEX `usageunit_organization_id_kind_width_start_name` ON `usage_units` (`organization_id`, `kind`, `width`, `start`, `name`);
-- Create index "usageunit_kind_width_start_organization_id_name" to table: "usage_units"
CREATE INDEX `usageunit_kind_width_start_organization_id_name` ON `usage_units` (`kind`, `width`, `start`, `organization_id`, `name`);
