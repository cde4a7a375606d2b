package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var changeTests = map[string]func(*testing.T, *fixture){
	"ChangeEveryField":     testChangeEveryField,
	"ChangeNothing":        testChangeNothing,
	"ChangeRefused":        testChangeRefused,
	"ChangeUnknown":        testChangeUnknown,
	"Rotate":               testRotate,
	"DeleteKey":            testDeleteKey,
	"TimesAreMicroseconds": testTimesAreMicroseconds,
}

// rotate gives a key of the default organization another secret.
func (f *fixture) rotate(t *testing.T, id string, secret apikey.StoredSecret, overlap time.Duration) (apikey.Key, error) {
	return f.ChangeKey(t.Context(), operator, org, id, apikey.KeyRotated, func(k *apikey.Key, now time.Time) error {
		k.EndPrevious()
		return rules.Rotate(k, rules.Formats.Next(k), secret, overlap, now)
	})
}

// testChangeEveryField sets each field of a bare key and clears it again.
func testChangeEveryField(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	bare := k
	full := k
	fullKey(&full)
	for field, set := range map[string]func(k, from *apikey.Key){
		"label":         func(k, from *apikey.Key) { k.Label = from.Label },
		"description":   func(k, from *apikey.Key) { k.Description = from.Description },
		"scopes":        func(k, from *apikey.Key) { k.Scopes = from.Scopes },
		"ip_allow_list": func(k, from *apikey.Key) { k.IPAllowList = from.IPAllowList },
		"expires_at":    func(k, from *apikey.Key) { k.ExpiresAt = from.ExpiresAt },
		"owner_id":      func(k, from *apikey.Key) { k.OwnerID = from.OwnerID },
		"metadata":      func(k, from *apikey.Key) { k.Metadata = from.Metadata },
		"rate_limit":    func(k, from *apikey.Key) { k.RateLimit = from.RateLimit },
	} {
		for _, from := range []apikey.Key{full, bare} {
			f.clock.Advance(time.Minute)
			want := k
			set(&want, &from)
			want.UpdatedAt, want.Version = f.clock.stored(), k.Version+1

			position := k.Version // one event a change
			changed, err := f.ChangeKey(t.Context(), operator, org, k.ID, apikey.KeyUpdated,
				func(k *apikey.Key, now time.Time) error {
					if now != f.clock.stored() {
						t.Errorf("now is %v", now)
					}
					set(k, &from)
					return nil
				})
			if err != nil {
				t.Fatalf("%s: %v", field, err)
			}
			wantSame(t, field, want, changed)
			f.wantKey(t, want)
			events := f.events(t, position)
			if len(events) != 1 || events[0].Type != apikey.KeyUpdated || events[0].CreatedAt != want.UpdatedAt {
				t.Fatalf("%s: events %+v", field, events)
			}
			wantSame(t, "changes", []string{field}, events[0].Changes)
			k = changed
		}
	}
	bare.UpdatedAt, bare.Version = k.UpdatedAt, k.Version
	f.wantKey(t, bare)
}

func testChangeNothing(t *testing.T, f *fixture) {
	var commits, unchanged int
	f.OnCommit(func(c store.Commit) {
		if commits++; c.First > c.Position && len(c.ChangedKeys) == 1 {
			unchanged++ // Another server may have made the change: caches must not be older.
		}
	})
	k := f.create(t, fullKey)
	f.clock.Advance(time.Minute)
	for name, rule := range map[string]func(*apikey.Key){
		"nothing":            func(*apikey.Key) {},
		"the same lists":     func(k *apikey.Key) { k.Scopes = append(apikey.Scopes{}, k.Scopes...) },
		"what is not a part": func(k *apikey.Key) { k.Usage.TotalRequests, k.UpdatedAt, k.Version = 7, k.CreatedAt, 9 },
		"a finer time":       func(k *apikey.Key) { k.ExpiresAt = k.ExpiresAt.Add(999) },
		"another zone":       func(k *apikey.Key) { k.ExpiresAt = k.ExpiresAt.In(time.FixedZone("", 3600)) },
	} {
		_, err := f.ChangeKey(t.Context(), operator, org, k.ID, apikey.KeyUpdated,
			func(k *apikey.Key, _ time.Time) error {
				rule(k)
				return nil
			})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.wantKey(t, k)
	}
	f.wantEvents(t, 1)
	if commits != 6 || unchanged != 5 {
		t.Errorf("told of %d commits, of which %d have no event and a key", commits, unchanged)
	}
}

func testChangeRefused(t *testing.T, f *fixture) {
	k := f.create(t, fullKey)
	refusal := apikey.Errorf(apikey.KindPermissionDenied, apikey.ReasonExceedsCaller, "No.")
	change := func(k *apikey.Key, _ time.Time) error {
		k.Label = "changed"
		return nil
	}
	_, byRule := f.ChangeKey(t.Context(), operator, org, k.ID, apikey.KeyUpdated, func(k *apikey.Key, now time.Time) error {
		change(k, now)
		return refusal
	})
	// The rule has no objection, but nobody may make such an event.
	_, byRights := f.ChangeKey(t.Context(), operator, org, k.ID, apikey.KeyExpired, change)
	if byRule != refusal || apikey.AsError(byRights) == nil || apikey.AsError(byRights).Reason != apikey.ReasonPermissionDenied { //nolint:errorlint // As it is, not wrapped.
		t.Errorf("got %v and %v", byRule, byRights)
	}
	f.wantKey(t, k)
	f.wantEvents(t, 1)
}

