package store_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/client/hooks"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// maxActing is how many keys act in one run of the property.
const maxActing = 3

// actorScopes are what keys of the property are given some of.
var actorScopes = []string{"api_keys.create", "api_keys.update", "api_keys.delete", "webhooks.create", "webhooks.update", "events.read"}

// testRightsOfTheLog makes changes by keys and by an operator at once, among them
// those that end, narrow and rotate the keys, and reads from the order of the log that
// each event was one that its actor might make, with the secret that it showed. What
// callers know of themselves is as old as the run.
func testRightsOfTheLog(t *testing.T, f *fixture) {
	rapid.Check(t, func(r *rapid.T) {
		run := &rightsRun{f: f, t: t}
		position, err := f.Position(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range maxActing {
			k := f.create(t, func(k *apikey.Key) {
				k.Scopes = rapid.SliceOfDistinct(rapid.SampledFrom(append([]string{"*"}, actorScopes...)), func(s string) string { return s }).Draw(r, "scopes")
				if rapid.Bool().Draw(r, "expires") {
					k.ExpiresAt = f.clock.Now().Add(time.Hour)
				}
				if rapid.Bool().Draw(r, "list") {
					k.IPAllowList = apikey.AllowList{netip.MustParsePrefix("192.0.2.0/24")}
				}
			})
			run.keys = append(run.keys, k)
		}
		w := f.hook(t, nil)
		run.hook = w.ID
		var changes []func()
		for range rapid.IntRange(2, 24).Draw(r, "changes") {
			changes = append(changes, run.draw(r))
		}
		var all sync.WaitGroup
		for _, change := range changes {
			all.Go(change)
		}
		all.Wait()
		list, _, err := f.Webhooks(t.Context(), store.WebhookFilter{Organization: org}, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range list {
			if err := f.DeleteWebhook(t.Context(), operator, org, w.ID); err != nil {
				t.Fatal(err)
			}
		}
		checkRights(r, f.events(t, position))
	})
}

// A rightsRun is what the changes of one run are made to.
type rightsRun struct {
	f    *fixture
	t    *testing.T
	keys []apikey.Key
	hook string
}

// draw returns a change by somebody of something.
func (x *rightsRun) draw(r *rapid.T) func() {
	ctx, f := context.Background(), x.f
	target := x.keys[rapid.IntRange(0, maxActing-1).Draw(r, "target")].ID
	actor := rapid.IntRange(-2, maxActing-1).Draw(r, "actor")
	as := func(current bool, scopes ...string) *apikey.Caller {
		if actor < 0 {
			return operator
		}
		by := calling(&x.keys[actor], scopes...)
		by.Requirement.CurrentSecret = current
		return by
	}
	change := func(event apikey.EventType, scope string, rule func(k *apikey.Key, now time.Time) error) func() {
		return func() { _, _ = f.ChangeKey(ctx, as(false, scope), org, target, event, rule) }
	}
	update := func(rule func(k *apikey.Key, now time.Time)) func() {
		return change(apikey.KeyUpdated, "api_keys.update", func(k *apikey.Key, now time.Time) error { rule(k, now); return nil })
	}
	scopes := apikey.Scopes(rapid.SliceOfDistinct(rapid.SampledFrom(actorScopes), func(s string) string { return s }).Draw(r, "new scopes"))
	lasts := time.Duration(rapid.IntRange(0, 90).Draw(r, "minutes")) * time.Minute // 0 is for good
	overlap := time.Duration(rapid.SampledFrom([]int{0, 10, 60}).Draw(r, "overlap")) * time.Minute
	expiry := func(now time.Time) time.Time {
		if lasts == 0 {
			return time.Time{}
		}
		return now.Add(lasts)
	}
	changeHook := func(event apikey.EventType, rule func(w *webhook.Webhook, now time.Time) error) func() {
		return func() { _, _ = f.ChangeWebhook(ctx, as(true, "webhooks.update"), org, x.hook, event, rule) }
	}
	switch rapid.IntRange(0, 12).Draw(r, "change") {
	case 0, 1, 2:
		return func() {
			_, secret := newSecret(x.t)
			_, _ = f.CreateKey(ctx, as(false, "api_keys.create"), func(now time.Time) (apikey.Key, error) {
				return rules.Create(apikey.Key{
					OrganizationID: org, Label: "child", Enabled: true, Secret: secret, Scopes: scopes, ExpiresAt: expiry(now),
					IPAllowList: apikey.AllowList{netip.MustParsePrefix("192.0.2.7/32")},
				}, now)
			})
		}
	case 3:
		return change(apikey.KeyRotated, "api_keys.update", func(k *apikey.Key, now time.Time) error {
			_, secret := newSecret(x.t)
			k.EndPrevious()
			return rules.Rotate(k, rules.Formats.Next(k), secret, overlap, now)
		})
	case 4:
		return change(apikey.KeyRevoked, "api_keys.delete", func(k *apikey.Key, now time.Time) error { rules.Revoke(k, "", now); return nil })
	case 5:
		return func() { _ = f.DeleteKey(ctx, as(false, "api_keys.delete"), org, target) }
	case 6:
		return update(func(k *apikey.Key, _ time.Time) { k.Enabled = !k.Enabled })
	case 7:
		return update(func(k *apikey.Key, _ time.Time) { k.Scopes = scopes })
	case 8:
		return update(func(k *apikey.Key, now time.Time) { k.ExpiresAt = expiry(now) })
	case 9:
		elsewhere := apikey.AllowList{netip.MustParsePrefix("198.51.100.0/24")}
		return update(func(k *apikey.Key, _ time.Time) { k.IPAllowList = elsewhere })
	case 10:
		return changeHook(webhook.WebhookUpdated, func(w *webhook.Webhook, _ time.Time) error {
			if w.Label += "x"; lasts > 45*time.Minute {
				w.URL += "x"
			}
			return nil
		})
	case 11:
		return changeHook(webhook.WebhookSecretRotated, func(w *webhook.Webhook, now time.Time) error {
			secret, err := hooks.NewSecret(nil)
			if err != nil {
				return err
			}
			return hookRules.RotateSecret(w, secret, webhook.Rotation{EndOldest: true}, now)
		})
	default:
		return func() { f.clock.Advance(5 * time.Minute) }
	}
}

// An actingKey is what the log tells of a key before an event.
type actingKey struct {
	*apikeysv1.ApiKey
	rotations int
}

// checkRights fails on an event that its actor might not make when it comes in the
// log.
func checkRights(t *rapid.T, log []apikey.Event) {
	keys := make(map[string]*actingKey)
	for i := range log {
		e := &log[i]
		m, err := wire.Event(e)
		if err != nil {
			t.Fatal(err)
		}
		if e.Actor.Kind == apikey.ActorKey {
			if problem := keys[e.Actor.ID].forbids(e, m); problem != "" {
				t.Fatalf("event %d, %s of %s by %s: %s; the key was %v", e.Position, e.Type, e.ResourceID, e.Actor.ID, problem, keys[e.Actor.ID])
			}
		}
		switch k := m.GetApiKey(); {
		case e.Type == apikey.KeyDeleted:
			delete(keys, e.ResourceID)
		case k != nil:
			known := keys[e.ResourceID]
			if known == nil {
				known = new(actingKey)
				keys[e.ResourceID] = known
			}
			if known.ApiKey = k; e.Type == apikey.KeyRotated {
				known.rotations++
			}
		}
	}
}

// forbids says why a key might not make an event; empty where it might.
func (k *actingKey) forbids(e *apikey.Event, m *apikeysv1.Event) string {
	if k == nil {
		return "it was deleted"
	}
	end := time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
	if k.GetExpiresAt() != nil {
		end = k.GetExpiresAt().AsTime()
	}
	if k.GetRevokedAt() != nil || !k.GetEnabled() || !e.CreatedAt.Before(end) {
		return "it was revoked, disabled or expired"
	}
	if list := k.GetIpAllowList(); len(list) > 0 && !slices.Contains(list, "192.0.2.0/24") && !slices.Contains(list, "192.0.2.7") {
		return "the address was not allowed"
	}
	generation, err := strconv.Atoi(strings.TrimPrefix(e.RequestID, "request_"))
	previous := generation == k.rotations-1
	if err != nil || generation != k.rotations && !previous {
		return "the secret was rotated away"
	}
	if previous {
		if until := k.GetPreviousSecretExpiresAt(); until == nil || !e.CreatedAt.Before(until.AsTime()) {
			return "the overlap was over"
		} else if until.AsTime().Before(end) {
			end = until.AsTime()
		}
	}
	holds := func(scope string) bool {
		return slices.Contains(k.GetScopes(), scope) || slices.Contains(k.GetScopes(), "*")
	}
	needs := map[apikey.EventType][]string{
		apikey.KeyCreated: {"api_keys.create"}, apikey.KeyUpdated: {"api_keys.update"}, apikey.KeyRotated: {"api_keys.update"},
		apikey.KeyRevoked: {"api_keys.delete"}, apikey.KeyDeleted: {"api_keys.delete"},
		webhook.WebhookUpdated: {"webhooks.update"}, webhook.WebhookSecretRotated: {"webhooks.update", "events.read"},
	}[e.Type]
	if slices.Contains(e.Changes, "url") {
		needs = append(needs, "events.read")
	}
	for _, scope := range needs {
		if !holds(scope) {
			return "it lacked " + scope
		}
	}
	made := m.GetApiKey()
	switch {
	case needs == nil:
		return "no rule is known"
	case previous && (made == nil || made.GetId() == k.GetId() && (e.Type == apikey.KeyUpdated || e.Type == apikey.KeyRotated)):
		return "the secret was the previous one"
	case made == nil || e.Type == apikey.KeyRevoked || e.Type == apikey.KeyDeleted:
		return ""
	}
	whole := e.Type != apikey.KeyUpdated || slices.Contains(e.Changes, "expires_at") || slices.Contains(e.Changes, "enabled") && made.GetEnabled()
	if whole || slices.Contains(e.Changes, "scopes") {
		for _, scope := range made.GetScopes() {
			if !holds(scope) {
				return "it did not hold " + scope
			}
		}
	}
	if whole && (made.GetExpiresAt() == nil && end.Year() < 10_000 || made.GetExpiresAt() != nil && made.GetExpiresAt().AsTime().After(end)) {
		return fmt.Sprint("it ended at ", end, ", before what it made")
	}
	return ""
}
