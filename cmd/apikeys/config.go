package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	"github.com/apikeys-dev/apikeys/server"
)

// configCommands look at the settings of the server, without starting it.
type configCommands struct {
	Check configCheckCommand `cmd:"" help:"Check the settings that apikeys serve would start with."`
	Show  configShowCommand  `cmd:"" help:"Show the settings in force, and where each comes from."`
}

// configCheckCommand checks the settings.
type configCheckCommand struct {
	serveSettings `embed:""`
	storeSettings `embed:""`
}

// Run complains of all faults at once. It opens no database, and listens nowhere.
func (c *configCheckCommand) Run(sources *sources, out streams) error {
	config, err := serverConfig(&c.serveSettings, &c.storeSettings, sources, out)
	if err != nil {
		return err
	}
	if err := config.CheckFiles(); err != nil {
		return err
	}
	sources.warnUnknown(c.logger(out.stderr, slog.LevelInfo))
	_, err = fmt.Fprintln(out.stdout, "The settings are good.")
	return err
}

// serverConfig returns what the settings make, with defaults, checked.
func serverConfig(serve *serveSettings, store *storeSettings, sources *sources, out streams) (server.Config, error) {
	config := store.config(sources, out)
	if err := serve.apply(&config, sources); err != nil {
		return config, err
	}
	config, err := config.Check()
	if err != nil {
		return config, usageError{err}
	}
	return config, nil
}

// configShowCommand shows the settings.
type configShowCommand struct {
	Output        output.Format `group:"output" short:"o" default:"table" placeholder:"FORMAT" complete:"formats" help:"table, json, jsonl, yaml, id or jsonpath=PATH."`
	serveSettings `embed:""`
	storeSettings `embed:""`
}

// settingShown is a setting as it is shown.
type settingShown struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	From    string `json:"from"`
}

// hiddenValue stands for a secret.
const hiddenValue = "(hidden)"

// Run shows every setting, secrets hidden. Faulty settings are shown too, and are an
// error then.
func (c *configShowCommand) Run(_ context.Context, parsed *kong.Context, sources *sources, out streams) error {
	config, fault := serverConfig(&c.serveSettings, &c.storeSettings, sources, out)
	p := output.NewPrinter(out.stdout, c.Output, out.shownOn(), "setting")
	if err := p.Begin([]output.Column{{Head: "SETTING", Path: "setting"}, {Head: "VALUE", Path: "value", Flexible: true}, {Head: "FROM", Path: "from"}}); err != nil {
		return err
	}
	for _, shown := range c.settings(parsed, sources, config) {
		text, err := json.Marshal(shown)
		if err != nil {
			return err
		}
		if err := p.Item(text); err != nil {
			return err
		}
	}
	return errors.Join(p.End(), fault)
}

// settings returns all settings, in the order of the flags of serve.
func (c *configShowCommand) settings(parsed *kong.Context, sources *sources, config server.Config) (all []settingShown) {
	for _, flag := range parsed.Selected().Flags {
		if isArgument(flag) || flag.Name == "help" {
			continue
		}
		shown := settingShown{Setting: fileName(flag.Name), From: sources.origin(parsed, flag)}
		value := reflect.ValueOf(parsed.FlagValue(flag))
		if value.IsZero() || value.Kind() == reflect.Slice && value.Len() == 0 {
			if effective := configField(config, flag.Name); effective.IsValid() {
				value = effective // such as the database's path, which follows from another
			}
		}
		shown.Value = settingText(value)
		if strings.HasPrefix(flag.Name, "database") && server.HoldsPassword(shown.Value) {
			shown.Value = passwordHidden(shown.Value)
		}
		all = append(all, shown)
	}
	for _, name := range withoutFlag {
		shown := settingShown{Setting: name, From: "default"}
		if text, ok := sources.env[envName(name)]; ok {
			shown.Value, shown.From = text, envName(name)
		} else if value, ok := sources.file[name]; ok {
			shown.Value, shown.From = value.text, sources.path
		}
		if shown.Value != "" && name == "root_token" {
			shown.Value = hiddenValue
		}
		if issuers, err := sources.issuers(); name == oidcSetting && err == nil {
			var urls []string
			for _, issuer := range issuers {
				urls = append(urls, issuer.URL)
			}
			shown.Value = strings.Join(urls, ",")
		}
		all = append(all, shown)
	}
	return all
}

// origin says where a setting comes from.
func (s *sources) origin(parsed *kong.Context, flag *kong.Flag) string {
	if onCommandLine(parsed, flag.Name) {
		return "--" + flag.Name
	}
	if flag.Name == "config" && s.path != "" {
		return envName(flag.Name)
	}
	if _, name := s.variable(flag); name != "" {
		return name
	}
	if _, ok := s.file[fileName(flag.Name)]; ok {
		return s.path
	}
	return "default"
}

// configField returns the field of a flag's name, the zero Value where there is none.
func configField(config server.Config, flag string) reflect.Value {
	name := strings.ReplaceAll(flag, "-", "")
	return reflect.ValueOf(config).FieldByNameFunc(func(field string) bool { return strings.EqualFold(field, name) })
}

// settingText returns the value of a setting as the environment would have it.
func settingText(value reflect.Value) string {
	switch {
	case !value.IsValid() || !value.CanInterface():
		return ""
	case value.Kind() == reflect.Slice:
		var texts []string
		for i := range value.Len() {
			texts = append(texts, settingText(value.Index(i)))
		}
		return strings.Join(texts, ",")
	}
	return fmt.Sprint(value.Interface())
}

// passwordHidden returns the URL of a database as far as it is no secret.
func passwordHidden(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return hiddenValue
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if u.User != nil {
		shown.User = url.User(u.User.Username())
	}
	return shown.String() + " (password hidden)"
}
