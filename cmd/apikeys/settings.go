package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// storeSettings are what every command needs that opens the database. A
// setting's name in the environment and in the file follows from its flag's;
// what a value means is checked by server.Config.
type storeSettings struct {
	Config               string `group:"files" placeholder:"FILE" help:"YAML file of settings, named like the flags with underscores."`
	DataDir              string `group:"files" default:"${DataDir}" placeholder:"DIR" help:"Where the database, the secrets and the first root token are kept."`
	Database             string `group:"files" placeholder:"URL" help:"The database, sqlite:<path> or postgres://<user>@<host>:<port>/<database>. Default: sqlite:<data-dir>/apikeys.db."`
	DatabaseDirect       string `group:"files" placeholder:"URL" help:"The same PostgreSQL database without PgBouncer, where --database leads through it, with pgbouncer=true."`
	DatabasePasswordFile string `group:"files" placeholder:"FILE" help:"A file that holds the password of the PostgreSQL database alone. It is read for each connection."`
	DatabaseWait         period `group:"files" default:"${DatabaseWait}" placeholder:"TIME" help:"How long a start waits for a PostgreSQL database that cannot be reached."`
	SecretsFile          string `group:"files" placeholder:"FILE" help:"The file of peppers and encryption keys. Default: <data-dir>/secrets."`

	LogLevel  slog.Level `group:"log" default:"info" placeholder:"LEVEL" help:"debug, info, warn or error."`
	LogFormat logFormat  `group:"log" default:"text" placeholder:"FORMAT" help:"text or json."`
}

// formatSettings are the formats of keys, which the server makes and scanners are to
// find.
type formatSettings struct {
	KeyFormats []string `group:"keys" default:"${KeyFormats}" placeholder:"NAME=PREFIX:MODE" help:"The formats of the secrets of new keys, separated by commas, each for the keys of the mode live or test. The first of a mode is for keys that name none. Keys of other formats work as before."`
}

// formats returns the formats that are set.
func (s *formatSettings) formats() (formats apikey.KeyFormats, err error) {
	for _, text := range s.KeyFormats {
		format, err := apikey.ParseKeyFormat(strings.TrimSpace(text))
		if err != nil {
			return nil, usageError{fmt.Errorf("key_formats: %q %w", apikey.Excerpt(text), err)}
		}
		formats = append(formats, format)
	}
	return formats, nil
}

