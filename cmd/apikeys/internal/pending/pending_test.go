package pending

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCalls(t *testing.T) {
	t.Parallel()
	dir := Dir(filepath.Join(t.TempDir(), "calls"))
	now, n := time.Unix(1_800_000_000, 0), 0
	begin := func(description string) *Call {
		t.Helper()
		c, err := dir.Begin([]byte(description), now, func() string { n++; return fmt.Sprint("key-", n) })
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := begin("a")
	if first.Resumed || first.Key != "key-1" {
		t.Fatalf("the first call is %+v", first)
	}
	beside := begin("a")
	if beside.Resumed || beside.Key != "key-2" {
		t.Fatalf("a second run beside the first is %+v", beside)
	}
	if other := begin("b"); other.Resumed {
		t.Fatal("another call went on with this one")
	} else if err := other.Done(); err != nil {
		t.Fatal(err)
	}
	if err := first.SetProgress(map[string]int{"done": 7}); err != nil {
		t.Fatal(err)
	}
	first.Keep()
	again := begin("a")
	if !again.Resumed || again.Key != "key-1" || string(again.Progress) != `{"done":7}` {
		t.Fatalf("after an interruption: %+v", again)
	}
	if err := again.Done(); err != nil {
		t.Fatal(err)
	}
	if third := begin("a"); third.Resumed {
		t.Fatalf("a call that is over was gone on with: %+v", third)
	} else {
		third.Keep()
	}
	now = now.Add(Kept + time.Second)
	if late := begin("a"); late.Resumed || !late.Expired {
		t.Fatalf("after a day: %+v", late)
	}
	if err := beside.Done(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(string(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestNowhereToKeep(t *testing.T) {
	t.Parallel()
	c, err := Dir("").Begin(nil, time.Now(), func() string { return "k" })
	if err != nil || c.Key != "k" || c.SetProgress(1) != nil || c.Done() != nil {
		t.Errorf("%+v %v", c, err)
	}
}
