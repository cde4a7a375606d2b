package server

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
)

func TestZeroConfigIsValid(t *testing.T) {
	t.Parallel()
	c := Config{}.withDefaults()
	if err := c.validate(); err != nil {
		t.Error(err)
	}
	if got, want := c.Database, "sqlite:data/apikeys.db"; got != want {
		t.Errorf("database %q, want %q", got, want)
	}
	c = Config{DataDir: "/var/lib/apikeys"}.withDefaults()
	if c.Database != "sqlite:/var/lib/apikeys/apikeys.db" || c.SecretsFile != "/var/lib/apikeys/secrets" {
		t.Errorf("the data directory is not followed: %q, %q", c.Database, c.SecretsFile)
	}
}

const likeAKey = "must not have the form of an API key's secret, a prefix and 49 characters"

func TestFaultsOfAConfig(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		config Config
		want   string
	}{
		{"no port", Config{RESTAddr: "8080"}, `rest_addr: must be host:port, such as 127.0.0.1:8080 or [::1]:8080, not "8080"`},
		{"a port by name", Config{GRPCAddr: ":http"}, `grpc_addr: must end in a port of 0 to 65535, not "http"`},
		{"a large port", Config{GRPCAddr: ":65536"}, `grpc_addr: must end in a port of 0 to 65535, not "65536"`},
		{"bare IPv6", Config{GRPCAddr: "::1"}, `grpc_addr: must be host:port, such as 127.0.0.1:8080 or [::1]:8080, not "::1"`},
		{"one address for both", Config{RESTAddr: ":1", GRPCAddr: ":1"}, `grpc_addr: must not be rest_addr, :1`},
		{"PostgreSQL without a root token", Config{Database: "postgres://u:hunter2@h/d"}, `root_token: must be set with PostgreSQL, itself or by root_token_file`},
		{"a malformed URL of PostgreSQL", Config{Database: "postgres://u:hunter2@h:x/d", RootTokenFile: "f"}, `database: must be postgres://<user>@<host>:<port>/<database>`},
		{"PgBouncer alone", Config{Database: "postgres://u:hunter2@h/d?pgbouncer=true", RootTokenFile: "f"}, `database_direct: must be set where database has pgbouncer=true: the URL of the same database without PgBouncer`},
		{"PgBouncer around PgBouncer", Config{Database: "postgres://h/d", DatabaseDirect: "postgres://u:hunter2@h/d?pgbouncer=true", RootTokenFile: "f"}, `database_direct: must not have pgbouncer=true: it is the way around PgBouncer`},
		{"a direct way to a file", Config{DatabaseDirect: "postgres://u:hunter2@h/d"}, `database_direct: is for PostgreSQL alone, and database names a file of SQLite`},
		{"the password of a file", Config{DatabasePasswordFile: "f"}, `database_password_file: is for PostgreSQL alone, and database names a file of SQLite`},
		{"a long wait", Config{DatabaseWait: 2 * time.Hour}, `database_wait: must be at most an hour`},
		{"a bare path", Config{Database: "data/x.db"}, `database: must be sqlite:<path>, such as sqlite:data/apikeys.db, or postgres://<user>@<host>:<port>/<database>`},
		{"in memory", Config{Database: "sqlite::memory:"}, `database: must name a file after sqlite:; a database in memory would lose its keys`},
		{"no path", Config{Database: "sqlite:"}, `database: must name a file after sqlite:; a database in memory would lose its keys`},
		{"slashes", Config{Database: "sqlite:///x.db"}, `database: must be sqlite:<path> without //, such as sqlite:data/apikeys.db or sqlite:/var/lib/apikeys.db`},
		{"options", Config{Database: "sqlite:x.db?mode=ro"}, `database: must be sqlite:<path> without options`},
		{"both tokens", Config{RootToken: masked.New("x"), RootTokenFile: "f"}, `root_token: must not be set together with root_token_file`},
		{"a short token", Config{RootToken: masked.New("hunter2")}, `root_token: must have at least 24 characters, not 7`},
		{"a long token", Config{RootToken: masked.New(strings.Repeat("x", 513))}, `root_token: must have at most 512 characters`},
		{"a token with spaces", Config{RootToken: masked.New("correct horse battery staple")}, `root_token: may hold only visible ASCII characters, no spaces`},
		{"env", Config{Env: "prod"}, `env: must be development or production, not "prod"`},
		{"absent scopes", Config{AbsentScopes: "some"}, `absent_scopes: must be none or all, not "some"`},
		{"a certificate alone", Config{TLSCert: "c"}, `tls_cert: must be set together with tls_key`},
		{"a key alone", Config{TLSKey: "k"}, `tls_cert: must be set together with tls_key`},
		{"plaintext and TLS", Config{TLSCert: "c", TLSKey: "k", Plaintext: true}, `plaintext: must not be set together with tls_cert: TLS ends either here or in front`},
		{"no range", Config{TrustedProxies: []netip.Prefix{{}}}, `trusted_proxies: holds a range that is none`},
		{"the star in the catalogue", Config{Scopes: []string{"a", "*"}}, `scopes: must not name *, which stands for all of them`},
		{"an empty scope", Config{Scopes: []string{"a", ""}}, `scopes: must have 1 to 128 characters each; number 2 has 0`},
		{"a strange scope", Config{Scopes: []string{"a b"}}, `scopes: may hold only letters, digits and _ . : - /, unlike "a b"`},
		{"a scope twice", Config{Scopes: []string{"a", "b", "a"}}, `scopes: names a twice`},
		{"a format without a mode", Config{KeyFormats: apikey.KeyFormats{{Name: "a", Prefix: "a_"}}}, `key_formats: number 1 has the mode ""; a mode is live or test`},
		{"a reserved format", Config{KeyFormats: apikey.KeyFormats{{Name: "a", Prefix: "root_a_", Mode: "live"}}},
			`key_formats: number 1 has the prefix root_a_; what begins with root_, opt_, whsec_, api_key_, webhook_, event_, delivery_, support_, request_, operator_, refusal_ is reserved for other tokens and ids`},
		{"a token like a key", Config{RootToken: masked.New("sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2LOcWk")}, `root_token: ` + likeAKey},
		{"a token as a URI", Config{RootToken: masked.New("secret-token:correct-horse-battery")}, `root_token: must not begin with secret-token:, which is taken off wherever a credential comes in`},
		{"a token like a key of any prefix", Config{RootToken: masked.New("acme_" + strings.Repeat("0", 49))}, `root_token: ` + likeAKey},
		{"a token that begins like a key", Config{RootToken: masked.New("sk_test_" + strings.Repeat("0", 16))}, `root_token: must not begin with sk_test_, as the secrets of API keys do`},
		{"a token of one's own prefix", Config{RootToken: masked.New("acme_" + strings.Repeat("0", 50)), KeyFormats: apikey.KeyFormats{{Name: "a", Prefix: "acme_", Mode: "live"}}},
			`root_token: must not begin with acme_, as the secrets of API keys do`},
		{"years of notice", Config{ExpiringNotice: 1 << 62}, `expiring_notice: must be at most 366 days`},
		{"days of less than their hours", Config{DailyUsageRetention: 29 * 24 * time.Hour}, `daily_usage_retention: must not be shorter than hourly_usage_retention`},
		{"two faults", Config{Env: "x", Scopes: []string{"*"}}, "env: must be development or production, not \"x\"\nscopes: must not name *, which stands for all of them"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := c.config.withDefaults().validate()
			if err == nil {
				t.Fatal("no error")
			}
			if err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
		})
	}
}

