// Command apikeys is the server: it issues and verifies API keys over gRPC and
// REST. `apikeys serve` needs no settings; `apikeys help serve` lists those
// that there are. Its other commands are clients of a server.
//
// A setting is looked for on the command line, then in the environment, then in
// the configuration file, or for clients the connection profile, then it has its
// default. All commands share this
// order, and one struct of settings where they share the settings.
//
// It ends with 0 when all went well, 1 when the command failed, and 2 when it
// was not understood: an unknown command, flag or setting, or a value that
// cannot be read.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for a clean stop. From then on a signal does what it
	// does to any program, so that a second one ends it at once.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Environ(), streams{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		terminal: term.IsTerminal(int(os.Stdout.Fd())),
	})
	if err != nil {
		report(os.Stderr, err)
	}
	os.Exit(exitCode(err))
}

// streams are what a command writes to: results to stdout, the log and
// complaints to stderr. Nothing is read from stdin; that it is a terminal says
// that somebody started the program by hand.
type streams struct {
	stdin          *os.File // may be nil
	stdout, stderr io.Writer
	terminal       bool // whether a person reads stdout
}

// commandLine is everything that can be asked of the program.
type commandLine struct {
	Serve    serveCommand     `cmd:"" help:"Run the server until SIGINT or SIGTERM; SIGHUP reads certificates, token file and log level anew."`
	Token    tokenCommands    `cmd:"" help:"Manage the root token, the operator's credential."`
	Events   eventsCommands   `cmd:"" help:"Read and follow the log of changes."`
	Webhooks webhooksCommands `cmd:"" help:"Receive webhooks on your own machine."`
	ScanRule scanRuleCommand  `cmd:"" help:"Print the rule by which a secret scanner finds keys."`
	Version  versionCommand   `cmd:"" help:"Show the version of this program."`
	Help     helpCommand      `cmd:"" help:"Show help about a command."`
}

// run is the program: args without its name, env as os.Environ gives it. It
// returns when the command is done, which for serve means that ctx is.
func run(ctx context.Context, args, env []string, out streams) error {
	// The standard library's own logger is told what endpoints of webhooks send without
	// being asked. Whatever this program has to say goes through log/slog.
	log.SetOutput(io.Discard)
	var commands commandLine
	parsed, err := commands.parse(ctx, args, env, out)
	if err != nil || parsed == nil {
		return err
	}
	return parsed.Run()
}

// parse reads args, env and the configuration file into c. It returns nil where
// the help was asked for and has been printed.
func (c *commandLine) parse(ctx context.Context, args, env []string, out streams) (*kong.Context, error) {
	var help helpShown
	sources := newSources(env)
	parser, err := kong.New(c,
		kong.Name("apikeys"),
		kong.Description("Issues and verifies API keys over gRPC and REST."),
		kong.Writers(out.stdout, out.stderr),
		kong.Exit(func(int) { help = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.ValueFormatter(describe),
		kong.Help(printHelp),
		kong.ExplicitGroups(settingGroups),
		kong.Resolvers(sources),
		kong.WithBeforeResolve(sources.load),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(out, sources, &help, rereadLevel(func() (slog.Level, error) {
			var again commandLine
			parsed, err := again.parse(ctx, args, env, streams{stdout: io.Discard, stderr: io.Discard})
			if err != nil || parsed == nil {
				return 0, err
			}
			return again.Serve.LogLevel, nil
		})),
		defaults(),
	)
	if err != nil {
		return nil, fmt.Errorf("build the command line: %w", err)
	}
	if len(args) == 0 {
		parser.Stdout = out.stderr
		if _, err := parser.Parse([]string{"--help"}); !help {
			return nil, err
		}
		return nil, errNoCommand
	}
	parsed, err := parser.Parse(args)
	if help {
		return nil, nil
	}
	if err != nil {
		return nil, usageError{explain(err, args)}
	}
	return parsed, nil
}

// errNoCommand ends a program that was started without a command, after the
// help has said everything.
var errNoCommand = usageError{errors.New("")}

// usageError is a command line or a setting that was not understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// explain takes from a parser's error what a setting's own error says better, and all but excerpts of the arguments that it repeats.
func explain(err error, args []string) error {
	if setting, ok := errors.AsType[settingError](err); ok {
		return setting
	}
	var texts []string
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		texts = append(texts, arg, value, name)
	}
	return excerpted(err, texts...)
}

// exitCode returns the code that the program ends with after err.
func exitCode(err error) int {
	switch _, usage := errors.AsType[usageError](err); {
	case err == nil:
		return 0
	case usage:
		return 2
	default:
		return 1
	}
}

// report writes err, a line for each fault.
func report(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "apikeys: %s\n", strings.TrimSuffix(line, "\n"))
	}
}
