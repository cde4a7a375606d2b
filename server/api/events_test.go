package api_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/keyring"
)

// list returns all pages of a list.
func (r *harness) list(req *apikeysv1.ListEventsRequest, pairs ...string) (events []*apikeysv1.Event, pages int) {
	r.Helper()
	for {
		resp, err := r.events.ListEvents(r.as("", pairs...), req)
		r.must(err)
		events = append(events, resp.GetEvents()...)
		pages++
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return events, pages
		}
	}
}

func resources(events []*apikeysv1.Event) (ids []string) {
	for _, e := range events {
		ids = append(ids, e.GetResourceId())
	}
	return ids
}

func TestListEvents(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		var ids []string
		for range 7 {
			ids = append(ids, r.create(&apikeysv1.CreateApiKeyRequest{}).GetId())
		}
		other := r.create(&apikeysv1.CreateApiKeyRequest{}, "x-organization-id", "org_other").GetId()
		_, err := r.keys.RevokeApiKey(r.as(""), &apikeysv1.RevokeApiKeyRequest{Id: ids[2]})
		r.must(err)

		all, pages := r.list(&apikeysv1.ListEventsRequest{PageSize: 3})
		if got, want := resources(all), append(slices.Clone(ids), ids[2]); !slices.Equal(got, want) || pages != 3 {
			t.Errorf("got %v on %d pages, want %v", got, pages, want)
		}
		// A last page that is full has no next.
		if _, pages := r.list(&apikeysv1.ListEventsRequest{PageSize: 4}); pages != 2 {
			t.Errorf("%d pages", pages)
		}
		for name, c := range map[string]struct {
			req  *apikeysv1.ListEventsRequest
			org  string
			want []string
		}{
			"start":                 {&apikeysv1.ListEventsRequest{After: "start"}, "", append(slices.Clone(ids), ids[2])},
			"after":                 {&apikeysv1.ListEventsRequest{After: all[5].GetCursor()}, "", []string{ids[6], ids[2]}},
			"after the last":        {&apikeysv1.ListEventsRequest{After: all[7].GetCursor()}, "", nil},
			"type":                  {&apikeysv1.ListEventsRequest{Types: []string{"api_key.revoked"}}, "", []string{ids[2]}},
			"types":                 {&apikeysv1.ListEventsRequest{Types: []string{"api_key.revoked", "api_key.created"}, PageSize: 1}, "", append(slices.Clone(ids), ids[2])},
			"resource":              {&apikeysv1.ListEventsRequest{ResourceIds: []string{ids[2], "nothing"}}, "", []string{ids[2], ids[2]}},
			"of another":            {&apikeysv1.ListEventsRequest{ResourceIds: []string{other}}, "", nil},
			"other organization":    {&apikeysv1.ListEventsRequest{}, "org_other", []string{other}},
			"all organizations":     {&apikeysv1.ListEventsRequest{PageSize: 2}, "*", append(slices.Clone(ids), other, ids[2])},
			"all, after one's":      {&apikeysv1.ListEventsRequest{After: all[6].GetCursor()}, "*", []string{other, ids[2]}},
			"unknown organization":  {&apikeysv1.ListEventsRequest{}, "org_unknown", nil},
			"token before after":    {&apikeysv1.ListEventsRequest{PageToken: r.cursors.SealPage(6, "org_default", api.ListOf(&apikeysv1.ListEventsRequest{})), After: "nonsense"}, "", []string{ids[6], ids[2]}},
			"heartbeat's of nobody": {&apikeysv1.ListEventsRequest{After: r.cursors.Seal(8, "org_default")}, "", []string{ids[2]}},
		} {
			if c.org == "" {
				c.org = "org_default"
			}
			got, _ := r.list(c.req, "x-organization-id", c.org)
			if diff := cmp.Diff(c.want, resources(got)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	})
}

// The list and the stream show the same event, and it stays what it was.
func TestEventStaysAsItWas(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		s := r.watch(r.as(""), &apikeysv1.WatchEventsRequest{})
		k := r.create(&apikeysv1.CreateApiKeyRequest{Label: "first", OwnerId: "ann", Metadata: map[string]string{"a": "b"}})
		seen := s.event(apikey.KeyCreated)
		s.cancel()
		time.Sleep(time.Hour)
		_, err := r.keys.DeleteApiKey(r.as(""), &apikeysv1.DeleteApiKeyRequest{Id: k.GetId()})
		r.must(err)
		listed, _ := r.list(&apikeysv1.ListEventsRequest{PageSize: 1})
		if diff := cmp.Diff(seen, listed[0], protocmp.Transform(), protocmp.IgnoreFields(&apikeysv1.Event{}, "cursor")); diff != "" {
			t.Error(diff)
		}
		k.Secret = seen.GetApiKey().GetSecret()
		if diff := cmp.Diff(k, seen.GetApiKey(), protocmp.Transform()); diff != "" {
			t.Errorf("the key as it was answered, and in the event: %s", diff)
		}
	})
}

