package wire_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

var update = flag.Bool("update", false, "write the golden events anew; only for types that are new")

// goldenEvents are what the logs of released versions hold, for each type of event its
// payload: of the first one, and of those that wrote something new, the last of which
// is this one.
var goldenEvents = []string{"testdata/events.golden", "testdata/events_rate_limit_mode.golden"}

// TestGoldenEvents holds the log to the bytes that it was written in. What is in
// the file is never changed once it was released: databases are full of it. A new
// field of a resource leaves the bytes of the others alone.
func TestGoldenEvents(t *testing.T) {
	t.Parallel()
	types := []apikey.EventType{webhook.WebhookTest}
	for _, described := range webhook.EventTypes() {
		types = append(types, described.Type)
	}
	var fresh strings.Builder
	for _, kind := range types {
		fmt.Fprintf(&fresh, "%s %s\n", kind, hex.EncodeToString(eventAbout(t, kind, goldenResource(t, kind)).Payload))
	}
	if *update {
		if err := os.WriteFile(goldenEvents[len(goldenEvents)-1], []byte(fresh.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var golden, last string
	for _, path := range goldenEvents {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		last = string(text)
		golden += last
	}
	if diff := cmp.Diff(last, fresh.String()); diff != "" {
		t.Errorf("an event is written in another way (-golden +now):\n%s", diff)
	}
	// What is in the file is read without help of what writes it, and is all known.
	for line := range strings.Lines(golden) {
		kind, encoded, _ := strings.Cut(strings.TrimSpace(line), " ")
		payload, err := hex.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		e := eventAbout(t, apikey.EventType(kind), nil)
		e.Payload = payload
		m, err := wire.Event(e)
		if err != nil {
			t.Fatal(err)
		}
		resource, label := proto.Message(m.GetApiKey()), m.GetApiKey().GetLabel()
		if m.GetWebhook() != nil {
			resource, label = m.GetWebhook(), m.GetWebhook().GetLabel()
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(resource)
		if err != nil || !bytes.Equal(again, payload) || len(resource.ProtoReflect().GetUnknown()) > 0 || label == "" {
			t.Errorf("%s reads as %v, %v", kind, resource, err)
		}
	}
}

// goldenResource returns what an event of a type is about.
func goldenResource(t *testing.T, kind apikey.EventType) any {
	t.Helper()
	creator := apikey.Actor{Kind: apikey.ActorKey, ID: "api_key_0"}
	if webhook.IsAboutWebhook(kind) {
		w := testWebhook(t)
		w.CreatedBy, w.Description = creator, "Told of all"
		switch kind {
		case webhook.WebhookUpdated, webhook.WebhookSecretRotated:
			w.UpdatedAt, w.Version = webhookNow, 2
		case webhook.WebhookDisabled:
			w.UpdatedAt, w.Version, w.Enabled, w.DisabledReason = webhookNow, 2, false, webhook.DisabledFailing
		default: // as it was made
		}
		return w
	}
	k := apikey.Key{
		ID: "api_key_1", OrganizationID: "org_default", Label: "Ünïcode", Description: "Of tests",
		Scopes: apikey.Scopes{"products.read", "orders.*"}, IPAllowList: apikey.AllowList{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")},
		ExpiresAt: webhookNow.Add(time.Hour), CreatedAt: webhookNow.Add(-time.Hour), CreatedBy: creator,
		Enabled: true, Mode: apikey.ModeTest, OwnerID: "ann", Metadata: map[string]string{"b": "2", "a": "1"},
		RateLimit: apikey.RateLimit{Requests: 10, WindowSeconds: 60},
		Quota:     apikey.Quota{Limit: 1000, Remaining: 998, Refill: apikey.RefillMonthly, RefillDay: 31, RefilledAt: webhookNow},
		Secret:    apikey.StoredSecret{Mask: "sk_test_0123456789AB...LOcWk"},
		Usage:     apikey.Usage{TotalRequests: 2, LastUsedAt: webhookNow},
		Version:   3,
	}
	switch kind {
	case apikey.KeyUpdated:
		k.UpdatedAt = webhookNow
	case apikey.KeyRotated:
		k.UpdatedAt, k.PreviousExpiresAt = webhookNow, webhookNow.Add(time.Minute)
	case apikey.KeyRevoked:
		k.UpdatedAt, k.RevokedAt, k.RevokeReason = webhookNow, webhookNow, apikey.RevokeKeyCompromise
	case apikey.KeyExpired:
		k.ExpiresAt = webhookNow
	default: // as it was made
	}
	return k
}

// A payload is one form of a resource, and nothing but a message of its kind is
// taken for one.
func TestPayload(t *testing.T) {
	t.Parallel()
	k := goldenResource(t, apikey.KeyCreated).(apikey.Key)
	for range 20 { // the order of a map's entries would differ in some
		again := goldenResource(t, apikey.KeyCreated).(apikey.Key)
		a, _ := wire.KeyPayload(&k, webhookNow)
		b, _ := wire.KeyPayload(&again, webhookNow)
		if string(a) != string(b) {
			t.Fatal("equal keys have different payloads")
		}
	}
	w := goldenResource(t, webhook.WebhookCreated).(webhook.Webhook)
	payload, err := wire.WebhookPayload(&w)
	if err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "hunter3"} {
		if strings.Contains(string(payload), never) {
			t.Errorf("the payload tells %s", never)
		}
	}
	for _, kind := range []apikey.EventType{apikey.KeyCreated, webhook.WebhookCreated} {
		junk := &apikey.Event{ID: "event_2", Type: kind, Payload: []byte("junk")}
		if m, err := wire.Event(junk); err == nil || !strings.Contains(err.Error(), "event_2") {
			t.Errorf("junk is %v, %v", m, err)
		}
		if b, err := wire.AppendWatchEvent(nil, junk, "cursor"); err == nil || !strings.Contains(err.Error(), "event_2") {
			t.Errorf("junk is %x, %v", b, err)
		}
	}
	if m, err := wire.Event(&apikey.Event{Type: "planet.seen", Payload: []byte("junk")}); err != nil || proto.Size(m) == 0 {
		t.Errorf("an event of a later kind: %v, %v", m, err)
	}
}

// TestAppendWatchEvent holds the bytes of a stream to the message that protobuf would
// make of the event, whatever is in it.
func TestAppendWatchEvent(t *testing.T) {
	t.Parallel()
	types := []apikey.EventType{webhook.WebhookTest, "planet.seen"}
	for _, described := range webhook.EventTypes() {
		types = append(types, described.Type)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := func(name string) string { return rapid.StringN(0, 200, 300).Draw(t, name) }
		e := &apikey.Event{
			ID: text("id"), Type: rapid.SampledFrom(types).Draw(t, "type"), OrganizationID: text("organization"), ResourceID: text("resource"),
			Changes: rapid.SliceOfN(rapid.String(), 0, 5).Draw(t, "changes"), CreatedAt: drawTime(t, "created at"),
			Origin: apikey.Origin{RequestID: text("request"), Actor: apikey.Actor{
				Kind: rapid.SampledFrom([]apikey.ActorKind{"", apikey.ActorOperator, apikey.ActorPerson, apikey.ActorKey}).Draw(t, "actor's kind"), ID: text("actor"), Name: text("actor's name"),
			}},
		}
		var err error
		switch {
		case webhook.IsAboutKey(e.Type):
			k := drawStoredKey(t)
			e.Payload, err = wire.KeyPayload(&k, drawTime(t, "at"))
		case webhook.IsAboutWebhook(e.Type):
			w := webhook.Webhook{ID: text("id"), Label: text("label"), Headers: webhook.NewHeaders(map[string]string{"x-a": text("header")}), CreatedAt: drawTime(t, "made at")}
			e.Payload, err = wire.WebhookPayload(&w)
		}
		if err != nil {
			t.Fatal(err)
		}
		cursor := text("cursor")
		m, err := wire.Event(e)
		if err != nil {
			t.Fatal(err)
		}
		m.Cursor = cursor
		want := &apikeysv1.WatchEventsResponse{Cursor: cursor, Event: m}
		encoded, err := wire.AppendWatchEvent([]byte("before"), e, cursor)
		if err != nil {
			t.Fatal(err)
		}
		got := new(apikeysv1.WatchEventsResponse)
		if err := proto.Unmarshal(encoded[len("before"):], got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("the bytes say something else (-message +bytes)\n%s", diff)
		}
		if size := proto.Size(want); len(encoded)-len("before") != size {
			t.Errorf("%d bytes, protobuf takes %d", len(encoded)-len("before"), size)
		}
	})
}
