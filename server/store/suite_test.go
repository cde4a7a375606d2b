package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofrs/uuid/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(closing{m}) }

// closing closes what the tests share before it is looked for what they left.
type closing struct{ *testing.M }

func (c closing) Run() int {
	defer func() { tested.close() }() // There is none yet.
	return c.M.Run()
}

// opener opens a new, initialized database of one dialect.
type opener func(tb testing.TB, c store.Config) *store.Store

// suite is what a store promises whatever database is below. Each dialect runs
// it, and tests of its own only for what it alone has.
func suite(t *testing.T, open opener) {
	for _, group := range []map[string]func(*testing.T, *fixture){
		keyTests, loadTests, changeTests, listTests, filterTests, unitTests, eventTests, nextEventTests, noticeTests, usageTests, bucketTests, quotaTests, rateTests, settingTests, groupTests,
		writerTests, callerTests, idempotencyTests,
		refusalTests, tokenTests, webhookTests, deliveryTests, deliveryCountTests, queueTests, replayTests, fanOutTests,
	} {
		for name, test := range group {
			t.Run(name, func(t *testing.T) {
				f := &fixture{clock: newClock(), log: new(bytes.Buffer)}
				f.Store = open(t, store.Config{Now: f.clock.Now, NewID: ascendingIDs(), Logger: slog.New(slog.NewTextHandler(f.log, nil))})
				test(t, f)
			})
		}
	}
}

// fixture is a store with its clock and its log.
type fixture struct {
	*store.Store
	clock storeClock
	log   *bytes.Buffer
}

// ascendingIDs returns ids whose times are a millisecond apart, so that what is made of
// them ascends too.
func ascendingIDs() func(prefix string) string {
	var made atomic.Int64
	return func(prefix string) string {
		return prefix + uuid.Must(uuid.NewV7AtTime(time.UnixMilli(1_700_000_000_000+made.Add(1)))).String()
	}
}