// serveSettings are what a running server is told.
type serveSettings struct {
	formatSettings `embed:""`

	RESTAddr       string   `name:"rest-addr" group:"network" default:"${RESTAddr}" placeholder:"HOST:PORT" help:"Where REST listens. No host means every interface."`
	GRPCAddr       string   `name:"grpc-addr" group:"network" default:"${GRPCAddr}" placeholder:"HOST:PORT" help:"Where gRPC listens."`
	OpsAddr        string   `name:"ops-addr" group:"network" placeholder:"HOST:PORT" help:"Where operators are served: /metrics, /healthz and /readyz, without a credential. A port alone means loopback. Default: nowhere."`
	GateAddr       string   `group:"network" placeholder:"HOST:PORT" help:"Where the gateways of a trusted network ask about requests, /forward_auth and Envoy's ext_authz, without a credential. Default: nowhere."`
	GateTokenFile  string   `group:"network" placeholder:"FILE" help:"A file that holds an operator token alone, with whose rights the gate verifies. Default: keys of every organization."`
	GateRules      []string `group:"network" placeholder:"RULE" help:"What requests need by method and path, such as 'GET|HEAD /v1/products/* scope=products.read'; the first that matches counts, and what none matches is refused."`
	TLSCert        string   `name:"tls-cert" group:"network" placeholder:"FILE" help:"PEM file of the certificate chain, for both listeners."`
	TLSKey         string   `name:"tls-key" group:"network" placeholder:"FILE" help:"PEM file of the certificate's key."`
	Plaintext      bool     `group:"network" help:"TLS ends in front of this server: let a production server listen without it."`
	NoDocs         bool     `group:"network" help:"Do not serve the reference of the API at /docs."`
	TrustedProxies []string `group:"network" placeholder:"RANGE" help:"Addresses or CIDR ranges whose X-Forwarded-For is believed, separated by commas."`

	CredentialHeaders []string `group:"network" default:"${CredentialHeaders}" placeholder:"NAME" help:"The headers of requests at a gateway that may carry the key, separated by commas; also basic:user and basic:password."`
	CredentialQuery   string   `group:"network" placeholder:"NAME" help:"A parameter of their query that may carry the key besides. Default: none."`

	ConnectionsMax        int    `group:"network" default:"${ConnectionsMax}" placeholder:"N" help:"How many connections may be open at both listeners together, 1 to 1000000."`
	ConnectionsPerAddress int    `group:"network" default:"${ConnectionsPerAddress}" placeholder:"N" help:"How many of them may come from one address, an IPv6 /64 being one; trusted proxies are not counted by address."`
	CredentialTimeout     period `group:"network" default:"${CredentialTimeout}" placeholder:"TIME" help:"How long a connection may go without having shown a good credential."`
	HeaderTimeout         period `group:"network" default:"${HeaderTimeout}" placeholder:"TIME" help:"How long a handshake, or the headers of a request, may take to arrive."`
	MessageTimeout        period `group:"network" default:"${MessageTimeout}" placeholder:"TIME" help:"How long the body or message of a request may take to arrive."`
	AnswerTimeout         period `group:"network" default:"${AnswerTimeout}" placeholder:"TIME" help:"How long an answer may lie unread before its connection is closed."`
	AnswerBytesMax        int64  `group:"network" default:"${AnswerBytesMax}" placeholder:"BYTES" help:"How many bytes of answers may be under way to all callers together."`
	AnswerBytesPerCaller  int64  `group:"network" default:"${AnswerBytesPerCaller}" placeholder:"BYTES" help:"How many of them to one caller; the keys of an organization are one caller."`
	CallsMax              int    `group:"network" default:"${CallsMax}" placeholder:"N" help:"How many calls of all callers together may be under way."`
	CallsPerCaller        int    `group:"network" default:"${CallsPerCaller}" placeholder:"N" help:"How many of them of one caller; the keys of an organization are one caller."`
	FailuresPerSecond     int    `group:"network" default:"${FailuresPerSecond}" placeholder:"N" help:"How many bad credentials a second are looked at from one address, over connections that have shown no good one."`

	Env               string   `group:"keys" default:"${Env}" placeholder:"NAME" help:"development or production; shown in every answer. Production is strict about TLS."`
	Scopes            []string `group:"keys" placeholder:"SCOPE" help:"The scopes of the application, which keys can be given besides the server's own; separated by commas. Default: the 22 of a sample application."`
	AbsentScopes      string   `group:"keys" default:"${AbsentScopes}" placeholder:"NAME" help:"What a key gets that is created without naming scopes: none or all."`
	KeysMax           int      `group:"keys" default:"${KeysMax}" placeholder:"N" help:"How many keys an organization may have; 0 for any number."`
	OperatorTokensMax int      `group:"keys" default:"${OperatorTokensMax}" placeholder:"N" help:"How many access tokens of operators the root token, each person, and each token that the root token made may have made, 1 to 100000."`
	ExpiringNotice    period   `group:"keys" default:"${ExpiringNotice}" placeholder:"TIME" help:"How long before a key expires api_key.expiring is published, such as 7d or 12h; 0 for never."`
	EventRetention    period   `group:"keys" default:"${EventRetention}" placeholder:"TIME" help:"How long events are kept, such as 30d or 12h; at least a minute."`

	IdempotencyRetention period `group:"keys" default:"${IdempotencyRetention}" placeholder:"TIME" help:"How long the answer of a call with an Idempotency-Key is kept, and given again; a minute to 30d."`
	IdempotencyMax       int64  `group:"keys" default:"${IdempotencyMax}" placeholder:"N" help:"How many such answers an organization may have kept, 1 to 10000000."`
	IdempotencyBytesMax  int64  `group:"keys" default:"${IdempotencyBytesMax}" placeholder:"BYTES" help:"How many bytes of such answers an organization may have kept, at least 1048576."`

	HourlyUsageRetention period `group:"keys" default:"${HourlyUsageRetention}" placeholder:"TIME" help:"How long usage is kept by the hour; at least an hour."`
	DailyUsageRetention  period `group:"keys" default:"${DailyUsageRetention}" placeholder:"TIME" help:"How long usage is kept by the day; at least a day, and as long as by the hour."`
	RefusalRetention     period `group:"keys" default:"${RefusalRetention}" placeholder:"TIME" help:"How long refused uses of keys are kept; at least a minute."`
	RefusalsMax          int    `group:"keys" default:"${RefusalsMax}" placeholder:"N" help:"How many refused uses are kept of all keys together, 1000 to 100000000."`
	ShutdownDelay        period `group:"network" default:"${ShutdownDelay}" placeholder:"TIME" help:"How long a stopping server says that it is not ready, and serves on, before it stops."`
	ShutdownTimeout      period `group:"network" default:"${ShutdownTimeout}" placeholder:"TIME" help:"How long a stopping server waits for calls and deliveries under way."`

	WebhooksAllowNetworks []string `group:"webhooks" placeholder:"RANGE" help:"Networks besides the public ones that deliveries may go to, separated by commas."`
	WebhooksDelays        []period `group:"webhooks" placeholder:"TIME" help:"When a delivery that failed is tried again, each after the one before. Default: 11 times from 5s to 1d."`
	WebhooksDisableAfter  period   `group:"webhooks" default:"${WebhooksDisableAfter}" placeholder:"TIME" help:"How long a webhook may fail without a success before it is disabled; at least a minute."`
	WebhooksMax           int      `group:"webhooks" default:"${WebhooksMax}" placeholder:"N" help:"How many webhooks an organization may have, 1 to 10000."`
	WebhooksInFlight      int      `group:"webhooks" default:"${WebhooksInFlight}" placeholder:"N" help:"How many deliveries may be under way to one webhook, 1 to 256."`
	WebhooksInFlightHost  int      `group:"webhooks" default:"${WebhooksInFlightHost}" placeholder:"N" help:"How many deliveries may be under way to the webhooks of one host, 1 to 4096."`

	WebhooksInFlightOrganization int `group:"webhooks" default:"${WebhooksInFlightOrganization}" placeholder:"N" help:"How many deliveries may be under way to the webhooks of one organization, 1 to 4096."`

	WebhooksMaxBehind period `group:"webhooks" default:"${WebhooksMaxBehind}" placeholder:"TIME" help:"How far the making of an organization's deliveries may be behind its changes before these wait; at least a second."`
	DeliveryRetention period `group:"webhooks" placeholder:"TIME" help:"How long deliveries are kept, no longer than events; at least a minute. Default: 30d, or as long as events."`
}

