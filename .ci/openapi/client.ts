// Calls a server with a client whose types are made of its OpenAPI document: what the
// document says wrong, the compiler or an answer shows.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const env = (globalThis as unknown as { process: { env: Record<string, string> } }).process.env;
const client = createClient<paths>({ baseUrl: env.APIKEYS_URL, headers: { Authorization: `Bearer ${env.TOKEN}` } });

function check(what: string, ok: boolean): void {
  if (!ok) throw new Error(`not as expected: ${what}`);
}

const made = await client.POST("/developers/api_keys", { body: { label: "typed", scopes: ["products.read"], mode: "test", metadata: { team: "billing" } } });
if (!made.data) throw new Error(`create: ${made.error.error}`);
const key: components["schemas"]["ApiKey"] = made.data.data;
check("the key", key.label === "typed" && key.mode === "test" && key.expires_at === null && key.metrics?.total_requests === 0);

const params = { path: { id: key.id } };
const verified = await client.POST("/developers/api_keys/verify", { body: { key: key.secret, scopes: ["products.read"] } });
check("a verification", verified.data?.data.code === "valid" && verified.data.data.api_key?.id === key.id);

const changed = await client.PATCH("/developers/api_keys/{id}", { params: { ...params, header: { "If-Match": `"${key.etag}"` } }, body: { label: "renamed", owner_id: null } });
check("an update", changed.data?.data.label === "renamed" && changed.response.headers.get("ETag") === `"${changed.data.data.etag}"`);

const stale = await client.PATCH("/developers/api_keys/{id}", { params: { ...params, header: { "If-Match": '"0"' } }, body: { label: "again" } });
check("a stale etag", stale.response.status === 409 && stale.error?.log.reason === "ETAG_MISMATCH");

const list = await client.GET("/developers/api_keys", { params: { query: { state: "active", page_size: 10 } } });
check("a list", list.data?.data.some((k) => k.id === key.id) === true);

const hook = await client.POST("/developers/webhooks", { body: { label: "typed", url: "https://example.com/hook", events: ["*"] } });
check("a webhook", hook.data?.data.format === "classic" && hook.data.data.health?.state === "unknown");

const none = await client.GET("/developers/api_keys/{id}", { params: { path: { id: "api_key_x" } } });
check("nothing there", none.response.status === 404 && none.error?.log.reason === "API_KEY_NOT_FOUND");

const faulty = await client.POST("/developers/api_keys", { body: { label: "" } });
const refused = faulty.error as components["responses"]["BadRequest"]["content"]["application/json"];
check("a faulty field", refused.status === 400 && refused.validator?.label !== undefined);

const gone = await client.DELETE("/developers/api_keys/{id}", { params });
check("a deletion", gone.data?.data.id === key.id);

const ready = await client.GET("/readyz");
check("readiness", ready.data?.data.status === "ok");
console.log("a typed client made ten calls, and was answered as its types say");
