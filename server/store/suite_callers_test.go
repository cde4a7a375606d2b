package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

var callerTests = map[string]func(*testing.T, *fixture){
	"ZeroCaller":        testZeroCaller,
	"EndedCaller":       testEndedCaller,
	"NarrowedCaller":    testNarrowedCaller,
	"CallerByItself":    testCallerByItself,
	"CallerKept":        testCallerKept,
	"CallerIsReadOnce":  testCallerIsReadOnce,
	"PreviousSecret":    testPreviousSecret,
	"OtherOrganization": testOtherOrganization,
	"Person":            testPerson,
	"ReplacedToken":     testReplacedToken,
	"RightsOfTheLog":    testRightsOfTheLog,
}

// home is the address that the callers of these tests call from.
var home = netip.MustParseAddr("192.0.2.1")

// callerScopes are those that callers of these tests have.
var callerScopes = apikey.Scopes{"api_keys.create", "api_keys.update", "api_keys.delete", "webhooks.create", "webhooks.update", "webhooks_queue.update", "events.read"}

// calling returns k as whoever calls a method that asks for scopes, with its current
// secret.
func calling(k *apikey.Key, scopes ...string) *apikey.Caller {
	v := apikey.Verification{Code: apikey.CodeValid, Key: k}
	return &apikey.Caller{
		Origin:       apikey.Origin{Actor: apikey.Actor{Kind: apikey.ActorKey, ID: k.ID}, RequestID: fmt.Sprint("request_", k.Rotations)},
		Organization: k.OrganizationID, Rights: v.Rights(), Requirement: apikey.Requirement{Scopes: scopes}, Addr: home, Generation: k.Rotations,
	}
}

// callersTargets is what callers change.
type callersTargets struct {
	k        apikey.Key
	w        webhook.Webhook
	delivery string
}

func (f *fixture) targets(t *testing.T) callersTargets {
	w := f.hook(t, nil)
	made, err := f.TestWebhook(t.Context(), operator, org, w.ID)
	if err != nil {
		t.Fatal(err)
	}
	return callersTargets{f.create(t, func(k *apikey.Key) { k.ExpiresAt = f.clock.Now().Add(time.Minute) }), w, made.ID}
}

// changesBy are all changes that a key can make, by their names.
func (f *fixture) changesBy(t *testing.T, caller *apikey.Key, to callersTargets) map[string]func() error {
	ctx := context.Background()
	as := func(scopes ...string) *apikey.Caller { return calling(caller, scopes...) }
	changeKey := func(by *apikey.Caller, event apikey.EventType, rule func(*apikey.Key, time.Time) error) error {
		_, err := f.ChangeKey(ctx, by, org, to.k.ID, event, rule)
		return err
	}
	changeHook := func(event apikey.EventType, rule func(*webhook.Webhook)) error {
		_, err := f.ChangeWebhook(ctx, as("webhooks.update"), org, to.w.ID, event, func(w *webhook.Webhook, _ time.Time) error { rule(w); return nil })
		return err
	}
	return map[string]func() error{
		"create": func() error {
			_, err := f.CreateKey(ctx, as("api_keys.create"), func(now time.Time) (apikey.Key, error) {
				_, secret := newSecret(t)
				return rules.Create(apikey.Key{OrganizationID: org, Label: "child", Enabled: true, Secret: secret, ExpiresAt: now.Add(time.Second)}, now)
			})
			return err
		},
		"update": func() error {
			return changeKey(as("api_keys.update"), apikey.KeyUpdated, func(k *apikey.Key, _ time.Time) error { k.Label += "x"; return nil })
		},
		"rotate": func() error {
			return changeKey(as("api_keys.update"), apikey.KeyRotated, func(k *apikey.Key, now time.Time) error {
				_, secret := newSecret(t)
				k.EndPrevious()
				return rules.Rotate(k, rules.Formats.Next(k), secret, 0, now)
			})
		},
		"revoke": func() error {
			return changeKey(as("api_keys.delete"), apikey.KeyRevoked, func(k *apikey.Key, now time.Time) error { rules.Revoke(k, "", now); return nil })
		},
		"delete": func() error { return f.DeleteKey(ctx, as("api_keys.delete"), org, to.k.ID) },
		"create webhook": func() error {
			_, err := f.CreateWebhook(ctx, as("webhooks.create", "events.read"), org, func(_ int, now time.Time) (webhook.Webhook, error) {
				w := to.w
				w.CreatedAt, w.Version = now, 1
				return w, nil
			})
			return err
		},
		"update webhook": func() error { return changeHook(webhook.WebhookUpdated, func(w *webhook.Webhook) { w.Label += "x" }) },
		"delete webhook": func() error { return f.DeleteWebhook(ctx, as("webhooks.delete"), org, to.w.ID) },
		"test webhook": func() error {
			_, err := f.TestWebhook(ctx, as("webhooks.update"), org, to.w.ID)
			return err
		},
		"retry": func() error {
			_, err := f.ChangeDelivery(ctx, as("webhooks_queue.update"), org, to.delivery, func(d *webhook.Delivery, w *webhook.Webhook, now time.Time) error {
				return d.Retry(w, webhook.TriggerRetry, now)
			})
			return err
		},
		"retry many": func() error {
			_, _, err := f.RetryDeliveries(ctx, as("webhooks_queue.update"), org, to.w.ID, []webhook.DeliveryState{webhook.StatePending}, 0, 10)
			return err
		},
		"replay": func() error {
			_, err := f.ReplayEvents(ctx, as("webhooks_queue.update", "events.read"), org, to.w.ID, 0, 1<<40, 10, everything)
			return err
		},
	}
}

