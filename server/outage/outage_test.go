package outage_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apikeys-dev/apikeys/server/outage"
)

// withoutTime leaves out the time of a line.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func ExampleOutage() {
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	storing := outage.New(log, "Counters cannot be stored; they are kept.", "Counters are stored again.")
	full := errors.New("the disk is full")
	for _, err := range []error{nil, full, full, full, nil, nil} {
		storing.Note(err, "keys", 7)
	}
	// Output:
	// level=ERROR msg="Counters cannot be stored; they are kept." keys=7 error="the disk is full"
	// level=INFO msg="Counters are stored again." failed_for=0s failures=3
}

// Each outage has two lines, and tells how long it took.
func TestOutages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		o := outage.New(slog.New(slog.NewTextHandler(&text, nil)), "begins", "ends")
		for i := range 3 {
			for range 60 * (i + 1) {
				o.Note(errors.New("the disk"))
				time.Sleep(time.Second)
			}
			o.Note(nil)
		}
		if got := text.String(); strings.Count(got, "\n") != 6 || strings.Count(got, "begins") != 3 {
			t.Errorf("the log: %s", got)
		}
		for i := 1; i <= 3; i++ {
			if want := fmt.Sprintf("msg=ends failed_for=%dm0s failures=%d\n", i, 60*i); !strings.Contains(text.String(), want) {
				t.Errorf("the log lacks %s: %s", want, text.String())
			}
		}
	})
}

// Work that many do at once begins to fail once.
func TestOutageOfMany(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	o := outage.New(slog.New(slog.NewTextHandler(&text, nil)), "begins", "ends")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { o.Note(errors.New("the disk")) })
	}
	all.Wait()
	o.Note(nil)
	if got := text.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "failures=50") {
		t.Errorf("the log: %s", got)
	}
}
