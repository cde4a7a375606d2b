package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A job runs at once and at its times; what is left over is done after a pause; and
// the log has two lines of a fault, however long it stands.
func TestJobLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		began, runs := time.Now(), []time.Duration(nil)
		j := job{name: "work", every: time.Minute, pause: time.Second, run: func(context.Context) (bool, error) {
			runs = append(runs, time.Since(began))
			switch n := len(runs); {
			case n <= 2:
				return true, nil
			case n >= 5 && n <= 100:
				return true, errors.New("the disk")
			}
			return false, nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { j.loop(ctx, slog.New(slog.NewTextHandler(&log, nil))); close(done) }()
		time.Sleep(2 * time.Hour)
		cancel()
		<-done
		for i, want := range []time.Duration{0, time.Second, 2 * time.Second, 62 * time.Second, 122 * time.Second, 182 * time.Second} {
			if runs[i] != want {
				t.Errorf("run %d after %v, want %v", i+1, runs[i], want)
			}
		}
		if got := log.String(); strings.Count(got, "\n") != 2 || strings.Count(got, "A periodic job fails") != 1 || strings.Count(got, "works again") != 1 ||
			!strings.Contains(got, "job=work") || !strings.Contains(got, "the disk") || !strings.Contains(got, "failed_for=1h36m0s") {
			t.Errorf("the log: %s", got)
		}
	})
}

// A job that is stopped in the middle is not one that fails.
func TestJobThatIsStopped(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	j := job{name: "work", every: time.Minute, run: func(ctx context.Context) (bool, error) { cancel(); return false, ctx.Err() }}
	j.loop(ctx, slog.New(slog.NewTextHandler(&log, nil)))
	if log.Len() > 0 {
		t.Errorf("the log: %s", log.String())
	}
}