// wantReason compares the reason of a refusal; "" is none.
func wantReason(t *testing.T, name string, err error, want apikey.Reason) {
	t.Helper()
	var got apikey.Reason
	if known := apikey.AsError(err); known != nil {
		got = known.Reason
	} else if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if got != want {
		t.Errorf("%s: %q, %v, want %q", name, got, err, want)
	}
}

// testZeroCaller says that a caller of whom nothing is known may change nothing, nor
// one that is named only.
func testZeroCaller(t *testing.T, f *fixture) {
	for _, by := range []*apikey.Caller{{}, {Origin: operator.Origin}, {Origin: operator.Origin, Organization: org}, {Organization: apikey.AllOrganizations}} {
		_, err := f.CreateKey(t.Context(), by, benchmarkKey)
		wantReason(t, fmt.Sprintf("%+v", by), err, apikey.ReasonPermissionDenied)
	}
	nobody := apikey.Key{ID: apikey.NewID(apikey.IDPrefix), OrganizationID: org, Scopes: apikey.Scopes{"*"}}
	for _, by := range []*apikey.Caller{calling(&nobody), {Origin: calling(&nobody).Origin, Rights: apikey.AllRights()}} {
		_, err := f.CreateKey(t.Context(), by, benchmarkKey)
		wantReason(t, "no such key", err, apikey.ReasonUnauthenticated)
	}
	f.wantEvents(t, 0)
}

// ends are what ends a key, as an operator asks for it.
func (f *fixture) ends(t *testing.T, id string) map[string]func() error {
	change := func(event apikey.EventType, rule func(k *apikey.Key, now time.Time)) func() error {
		return func() error {
			_, err := f.ChangeKey(context.Background(), operator, org, id, event, func(k *apikey.Key, now time.Time) error { rule(k, now); return nil })
			return err
		}
	}
	_, secret := newSecret(t)
	return map[string]func() error{
		"revoked":  change(apikey.KeyRevoked, func(k *apikey.Key, now time.Time) { rules.Revoke(k, "", now) }),
		"disabled": change(apikey.KeyUpdated, func(k *apikey.Key, _ time.Time) { k.Enabled = false }),
		"expired":  change(apikey.KeyUpdated, func(k *apikey.Key, now time.Time) { k.ExpiresAt = now }),
		"deleted":  func() error { return f.DeleteKey(context.Background(), operator, org, id) },
		"rotated": change(apikey.KeyRotated, func(k *apikey.Key, now time.Time) {
			if err := rules.Rotate(k, rules.Formats.Next(k), secret, 0, now); err != nil {
				t.Error(err)
			}
		}),
		"rotated twice": change(apikey.KeyRotated, func(k *apikey.Key, now time.Time) {
			for range 2 {
				k.EndPrevious()
				if err := rules.Rotate(k, rules.Formats.Next(k), secret, time.Hour, now); err != nil {
					t.Error(err)
				}
			}
		}),
	}
}

