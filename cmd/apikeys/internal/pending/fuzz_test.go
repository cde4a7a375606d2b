package pending

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A crash while a state is written leaves the call as it was before, however much of
// the state was written.
func TestTornStates(t *testing.T) {
	t.Parallel()
	dir := Dir(t.TempDir())
	begin := func() *Call {
		t.Helper()
		c, err := dir.Begin(nil, time.Unix(1_800_000_000, 0), func() string { return "k" })
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := begin()
	name, progress := c.file.Name(), map[int]string{} // by how long the file was
	for n := range 3 {
		if err := c.SetProgress(n); err != nil {
			t.Fatal(err)
		}
		info, err := c.file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		progress[int(info.Size())] = fmt.Sprint(n)
	}
	c.Keep()
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	begun, want := strings.IndexByte(string(whole), '\n')+1, ""
	for length := range len(whole) + 1 {
		if now, ok := progress[length]; ok {
			want = now
		}
		torn := []string{"", "\x00\x00", "{}\n"}[length%3]
		if err := os.WriteFile(name, append(whole[:length:length], torn...), 0o600); err != nil {
			t.Fatal(err)
		}
		c := begin()
		if c.Resumed != (length >= begun) || c.Resumed && string(c.Progress) != want {
			t.Fatalf("%d of %d bytes and %q: resumed %t, progress %s, want %s", length, len(whole), torn, c.Resumed, c.Progress, want)
		}
		if err := c.SetProgress("next"); err != nil {
			t.Fatal(err)
		}
		c.Keep()
		if c = begin(); !c.Resumed || string(c.Progress) != `"next"` {
			t.Fatalf("%d of %d bytes and %q: then %+v", length, len(whole), torn, c)
		}
		c.Keep()
	}
}

// Whatever a file holds, the call goes on with what it says, or begins; what is then
// remembered is found again.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{"", "{}\n", `{"idempotency_key":"k","made_at":"2027-01-15T08:00:00Z"}` + "\n", `{"idempotency_key":"k"}` + "\n" + `{"idempotency_key":"k2","made_at":"2027-01-15T08:00:00Z","progress":{"page":1}}`, "\n\n\n", "null\n", "\x00", `{"idempotency_key":"k","made_at":"9999-01-01T00:00:00Z","progress":` + "\n"} {
		f.Add(seed)
	}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, text string) {
		dir := Dir(t.TempDir())
		begin := func() *Call {
			c, err := dir.Begin([]byte("a call"), now, func() string { return "new" })
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		c := begin()
		path := c.file.Name()
		c.Keep()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c = begin()
		if c.Key == "" || !c.Resumed && c.Key != "new" || c.Resumed && c.Expired {
			t.Errorf("%q: %+v", text, c)
		}
		if err := c.SetProgress(7); err != nil {
			t.Fatal(err)
		}
		c.Keep()
		again := begin()
		if again.Key != c.Key || !again.Resumed || string(again.Progress) != "7" || !again.MadeAt.Equal(c.MadeAt) {
			t.Errorf("%q: %+v, and then %+v", text, c, again)
		}
		var progress any
		if len(c.Progress) > 0 && json.Unmarshal(c.Progress, &progress) != nil {
			t.Errorf("%q: the progress is %q", text, c.Progress)
		}
		if err := again.Done(); err != nil {
			t.Error(err)
		}
	})
}