// testChangeUnknown says that another organization's key is like none.
func testChangeUnknown(t *testing.T, f *fixture) {
	k := f.create(t, nil)
	other := k
	other.OrganizationID = "org_other"
	none := k
	none.ID = apikey.NewID(apikey.IDPrefix)
	for _, unknown := range []apikey.Key{other, none} {
		_, read := f.Key(t.Context(), unknown.OrganizationID, unknown.ID)
		_, change := f.ChangeKey(t.Context(), operator, unknown.OrganizationID, unknown.ID, apikey.KeyUpdated,
			func(*apikey.Key, time.Time) error {
				t.Error("a rule ran")
				return nil
			})
		deletion := f.DeleteKey(t.Context(), operator, unknown.OrganizationID, unknown.ID)
		for _, err := range []error{read, change, deletion} {
			if err != apikey.ErrNotFound { //nolint:errorlint // As it is, not wrapped.
				t.Errorf("got %v", err)
			}
		}
	}
	f.wantKey(t, k)
	f.wantEvents(t, 1)
}

func testRotate(t *testing.T, f *fixture) {
	var changed []string
	f.OnCommit(func(c store.Commit) { changed = c.ChangedKeys })
	k := f.create(t, nil)
	first := k.Secret
	wantSame(t, "changed by create", []string(nil), changed)

	_, second := newSecret(t)
	k, err := f.rotate(t, k.ID, second, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "previous", first, k.Previous)
	wantSame(t, "changed", []string{k.ID}, changed)
	for _, hash := range []apikey.Hash{first.Hash, second.Hash} {
		found, position, err := f.KeyBySecret(t.Context(), []apikey.Hash{hash})
		if err != nil || position != 2 {
			t.Errorf("at %d: %v", position, err)
		}
		wantSame(t, "key", k, found)
	}

	// Rotating during the overlap ends the older secret at once.
	_, third := newSecret(t)
	if k, err = f.rotate(t, k.ID, third, time.Minute); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "changed", []string{k.ID}, changed)
	if _, _, err := f.KeyBySecret(t.Context(), []apikey.Hash{first.Hash}); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("the first secret: %v", err)
	}
	f.wantKey(t, k)

	// Without an overlap none is left.
	_, fourth := newSecret(t)
	if k, err = f.rotate(t, k.ID, fourth, 0); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "previous", apikey.StoredSecret{}, k.Previous)
	f.wantKey(t, k)
	if _, _, err := f.KeyBySecret(t.Context(), []apikey.Hash{first.Hash, second.Hash, third.Hash}); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("an ended secret: %v", err)
	}
	f.wantEvents(t, 1, apikey.KeyRotated, apikey.KeyRotated, apikey.KeyRotated)
}

func testDeleteKey(t *testing.T, f *fixture) {
	var changed []string
	f.OnCommit(func(c store.Commit) { changed = c.ChangedKeys })
	k, other := f.create(t, fullKey), f.create(t, nil)
	_, second := newSecret(t)
	k, err := f.rotate(t, k.ID, second, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.AddUsage(t.Context(), []apikey.UsageCount{{KeyID: k.ID, Count: 3, LastUsedAt: f.clock.Now()}}); err != nil {
		t.Fatal(err)
	}
	if err := f.DeleteKey(t.Context(), operator, org, k.ID); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "changed", []string{k.ID}, changed)
	f.wantNotFound(t, &k)
	f.wantKey(t, other)
	if n, err := f.Counters(t.Context()); n != 0 || err != nil {
		t.Errorf("%d counters are left, %v", n, err)
	}
	if err := f.DeleteKey(t.Context(), operator, org, k.ID); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	f.wantEvents(t, 3, apikey.KeyDeleted)
	if told := keyOf(t, &f.events(t, 3)[0]); told.GetLabel() != k.Label || told.GetMetrics().GetTotalRequests() != 3 {
		t.Errorf("told %+v", told)
	}
}

// testTimesAreMicroseconds gives rules finer and local times: what is answered,
// told and read back is one and the same.
func testTimesAreMicroseconds(t *testing.T, f *fixture) {
	fine := time.Date(2026, 12, 31, 23, 59, 59, 999_999_999, time.FixedZone("", -5*60*60))
	want := time.Date(2027, 1, 1, 4, 59, 59, 999_999_000, time.UTC)
	_, secret := newSecret(t)
	k, err := f.CreateKey(t.Context(), operator, func(time.Time) (apikey.Key, error) {
		return apikey.Key{OrganizationID: org, Mode: apikey.ModeLive, Secret: secret, CreatedAt: fine, ExpiresAt: fine, Version: 1}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.wantKey(t, k)
	if k.CreatedAt != want || k.ExpiresAt != want {
		t.Errorf("created at %v with %v", k.CreatedAt, k.ExpiresAt)
	}
	k, err = f.update(t.Context(), k.ID, func(k *apikey.Key) {
		k.ExpiresAt, k.RevokedAt, k.PreviousExpiresAt = fine.Add(time.Hour), fine, fine
		k.RevokeReason = apikey.RevokeSuperseded
	})
	if err != nil {
		t.Fatal(err)
	}
	f.wantKey(t, k)
	for _, got := range []time.Time{k.ExpiresAt.Add(-time.Hour), k.RevokedAt, k.PreviousExpiresAt} {
		if got != want {
			t.Errorf("changed to %v", got)
		}
	}
	for _, e := range f.events(t, 0) {
		told := keyOf(t, &e)
		if got := told.GetCreatedAt().AsTime(); got != want {
			t.Errorf("told of a key of %v", got)
		}
		if got := told.GetExpiresAt().AsTime(); got != want && got != want.Add(time.Hour) {
			t.Errorf("told of an end at %v", got)
		}
	}
}