// testEndedCaller ends a key in the middle of a transaction: of each change, the one
// before is made, and the one behind is refused as a bad credential is.
func testEndedCaller(t *testing.T, f *fixture) {
	for end := range f.ends(t, "") {
		for name := range f.changesBy(t, new(apikey.Key), callersTargets{}) {
			caller := f.create(t, func(k *apikey.Key) { k.Scopes = slices.Concat(callerScopes, apikey.Scopes{"webhooks.delete"}) })
			first, second := f.targets(t), f.targets(t)
			before, behind := f.changesBy(t, &caller, first), f.changesBy(t, &caller, second)
			answers := f.together(t, before[name], f.ends(t, caller.ID)[end], behind[name])
			for _, to := range []callersTargets{first, second} { // an organization has 100 at most
				if err := f.DeleteWebhook(t.Context(), operator, org, to.w.ID); err != nil && !errors.Is(err, webhook.ErrNotFound) {
					t.Fatal(err)
				}
			}
			wantReason(t, end+", before: "+name, answers[0], "")
			wantReason(t, end, answers[1], "")
			wantReason(t, end+", behind: "+name, answers[2], apikey.ReasonUnauthenticated)
		}
	}
}

// testNarrowedCaller takes rights away from a key in the middle of a transaction.
func testNarrowedCaller(t *testing.T, f *fixture) {
	narrow := func(id string, rule func(*apikey.Key)) func() error {
		return func() error { _, err := f.update(context.Background(), id, rule); return err }
	}
	for _, c := range []struct {
		name, change string
		rule         func(*apikey.Key)
		want         apikey.Reason
	}{
		{"the scope", "create", func(k *apikey.Key) { k.Scopes = apikey.Scopes{"events.read"} }, apikey.ReasonInsufficientScope},
		{"the scope", "create webhook", func(k *apikey.Key) { k.Scopes = apikey.Scopes{"webhooks.create"} }, apikey.ReasonInsufficientScope},
		{"the scope", "replay", func(k *apikey.Key) { k.Scopes = apikey.Scopes{"webhooks_queue.update"} }, apikey.ReasonInsufficientScope},
		{"the scope", "retry", func(k *apikey.Key) { k.Scopes = apikey.Scopes{"events.read"} }, apikey.ReasonInsufficientScope},
		{"the address", "create", func(k *apikey.Key) { k.IPAllowList = apikey.AllowList{netip.MustParsePrefix("198.51.100.0/24")} }, apikey.ReasonIPNotAllowed},
		{"the address", "test webhook", func(k *apikey.Key) { k.IPAllowList = apikey.AllowList{netip.MustParsePrefix("198.51.100.0/24")} }, apikey.ReasonIPNotAllowed},
		{"what it grants: addresses", "create", func(k *apikey.Key) { k.IPAllowList = apikey.AllowList{netip.MustParsePrefix("192.0.2.0/24")} }, apikey.ReasonExceedsCaller},
		{"what it grants: expiry", "create", func(k *apikey.Key) { k.ExpiresAt = f.clock.Now().Add(time.Second / 2) }, apikey.ReasonExceedsCaller},
		{"what it grants: expiry", "rotate", func(k *apikey.Key) { k.ExpiresAt = f.clock.Now().Add(time.Second) }, apikey.ReasonExceedsCaller},
		{"nothing of it", "create", func(k *apikey.Key) { k.Label = "other" }, ""},
		{"nothing of it", "update webhook", func(k *apikey.Key) { k.Scopes = apikey.Scopes{"webhooks.update"} }, ""},
	} {
		caller := f.create(t, func(k *apikey.Key) { k.Scopes = callerScopes })
		changes := f.changesBy(t, &caller, f.targets(t))
		answers := f.together(t, changes[c.change], narrow(caller.ID, c.rule), changes[c.change])
		wantReason(t, c.name+" before", answers[0], "")
		wantReason(t, c.name, answers[1], "")
		wantReason(t, c.name+" behind: "+c.change, answers[2], c.want)
	}
}

// testCallerByItself says that a key that ends itself is checked as it was before.
func testCallerByItself(t *testing.T, f *fixture) {
	k := f.create(t, func(k *apikey.Key) { k.Scopes = callerScopes })
	by := calling(&k, "api_keys.update")
	_, err := f.ChangeKey(t.Context(), by, org, k.ID, apikey.KeyUpdated, func(k *apikey.Key, _ time.Time) error { k.Scopes = nil; return nil })
	wantReason(t, "giving up all scopes", err, "")
	_, err = f.ChangeKey(t.Context(), by, org, k.ID, apikey.KeyUpdated, func(k *apikey.Key, _ time.Time) error { k.Label = "x"; return nil })
	wantReason(t, "without scopes", err, apikey.ReasonInsufficientScope)
	k = f.create(t, func(k *apikey.Key) { k.Scopes = callerScopes })
	for i, want := range []apikey.Reason{"", apikey.ReasonUnauthenticated} {
		_, err = f.ChangeKey(t.Context(), calling(&k, "api_keys.delete"), org, k.ID, apikey.KeyRevoked, func(k *apikey.Key, now time.Time) error {
			rules.Revoke(k, "", now)
			return nil
		})
		wantReason(t, fmt.Sprint("revocation ", i), err, want)
	}
}

