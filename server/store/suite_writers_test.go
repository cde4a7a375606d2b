package store_test

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

var writerTests = map[string]func(*testing.T, *fixture){
	"ManyWriters":           testManyWriters,
	"ManyChangesOfOneKey":   testManyChangesOfOneKey,
	"CommitsInOrder":        testCommitsInOrder,
	"ReadsWhileWriting":     testReadsWhileWriting,
	"EventsPastAStatement":  testEventsPastAStatement,
	"CreatedInOrderOfIDs":   testCreatedInOrderOfIDs,
	"UsageBesideTheWriters": testUsageBesideTheWriters,
}

// testManyWriters mixes changes that succeed, that are refused and that panic.
func testManyWriters(t *testing.T, f *fixture) {
	const writers, each = 32, 12
	var made sync.Map // label -> struct{}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				switch i % 4 {
				case 0:
					f.refused()
				case 1:
					f.panicking()
				default:
					name := fmt.Sprintf("%d/%d", w, i)
					k, err := f.tryCreate(t, t.Context(), func(k *apikey.Key) { k.Label = name })
					if err != nil {
						t.Error(err)
					}
					made.Store(k.ID, name)
				}
			}
		})
	}
	wg.Wait()
	events := f.events(t, 0)
	if len(events) != writers*each/2 {
		t.Errorf("%d events", len(events))
	}
	ids := map[string]bool{}
	for _, e := range events {
		label := keyOf(t, &e).GetLabel()
		if name, ok := made.LoadAndDelete(e.ResourceID); !ok || name != label || ids[e.ID] {
			t.Errorf("event of %s (%s)", e.ResourceID, label)
		}
		ids[e.ID] = true
	}
	made.Range(func(id, _ any) bool {
		t.Errorf("no event of %s", id)
		return true
	})
}

