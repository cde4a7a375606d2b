-- Create "delivery_counts" table
CREATE TABLE `delivery_counts` (`id` integer NOT NULL PRIMARY KEY AUTOINCREMENT, `organization_id` text NOT NULL, `start` integer NOT NULL, `event` text NOT NULL, `slot` integer NOT NULL, `made` integer NOT NULL DEFAULT (0), `delivered` integer NOT NULL DEFAULT (0), `failed` integer NOT NULL DEFAULT (0), `cancelled` integer NOT NULL DEFAULT (0), `attempted` integer NOT NULL DEFAULT (0), `retried` integer NOT NULL DEFAULT (0), `delay` integer NOT NULL DEFAULT (0));
-- Create index "deliverycount_organization_id_start_event_slot" to table: "delivery_counts"
CREATE UNIQUE INDEX `deliverycount_organization_id_start_event_slot` ON `delivery_counts` (`organization_id`, `start`, `event`, `slot`);
-- Create index "deliverycount_start" to table: "delivery_counts"
CREATE INDEX `deliverycount_start` ON `delivery_counts` (`start`);
-- Create "delivery_delays" table
CREATE TABLE `delivery_delays` (`id` integer NOT NULL PRIMARY KEY AUTOINCREMENT, `organization_id` text NOT NULL, `start` integer NOT NULL, `least` integer NOT NULL, `slot` integer NOT NULL, `count` integer NOT NULL);
-- Create index "deliverydelay_organization_id_start_least_slot" to table: "delivery_delays"
CREATE UNIQUE INDEX `deliverydelay_organization_id_start_least_slot` ON `delivery_delays` (`organization_id`, `start`, `least`, `slot`);
-- Create index "deliverydelay_start" to table: "delivery_delays"
CREATE INDEX `deliverydelay_start` ON `delivery_delays` (`start`);
-- Create "delivery_failures" table
CREATE TABLE `delivery_failures` (`id` integer NOT NULL PRIMARY KEY AUTOINCREMENT, `organization_id` text NOT NULL, `start` integer NOT NULL, `url` text NOT NULL, `slot` integer NOT NULL, `attempts` integer NOT NULL, `deliveries` integer NOT NULL);
-- Create index "deliveryfailure_organization_id_start_url_slot" to table: "delivery_failures"
CREATE UNIQUE INDEX `deliveryfailure_organization_id_start_url_slot` ON `delivery_failures` (`organization_id`, `start`, `url`, `slot`);
-- Create index "deliveryfailure_start" to table: "delivery_failures"
CREATE INDEX `deliveryfailure_start` ON `delivery_failures` (`start`);
-- What is kept there by triggers, for servers too that do not know of it: see store/delivery_counts.go.
DELIMITER //
CREATE TRIGGER delivery_counts_insert AFTER INSERT ON deliveries BEGIN
  INSERT INTO delivery_counts (organization_id, start, event, slot, made, cancelled)
    SELECT NEW.organization_id, (at - at % 3600000) * 1000, NEW.event, 0, 1, NEW.state = 'cancelled' FROM (SELECT '0x' || replace(substr(NEW.id, 10, 13), '-', '') ->> '$' AS at) WHERE true
    ON CONFLICT (organization_id, start, event, slot) DO UPDATE SET made = made + 1, cancelled = cancelled + excluded.cancelled;
END//
CREATE TRIGGER delivery_counts_update AFTER UPDATE OF state, attempts ON deliveries
WHEN OLD.state <> NEW.state OR OLD.attempts <> NEW.attempts BEGIN
  INSERT INTO delivery_counts (organization_id, start, event, slot, delivered, failed, cancelled, attempted, retried, delay)
    SELECT NEW.organization_id, (at - at % 3600000) * 1000, NEW.event, 0,
      (NEW.state = 'delivered') - (OLD.state = 'delivered'), (NEW.state = 'failed') - (OLD.state = 'failed'),
      (NEW.state = 'cancelled') - (OLD.state = 'cancelled'), (NEW.attempts > 0) - (OLD.attempts > 0), (NEW.attempts > 1) - (OLD.attempts > 1),
      CASE NEW.state WHEN 'delivered' THEN max(NEW.ended_at - at * 1000, 0) ELSE 0 END - CASE OLD.state WHEN 'delivered' THEN max(OLD.ended_at - at * 1000, 0) ELSE 0 END
    FROM (SELECT '0x' || replace(substr(NEW.id, 10, 13), '-', '') ->> '$' AS at) WHERE true
    ON CONFLICT (organization_id, start, event, slot) DO UPDATE SET
      delivered = delivered + excluded.delivered, failed = failed + excluded.failed, cancelled = cancelled + excluded.cancelled,
      attempted = attempted + excluded.attempted, retried = retried + excluded.retried, delay = delay + excluded.delay;
