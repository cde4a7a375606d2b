package store_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"entgo.io/ent/dialect"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

var groupTests = map[string]func(*testing.T, *fixture){
	"FairTurns":            testFairTurns,
	"ManyRowsAreAlone":     testManyRowsAreAlone,
	"GroupCommitsTogether": testGroupCommitsTogether,
	"GroupSavepoints":      testGroupSavepoints,
	"GroupSeesSiblings":    testGroupSeesSiblings,
	"GroupAnswersAfter":    testGroupAnswersAfter,
	"GroupCancelled":       testGroupCancelled,
	"GroupDies":            testGroupDies,
	"LoneChangeDies":       testLoneChangeDies,
	"CommitPanics":         testCommitPanics,
	"GroupIsBounded":       testGroupIsBounded,
	"RefusedGroupIsSilent": testRefusedGroupIsSilent,
}

// together makes changes in one transaction, in their order, and returns their
// answers: it holds the writer until all of them wait.
func (f *fixture) together(tb testing.TB, changes ...func() error) []error {
	tb.Helper()
	holding, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := f.Write(context.Background(), func(func(string) error) error {
			close(holding)
			<-release
			return nil
		})
		if err != nil {
			tb.Error(err)
		}
	})
	<-holding
	answers := make([]error, len(changes))
	for i, change := range changes {
		wg.Go(func() { answers[i] = change() })
		for f.Waiting() <= i {
			runtime.Gosched()
		}
	}
	close(release)
	wg.Wait()
	return answers
}

// creating is a change that makes a key.
func (f *fixture) creating(tb testing.TB, with func(*apikey.Key)) func() error {
	return func() error {
		_, err := f.tryCreate(tb, context.Background(), with)
		return err
	}
}

// panicking is a change whose rule panics.
func (f *fixture) panicking() error {
	_, err := f.CreateKey(context.Background(), operator, func(time.Time) (apikey.Key, error) { panic("a rule") })
	return err
}

var errRefused = apikey.Errorf(apikey.KindPermissionDenied, apikey.ReasonExceedsCaller, "No.")

// refused is a change whose rule refuses.
func (f *fixture) refused() error {
	_, err := f.CreateKey(context.Background(), operator, func(time.Time) (apikey.Key, error) { return apikey.Key{}, errRefused })
	return err
}

// wantLabels compares the labels of all keys and picks for one event each.
func (f *fixture) wantLabels(tb testing.TB, want ...string) {
	tb.Helper()
	wantSame(tb, "labels", want, slices.Concat(f.list(tb, store.KeyFilter{}, 1000)...))
	var told []string
	for _, e := range f.events(tb, 0) {
		told = append(told, keyOf(tb, &e).GetLabel())
	}
	wantSame(tb, "labels of the events", want, told)
}

func testGroupCommitsTogether(t *testing.T, f *fixture) {
	var commits []int64
	f.OnCommit(func(c store.Commit) { commits = append(commits, c.Position) })
	answers := f.together(t,
		f.creating(t, label(1)), f.refused, f.creating(t, label(2)), f.panicking, f.creating(t, label(3)))
	for i, err := range answers {
		switch i {
		case 1:
			if err != errRefused { //nolint:errorlint // As it is, not wrapped.
				t.Errorf("refused: %v", err)
			}
		case 3:
			if err == nil || apikey.AsError(err) != nil || !strings.Contains(err.Error(), "a rule") {
				t.Errorf("panicked: %v", err)
			}
		default:
			if err != nil {
				t.Errorf("member %d: %v", i, err)
			}
		}
	}
	f.wantLabels(t, "key 1", "key 2", "key 3")
	wantSame(t, "commits", []int64{3}, commits)
	if f.log.Len() > 0 {
		t.Errorf("logged %s", f.log)
	}
}

// testGroupSavepoints has members that fail after they wrote.
func testGroupSavepoints(t *testing.T, f *fixture) {
	writing := func(name string, end func() error) func() error {
		return func() error {
			return f.Write(context.Background(), func(exec func(string) error) error {
				if err := exec("INSERT INTO settings (id, value) VALUES ('" + name + "', '')"); err != nil {
					return err
				}
				return end()
			})
		}
	}
	answers := f.together(t,
		f.creating(t, label(1)),
		writing("refused", func() error { return errRefused }),
		writing("kept", func() error { return nil }),
		writing("panicked", func() error { panic("later") }),
		writing("kept", func() error { return nil }), // a statement fails
		writing("refused", func() error { return errRefused }),
		f.creating(t, label(2)),
	)
	for i, wantErr := range []bool{false, true, false, true, true, true, false} {
		if (answers[i] != nil) != wantErr {
			t.Errorf("member %d: %v", i, answers[i])
		}
	}
	settings, err := f.Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "settings", map[string]string{"database_id": "1", "kept": ""}, settings)
	f.wantLabels(t, "key 1", "key 2")
}

