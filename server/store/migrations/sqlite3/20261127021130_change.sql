-- apikeys:expand
-- Create "leases" table
CREATE TABLE `leases` (`name` text NOT NULL, `holder` text NOT NULL, `token` integer NOT NULL, `until` datetime NOT NULL, PRIMARY KEY (`name`));
