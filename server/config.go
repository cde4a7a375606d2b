package server

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/identity"
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

	// OpsAddr is the host:port of a listener for operators, with /metrics, /healthz and
	// /readyz, none of which needs a credential: it is for a network that only operators
	// reach. A port alone, and an empty host, mean loopback. Default: no such listener.
	OpsAddr string

	// GateAddr is the host:port of a listener for the gateways of a trusted network,
	// which ask there whether the keys of requests are good, without a credential of
	// their own. Default: no such listener.
	GateAddr string
	// GateTokenFile is a file that holds an access token of an operator alone, white
	// space around it aside, with whose rights keys are verified there. Default: none,
	// which is keys of every organization.
	GateTokenFile string
	// GateRules say what requests need by method and path, a rule each as
	// gate.ParseRule takes it. The first that matches counts; a request that none
	// matches is refused. Default: none, and every request needs what its gateway asks.
	GateRules []string
	// CredentialHeaders are where requests that gateways ask about carry their keys, in
	// the order in which they are looked at, as gate.ParseSources takes them. Default:
	// Authorization and X-API-Key.
	CredentialHeaders []string
	// CredentialQuery is a parameter of the query that may carry the key besides. It
	// shows keys to every log that has the URL. Default: none.
	CredentialQuery string

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
	// Unnotified keeps the server from telling others that share its PostgreSQL database
	// of its changes, and from hearing of theirs, so that all find them by looking. It
	// is for tests.
	Unnotified bool
	// Force starts on a database that was moved to another, from what it was then, and
	// takes the mark of that away. Without it such a database is an error.
	Force bool
	// SecretsFile is the path of the file with the peppers and encryption keys,
	// without which the database is worthless. Default: secrets in DataDir.
	SecretsFile string

	// RootToken is the token that may do everything, of 24 characters or more. Where
	// it is set, no other root token is good; where neither it nor RootTokenFile
	// is, the first start makes one and keeps only its hash. Default: none.
	RootToken masked.Text
	// RootTokenFile is a file that holds the root token alone, white space
	// around it aside. It cannot be set together with RootToken. Default: none.
	RootTokenFile string

	// OIDC are the OpenID Connect issuers whose access tokens are taken as credentials of
	// people and workloads. Default: none.
	OIDC []identity.Issuer

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
	// OperatorTokensMax is how many access tokens of operators may be made with the root
	// token, by each person, and by each token that was made with the root token, together
	// with the tokens that it has made. Zero means 1,000.
	OperatorTokensMax int
	// IdempotencyRetention is how long the answer of a call with an idempotency key is
	// kept, and given again. Zero means 24 hours; at least a minute, 30 days at most.
	IdempotencyRetention time.Duration
	// IdempotencyMax is how many such answers an organization may have kept, and
	// IdempotencyBytesMax how many bytes of them. Zero means 100,000 and 256 MiB.
	IdempotencyMax, IdempotencyBytesMax int64
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

	// RefusalRetention is how long refused uses of keys are kept. Zero means 30 days; at
	// least a minute.
	RefusalRetention time.Duration
	// RefusalsMax is how many of them are kept, of all keys together. Zero means
	// 1,000,000.
	RefusalsMax int

	// ShutdownDelay is how long a stopping server serves on, while it says that it
	// is not ready, so that those who ask about that send their calls elsewhere. At
	// most 10 minutes. Default: none.
	ShutdownDelay time.Duration
	// ShutdownTimeout is how long a stopping server waits for calls and
	// deliveries under way before it cuts them off. Default: 20 seconds, so that
	// a stop is over within 30.
	ShutdownTimeout time.Duration

	// NoDocs leaves the page at /docs out. Default: it is served; with Env development
	// calls can be made from it.
	NoDocs bool
	// Version is what the log and the OpenAPI document call the program. Default: unknown.
	Version string
	// Logger gets what an operator should know. Nil means slog.Default().
	Logger *slog.Logger
	// Notice is where a new root token, or the path of its file, is shown. Nil
	// means nowhere; the token is in its file then.
	Notice io.Writer
	// NoticeIsTerminal says that a person reads Notice. Only then is the token
	// itself written to it; else the token goes to a file and its path is told.
	NoticeIsTerminal bool
	// Now is the clock. Nil means time.Now, and on PostgreSQL the database's time.
	Now func() time.Time
	// systemClock reports that Now was not given.
	systemClock bool
	// Machine is the clocks of the machine, by which the database's time goes on from
	// one look at it to the next. The zero value means those of the system; others are
	// for tests.
	Machine feed.Machine
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
	setDefault(&c.OperatorTokensMax, 1000)
	setDefault(&c.IdempotencyRetention, 24*time.Hour)
	setDefault(&c.IdempotencyMax, 100_000)
	setDefault(&c.IdempotencyBytesMax, 256<<20)
	setDefault(&c.ExpiringNotice, 7*24*time.Hour)
	setDefault(&c.EventRetention, 30*24*time.Hour)
	setDefault(&c.DeliveryRetention, min(30*24*time.Hour, c.EventRetention))
	setDefault(&c.HourlyUsageRetention, 30*24*time.Hour)
	setDefault(&c.DailyUsageRetention, 400*24*time.Hour)
	setDefault(&c.RefusalRetention, 30*24*time.Hour)
	setDefault(&c.RefusalsMax, 1_000_000)
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
	if len(c.CredentialHeaders) == 0 {
		c.CredentialHeaders = slices.Clone(defaultCredentialHeaders)
	}
	if c.Now == nil {
		c.Now, c.systemClock = time.Now, true
	}
	return c
}

// Check returns c with every unset field at its default, and an error that names all
// faults at once. New checks the same, so this is for whoever wants to know before.
func (c Config) Check() (Config, error) {
	c = c.withDefaults()
	return c, c.validate()
}

// CheckFiles reports what is wrong with the files that the settings name and a start
// reads: certificates and tokens.
func (c Config) CheckFiles() error {
	faults := []error{nil, nil, nil}
	if c.TLSCert != "" {
		faults[0] = (&servingCertificate{certFile: c.TLSCert, keyFile: c.TLSKey}).reload()
	}
	_, faults[1] = c.rootToken()
	_, faults[2] = c.gateToken()
	return errors.Join(faults...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
