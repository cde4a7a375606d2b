package store_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/wire"
)

var keyTests = map[string]func(*testing.T, *fixture){
	"CreateKey":            testCreateKey,
	"CreateKeyRefused":     testCreateKeyRefused,
	"SnapshotKeepsSecrets": testSnapshotKeepsSecrets,
}

// fullKey sets every field that a caller can ask for, with text that needs care.
func fullKey(k *apikey.Key) {
	k.Label = `A "key" <b>&amp;</b> \ 'é' 鍵` + "\n\t\u2028"
	k.Description = strings.Repeat("é", 2000)
	k.Scopes = apikey.Scopes{"payments.read", "*", "invoices.read"}
	k.IPAllowList = apikey.AllowList{
		netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("0.0.0.0/0"),
	}
	k.ExpiresAt = time.Date(2026, 6, 1, 0, 0, 0, 999_999_000, time.UTC)
	k.Mode = apikey.ModeTest
	k.OwnerID = "owner ' OR 1=1 --"
	k.Metadata = map[string]string{`"quoted"`: `\`, "null": "null", "é.`": ""}
	k.RateLimit = apikey.RateLimit{Requests: 1_000_000, WindowSeconds: 86_400, Exact: true}
}

func testCreateKey(t *testing.T, f *fixture) {
	for i, with := range []func(*apikey.Key){fullKey, nil} {
		created := f.create(t, with)
		if !apikey.IsID(apikey.IDPrefix, created.ID) || created.Version != 1 || !created.UpdatedAt.IsZero() {
			t.Errorf("created %+v", created)
		}
		if want := f.clock.stored(); created.CreatedAt != want {
			t.Errorf("created at %v, want %v", created.CreatedAt, want)
		}
		f.wantKey(t, created)
		bySecret, position, err := f.KeyBySecret(t.Context(), []apikey.Hash{{1}, created.Secret.Hash, {2}})
		if err != nil || position != int64(i)+1 {
			t.Errorf("by secret at %d: %v", position, err)
		}
		wantSame(t, "key by secret", created, bySecret)

		events := f.events(t, int64(i))
		if len(events) != 1 {
			t.Fatalf("%d events", len(events))
		}
		e := events[0]
		want, err := wire.KeyPayload(&created, f.clock.stored())
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, "the event's key", want, e.Payload)
		if created.CreatedBy != operator.Actor || created.Secret.EdgeHash == (apikey.Hash{}) {
			t.Errorf("made by %+v, edge hash %x", created.CreatedBy, created.Secret.EdgeHash)
		}
		if !apikey.IsID(apikey.EventIDPrefix, e.ID) {
			t.Errorf("event id %q", e.ID)
		}
		e.ID, e.Payload = "", nil
		wantSame(t, "event", apikey.Event{
			Position: int64(i) + 1, Type: apikey.KeyCreated, OrganizationID: org, ResourceID: created.ID,
			Origin: operator.Origin, CreatedAt: f.clock.stored(),
		}, e)
	}
}

func testCreateKeyRefused(t *testing.T, f *fixture) {
	refusal := errors.New("refused")
	k, err := f.CreateKey(t.Context(), operator, func(time.Time) (apikey.Key, error) {
		return apikey.Key{OrganizationID: org}, refusal
	})
	if !errors.Is(err, refusal) {
		t.Errorf("got %v", err)
	}
	wantSame(t, "key", apikey.Key{}, k)
	known := apikey.InvalidField("label", "is required")
	_, err = f.CreateKey(t.Context(), operator, func(time.Time) (apikey.Key, error) { return apikey.Key{}, known })
	if err != known { //nolint:errorlint // As it is, not wrapped.
		t.Errorf("got %v", err)
	}

	// A secret that is there already is no answer for the caller, and leaves nothing.
	first := f.create(t, nil)
	_, err = f.tryCreate(t, t.Context(), func(k *apikey.Key) { k.Secret = first.Secret })
	if err == nil || apikey.AsError(err) != nil {
		t.Errorf("got %v", err)
	}
	f.wantEvents(t, 0, apikey.KeyCreated)
	keys, next, err := f.Keys(t.Context(), store.KeyFilter{Organization: org}, "", 10)
	if len(keys) != 1 || next != "" || err != nil {
		t.Errorf("got %d keys, %q, %v", len(keys), next, err)
	}
}

// testSnapshotKeepsSecrets looks for every form of a hash in what the log keeps.
func testSnapshotKeepsSecrets(t *testing.T, f *fixture) {
	secret, kept := newSecret(t)
	k := f.create(t, func(k *apikey.Key) { k.Secret = kept })
	next, keptNext := newSecret(t)
	if _, err := f.rotate(t, k.ID, keptNext, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := f.DeleteKey(t.Context(), operator, org, k.ID); err != nil {
		t.Fatal(err)
	}
	events := f.events(t, 0)
	if len(events) != 3 {
		t.Fatalf("%d events", len(events))
	}
	for _, e := range events {
		for _, s := range []apikey.Secret{secret, next} {
			hash, edge := peppers.Hash(0, s.Reveal()), peppers.Stored(s).EdgeHash
			for _, never := range [][]byte{
				[]byte(s.Reveal()), []byte(s.Reveal()[8:51]), hash[:],
				[]byte(hex.EncodeToString(hash[:])), []byte(base64.StdEncoding.EncodeToString(hash[:])[:42]),
				edge[:], []byte(hex.EncodeToString(edge[:])), []byte(base64.StdEncoding.EncodeToString(edge[:])[:42]),
				[]byte("p_1"),
			} {
				if bytes.Contains(bytes.ToLower(e.Payload), bytes.ToLower(never)) {
					t.Errorf("%s holds %q: %s", e.Type, never, e.Payload)
				}
			}
		}
	}
	if !bytes.Contains(events[0].Payload, []byte(secret.Mask())) || !bytes.Contains(events[1].Payload, []byte(next.Mask())) {
		t.Error("an event has not the mask")
	}
}
