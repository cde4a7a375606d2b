-- apikeys:expand
-- Create index "apikey_revoked" to table: "api_keys"
CREATE INDEX `apikey_revoked` ON `api_keys` (`organization_id`, `id`) WHERE revoked_at IS NOT NULL;
-- Create index "apikey_disabled" to table: "api_keys"
CREATE INDEX `apikey_disabled` ON `api_keys` (`organization_id`, `id`) WHERE revoked_at IS NULL AND NOT enabled;
-- Create index "apikey_organization_id_expires_at_id" to table: "api_keys"
CREATE INDEX `apikey_organization_id_expires_at_id` ON `api_keys` (`organization_id`, `expires_at`, `id`) WHERE expires_at IS NOT NULL;
-- Create index "apikey_organization_id_previous_expires_at_id" to table: "api_keys"
CREATE INDEX `apikey_organization_id_previous_expires_at_id` ON `api_keys` (`organization_id`, `previous_expires_at`, `id`) WHERE previous_expires_at IS NOT NULL;
-- Create index "apikey_secret_mask" to table: "api_keys"
CREATE INDEX `apikey_secret_mask` ON `api_keys` (`secret_mask`);
-- Create index "apikey_previous_mask" to table: "api_keys"
CREATE INDEX `apikey_previous_mask` ON `api_keys` (`previous_mask`) WHERE previous_mask <> '';
-- The scopes and the entries of metadata of keys, one a row: see store/key_terms.go. Triggers
-- keep them, for servers too that do not know of them.
CREATE TABLE `api_key_terms` (`organization_id` text NOT NULL, `term` text NOT NULL, `key_id` text NOT NULL, PRIMARY KEY (`organization_id`, `term`, `key_id`)) WITHOUT ROWID;
INSERT OR IGNORE INTO api_key_terms (organization_id, term, key_id)
  SELECT api_keys.organization_id, 's:' || e.value, api_keys.id FROM api_keys, json_each(nullif(CAST(api_keys.scopes AS text), '')) AS e WHERE e.type = 'text'
  UNION ALL SELECT api_keys.organization_id, 'm:' || e.key || '=' || substr(e.value, 1, 64), api_keys.id FROM api_keys, json_each(nullif(CAST(api_keys.metadata AS text), '')) AS e WHERE e.type = 'text';
DELIMITER //
CREATE TRIGGER api_key_terms_insert AFTER INSERT ON api_keys BEGIN
  INSERT OR IGNORE INTO api_key_terms (organization_id, term, key_id)
  SELECT NEW.organization_id, 's:' || e.value, NEW.id FROM json_each(nullif(CAST(NEW.scopes AS text), '')) AS e WHERE e.type = 'text'
  UNION ALL SELECT NEW.organization_id, 'm:' || e.key || '=' || substr(e.value, 1, 64), NEW.id FROM json_each(nullif(CAST(NEW.metadata AS text), '')) AS e WHERE e.type = 'text';
END//
CREATE TRIGGER api_key_terms_update AFTER UPDATE OF scopes, metadata ON api_keys
WHEN OLD.scopes IS NOT NEW.scopes OR OLD.metadata IS NOT NEW.metadata BEGIN
  DELETE FROM api_key_terms WHERE organization_id = OLD.organization_id AND key_id = OLD.id AND term IN (
    SELECT 's:' || e.value FROM json_each(nullif(CAST(OLD.scopes AS text), '')) AS e WHERE e.type = 'text'
    UNION ALL SELECT 'm:' || e.key || '=' || substr(e.value, 1, 64) FROM json_each(nullif(CAST(OLD.metadata AS text), '')) AS e WHERE e.type = 'text');
  INSERT OR IGNORE INTO api_key_terms (organization_id, term, key_id)
  SELECT NEW.organization_id, 's:' || e.value, NEW.id FROM json_each(nullif(CAST(NEW.scopes AS text), '')) AS e WHERE e.type = 'text'
  UNION ALL SELECT NEW.organization_id, 'm:' || e.key || '=' || substr(e.value, 1, 64), NEW.id FROM json_each(nullif(CAST(NEW.metadata AS text), '')) AS e WHERE e.type = 'text';
END//
CREATE TRIGGER api_key_terms_delete AFTER DELETE ON api_keys BEGIN
  DELETE FROM api_key_terms WHERE organization_id = OLD.organization_id AND key_id = OLD.id AND term IN (
    SELECT 's:' || e.value FROM json_each(nullif(CAST(OLD.scopes AS text), '')) AS e WHERE e.type = 'text'
    UNION ALL SELECT 'm:' || e.key || '=' || substr(e.value, 1, 64) FROM json_each(nullif(CAST(OLD.metadata AS text), '')) AS e WHERE e.type = 'text');
END//
