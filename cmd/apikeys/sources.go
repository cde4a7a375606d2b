package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/alecthomas/kong"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/contexts"
	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

const envPrefix = "APIKEYS_"

// otherVariables belong to this program's family but are no settings: those of
// the tests and of the clients.
var otherVariables = []string{
	"APIKEYS_TEST_POSTGRES", "APIKEYS_TEST_PGBOUNCER", "APIKEYS_CONFIG",
	"APIKEYS_CONTEXT", "APIKEYS_PROFILE", "APIKEYS_ADDRESS", "APIKEYS_SERVER", "APIKEYS_TOKEN", "APIKEYS_TOKEN_FILE", "APIKEYS_ORGANIZATION", "APIKEYS_TLS", "APIKEYS_CA_FILE",
}

// sources are the places besides the command line that settings come from. They
// resolve the flags that the command line leaves unset: the environment first,
// then the file.
type sources struct {
	env  map[string]string // APIKEYS_* alone; an empty value is an unset one
	file map[string]fileValue
	// path is the file's, as it was given.
	path string
	// configDir is where the user's settings are kept, "" if that is unknown.
	configDir string
	// stateDir is where programs keep what they need to go on, "" if that is unknown.
	stateDir string
	// context is the context in use, nil for none; contextName is its name, and
	// contextFirst says that the command line names it, so that its settings win over
	// the environment.
	context      *contexts.Context
	contextName  string
	contextFirst bool
	// elsewhere says that the server is not the context's.
	elsewhere bool
	// keyring is the system's, nil where it is not to be used.
	keyring contexts.Store
}

var _ kong.Resolver = (*sources)(nil)

// settingError is a setting that was not understood, in words that name it by
// the place where it was set.
type settingError struct{ error }

func newSources(env []string) *sources {
	s, others := &sources{env: map[string]string{}}, map[string]string{}
	for _, entry := range env {
		if name, value, _ := strings.Cut(entry, "="); !strings.HasPrefix(name, envPrefix) {
			others[name] = value
		} else if value != "" {
			s.env[name] = value
		}
	}
	s.configDir = userDir(others, "XDG_CONFIG_HOME", ".config")
	s.stateDir = userDir(others, "XDG_STATE_HOME", filepath.Join(".local", "state"))
	return s
}

// load reads the configuration file, if the command takes one and one is named,
// or the context.
func (s *sources) load(ctx *kong.Context) error {
	var config *kong.Flag
	for _, flag := range ctx.Flags() {
		switch flag.Name {
		case "config":
			config = flag
		case "context":
			return s.loadContext(ctx)
		}
	}
	if config == nil {
		return nil
	}
	s.path = s.env[envName("config")]
	for _, step := range ctx.Path {
		if step.Flag == config {
			s.path = ctx.FlagValue(config).(string)
		}
		if step.Flag != nil && strings.HasPrefix(step.Flag.Name, "database") && holdsPassword(ctx.FlagValue(step.Flag)) {
			return settingError{fmt.Errorf("--%s must hold no password, which every user of this machine could read; set %s, or --database-password-file",
				step.Flag.Name, envName(fileName(step.Flag.Name)))}
		}
	}
	if s.path == "" {
		return nil
	}
	var err error
	if s.file, err = readFile(s.path, knownSettings()); err != nil {
		return settingError{fmt.Errorf("%s: %w", s.path, err)}
	}
	return nil
}

// holdsPassword reports whether a value is a URL with a password.
func holdsPassword(value any) bool {
	text, _ := value.(string)
	return server.HoldsPassword(text)
}

// knownSettings returns the names that the file may hold: the settings of all
// commands that read it, since they share one file. The grammar of one call may have
// fewer commands, so this looks at all.
var knownSettings = sync.OnceValue(func() []string {
	known := slices.Clone(withoutFlag)
	parser := kong.Must(new(commandLine), kong.ExplicitGroups(settingGroups), defaults(), kong.Vars{"version": ""})
	for _, command := range parser.Model.Leaves(false) {
		var names []string
		for _, flag := range command.Flags {
			if !isArgument(flag) {
				names = append(names, fileName(flag.Name))
			}
		}
		if !slices.Contains(names, "config") {
			continue
		}
		for _, name := range names {
			if name != "help" && name != "config" && !slices.Contains(known, name) {
				known = append(known, name)
			}
		}
	}
	slices.Sort(known)
	return known
})