// testGroupSeesSiblings changes and deletes in one transaction what a sibling
// made in it.
func testGroupSeesSiblings(t *testing.T, f *fixture) {
	k, doomed := f.create(t, label(0)), f.create(t, nil)
	var last apikey.Key
	rename := func(to string) func() error {
		return func() error {
			renamed, err := f.update(context.Background(), k.ID, func(k *apikey.Key) { k.Label += to })
			if to == "c" {
				last = renamed
			}
			return err
		}
	}
	deleting := func() error { return f.DeleteKey(context.Background(), operator, org, doomed.ID) }
	answers := f.together(t, rename("a"), deleting, rename("b"), deleting, rename("c"))
	wantSame(t, "not found", []bool{false, false, false, true, false}, []bool{
		answers[0] != nil, answers[1] != nil, answers[2] != nil, errors.Is(answers[3], apikey.ErrNotFound), answers[4] != nil,
	})
	if last.Label != "key 0abc" || last.Version != 4 {
		t.Errorf("got %+v", last)
	}
	f.wantKey(t, last)
	f.wantNotFound(t, &doomed)
	f.wantEvents(t, 2, apikey.KeyUpdated, apikey.KeyDeleted, apikey.KeyUpdated, apikey.KeyUpdated)
}

// testGroupAnswersAfter says that nobody, refused or not, is answered before the
// commit is told of.
func testGroupAnswersAfter(t *testing.T, f *fixture) {
	var answered, told atomic.Int64
	f.OnCommit(func(c store.Commit) {
		if n := answered.Load(); n != 0 {
			t.Errorf("%d answers came before the commit", n)
		}
		// What is told of is there to be read.
		if position, err := f.Position(context.Background()); position != c.Position || err != nil {
			t.Errorf("told of %d, read %d, %v", c.Position, position, err)
		}
		told.Add(1)
	})
	then := func(change func() error) func() error {
		return func() error {
			err := change()
			if told.Load() != 1 {
				t.Error("answered before the commit")
			}
			answered.Add(1)
			return err
		}
	}
	f.together(t, then(f.refused), then(f.creating(t, nil)), then(f.panicking), then(f.refused))
	if told.Load() != 1 || answered.Load() != 4 {
		t.Errorf("told %d times, answered %d", told.Load(), answered.Load())
	}
}

// testGroupCancelled cancels callers before and while their change is made.
func testGroupCancelled(t *testing.T, f *fixture) {
	before, cancelBefore := context.WithCancel(t.Context())
	during, cancelDuring := context.WithCancel(t.Context())
	defer cancelDuring()
	answers := f.together(t,
		f.creating(t, label(1)),
		func() error {
			cancelBefore() // while it waits
			_, err := f.tryCreate(t, before, label(2))
			return err
		},
		func() error {
			_, err := f.tryCreate(t, during, func(k *apikey.Key) {
				k.Label = "key 3"
				cancelDuring()
			})
			return err
		},
		f.creating(t, label(4)),
	)
	for i, err := range answers {
		if want := i == 1; errors.Is(err, context.Canceled) != want || !want && err != nil {
			t.Errorf("member %d: %v", i, err)
		}
	}
	if _, err := f.tryCreate(t, before, label(5)); !errors.Is(err, context.Canceled) {
		t.Errorf("alone: %v", err)
	}
	f.wantLabels(t, "key 1", "key 3", "key 4")
}

// testGroupDies ends the transaction under its members.
func testGroupDies(t *testing.T, f *fixture) {
	k := f.create(t, label(0))
	f.OnCommit(func(c store.Commit) { t.Errorf("told of a commit at %d", c.Position) })
	ran := false
	answers := f.together(t,
		f.creating(t, label(1)),
		f.refused,
		func() error {
			_, err := f.update(context.Background(), k.ID, func(k *apikey.Key) { k.Label = "changed" })
			return err
		},
		func() error {
			return f.Write(context.Background(), func(exec func(string) error) error { return exec(f.EndTransaction()) })
		},
		func() error {
			return f.Write(context.Background(), func(func(string) error) error {
				ran = true
				return nil
			})
		},
		f.creating(t, label(2)),
	)
	for _, err := range answers {
		wantUnavailable(t, err)
	}
	if ran {
		t.Error("a change ran after its transaction had died")
	}
	f.wantLabels(t, "key 0")
	if !strings.Contains(f.log.String(), "changes=6") {
		t.Errorf("logged %s", f.log)
	}
}

