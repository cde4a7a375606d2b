package store_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
)

// TestMovesKnowEveryTable fails on a table that a move would forget.
func TestMovesKnowEveryTable(t *testing.T) {
	t.Parallel()
	for _, wrong := range store.UnmovedTables() {
		t.Errorf("%s; say in move_tables.go whether its rows are moved, or why they are left", wrong)
	}
}

// databases makes empty ones of each dialect.
var databases = map[string]func(t *testing.T) store.Config{
	"SQLite": func(t *testing.T) store.Config {
		return store.Config{Path: filepath.Join(t.TempDir(), "apikeys.db"), Logger: quiet}
	},
	"PostgreSQL": func(t *testing.T) store.Config {
		return store.Config{Postgres: masked.New(postgresServer(t).create(t, "", nil)), Logger: quiet}
	},
}

// onEachMove runs a test for each pair of dialects.
func onEachMove(t *testing.T, test func(t *testing.T, from, to store.Config)) {
	for from, makeFrom := range databases {
		for to, makeTo := range databases {
			t.Run(from+" to "+to, func(t *testing.T) { test(t, makeFrom(t), makeTo(t)) })
		}
	}
}

// TestMove moves a database with something of everything: all of it goes on in the
// target, and the source starts only where it is forced to.
func TestMove(t *testing.T) {
	t.Parallel()
	onEachMove(t, func(t *testing.T, from, to store.Config) {
		f := openFixture(t, from, 0)
		p := populate(t, f)
		f.closeFixture(t)

		var last store.MoveProgress
		moved, err := store.Move(t.Context(), store.MoveConfig{From: from, To: to, Progress: func(p store.MoveProgress) { last = p }})
		if err != nil {
			t.Fatal(err)
		}
		if moved.Rows["api_keys"] != int64(len(p.Keys)-1) || moved.Rows["events"] != int64(p.Events) || moved.Rows["delivery_attempts"] != 2 {
			t.Errorf("moved %v", moved.Rows)
		}
		if last.Rows != last.Total || !last.Comparing || last.Total < int64(p.Events) {
			t.Errorf("the progress ended as %+v", last)
		}

		wantRefused(t, opened(t, from), "was moved to the", "--force")
		existing := from
		existing.Existing = true
		wantRefused(t, opened(t, existing), "was moved to the")
		f = openFixture(t, to, 1)
		checkPopulation(t, f, p)
		checkGoesOn(t, f, p)
		f.closeFixture(t)

		again, err := store.Move(t.Context(), store.MoveConfig{From: from, To: to})
		if err != nil || again.Rows != nil {
			t.Errorf("a second time: %+v, %v", again, err)
		}
		_, err = store.Move(t.Context(), store.MoveConfig{From: to, To: from})
		wantRefused(t, err, "must be empty")
		from.Force = true
		if err := opened(t, from); err != nil {
			t.Error(err)
		}
		from.Force = false
		f = openFixture(t, from, 2)
		checkPopulation(t, f, p)
		f.closeFixture(t)
	})
}

// fullEnv has TestMoveInterrupted end a move before each step, which takes a minute,
// instead of before one of three.
const fullEnv = "APIKEYS_TEST_FULL"

// TestMoveInterrupted ends a move before its steps, one after the other on the same
// databases. Before the source is marked it is a database like any other, and the target
// is none until the end.
func TestMoveInterrupted(t *testing.T) {
	t.Parallel()
	// Each dialect is a source once, and a target once.
	t.Run("SQLite to PostgreSQL", func(t *testing.T) { interruptMove(t, databases["SQLite"](t), databases["PostgreSQL"](t)) })
	t.Run("PostgreSQL to SQLite", func(t *testing.T) { interruptMove(t, databases["PostgreSQL"](t), databases["SQLite"](t)) })
}

func interruptMove(t *testing.T, from, to store.Config) {
	t.Helper()
	t.Parallel()
	f := openFixture(t, from, 0)
	p := populate(t, f)
	f.closeFixture(t)
	died := errors.New("died")
	ended := false
	last, stride := 1+rand.IntN(3), 3
	if os.Getenv(fullEnv) != "" {
		last, stride = 1, 1
	}
	for ; !ended; last += stride {
		steps, name := 0, ""
		_, err := store.Move(t.Context(), store.MoveWith(store.MoveConfig{From: from, To: to}, func(step string) error {
			if steps++; steps == last {
				name = step
				return died
			}
			return nil
		}))
		marked := name == "mark the target" || name == "end" || name == ""
		if ended = name == ""; ended != (err == nil) || err != nil && !errors.Is(err, died) {
			t.Fatalf("before %q: %v", name, err)
		}
		if err := opened(t, from); (err == nil) == marked {
			t.Errorf("before %q the source opens with %v", name, err)
		}
		switch err := opened(t, to); {
		case name == "empty the target": // It may be empty still.
		case name == "end" || ended:
			if err != nil {
				t.Errorf("before %q the target opens with %v", name, err)
			}
		default:
			wantRefused(t, err, "target of a move from the", "has not ended")
		}
		if marked {
			// From here on the target is never emptied again.
			last, ended = 1000, ended || name == "end"
		}
	}
	f = openFixture(t, to, 1)
	checkPopulation(t, f, p)
	checkGoesOn(t, f, p)
	f.closeFixture(t)
}