// Each cursor that cannot be used has its own answer, in the list and in the
// stream.
func TestCursorsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		for range 5 {
			r.create(&apikeysv1.CreateApiKeyRequest{})
		}
		deleted, err := r.store.DeleteEventsBefore(r.Context(), time.Now().Add(time.Hour), 3)
		if r.must(err); deleted != 3 {
			t.Fatal(deleted)
		}
		sealer, err := keyring.NewSealer(cursorKey)
		r.must(err)
		otherSealer, err := keyring.NewSealer(keyring.NewKey("c_2", strings.Repeat("x", 32)))
		r.must(err)
		otherDatabase, otherKey := feed.NewCursors("database_2", sealer), feed.NewCursors(databaseID, otherSealer)
		const org = "org_default"
		for name, c := range map[string]struct {
			cursor string
			code   codes.Code
			reason string
		}{
			"forged":             {"AAAAAAAAAAAAAAAA", codes.InvalidArgument, "CURSOR_INVALID"},
			"another word":       {"now", codes.InvalidArgument, "CURSOR_INVALID"},
			"under another key":  {otherKey.Seal(4, org), codes.InvalidArgument, "CURSOR_INVALID"},
			"page token":         {r.cursors.SealPage(4, org, ""), codes.InvalidArgument, "CURSOR_WRONG_PLACE"},
			"other database":     {otherDatabase.Seal(4, org), codes.InvalidArgument, "CURSOR_WRONG_DATABASE"},
			"other organization": {r.cursors.Seal(4, "org_other"), codes.InvalidArgument, "CURSOR_WRONG_ORGANIZATION"},
			"all organizations":  {r.cursors.Seal(4, ""), codes.InvalidArgument, "CURSOR_WRONG_ORGANIZATION"},
			"ahead":              {r.cursors.Seal(6, org), codes.InvalidArgument, "CURSOR_AHEAD"},
			"expired":            {r.cursors.Seal(2, org), codes.OutOfRange, "CURSOR_EXPIRED"},
			"too long":           {strings.Repeat("A", 257), codes.InvalidArgument, "INVALID_ARGUMENT"},
			"at the floor":       {r.cursors.Seal(3, org), codes.OK, ""},
			"at the newest":      {r.cursors.Seal(5, org), codes.OK, ""},
		} {
			t.Log(name)
			check := func(err error) {
				if c.code == codes.OK {
					if err != nil {
						t.Error(err)
					}
					return
				}
				info := checkFailure(t, err, c.code, c.reason)
				oldest := info.GetMetadata()["oldest"]
				if (oldest != "") != (c.code == codes.OutOfRange) {
					t.Errorf("oldest is %q", oldest)
				}
				if oldest != "" {
					resp, err := r.events.ListEvents(r.as(""), &apikeysv1.ListEventsRequest{After: oldest})
					if r.must(err); len(resp.GetEvents()) != 2 {
						t.Errorf("after the oldest: %v", resp)
					}
				}
			}
			_, err := r.events.ListEvents(r.as(""), &apikeysv1.ListEventsRequest{After: c.cursor})
			check(err)
			s := r.open(r.as(""), &apikeysv1.WatchEventsRequest{After: c.cursor})
			_, err = s.Recv()
			check(err)
			s.cancel()
		}
		for name, c := range map[string]struct{ token, reason string }{
			"cursor":  {r.cursors.Seal(4, org), "CURSOR_WRONG_PLACE"},
			"forged":  {"start", "CURSOR_INVALID"},
			"expired": {r.cursors.SealPage(1, org, api.ListOf(&apikeysv1.ListEventsRequest{})), "CURSOR_EXPIRED"},
			"filters": {r.cursors.SealPage(4, org, api.ListOf(&apikeysv1.ListEventsRequest{Actor: "a"})), "CURSOR_WRONG_LIST"},
			"ahead":   {r.cursors.SealPage(6, org, api.ListOf(&apikeysv1.ListEventsRequest{})), "CURSOR_AHEAD"},
		} {
			t.Log("page token:", name)
			_, err := r.events.ListEvents(r.as(""), &apikeysv1.ListEventsRequest{PageToken: c.token})
			checkFailure(t, err, status.Code(err), c.reason)
		}
	})
}