// testLoneChangeDies is the same for a change that is alone in its transaction,
// whether it noticed or not.
func testLoneChangeDies(t *testing.T, f *fixture) {
	for _, noticed := range []error{nil, errors.New("the disk is full")} {
		err := f.Write(t.Context(), func(exec func(string) error) error {
			if err := exec("INSERT INTO settings (id, value) VALUES ('lost', '')"); err != nil {
				t.Error(err)
			}
			if err := exec(f.EndTransaction()); err != nil && f.Dialect() == dialect.SQLite {
				t.Error(err)
			}
			return noticed
		})
		wantUnavailable(t, err)
	}
	if settings, err := f.Settings(t.Context()); err != nil || len(settings) != 1 {
		t.Errorf("settings %v, %v", settings, err)
	}
	f.create(t, label(1))
	f.wantLabels(t, "key 1")
}

// testCommitPanics breaks where no change is to blame: nobody waits for ever.
func testCommitPanics(t *testing.T, f *fixture) {
	broken := true
	f.OnCommit(func(store.Commit) {
		if broken {
			panic("a listener")
		}
	})
	for i, err := range f.together(t, f.creating(t, label(1)), f.refused, f.creating(t, label(2))) {
		if err == nil || apikey.AsError(err) != nil || !strings.Contains(err.Error(), "a listener") {
			t.Errorf("member %d: %v", i, err)
		}
	}
	broken = false
	f.create(t, label(3))
	f.wantLabels(t, "key 1", "key 2", "key 3") // committed they were
}

func testGroupIsBounded(t *testing.T, f *fixture) {
	const n = 2*store.MaxGroup + 3
	var commits []int64
	f.OnCommit(func(c store.Commit) { commits = append(commits, c.Position) })
	changes := make([]func() error, n)
	want := make([]string, n)
	for i := range changes {
		changes[i], want[i] = f.creating(t, label(i)), fmt.Sprintf("key %d", i)
	}
	for _, err := range f.together(t, changes...) {
		if err != nil {
			t.Error(err)
		}
	}
	wantSame(t, "commits", []int64{store.MaxGroup, 2 * store.MaxGroup, n}, commits)
	f.wantLabels(t, want...)
}

func testRefusedGroupIsSilent(t *testing.T, f *fixture) {
	f.OnCommit(func(c store.Commit) { t.Errorf("told of a commit at %d", c.Position) })
	f.together(t, f.refused, f.panicking, f.refused)
	f.wantEvents(t, 0)
}

// testFairTurns has one organization wait with many changes and others with few: they
// take turns, and each keeps its order.
func testFairTurns(t *testing.T, f *fixture) {
	var changes []func() error
	add := func(organization string, n int) {
		for i := range n {
			by := *operator
			by.Organization = organization
			changes = append(changes, func() error {
				_, secret := newSecret(t)
				_, err := f.CreateKey(context.Background(), &by, func(now time.Time) (apikey.Key, error) {
					return rules.Create(apikey.Key{OrganizationID: organization, Label: fmt.Sprint(organization, " ", i), Enabled: true, Secret: secret}, now)
				})
				return err
			})
		}
	}
	add("a", 5)
	add("b", 1)
	add("c", 2)
	for i, err := range f.together(t, changes...) {
		wantReason(t, fmt.Sprint("change ", i), err, "")
	}
	f.wantLabels(t, "a 0", "b 0", "c 0", "a 1", "c 1", "a 2", "a 3", "a 4")
}

// testManyRowsAreAlone has changes of many rows wait among others: each has a
// transaction of its own, so that those of other organizations wait for one at most.
func testManyRowsAreAlone(t *testing.T, f *fixture) {
	f.create(t, nil)
	w := f.hook(t, nil)
	before, err := f.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var commits []int64
	f.OnCommit(func(c store.Commit) { commits = append(commits, c.Position-before) })
	replaying := func() error {
		_, err := f.ReplayEvents(t.Context(), operator, org, w.ID, 0, before, 100, func(*webhook.Delivery) bool { return true })
		return err
	}
	retrying := func() error {
		_, _, err := f.RetryDeliveries(t.Context(), operator, org, w.ID, []webhook.DeliveryState{webhook.StatePending}, 0, 100)
		return err
	}
	create := f.creating(t, nil)
	if err := replaying(); err != nil { // So that there is something to retry.
		t.Fatal(err)
	}
	commits = nil
	for _, err := range f.together(t, create, retrying, create, create, retrying, retrying, create) {
		if err != nil {
			t.Error(err)
		}
	}
	wantSame(t, "commits", []int64{1, 1, 3, 3, 3, 4}, commits)
	commits = nil
	for _, err := range f.together(t, create, replaying, create) {
		if err != nil {
			t.Error(err)
		}
	}
	wantSame(t, "commits around a replay", []int64{5, 6}, commits) // Of the replay nothing is to be told.
}