// TestMoveRefused says what is not moved, or not where.
func TestMoveRefused(t *testing.T) {
	t.Parallel()
	filled := func(t *testing.T, c store.Config, id string) store.Config {
		t.Helper()
		s := openAndInitialize(t, c)
		if _, err := s.CreateKey(t.Context(), operator, benchmarkKey); err != nil {
			t.Fatal(err)
		}
		if id != "" {
			if err := s.ExecOnWriter(t.Context(), "UPDATE settings SET value = '"+id+"' WHERE id = 'database_id'"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	onEachMove(t, func(t *testing.T, from, to store.Config) {
		move := func(from, to store.Config) error {
			_, err := store.Move(t.Context(), store.MoveConfig{From: from, To: to})
			return err
		}
		if err := move(from, to); err == nil {
			t.Error("moved a database that is not there")
		}
		if err := opened(t, from); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, move(from, to), "from: ", "nothing to move")
		filled(t, from, "")

		// A target of an unfinished move is that of its source alone.
		died := errors.New("died")
		_, err := store.Move(t.Context(), store.MoveWith(store.MoveConfig{From: from, To: to}, func(step string) error {
			if step == "copy events" {
				return died
			}
			return nil
		}))
		if !errors.Is(err, died) {
			t.Fatal(err)
		}
		for _, other := range databases {
			wantRefused(t, move(filled(t, other(t), "2"), to), "to: ", "of another database")
			wantRefused(t, move(to, other(t)), "from: ", "has not ended")
			wantRefused(t, move(from, filled(t, other(t), "2")), "to: ", "must be empty", "name an empty database")
		}
		const change = "CREATE TABLE later (id text PRIMARY KEY);"
		if err := opened(t, later(t, from, "29990101000000", "-- apikeys:expand\n"+change)); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, move(from, to), "from: ", "later version")
	})
}

// TestMoveComparesValues changes a value of the target before it is read again.
func TestMoveComparesValues(t *testing.T) {
	t.Parallel()
	onEachMove(t, func(t *testing.T, from, to store.Config) {
		f := openFixture(t, from, 0)
		populate(t, f)
		f.closeFixture(t)
		// A trigger stands for whatever may change a value on its way.
		trigger := "CREATE TRIGGER change AFTER INSERT ON webhooks BEGIN UPDATE webhooks SET label = 'x'; END"
		if !to.Postgres.IsZero() {
			trigger = `CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.label = ''x''; RETURN NEW; END';
				CREATE TRIGGER change BEFORE INSERT ON webhooks FOR EACH ROW EXECUTE FUNCTION change()`
		}
		s, err := store.Open(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.ExecOnWriter(t.Context(), trigger); err != nil && !strings.Contains(err.Error(), "multiple commands") {
			t.Fatal(err)
		} else if err != nil {
			execIn(t, to.Postgres.Reveal(), trigger)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = store.Move(t.Context(), store.MoveConfig{From: from, To: to})
		wantRefused(t, err, "compare webhooks", "the source is as it was")
		if err := opened(t, from); err != nil {
			t.Error(err)
		}
	})
}

// TestMoveWaitsForServers keeps moves off a PostgreSQL database with a server, and
// servers off one that is moved; on SQLite a file of its own does that.
func TestMoveWaitsForServers(t *testing.T) {
	t.Parallel()
	from, to := databases["PostgreSQL"](t), databases["PostgreSQL"](t)
	f := openFixture(t, from, 0)
	populate(t, f)
	f.closeFixture(t)
	serving := from
	serving.Serving = true
	server := openFixture(t, serving, 1)
	second := openFixture(t, serving, 2)
	_, err := store.Move(t.Context(), store.MoveConfig{From: from, To: to})
	wantRefused(t, err, "from: ", "is in use by a server", "stop every server")
	server.closeFixture(t)
	_, err = store.Move(t.Context(), store.MoveConfig{From: from, To: to})
	wantRefused(t, err, "is in use by a server")
	second.closeFixture(t)

	target := to
	target.Serving = true
	checked := false
	_, err = store.Move(t.Context(), store.MoveWith(store.MoveConfig{From: from, To: to}, func(string) error {
		if !checked {
			wantRefused(t, opened(t, serving), "is being moved")
			wantRefused(t, opened(t, target), "is the target of its move")
			checked = true
		}
		return nil
	}))
	if err != nil || !checked {
		t.Error(err)
	}
	if err := opened(t, target); err != nil {
		t.Error(err)
	}
}
