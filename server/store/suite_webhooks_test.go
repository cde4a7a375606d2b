package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

var webhookTests = map[string]func(*testing.T, *fixture){
	"PendingIsBounded":       testPendingIsBounded,
	"CreateWebhook":          testCreateWebhook,
	"WebhooksOfOthers":       testWebhooksOfOthers,
	"ChangeWebhook":          testChangeWebhook,
	"ListWebhooks":           testListWebhooks,
	"WebhooksAreAdmitted":    testWebhooksAreAdmitted,
	"WebhookSecretsAreKept":  testWebhookSecretsAreKept,
	"WebhookKeysAreReplaced": testWebhookKeysAreReplaced,
	"DeleteWebhook":          testDeleteWebhook,
	"SettleHealth":           testSettleHealth,
}

var hookRules = webhook.Rules{DisableAfter: 5 * 24 * time.Hour, MaxWebhooks: 100}

// newSealer returns a sealer whose newest key is the first of ids.
func newSealer(tb testing.TB, ids ...string) *keyring.Sealer {
	tb.Helper()
	keys := make([]keyring.Key, len(ids))
	for i, id := range ids {
		keys[i] = keyring.NewKey(id, fmt.Sprintf("%-32s", id))
	}
	s, err := keyring.NewSealer(keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// hook makes a webhook of the default organization that is sent all events about
// keys, completed by with.
func (f *fixture) hook(tb testing.TB, with func(w *webhook.Webhook)) webhook.Webhook {
	tb.Helper()
	w, err := f.tryHook(tb, with)
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func (f *fixture) tryHook(tb testing.TB, with func(w *webhook.Webhook)) (webhook.Webhook, error) {
	tb.Helper()
	secret, err := hooks.NewSecret(nil)
	if err != nil {
		tb.Fatal(err)
	}
	w := webhook.Webhook{
		OrganizationID: org, Label: "A webhook", URL: "https://example.com/hook", Enabled: true,
		Events: []apikey.EventType{webhook.AllEvents}, Format: webhook.FormatClassic,
	}
	if with != nil {
		with(&w)
	}
	return f.CreateWebhook(tb.Context(), operator, w.OrganizationID, func(count int, now time.Time) (webhook.Webhook, error) {
		if err := hookRules.Admit(count); err != nil {
			return webhook.Webhook{}, err
		}
		return hookRules.Create(w, secret, now)
	})
}

// changeHook changes a webhook of the default organization.
func (f *fixture) changeHook(tb testing.TB, id string, rule func(w *webhook.Webhook)) webhook.Webhook {
	tb.Helper()
	w, err := f.ChangeWebhook(tb.Context(), operator, org, id, webhook.WebhookUpdated, func(w *webhook.Webhook, _ time.Time) error {
		rule(w)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// open is a webhook with its secrets in clear, so that two can be compared.
func open(w webhook.Webhook) any {
	var private []string
	for _, s := range w.Secrets {
		private = append(private, s.Secret.Reveal()+" "+s.ExpiresAt.String())
	}
	for _, h := range w.Headers {
		private = append(private, h.Name+": "+h.Value.Reveal())
	}
	w.Secrets, w.Headers = nil, nil
	return []any{w, private}
}

func (f *fixture) wantHook(tb testing.TB, want webhook.Webhook) {
	tb.Helper()
	got, err := f.Webhook(tb.Context(), want.OrganizationID, want.ID)
	if err != nil {
		tb.Fatal(err)
	}
	wantSame(tb, "stored webhook", open(want), open(got))
}

func testCreateWebhook(t *testing.T, f *fixture) {
	w := f.hook(t, func(w *webhook.Webhook) {
		w.Description, w.Format = "Told of it", webhook.FormatCloudEvents
		w.Events = []apikey.EventType{apikey.KeyCreated, webhook.WebhookDisabled}
		w.Headers = webhook.NewHeaders(map[string]string{"x-b": "2", "X-A": "1"})
	})
	if w.CreatedAt != f.clock.stored() || w.Version != 1 || !apikey.IsID(webhook.IDPrefix, w.ID) {
		t.Errorf("made %+v", w)
	}
	f.wantHook(t, w)
	f.wantEvents(t, 0, webhook.WebhookCreated)
	e := f.events(t, 0)[0]
	if want, err := wire.WebhookPayload(&w); err != nil || !bytes.Equal(e.Payload, want) || e.ResourceID != w.ID || e.OrganizationID != org || e.Actor != operator.Actor {
		t.Errorf("event %+v, %v", e, err)
	}
	if _, err := f.tryHook(t, func(w *webhook.Webhook) { w.URL = "http://127.0.0.1/" }); apikey.AsError(err) == nil {
		t.Errorf("refused with %v", err)
	}
	f.wantEvents(t, 1)
}

func testWebhooksOfOthers(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	for _, id := range []string{w.ID, "webhook_1", ""} {
		of := "org_other"
		if id != w.ID {
			of = org
		}
		_, read := f.Webhook(t.Context(), of, id)
		_, change := f.ChangeWebhook(t.Context(), operator, of, id, webhook.WebhookUpdated, nil)
		_, test := f.TestWebhook(t.Context(), operator, of, id)
		_, replay := f.ReplayEvents(t.Context(), operator, of, id, 0, 1, 10, nil)
		for i, err := range []error{read, change, test, replay, f.DeleteWebhook(t.Context(), operator, of, id)} {
			if !errors.Is(err, webhook.ErrNotFound) {
				t.Errorf("call %d of %q: %v", i, id, err)
			}
		}
	}
	f.wantEvents(t, 1)
}

func testChangeWebhook(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	other, err := hooks.NewSecret(nil)
	if err != nil {
		t.Fatal(err)
	}
	changes := []struct {
		field string
		rule  func(w *webhook.Webhook)
	}{
		{"label", func(w *webhook.Webhook) { w.Label = "Other" }},
		{"description", func(w *webhook.Webhook) { w.Description = "Other" }},
		{"url", func(w *webhook.Webhook) { w.URL = "https://example.com/other" }},
		{"events", func(w *webhook.Webhook) { w.Events = []apikey.EventType{apikey.KeyExpired} }},
		{"format", func(w *webhook.Webhook) { w.Format = webhook.FormatStandard }},
		{"headers", func(w *webhook.Webhook) { w.Headers = webhook.NewHeaders(map[string]string{"X-A": "1"}) }},
		{"headers", func(w *webhook.Webhook) { w.Headers = nil }},
		{"enabled", func(w *webhook.Webhook) { w.Enabled = false }},
		{"secret", func(w *webhook.Webhook) {
			hookRules.RotateSecret(w, other, webhook.Rotation{Overlap: time.Hour}, f.clock.stored())
		}},
	}
	for i, c := range changes {
		f.clock.Advance(time.Minute)
		want := w
		c.rule(&want)
		want.UpdatedAt, want.Version = f.clock.stored(), w.Version+1
		w = f.changeHook(t, w.ID, c.rule)
		wantSame(t, c.field, open(want), open(w))
		f.wantHook(t, want)
		f.wantEvents(t, int64(i)+1, webhook.WebhookUpdated)
		wantSame(t, "changes", []string{c.field}, f.events(t, int64(i)+1)[0].Changes)
		if again := f.changeHook(t, w.ID, func(*webhook.Webhook) {}); again.Version != w.Version {
			t.Errorf("nothing changed, and the version is %d", again.Version)
		}
	}
	if len(w.Secrets) != 2 {
		t.Errorf("%d secrets after a rotation", len(w.Secrets))
	}
	errNo := apikey.InvalidField("url", "is bad")
	_, err = f.ChangeWebhook(t.Context(), operator, org, w.ID, webhook.WebhookUpdated, func(w *webhook.Webhook, _ time.Time) error {
		w.Label = "Refused"
		return errNo
	})
	if !errors.Is(err, errNo) {
		t.Errorf("refused with %v", err)
	}
	f.wantHook(t, w)
	f.wantEvents(t, int64(len(changes))+1)
}

func testListWebhooks(t *testing.T, f *fixture) {
	var ids []string
	for i := range 5 {
		ids = append(ids, f.hook(t, func(w *webhook.Webhook) { w.Label = fmt.Sprint(i) }).ID)
	}
	other := f.hook(t, func(w *webhook.Webhook) { w.OrganizationID = "org_other" }).ID
	by := &apikey.Caller{Origin: apikey.Origin{Actor: apikey.Actor{Kind: apikey.ActorOperator, ID: "operator_2"}}, Rights: apikey.AllRights()}
	made, err := f.CreateWebhook(t.Context(), by, org, func(int, time.Time) (webhook.Webhook, error) {
		w, err := f.Webhook(t.Context(), org, ids[0])
		return w, err
	})
	if err != nil || made.CreatedBy != by.Actor {
		t.Fatalf("made by %+v, %v", made.CreatedBy, err)
	}
	f.wantHook(t, made)
	pagesOf := func(filter store.WebhookFilter) (all [][]string) {
		for after := ""; ; {
			list, next, err := f.Webhooks(t.Context(), filter, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			var page []string
			for _, w := range list {
				page = append(page, w.ID)
			}
			all = append(all, page)
			if after = next; next == "" {
				return all
			}
		}
	}
	pages := func(organization string) [][]string { return pagesOf(store.WebhookFilter{Organization: organization}) }
	wantSame(t, "pages", [][]string{ids[0:2], ids[2:4], {ids[4], made.ID}}, pages(org))
	wantSame(t, "pages of all", [][]string{ids[0:2], ids[2:4], {ids[4], other}, {made.ID}}, pages(""))
	wantSame(t, "pages of an actor", [][]string{{made.ID}}, pagesOf(store.WebhookFilter{Organization: org, CreatedBy: "operator_2"}))
	wantSame(t, "pages of an actor elsewhere", [][]string{nil}, pagesOf(store.WebhookFilter{Organization: "org_other", CreatedBy: "operator_2"}))
	wantSame(t, "pages of none", [][]string{nil}, pages("org_none"))
}

// testWebhooksAreAdmitted makes more webhooks at once than an organization may
// have: the count that each is checked against has its siblings in it.
func testWebhooksAreAdmitted(t *testing.T, f *fixture) {
	f.SealWith(newSealer(t, "e_1"))
	creating := make([]func() error, 110)
	for i := range creating {
		creating[i] = func() error {
			_, err := f.tryHook(t, nil)
			return err
		}
	}
	refused := 0
	for _, err := range f.together(t, creating...) {
		if e := apikey.AsError(err); e != nil && e.Reason == webhook.ReasonTooManyWebhooks {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused != 10 {
		t.Errorf("%d of 110 were refused", refused)
	}
	if _, err := f.tryHook(t, func(w *webhook.Webhook) { w.OrganizationID = "org_other" }); err != nil {
		t.Errorf("another organization: %v", err)
	}
}

func testWebhookSecretsAreKept(t *testing.T, f *fixture) {
	w := f.hook(t, func(w *webhook.Webhook) {
		w.Headers = webhook.NewHeaders(map[string]string{"X-Token": "hunter2-value"})
	})
	old := w.Secrets[0].Secret.Reveal()
	f.SealWith(newSealer(t, "e_2"))
	if _, err := f.Webhook(t.Context(), org, w.ID); err == nil || !strings.Contains(err.Error(), "e_1") {
		t.Errorf("without its key: %v", err)
	}
	f.SealWith(newSealer(t, "e_1"))
	next, err := hooks.NewSecret(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.changeHook(t, w.ID, func(w *webhook.Webhook) {
		hookRules.RotateSecret(w, next, webhook.Rotation{Overlap: time.Hour}, f.clock.stored())
	})
	f.create(t, nil)
	claims, _, err := f.Claim(t.Context(), []webhook.Pick{{WebhookID: w.ID, Max: 1}}, "lease", time.Minute)
	if err != nil || len(claims) != 1 || len(claims[0].Webhook.Secrets) != 2 {
		t.Fatalf("claimed %v, %v", claims, err)
	}
	if err := f.DeleteWebhook(t.Context(), operator, org, w.ID); err != nil {
		t.Fatal(err)
	}
	// The texts, and the keys within them in every form they could be kept in.
	for _, text := range []string{old, next.Reveal(), "hunter2-value"} {
		f.wantNowhere(t, text)
		f.wantNowhere(t, strings.TrimPrefix(text, "whsec_"))
	}
}

// wantNowhere says that no column of any table holds text.
func (f *fixture) wantNowhere(t *testing.T, text string) {
	t.Helper()
	for _, table := range []string{"webhooks", "deliveries", "delivery_attempts", "events", "settings"} {
		for _, row := range readRows(t, f.Reader(), "SELECT * FROM "+table) {
			if printed := fmt.Sprintf("%s", row); strings.Contains(printed, text) {
				t.Errorf("%s holds %q: %s", table, text, printed)
			}
		}
	}
	if strings.Contains(f.log.String(), text) {
		t.Errorf("the log holds %q", text)
	}
}

func testWebhookKeysAreReplaced(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	f.SealWith(newSealer(t, "e_2", "e_1"))
	f.wantHook(t, w)
	w = f.changeHook(t, w.ID, func(w *webhook.Webhook) { w.Label = "Sealed anew" })
	f.SealWith(newSealer(t, "e_2"))
	f.wantHook(t, w)
}

func testDeleteWebhook(t *testing.T, f *fixture) {
	w, other := f.hook(t, nil), f.hook(t, nil)
	f.create(t, nil)
	if err := f.DeleteWebhook(t.Context(), operator, org, w.ID); err != nil {
		t.Fatal(err)
	}
	if err := f.DeleteWebhook(t.Context(), operator, org, w.ID); !errors.Is(err, webhook.ErrNotFound) {
		t.Errorf("deleted again: %v", err)
	}
	f.create(t, nil)
	f.wantDeliveries(t, w.ID, webhook.StatePending)
	for _, want := range []int{1, 0} {
		if n, err := f.CancelOrphans(t.Context(), 10); n != want || err != nil {
			t.Errorf("cancelled %d, %v, want %d", n, err, want)
		}
	}
	f.wantDeliveries(t, w.ID, webhook.StateCancelled)
	f.wantDeliveries(t, other.ID, webhook.StatePending, webhook.StatePending)
	f.wantEvents(t, 2, apikey.KeyCreated, webhook.WebhookDeleted, apikey.KeyCreated)
}

// testSettleHealth sees what attempts mean for a webhook: its health, which is nobody's
// change, and the events about it, in the transaction that settles them.
func testSettleHealth(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	for range 4 {
		f.create(t, nil)
	}
	var due [][]string
	f.OnCommit(func(c store.Commit) { due = append(due, c.Due) })
	f.settleOne(t, w.ID, failed)
	w.Health = webhook.Health{FailingSince: f.clock.stored(), LastError: failed.Failure}
	f.wantHook(t, w)
	f.settleOne(t, w.ID, failed)
	f.wantHook(t, w)
	f.settleOne(t, w.ID, webhook.Outcome{Status: 200})
	w.Health = webhook.Health{LastSuccessAt: f.clock.stored()}
	f.wantHook(t, w)
	gone := webhook.Outcome{Status: 410, Failure: failed.Failure}
	f.settleOne(t, w.ID, gone)
	w.Health = webhook.Health{LastSuccessAt: w.Health.LastSuccessAt, FailingSince: f.clock.stored(), LastError: failed.Failure}
	w.Enabled, w.DisabledReason, w.Version, w.UpdatedAt = false, webhook.DisabledGone, 2, f.clock.stored()
	f.wantHook(t, w)
	f.wantEvents(t, 5, webhook.WebhookDisabled)
	last := f.events(t, 5)[0]
	wantSame(t, "changes", []string{"enabled", "disabled_reason"}, last.Changes)
	if last.Actor.Kind != apikey.ActorSystem {
		t.Errorf("by %v", last.Actor)
	}
	if len(due) == 0 || slices.ContainsFunc(due, func(ids []string) bool { return !slices.Equal(slices.Compact(ids), []string{w.ID}) }) {
		t.Errorf("due %v", due)
	}
}

// testPendingIsBounded counts the pending deliveries of a webhook up to a number.
func testPendingIsBounded(t *testing.T, f *fixture) {
	w := f.hook(t, nil)
	for range 3 {
		f.create(t, nil)
	}
	for most, want := range map[int]int{2: 2, 3: 3, 100: 3} {
		if n, err := f.Pending(t.Context(), w.ID, most); err != nil || n != want {
			t.Errorf("up to %d: %d, %v; want %d", most, n, err, want)
		}
	}
}
