package deliver

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

func newScheduler(perWebhook, inFlight int) *scheduler {
	return &scheduler{byID: make(map[string]*endpoint), perWebhook: perWebhook, maxInFlight: inFlight}
}

func claimsOf(id string, n int) []webhook.Claim {
	claims := make([]webhook.Claim, n)
	for i := range claims {
		claims[i].Delivery.WebhookID = id
	}
	return claims
}

// A endpoint that is asked for is not asked for again until something is due again.
func TestAskOnce(t *testing.T) {
	t.Parallel()
	l := newScheduler(4, 100)
	l.dueAt(testNow, "a")
	picks, wait := l.pick(testNow)
	if len(picks) != 1 || picks[0].WebhookID != "a" || wait != time.Hour {
		t.Fatalf("picks %v, %v", picks, wait)
	}
	if picks, _ := l.pick(testNow); len(picks) != 0 {
		t.Errorf("asked again: %v", picks)
	}
	// A wake-up between the ask and its answer is no part of the answer.
	l.dueAt(testNow, "a")
	l.claimed(nil, nil)
	if picks, _ := l.pick(testNow); len(picks) != 1 {
		t.Errorf("the wake-up was lost: %v", picks)
	}
	l.refused(picks, testNow)
	if picks, _ := l.pick(testNow); len(picks) != 1 {
		t.Errorf("the refused ask was lost: %v", picks)
	}
	l.claimed(nil, map[string]time.Time{"a": testNow.Add(time.Minute)})
	if picks, wait := l.pick(testNow); len(picks) != 0 || wait != time.Minute {
		t.Errorf("before its time: %v, %v", picks, wait)
	}
	// What comes earlier is asked for earlier, what comes later changes nothing.
	l.dueAt(testNow.Add(time.Second), "a")
	l.dueAt(testNow.Add(time.Hour), "a")
	if picks, wait := l.pick(testNow); len(picks) != 0 || wait != time.Second {
		t.Errorf("before its time: %v, %v", picks, wait)
	}
}

// The window begins small, grows with each success and is halved by each failure.
func TestWindow(t *testing.T) {
	t.Parallel()
	l := newScheduler(8, 1000)
	want := []int{2, 3, 4, 5, 6, 7, 8, 8, 4, 2, 1, 1, 2, 3}
	for i, outcome := range []outcomeKind{
		outcomeNone, outcomeSucceeded, outcomeSucceeded, outcomeSucceeded, outcomeSucceeded, outcomeSucceeded, outcomeSucceeded, outcomeSucceeded,
		outcomeFailed, outcomeFailed, outcomeFailed, outcomeFailed, outcomeSucceeded, outcomeSucceeded,
	} {
		l.claimed(claimsOf("a", 1), nil)
		l.done("a", outcome)
		l.dueAt(testNow, "a")
		if picks, _ := l.pick(testNow); len(picks) != 1 || picks[0].Max != want[i] {
			t.Errorf("step %d: picks %v, want %d", i, picks, want[i])
		}
	}
}

// Webhooks that fail share half of the room, and however many there are, there is
// some left for one that does well.
func TestRoom(t *testing.T) {
	t.Parallel()
	l := newScheduler(8, 64)
	for i := range 100 {
		id := fmt.Sprint("failing ", i)
		l.claimed(claimsOf(id, 1), nil)
		l.done(id, outcomeFailed)
		l.dueAt(testNow, id)
	}
	taken := 0
	for {
		picks, _ := l.pick(testNow)
		if len(picks) == 0 {
			break
		}
		for _, pick := range picks {
			taken += pick.Max
			l.claimed(claimsOf(pick.WebhookID, pick.Max), nil)
		}
	}
	if taken != 32 {
		t.Errorf("those that fail have %d of 64", taken)
	}
	// New ones, of which nothing is known, take a part of the rest.
	for i := range 20 {
		id := fmt.Sprint("new ", i)
		l.dueAt(testNow, id)
		picks, _ := l.pick(testNow)
		if (len(picks) == 1) != (i < 15) {
			t.Fatalf("new one %d: picks %v", i, picks)
		}
		for _, pick := range picks {
			l.claimed(claimsOf(id, pick.Max), map[string]time.Time{id: testNow})
		}
	}
	// One that does well always has room.
	l.claimed(claimsOf("well", 1), nil)
	l.done("well", outcomeSucceeded)
	l.dueAt(testNow, "well")
	if picks, _ := l.pick(testNow); len(picks) != 1 || picks[0].WebhookID != "well" {
		t.Errorf("picks %v", picks)
	}
	l.checkLocked(t)
}

