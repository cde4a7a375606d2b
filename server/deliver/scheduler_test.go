package deliver

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

func newLanes(perWebhook, inFlight int) *lanes {
	return &lanes{byID: make(map[string]*lane), perWebhook: perWebhook, inFlight: inFlight}
}

func claimsOf(id string, n int) []webhook.Claim {
	claims := make([]webhook.Claim, n)
	for i := range claims {
		claims[i].Delivery.WebhookID = id
	}
	return claims
}

// A lane that is asked for is not asked for again until something is due again.
func TestAskOnce(t *testing.T) {
	l := newLanes(4, 100)
	l.dueAt(testNow, "a")
	asks, wait := l.ask(testNow)
	if len(asks) != 1 || asks[0].WebhookID != "a" || wait != time.Hour {
		t.Fatalf("asks %v, %v", asks, wait)
	}
	if asks, _ := l.ask(testNow); len(asks) != 0 {
		t.Errorf("asked again: %v", asks)
	}
	// A wake-up between the ask and its answer is no part of the answer.
	l.dueAt(testNow, "a")
	l.claimed(nil, nil)
	if asks, _ := l.ask(testNow); len(asks) != 1 {
		t.Errorf("the wake-up was lost: %v", asks)
	}
	l.refused(asks, testNow)
	if asks, _ := l.ask(testNow); len(asks) != 1 {
		t.Errorf("the refused ask was lost: %v", asks)
	}
	l.claimed(nil, map[string]time.Time{"a": testNow.Add(time.Minute)})
	if asks, wait := l.ask(testNow); len(asks) != 0 || wait != time.Minute {
		t.Errorf("before its time: %v, %v", asks, wait)
	}
	// What comes earlier is asked for earlier, what comes later changes nothing.
	l.dueAt(testNow.Add(time.Second), "a")
	l.dueAt(testNow.Add(time.Hour), "a")
	if asks, wait := l.ask(testNow); len(asks) != 0 || wait != time.Second {
		t.Errorf("before its time: %v, %v", asks, wait)
	}
}

// The window begins small, grows with each success and is halved by each failure.
func TestWindow(t *testing.T) {
	l := newLanes(8, 1000)
	want := []int{2, 3, 4, 5, 6, 7, 8, 8, 4, 2, 1, 1, 2, 3}
	for i, outcome := range []laneOutcome{
		outcomeUnknown, outcomeGood, outcomeGood, outcomeGood, outcomeGood, outcomeGood, outcomeGood, outcomeGood,
		outcomeBad, outcomeBad, outcomeBad, outcomeBad, outcomeGood, outcomeGood,
	} {
		l.claimed(claimsOf("a", 1), nil)
		l.done("a", outcome)
		l.dueAt(testNow, "a")
		if asks, _ := l.ask(testNow); len(asks) != 1 || asks[0].Max != want[i] {
			t.Errorf("step %d: asks %v, want %d", i, asks, want[i])
		}
	}
}

// Webhooks that fail share half of the room, and however many there are, there is
// some left for one that does well.
func TestRoom(t *testing.T) {
	l := newLanes(8, 64)
	for i := range 100 {
		id := fmt.Sprint("failing ", i)
		l.claimed(claimsOf(id, 1), nil)
		l.done(id, outcomeBad)
		l.dueAt(testNow, id)
	}
	taken := 0
	for {
		asks, _ := l.ask(testNow)
		if len(asks) == 0 {
			break
		}
		for _, ask := range asks {
			taken += ask.Max
			l.claimed(claimsOf(ask.WebhookID, ask.Max), nil)
		}
	}
	if taken != 32 {
		t.Errorf("those that fail have %d of 64", taken)
	}
	// New ones, of which nothing is known, take a part of the rest.
	for i := range 20 {
		id := fmt.Sprint("new ", i)
		l.dueAt(testNow, id)
		asks, _ := l.ask(testNow)
		if (len(asks) == 1) != (i < 15) {
			t.Fatalf("new one %d: asks %v", i, asks)
		}
		for _, ask := range asks {
			l.claimed(claimsOf(id, ask.Max), map[string]time.Time{id: testNow})
		}
	}
	// One that does well always has room.
	l.claimed(claimsOf("well", 1), nil)
	l.done("well", outcomeGood)
	l.dueAt(testNow, "well")
	if asks, _ := l.ask(testNow); len(asks) != 1 || asks[0].WebhookID != "well" {
		t.Errorf("asks %v", asks)
	}
	l.checkLocked(t)
}