// testCallerKept says that a change that is rolled back takes nothing from a caller.
func testCallerKept(t *testing.T, f *fixture) {
	caller := f.create(t, func(k *apikey.Key) { k.Scopes = callerScopes })
	changes := f.changesBy(t, &caller, f.targets(t))
	refused := func() error {
		return f.Write(context.Background(), func(exec func(string) error) error {
			if err := exec("UPDATE api_keys SET enabled = false WHERE id = '" + caller.ID + "'"); err != nil {
				return err
			}
			return errRefused
		})
	}
	for i, err := range f.together(t, refused, changes["create"], refused, changes["update"]) {
		if want := apikey.Reason(""); i%2 == 1 {
			wantReason(t, fmt.Sprint("member ", i), err, want)
		}
	}
}

// testCallerIsReadOnce counts how often the rows of callers are read in a transaction:
// once for each, and again after a sibling changed one.
func testCallerIsReadOnce(t *testing.T, f *fixture) {
	var callers [2]apikey.Key
	var changes [2]map[string]func() error
	for i := range callers {
		callers[i] = f.create(t, func(k *apikey.Key) { k.Scopes = callerScopes })
		changes[i] = f.changesBy(t, &callers[i], f.targets(t))
	}
	trace := f.Trace()
	for i, err := range f.together(t, changes[0]["create"], changes[1]["create"], changes[0]["update"], changes[0]["create"],
		func() error { _, err := f.update(context.Background(), callers[1].ID, label(1)); return err },
		changes[1]["create"], changes[0]["create"]) {
		wantReason(t, fmt.Sprint("member ", i), err, "")
	}
	reads := slices.DeleteFunc(trace.Take(), func(q store.Query) bool { return q.Text != f.CallerText() })
	if len(reads) != 3 {
		t.Errorf("callers were read %d times, want 3: %v", len(reads), reads)
	}
}

// testPreviousSecret plays what a call with a previous secret may not do: touch its own
// key, outlast its overlap, or go on after it.
func testPreviousSecret(t *testing.T, f *fixture) {
	k := f.create(t, func(k *apikey.Key) { k.Scopes = callerScopes })
	by := func(scopes ...string) *apikey.Caller { return calling(&k, scopes...) }
	_, secret := newSecret(t)
	if _, err := f.rotate(t, k.ID, secret, time.Minute); err != nil {
		t.Fatal(err)
	}
	create := func(last time.Duration) error {
		_, another := newSecret(t)
		_, err := f.CreateKey(t.Context(), by("api_keys.create"), func(now time.Time) (apikey.Key, error) {
			return rules.Create(apikey.Key{OrganizationID: org, Label: "child", Enabled: true, Secret: another, ExpiresAt: f.clock.Now().Add(last)}, now)
		})
		return err
	}
	own := func(event apikey.EventType) error {
		_, err := f.ChangeKey(t.Context(), by("api_keys.update"), org, k.ID, event, func(k *apikey.Key, _ time.Time) error { k.Label += "x"; return nil })
		return err
	}
	lasting := by("webhooks.create")
	lasting.Requirement.CurrentSecret = true
	_, hook := f.CreateWebhook(t.Context(), lasting, org, func(int, time.Time) (webhook.Webhook, error) { return webhook.Webhook{}, nil })
	wantReason(t, "a webhook", hook, apikey.ReasonPreviousSecret)
	wantReason(t, "update of its own", own(apikey.KeyUpdated), apikey.ReasonPreviousSecret)
	wantReason(t, "rotation of its own", own(apikey.KeyRotated), apikey.ReasonPreviousSecret)
	wantReason(t, "as long", create(time.Minute), "")
	wantReason(t, "longer", create(time.Minute+time.Second), apikey.ReasonExceedsCaller)
	f.clock.Advance(time.Minute)
	wantReason(t, "after it", create(-time.Second), apikey.ReasonUnauthenticated)
}