func openAndInitialize(tb testing.TB, c store.Config) *store.Store {
	tb.Helper()
	s, err := store.Open(tb.Context(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	s.SealWith(newSealer(tb, "e_1"))
	s.KeepAnswers(store.AnswerLimits{Retention: 24 * time.Hour, Records: 100_000, Bytes: 256 << 20})
	if err := s.Initialize(tb.Context(), map[string]string{"database_id": "1"}, nil); err != nil {
		tb.Fatal(err)
	}
	return s
}

// storeClock is a clock whose time is local and finer than a column holds.
type storeClock struct{ *clock.Clock }

func newClock() storeClock {
	return storeClock{clock.At(time.Date(2026, 3, 1, 1, 30, 0, 123456789, time.FixedZone("", 2*60*60)))}
}

// stored is the clock's time as a column holds it.
func (c storeClock) stored() time.Time { return c.Now().UTC().Truncate(time.Microsecond) }

const org = "org_default"

var (
	operator = &apikey.Caller{
		Origin:       apikey.Origin{Actor: apikey.Actor{Kind: apikey.ActorOperator, ID: "operator_1"}, RequestID: "request_1"},
		Organization: org, Rights: apikey.AllRights(),
	}
	peppers = keyring.NewPeppers(keyring.NewKey("x_1", "edge"), keyring.NewKey("p_1", "pepper"))
	rules   = apikey.Rules{Catalogue: apikey.DefaultScopes(), Formats: apikey.DefaultKeyFormats(), ExpiringNotice: 7 * 24 * time.Hour}
)

// newSecret returns a secret and what is kept of it.
func newSecret(tb testing.TB) (apikey.Secret, apikey.StoredSecret) {
	tb.Helper()
	secret, err := apikey.NewSecret("sk_live_", nil)
	if err != nil {
		tb.Fatal(err)
	}
	return secret, peppers.Stored(secret)
}

// create makes a key of the default organization, completed by with.
func (f *fixture) create(tb testing.TB, with func(k *apikey.Key)) apikey.Key {
	tb.Helper()
	k, err := f.tryCreate(tb, tb.Context(), with)
	if err != nil {
		tb.Fatal(err)
	}
	f.fanOut(tb)
	return k
}

func (f *fixture) tryCreate(tb testing.TB, ctx context.Context, with func(k *apikey.Key)) (apikey.Key, error) {
	_, secret := newSecret(tb)
	return f.CreateKey(ctx, operator, func(now time.Time) (apikey.Key, error) {
		k := apikey.Key{OrganizationID: org, Label: "A key", Enabled: true, Secret: secret}
		if with != nil {
			with(&k)
		}
		return rules.Create(k, now)
	})
}

// update changes a key of the default organization.
func (f *fixture) update(ctx context.Context, id string, rule func(k *apikey.Key)) (apikey.Key, error) {
	return f.ChangeKey(ctx, operator, org, id, apikey.KeyUpdated, func(k *apikey.Key, _ time.Time) error {
		rule(k)
		return nil
	})
}

// fanOut makes all deliveries of the events that there are.
func (f *fixture) fanOut(tb testing.TB) {
	tb.Helper()
	organizations, err := f.FanOutOrganizations(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	for _, organization := range organizations {
		for more := true; more; {
			done, err := f.FanOut(tb.Context(), organization, time.Second)
			if err != nil {
				tb.Fatal(err)
			}
			more = done.More
		}
	}
}

// events returns the log from position on, which must be without gaps and as
// long as the revision says.
func (f *fixture) events(tb testing.TB, from int64) []apikey.Event {
	tb.Helper()
	events, err := f.Log(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	position, err := f.Position(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	if int64(len(events)) != position {
		tb.Fatalf("%d events, and the revision says %d", len(events), position)
	}
	for i, e := range events {
		if e.Position != int64(i)+1 {
			tb.Fatalf("event %d has position %d", i+1, e.Position)
		}
	}
	return events[from:]
}

// keyOf returns the key after e, an event about a key.
func keyOf(tb testing.TB, e *apikey.Event) *apikeysv1.ApiKey {
	tb.Helper()
	m, err := wire.Event(e)
	if err != nil {
		tb.Fatal(err)
	}
	return m.GetApiKey()
}

// wantEvents compares the types of all events but the first from.
func (f *fixture) wantEvents(tb testing.TB, from int64, types ...apikey.EventType) {
	tb.Helper()
	var got []apikey.EventType
	for _, e := range f.events(tb, from) {
		got = append(got, e.Type)
	}
	wantSame(tb, "events", types, got)
}

// wantKey compares the stored key.
func (f *fixture) wantKey(tb testing.TB, want apikey.Key) {
	tb.Helper()
	got, err := f.Key(tb.Context(), want.OrganizationID, want.ID)
	if err != nil {
		tb.Fatal(err)
	}
	wantSame(tb, "stored key", want, got)
}

// wantNotFound says that a key is in no read.
func (f *fixture) wantNotFound(tb testing.TB, k *apikey.Key) {
	tb.Helper()
	if got, err := f.Key(tb.Context(), k.OrganizationID, k.ID); !errors.Is(err, apikey.ErrNotFound) {
		tb.Errorf("by id: %+v, %v", got, err)
	}
	if got, _, err := f.KeyBySecret(tb.Context(), k.Hashes()); !errors.Is(err, apikey.ErrNotFound) {
		tb.Errorf("by secret: %+v, %v", got, err)
	}
}

// wantSame compares two values; an empty list is an absent one, as everywhere.
func wantSame(tb testing.TB, what string, want, got any) {
	tb.Helper()
	diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{}))
	if diff != "" {
		tb.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// wantUnavailable says that err is the answer of a transaction that died.
func wantUnavailable(tb testing.TB, err error) {
	tb.Helper()
	if e := apikey.AsError(err); e == nil || e.Kind != apikey.KindUnavailable || e.Reason != apikey.ReasonUnavailable {
		tb.Errorf("got %v, want UNAVAILABLE", err)
	}
}

// label names a key by a number.
func label(i int) func(*apikey.Key) {
	return func(k *apikey.Key) { k.Label = fmt.Sprintf("key %d", i) }
}