func TestAcceptedConfigs(t *testing.T) {
	t.Parallel()
	cases := map[string]Config{
		"free ports":        {RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0"},
		"IPv6":              {RESTAddr: "[::1]:8080", GRPCAddr: "[::]:9090"},
		"names":             {RESTAddr: "localhost:8080", GRPCAddr: ":9090"},
		"an absolute path":  {Database: "sqlite:/var/lib/a b/apikeys.db"},
		"a small catalogue": {Scopes: []string{"documents:read", "documents/write"}},
		"no notice":         {ExpiringNotice: -1},
		"a root token":      {RootToken: masked.New("0123456789abcdefABCDEF+/")},
		"one like ours":     {RootToken: masked.New("root_" + strings.Repeat("0", 49))},
		"no key's length":   {RootToken: masked.New("acme_" + strings.Repeat("0", 50))},
		"one mode alone":    {KeyFormats: apikey.KeyFormats{{Name: "a", Prefix: "a_", Mode: "test"}}},
	}
	for name, c := range cases {
		if err := c.withDefaults().validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRootTokenOfAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("  a-root-token-of-24-characters\n")
	token, err := Config{RootTokenFile: path}.rootToken()
	if err != nil || token.Reveal() != "a-root-token-of-24-characters" {
		t.Errorf("got %q, %v", token.Reveal(), err)
	}
	write("hunter2\n")
	_, err = Config{RootTokenFile: path}.rootToken()
	if want := "root_token_file: the token in " + path + " must have at least 24 characters, not 7"; err == nil || err.Error() != want {
		t.Errorf("a short one: %v", err)
	}
	write("acme_" + strings.Repeat("0", 49))
	_, err = Config{RootTokenFile: path}.rootToken()
	if want := "root_token_file: the token in " + path + " " + likeAKey; err == nil || err.Error() != want {
		t.Errorf("one like a key: %v", err)
	}
	if _, err = (Config{RootTokenFile: path + "x"}).rootToken(); err == nil || !strings.HasPrefix(err.Error(), "root_token_file: open ") {
		t.Errorf("no file: %v", err)
	}
	if token, err := (Config{RootToken: masked.New("t")}).rootToken(); err != nil || token.Reveal() != "t" {
		t.Errorf("without a file: %q, %v", token.Reveal(), err)
	}
}

func TestTokenDoesNotPrint(t *testing.T) {
	t.Parallel()
	const text = "a-root-token-of-24-characters"
	c := Config{RootToken: masked.New(text)}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t", "%b", "%o", "%U", "%e", "%p", "%c", "%w"} {
		// A struct that holds it where fmt calls no methods is printed too.
		if got := fmt.Sprintf(format, c) + fmt.Sprintf(format, c.RootToken) + fmt.Sprintf(format, struct{ c Config }{c}); strings.Contains(got, text) || strings.Contains(got, fmt.Sprintf("%x", text)) {
			t.Errorf("%s prints the token", format)
		}
	}
}