// testManyChangesOfOneKey counts in a label: no change may be lost.
func testManyChangesOfOneKey(t *testing.T, f *fixture) {
	const writers, each = 16, 10
	k := f.create(t, func(k *apikey.Key) { k.Label = "0" })
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				_, err := f.update(t.Context(), k.ID, func(k *apikey.Key) {
					n, _ := strconv.Atoi(k.Label)
					k.Label = strconv.Itoa(n + 1)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := f.Key(t.Context(), org, k.ID)
	if err != nil || got.Label != strconv.Itoa(writers*each) || got.Version != writers*each+1 {
		t.Errorf("label %s, version %d, %v", got.Label, got.Version, err)
	}
	for i, e := range f.events(t, 0) {
		if told := keyOf(t, &e); told.GetLabel() != strconv.Itoa(i) || told.GetEtag() != strconv.Itoa(i+1) {
			t.Errorf("event %d tells of %s at version %s", e.Position, told.GetLabel(), told.GetEtag())
		}
	}
}

// testCommitsInOrder says that commits are told of in their order, without a
// gap, and before the change that they hold is answered.
func testCommitsInOrder(t *testing.T, f *fixture) {
	const writers, each = 16, 8
	var position int64
	changed := map[string]bool{}
	var mu sync.Mutex
	f.OnCommit(func(c store.Commit) {
		mu.Lock()
		defer mu.Unlock()
		// Each change here is of one key.
		if len(c.ChangedKeys) == 0 || c.Position != position+int64(len(c.ChangedKeys)) {
			t.Errorf("at %d after %d with %d keys", c.Position, position, len(c.ChangedKeys))
		}
		position = c.Position
		for _, id := range c.ChangedKeys {
			changed[id] = true
		}
	})
	f.OnCommit(func(c store.Commit) {
		mu.Lock()
		defer mu.Unlock()
		if c.Position != position {
			t.Errorf("the second hears of %d, the first heard of %d", c.Position, position)
		}
	})
	f.copies(t, apikey.Key{OrganizationID: org, Label: "copy", Mode: apikey.ModeLive, Enabled: true, Version: 1}, writers*each)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				k, err := f.update(t.Context(), copyID(w*each+i), func(k *apikey.Key) { k.Enabled = false })
				mu.Lock()
				if err != nil || !changed[k.ID] {
					t.Errorf("answered before its commit was told of: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if position != writers*each {
		t.Errorf("ended at %d", position)
	}
}

// testReadsWhileWriting reads a key with its position while it is changed: what
// is read is what the log tells of at that position.
func testReadsWhileWriting(t *testing.T, f *fixture) {
	const changes = 100
	k := f.create(t, func(k *apikey.Key) { k.Label = "1" })
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range changes {
			if _, err := f.update(t.Context(), k.ID, func(k *apikey.Key) { k.Label = strconv.Itoa(i + 2) }); err != nil {
				t.Error(err)
			}
		}
	})
	for last := int64(0); last <= changes; {
		read, position, err := f.KeyBySecret(t.Context(), k.Hashes())
		if err != nil || position < last || read.Label != strconv.FormatInt(position, 10) {
			t.Fatalf("label %s at %d after %d, %v", read.Label, position, last, err)
		}
		last = position
	}
	wg.Wait()
}

// testEventsPastAStatement publishes more events in one transaction than one
// statement can hold: 65,535 values on PostgreSQL, half as many on SQLite.
func testEventsPastAStatement(t *testing.T, f *fixture) {
	const n = 6_000
	f.copies(t, apikey.Key{
		OrganizationID: org, Label: "copy", Mode: apikey.ModeLive, Enabled: true, Version: 1,
		ExpiresAt: f.clock.stored(), NoticeAt: f.clock.stored(),
	}, n)
	f.publish(t, 2*n, n, 0)
	for i, e := range f.events(t, 0) {
		if e.ResourceID != copyID(i) || e.Type != apikey.KeyExpired {
			t.Fatalf("event %d is %s of %s", e.Position, e.Type, e.ResourceID)
		}
	}
}

// testCreatedInOrderOfIDs says that ids ascend with positions: whoever pages by
// id never misses a key that is committed later.
func testCreatedInOrderOfIDs(t *testing.T, f *fixture) {
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 8 {
				if err := f.creating(t, nil)(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var keys, events []string
	for _, e := range f.events(t, 0) {
		keys, events = append(keys, e.ResourceID), append(events, e.ID)
	}
	if !slices.IsSorted(keys) || !slices.IsSorted(events) {
		t.Error("ids do not ascend")
	}
}

// testUsageBesideTheWriters flushes counters while keys are changed and deleted.
func testUsageBesideTheWriters(t *testing.T, f *fixture) {
	const n, flushes = store.UsageChunk + 50, 5
	f.copies(t, apikey.Key{OrganizationID: org, Label: "copy", Mode: apikey.ModeLive, Enabled: true, Version: 1}, n)
	counts := make([]apikey.UsageCount, n)
	for i := range counts {
		counts[i] = apikey.UsageCount{KeyID: copyID(i), Count: 2, LastUsedAt: f.clock.Now()}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for range flushes {
			if stored, err := f.AddUsage(t.Context(), counts); stored != n || err != nil {
				t.Errorf("stored %d, %v", stored, err)
			}
		}
	})
	wg.Go(func() {
		for i := range n {
			var err error
			if i%2 == 0 {
				_, err = f.update(t.Context(), copyID(i), func(k *apikey.Key) { k.Enabled = false })
			} else {
				err = f.DeleteKey(t.Context(), operator, org, copyID(i))
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	keys, _, err := f.Keys(t.Context(), store.KeyFilter{}, "", n)
	if err != nil || len(keys) != n/2 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for _, k := range keys {
		if k.Usage.TotalRequests != 2*flushes || k.Enabled {
			t.Errorf("%s was used %d times", k.ID, k.Usage.TotalRequests)
		}
	}
	if got, err := f.Counters(t.Context()); got != n/2 || err != nil {
		t.Errorf("%d counters, %v", got, err)
	}
}
