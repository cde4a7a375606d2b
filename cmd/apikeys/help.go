package main

import (
	"fmt"

	"github.com/alecthomas/kong"
)

// examples end the help of the commands that have some, by the command's path.
var examples = map[string]string{ //nolint:gosec // It names settings; it holds no credential.
	"": `Examples:
  apikeys serve                        a server for development, no settings needed
  apikeys help serve                   all settings
  apikeys token reset                  a new root token, if the first is lost
  apikeys events watch                 all changes as they happen
  apikeys scan-rule --format gitleaks  the rule by which a scanner finds keys

Exit codes: 0 all went well, 1 the command failed, 2 it was not understood.
`,
	"serve": `Without a flag and in the file only, or as a variable:
  root_token         (APIKEYS_ROOT_TOKEN)       the root token, 24 characters or more
  root_token_file    (APIKEYS_ROOT_TOKEN_FILE)  a file that holds it

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
	"token reset": `Examples:
  apikeys token reset                  shows the token on a terminal
  apikeys token reset > path           writes it to <data-dir>/root-token and tells that path
`,
	"scan-rule": `The formats are those of the settings, as apikeys serve reads them. A key that was mistyped
is found too: its checksum tells, and no pattern can reckon that.

Examples:
  apikeys scan-rule --format gitleaks > .gitleaks.toml
  apikeys scan-rule --format trufflehog --config /etc/apikeys.yaml
  apikeys scan-rule --format github --key-formats acme=acme_live_:live,test=acme_test_:test
`,
	"events list": `Examples:
  apikeys events list --after=start --limit 20
  apikeys events list --type api_key.revoked,api_key.deleted --limit 0 -o json
` + profileHelp,
	"events watch": `It connects again by itself and goes on where it was. When it ends it tells where to
resume. In JSON the lines are those of GET /developers/events/watch: {"cursor": "...", "event": {...}},
and {"cursor": "..."} every 15 seconds without an event.

Examples:
  apikeys events watch
  apikeys events watch --after=start --type api_key.created -o json
  APIKEYS_TOKEN_FILE=data/root-token apikeys events watch --organization '*'
` + profileHelp,
	"webhooks listen": `Each event is posted once, in order, with the headers, the signatures and the body that a server
would send. Nothing is tried again: a failure is a line of the output. No server has to know of a
webhook for this, nor does one send anything; the events come from its log. Any address may be
named, since it is your own machine that calls it. An event keeps its webhook-id in every run.

Without --secret one is made for this run and shown. It is a throw-away secret: give it to the
program under test, and to nothing that other people can reach.

Examples:
  apikeys webhooks listen --forward-to http://localhost:3000/hook
  apikeys webhooks listen --forward-to localhost:3000/hook --type api_key.revoked --format standard
  apikeys webhooks listen --forward-to localhost:3000/hook --after=start
` + profileHelp,
}

const profileHelp = `
Profiles are kept in ~/.config/apikeys/profiles.yaml (or under XDG_CONFIG_HOME), with mode 0600:
  default:
    server: grpcs://keys.example.com
    token_file: ~/.config/apikeys/token
  local:
    server: 127.0.0.1:9090
    token: ...
`

// printHelp writes the parser's help and the examples of the command.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	path := ""
	if node := ctx.Selected(); node != nil {
		path = node.Path()
	}
	if text, ok := examples[path]; ok {
		fmt.Fprintf(ctx.Stdout, "\n%s", text)
	}
	return nil
}

// describe adds to a flag's help its default and, if it is a setting, its
// environment variable.
func describe(value *kong.Value) string {
	if value.Flag == nil || value.Name == "help" {
		return value.Help
	}
	text := value.Help
	if value.HasDefault {
		text += fmt.Sprintf(" Default: %s.", value.Default)
	}
	if isArgument(value.Flag) {
		return text
	}
	return text + " (" + envName(value.Name) + ")"
}