// settingGroups are the headings of the help.
var settingGroups = []kong.Group{
	{Key: "network", Title: "Network:"},
	{Key: "files", Title: "Files:"},
	{Key: "keys", Title: "Keys:"},
	{Key: "log", Title: "Log (to standard error):"},
	{Key: "events", Title: "Events:"},
	{Key: "webhooks", Title: "Webhooks:"},
	{Key: "tokens", Title: "Tokens:"},
	{Key: "fields", Title: "Fields:"},
	{Key: "filter", Title: "Which:"},
	{Key: "many", Title: "Many at a time:"},
	{Key: "output", Title: "Output:"},
	{Key: "connection", Title: "Connection:"},
}

// defaults puts the defaults of server.Config in the place of ${Field} in the tags of the
// settings. No other place has them. They are no variables of kong, which reads each
// variable again for each flag.
func defaults() kong.Option {
	values := make(map[string]string)
	for field, value := range reflect.ValueOf(server.Defaults()).Fields() {
		if !field.IsExported() {
			continue // It is none that can be set.
		}
		switch v := value.Interface().(type) {
		case time.Duration:
			values["${"+field.Name+"}"] = period(v).String()
		case string, int, int64, apikey.KeyFormats:
			values["${"+field.Name+"}"] = fmt.Sprint(v)
		case []string:
			values["${"+field.Name+"}"] = strings.Join(v, ",")
		}
	}
	return kong.PostBuild(func(k *kong.Kong) error {
		return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
			if setting, ok := node.(*kong.Value); ok {
				if value, ok := values[setting.Default]; ok {
					setting.Default = value
				}
			}
			return next(nil)
		})
	})
}

