package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/described"
)

// attackers is how many connections make changes with one key at the same time: half
// of them over gRPC, half over REST.
const attackers = 24

// TestNoChangeAfterTheEnd has many connections make changes with a key while an
// operator ends or narrows it: behind the event that tells of it, the log holds no
// change by the key that the key may no longer make, whichever resource it is of.
func TestNoChangeAfterTheEnd(t *testing.T) {
	s := servertest.Start(t)
	update := func(body string) attackEnd {
		return attackEnd{http.MethodPatch, "", body, "api_key.updated"}
	}
	for name, end := range map[string]attackEnd{
		"revoked":           {http.MethodPost, "/revoke", `{}`, "api_key.revoked"},
		"deleted":           {http.MethodDelete, "", ``, "api_key.deleted"},
		"disabled":          update(`{"enabled": false}`),
		"without scopes":    update(`{"scopes": ["api_keys.read"]}`),
		"elsewhere":         update(`{"ip_allow_list": ["198.51.100.0/24"]}`),
		"rotated":           {http.MethodPost, "/rotate", `{"overlap_seconds": 0}`, "api_key.rotated"},
		"rotated, overlaps": {http.MethodPost, "/rotate", `{"overlap_seconds": 3600}`, "api_key.rotated"},
	} {
		t.Run(name, func(t *testing.T) { attack(t, s, end) })
	}
}

// An attackEnd is the call by which an operator ends or narrows a key.
type attackEnd struct{ verb, path, body, event string }

// attack lets the attackers begin, ends their key in the midst of it, and reads the
// log.
func attack(t *testing.T, s *servertest.Server, end attackEnd) {
	var key, child, hook struct{ ID, Secret string }
	const scopes = `"scopes": ["api_keys.create", "api_keys.update", "api_keys.delete", "webhooks.update", "events.read"]`
	s.Call(t, http.MethodPost, "/developers/api_keys", `{"label": "k", `+scopes+`}`).Into(t, &key)
	s.Call(t, http.MethodPost, "/developers/api_keys", `{"label": "child"}`).Into(t, &child)
	s.Call(t, http.MethodPost, hooksPath, `{"label": "w", "url": "https://hooks.invalid/x", "events": ["webhook.failing"]}`).Into(t, &hook)

	// Each call is repeated until the key may not make it.
	calls := []struct{ verb, path, body string }{
		{http.MethodPost, "/developers/api_keys", `{"label": "by k"}`},
		{http.MethodPatch, "/developers/api_keys/" + child.ID, `{"label": "child %d"}`},
		{http.MethodPost, "/developers/api_keys/" + child.ID + "/rotate", `{"overlap_seconds": 0}`},
		{http.MethodPatch, hooksPath + "/" + hook.ID, `{"label": "w %d"}`},
		{http.MethodPost, hooksPath + "/" + hook.ID + "/rotate_secret", `{"overlap_seconds": 0}`},
		{http.MethodPost, hooksPath + "/" + hook.ID + "/test", ``},
	}
	var made atomic.Int64
	begun := make(chan struct{})
	note := sync.OnceFunc(func() { close(begun) })
	one := func() {
		if made.Add(1) == 2*attackers {
			note()
		}
	}
	var all sync.WaitGroup
	for i := range attackers / 2 {
		all.Go(func() {
			defer note() // whatever fails, the operator does not wait for ever
			client := &http.Client{Transport: described.Transport(t, s.REST, &http.Transport{})}
			defer client.CloseIdleConnections()
			call := calls[i%len(calls)]
			for n := 0; ; n++ {
				code, err := changeOverREST(t.Context(), client, call.verb, s.REST+call.path, strings.ReplaceAll(call.body, "%d", fmt.Sprint(n)), key.Secret)
				if err != nil {
					t.Error(err)
				}
				if code != http.StatusOK {
					return
				}
				one()
			}
		})
		all.Go(func() {
			defer note()
			conn, err := grpc.NewClient(s.Conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			ctx, keys := servertest.As(t.Context(), key.Secret), apikeysv1.NewApiKeysServiceClient(conn)
			for {
				if _, err := keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "by k"}); err != nil {
					if status.Code(err).String() != "Unauthenticated" && status.Code(err).String() != "PermissionDenied" {
						t.Error(err)
					}
					return
				}
				one()
			}
		})
	}
	<-begun
	if a := s.Call(t, end.verb, "/developers/api_keys/"+key.ID+end.path, end.body); a.Status != http.StatusOK {
		t.Error(a)
	}
	overlaps := strings.Contains(end.body, "3600")
	if overlaps {
		// A previous secret goes on with what does not outlive it, until the key ends.
		s.Call(t, http.MethodPost, "/developers/api_keys/"+key.ID+"/revoke", `{}`)
	}
	all.Wait()
	events := listAll(t, s)
	at := slices.IndexFunc(events, func(e *apikeysv1.Event) bool { return e.GetResourceId() == key.ID && e.GetType() == end.event })
	if at < 0 {
		t.Fatalf("no %s among %d events", end.event, len(events))
	}
	byKey := func(e *apikeysv1.Event) bool { return e.GetActor().GetId() == key.ID }
	if before := events[:at]; !slices.ContainsFunc(before, byKey) {
		t.Error("the key changed nothing before")
	}
	for _, e := range events[at:] {
		overlaps = overlaps && e.GetType() != "api_key.revoked"
		harmless := overlaps && (e.GetType() == "api_key.updated" || e.GetType() == "webhook.test")
		if byKey(e) && !harmless {
			t.Fatalf("behind %s, the log has %s by the key", end.event, e.GetType())
		}
	}
}

// changeOverREST makes a call with a key and returns its status.
func changeOverREST(ctx context.Context, client *http.Client, verb, url, body, secret string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, verb, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && !slices.Contains([]int{http.StatusOK, http.StatusUnauthorized, http.StatusForbidden}, resp.StatusCode) {
		err = fmt.Errorf("%s %s: %d %s", verb, url, resp.StatusCode, json.RawMessage(text))
	}
	return resp.StatusCode, err
}

// listAll returns the whole log.
func listAll(t *testing.T, s *servertest.Server) (all []*apikeysv1.Event) {
	t.Helper()
	for token := ""; ; {
		page, err := apikeysv1.NewEventsServiceClient(s.Conn).ListEvents(s.Context(t.Context()), &apikeysv1.ListEventsRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.GetEvents()...)
		if token = page.GetNextPageToken(); token == "" {
			return all
		}
	}
}