// Resolve returns the value of a flag that the command line leaves unset, or nil.
func (s *sources) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if isArgument(flag) || s.overruled(ctx, flag) {
		return nil, nil
	}
	value, ok := s.file[fileName(flag.Name)]
	if flag.Name == "token-file" && s.elsewhere {
		ok = false
	}
	if text, name := s.variable(flag); name != "" && !(ok && s.contextFirst) {
		return s.checked(flag, text, name)
	}
	if !ok {
		return nil, nil
	}
	origin := fmt.Sprintf("%s: %s", s.path, fileName(flag.Name))
	raw, err := value.as(flag.Target.Kind())
	if err != nil {
		return nil, settingError{fmt.Errorf("%s %w", origin, err)}
	}
	return s.checked(flag, raw, origin)
}

// variable returns the environment's value of a flag and the name of its variable,
// which may be one that the flag had before; no name for none.
func (s *sources) variable(flag *kong.Flag) (value, name string) {
	for _, name := range append([]string{flag.Name}, flag.Aliases...) {
		if value, ok := s.env[envName(name)]; ok {
			return value, envName(name)
		}
	}
	return "", ""
}

// argumentGroups are the groups of flags that are about one call, and no settings.
var argumentGroups = []string{"fields", "filter", "output", "many"}

// isArgument reports whether a flag is about this one call, as the tag argument or
// its group says, and not a setting.
func isArgument(flag *kong.Flag) bool {
	return flag.Tag.Has("argument") || flag.Group != nil && slices.Contains(argumentGroups, flag.Group.Key)
}

// overruled reports whether a flag is one of two ways to say the same, and the
// other one was used at a place that goes first.
func (s *sources) overruled(ctx *kong.Context, flag *kong.Flag) bool {
	other := map[string]string{"token": "token-file", "token-file": "token"}[flag.Name]
	if other == "" {
		return false
	}
	if onCommandLine(ctx, other) {
		return true
	}
	if s.contextFirst && s.hasToken() {
		_, own := s.file[fileName(flag.Name)]
		return !own
	}
	_, here := s.env[envName(flag.Name)]
	_, there := s.env[envName(other)]
	return there && !here
}

// checked returns value if the flag can take it. The parser would find out
// itself, but blame the flag, which nobody gave.
func (s *sources) checked(flag *kong.Flag, value any, origin string) (any, error) {
	scratch := reflect.New(flag.Target.Type()).Elem()
	scan := kong.Scan().PushTyped(value, kong.FlagValueToken)
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, scratch); err != nil {
		return nil, settingError{fmt.Errorf("%s: %w", origin, excerpted(err, fmt.Sprint(value)))}
	}
	return value, nil
}

// excerpted returns err with no more of texts, which it may repeat, than an error
// shows.
func excerpted(err error, texts ...string) error {
	message := err.Error()
	for _, text := range texts {
		if short := apikey.Excerpt(text); short != text {
			message = strings.ReplaceAll(message, text, short)
		}
	}
	if message = apikey.RedactSecrets(message); message == err.Error() {
		return err
	}
	return errors.New(message)
}

// Validate has nothing left to do: load and Resolve check what they read.
func (s *sources) Validate(*kong.Application) error { return nil }

// rootToken returns the root token and the path of its file. One that the
// environment sets, in either way, hides both of the file's.
func (s *sources) rootToken() (token, path string) {
	token, path = s.env["APIKEYS_ROOT_TOKEN"], s.env["APIKEYS_ROOT_TOKEN_FILE"]
	if token == "" && path == "" {
		token, path = s.file["root_token"].text, s.file["root_token_file"].text
	}
	return token, path
}

// warnUnknown tells the log of variables that look like settings and are none.
// They are no error: Kubernetes sets some for each service beside the server.
func (s *sources) warnUnknown(logger *slog.Logger) {
	var unknown []string
	known := knownSettings()
	for name := range s.env {
		setting := strings.ToLower(strings.TrimPrefix(name, envPrefix))
		if slices.Contains(known, setting) || slices.Contains(otherVariables, name) {
			continue
		}
		text := apikey.Excerpt(name)
		if meant, ok := nearest(setting, known); ok {
			text += fmt.Sprintf(" (did you mean %s?)", envName(meant))
		}
		unknown = append(unknown, text)
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		logger.Warn("environment variables that are no settings are ignored", "variables", unknown)
	}
}

// envName returns the environment variable of a flag or a setting.
func envName(name string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// fileName returns the name in the file of a flag.
func fileName(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// nearest returns the name that a mistyped one was probably meant to be.
func nearest(text string, names []string) (string, bool) {
	best, least := "", len(text)/3+1
	for _, name := range names {
		if d := distance(text, name); d < least {
			best, least = name, d
		}
	}
	return best, best != ""
}

// distance returns how many insertions, deletions and replacements of a
// character make a into b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
