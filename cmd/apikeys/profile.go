package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// defaultProfile is the profile that is used where none is named.
const defaultProfile = "default"

// loadProfile reads the settings of the connection profile, if the command
// connects to a server and there is one. They stand where those of a
// configuration file stand for other commands.
func (s *sources) loadProfile(ctx *kong.Context) error {
	name := s.env[envName("profile")]
	var known []string
	for _, flag := range ctx.Flags() {
		switch {
		case flag.Name == "profile" && onCommandLine(ctx, flag.Name):
			name = ctx.FlagValue(flag).(string)
		case flag.Group != nil && flag.Group.Key == "connection" && flag.Name != "profile":
			known = append(known, fileName(flag.Name))
		}
	}
	if s.configDir == "" {
		if name != "" {
			return settingError{fmt.Errorf("profile %s: there is no directory for settings: HOME is not set", name)}
		}
		return nil
	}
	path := filepath.Join(s.configDir, "apikeys", "profiles.yaml")
	var err error
	if s.file, err = readProfile(path, name, known); err != nil {
		return settingError{fmt.Errorf("%s: %w", path, err)}
	}
	if name == "" {
		name = defaultProfile
	}
	s.path = path + ": profile " + name
	return nil
}

// readProfile reads one profile of a file:
//
//	default:
//	  server: grpcs://keys.example.com
//	  token_file: ~/.config/apikeys/token
//	local:
//	  server: 127.0.0.1:9090
//	  token: ...
//
// An empty name asks for the default, which need not exist, nor need the file.
// The other profiles are looked at only as far as they have names, so that a
// mistake in one does not lock the others out.
func readProfile(path, name string, known []string) (map[string]fileValue, error) {
	if err := checkPrivate(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			if name == "" {
				return nil, nil
			}
			return nil, fmt.Errorf("there is no such file, and so no profile %s", name)
		}
		return nil, err
	}
	root, err := readYAML(path)
	if err != nil || root == nil && name == "" {
		return nil, err
	}
	if root != nil && root.Kind != yaml.MappingNode {
		return nil, errors.New("must be profiles by their names, each with settings such as server: 127.0.0.1:9090")
	}
	wanted, names := name, []string(nil)
	if wanted == "" {
		wanted = defaultProfile
	}
	for i := 0; root != nil && i < len(root.Content); i += 2 {
		if root.Content[i].Value != wanted {
			names = append(names, root.Content[i].Value)
			continue
		}
		settings := root.Content[i+1]
		if settings.Tag == "!!null" {
			return nil, nil
		}
		if settings.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("profile %s must be settings such as server: 127.0.0.1:9090", wanted)
		}
		values, err := readSettings(settings, known)
		if err != nil {
			return nil, fmt.Errorf("profile %s: %w", wanted, err)
		}
		return values, nil
	}
	if name == "" {
		return nil, nil
	}
	hint := ""
	if len(names) > 0 {
		hint = "; there are " + strings.Join(names, ", ")
	}
	return nil, fmt.Errorf("there is no profile %s%s", name, hint)
}

// checkPrivate refuses a file that others can read: it may hold tokens.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("has mode %04o: others can read or change the tokens in it; run chmod 600 on it", mode)
	}
	return nil
}

// configDirOf returns the directory where a user's programs keep their settings,
// "" if the environment does not tell.
func configDirOf(env map[string]string) string {
	switch {
	case filepath.IsAbs(env["XDG_CONFIG_HOME"]):
		return env["XDG_CONFIG_HOME"]
	case env["HOME"] != "":
		return filepath.Join(env["HOME"], ".config")
	}
	return env["AppData"]
}

// onCommandLine reports whether a flag was given there.
func onCommandLine(ctx *kong.Context, name string) bool {
	for _, step := range ctx.Path {
		if step.Flag != nil && step.Flag.Name == name {
			return true
		}
	}
	return false
}