// Of two that are due the one that became ready first is asked for first, also
// after it was asked for and has more.
func TestTurns(t *testing.T) {
	t.Parallel()
	l := newScheduler(8, 1000)
	var order []string
	for i := range maxPicks * 2 {
		l.dueAt(testNow.Add(time.Duration(i)), fmt.Sprint(i))
	}
	for range 3 {
		picks, _ := l.pick(testNow.Add(time.Second))
		if len(picks) != maxPicks {
			t.Fatalf("%d picks", len(picks))
		}
		next := make(map[string]time.Time)
		for _, pick := range picks {
			order = append(order, pick.WebhookID)
			next[pick.WebhookID] = testNow
		}
		l.claimed(nil, next)
	}
	for i, id := range order {
		if want := fmt.Sprint(i % (maxPicks * 2)); i < maxPicks*2 && id != want {
			t.Fatalf("turn %d is %s", i, id)
		}
	}
	first := make(map[string]bool)
	for _, id := range order[:maxPicks] {
		first[id] = true
	}
	for _, id := range order[2*maxPicks:] {
		if !first[id] {
			t.Fatalf("%s was asked for twice before others once", id)
		}
	}
}

// A endpoint is forgotten when nothing is pending and nothing under way, no sooner.
func TestForgotten(t *testing.T) {
	t.Parallel()
	l := newScheduler(8, 100)
	l.scanned(map[string]time.Time{"a": testNow, "b": testNow.Add(time.Hour), "c": testNow})
	l.pick(testNow)
	l.claimed(claimsOf("c", 1), nil)
	l.scanned(map[string]time.Time{"b": testNow.Add(time.Hour)})
	if len(l.byID) != 2 || l.byID["b"] == nil || l.byID["c"] == nil {
		t.Errorf("left are %v", l.byID)
	}
	l.done("c", outcomeSucceeded)
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

// Whatever happens in whatever order, the books of the scheduler balance, and what is
// due and has room is asked for.
func TestSchedulerBalances(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newScheduler(rapid.IntRange(1, 4).Draw(t, "per webhook"), rapid.IntRange(1, 40).Draw(t, "in flight"))
		now := testNow
		ids := []string{"a", "b", "c", "d", "e"}
		id := rapid.SampledFrom(ids)
		l.perHost, l.perOrganization = rapid.IntRange(1, 40).Draw(t, "per host"), rapid.IntRange(1, 40).Draw(t, "per organization")
		inFlight := make(map[string]int)
		introduce := func() {
			for i, id := range ids {
				l.introduce([]webhook.Endpoint{{WebhookID: id, OrganizationID: fmt.Sprint(i % 2), URL: fmt.Sprintf("https://%d.example/", i%3)}})
			}
		}
		done := func(t *rapid.T) {
			id := id.Draw(t, "id")
			if inFlight[id] == 0 {
				return
			}
			inFlight[id]--
			l.done(id, outcomeKind(rapid.IntRange(0, 3).Draw(t, "outcome")))
			if d, found, _ := l.following(id, now); found {
				inFlight[d.claim.Delivery.WebhookID]++
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"due": func(t *rapid.T) {
				l.dueAt(now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "in"))), id.Draw(t, "id"))
			},
			"time":   func(*rapid.T) { now = now.Add(1) },
			"second": func(*rapid.T) { now = now.Add(time.Second) },
			"begin": func(t *rapid.T) {
				begin, back, _ := l.begin(now)
				for _, d := range begin {
					if inFlight[d.claim.Delivery.WebhookID]++; now.Sub(d.claimed) >= maxPrefetchedTime {
						t.Errorf("begun after %v", now.Sub(d.claimed))
					}
				}
				for _, d := range back {
					l.dueAt(now, d.claim.Delivery.WebhookID)
				}
			},
			"ask": func(t *rapid.T) {
				introduce() // As the worker does before each pick.
				picks, _ := l.pick(now)
				for range rapid.IntRange(0, 3).Draw(t, "over meanwhile") {
					done(t)
				}
				if rapid.IntRange(0, 3).Draw(t, "answer") == 0 {
					l.refused(picks, now)
					return
				}
				var claims []webhook.Claim
				next := map[string]time.Time{}
				for _, pick := range picks {
					n := rapid.IntRange(0, pick.Max).Draw(t, "claims")
					claims = append(claims, claimsOf(pick.WebhookID, n)...)
					if n == pick.Max {
						next[pick.WebhookID] = now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "next")))
					}
				}
				for i, prefetch := range l.claimed(claims, next) {
					if prefetch {
						l.prefetch(sending{claim: &claims[i], claimed: now})
					} else {
						inFlight[claims[i].Delivery.WebhookID]++
					}
				}
			},
			"done": done,
			"scan": func(t *rapid.T) {
				l.scanned(map[string]time.Time{id.Draw(t, "id"): now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "in")))})
			},
			"": func(t *rapid.T) {
				l.checkLocked(t)
				if n := l.inFlight[healthy] + l.inFlight[unknown] + l.inFlight[failing]; n > l.maxInFlight {
					t.Errorf("%d of %d under way", n, l.maxInFlight)
				}
				for _, id := range ids {
					e := l.byID[id]
					if e == nil {
						continue
					}
					if e.inFlight != inFlight[id] {
						t.Errorf("%d under way to %s, and the scheduler says %d", inFlight[id], id, e.inFlight)
					}
					if n := sum(l.shares[e.host]); n > l.perHost {
						t.Errorf("%d of %d under way to a host", n, l.perHost)
					}
					if n := sum(l.shares[e.organization]); n > l.perOrganization {
						t.Errorf("%d of %d under way of an organization", n, l.perOrganization)
					}
				}
				if l.prefetched.Len() > maxPrefetched {
					t.Errorf("%d prefetched", l.prefetched.Len())
				}
			},
		})
	})
}

