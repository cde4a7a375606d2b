package store_test

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofrs/uuid/v5"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// population is what a database was filled with, for a check that it is all there in
// another database or under another schema. Its secrets are made of numbers, so that
// none is in a file.
type population struct {
	// Keys are the keys by the numbers of their secrets.
	Keys []populatedKey `json:"keys"`
	// Previous is the key whose previous secret still works, and has the number -1.
	Previous string `json:"previous"`
	// Quota has 7 units left.
	Quota string `json:"quota"`
	// Webhook has deliveries, Leased of which were under way.
	Webhook string   `json:"webhook"`
	Leased  []string `json:"leased"`
	Events  int      `json:"events"`
	// Now is the clock's time at the end.
	Now time.Time `json:"now"`
}

type populatedKey struct {
	ID    string       `json:"id"`
	State apikey.State `json:"state"` // empty where it was deleted
}

// numbered returns the secret of a number.
func numbered(tb testing.TB, n int) apikey.StoredSecret {
	tb.Helper()
	secret, err := apikey.NewSecret("sk_live_", rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}))
	if err != nil {
		tb.Fatal(err)
	}
	return peppers.Stored(secret)
}

// openFixture opens a database of c with what the suite uses. Its ids are those of a
// generation, so that a database which is opened again gets new ones.
func openFixture(t *testing.T, c store.Config, generation int64) *fixture {
	t.Helper()
	f := &fixture{clock: newClock(), log: new(bytes.Buffer)}
	var made atomic.Int64
	c.Now, c.Logger = f.clock.Now, slog.New(slog.NewTextHandler(f.log, nil))
	c.NewID = func(prefix string) string {
		at := time.UnixMilli(1_700_000_000_000 + generation*1_000_000_000 + made.Add(1))
		return prefix + uuid.Must(uuid.NewV7AtTime(at)).String()
	}
	s, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.SealWith(newSealer(t, "e_1"))
	f.Store = s
	return f
}

