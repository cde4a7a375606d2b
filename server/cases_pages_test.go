package server_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// row is what the rows of all lists have in common.
type row interface{ GetId() string }

// list is a list of the API, over gRPC and over REST.
type list struct {
	path string
	grpc func(t *testing.T, w *harness, token string) (resp proto.Message, ids []string, next string)
}

func idsOf[R row](rows []R) (ids []string) {
	for _, r := range rows {
		ids = append(ids, r.GetId())
	}
	return ids
}

// must returns m of a call that has to succeed.
func must[M any](t *testing.T) func(m M, err error) M {
	return func(m M, err error) M {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
}

var lists = map[string]list{
	"keys": {keysPath, func(t *testing.T, w *harness, token string) (proto.Message, []string, string) {
		r := must[*apikeysv1.ListApiKeysResponse](t)(w.Keys.ListApiKeys(w.Context(t.Context()),
			&apikeysv1.ListApiKeysRequest{PageSize: 1000, PageToken: token}))
		return r, idsOf(r.GetApiKeys()), r.GetNextPageToken()
	}},
	"keys of a filter": {keysPath + "?q=page", func(t *testing.T, w *harness, token string) (proto.Message, []string, string) {
		r := must[*apikeysv1.ListApiKeysResponse](t)(w.Keys.ListApiKeys(w.Context(t.Context()),
			&apikeysv1.ListApiKeysRequest{PageSize: 1000, PageToken: token, Q: "page"}))
		return r, idsOf(r.GetApiKeys()), r.GetNextPageToken()
	}},
	"events": {"/developers/events", func(t *testing.T, w *harness, token string) (proto.Message, []string, string) {
		r := must[*apikeysv1.ListEventsResponse](t)(apikeysv1.NewEventsServiceClient(w.Conn).ListEvents(w.Context(t.Context()),
			&apikeysv1.ListEventsRequest{PageSize: 1000, PageToken: token}))
		return r, idsOf(r.GetEvents()), r.GetNextPageToken()
	}},
	"events of a filter": {"/developers/events?types=api_key.created&types=webhook.created&types=webhook.test", func(t *testing.T, w *harness, token string) (proto.Message, []string, string) {
		r := must[*apikeysv1.ListEventsResponse](t)(apikeysv1.NewEventsServiceClient(w.Conn).ListEvents(w.Context(t.Context()),
			&apikeysv1.ListEventsRequest{PageSize: 1000, PageToken: token, Types: []string{"api_key.created", "webhook.created", "webhook.test"}}))
		return r, idsOf(r.GetEvents()), r.GetNextPageToken()
	}},
	"webhooks": {hooksPath, func(t *testing.T, w *harness, token string) (proto.Message, []string, string) {
		r := must[*apikeysv1.ListWebhooksResponse](t)(apikeysv1.NewWebhooksServiceClient(w.Conn).ListWebhooks(w.Context(t.Context()),
			&apikeysv1.ListWebhooksRequest{PageSize: 1000, PageToken: token}))
		return r, idsOf(r.GetWebhooks()), r.GetNextPageToken()
	}},
	"deliveries": {queuePath, func(t *testing.T, w *harness, token string) (proto.Message, []string, string) {
		r := must[*apikeysv1.ListDeliveriesResponse](t)(apikeysv1.NewWebhooksServiceClient(w.Conn).ListDeliveries(w.Context(t.Context()),
			&apikeysv1.ListDeliveriesRequest{PageSize: 1000, PageToken: token}))
		return r, idsOf(r.GetDeliveries()), r.GetNextPageToken()
	}},
	"deliveries of a filter": {queuePath + "?event=webhook.test", func(t *testing.T, w *harness, token string) (proto.Message, []string, string) {
		r := must[*apikeysv1.ListDeliveriesResponse](t)(apikeysv1.NewWebhooksServiceClient(w.Conn).ListDeliveries(w.Context(t.Context()),
			&apikeysv1.ListDeliveriesRequest{PageSize: 1000, PageToken: token, Event: "webhook.test"}))
		return r, idsOf(r.GetDeliveries()), r.GetNextPageToken()
	}},
}

// fillLists makes 100 of each resource, as large as they can be, and returns the
// id of a delivery that was attempted 250 times.
func fillLists(t *testing.T, w *harness) (delivery string) {
	t.Helper()
	w.onSQLite(t)
	quotes := strings.Repeat(`\"`, 2000) // two bytes each in JSON, one in protobuf
	wide := strings.Repeat("\U0001f511", 2000)
	label := wide[:4*200]
	for i := range 100 {
		w.Call(t, "POST", keysPath, fmt.Sprintf(`{"label": "page %d %s", "description": "%s", "metadata": {"a": "%[4]s%[4]s%[4]s"}}`, i, label, wide, quotes)).Into(t, new(any))
		w.Call(t, "POST", hooksPath, fmt.Sprintf(`{"label": "page %d %s", "description": "%s", "url": "https://192.0.2.1.example/%s", "events": ["api_key.expired"]}`,
			i, label, wide, strings.Repeat("u", 1900))).Into(t, new(any))
	}
	var hooks []struct{ ID string }
	w.Call(t, "GET", hooksPath+"?page_size=1", "").Into(t, &hooks)
	var made struct{ ID string }
	w.Call(t, "POST", hooksPath+"/"+hooks[0].ID+"/test", "").Into(t, &made)

	db, err := sql.Open("sqlite3", "file:"+filepath.Join(w.Dir, "apikeys.db")+"?_busy_timeout=10000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	columns := w.column(t, "SELECT name FROM pragma_table_info('deliveries')")
	insert := "INSERT INTO deliveries (" + strings.Join(columns, ",") + ") SELECT " + strings.Join(columns, ",") + " FROM deliveries WHERE id = ?"
	for _, as := range []string{"?2 AS id", "?3 AS event_position", "'delivered' AS state", "NULL AS due_at", "NULL AS next_attempt_at", "500 AS response_status", "?4 AS response_body", "250 AS attempts"} {
		_, column, _ := strings.Cut(as, " AS ")
		head, tail, _ := strings.Cut(insert, "SELECT ")
		insert = head + "SELECT " + strings.Replace(","+tail, ","+column, ","+as, 1)[1:]
	}
	insert = strings.Replace(insert, "id = ?", "id = ?1", 1)
	for i := range 300 {
		body := strings.Repeat([]string{"\x01", "\xff", "a"}[i%3], 16<<10)
		delivery = apikey.NewID("delivery_")
		exec(insert, made.ID, delivery, -i-1, body)
	}
	for n := range 250 {
		exec(`INSERT INTO delivery_attempts (delivery_id, number, url, "trigger", started_at, duration, response_status, response_body, error_class, error_message)
			VALUES (?, ?, 'https://example.com/', 'schedule', 0, 0, 500, ?, 'http_status', 'x')`, delivery, n+1, strings.Repeat("\xff", 16<<10))
	}
	return delivery
}

// TestPagesEnd fills every list with the largest rows there can be and reads it
// whole: no page is larger than about 1 MiB, over REST and for a gRPC client that
// takes no more than its default of 4 MiB, and nothing is missing or twice.
func TestPagesEnd(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	delivery := fillLists(t, w)
	const largest = 1<<20 + 4<<10 // the envelope, or the token, besides
	for name, l := range lists {
		t.Run(name+" over gRPC", func(t *testing.T) {
			seen := new(pages)
			for token, more := "", true; more; more = token != "" {
				var resp proto.Message
				var ids []string
				resp, ids, token = l.grpc(t, w, token)
				seen.add(t, ids, proto.Size(resp), largest)
			}
			seen.end(t)
		})
		t.Run(name+" over REST", func(t *testing.T) {
			path, query, _ := strings.Cut(l.path, "?")
			seen := new(pages)
			for token, more := "", true; more; more = token != "" {
				a := w.Call(t, "GET", path+"?"+query+"&page_size=1000&page_token="+url.QueryEscape(token), "")
				var rows []struct{ ID string }
				a.Into(t, &rows)
				var ids []string
				for _, r := range rows {
					ids = append(ids, r.ID)
				}
				token = a.Header.Get("X-Next-Page-Token")
				seen.add(t, ids, len(a.Body), largest)
			}
			seen.end(t)
		})
	}
	t.Run("attempts", func(t *testing.T) { wantAttempts(t, w, delivery) })
}

// pages is what the pages of a list held so far.
type pages struct {
	n   int
	ids map[string]bool
}

func (p *pages) add(t *testing.T, ids []string, bytes, largest int) {
	t.Helper()
	if bytes > largest {
		t.Errorf("page %d with %d rows has %d bytes", p.n, len(ids), bytes)
	}
	if p.ids == nil {
		p.ids = make(map[string]bool)
	}
	for _, id := range ids {
		if p.ids[id] {
			t.Errorf("%s is there twice", id)
		}
		p.ids[id] = true
	}
	if p.n++; p.n > 300 || len(ids) == 0 {
		t.Fatalf("page %d has %d rows", p.n, len(ids))
	}
}

func (p *pages) end(t *testing.T) {
	t.Helper()
	if p.n < 2 || len(p.ids) < 100 {
		t.Errorf("%d pages with %d rows; want 100 rows or more on several pages", p.n, len(p.ids))
	}
}

// wantAttempts reads a delivery with more attempts than are shown.
func wantAttempts(t *testing.T, w *harness, id string) {
	resp, err := apikeysv1.NewWebhooksServiceClient(w.Conn).GetDelivery(w.Context(t.Context()), &apikeysv1.GetDeliveryRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int32
	for _, a := range resp.GetDelivery().GetAttempts() {
		numbers = append(numbers, a.GetNumber())
	}
	if n := len(numbers); n != 100 || numbers[9] != 10 || numbers[10] != 161 || numbers[99] != 250 {
		t.Errorf("%d attempts %v", n, numbers)
	}
	var rest struct {
		AttemptsTotal int `json:"attempts_total"`
		Attempts      []json.RawMessage
	}
	w.Call(t, "GET", queuePath+"/"+id, "").Into(t, &rest)
	if got := resp.GetDelivery().GetAttemptsTotal(); got != 250 || rest.AttemptsTotal != 250 || len(rest.Attempts) != 100 {
		t.Errorf("%d attempts in all over gRPC; over REST %d, %d shown", got, rest.AttemptsTotal, len(rest.Attempts))
	}
}