func sum(s share) int { return s[healthy] + s[unknown] + s[failing] }

// introduced makes a healthy webhook of an organization and a host known, with so much
// under way.
func (s *scheduler) introduced(id, organization, host string, n int) {
	s.claimed(claimsOf(id, 1), nil)
	s.done(id, outcomeSucceeded)
	s.introduce([]webhook.Endpoint{{WebhookID: id, OrganizationID: organization, URL: "https://" + host + "/x"}})
	s.claimed(claimsOf(id, n), nil)
}

// However many webhooks one host or one organization has, what is under way to them
// together has a bound, and others have room.
func TestShares(t *testing.T) {
	take := func(s *scheduler) (taken int) {
		for {
			picks, _ := s.pick(testNow)
			if len(picks) == 0 {
				s.checkLocked(t)
				return taken
			}
			for _, pick := range picks {
				taken += pick.Max
				s.claimed(claimsOf(pick.WebhookID, pick.Max), map[string]time.Time{pick.WebhookID: testNow})
			}
		}
	}
	for name, c := range map[string]struct {
		organization, host func(i int) string
		want               int
	}{
		"one host":         {func(i int) string { return fmt.Sprint(i) }, func(i int) string { return []string{"a.example", "A.EXAMPLE:443"}[i%2] }, 20},
		"one organization": {func(int) string { return "a" }, func(i int) string { return fmt.Sprint(i, ".example") }, 50},
	} {
		s := newScheduler(8, 1000)
		s.perHost, s.perOrganization = 20, 50
		for i := range 100 {
			id := fmt.Sprint(i)
			s.introduced(id, c.organization(i), c.host(i), 0)
			s.dueAt(testNow, id)
		}
		if got := take(s); got != c.want {
			t.Errorf("%s has %d under way, want %d", name, got, c.want)
		}
		s.introduced("other", "other", "other.example", 0)
		s.dueAt(testNow, "other")
		if got := take(s); got != 3 {
			t.Errorf("%s: another has %d under way", name, got)
		}
		// What moves takes what is under way along, and makes room where it was.
		s.introduce([]webhook.Endpoint{{WebhookID: "0", OrganizationID: "moved", URL: "https://moved.example/"}})
		if take(s) == 0 {
			t.Errorf("%s: nothing takes the room of what has moved", name)
		}
	}
}

// Organizations take turns, whoever has more webhooks that are ready.
func TestOrganizationsTakeTurns(t *testing.T) {
	s := newScheduler(8, 10_000)
	for i := range 2 * maxPicks {
		id := fmt.Sprint("many ", i)
		s.introduced(id, "many", fmt.Sprint(i, ".example"), 0)
		s.dueAt(testNow, id)
	}
	for _, id := range []string{"few", "fewer"} {
		s.introduced(id, id, id+".example", 0)
		s.dueAt(testNow.Add(1), id)
	}
	picks, _ := s.pick(testNow.Add(time.Second))
	if len(picks) != maxPicks || picks[0].WebhookID != "many 0" || picks[1].WebhookID != "few" || picks[2].WebhookID != "fewer" {
		t.Errorf("picks %v", picks)
	}
}