// closeFixture closes the database, which is opened again.
func (f *fixture) closeFixture(t *testing.T) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// populate fills an empty database with something of everything.
func populate(t *testing.T, f *fixture) (p population) {
	t.Helper()
	token := f.token(1, "p_1")
	settings := map[string]string{"database_id": "1", "check/pepper/p_1": "value"}
	if err := f.Initialize(t.Context(), settings, &token); err != nil {
		t.Fatal(err)
	}
	hook := f.hook(t, func(w *webhook.Webhook) {
		w.Headers = webhook.NewHeaders(map[string]string{"X-Token": "a hidden value"})
	})
	p.Webhook = hook.ID
	add := func(with func(k *apikey.Key)) apikey.Key {
		k := f.create(t, func(k *apikey.Key) {
			k.Secret = numbered(t, len(p.Keys))
			if with != nil {
				with(k)
			}
		})
		p.Keys = append(p.Keys, populatedKey{k.ID, apikey.StateActive})
		return k
	}
	add(func(k *apikey.Key) {
		k.Label, k.Description, k.OwnerID = "Schlüssel 鍵 \"'\\", "line\none\ttab", "owner_1"
		k.Scopes, k.Metadata = []string{"api_keys.read", "events.read"}, map[string]string{"b": "<2>", "a": "1 & ü", "c": ""}
		k.RateLimit = apikey.RateLimit{Requests: 10, WindowSeconds: 60}
		k.ExpiresAt = f.clock.Now().Add(30 * 24 * time.Hour)
	})
	quota := add(func(k *apikey.Key) {
		k.Quota = apikey.Quota{Limit: 10, Remaining: 10, Refill: apikey.RefillMonthly, RefillDay: 5}
	})
	p.Quota = quota.ID
	if grant := f.reserve(t, quota, 3); grant.Units != 3 {
		t.Fatalf("granted %+v", grant)
	}
	rotated := add(nil)
	p.Previous = rotated.ID
	if _, err := f.rotate(t, rotated.ID, numbered(t, -1), time.Hour); err != nil {
		t.Fatal(err)
	}
	revoked := add(nil)
	_, err := f.ChangeKey(t.Context(), operator, org, revoked.ID, apikey.KeyRevoked, func(k *apikey.Key, now time.Time) error {
		k.RevokedAt, k.RevokeReason = now, apikey.RevokeSuperseded
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Keys[3].State = apikey.StateRevoked
	disabled := add(nil)
	if _, err := f.update(t.Context(), disabled.ID, func(k *apikey.Key) { k.Enabled = false }); err != nil {
		t.Fatal(err)
	}
	p.Keys[4].State = apikey.StateDisabled
	deleted := add(nil)
	if err := f.DeleteKey(t.Context(), operator, org, deleted.ID); err != nil {
		t.Fatal(err)
	}
	p.Keys[5].State = ""
	for range 20 {
		add(nil)
	}
	hour := f.clock.Now().Truncate(time.Hour)
	f.addUsage(t, apikey.UsageCount{
		KeyID: rotated.ID, OrganizationID: org, Count: 5, LastUsedAt: f.clock.Now(),
		Outcomes: []apikey.OutcomeCount{{Hour: hour, Code: apikey.CodeValid, Count: 5}},
	})
	f.settleOne(t, hook.ID, failed)
	f.settleOne(t, hook.ID, webhook.Outcome{Status: 200, Body: []byte{0, 0xff}})
	claims, _ := f.claim(t, "under_way", 3, hook.ID)
	for _, c := range claims {
		p.Leased = append(p.Leased, c.Delivery.ID)
	}
	p.Events, p.Now = len(f.events(t, 0)), f.clock.stored()
	return p
}

// checkPopulation says that all of p is there, and that keys, the log and deliveries
// go on from it.
func checkPopulation(t *testing.T, f *fixture, p population) {
	t.Helper()
	f.clock.Advance(p.Now.Sub(f.clock.stored()))
	for n, want := range p.Keys {
		secret := numbered(t, n)
		if want.ID == p.Previous {
			f.wantSecret(t, secret, want) // the one before
			secret = numbered(t, -1)
		}
		f.wantSecret(t, secret, want)
	}
	settings, err := f.Settings(t.Context())
	if err != nil || settings["database_id"] != "1" || settings["check/pepper/p_1"] != "value" {
		t.Errorf("settings %v, %v", settings, err)
	}
	tokens, err := f.RootTokens(t.Context())
	if err != nil || len(tokens) != 1 || tokens[0].Hash != f.token(1, "p_1").Hash {
		t.Errorf("tokens %v, %v", tokens, err)
	}
	if n := f.remaining(t, p.Quota); n != 7 {
		t.Errorf("%d units are left of the quota, want 7", n)
	}
	k, err := f.Key(t.Context(), org, p.Previous)
	if err != nil || k.Usage.TotalRequests != 5 {
		t.Errorf("the key was used %d times, %v", k.Usage.TotalRequests, err)
	}
	if n := len(f.events(t, 0)); n != p.Events {
		t.Errorf("%d events, want %d", n, p.Events)
	}
	hook, err := f.Webhook(t.Context(), org, p.Webhook)
	if err != nil || len(hook.Headers) != 1 || hook.Headers[0].Value.Reveal() != "a hidden value" {
		t.Errorf("the webhook %+v, %v", hook, err)
	}
}

// checkGoesOn says that keys, the log and deliveries go on from p, where what was
// under way is due.
func checkGoesOn(t *testing.T, f *fixture, p population) {
	t.Helper()
	claims, _ := f.claim(t, "again", 100, p.Webhook)
	var claimed []string
	for _, c := range claims {
		claimed = append(claimed, c.Delivery.ID)
	}
	for _, id := range p.Leased {
		if !slices.Contains(claimed, id) {
			t.Errorf("delivery %s was under way and is not due", id)
		}
	}
	made := f.create(t, nil)
	if n := len(f.events(t, 0)); n != p.Events+1 {
		t.Errorf("%d events after one change, want %d", n, p.Events+1)
	}
	if _, err := f.update(t.Context(), p.Keys[0].ID, func(k *apikey.Key) { k.Label = "changed" }); err != nil {
		t.Error(err)
	}
	claims, _ = f.claim(t, "new", 100, p.Webhook)
	if len(claims) != 2 || claims[0].Event.ResourceID != made.ID {
		t.Errorf("%d deliveries of what was changed", len(claims))
	}
	for _, c := range claims {
		if settled := f.settle(t, c, webhook.Outcome{Status: 200}); len(settled) != 1 || settled[0].State != webhook.StateDelivered {
			t.Errorf("settled %+v", settled)
		}
	}
	f.addUsage(t, apikey.UsageCount{
		KeyID: made.ID, OrganizationID: org, Count: 1, LastUsedAt: f.clock.Now(),
		Outcomes: []apikey.OutcomeCount{{Hour: f.clock.Now().Truncate(time.Hour), Code: apikey.CodeValid, Count: 1}},
	})
}

// wantSecret says that a secret finds its key in its state.
func (f *fixture) wantSecret(t *testing.T, secret apikey.StoredSecret, want populatedKey) {
	t.Helper()
	k, _, err := f.KeyBySecret(t.Context(), []apikey.Hash{secret.Hash})
	switch {
	case want.State == "" && err != nil:
		return
	case err != nil || k.ID != want.ID:
		t.Errorf("found %q, want %s: %v", k.ID, want.ID, err)
	case k.State(f.clock.Now()) != want.State:
		t.Errorf("the key %s is %s, want %s", k.ID, k.State(f.clock.Now()), want.State)
	}
}
