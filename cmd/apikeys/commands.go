package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/apikeys-dev/apikeys/server"
)

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
	_, err := fmt.Fprintln(out.stdout, "apikeys "+version())
	return err
}

// version returns what the build recorded of the program.
func version() string {
	info, _ := debug.ReadBuildInfo()
	return versionOf(info)
}

// versionOf tells the version that info holds; what the build did not record is
// left out.
func versionOf(info *debug.BuildInfo) string {
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
	return fmt.Sprintf("%s (%s)", version, strings.Join(details, ", "))
}

// helpCommand is --help for those who look for a command.
type helpCommand struct {
	Command []string `arg:"" optional:"" help:"The command to show help about."`
}

// Run shows the help of the command that is named.
func (c *helpCommand) Run(parser *kong.Kong, help *helpShown) error {
	if _, err := parser.Parse(append(c.Command, "--help")); !*help {
		return usageError{explain(err, c.Command)}
	}
	return nil
}

// helpShown becomes true when the parser has printed the help, after which its
// complaints do not matter: it parses on.
type helpShown bool