// TestEventsByTime lists the record by time, by actor, and from the newest on.
func TestEventsByTime(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		begin := time.Now()
		var ids []string
		for range 6 { // an hour apart, from begin on
			ids = append(ids, r.create(&apikeysv1.CreateApiKeyRequest{}).GetId())
			time.Sleep(time.Hour)
		}
		all, _ := r.list(&apikeysv1.ListEventsRequest{})
		hour := func(n float64) *timestamppb.Timestamp {
			return timestamppb.New(begin.Add(time.Duration(n * float64(time.Hour))))
		}
		const desc = apikeysv1.SortOrder_SORT_ORDER_DESC
		for name, c := range map[string]struct {
			req  *apikeysv1.ListEventsRequest
			want []int
		}{
			"since":                     {&apikeysv1.ListEventsRequest{Since: hour(2.5)}, []int{3, 4, 5}},
			"since its very moment":     {&apikeysv1.ListEventsRequest{Since: all[2].GetCreatedAt()}, []int{2, 3, 4, 5}},
			"until":                     {&apikeysv1.ListEventsRequest{Until: hour(1.5), PageSize: 1}, []int{0, 1}},
			"until its very moment":     {&apikeysv1.ListEventsRequest{Until: all[2].GetCreatedAt()}, []int{0, 1}},
			"both":                      {&apikeysv1.ListEventsRequest{Since: hour(0.5), Until: hour(3.5), PageSize: 2}, []int{1, 2, 3}},
			"a time without any":        {&apikeysv1.ListEventsRequest{Since: hour(1.2), Until: hour(1.8)}, nil},
			"long ago":                  {&apikeysv1.ListEventsRequest{Until: hour(-100)}, nil},
			"a time to come":            {&apikeysv1.ListEventsRequest{Since: hour(100)}, nil},
			"after, and until":          {&apikeysv1.ListEventsRequest{After: all[1].GetCursor(), Until: hour(3.5)}, []int{2, 3}},
			"ascending":                 {&apikeysv1.ListEventsRequest{Order: apikeysv1.SortOrder_SORT_ORDER_ASC, PageSize: 4}, []int{0, 1, 2, 3, 4, 5}},
			"from the newest":           {&apikeysv1.ListEventsRequest{Order: desc}, []int{5, 4, 3, 2, 1, 0}},
			"from the newest, by pages": {&apikeysv1.ListEventsRequest{Order: desc, PageSize: 2}, []int{5, 4, 3, 2, 1, 0}},
			"from the newest, by ones":  {&apikeysv1.ListEventsRequest{Order: desc, PageSize: 1, Since: hour(1.5), Until: hour(4.5)}, []int{4, 3, 2}},
			"down to a cursor":          {&apikeysv1.ListEventsRequest{Order: desc, PageSize: 1, After: all[3].GetCursor()}, []int{5, 4}},
			"down to the newest":        {&apikeysv1.ListEventsRequest{Order: desc, After: all[5].GetCursor()}, nil},
			"down to the start":         {&apikeysv1.ListEventsRequest{Order: desc, After: "start", PageSize: 5}, []int{5, 4, 3, 2, 1, 0}},
			"of a resource":             {&apikeysv1.ListEventsRequest{Order: desc, ResourceIds: []string{ids[1], ids[4]}, PageSize: 1}, []int{4, 1}},
			"of an actor":               {&apikeysv1.ListEventsRequest{Order: desc, Actor: all[0].GetActor().GetId(), PageSize: 5}, []int{5, 4, 3, 2, 1, 0}},
			"of another actor":          {&apikeysv1.ListEventsRequest{Order: desc, Actor: "nobody"}, nil},
		} {
			got, _ := r.list(c.req)
			var want []string
			for _, i := range c.want {
				want = append(want, ids[i])
			}
			if diff := cmp.Diff(want, resources(got)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}

		// A token is of the list that it came from.
		first := &apikeysv1.ListEventsRequest{Order: desc, PageSize: 1, Since: hour(0.5), After: all[0].GetCursor()}
		page, err := r.events.ListEvents(r.as(""), first)
		r.must(err)
		for name, change := range map[string]func(*apikeysv1.ListEventsRequest){
			"order": func(req *apikeysv1.ListEventsRequest) { req.Order = 0 },
			"since": func(req *apikeysv1.ListEventsRequest) { req.Since = hour(0.4) },
			"until": func(req *apikeysv1.ListEventsRequest) { req.Until = hour(9) },
			"actor": func(req *apikeysv1.ListEventsRequest) { req.Actor = "a" },
			"after": func(req *apikeysv1.ListEventsRequest) { req.After = "" },
			"types": func(req *apikeysv1.ListEventsRequest) { req.Types = []string{"api_key.created"} },
		} {
			next := proto.CloneOf(first)
			next.PageToken = page.GetNextPageToken()
			change(next)
			_, err := r.events.ListEvents(r.as(""), next)
			if checkFailure(t, err, codes.InvalidArgument, "CURSOR_WRONG_LIST"); !strings.Contains(err.Error(), "page_token") {
				t.Error(name, err)
			}
		}
		for _, req := range []*apikeysv1.ListEventsRequest{
			{Since: hour(1), Until: hour(1)}, {Since: hour(2), Until: hour(1)}, {Until: &timestamppb.Timestamp{Seconds: -1}},
		} {
			_, err := r.events.ListEvents(r.as(""), req)
			if checkFailure(t, err, codes.InvalidArgument, "INVALID_ARGUMENT"); !strings.Contains(err.Error(), "until") {
				t.Error(err)
			}
		}

		// What retention takes away while pages are read is the end of a list from the
		// newest on.
		page, err = r.events.ListEvents(r.as(""), &apikeysv1.ListEventsRequest{Order: desc, PageSize: 4})
		r.must(err)
		_, err = r.store.DeleteEventsBefore(r.Context(), time.Now().Add(time.Hour), 4)
		r.must(err)
		page, err = r.events.ListEvents(r.as(""), &apikeysv1.ListEventsRequest{Order: desc, PageSize: 4, PageToken: page.GetNextPageToken()})
		if r.must(err); len(page.GetEvents()) > 0 || page.GetNextPageToken() != "" {
			t.Error(page)
		}
	})
}

