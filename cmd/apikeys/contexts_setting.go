package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/contexts"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/device"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// loadContext reads the settings of the context, if the command connects to a server
// and there is one. They stand where those of a configuration file stand for other
// commands; a context that the command line names goes before the environment too,
// so that no token of another server is sent to it.
func (s *sources) loadContext(ctx *kong.Context) error {
	name, origin := s.env[envName("context")], envName("context")
	if name == "" {
		name, origin = s.env[envName("profile")], envName("profile")
	}
	for _, flag := range ctx.Flags() {
		if flag.Name == "token" && onCommandLine(ctx, "token") {
			return settingError{errors.New("--token: every user of this machine could read it; run apikeys login, or set APIKEYS_TOKEN or --token-file")}
		}
		if flag.Name == "context" && onCommandLine(ctx, "context") {
			name, origin, s.contextFirst = ctx.FlagValue(flag).(string), "--context", true
		}
	}
	dir := s.dir()
	if dir.Path == "" {
		if name != "" {
			return settingError{fmt.Errorf("%s: there is no directory for settings: HOME is not set", origin)}
		}
		return nil
	}
	file, err := dir.Load()
	if err != nil {
		return settingError{err}
	}
	if name == "" {
		name, origin = file.Current, dir.ConfigFile()+": current"
	}
	if name == "" {
		return nil
	}
	found := file.Contexts[name]
	if found == nil {
		if isLogin(ctx) {
			s.contextName = name
			return nil
		}
		return settingError{noContext(origin, name, file)}
	}
	s.context, s.contextName = found, name
	s.elsewhere = s.isElsewhere(ctx)
	s.path = dir.ConfigFile() + ": context " + name
	s.file = map[string]fileValue{}
	for name, text := range map[string]string{"address": found.Address, "organization": found.Organization, "ca_file": found.CAFile, "token_file": found.TokenFile} {
		if text != "" {
			s.file[name] = fileValue{text: text}
		}
	}
	if found.TLS {
		s.file["tls"] = fileValue{text: "true", form: formBool}
	}
	return nil
}

// isLogin reports whether the command makes the context that it names.
func isLogin(ctx *kong.Context) bool {
	selected := ctx.Selected()
	return selected != nil && selected.Path() == "login"
}

// noContext says that there is no context of a name, and which there are.
func noContext(origin, name string, file *contexts.File) error {
	hint := "; make it with apikeys login --context NAME --address HOST:PORT"
	if names := file.Names(); len(names) > 0 {
		hint = "; there are " + strings.Join(names, ", ")
	}
	return fmt.Errorf("%s: there is no context %s%s", origin, apikey.Excerpt(name), hint)
}

// isElsewhere reports whether the server that is called is another than the context's.
// The context's credential is for its own server alone.
func (s *sources) isElsewhere(ctx *kong.Context) bool {
	for _, flag := range ctx.Flags() {
		if flag.Name != "address" {
			continue
		}
		given, set := "", onCommandLine(ctx, flag.Name)
		if set {
			given, _ = ctx.FlagValue(flag).(string)
		} else if text, name := s.variable(flag); name != "" && !(s.contextFirst && s.context.Address != "") {
			given, set = text, true
		}
		return set && given != cmp.Or(s.context.Address, flag.Default)
	}
	return false
}

// hasToken reports whether the context says with which credential to call.
func (s *sources) hasToken() bool {
	return s.context != nil && !s.elsewhere && (s.context.TokenFile != "" || s.context.Credential != "")
}

// storedToken returns the token that login has stored for the context, zero for none.
func (s *sources) storedToken(ctx context.Context) (masked.Text, error) {
	if s == nil || s.context == nil || s.context.Credential == "" || s.elsewhere {
		return masked.Text{}, nil
	}
	credential, err := s.dir().Renew(s.contextName, s.context, time.Now(), func(old *contexts.Credential) (*contexts.Credential, error) {
		token, err := device.Config{Issuer: old.Issuer, ClientID: old.ClientID}.Refresh(ctx, old.RefreshToken)
		if err != nil {
			return nil, err
		}
		return &contexts.Credential{Token: token.AccessToken, ExpiresAt: token.Expiry, RefreshToken: token.RefreshToken, Issuer: old.Issuer, ClientID: old.ClientID}, nil
	})
	if errors.Is(err, contexts.ErrNoCredential) {
		return masked.Text{}, usageError{fmt.Errorf("context %s has no credential any more; run apikeys login --context %s", s.contextName, s.contextName)}
	}
	if err != nil {
		return masked.Text{}, fmt.Errorf("the credential of context %s: %w", s.contextName, err)
	}
	return checkToken(credential.Token, "the stored token of context "+s.contextName)
}

// dir is where contexts and credentials are kept, without a path if that is unknown.
func (s *sources) dir() contexts.Dir {
	if s.configDir == "" {
		return contexts.Dir{}
	}
	return contexts.Dir{Path: filepath.Join(s.configDir, "apikeys"), Keyring: s.keyring}
}

// userDir returns one of the directories that a user's programs keep their files in
// (XDG), "" if the environment does not tell.
func userDir(env map[string]string, variable, below string) string {
	switch {
	case filepath.IsAbs(env[variable]):
		return env[variable]
	case env["HOME"] != "":
		return filepath.Join(env["HOME"], below)
	}
	return env["AppData"]
}

// onCommandLine reports whether a flag was given there.
func onCommandLine(ctx *kong.Context, name string) bool {
	for _, step := range ctx.Path {
		if step.Flag != nil && step.Flag.Name == name && !step.Resolved {
			return true
		}
	}
	return false
}