// testPerson says that whoever has the token of an issuer makes nothing that outlives it,
// and nothing from its end on, also by a call that began before.
func testPerson(t *testing.T, f *fixture) {
	k := f.create(t, func(k *apikey.Key) { k.ExpiresAt = f.clock.Now().Add(time.Hour) })
	rights := apikey.AllRights()
	rights.Organization, rights.Scopes, rights.Until = org, callerScopes, apikey.StoredTime(f.clock.Now()).Add(time.Minute)
	by := func(organization string, scopes ...string) *apikey.Caller {
		return &apikey.Caller{
			Origin:       apikey.Origin{Actor: apikey.Actor{Kind: apikey.ActorPerson, ID: "https://login.invalid|anna", Name: "Anna"}, RequestID: "request_1"},
			Organization: organization, Rights: rights, Requirement: apikey.Requirement{Scopes: scopes}, Addr: home,
		}
	}
	create := func(caller *apikey.Caller, expires time.Time) (apikey.Key, error) {
		_, secret := newSecret(t)
		return f.CreateKey(t.Context(), caller, func(now time.Time) (apikey.Key, error) {
			return rules.Create(apikey.Key{OrganizationID: caller.Organization, Label: "child", Enabled: true, Secret: secret, ExpiresAt: expires}, now)
		})
	}
	change := func(event apikey.EventType, rule func(*apikey.Key)) error {
		_, err := f.ChangeKey(t.Context(), by(org, "api_keys.update"), org, k.ID, event, func(k *apikey.Key, _ time.Time) error { rule(k); return nil })
		return err
	}
	made, err := create(by(org, "api_keys.create"), rights.Until)
	if wantReason(t, "as long", err, ""); made.CreatedBy != by(org).Actor {
		t.Errorf("made by %+v", made.CreatedBy)
	}
	_, err = create(by(org, "api_keys.create"), rights.Until.Add(time.Second))
	wantReason(t, "longer", err, apikey.ReasonExceedsCaller)
	_, err = create(by(org, "api_keys.create"), time.Time{})
	wantReason(t, "for ever", err, apikey.ReasonExceedsCaller)
	_, err = create(by("org_other", "api_keys.create"), rights.Until)
	wantReason(t, "elsewhere", err, apikey.ReasonPermissionDenied)
	_, err = create(by(org, "webhooks.delete"), rights.Until)
	wantReason(t, "without the scope", err, apikey.ReasonPermissionDenied)
	wantReason(t, "a label of a key that lasts", change(apikey.KeyUpdated, func(k *apikey.Key) { k.Label += "x" }), "")
	wantReason(t, "a later expiry", change(apikey.KeyUpdated, func(k *apikey.Key) { k.ExpiresAt = k.ExpiresAt.Add(time.Hour) }), apikey.ReasonExceedsCaller)
	wantReason(t, "a rotation of a key that lasts", change(apikey.KeyRotated, func(k *apikey.Key) { _, k.Secret = newSecret(t) }), apikey.ReasonExceedsCaller)

	f.clock.Advance(time.Minute)
	_, err = create(by(org, "api_keys.create"), rights.Until.Add(time.Second))
	wantReason(t, "at its end", err, apikey.ReasonUnauthenticated)
	wantReason(t, "a revocation at its end", change(apikey.KeyRevoked, func(k *apikey.Key) { rules.Revoke(k, "", f.clock.Now()) }), apikey.ReasonUnauthenticated)
}

// testReplacedToken says that an operator whose token was replaced changes nothing
// more, though its call began before.
func testReplacedToken(t *testing.T, f *fixture) {
	by := *operator
	by.StoredToken = true
	create := func() error {
		_, err := f.CreateKey(t.Context(), &by, benchmarkKey)
		return err
	}
	wantReason(t, "no token", create(), apikey.ReasonUnauthenticated)
	if err := f.ReplaceRootTokens(t.Context(), keyring.OperatorToken{ID: by.Actor.ID, PepperID: "p_1"}); err != nil {
		t.Fatal(err)
	}
	for i, err := range f.together(t, create, create) {
		wantReason(t, fmt.Sprint("its token, ", i), err, "")
	}
	if err := f.ReplaceRootTokens(t.Context(), keyring.OperatorToken{ID: "operator_2", PepperID: "p_1"}); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "another token", create(), apikey.ReasonUnauthenticated)
}

// testOtherOrganization says that nobody writes into the log of an organization in
// which it may not act, whatever a rule returns.
func testOtherOrganization(t *testing.T, f *fixture) {
	k := f.create(t, func(k *apikey.Key) { k.Scopes = callerScopes })
	position, err := f.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.CreateKey(t.Context(), calling(&k, "api_keys.create"), func(now time.Time) (apikey.Key, error) {
		_, secret := newSecret(t)
		return rules.Create(apikey.Key{OrganizationID: "org_other", Label: "x", Enabled: true, Secret: secret}, now)
	})
	if err == nil {
		t.Error("made a key of another organization")
	}
	f.wantEvents(t, position)
}