END//
CREATE TRIGGER delivery_delays_more AFTER UPDATE OF state, attempts ON deliveries
WHEN NEW.state = 'delivered' AND (OLD.state <> NEW.state OR OLD.attempts <> NEW.attempts) BEGIN
  INSERT INTO delivery_delays (organization_id, start, least, slot, count)
    SELECT NEW.organization_id, (at - at % 3600000) * 1000, (f - CASE WHEN f < 20 THEN f % 2 WHEN f < 50 THEN f % 5 ELSE f % 10 END) * p, 0, 1
    FROM (SELECT at, d / p AS f, p FROM (SELECT at, d, CAST(substr('1000000000000', 1, length(d) - 1) AS integer) AS p FROM (
      SELECT at, max(NEW.ended_at - at * 1000, 1000) AS d FROM (SELECT '0x' || replace(substr(NEW.id, 10, 13), '-', '') ->> '$' AS at)))) WHERE true
    ON CONFLICT (organization_id, start, least, slot) DO UPDATE SET count = count + excluded.count;
END//
CREATE TRIGGER delivery_delays_less AFTER UPDATE OF state, attempts ON deliveries
WHEN OLD.state = 'delivered' AND (OLD.state <> NEW.state OR OLD.attempts <> NEW.attempts) BEGIN
  INSERT INTO delivery_delays (organization_id, start, least, slot, count)
    SELECT NEW.organization_id, (at - at % 3600000) * 1000, (f - CASE WHEN f < 20 THEN f % 2 WHEN f < 50 THEN f % 5 ELSE f % 10 END) * p, 0, -1
    FROM (SELECT at, d / p AS f, p FROM (SELECT at, d, CAST(substr('1000000000000', 1, length(d) - 1) AS integer) AS p FROM (
      SELECT at, max(OLD.ended_at - at * 1000, 1000) AS d FROM (SELECT '0x' || replace(substr(NEW.id, 10, 13), '-', '') ->> '$' AS at)))) WHERE true
    ON CONFLICT (organization_id, start, least, slot) DO UPDATE SET count = count + excluded.count;
END//
CREATE TRIGGER delivery_failures_attempt AFTER INSERT ON delivery_attempts WHEN NEW.error_class <> '' BEGIN
  INSERT INTO delivery_failures (organization_id, start, url, slot, attempts, deliveries)
    SELECT u.organization_id, u.start, CASE WHEN EXISTS (SELECT 1 FROM delivery_failures AS k WHERE k.organization_id = u.organization_id AND k.start = u.start AND k.url = u.url)
        OR (SELECT count(*) FROM delivery_failures AS k WHERE k.organization_id = u.organization_id AND k.start = u.start) < 100 THEN u.url ELSE '' END, 0, 1, u.ended
    FROM (SELECT organization_id, (at - at % 3600000) * 1000 AS start, substr(NEW.url, 1, instr(NEW.url || '?', '?') - 1) AS url, state = 'failed' AND attempts = NEW.number AS ended
      FROM (SELECT *, '0x' || replace(substr(id, 10, 13), '-', '') ->> '$' AS at FROM deliveries WHERE id = NEW.delivery_id)) AS u WHERE true
    ON CONFLICT (organization_id, start, url, slot) DO UPDATE SET attempts = attempts + excluded.attempts, deliveries = deliveries + excluded.deliveries;
