-- apikeys:expand
-- Create index "apikey_disabled" to table: "api_keys"
CREATE INDEX "apikey_disabled" ON "api_keys" ("organization_id", "id") WHERE ((revoked_at IS NULL) AND (NOT enabled));
-- Create index "apikey_organization_id_expires_at_id" to table: "api_keys"
CREATE INDEX "apikey_organization_id_expires_at_id" ON "api_keys" ("organization_id", "expires_at", "id") WHERE (expires_at IS NOT NULL);
-- Create index "apikey_organization_id_previous_expires_at_id" to table: "api_keys"
CREATE INDEX "apikey_organization_id_previous_expires_at_id" ON "api_keys" ("organization_id", "previous_expires_at", "id") WHERE (previous_expires_at IS NOT NULL);
-- Create index "apikey_previous_mask" to table: "api_keys"
CREATE INDEX "apikey_previous_mask" ON "api_keys" ("previous_mask" text_pattern_ops) WHERE ((previous_mask)::text <> ''::text);
-- Create index "apikey_revoked" to table: "api_keys"
CREATE INDEX "apikey_revoked" ON "api_keys" ("organization_id", "id") WHERE (revoked_at IS NOT NULL);
-- Create index "apikey_secret_mask" to table: "api_keys"
CREATE INDEX "apikey_secret_mask" ON "api_keys" ("secret_mask" text_pattern_ops);
-- The scopes and the entries of metadata of keys, one a row: see store/key_terms.go. Triggers
-- keep them, for servers too that do not know of them.
CREATE TABLE "api_key_terms" ("organization_id" character varying NOT NULL, "term" character varying NOT NULL, "key_id" character varying NOT NULL, PRIMARY KEY ("organization_id", "term", "key_id"));
CREATE FUNCTION api_key_terms_of(scopes jsonb, metadata jsonb) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS $$
  SELECT 's:' || e FROM jsonb_array_elements_text(CASE jsonb_typeof(scopes) WHEN 'array' THEN scopes END) AS e
  UNION SELECT 'm:' || e.key || '=' || left(e.value, 64) FROM jsonb_each_text(CASE jsonb_typeof(metadata) WHEN 'object' THEN metadata END) AS e
$$;
INSERT INTO api_key_terms (organization_id, term, key_id)
  SELECT k.organization_id, e, k.id FROM api_keys AS k, api_key_terms_of(k.scopes, k.metadata) AS e WHERE e IS NOT NULL;
CREATE FUNCTION api_key_terms_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    DELETE FROM api_key_terms WHERE organization_id = OLD.organization_id AND key_id = OLD.id
      AND term IN (SELECT api_key_terms_of(OLD.scopes, OLD.metadata));
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO api_key_terms (organization_id, term, key_id)
      SELECT NEW.organization_id, e, NEW.id FROM api_key_terms_of(NEW.scopes, NEW.metadata) AS e WHERE e IS NOT NULL
      ON CONFLICT DO NOTHING;
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER api_key_terms_write AFTER INSERT OR DELETE ON api_keys FOR EACH ROW EXECUTE FUNCTION api_key_terms_keep();
CREATE TRIGGER api_key_terms_update AFTER UPDATE OF scopes, metadata ON api_keys FOR EACH ROW
  WHEN (OLD.scopes IS DISTINCT FROM NEW.scopes OR OLD.metadata IS DISTINCT FROM NEW.metadata) EXECUTE FUNCTION api_key_terms_keep();
