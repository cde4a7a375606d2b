package main

// clientExamples end the help of the commands that call a server, by the command's
// path.
var clientExamples = map[string]string{ //nolint:gosec // It names settings; it holds no credential.
	"keys": `Examples:
  apikeys keys create --label shop --scopes products.read
  apikeys keys list --owner anna
`,
	"keys create": `The secret goes to standard output alone on a line, so that a script can take it; all else goes to
standard error. Where the answer gets lost, the same command gives the same key again: nothing is made twice.

Examples:
  apikeys keys create --label shop --owner anna --scopes products.read,products.update
  apikeys keys create --label ci --expires-at 30d --rate-limit 100/1m --secret-file ci.key
  apikeys keys create --label free --quota 1000/monthly --metadata plan=free -o json
  SECRET=$(apikeys keys create --label shop)
`,
	"keys get": `Examples:
  apikeys keys get api_key_...
  apikeys keys get api_key_... -o jsonpath=$.state
`,
	"keys list": `Examples:
  apikeys keys list
  apikeys keys list --owner anna --state active
  apikeys keys list --unused-since 90d -o id
  apikeys keys list --organization '*' --limit 10 -o yaml
`,
	"keys update": `Only the fields that are given change. --clear empties fields.

Examples:
  apikeys keys update api_key_... --label "shop, production"
  apikeys keys update api_key_... --scopes products.read --expires-at 2027-01-31
  apikeys keys update api_key_... --metadata plan=pro --clear rate_limit,metadata.trial
  apikeys keys update --where-owner anna --where-metadata plan=free --rate-limit 10/1m
`,
	"keys enable": `Examples:
  apikeys keys enable api_key_...
  apikeys keys enable --owner anna --yes
`,
	"keys disable": `Examples:
  apikeys keys disable api_key_...
  apikeys keys disable --unused-since 90d --dry-run
`,
	"keys rotate": `The secret goes to standard output alone on a line; those of many in a table, or to --secret-file with the id
before each. Where an answer gets lost, or the run is interrupted, the same command goes on and gives the same secrets.

Examples:
  apikeys keys rotate --owner anna --overlap 1d --secret-file new-secrets
  apikeys keys rotate api_key_... --overlap 1d
  apikeys keys rotate api_key_... --secret-file new.key
  apikeys keys rotate api_key_... --end-previous
`,
	"keys revoke": `With a filter, or several ids, it is told how many keys will be revoked, and asked whether to. An interrupted
run is gone on with by the same command: each key is revoked once.

Examples:
  apikeys keys revoke api_key_... --reason key_compromise
  apikeys keys revoke --created-by api_key_... --reason privilege_withdrawn
  apikeys keys revoke --owner anna --dry-run
  apikeys keys revoke --unused-since 365d --reason no_longer_needed --yes -o jsonl
`,
	"keys delete": `Examples:
  apikeys keys delete api_key_...
  apikeys keys delete --state revoked --created-before 365d --yes
`,
	"keys verify": `It prints the code: valid, malformed, not_found, revoked, disabled, expired, ip_not_allowed,
insufficient_scope, rate_limited or quota_exceeded. It ends with 0 where the key is valid, with 3 where it is
refused, and with 1 or 2 where it could not be checked. The secret is asked for, or read from standard input.

Examples:
  apikeys keys verify < secret.txt
  apikeys keys verify --scopes products.read --cost 0 -o json < secret.txt
`,
	"keys usage": `Examples:
  apikeys keys usage api_key_... --since 30d --granularity day
  apikeys keys usage api_key_... -o jsonpath=$.totals.total
`,
	"webhooks": `Examples:
  apikeys webhooks list
  apikeys webhooks listen --forward-to http://localhost:3000/hook
`,
	"webhooks create": `The secret, whsec_..., goes to standard output alone on a line.

Examples:
  apikeys webhooks create --label billing --url https://example.com/hook --events '*'
  apikeys webhooks create --label audit --url https://example.com/hook --events api_key.revoked,api_key.deleted --format standard
  apikeys webhooks create --label billing --url https://example.com/hook --events '*' --header-file headers.txt
`,
	"webhooks get": `Examples:
  apikeys webhooks get webhook_... -o jsonpath=$.health
`,
	"webhooks list": `Examples:
  apikeys webhooks list --failing
`,
	"webhooks update": `Examples:
  apikeys webhooks update webhook_... --url https://example.com/other
  apikeys webhooks update webhook_... --no-enabled
  apikeys webhooks update webhook_... --events api_key.revoked --clear description
`,
	"webhooks rotate-secret": `Examples:
  apikeys webhooks rotate-secret webhook_... --overlap 1d --secret-file hook.secret
`,
	"webhooks delete": `Examples:
  apikeys webhooks delete webhook_...
`,
	"webhooks test": `It ends with 0 where the endpoint has taken the event.

Examples:
  apikeys webhooks test webhook_...
`,
	"webhooks replay": `Each event is sent under the same webhook-id as before.

Examples:
  apikeys webhooks replay webhook_... --since 1h
  apikeys webhooks replay webhook_... --since 2027-01-31 --only-failed
`,
	"webhooks retry": `Examples:
  apikeys webhooks retry webhook_...
  apikeys webhooks retry webhook_... --states failed,cancelled
`,
	"webhooks event-types": `Examples:
  apikeys webhooks event-types -o id
`,
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
`,
	"deliveries": `Examples:
  apikeys deliveries list --state failed
`,
	"deliveries list": `Examples:
  apikeys deliveries list --webhook webhook_... --state failed --since 1d
`,
	"deliveries get": `Examples:
  apikeys deliveries get delivery_...
`,
	"deliveries retry": `Examples:
  apikeys deliveries retry delivery_...
`,
	"deliveries cancel": `Examples:
  apikeys deliveries cancel delivery_...
`,
	"events": `Examples:
  apikeys events list --after=start
  apikeys events watch
`,
	"events list": `Examples:
  apikeys events list --after=start --limit 20
  apikeys events list --resource api_key_... --type api_key.created
  apikeys events list --type api_key.revoked,api_key.deleted --limit 0 -o jsonl
`,
	"events watch": `It connects again by itself and goes on where it was. When it ends it tells where to
resume. In JSON the lines are those of GET /developers/events/watch: {"cursor": "...", "event": {...}},
and {"cursor": "..."} every 15 seconds without an event.

Examples:
  apikeys events watch
  apikeys events watch --after=start --type api_key.created -o json
  apikeys events watch --organization '*'
`,
	"tokens": `Examples:
  apikeys tokens create --role verifier --organizations '*' --name gateway
  apikeys tokens list
`,
	"tokens create": `The secret goes to standard output alone on a line.

Examples:
  apikeys tokens create --role verifier --organizations '*' --name gateway --secret-file gateway.token
  apikeys tokens create --scopes api_keys.read,events.read --organizations org_a,org_b --name reports --expires-at 90d
`,
	"tokens get": `Examples:
  apikeys tokens get operator_...
`,
	"tokens list": `Examples:
  apikeys tokens list
`,
	"tokens update": `Examples:
  apikeys tokens update operator_... --expires-at 30d
  apikeys tokens update operator_... --clear ip_allow_list
`,
	"tokens rotate": `Examples:
  apikeys tokens rotate operator_... --overlap 1h --secret-file gateway.token.new
`,
	"tokens delete": `Examples:
  apikeys tokens delete operator_...
`,
	"scopes": `Examples:
  apikeys scopes list
`,
	"scopes list": `Examples:
  apikeys scopes list
  apikeys scopes list -o jsonpath=$[*].name
`,
	"login": `The token is asked for, or read from standard input, and tried. It is kept in the keyring of the system, or, where
there is none, in ~/.config/apikeys/credentials, mode 0600. With --issuer it is one of an OpenID Connect issuer: a page and
a code are shown, and the token is renewed by itself as long as the issuer allows.

Examples:
  apikeys login
  apikeys login --context production --address keys.example.com --organization org_a
  apikeys login --token-file data/root-token
  apikeys login --context production --address keys.example.com --issuer https://login.example.com --client-id apikeys
`,
	"logout": `Examples:
  apikeys logout
  apikeys logout --context production
`,
	"context": `Examples:
  apikeys context list
  apikeys context use production
`,
	"context list": `Examples:
  apikeys context list
  apikeys context list -o json
`,
	"context use": `Examples:
  apikeys context use production
`,
	"context set": `Examples:
  apikeys context set production --address keys.example.com --organization org_a
  apikeys context set gateway --address 10.0.0.5:9090 --ca-file ca.pem --token-file gateway.token
  apikeys context set production --clear organization
`,
	"context delete": `Examples:
  apikeys context delete production
`,
	"completion": `Commands, flags and values are those of this program; ids are asked of the server of the command line.

Examples:
  apikeys completion bash > ~/.local/share/bash-completion/completions/apikeys
  apikeys completion zsh > ~/.zfunc/_apikeys
  apikeys completion fish > ~/.config/fish/completions/apikeys.fish
`,
	"man": `Examples:
  apikeys man --dir ~/.local/share/man/man1
  apikeys man | man -l -
`,
	"analytics": `Examples:
  apikeys analytics --since 7d
  apikeys analytics -o jsonpath=$.success_rate
`,
	"usage": `Examples:
  apikeys usage --since 30d
  apikeys usage --since 2026-11-01 --until 2026-12-01 --group-by owner_id -o jsonl
`,
	"webhooks analytics": `Examples:
  apikeys webhooks analytics --since 7d
  apikeys webhooks analytics -o jsonpath=$.failing_urls
`,
	"me": `Examples:
  apikeys me
  apikeys me -o jsonpath=$.scopes
`,
}
