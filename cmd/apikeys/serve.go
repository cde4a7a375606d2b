package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/term"

	"github.com/apikeys-dev/apikeys/server"
)

// serveCommand runs the server.
type serveCommand struct {
	serveSettings `embed:""`
	storeSettings `embed:""`

	Force bool `argument:"" group:"files" help:"Start on a database that was moved to another by apikeys migrate. What was changed there is forgotten; the database can be started without it from then on."`
}

// rereadLevel reads the level of the log anew from where settings come from.
type rereadLevel func() (slog.Level, error)

// Run returns when ctx is done and the server has stopped, or when it cannot
// start or go on.
func (c *serveCommand) Run(ctx context.Context, sources *sources, out streams, reread rereadLevel) error {
	hangups, ended := listenForHangups(out.stdin)
	// A log that nobody reads any more is no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	config := c.config(sources, out)
	config.Force = c.Force
	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	config.Logger = c.logger(out.stderr, level)
	if err := c.apply(&config, sources); err != nil {
		return err
	}
	s, err := server.New(ctx, config)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // It was asked to stop before it had started.
	}
	if err != nil {
		return err
	}
	sources.warnUnknown(config.Logger)
	// The garbage collector runs when as much again was allocated as is alive, which
	// for a server with few keys in memory is many times a second. These bytes count
	// as alive and are never touched, so the system gives no memory for them. They
	// count against a limit of memory too, so where there is one there are none.
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		ballast := make([]byte, gcBallast)
		defer runtime.KeepAlive(ballast)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
			}
			if ended() {
				config.Logger.Info("the terminal is gone")
				stop()
				return
			}
			reload(s, config.Logger, level, reread)
		}
	}()
	return s.Run(ctx)
}

// gcBallast is how many bytes more than it needs the server's heap may grow by
// between two collections.
const gcBallast = 32 << 20

// listenForHangups returns the signals SIGHUP that come from now on, and what tells
// whether such a signal means that the terminal which the program was started from
// is gone. A program that was started with SIGHUP ignored, as by nohup, is to
// outlive its terminal.
func listenForHangups(stdin *os.File) (hangups <-chan os.Signal, ended func() bool) {
	onTerminal := func() bool { return stdin != nil && term.IsTerminal(int(stdin.Fd())) }
	bound := onTerminal() && !signal.Ignored(syscall.SIGHUP)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return signals, func() bool { return bound && !onTerminal() }
}

// reload reads anew what can change while the server runs. Whatever cannot be read
// stays as it was.
func reload(s *server.Server, log *slog.Logger, level *slog.LevelVar, reread rereadLevel) {
	if now, err := reread(); err != nil {
		log.Error("A file could not be read anew; what was read before stays in use.", "setting", "log_level", "error", err)
	} else {
		was := level.Level()
		level.Set(now)
		log.Log(context.Background(), max(now, slog.LevelInfo), "read anew", "setting", "log_level", "level", now.String(), "was", was.String())
	}
	_ = s.Reload() // Each fault is in the log.
}
