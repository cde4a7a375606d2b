// Command apikeys is the server: it issues and verifies API keys over gRPC and
// REST. `apikeys serve` needs no settings; `apikeys help serve` lists those
// that there are. Its other commands are clients of a server.
//
// A setting is looked for on the command line, then in the environment, then in
// the configuration file, or for clients the context, then it has its default. All
// commands share this order, and one struct of settings where they share the settings.
//
// It ends with 0 when all went well, 1 when the command failed, 2 when it was not
// understood: an unknown command, flag or setting, or a value that cannot be read; and
// `apikeys keys verify` with 3 where the key is refused.
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

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/contexts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for a clean stop. From then on a signal does what it
	// does to any program, so that a second one ends it at once.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Environ(), streams{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		terminal: term.IsTerminal(int(os.Stdout.Fd())),
		person:   personAt(os.Stdin, os.Stderr),
		keyring:  contexts.System{},
	})
	if err != nil {
		report(os.Stderr, err)
	}
	os.Exit(exitCode(err))
}

// streams are what a command reads and writes: results go to stdout, the log and
// complaints to stderr, and stdin is where secrets are read from. For serve, that
// stdin is a terminal says that somebody started the program by hand.
type streams struct {
	stdin          *os.File // may be nil
	stdout, stderr io.Writer
	terminal       bool // whether a person reads stdout
	// width is how many columns the terminal of stdout has, 0 to ask it.
	width int
	// env tells of the terminal.
	env map[string]string
	// person answers questions; nil where there is nobody.
	person person
	// keyring is the system's; nil where it is not to be used.
	keyring contexts.Store
}

// commandLine is everything that can be asked of the program.
type commandLine struct {
	ShowVersion kong.VersionFlag `name:"version" argument:"" help:"Show the version of this program."`

	Serve      serveCommand       `cmd:"" help:"Run the server until SIGINT or SIGTERM; SIGHUP reads certificates, token files, key files of issuers and log level anew."`
	Migrate    migrateCommand     `cmd:"" help:"Move a database with all that is in it to another one, of SQLite or PostgreSQL."`
	Keys       keysCommands       `cmd:"" help:"Make, show, change and end API keys."`
	Tokens     tokensCommands     `cmd:"" aliases:"token" help:"Manage the tokens of operators, and the root token."`
	Events     eventsCommands     `cmd:"" help:"Read and follow the log of changes."`
	Webhooks   webhooksCommands   `cmd:"" help:"Manage webhooks, and receive them on your own machine."`
	Deliveries deliveriesCommands `cmd:"" help:"See what was sent to webhooks, and send it again."`
	Scopes     scopesCommands     `cmd:"" help:"See what keys can be allowed to do."`
	Analytics  analyticsCommand   `cmd:"" help:"Show what all verifications of a time came to."`
	Usage      usageCommand       `cmd:"" help:"Show what was used, by hour or day, in figures that can be billed."`
	Me         meCommand          `cmd:"" help:"Show who the server takes this caller for."`
	Login      loginCommand       `cmd:"" help:"Store a token to call a server with, under the name of a context."`
	Logout     logoutCommand      `cmd:"" help:"Forget the stored token of a context."`
	Context    contextCommands    `cmd:"" help:"Choose among servers."`
	ScanRule   scanRuleCommand    `cmd:"" help:"Print the rule by which a secret scanner finds keys."`
	Completion completionCommand  `cmd:"" help:"Print what completes commands, flags and ids in a shell."`
	Man        manCommand         `cmd:"" help:"Write manual pages."`
	Complete   completeCommand    `cmd:"" name:"__complete" hidden:"" help:"Print what can stand at the end of a command line."`
	Config     configCommands     `cmd:"" help:"Check and show the settings of the server."`
	Version    versionCommand     `cmd:"" help:"Show the version of this program."`
	Help       helpCommand        `cmd:"" help:"Show help about a command."`
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
	sources.keyring = out.keyring
	out.env = variables(env, "NO_COLOR", "TERM", "COLUMNS")
	parser, err := kong.New(c,
		kong.Name("apikeys"),
		onlyNamed(args),
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
		}), parserAgain(ctx, env, out)),
		defaults(),
		kong.Vars{"version": "apikeys " + version()},
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
	return withNextStep(excerpted(err, texts...), err)
}

// withNextStep adds to text, which tells of the parser's error err, what to type next,
// unless text says it.
func withNextStep(text, err error) error {
	// A flag whose values are a list of words has "" among them where none need be given.
	line := strings.Replace(text.Error(), `must be one of "",`, "must be one of ", 1)
	if strings.Contains(line, "did you mean") {
		return errors.New(line)
	}
	path := "apikeys"
	if parsing, ok := errors.AsType[*kong.ParseError](err); ok {
		path = strings.TrimSpace(path + " " + commandPath(reached(parsing.Context)))
	}
	return fmt.Errorf("%s; see %s --help", line, path)
}

// reached returns the last command that a command line names.
func reached(parsed *kong.Context) (node *kong.Node) {
	for _, step := range parsed.Path {
		if step.Command != nil {
			node = step.Command
		}
	}
	return node
}

// exitError ends the program with a code of its own. Its text may be empty, where the
// output has said everything.
type exitError struct {
	error
	code int
}

// exitCode returns the code that the program ends with after err.
func exitCode(err error) int {
	_, usage := errors.AsType[usageError](err)
	exit, own := errors.AsType[exitError](err)
	switch {
	case err == nil:
		return 0
	case own:
		return exit.code
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
