package server_test

import (
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/clock"
)

// A scenario is steps that build on each other. It is played twice on one server,
// through gRPC and through REST, and what it promises holds of both.
type scenario []step

// A step is one call and what has to come of it. Texts may hold $name.field, a
// field of what an earlier step saved, and $in(1h), the time that far from now.
type step struct {
	after time.Duration // how far the clock is put on before the call
	rpc   string
	id    string // of the key, where the RPC takes one
	body  string // as REST has it; the query of a list
	verb  string // PUT for an update that is one; default: the RPC's own
	match string // If-Match, over gRPC the etag
	as    string // the credential; default: the operator's token, "-" for none
	head  string // further headers, a line each

	save  string // the name under which the answer is kept
	want  string // the reason of the failure; default: success
	field string // the names that the validator holds, in any order
	data  string // JSON that the answer's data holds; further fields are not looked at
	retry int    // the seconds after which it can be tried again, -1 for no time; default: not looked at
	makes string // the events of a call for many keys, by their types; default: those of the RPC
	quiet bool   // a change that leaves everything as it was: no event
	only  string // the one protocol that has such a request; default: both
}

// reasons are what the contract says of each failure: the HTTP status and the
// gRPC code.
var reasons = map[string]struct {
	status int
	code   string
}{
	"":                   {200, "OK"},
	"INVALID_ARGUMENT":   {400, "InvalidArgument"},
	"MALFORMED_JSON":     {400, ""},
	"API_KEY_REVOKED":    {400, "FailedPrecondition"},
	"API_KEY_EXPIRED":    {400, "FailedPrecondition"},
	"UNAUTHENTICATED":    {401, "Unauthenticated"},
	"WRONG_ORGANIZATION": {403, "PermissionDenied"},
	"IP_NOT_ALLOWED":     {403, "PermissionDenied"},
	"INSUFFICIENT_SCOPE": {403, "PermissionDenied"},
	"EXCEEDS_CALLER":     {403, "PermissionDenied"},
	"OWN_LIMITS":         {403, "PermissionDenied"},
	"PREVIOUS_SECRET":    {403, "PermissionDenied"},
	"PERMISSION_DENIED":  {403, "PermissionDenied"},
	"API_KEY_NOT_FOUND":  {404, "NotFound"},

	"OPERATOR_TOKEN_NOT_FOUND": {404, "NotFound"},
	"OPERATOR_TOKEN_EXPIRED":   {400, "FailedPrecondition"},
	"TOO_MANY_OPERATOR_TOKENS": {400, "FailedPrecondition"},

	"WEBHOOK_NOT_FOUND":    {404, "NotFound"},
	"DELIVERY_NOT_FOUND":   {404, "NotFound"},
	"WEBHOOK_DISABLED":     {400, "FailedPrecondition"},
	"TOO_MANY_WEBHOOKS":    {400, "FailedPrecondition"},
	"DELIVERY_NOT_PENDING": {400, "FailedPrecondition"},

	"NO_KEY_FORMAT":        {400, "FailedPrecondition"},
	"TOO_MANY_KEYS":        {400, "FailedPrecondition"},
	"TOO_MANY_SECRETS":     {409, "AlreadyExists"},
	"ETAG_MISMATCH":        {409, "Aborted"},
	"ROTATION_IN_PROGRESS": {409, "Aborted"},

	"EXTERNAL_ID_TAKEN":       {409, "AlreadyExists"},
	"IDEMPOTENCY_IN_PROGRESS": {409, "Aborted"},
	"IDEMPOTENCY_KEY_REUSED":  {422, "FailedPrecondition"},
	"IDEMPOTENCY_LIMIT":       {429, "ResourceExhausted"},

	"RATE_LIMITED":   {429, "ResourceExhausted"},
	"QUOTA_EXCEEDED": {429, "ResourceExhausted"},
	"UNAVAILABLE":    {503, "Unavailable"},
}

