package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var idempotencyTests = map[string]func(*testing.T, *fixture){
	"RepeatedChange":      testRepeatedChange,
	"RepeatedAtOnce":      testRepeatedAtOnce,
	"RepeatedAtRandom":    testRepeatedAtRandom,
	"RepeatedRefusal":     testRepeatedRefusal,
	"RepeatedCallerEnded": testRepeatedCallerEnded,
	"AnswersEnd":          testAnswersEnd,
	"AnswerLimits":        testAnswerLimits,
	"AnswerOfReplacedKey": testAnswerOfReplacedKey,
	"Claims":              testClaims,
	"ExternalID":          testExternalID,
}

// named returns a call with an idempotency key, which answers with the id of a key.
func named(key, request string) *store.IdempotentCall {
	return &store.IdempotentCall{
		ID: store.RecordID(org, operator.Actor, key), Organization: org, Request: []byte(request),
		Answer: func(result any) ([]byte, error) { return []byte("answer " + result.(*apikey.Key).ID), nil },
	}
}

// createAs makes a key in a call, and returns the answer: the one that was given before,
// or the one that is kept now.
func (f *fixture) createAs(t *testing.T, c *store.IdempotentCall) (string, error) {
	t.Helper()
	k, err := f.tryCreate(t, store.WithCall(t.Context(), c), nil)
	if answered, ok := errors.AsType[*store.AnsweredError](err); ok {
		return string(answered.Answer), nil
	}
	return "answer " + k.ID, err
}

