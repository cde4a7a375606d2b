package server_test

import (
	"strings"
	"testing"
)

// TestCreatedBy plays who made a key or a webhook: it stays who it was through
// every change, stands in the resource, its events and its lists, and filters them.
func TestCreatedBy(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	maker := step{rpc: "CreateApiKey", save: "maker", data: `{"created_by": {"kind": "operator", "id": "root"}}`,
		body: `{"label": "maker", "scopes": ["*"]}`}
	const byMaker = `"created_by": {"kind": "api_key", "id": "$maker.id"}`
	w.play(t, map[string]scenario{
		"a key": {
			maker,
			{rpc: "CreateApiKey", as: "$maker.secret", body: `{"label": "made"}`, save: "k", data: `{` + byMaker + `}`},
			{rpc: "GetApiKey", id: "$k.id", data: `{` + byMaker + `}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"label": "x"}`, data: `{` + byMaker + `}`},
			{rpc: "RotateApiKey", id: "$k.id", body: `{"overlap_seconds": 60}`, data: `{` + byMaker + `}`},
			{rpc: "UpdateApiKey", id: "$k.id", body: `{"created_by": {"kind": "operator", "id": "x"}}`, want: "INVALID_ARGUMENT", field: "created_by"},
			{rpc: "ListApiKeys", body: "created_by=$maker.id", data: `[{"id": "$k.id", ` + byMaker + `}]`},
			{rpc: "ListApiKeys", body: "created_by=$maker.id&owner_id=x", data: `[]`},
			{rpc: "ListApiKeys", body: "created_by=$k.id", data: `[]`},
			step{rpc: "ListApiKeys", body: "created_by=$maker.id", data: `[{"id": "$k.id"}]`}.in("*"),
			step{rpc: "ListApiKeys", body: "created_by=$maker.id", data: `[]`}.in("org_other"),
			{rpc: "ListApiKeys", body: "created_by=" + strings.Repeat("a", 256), want: "INVALID_ARGUMENT", field: "created_by"},
			{rpc: "RevokeApiKey", id: "$k.id", data: `{` + byMaker + `}`},
		},
		"a webhook": {
			maker,
			{rpc: "CreateWebhook", as: "$maker.secret", body: `{"label": "w", "url": "https://example.com/", "events": ["*"]}`, save: "w", data: `{` + byMaker + `}`},
			{rpc: "GetWebhook", id: "$w.id", data: `{` + byMaker + `}`},
			{rpc: "UpdateWebhook", id: "$w.id", body: `{"label": "x"}`, data: `{` + byMaker + `}`},
			{rpc: "UpdateWebhook", id: "$w.id", body: `{"created_by": null}`, want: "INVALID_ARGUMENT", field: "created_by"},
			{rpc: "ListWebhooks", body: "created_by=$maker.id", data: `[{"id": "$w.id", ` + byMaker + `}]`},
			{rpc: "ListWebhooks", body: "created_by=$w.id", data: `[]`},
			step{rpc: "ListWebhooks", body: "created_by=$maker.id", data: `[]`}.in("org_other"),
			{rpc: "ListWebhooks", body: "created_by=%00", want: "INVALID_ARGUMENT", field: "created_by"},
			{rpc: "DeleteWebhook", id: "$w.id"},
		},
	})
}