// endNow is the body of a rotation that ends the old secret.
const endNow = `{"overlap_seconds": 0}`

// events names the event of each RPC that changes something.
var events = map[string]string{
	"CreateApiKey": "api_key.created", "UpdateApiKey": "api_key.updated", "RotateApiKey": "api_key.rotated",
	"RevokeApiKey": "api_key.revoked", "DeleteApiKey": "api_key.deleted",
	"CreateOperatorToken": "operator_token.created", "UpdateOperatorToken": "operator_token.updated",
	"RotateOperatorToken": "operator_token.rotated", "DeleteOperatorToken": "operator_token.deleted",
	"CreateWebhook": "webhook.created", "UpdateWebhook": "webhook.updated", "DeleteWebhook": "webhook.deleted",
	"RotateWebhookSecret": "webhook.secret_rotated", "TestWebhook": "webhook.test",
}

// An answer is what came back, in the form that both protocols can be compared in.
type answer struct {
	status    int
	code      string // of gRPC
	reason    string
	text      string // the sentence of a failure
	validator map[string]string
	data      any
	retry     int // seconds
	next      string
}

// A harness is a server with a clock that only tests move.
type harness struct {
	*servertest.Server
	clock *clock.Clock
	db    *sql.DB // a reader of the server's database
	saved map[string]string

	// client, trust and http2 are how REST is spoken: see eachRESTProtocol.
	client *http.Client
	trust  *tls.Config // nil without TLS
	http2  bool
}

// start is when every harness begins: the day of the vendor's samples.
var start = time.Date(2025, 6, 30, 15, 0, 22, 0, time.UTC)

func newHarness(t *testing.T, change ...func(*server.Config)) *harness {
	t.Helper()
	w := &harness{clock: clock.At(start), saved: map[string]string{}}
	// The endpoints of webhooks are names that nobody has. Where it takes long to find
	// that out, a stop is not to wait for it.
	quick := func(c *server.Config) { c.ShutdownTimeout = time.Second }
	clocked := func(c *server.Config) { c.Now = w.clock.Now }
	w.Server = servertest.Start(t, append(append([]func(*server.Config){quick}, change...), clocked)...)
	w.client = w.Server.Client
	w.db = w.OpenDatabase(t)
	return w
}

// newHarnessIn starts a server again in the directory of one that has stopped.
func newHarnessIn(t *testing.T, dir string) *harness {
	t.Helper()
	return newHarness(t, func(c *server.Config) { c.DataDir = dir })
}

// play runs scenarios over both protocols.
func (w *harness) play(t *testing.T, scenarios map[string]scenario) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(scenarios)) {
		for _, protocol := range []string{"rest", "grpc"} {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				for i, s := range scenarios[name] {
					if !w.take(t, fmt.Sprintf("step %d, %s", i+1, s.rpc), protocol, s) {
						return // the rest builds on it
					}
				}
			})
		}
	}
}