// withoutFlag are the settings that have no flag: the root token, since the arguments of
// a process are for every user of its machine to see, and the issuers of tokens, which
// have fields of their own.
var withoutFlag = []string{"root_token", "root_token_file", oidcSetting}

// config returns what the settings make, with those of sources that have no flag.
func (s *storeSettings) config(sources *sources, out streams) server.Config {
	token, file := sources.rootToken()
	return server.Config{
		DataDir:              s.DataDir,
		Database:             s.Database,
		DatabaseDirect:       s.DatabaseDirect,
		DatabasePasswordFile: s.DatabasePasswordFile,
		DatabaseWait:         set(s.DatabaseWait),
		SecretsFile:          s.SecretsFile,
		RootToken:            masked.New(token),
		RootTokenFile:        file,
		Version:              version(),
		Logger:               s.logger(out.stderr, s.LogLevel),
		Notice:               out.stdout,
		NoticeIsTerminal:     out.terminal,
	}
}

// apply puts the settings into c, with the issuers of sources.
func (s *serveSettings) apply(c *server.Config, sources *sources) error {
	var err error
	if c.OIDC, err = sources.issuers(); err != nil {
		return err
	}
	if c.TrustedProxies, err = ranges("trusted_proxies", s.TrustedProxies); err != nil {
		return err
	}
	if c.WebhooksAllowNetworks, err = ranges("webhooks_allow_networks", s.WebhooksAllowNetworks); err != nil {
		return err
	}
	if c.KeyFormats, err = s.formats(); err != nil {
		return err
	}
	for _, scope := range s.Scopes {
		c.Scopes = append(c.Scopes, strings.TrimSpace(scope))
	}
	c.RESTAddr, c.GRPCAddr, c.OpsAddr = s.RESTAddr, s.GRPCAddr, s.OpsAddr
	c.GateAddr, c.GateTokenFile, c.CredentialQuery = s.GateAddr, s.GateTokenFile, s.CredentialQuery
	for _, rule := range s.GateRules {
		c.GateRules = append(c.GateRules, strings.TrimSpace(rule))
	}
	for _, name := range s.CredentialHeaders {
		c.CredentialHeaders = append(c.CredentialHeaders, strings.TrimSpace(name))
	}
	c.TLSCert, c.TLSKey, c.Plaintext, c.NoDocs = s.TLSCert, s.TLSKey, s.Plaintext, s.NoDocs
	c.ConnectionsMax, c.ConnectionsPerAddress = positive(s.ConnectionsMax), positive(s.ConnectionsPerAddress)
	c.CredentialTimeout, c.HeaderTimeout = set(s.CredentialTimeout), set(s.HeaderTimeout)
	c.MessageTimeout, c.AnswerTimeout = set(s.MessageTimeout), set(s.AnswerTimeout)
	c.AnswerBytesMax, c.AnswerBytesPerCaller = positive(s.AnswerBytesMax), positive(s.AnswerBytesPerCaller)
	c.CallsMax, c.CallsPerCaller = positive(s.CallsMax), positive(s.CallsPerCaller)
	c.FailuresPerSecond = positive(s.FailuresPerSecond)
	c.Env, c.AbsentScopes, c.KeysMax = s.Env, s.AbsentScopes, s.KeysMax
	c.OperatorTokensMax = positive(s.OperatorTokensMax)
	c.IdempotencyRetention = set(s.IdempotencyRetention)
	c.IdempotencyMax, c.IdempotencyBytesMax = positive(s.IdempotencyMax), positive(s.IdempotencyBytesMax)
	c.ExpiringNotice = time.Duration(s.ExpiringNotice)
	if c.ExpiringNotice == 0 {
		c.ExpiringNotice = -1 // The Config's zero is its default.
	}
	c.EventRetention, c.DeliveryRetention = set(s.EventRetention), time.Duration(s.DeliveryRetention)
	c.HourlyUsageRetention, c.DailyUsageRetention = set(s.HourlyUsageRetention), set(s.DailyUsageRetention)
	c.RefusalRetention, c.RefusalsMax = set(s.RefusalRetention), positive(s.RefusalsMax)
	c.ShutdownDelay, c.ShutdownTimeout = time.Duration(s.ShutdownDelay), set(s.ShutdownTimeout)
	for _, delay := range s.WebhooksDelays {
		c.WebhooksDelays = append(c.WebhooksDelays, time.Duration(delay))
	}
	c.WebhooksDisableAfter = set(s.WebhooksDisableAfter)
	c.WebhooksInFlightHost, c.WebhooksInFlightOrganization = positive(s.WebhooksInFlightHost), positive(s.WebhooksInFlightOrganization)
	c.WebhooksMaxBehind = set(s.WebhooksMaxBehind)
	c.WebhooksMax, c.WebhooksInFlight = positive(s.WebhooksMax), positive(s.WebhooksInFlight)
	return nil
}