END//
CREATE TRIGGER delivery_failures_again AFTER UPDATE OF state, attempts ON deliveries WHEN OLD.state = 'failed' AND NEW.state <> 'failed' BEGIN
  INSERT INTO delivery_failures (organization_id, start, url, slot, attempts, deliveries)
    SELECT u.organization_id, u.start, CASE WHEN EXISTS (SELECT 1 FROM delivery_failures AS k WHERE k.organization_id = u.organization_id AND k.start = u.start AND k.url = u.url)
        OR (SELECT count(*) FROM delivery_failures AS k WHERE k.organization_id = u.organization_id AND k.start = u.start) < 100 THEN u.url ELSE '' END, 0, 0, -1
    FROM (SELECT NEW.organization_id AS organization_id, (at - at % 3600000) * 1000 AS start, substr(url, 1, instr(url || '?', '?') - 1) AS url
      FROM (SELECT url, '0x' || replace(substr(NEW.id, 10, 13), '-', '') ->> '$' AS at FROM delivery_attempts WHERE delivery_id = NEW.id AND number = OLD.attempts)) AS u WHERE true
    ON CONFLICT (organization_id, start, url, slot) DO UPDATE SET attempts = attempts + excluded.attempts, deliveries = deliveries + excluded.deliveries;
END//
DELIMITER ;
-- What came of the deliveries that are there.
INSERT INTO delivery_counts (organization_id, start, event, slot, made, delivered, failed, cancelled, attempted, retried, delay)
  SELECT organization_id, (at - at % 3600000) * 1000, event, 0, count(*), sum(state = 'delivered'), sum(state = 'failed'), sum(state = 'cancelled'),
    sum(attempts > 0), sum(attempts > 1), sum(CASE state WHEN 'delivered' THEN max(ended_at - at * 1000, 0) ELSE 0 END)
  FROM (SELECT organization_id, event, state, attempts, ended_at, '0x' || replace(substr(id, 10, 13), '-', '') ->> '$' AS at FROM deliveries) GROUP BY 1, 2, 3;
INSERT INTO delivery_delays (organization_id, start, least, slot, count)
  SELECT organization_id, (at - at % 3600000) * 1000, (f - CASE WHEN f < 20 THEN f % 2 WHEN f < 50 THEN f % 5 ELSE f % 10 END) * p, 0, count(*)
  FROM (SELECT organization_id, at, d / p AS f, p FROM (SELECT organization_id, at, d, CAST(substr('1000000000000', 1, length(d) - 1) AS integer) AS p FROM (
    SELECT organization_id, at, max(ended_at - at * 1000, 1000) AS d FROM (SELECT organization_id, ended_at, '0x' || replace(substr(id, 10, 13), '-', '') ->> '$' AS at FROM deliveries WHERE state = 'delivered')))) GROUP BY 1, 2, 3;
INSERT INTO delivery_failures (organization_id, start, url, slot, attempts, deliveries)
  SELECT organization_id, start, CASE WHEN place <= 100 THEN url ELSE '' END, 0, sum(attempts), sum(ended)
  FROM (SELECT *, row_number() OVER (PARTITION BY organization_id, start ORDER BY attempts DESC, url) AS place
    FROM (SELECT organization_id, (at - at % 3600000) * 1000 AS start, url, count(*) AS attempts, sum(ended) AS ended
      FROM (SELECT d.organization_id, '0x' || replace(substr(d.id, 10, 13), '-', '') ->> '$' AS at, substr(a.url, 1, instr(a.url || '?', '?') - 1) AS url, d.state = 'failed' AND d.attempts = a.number AS ended
        FROM delivery_attempts AS a JOIN deliveries AS d ON d.id = a.delivery_id WHERE a.error_class <> '') GROUP BY 1, 2, 3)) GROUP BY 1, 2, 3;
-- From when on all that there were are there: older ones may have been deleted.
INSERT INTO settings (id, value) SELECT 'delivery_counts_from', CAST(at AS text)
  FROM (SELECT coalesce((SELECT min(ended_at) FROM deliveries WHERE ended_at IS NOT NULL), (SELECT created_at FROM events ORDER BY id DESC LIMIT 1)) AS at) WHERE at IS NOT NULL;
