package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/apikeys-dev/apikeys/server"
)

// serveCommand runs the server.
type serveCommand struct {
	serveSettings `embed:""`
	storeSettings `embed:""`
}

// Run returns when ctx is done and the server has stopped, or when it cannot
// start or go on.
func (c *serveCommand) Run(ctx context.Context, sources *sources, out streams) error {
	config := c.config(sources, out)
	if err := c.apply(&config); err != nil {
		return err
	}
	sources.warnUnknown(config.Logger)
	s, err := server.New(ctx, config)
	if err != nil {
		return err
	}
	// The garbage collector runs when as much again was allocated as is alive, which
	// for a server with few keys in memory is many times a second. These bytes count
	// as alive and are never touched, so the system gives no memory for them. They
	// count against a limit of memory too, so where there is one there are none.
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		ballast := make([]byte, gcBallast)
		defer runtime.KeepAlive(ballast)
	}
	return s.Run(ctx)
}

// gcBallast is how many bytes more than it needs the server's heap may grow by
// between two collections.
const gcBallast = 32 << 20

// tokenCommands are about the root token.
type tokenCommands struct {
	Reset tokenResetCommand `cmd:"" help:"Make a new root token; the one before it stops working."`
}

// tokenResetCommand makes a new root token in the database of the settings.
type tokenResetCommand struct {
	storeSettings `embed:""`
}

// Run shows the new token on a terminal, else the path of its file.
func (c *tokenResetCommand) Run(ctx context.Context, sources *sources, out streams) error {
	config := c.config(sources, out)
	sources.warnUnknown(config.Logger)
	token, err := server.ResetToken(ctx, config)
	if err != nil {
		return err
	}
	return config.ShowToken(token)
}

// versionCommand tells which program this is.
type versionCommand struct{}

// Run writes one line.
func (versionCommand) Run(out streams) error {
	info, _ := debug.ReadBuildInfo()
	_, err := fmt.Fprintln(out.stdout, versionLine(info))
	return err
}

// versionLine tells the version that info holds; what the build did not record
// is left out.
func versionLine(info *debug.BuildInfo) string {
	version, details := "unknown version", []string{runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if info != nil {
		if version = info.Main.Version; version == "" || version == "(devel)" {
			version = "development build"
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				details = append(details, "revision "+s.Value)
			case s.Key == "vcs.time":
				details = append(details, "of "+s.Value)
			case s.Key == "vcs.modified" && s.Value == "true":
				details = append(details, "with changes")
			}
		}
	}
	return fmt.Sprintf("apikeys %s (%s)", version, strings.Join(details, ", "))
}

// helpCommand is --help for those who look for a command.
type helpCommand struct {
	Command []string `arg:"" optional:"" help:"The command to show help about."`
}

// Run shows the help of the command that is named.
func (c *helpCommand) Run(parser *kong.Kong, help *helpShown) error {
	if _, err := parser.Parse(append(c.Command, "--help")); !*help {
		return usageError{err}
	}
	return nil
}

// helpShown becomes true when the parser has printed the help, after which its
// complaints do not matter: it parses on.
type helpShown bool
