//go:build broken

package chaostest

import (
	"flag"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/broken"
)

var chaosBroken = flag.String("chaos.broken", "", "the fault to find; empty finds all, and today the one whose turn it is")

// findTime is within what time each fault is found, rareTime within what time a rare one.
const (
	findTime = 2 * time.Minute
	rareTime = 10 * time.Minute
)

// brokenBuild is a fault with what brings it out, and what the checks say of it.
type brokenBuild struct {
	fault broken.Fault
	found string // a regular expression
	with  clusterConfig
	run   func(l *load) error
	// rare faults show only where a read or a kill falls into a moment, and are given
	// longer. They have no turn of today's.
	rare bool
}

var brokenBuilds = []brokenBuild{
	{fault: broken.StaleEntry, found: "on replica .: no order of", run: (*load).allSlow, rare: true},
	{fault: broken.DropEarly, found: "on replica .: no order of", run: (*load).allSlow},
	{fault: broken.KeepOthers, found: "on replica .: no order of", run: (*load).undisturbed},
	{fault: broken.ServeStale, found: "on replica .: no order of", run: (*load).cutInTurn},
	{
		fault: broken.LocalClock, found: "is valid on replica|and its secret works until|it should from|InvalidArgument",
		with: clusterConfig{clockOffsets: [3]time.Duration{0, 10 * time.Minute, -10 * time.Minute}}, run: (*load).undisturbed,
	},
	{fault: broken.ClaimUnfenced, found: "with no fault around it|are made, and", run: (*load).undisturbed},
	{fault: broken.AnswerEarly, found: "is not in the log", run: (*load).cutOften, rare: true},
	{fault: broken.RefillTwice, found: "units were granted", run: (*load).undisturbed},
	{fault: broken.GrantUnreserved, found: "units were granted", run: (*load).undisturbed},
	{fault: broken.ExactLocal, found: "exact rate limit.*units were granted", run: (*load).undisturbed},
	{fault: broken.HeartbeatEarly, found: "came after position|was not seen before|is not in the log there|was ended by", run: (*load).undisturbed},
	{fault: broken.WatchSkips, found: "was not seen before", run: (*load).killOften},
	{fault: broken.FanOutEarly, found: "was not made|are made, and", run: (*load).killOften, rare: true},
}

// TestBroken finds each fault of a broken build, in time and by the check that is there
// for it.
func TestBroken(t *testing.T) {
	needsChaos(t)
	often := slices.DeleteFunc(slices.Clone(brokenBuilds), func(b brokenBuild) bool { return b.rare })
	turn := often[int(time.Now().Unix()/86_400)%len(often)].fault
	for _, b := range brokenBuilds {
		switch *chaosBroken {
		case "", string(b.fault):
		case "today":
			if b.fault != turn {
				continue
			}
		default:
			continue
		}
		t.Run(string(b.fault), func(t *testing.T) {
			t.Setenv("APIKEYS_BROKEN", string(b.fault))
			found := regexp.MustCompile(b.found)
			var last []string
			most := findTime
			if b.rare {
				most = rareTime
			}
			for began := time.Now(); time.Since(began) < most; {
				last = b.find(t)
				for _, fault := range last {
					if found.MatchString(fault) {
						t.Logf("found after %v: %s", time.Since(began).Round(time.Second), fault)
						return
					}
				}
			}
			t.Errorf("not found within %v; the last run says: %s", most, strings.Join(last[:min(5, len(last))], "\n"))
		})
	}
}

// find makes one run and returns what is wrong with it.
func (b *brokenBuild) find(t *testing.T) []string {
	l := newCluster(t, b.with).startLoad()
	defer l.close()
	l.pause(time.Second)
	err := b.run(l)
	return append(l.finish(false), errorText(err)...)
}

// undisturbed breaks nothing.
func (l *load) undisturbed() error {
	l.pause(8 * time.Second)
	return nil
}

// cutInTurn cuts each replica off for longer than it may serve what it remembers.
func (l *load) cutInTurn() error {
	for _, r := range l.replicas {
		if err := l.networked(r, cut, 3*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// allSlow slows all networks down.
func (l *load) allSlow() error {
	var all sync.WaitGroup
	for _, r := range l.replicas {
		all.Go(func() { _ = l.slowed(r, 10*time.Millisecond, 12*time.Second) })
	}
	all.Wait()
	return nil
}

// cutOften cuts slow connections again and again, in the middle of what they carry.
func (l *load) cutOften() error {
	for _, r := range l.replicas {
		r.slow(15 * time.Millisecond)
	}
	for range 40 {
		l.pause(400 * time.Millisecond)
		if err := l.networked(l.any(l.random), cut, 10*time.Millisecond); err != nil {
			return err
		}
	}
	for _, r := range l.replicas {
		r.slow(0)
	}
	return nil
}

// killOften kills replicas whose networks are slow.
func (l *load) killOften() error {
	for range 4 {
		for _, r := range l.replicas {
			r.slow(10 * time.Millisecond)
			if err := l.killed(r, 100*time.Millisecond); err != nil {
				return err
			}
			l.pause(time.Second)
		}
	}
	for _, r := range l.replicas {
		r.slow(0)
	}
	return nil
}