// take makes one step and reports whether it went as it should.
func (w *harness) take(t *testing.T, name, protocol string, s step) bool {
	t.Helper()
	if s.only != "" && s.only != protocol {
		return true
	}
	w.clock.Advance(s.after)
	for _, text := range []*string{&s.id, &s.body, &s.match, &s.as, &s.head, &s.data} {
		*text = w.fill(*text)
	}
	before := w.events(t)
	var a answer
	if protocol == "rest" {
		a = w.rest(t, s)
	} else {
		a = w.grpc(t, s)
	}
	want := reasons[s.want]
	ok := a.reason == s.want
	if ok = ok && (protocol == "grpc" || a.status == want.status) && (protocol == "rest" || a.code == want.code); !ok {
		t.Errorf("%s: got %d %s %s %q %v, want %d %s %s", name, a.status, a.code, a.reason, a.text, a.validator, want.status, want.code, s.want)
	}
	fields := strings.Fields(s.field)
	slices.Sort(fields)
	if got := slices.Sorted(maps.Keys(a.validator)); !slices.Equal(got, fields) {
		t.Errorf("%s: validator %q, want %q", name, a.validator, fields)
		ok = false
	}
	if s.data != "" {
		var part any
		if err := json.Unmarshal([]byte(s.data), &part); err != nil {
			t.Fatalf("%s: %v in %s", name, err, s.data)
		}
		if diff := cmp.Diff(part, within(part, a.data)); diff != "" {
			t.Errorf("%s: data (-want +got)\n%s", name, diff)
			ok = false
		}
	}
	if s.retry != 0 && a.retry != max(s.retry, 0) {
		t.Errorf("%s: retry after %d s, want %d", name, a.retry, s.retry)
		ok = false
	}
	made := w.events(t)[len(before):]
	due := strings.Fields(s.makes)
	if s.want == "" && !s.quiet && events[s.rpc] != "" {
		due = []string{events[s.rpc]}
	}
	if !slices.Equal(made, due) && len(made)+len(due) > 0 {
		t.Errorf("%s: events %q, want %q", name, made, due)
		ok = false
	}
	if s.save != "" {
		w.save(s.save, a)
	}
	return ok
}

// within returns what value has where part says something, so that the two can
// be compared.
func within(part, value any) any {
	wanted, isObject := part.(map[string]any)
	have, alsoObject := value.(map[string]any)
	list, isList := part.([]any)
	got, alsoList := value.([]any)
	switch {
	case isObject && alsoObject:
		cut := make(map[string]any)
		for name := range wanted {
			if v, ok := have[name]; ok {
				cut[name] = within(wanted[name], v)
			}
		}
		return cut
	case isList && alsoList && len(list) == len(got):
		cut := make([]any, len(list))
		for i := range list {
			cut[i] = within(list[i], got[i])
		}
		return cut
	}
	return value
}

// save keeps the texts of an answer's first level, and its next page.
func (w *harness) save(name string, a answer) {
	w.saved[name+".next"] = a.next
	fields, _ := a.data.(map[string]any)
	if next, ok := fields["next_page_token"].(string); ok {
		w.saved[name+".next"] = next
	}
	for field, value := range fields {
		if text, ok := value.(string); ok {
			w.saved[name+"."+field] = text
		}
	}
}

var (
	variable = regexp.MustCompile(`\$[a-z]+\.(secret|id|etag|next)`)
	moment   = regexp.MustCompile(`\$in\(([^)]*)\)`)
)

func (w *harness) fill(text string) string {
	text = variable.ReplaceAllStringFunc(text, func(name string) string {
		value, ok := w.saved[name[1:]]
		if !ok {
			return name
		}
		return value
	})
	return moment.ReplaceAllStringFunc(text, func(m string) string {
		d, err := time.ParseDuration(m[len("$in(") : len(m)-1])
		if err != nil {
			return err.Error()
		}
		return w.clock.Now().Add(d).Format(time.DateTime)
	})
}

// events returns the types of all events that changes by callers have caused so far.
func (w *harness) events(t *testing.T) []string {
	t.Helper()
	return w.column(t, "SELECT type FROM events WHERE actor_kind != 'system' AND type != 'root_token.used' ORDER BY id")
}

// onSQLite skips a test that looks into the file of SQLite where the server is on
// PostgreSQL.
func (w *harness) onSQLite(t *testing.T) {
	t.Helper()
	if w.OnPostgres() {
		t.Skip("it looks into the file of SQLite")
	}
}

// changesColumn is the changes of an event as text, on both databases.
const changesColumn = `replace(coalesce(CAST(changes AS text), 'null'), '", "', '","')`

// column returns the one column of a query as text. The query has at most one ?.
func (w *harness) column(t *testing.T, query string, args ...any) []string {
	t.Helper()
	if w.OnPostgres() {
		query = strings.Replace(query, "?", "$1", 1)
	}
	rows, err := w.db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
