package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/contexts"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// contextCommands choose among servers.
type contextCommands struct {
	List   contextListCommand   `cmd:"" help:"List the contexts; the current one has a star."`
	Use    contextUseCommand    `cmd:"" help:"Make a context the current one."`
	Set    contextSetCommand    `cmd:"" help:"Make a context, or change its settings; no server is called."`
	Delete contextDeleteCommand `cmd:"" help:"Delete a context, and its stored token."`
}

// contextListCommand lists contexts.
type contextListCommand struct {
	Output output.Format `group:"output" short:"o" default:"table" placeholder:"FORMAT" complete:"formats" help:"table, json, jsonl, yaml, id or jsonpath=PATH."`
}

// contextShown is a context as it is listed.
type contextShown struct {
	Current      bool   `json:"current"`
	Name         string `json:"name"`
	Address      string `json:"address"`
	Organization string `json:"organization"`
	TLS          bool   `json:"tls"`
	CAFile       string `json:"ca_file"`
	TokenFile    string `json:"token_file"`
	Credential   string `json:"credential"`
}

// Run shows the contexts by their names, and where their credentials are.
func (c *contextListCommand) Run(sources *sources, out streams) error {
	f, err := sources.dir().Load()
	if err != nil {
		return usageError{err}
	}
	p := output.NewPrinter(out.stdout, c.Output, out.shownOn(), "name")
	err = p.Begin([]output.Column{
		{Head: " ", Path: "star"}, {Head: "NAME", Path: "name"}, {Head: "ADDRESS", Path: "address", Flexible: true},
		{Head: "ORGANIZATION", Path: "organization"}, {Head: "TOKEN IN", Path: "credential", Else: "token_file", Flexible: true},
	})
	if err != nil {
		return err
	}
	for _, name := range f.Names() {
		found := f.Contexts[name]
		shown := contextShown{name == f.Current, name, found.Address, found.Organization, found.TLS, found.CAFile, found.TokenFile, found.Credential}
		text, err := json.Marshal(shown)
		if err != nil {
			return err
		}
		if c.Output.IsTable() {
			star := " "
			if shown.Current {
				star = "*"
			}
			text = append([]byte(`{"star":"`+star+`",`), text[1:]...)
		}
		if err := p.Item(text); err != nil {
			return err
		}
	}
	return p.End()
}

// contextUseCommand makes a context the current one.
type contextUseCommand struct {
	Name string `arg:"" complete:"contexts" help:"The name of the context."`
}

// Run tells where commands go from now on.
func (c *contextUseCommand) Run(sources *sources, out streams) error {
	address := ""
	err := sources.dir().Update(func(f *contexts.File) error {
		if f.Contexts[c.Name] == nil {
			return usageError{noContext("context use", c.Name, f)}
		}
		f.Current, address = c.Name, f.Contexts[c.Name].Address
		return nil
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.stdout, "Commands go to %s, context %s.\n", output.Printable(address), c.Name)
	return err
}

// contextSetCommand makes or changes a context.
type contextSetCommand struct {
	Name         string   `arg:"" complete:"contexts" help:"The name of the context."`
	Address      *string  `group:"fields" aliases:"server" placeholder:"ADDRESS" help:"The server's gRPC address, host:port or a URL."`
	Organization *string  `group:"fields" placeholder:"ID" help:"The organization to act in, or * for all."`
	TLS          *bool    `name:"tls" group:"fields" negatable:"" help:"Connect with TLS to a server on loopback too."`
	CAFile       *string  `name:"ca-file" group:"fields" type:"path" placeholder:"FILE" help:"PEM file of the authorities that may vouch for the server."`
	TokenFile    *string  `group:"fields" type:"path" placeholder:"FILE" help:"A file that holds the token, in place of one that login stores."`
	Clear        []string `group:"fields" placeholder:"FIELD" help:"Settings that are to be at their defaults: organization, tls, ca_file, token_file."`
}

// Run stores the settings.
func (c *contextSetCommand) Run(sources *sources, out streams) error {
	if err := contexts.CheckName(c.Name); err != nil {
		return usageError{err}
	}
	if c.Address != nil {
		if _, _, err := parseServer(*c.Address, c.TLS != nil && *c.TLS); err != nil {
			return usageError{fmt.Errorf("--address: %w", err)}
		}
	}
	verb := "changed"
	dir := sources.dir()
	err := dir.Update(func(f *contexts.File) error {
		found := f.Contexts[c.Name]
		if found == nil {
			verb = "made"
			if c.Address == nil {
				return usageError{errors.New("--address is needed for a new context")}
			}
			if len(f.Contexts) >= contexts.MaxContexts {
				return fmt.Errorf("there are %d contexts, which are the most; delete one first", len(f.Contexts))
			}
			found = &contexts.Context{}
			f.Contexts[c.Name] = found
			if f.Current == "" {
				f.Current = c.Name
			}
		}
		if c.Address != nil && *c.Address != found.Address && found.Credential != "" {
			// A token is for the server that it was given for.
			if err := dir.DeleteCredential(c.Name, found); err != nil {
				return err
			}
			found.Credential = ""
		}
		return c.apply(found)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.stdout, "Context %s was %s.\n", c.Name, verb)
	return err
}

func (c *contextSetCommand) apply(to *contexts.Context) error {
	for _, name := range c.Clear {
		switch strings.ReplaceAll(name, "-", "_") {
		case "organization":
			to.Organization = ""
		case "tls":
			to.TLS = false
		case "ca_file":
			to.CAFile = ""
		case "token_file":
			to.TokenFile = ""
		default:
			return usageError{fmt.Errorf("--clear: must be one of organization, tls, ca_file, token_file, not %q", apikey.Excerpt(name))}
		}
	}
	for _, field := range []struct{ given, set *string }{
		{c.Address, &to.Address}, {c.Organization, &to.Organization}, {c.CAFile, &to.CAFile}, {c.TokenFile, &to.TokenFile},
	} {
		if field.given != nil {
			*field.set = *field.given
		}
	}
	for _, path := range []*string{&to.CAFile, &to.TokenFile} {
		if *path != "" {
			whole, err := filepath.Abs(*path)
			if err != nil {
				return err
			}
			*path = whole
		}
	}
	if c.TLS != nil {
		to.TLS = *c.TLS
	}
	return nil
}

// contextDeleteCommand deletes a context.
type contextDeleteCommand struct {
	Name string `arg:"" complete:"contexts" help:"The name of the context."`
}

// Run deletes the context and its stored token.
func (c *contextDeleteCommand) Run(sources *sources, out streams) error {
	dir := sources.dir()
	err := dir.Update(func(f *contexts.File) error {
		found := f.Contexts[c.Name]
		if found == nil {
			return usageError{noContext("context delete", c.Name, f)}
		}
		if err := dir.DeleteCredential(c.Name, found); err != nil {
			return err
		}
		delete(f.Contexts, c.Name)
		if f.Current == c.Name {
			f.Current = ""
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.stdout, "Context %s was deleted.\n", c.Name)
	return err
}
