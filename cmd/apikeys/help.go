package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// examples end the help of the commands that have some, by the command's path.
var examples = map[string]string{ //nolint:gosec // It names settings; it holds no credential.
	"": `Examples:
  apikeys serve                        a server for development, no settings needed
  apikeys help serve                   all settings
  apikeys login                        a token to call a server with, stored
  apikeys keys create --label shop     a key; its secret is shown this once
  apikeys keys list --state active     the keys that can be used
  apikeys events watch                 all changes as they happen

Exit codes: 0 all went well, 1 the command failed, 2 it was not understood, 3 the key is refused (keys verify).
`,
	"serve": `Without a flag and in the file only, or as a variable:
  root_token         (APIKEYS_ROOT_TOKEN)       the root token, 24 characters or more
  root_token_file    (APIKEYS_ROOT_TOKEN_FILE)  a file that holds it
  oidc               (APIKEYS_OIDC)             the OpenID Connect issuers whose tokens are taken, a list

A flag wins over the environment, the environment over the file. An empty variable is an unset one.

Examples:
  apikeys serve
  apikeys serve --rest-addr :8080 --grpc-addr :9090 --env production --plaintext
  apikeys serve --config /etc/apikeys.yaml
  APIKEYS_ROOT_TOKEN_FILE=/run/secrets/root_token apikeys serve --data-dir /var/lib/apikeys

A file:
  rest_addr: 127.0.0.1:8080
  env: production
  trusted_proxies: [10.0.0.0/8, "fd00::/8"]
`,
	"migrate": `Stop every server of both databases first. The target must be empty, or the target of the same
move that was interrupted: run the same command again then. Values are compared at the end, and
the source is marked as moved, so that no server starts on it without --force. The secrets file is
not moved: start the server on the new database with the same file. Give databases themselves, not
PgBouncer, and no password: it comes from a file, or from PGPASSFILE.

Examples:
  apikeys migrate --from sqlite:data/apikeys.db --to postgres://apikeys@db.example.com/apikeys
  apikeys migrate --from postgres://apikeys@/apikeys?host=/run/postgresql --to sqlite:data/new.db
`,
	"tokens reset": `It is for a database in SQLite, and a server that runs takes the new token at once. On PostgreSQL
root_token or root_token_file is changed in its place.

Examples:
  apikeys tokens reset                 shows the token on a terminal
  apikeys tokens reset > path          writes it to <data-dir>/root-token and tells that path
`,
	"scan-rule": `The formats are those of the settings, as apikeys serve reads them. A key that was mistyped
is found too: its checksum tells, and no pattern can compute that.

Examples:
  apikeys scan-rule --format gitleaks > .gitleaks.toml
  apikeys scan-rule --format trufflehog --config /etc/apikeys.yaml
  apikeys scan-rule --format github --key-formats acme=acme_live_:live,test=acme_test_:test
`,
	"config": `Examples:
  apikeys config check
  apikeys config show
`,
	"config check": `It opens no database, and listens nowhere.

Examples:
  apikeys config check --config /etc/apikeys.yaml
`,
	"config show": `Secrets are hidden. FROM is a flag, an environment variable, the file, or default.

Examples:
  apikeys config show --config /etc/apikeys.yaml
  apikeys config show -o jsonl
`,
	"version": `Examples:
  apikeys version
`,
	"help": `Examples:
  apikeys help keys create
`,
}

// printHelp writes the parser's help and the examples of the command.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	path := ""
	if node := ctx.Selected(); node != nil {
		path = commandPath(node)
	}
	if text := exampleOf(path); text != "" {
		fmt.Fprintf(ctx.Stdout, "\n%s", text)
	}
	return nil
}

// commandPath returns the names of a command and of those above it, without aliases.
func commandPath(node *kong.Node) string {
	if node == nil || node.Parent == nil {
		return ""
	}
	return strings.TrimSpace(commandPath(node.Parent) + " " + node.Name)
}

// exampleOf returns what ends the help of a command.
func exampleOf(path string) string {
	if text, ok := examples[path]; ok {
		return text
	}
	return clientExamples[path]
}

// describe adds to a flag's help its default and, if it is a setting, its
// environment variable.
func describe(value *kong.Value) string {
	if value.Flag == nil || value.Name == "help" {
		return value.Help
	}
	text := value.Help
	if value.HasDefault && value.Default != "" {
		text += fmt.Sprintf(" Default: %s.", value.Default)
	}
	if isArgument(value.Flag) {
		return text
	}
	return text + " (" + envName(value.Name) + ")"
}
