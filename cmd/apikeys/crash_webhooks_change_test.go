package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// changing changes webhooks at random until the program is killed.
func changing(ctx context.Context, hooks apikeysv1.WebhooksServiceClient, url string) {
	subscriptions := [][]string{{"*"}, {"api_key.created"}, {"webhook.updated", "webhook.deleted"}, {"api_key.updated", "webhook.created"}}
	for {
		list, err := hooks.ListWebhooks(ctx, &apikeysv1.ListWebhooksRequest{})
		if err != nil {
			return
		}
		all := list.GetWebhooks()
		if len(all) < 3 {
			_, err = hooks.CreateWebhook(ctx, &apikeysv1.CreateWebhookRequest{
				Label: "changing", Url: url, Events: subscriptions[rand.IntN(len(subscriptions))],
			})
			if err != nil {
				return
			}
			continue
		}
		w := all[rand.IntN(len(all))]
		update := &apikeysv1.UpdateWebhookRequest{Id: w.GetId(), Webhook: &apikeysv1.Webhook{}, UpdateMask: &fieldmaskpb.FieldMask{}}
		switch rand.IntN(6) {
		case 0, 1:
			update.Webhook.Enabled, update.UpdateMask.Paths = !w.GetEnabled(), []string{"enabled"}
		case 2:
			update.Webhook.Url, update.UpdateMask.Paths = fmt.Sprint(url, "/", rand.IntN(3)), []string{"url"}
		case 3:
			update.Webhook.Events, update.UpdateMask.Paths = subscriptions[rand.IntN(len(subscriptions))], []string{"events"}
		case 4:
			_, _ = hooks.RotateWebhookSecret(ctx, &apikeysv1.RotateWebhookSecretRequest{Id: w.GetId(), OverlapSeconds: proto.Int32(60), EndOldest: true})
			continue
		case 5:
			_, _ = hooks.DeleteWebhook(ctx, &apikeysv1.DeleteWebhookRequest{Id: w.GetId()})
			continue
		}
		_, _ = hooks.UpdateWebhook(ctx, update) // Another may have deleted it; that it was killed the list says.
	}
}

// TestKillWhileWebhooksChange kills the program at random points of a load of changes of
// keys and of webhooks, which are created, changed, disabled, deleted and rotated. In the
// end there is for each event exactly one delivery to each webhook that was enabled and
// subscribed at its place in the log.
func TestKillWhileWebhooksChange(t *testing.T) {
	const rounds = 5
	dir := t.TempDir()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+crashToken)
	receiver := httptest.NewServer(&endpoint{bodies: make(map[string]string), acknowledged: make(map[string]int)})
	defer receiver.Close()
	t.Setenv("APIKEYS_WEBHOOKS_DELAYS", "50ms,100ms,200ms,1s,1s,1s,1s,1s,1s")

	p := startProcess(t, dir)
	for range rounds {
		var load sync.WaitGroup
		var done atomic.Int64
		most, enough := int64(50+rand.IntN(200)), make(chan struct{})
		for range 4 {
			load.Go(func() {
				for {
					if _, err := p.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "crash"}); err != nil {
						return // It was killed.
					}
					if done.Add(1) == most {
						close(enough)
					}
				}
			})
		}
		for range 3 {
			load.Go(func() { changing(ctx, apikeysv1.NewWebhooksServiceClient(p.conn), receiver.URL) })
		}
		<-enough
		p.kill(t)
		load.Wait()
		p = startProcess(t, dir)
	}
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "apikeys.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// What waits for a webhook that is disabled goes on waiting; of one that was deleted
	// it is cancelled.
	const unfinished = `SELECT (SELECT count(*) FROM deliveries d LEFT JOIN webhooks w ON w.id = d.webhook_id WHERE d.state = 'pending' AND (w.id IS NULL OR w.enabled)) +
		(SELECT count(*) FROM events e JOIN fan_out_positions f ON f.organization_id = e.organization_id WHERE e.id > f.position)`
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var n int
		if err := db.QueryRowContext(ctx, unfinished).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events and deliveries wait for ever", n)
		}
	}
	want, kinds := demanded(ctx, t, apikeysv1.NewEventsServiceClient(p.conn))
	p.kill(t)
	rows, err := db.QueryContext(ctx, "SELECT webhook_id || ' ' || event_id FROM deliveries")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	made := 0
	for rows.Next() {
		var of string
		if err := rows.Scan(&of); err != nil {
			t.Fatal(err)
		}
		if !want[of] {
			t.Errorf("nobody asked for %s, or it is there twice", of)
		}
		delete(want, of)
		made++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 {
		t.Errorf("%d of %d deliveries are missing", len(want), made+len(want))
	}
	t.Logf("%d deliveries; events %v", made, kinds)
}

// demanded returns what the log says of deliveries, and how many events it has of each
// type.
func demanded(ctx context.Context, t *testing.T, events apikeysv1.EventsServiceClient) (want map[string]bool, kinds map[string]int) {
	t.Helper()
	want, kinds = make(map[string]bool), make(map[string]int)
	hooks := make(map[string]*apikeysv1.Webhook)
	for request := (&apikeysv1.ListEventsRequest{PageSize: 1000}); ; {
		page, err := events.ListEvents(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.GetEvents() {
			kinds[e.GetType()]++
			for id, w := range hooks {
				subscribed := slices.Contains(w.GetEvents(), e.GetType()) ||
					strings.HasPrefix(e.GetType(), "api_key.") && slices.Contains(w.GetEvents(), "*")
				if w.GetEnabled() && subscribed && id != e.GetResourceId() {
					want[id+" "+e.GetId()] = true
				}
			}
			switch {
			case e.GetType() == "webhook.deleted":
				delete(hooks, e.GetResourceId())
			case e.GetWebhook() != nil:
				hooks[e.GetResourceId()] = e.GetWebhook()
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return want, kinds
		}
	}
}