// set returns p so that none at all is not the default, which is what the
// Config's zero is, but refused.
func set(p period) time.Duration {
	if p == 0 {
		return -1
	}
	return time.Duration(p)
}

// positive returns n so that none at all is not the default, which is what the
// Config's zero is, but refused.
func positive[N int | int64](n N) N {
	if n == 0 {
		return -1
	}
	return n
}

// ranges reads the addresses and networks that a setting names.
func ranges(setting string, texts []string) (all []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := server.ParseTrustedProxy(strings.TrimSpace(text))
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %q %w", setting, apikey.Excerpt(text), err)}
		}
		all = append(all, p)
	}
	return all, nil
}

// logger returns the log that the settings ask for, at a level that may change.
func (s *storeSettings) logger(w io.Writer, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// logFormat is the form of the log's lines.
type logFormat string

// UnmarshalText takes text or json.
func (f *logFormat) UnmarshalText(text []byte) error {
	switch *f = logFormat(text); *f {
	case "text", "json":
		return nil
	}
	return fmt.Errorf("must be text or json, not %q", apikey.Excerpt(string(text)))
}

// period is a time span that can be given in days.
type period time.Duration

// String returns p in the largest unit that it is a number of, but for a single
// minute or hour.
func (p period) String() string {
	units := []struct {
		length time.Duration
		least  int
		name   string
	}{{24 * time.Hour, 1, "d"}, {time.Hour, 2, "h"}, {time.Minute, 2, "m"}, {time.Second, 0, "s"}}
	for _, unit := range units {
		if n := int(time.Duration(p) / unit.length); n >= unit.least && time.Duration(p)%unit.length == 0 {
			return strconv.Itoa(n) + unit.name
		}
	}
	return time.Duration(p).String()
}

// UnmarshalText takes what time.ParseDuration takes, and days such as 7d.
func (p *period) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		// More does not fit into a Duration.
		if err == nil && (n < 0 || n > 100_000) {
			err = errors.New("out of bounds")
		}
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < 0 {
		return fmt.Errorf("must be a time span such as 7d, 12h or 30m, not %q", apikey.Excerpt(string(text)))
	}
	*p = period(d)
	return nil
}
