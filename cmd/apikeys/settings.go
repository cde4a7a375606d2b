package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/apikeys-dev/apikeys/server"
)

// storeSettings are what every command needs that opens the database. A
// setting's name in the environment and in the file follows from its flag's;
// what a value means is judged by server.Config.
type storeSettings struct {
	Config      string `group:"files" placeholder:"FILE" help:"YAML file of settings, named like the flags with underscores."`
	DataDir     string `group:"files" default:"data" placeholder:"DIR" help:"Where the database, the secrets and the first root token are kept."`
	Database    string `group:"files" placeholder:"URL" help:"The database, sqlite:<path>. Default: sqlite:<data-dir>/apikeys.db."`
	SecretsFile string `group:"files" placeholder:"FILE" help:"The file of peppers and encryption keys. Default: <data-dir>/secrets."`

	LogLevel  slog.Level `group:"log" default:"info" placeholder:"LEVEL" help:"debug, info, warn or error."`
	LogFormat logFormat  `group:"log" default:"text" placeholder:"FORMAT" help:"text or json."`
}

// serveSettings are what a running server is told.
type serveSettings struct {
	RESTAddr       string   `name:"rest-addr" group:"network" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where REST listens. No host means every interface."`
	GRPCAddr       string   `name:"grpc-addr" group:"network" default:"127.0.0.1:9090" placeholder:"HOST:PORT" help:"Where gRPC listens."`
	TLSCert        string   `name:"tls-cert" group:"network" placeholder:"FILE" help:"PEM file of the certificate chain, for both listeners."`
	TLSKey         string   `name:"tls-key" group:"network" placeholder:"FILE" help:"PEM file of the certificate's key."`
	Plaintext      bool     `group:"network" help:"TLS ends in front of this server: let a production server listen without it."`
	TrustedProxies []string `group:"network" placeholder:"RANGE" help:"Addresses or CIDR ranges whose X-Forwarded-For is believed, separated by commas."`

	Env            string   `group:"keys" default:"development" placeholder:"NAME" help:"development or production; shown in every answer. Production is strict about TLS."`
	Scopes         []string `group:"keys" placeholder:"SCOPE" help:"The scopes that keys can be given, separated by commas. Default: a catalogue of 34."`
	AbsentScopes   string   `group:"keys" default:"none" placeholder:"NAME" help:"What a key gets that is created without naming scopes: none or all."`
	ExpiringNotice period   `group:"keys" default:"7d" placeholder:"TIME" help:"How long before a key expires api_key.expiring is published, such as 7d or 12h; 0 for never."`
	EventRetention period   `group:"keys" default:"30d" placeholder:"TIME" help:"How long events are kept, such as 30d or 12h; at least a minute."`
}

// settingGroups are the headings of the help.
var settingGroups = []kong.Group{
	{Key: "network", Title: "Network:"},
	{Key: "files", Title: "Files:"},
	{Key: "keys", Title: "Keys:"},
	{Key: "log", Title: "Log (to standard error):"},
	{Key: "events", Title: "Events:"},
	{Key: "webhooks", Title: "Webhooks:"},
	{Key: "connection", Title: "Connection:"},
}

// concealed are the settings that have no flag, since the arguments of a
// process are for every user of its machine to see.
var concealed = []string{"root_token", "root_token_file"}

// config returns what the settings make, with the concealed ones of sources.
func (s *storeSettings) config(sources *sources, out streams) server.Config {
	token, file := sources.rootToken()
	return server.Config{
		DataDir:          s.DataDir,
		Database:         s.Database,
		SecretsFile:      s.SecretsFile,
		RootToken:        server.Token(token),
		RootTokenFile:    file,
		Logger:           s.logger(out.stderr),
		Notice:           out.stdout,
		NoticeIsTerminal: out.terminal,
	}
}

// apply puts the settings into c.
func (s *serveSettings) apply(c *server.Config) error {
	for _, text := range s.TrustedProxies {
		p, err := server.ParseTrustedProxy(strings.TrimSpace(text))
		if err != nil {
			return usageError{fmt.Errorf("trusted_proxies: %q %w", text, err)}
		}
		c.TrustedProxies = append(c.TrustedProxies, p)
	}
	for _, scope := range s.Scopes {
		c.Scopes = append(c.Scopes, strings.TrimSpace(scope))
	}
	c.RESTAddr, c.GRPCAddr = s.RESTAddr, s.GRPCAddr
	c.TLSCert, c.TLSKey, c.Plaintext = s.TLSCert, s.TLSKey, s.Plaintext
	c.Env, c.AbsentScopes = s.Env, s.AbsentScopes
	c.ExpiringNotice = time.Duration(s.ExpiringNotice)
	if c.ExpiringNotice == 0 {
		c.ExpiringNotice = -1 // The Config's zero is its default.
	}
	if c.EventRetention = time.Duration(s.EventRetention); c.EventRetention == 0 {
		c.EventRetention = -1
	}
	return nil
}

// logger returns the log that the settings ask for.
func (s *storeSettings) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.LogLevel}
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
	return fmt.Errorf("must be text or json, not %q", text)
}

// period is a time span that can be given in days.
type period time.Duration

// UnmarshalText takes what time.ParseDuration takes, and days such as 7d.
func (p *period) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		// More does not fit into a Duration.
		if err == nil && n > 100_000 {
			err = errors.New("too long")
		}
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < 0 {
		return fmt.Errorf("must be a time span such as 7d, 12h or 30m, not %q", text)
	}
	*p = period(d)
	return nil
}
