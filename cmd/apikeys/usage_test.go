package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestUsage shows what was used as rows, and as one answer.
func TestUsage(t *testing.T) {
	t.Parallel()
	sh := newHarness(t)
	for _, owner := range []string{"anna", "bert"} {
		secret := strings.TrimSpace(sh.run("keys", "create", "--label", owner, "--owner", owner, "-o", "secret"))
		for range 3 {
			sh.stdin(secret).run("keys", "verify")
		}
	}
	eventually := func() string {
		for {
			rows := sh.run("usage", "--group-by", "owner_id", "--granularity", "hour", "-o", "jsonl")
			if strings.Count(rows, `"calls":3`) == 2 {
				return rows
			}
			if t.Context().Err() != nil {
				t.Fatal(rows)
			}
		}
	}
	eventually()
	shown := sh.run("usage", "--group-by", "owner_id")
	for _, want := range []string{"START (UTC)", "OWNER", "CALLS", "UNITS", "anna", "bert"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %s in\n%s", want, shown)
		}
	}
	var whole struct {
		GroupBy       string `json:"group_by"`
		Rows          []struct{ Calls int }
		NextPageToken string `json:"next_page_token"`
	}
	if err := json.Unmarshal([]byte(sh.run("usage", "--group-by", "owner_id", "-o", "json")), &whole); err != nil {
		t.Fatal(err)
	}
	if whole.GroupBy != "owner_id" || len(whole.Rows) != 2 || whole.Rows[0].Calls != 3 || whole.NextPageToken != "" {
		t.Errorf("got %+v", whole)
	}
	sh.fail(2, "usage", "--group-by", "label")
}