// count returns how many keys there are, up to a thousand.
func (f *fixture) count(t *testing.T) int {
	t.Helper()
	list, _, err := f.Keys(t.Context(), store.KeyFilter{}, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func testRepeatedChange(t *testing.T, f *fixture) {
	first, err := f.createAs(t, named("a", "request 1"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if again, err := f.createAs(t, named("a", "request 1")); err != nil || again != first {
			t.Errorf("again: %q, %v; first %q", again, err, first)
		}
	}
	if err := f.Answered(t.Context(), named("a", "request 1")); err == nil || apikey.AsError(err) != nil {
		t.Errorf("without a change: %v", err)
	}
	_, err = f.createAs(t, named("a", "request 2"))
	wantReason(t, "another request", err, apikey.ReasonKeyReused)
	wantReason(t, "another request, without a change", f.Answered(t.Context(), named("a", "request 2")), apikey.ReasonKeyReused)
	if err := f.Answered(t.Context(), named("b", "request 1")); err != nil {
		t.Errorf("another key: %v", err)
	}
	if n := f.count(t); n != 1 {
		t.Errorf("%d keys", n)
	}
}

// testRepeatedAtOnce makes the same call many times at once, in groups with others.
func testRepeatedAtOnce(t *testing.T, f *fixture) {
	const keys, calls = 8, 12
	answers := make([][calls]string, keys)
	var calling sync.WaitGroup
	for i := range keys {
		for j := range calls {
			calling.Go(func() {
				var err error
				if answers[i][j], err = f.createAs(t, named(string(rune('a'+i)), "request")); err != nil {
					t.Error(err)
				}
			})
		}
	}
	calling.Wait()
	for i := range answers {
		for _, a := range answers[i] {
			if a != answers[i][0] {
				t.Errorf("key %d has the answers %q and %q", i, a, answers[i][0])
			}
		}
	}
	if n := f.count(t); n != keys {
		t.Errorf("%d keys of %d idempotency keys", n, keys)
	}
}

// testRepeatedRefusal repeats a call that failed: it is made again.
func testRepeatedRefusal(t *testing.T, f *fixture) {
	refused := apikey.InvalidField("label", "is not good")
	_, err := f.CreateKey(store.WithCall(t.Context(), named("a", "r")), operator, func(time.Time) (apikey.Key, error) { return apikey.Key{}, refused })
	if !errors.Is(err, refused) {
		t.Fatal(err)
	}
	if _, err := f.createAs(t, named("a", "another")); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	// An answer that cannot be made takes the change back.
	broken := named("b", "r")
	broken.Answer = func(any) ([]byte, error) { return nil, errors.New("no answer") }
	if _, err := f.createAs(t, broken); err == nil {
		t.Error("made without an answer")
	}
	broken.Answer = nil
	if _, err := f.createAs(t, broken); err == nil {
		t.Error("made without its protection")
	}
	if n := f.count(t); n != 1 {
		t.Errorf("%d keys", n)
	}
}

// testRepeatedCallerEnded repeats a call whose caller may make it no longer.
func testRepeatedCallerEnded(t *testing.T, f *fixture) {
	k := f.create(t, func(k *apikey.Key) { k.Scopes = callerScopes })
	by := calling(&k, "api_keys.create")
	create := func() error {
		_, secret := newSecret(t)
		_, err := f.CreateKey(store.WithCall(t.Context(), named("a", "r")), by, func(time.Time) (apikey.Key, error) {
			return apikey.Key{OrganizationID: org, Label: "A key", Enabled: true, Secret: secret, Mode: k.Mode}, nil
		})
		return err
	}
	if err := create(); err != nil {
		t.Fatal(err)
	}
	if err := f.DeleteKey(t.Context(), operator, org, k.ID); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "a caller that is gone", create(), apikey.ReasonUnauthenticated)
}

func testAnswersEnd(t *testing.T, f *fixture) {
	f.KeepAnswers(store.AnswerLimits{Retention: time.Hour, Records: 2, Bytes: 1 << 20})
	first, err := f.createAs(t, named("a", "r"))
	if err != nil {
		t.Fatal(err)
	}
	f.clock.Advance(time.Hour - time.Second)
	if _, err := f.createAs(t, named("b", "r")); err != nil {
		t.Fatal(err)
	}
	if again, err := f.createAs(t, named("a", "r")); err != nil || again != first {
		t.Errorf("before its end: %q, %v", again, err)
	}
	f.clock.Advance(time.Second)
	if err := f.Answered(t.Context(), named("a", "other")); err != nil {
		t.Errorf("after its end: %v", err)
	}
	second, err := f.createAs(t, named("a", "other"))
	if err != nil || second == first {
		t.Errorf("after its end: %q, %v", second, err)
	}
	f.clock.Advance(time.Hour - time.Second)
	for _, want := range []int{1, 0} {
		if n, err := f.DeleteAnswersBefore(t.Context(), f.clock.Now(), 10); err != nil || n != want {
			t.Errorf("deleted %d, %v; want %d", n, err, want)
		}
	}
	if again, err := f.createAs(t, named("a", "other")); err != nil || again != second {
		t.Errorf("after others were deleted: %q, %v", again, err)
	}
	f.clock.Advance(time.Hour)
	if n, err := f.DeleteAnswersBefore(t.Context(), f.clock.Now(), 10); err != nil || n != 1 {
		t.Errorf("deleted %d, %v", n, err)
	}
	// What was deleted counts no longer.
	for _, key := range []string{"c", "d"} {
		if _, err := f.createAs(t, named(key, "r")); err != nil {
			t.Error(err)
		}
	}
}

func testAnswerLimits(t *testing.T, f *fixture) {
	f.KeepAnswers(store.AnswerLimits{Retention: time.Hour, Records: 2, Bytes: 1 << 20})
	for _, key := range []string{"a", "b"} {
		if _, err := f.createAs(t, named(key, "r")); err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.createAs(t, named("c", "r"))
	wantReason(t, "a third", err, apikey.ReasonAnswerLimit)
	wantReason(t, "a third, claimed", f.ClaimCall(t.Context(), operator, named("d", "r")), apikey.ReasonAnswerLimit)
	if _, err := f.createAs(t, named("a", "r")); err != nil {
		t.Errorf("a repeated one at the limit: %v", err)
	}
	other := named("a", "r")
	other.ID, other.Organization = store.RecordID("org_b", operator.Actor, "a"), "org_b"
	if _, err := f.createAs(t, other); err != nil {
		t.Errorf("another organization: %v", err)
	}
	f.KeepAnswers(store.AnswerLimits{Retention: time.Hour, Records: 100, Bytes: 4096})
	large := named("large", "r")
	large.Answer = func(any) ([]byte, error) { return []byte(strings.Repeat("x", 4096)), nil }
	_, err = f.createAs(t, large)
	wantReason(t, "too large", err, apikey.ReasonAnswerLimit)
	if n := f.count(t); n != 3 {
		t.Errorf("%d keys", n)
	}
}

// testAnswerOfReplacedKey repeats a call after its encryption key was replaced.
func testAnswerOfReplacedKey(t *testing.T, f *fixture) {
	first, err := f.createAs(t, named("a", "r"))
	if err != nil {
		t.Fatal(err)
	}
	f.SealWith(newSealer(t, "e_2", "e_1"))
	if again, err := f.createAs(t, named("a", "r")); err != nil || again != first {
		t.Errorf("after the key was replaced: %q, %v", again, err)
	}
	_, err = f.createAs(t, named("a", "other"))
	wantReason(t, "another request after the key was replaced", err, apikey.ReasonKeyReused)
	f.SealWith(newSealer(t, "e_2"))
	if _, err := f.createAs(t, named("a", "r")); err == nil || apikey.AsError(err) != nil {
		t.Errorf("without its key: %v", err)
	}
}

func testClaims(t *testing.T, f *fixture) {
	ctx := t.Context()
	call := named("a", "r")
	if err := f.ClaimCall(ctx, operator, call); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "a second claim", f.ClaimCall(ctx, operator, named("a", "r")), apikey.ReasonKeyInUse)
	wantReason(t, "a look", f.Answered(ctx, named("a", "r")), apikey.ReasonKeyInUse)
	wantReason(t, "another request", f.Answered(ctx, named("a", "other")), apikey.ReasonKeyReused)
	change := func(c *store.IdempotentCall) error {
		_, err := f.tryCreate(t, store.WithCall(ctx, c), nil)
		return err
	}
	for range 3 { // each change renews the claim
		f.clock.Advance(50 * time.Second)
		if err := change(call); err != nil {
			t.Fatal(err)
		}
	}
	f.clock.Advance(time.Minute)
	taker := named("a", "r")
	if err := f.ClaimCall(ctx, operator, taker); err != nil {
		t.Fatalf("take over: %v", err)
	}
	wantReason(t, "a change after the claim was lost", change(call), apikey.ReasonKeyInUse)
	wantReason(t, "an answer after the claim was lost", f.CompleteCall(ctx, call, []byte("x")), apikey.ReasonKeyInUse)
	if err := f.AbandonCall(ctx, call); err != nil {
		t.Error(err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := f.CompleteCall(gone, taker, []byte("done")); err != nil {
		t.Fatal(err)
	}
	if answered, ok := errors.AsType[*store.AnsweredError](f.Answered(ctx, named("a", "r"))); !ok || string(answered.Answer) != "done" {
		t.Errorf("completed: %v", answered)
	}
	abandoned := named("b", "r")
	if err := errors.Join(f.ClaimCall(ctx, operator, abandoned), f.AbandonCall(ctx, abandoned)); err != nil {
		t.Fatal(err)
	}
	if err := f.Answered(ctx, named("b", "r")); err != nil {
		t.Errorf("abandoned: %v", err)
	}
}

func testExternalID(t *testing.T, f *fixture) {
	named := func(organization, id string) func(*apikey.Key) {
		return func(k *apikey.Key) { k.OrganizationID, k.ExternalID = organization, id }
	}
	first := f.create(t, named(org, "order/1"))
	f.create(t, named(org, ""))
	f.create(t, named(org, ""))
	other := f.create(t, named(org, "order/2"))
	_, err := f.tryCreate(t, t.Context(), named(org, "order/1"))
	wantReason(t, "taken", err, apikey.ReasonExternalIDTaken)
	if known := apikey.AsError(err); known != nil && known.Details["api_key_id"] != first.ID {
		t.Errorf("taken by %v, not %s", known.Details, first.ID)
	}
	read, err := f.Key(t.Context(), org, first.ID)
	if err != nil || read.ExternalID != "order/1" {
		t.Errorf("read: %q, %v", read.ExternalID, err)
	}
	for _, filter := range []store.KeyFilter{{Organization: org}, {}} {
		filter.ExternalID = "order/2"
		if list, next, err := f.Keys(t.Context(), filter, "", 10); err != nil || len(list) != 1 || list[0].ID != other.ID || next != "" {
			t.Errorf("%+v: %v, %q, %v", filter, list, next, err)
		}
	}
	if err := f.DeleteKey(t.Context(), operator, org, first.ID); err != nil {
		t.Fatal(err)
	}
	f.create(t, named(org, "order/1")) // which is free again
}

// testRepeatedAtRandom makes random calls at once, of which many have the same key and
// some another request: each key makes one key, by one of its requests, and all calls
// with that request have its answer.
func testRepeatedAtRandom(t *testing.T, f *fixture) {
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		type call struct{ key, request, answer string }
		calls := make([]call, rapid.IntRange(1, 16).Draw(rt, "calls"))
		before := f.count(t)
		var calling sync.WaitGroup
		for i := range calls {
			c := &calls[i]
			c.key = fmt.Sprint(round, rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "key"))
			c.request = rapid.SampledFrom([]string{"r", "r", "r", "s"}).Draw(rt, "request")
			calling.Go(func() {
				answer, err := f.createAs(t, named(c.key, c.request))
				if known := apikey.AsError(err); known != nil && known.Reason == apikey.ReasonKeyReused {
					return
				}
				if err != nil {
					t.Error(err)
				}
				c.answer = answer
			})
		}
		calling.Wait()
		made := map[string]call{}
		for _, c := range calls {
			if c.answer == "" {
				continue
			}
			if first, ok := made[c.key]; !ok {
				made[c.key] = c
			} else if first != c {
				rt.Fatalf("%v and %v", first, c)
			}
		}
		for _, c := range calls {
			if first := made[c.key]; (c.answer != "") != (first.request == c.request) {
				rt.Fatalf("%v is refused or answered, where %v was made", c, first)
			}
		}
		if n := f.count(t) - before; n != len(made) {
			rt.Fatalf("%d keys of %d idempotency keys", n, len(made))
		}
	})
}