func TestUnknownTypes(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		types := []string{"api_key.created", "api_key.exploded"}
		_, err := r.events.ListEvents(r.as(""), &apikeysv1.ListEventsRequest{Types: types})
		if checkFailure(t, err, codes.InvalidArgument, "INVALID_ARGUMENT"); !strings.Contains(err.Error(), "types[1]") {
			t.Error(err)
		}
		r.open(r.as(""), &apikeysv1.WatchEventsRequest{Types: types}).end(codes.InvalidArgument, "INVALID_ARGUMENT")
		resources := []string{"a", "a\x00b"} // PostgreSQL takes no NUL in a text.
		_, err = r.events.ListEvents(r.as(""), &apikeysv1.ListEventsRequest{ResourceIds: resources})
		if checkFailure(t, err, codes.InvalidArgument, "INVALID_ARGUMENT"); !strings.Contains(err.Error(), "resource_ids[1]") {
			t.Error(err)
		}
		r.open(r.as(""), &apikeysv1.WatchEventsRequest{ResourceIds: resources}).end(codes.InvalidArgument, "INVALID_ARGUMENT")
		for _, seconds := range []int32{-1, 0, 301} {
			r.open(r.as(""), &apikeysv1.WatchEventsRequest{HeartbeatSeconds: proto.Int32(seconds)}).end(codes.InvalidArgument, "INVALID_ARGUMENT")
		}
		k := r.create(&apikeysv1.CreateApiKeyRequest{Scopes: []string{"api_keys.read"}})
		r.open(r.as(k.GetSecret()), &apikeysv1.WatchEventsRequest{}).end(codes.PermissionDenied, "INSUFFICIENT_SCOPE")
		r.open(r.as("sk_nonsense"), &apikeysv1.WatchEventsRequest{}).end(codes.Unauthenticated, "UNAUTHENTICATED")
	})
}

// Retention that passes a watcher ends its stream with a way on; it never jumps.
func TestRetentionPassesAWatcher(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *harness) {
		for range 300 {
			r.create(&apikeysv1.CreateApiKeyRequest{})
		}
		s := r.watchSlowly("", "start")
		s.take()
		if _, err := r.store.DeleteEventsBefore(r.Context(), time.Now().Add(time.Hour), 200); err != nil {
			t.Fatal(err)
		}
		for position := int64(2); ; position++ {
			select {
			case <-s.gate:
			case <-time.After(time.Second):
			}
			m, err := s.Recv()
			if err != nil {
				oldest := checkFailure(t, err, codes.OutOfRange, "CURSOR_EXPIRED").GetMetadata()["oldest"]
				if got, err := r.cursors.Open(oldest, "org_default"); got != 200 || err != nil || position < 100 {
					t.Errorf("after position %d the oldest is %d, %v", position, got, err)
				}
				break
			}
			if got, err := r.cursors.Open(m.GetCursor(), "org_default"); got != position || err != nil {
				t.Fatalf("got position %d, %v, want %d", got, err, position)
			}
		}
	})
}
