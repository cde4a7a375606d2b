package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// The values of Config.Env. A production server is strict about what leaves the
// machine unencrypted.
const (
	Development = "development"
	Production  = "production"
)

// The values of Config.AbsentScopes.
const (
	AbsentScopesNone = "none"
	AbsentScopesAll  = "all"
)

// Config is everything that a server can be told. Its zero value is a server
// for development: SQLite and secrets below data, both listeners on loopback.
// A fault in it is named by the key of the configuration file, which is the
// flag's name with underscores.
type Config struct {
	// RESTAddr is the host:port of the REST listener. An empty host means every
	// interface, port 0 a free port. Default: 127.0.0.1:8080.
	RESTAddr string
	// GRPCAddr is the host:port of the gRPC listener. Default: 127.0.0.1:9090.
	GRPCAddr string

	// DataDir is the directory of the files that are not placed by a setting of
	// their own. It is made, for its owner alone, where it is missing.
	// Default: data.
	DataDir string
	// Database is "sqlite:" and the path of a file, or the URL of a PostgreSQL
	// database, postgres://... Default: apikeys.db in DataDir.
	Database string
	// DatabaseDirect is the URL of the same PostgreSQL database without PgBouncer,
	// where Database leads through it, with pgbouncer=true. Default: none.
	DatabaseDirect string
	// DatabasePasswordFile is a file that holds the password of the PostgreSQL
	// database alone. It is read for each connection. Default: none.
	DatabasePasswordFile string
	// DatabaseWait is how long a start waits for a PostgreSQL database that cannot
	// be reached. Zero means 30 seconds; a negative one does not wait.
	DatabaseWait time.Duration
	// SecretsFile is the path of the file with the peppers and encryption keys,
	// without which the database is worthless. Default: secrets in DataDir.
	SecretsFile string

	// RootToken is the operator's token, of 24 characters or more. Where it is
	// set, no other operator token is good; where neither it nor RootTokenFile
	// is, the first start makes one and keeps only its hash. Default: none.
	RootToken masked.Text
	// RootTokenFile is a file that holds the root token alone, white space
	// around it aside. It cannot be set together with RootToken. Default: none.
	RootTokenFile string

	// Env is Development or Production. Default: Development.
	Env string
	// TLSCert and TLSKey are the PEM files of the certificate chain and its key,
	// for both listeners. Both are set or neither. Default: no TLS.
	TLSCert, TLSKey string
	// Plaintext says that TLS ends in front of the server, which lets a
	// production server listen off loopback without it. Default: false.
	Plaintext bool
	// TrustedProxies are the addresses whose X-Forwarded-For is believed. Empty
	// means that the client's address is always the connection's. Default: none.
	TrustedProxies []netip.Prefix

	// ConnectionsMax bounds the open connections of both listeners together. Zero
	// means 8,192.
	ConnectionsMax int
	// ConnectionsPerAddress bounds those of one address, which is an IPv4 address
	// or the /64 network of an IPv6 address; those of TrustedProxies are not counted
	// by address. Zero means 1,024.
	ConnectionsPerAddress int
	// CredentialTimeout is how long a connection may go without having shown a good
	// credential. Zero means 30 seconds.
	CredentialTimeout time.Duration
	// HeaderTimeout is how long the headers of a request may take to arrive, and the
	// handshake of a connection. Zero means 10 seconds.
	HeaderTimeout time.Duration
	// MessageTimeout is how long the rest of a request may take to arrive. Zero
	// means 30 seconds.
	MessageTimeout time.Duration
	// AnswerTimeout is how long an answer may lie unread. Zero means 60 seconds.
	AnswerTimeout time.Duration
	// AnswerBytesMax bounds the bytes of answers under way for all callers together.
	// Zero means 256 MiB.
	AnswerBytesMax int64
	// AnswerBytesPerCaller bounds those for one caller; all keys of an organization
	// are one. Zero means 64 MiB.
	AnswerBytesPerCaller int64
	// CallsMax bounds the calls under way of all callers together. A caller with 64 at
	// most is not refused for those of others. Zero means 32,768.
	CallsMax int
	// CallsPerCaller bounds those of one caller; all keys of an organization are one.
	// Zero means 16,384.
	CallsPerCaller int
	// FailuresPerSecond bounds the calls with a bad credential from one address
	// that are looked at, over connections that have shown no good one; such a
	// connection is read from no faster. Zero means 100.
	FailuresPerSecond int

	// Scopes are the application's: what a key can be given besides the scopes that
	// the server's own methods ask for. Empty means apikey.ApplicationScopes.
	Scopes []string
	// KeyFormats are the formats of the secrets of new keys; keys of other formats,
	// set before, work as they did. Empty means apikey.DefaultKeyFormats.
	KeyFormats apikey.KeyFormats
	// AbsentScopes is what a key gets whose creation names no scopes:
	// AbsentScopesNone or AbsentScopesAll. Default: AbsentScopesNone.
	AbsentScopes string
	// KeysMax is how many keys an organization may have. Zero means any number.
	KeysMax int
	// ExpiringNotice is how long before a key's expiry api_key.expiring is
	// published. Zero means 7 days; a negative one publishes none.
	ExpiringNotice time.Duration
	// EventRetention is how long events are kept. Zero means 30 days; at least a
	// minute.
	EventRetention time.Duration

	// WebhooksAllowNetworks are networks besides the public ones that deliveries
	// may go to. Default: none.
	WebhooksAllowNetworks []netip.Prefix
	// WebhooksDelays is the schedule of attempts after a first that failed. Empty
	// means webhook.DefaultDelays.
	WebhooksDelays []time.Duration
	// WebhooksDisableAfter is how long a webhook may fail without a success before
	// it is disabled. Zero means 5 days.
	WebhooksDisableAfter time.Duration
	// WebhooksMax is how many webhooks an organization may have. Zero means 100.
	WebhooksMax int
	// WebhooksInFlight bounds the attempts under way to one webhook. Zero means 8.
	WebhooksInFlight int
	// WebhooksInFlightHost and WebhooksInFlightOrganization bound the attempts under way
	// to the webhooks of one host, and to those of one organization. Zero means 64 and
	// 256.
	WebhooksInFlightHost, WebhooksInFlightOrganization int
	// WebhooksMaxBehind is how old the oldest event of an organization may be that has
	// not got its deliveries yet, before changes of that organization wait. Zero means
	// a minute.
	WebhooksMaxBehind time.Duration
	// DeliveryRetention is how long deliveries are kept. Zero means 30 days, or as
	// long as events where that is less; at least a minute.
	DeliveryRetention time.Duration
	// HourlyUsageRetention is how long usage is kept by the hour. Zero means 30
	// days; at least an hour.
	HourlyUsageRetention time.Duration
	// DailyUsageRetention is how long usage is kept by the day. Zero means 400
	// days; at least a day, and as long as hours are.
	DailyUsageRetention time.Duration

	// ShutdownDelay is how long a stopping server serves on, while it says that it
	// is not ready, so that those who ask about that send their calls elsewhere. At
	// most 10 minutes. Default: none.
	ShutdownDelay time.Duration
	// ShutdownTimeout is how long a stopping server waits for calls and
	// deliveries under way before it cuts them off. Default: 20 seconds, so that
	// a stop is over within 30.
	ShutdownTimeout time.Duration

	// Version is what the log calls the program. Default: unknown.
	Version string
	// Logger gets what an operator should know. Nil means slog.Default().
	Logger *slog.Logger
	// Notice is where a new root token, or the path of its file, is shown. Nil
	// means nowhere; the token is in its file then.
	Notice io.Writer
	// NoticeIsTerminal says that a person reads Notice. Only then is the token
	// itself written to it; else the token goes to a file and its path is told.
	NoticeIsTerminal bool
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Defaults returns the zero Config with every field at its default.
func Defaults() Config { return Config{}.withDefaults() }

// withDefaults returns c with every unset field at its default.
func (c Config) withDefaults() Config {
	setDefault(&c.RESTAddr, "127.0.0.1:8080")
	setDefault(&c.GRPCAddr, "127.0.0.1:9090")
	setDefault(&c.DataDir, "data")
	setDefault(&c.Database, sqliteScheme+filepath.Join(c.DataDir, "apikeys.db"))
	setDefault(&c.DatabaseWait, 30*time.Second)
	setDefault(&c.SecretsFile, filepath.Join(c.DataDir, "secrets"))
	setDefault(&c.Env, Development)
	setDefault(&c.ConnectionsMax, 8192)
	setDefault(&c.ConnectionsPerAddress, 1024)
	setDefault(&c.CredentialTimeout, 30*time.Second)
	setDefault(&c.HeaderTimeout, 10*time.Second)
	setDefault(&c.MessageTimeout, 30*time.Second)
	setDefault(&c.AnswerTimeout, time.Minute)
	setDefault(&c.AnswerBytesMax, 256<<20)
	setDefault(&c.AnswerBytesPerCaller, 64<<20)
	setDefault(&c.CallsMax, 32_768)
	setDefault(&c.CallsPerCaller, 16_384)
	setDefault(&c.FailuresPerSecond, 100)
	setDefault(&c.AbsentScopes, AbsentScopesNone)
	setDefault(&c.ExpiringNotice, 7*24*time.Hour)
	setDefault(&c.EventRetention, 30*24*time.Hour)
	setDefault(&c.DeliveryRetention, min(30*24*time.Hour, c.EventRetention))
	setDefault(&c.HourlyUsageRetention, 30*24*time.Hour)
	setDefault(&c.DailyUsageRetention, 400*24*time.Hour)
	setDefault(&c.WebhooksDisableAfter, 5*24*time.Hour)
	setDefault(&c.WebhooksMax, 100)
	setDefault(&c.WebhooksInFlight, 8)
	setDefault(&c.WebhooksInFlightHost, 64)
	setDefault(&c.WebhooksInFlightOrganization, 256)
	setDefault(&c.WebhooksMaxBehind, time.Minute)
	setDefault(&c.ShutdownTimeout, 20*time.Second)
	setDefault(&c.Version, "unknown")
	setDefault(&c.Logger, slog.Default())
	setDefault(&c.Notice, io.Discard)
	if len(c.Scopes) == 0 {
		c.Scopes = apikey.ApplicationScopes()
	}
	if len(c.KeyFormats) == 0 {
		c.KeyFormats = apikey.DefaultKeyFormats()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate returns what is wrong with c, a line for each fault, or nil. It is
// asked after withDefaults and opens nothing.
func (c Config) validate() error {
	var faults []error
	fault := func(setting, format string, args ...any) {
		faults = append(faults, fmt.Errorf(setting+": "+format, args...))
	}
	oneOf := func(setting, value string, words ...string) {
		if !slices.Contains(words, value) {
			fault(setting, "must be %s, not %q", strings.Join(words, " or "), apikey.Excerpt(value))
		}
	}
	together := func(setting, value, other, otherValue string) {
		if (value == "") != (otherValue == "") {
			fault(setting, "must be set together with %s", other)
		}
	}
	if err := checkAddr(c.RESTAddr); err != nil {
		fault("rest_addr", "%w", err)
	}
	if err := checkAddr(c.GRPCAddr); err != nil {
		fault("grpc_addr", "%w", err)
	}
	if c.RESTAddr == c.GRPCAddr && !strings.HasSuffix(c.RESTAddr, ":0") {
		fault("grpc_addr", "must not be rest_addr, %s", c.RESTAddr)
	}
	c.checkDatabase(fault)
	if !c.RootToken.IsZero() && c.RootTokenFile != "" {
		fault("root_token", "must not be set together with root_token_file")
	} else if !c.RootToken.IsZero() {
		if err := c.checkToken(c.RootToken); err != nil {
			fault("root_token", "%w", err)
		}
	}
	oneOf("env", c.Env, Development, Production)
	oneOf("absent_scopes", c.AbsentScopes, AbsentScopesNone, AbsentScopesAll)
	together("tls_cert", c.TLSCert, "tls_key", c.TLSKey)
	if c.Plaintext && c.TLSCert != "" {
		fault("plaintext", "must not be set together with tls_cert: TLS ends either here or in front")
	}
	for _, p := range c.TrustedProxies {
		if !p.IsValid() {
			fault("trusted_proxies", "holds a range that is none")
		}
	}
	c.checkBounds(fault)
	if err := checkCatalogue(c.Scopes); err != nil {
		fault("scopes", "%w", err)
	}
	if err := c.KeyFormats.Check(); err != nil {
		fault("key_formats", "%w", err)
	}
	if most := 366 * 24 * time.Hour; c.ExpiringNotice > most {
		fault("expiring_notice", "must be at most 366 days")
	}
	if c.EventRetention < time.Minute {
		fault("event_retention", "must be at least a minute")
	}
	if c.HourlyUsageRetention < time.Hour {
		fault("hourly_usage_retention", "must be at least an hour")
	}
	if c.DailyUsageRetention < 24*time.Hour {
		fault("daily_usage_retention", "must be at least a day")
	}
	// A day answers for its hours.
	if c.DailyUsageRetention < c.HourlyUsageRetention {
		fault("daily_usage_retention", "must not be shorter than hourly_usage_retention")
	}
	if c.DeliveryRetention < time.Minute {
		fault("delivery_retention", "must be at least a minute")
	}
	// A delivery's body is made of its event.
	if c.DeliveryRetention > c.EventRetention {
		fault("delivery_retention", "must not be longer than event_retention")
	}
	for _, p := range c.WebhooksAllowNetworks {
		if !p.IsValid() {
			fault("webhooks_allow_networks", "holds a range that is none")
		}
	}
	for _, d := range c.WebhooksDelays {
		if d <= 0 || d > 7*24*time.Hour {
			fault("webhooks_delays", "must be times of up to 7 days")
		}
	}
	if c.WebhooksDisableAfter < time.Minute {
		fault("webhooks_disable_after", "must be at least a minute")
	}
	if c.KeysMax < 0 {
		fault("keys_max", "must not be negative")
	}
	if c.WebhooksMax < 1 || c.WebhooksMax > 10_000 {
		fault("webhooks_max", "must be 1 to 10,000")
	}
	if c.WebhooksInFlight < 1 || c.WebhooksInFlight > 256 {
		fault("webhooks_in_flight", "must be 1 to 256")
	}
	if c.WebhooksInFlightHost < 1 || c.WebhooksInFlightHost > 4096 {
		fault("webhooks_in_flight_host", "must be 1 to 4,096")
	}
	if c.WebhooksInFlightOrganization < 1 || c.WebhooksInFlightOrganization > 4096 {
		fault("webhooks_in_flight_organization", "must be 1 to 4,096")
	}
	if c.WebhooksMaxBehind < time.Second {
		fault("webhooks_max_behind", "must be at least a second")
	}
	if c.ShutdownDelay < 0 || c.ShutdownDelay > 10*time.Minute {
		fault("shutdown_delay", "must be 0 to 10 minutes")
	}
	if c.ShutdownTimeout < 0 {
		fault("shutdown_timeout", "must not be negative")
	}
	return errors.Join(faults...)
}

// checkCatalogue reports the first scope that cannot be one.
func checkCatalogue(scopes []string) error {
	for i, s := range scopes {
		switch {
		case s == apikey.AllScopes:
			return errors.New("must not name *, which stands for all of them")
		case s == "" || len(s) > 128:
			return fmt.Errorf("must have 1 to 128 characters each; number %d has %d", i+1, len(s))
		case strings.ContainsFunc(s, notInScope):
			return fmt.Errorf("may hold only letters, digits and _ . : - /, unlike %q", apikey.Excerpt(s))
		case slices.Contains(scopes[:i], s):
			return fmt.Errorf("names %s twice", apikey.Excerpt(s))
		}
	}
	return nil
}

func notInScope(r rune) bool {
	letterOrDigit := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letterOrDigit && !strings.ContainsRune("_.:-/", r)
}