// Of two that are due the one that became ready first is asked for first, also
// after it was asked for and has more.
func TestTurns(t *testing.T) {
	l := newLanes(8, 1000)
	var order []string
	for i := range maxAsks * 2 {
		l.dueAt(testNow.Add(time.Duration(i)), fmt.Sprint(i))
	}
	for range 3 {
		asks, _ := l.ask(testNow.Add(time.Second))
		if len(asks) != maxAsks {
			t.Fatalf("%d asks", len(asks))
		}
		next := make(map[string]time.Time)
		for _, ask := range asks {
			order = append(order, ask.WebhookID)
			next[ask.WebhookID] = testNow
		}
		l.claimed(nil, next)
	}
	for i, id := range order {
		if want := fmt.Sprint(i % (maxAsks * 2)); i < maxAsks*2 && id != want {
			t.Fatalf("turn %d is %s", i, id)
		}
	}
	first := make(map[string]bool)
	for _, id := range order[:maxAsks] {
		first[id] = true
	}
	for _, id := range order[2*maxAsks:] {
		if !first[id] {
			t.Fatalf("%s was asked for twice before others once", id)
		}
	}
}

// A lane is forgotten when nothing is pending and nothing under way, no sooner.
func TestForgotten(t *testing.T) {
	l := newLanes(8, 100)
	l.scanned(map[string]time.Time{"a": testNow, "b": testNow.Add(time.Hour), "c": testNow})
	l.ask(testNow)
	l.claimed(claimsOf("c", 1), nil)
	l.scanned(map[string]time.Time{"b": testNow.Add(time.Hour)})
	if len(l.byID) != 2 || l.byID["b"] == nil || l.byID["c"] == nil {
		t.Errorf("left are %v", l.byID)
	}
	l.done("c", outcomeGood)
	for i := range maxIdle {
		if l.scanned(nil); len(l.byID) != 2 {
			t.Fatalf("left are %v after %d scans", l.byID, i+1)
		}
	}
	if l.scanned(nil); len(l.byID) != 1 || l.byID["b"] == nil { // b is known to have something.
		t.Errorf("left are %v", l.byID)
	}
	l.checkLocked(t)
}

// Whatever happens in whatever order, the books of the lanes balance, and what is
// due and has room is asked for.
func TestLanesBalance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLanes(rapid.IntRange(1, 4).Draw(t, "per webhook"), rapid.IntRange(1, 40).Draw(t, "in flight"))
		now := testNow
		id := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
		flying := make(map[string]int)
		t.Repeat(map[string]func(*rapid.T){
			"due": func(t *rapid.T) {
				l.dueAt(now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "in"))), id.Draw(t, "id"))
			},
			"time": func(*rapid.T) { now = now.Add(1) },
			"ask": func(t *rapid.T) {
				asks, _ := l.ask(now)
				if rapid.IntRange(0, 3).Draw(t, "answer") == 0 {
					l.refused(asks, now)
					return
				}
				for _, ask := range asks {
					n := rapid.IntRange(0, ask.Max).Draw(t, "claims")
					flying[ask.WebhookID] += n
					next := map[string]time.Time{}
					if n == ask.Max {
						next[ask.WebhookID] = now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "next")))
					}
					l.claimed(claimsOf(ask.WebhookID, n), next)
				}
			},
			"done": func(t *rapid.T) {
				id := id.Draw(t, "id")
				if flying[id] > 0 {
					flying[id]--
					l.done(id, laneOutcome(rapid.IntRange(0, 2).Draw(t, "outcome")))
				}
			},
			"scan": func(t *rapid.T) {
				l.scanned(map[string]time.Time{id.Draw(t, "id"): now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "in")))})
			},
			"": func(t *rapid.T) {
				l.checkLocked(t)
				if n := l.flying[well] + l.flying[fresh] + l.flying[failing]; n > l.inFlight {
					t.Errorf("%d of %d under way", n, l.inFlight)
				}
			},
		})
	})
}
