package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// events is the service of the event log.
type events struct {
	apikeysv1.UnimplementedEventsServiceServer

	store             *store.Store
	feed              *feed.Feed
	cursors           *feed.Cursors
	now               func() time.Time
	slowClientTimeout time.Duration
	streams           streams
}

// fromStart is how a request asks for all that is kept.
const fromStart = "start"

// ListEvents lists events.
func (s *events) ListEvents(ctx context.Context, req *apikeysv1.ListEventsRequest) (*apikeysv1.ListEventsResponse, error) {
	caller := callerOf(ctx)
	organization := caller.Organization
	faulty := faultsOf(ctx)
	filter := faulty.eventFilter(caller, req)
	filter.Since, filter.Until = faulty.span(req)
	if !filter.Until.IsZero() && !filter.Since.Before(filter.Until) {
		faulty.add("until", "must be later than since")
	}
	list, descending := listOf(req), req.GetOrder() == apikeysv1.SortOrder_SORT_ORDER_DESC
	token := placeInLog{field: "page_token", text: req.GetPageToken(), open: func(text string) (int64, error) {
		return s.cursors.OpenPage(text, organization, list)
	}}
	cursor := s.cursorOf(req.GetAfter(), organization)
	if cursor.text == fromStart {
		cursor.text = ""
	}
	// Of a page from the oldest on, the token says alone where it begins.
	if !descending && token.text != "" {
		cursor = token
	}
	after, err := cursor.position(apikey.OldestKept)
	var before int64
	if err == nil && descending {
		before, err = token.position(0)
	}
	if err := faulty.with(err); err != nil {
		return nil, err
	}
	var found apikey.EventPage
	if descending {
		found, err = s.store.EventsBefore(ctx, filter, after, before, pageSize(req.GetPageSize()))
	} else {
		found, err = s.store.Events(ctx, filter, after, pageSize(req.GetPageSize()))
	}
	switch {
	case err != nil:
		return nil, s.readError(err, organization)
	case after > found.Newest:
		return nil, aheadError(cursor)
	case before > found.Newest:
		return nil, aheadError(token)
	}
	var page page[*apikeysv1.Event]
	for i := range found.Events {
		e := &found.Events[i]
		m, err := s.message(e, s.cursors.Seal(e.Position, organization))
		if err != nil {
			return nil, err
		}
		if !page.add(m) {
			found.Next, found.More = found.Events[i-1].Position, true
			break
		}
	}
	resp := &apikeysv1.ListEventsResponse{Events: page.rows}
	if found.More {
		resp.NextPageToken = s.cursors.SealPage(found.Next, organization, list)
	}
	return resp, nil
}

// listOf names the list that a request asks for, whose pages a token is good for: all
// that it asks but how large a page is. A list from the newest on ends at its cursor,
// one from the oldest on only begins there.
func listOf(req *apikeysv1.ListEventsRequest) string {
	asked := &apikeysv1.ListEventsRequest{
		Types: req.GetTypes(), ResourceIds: req.GetResourceIds(), Actor: req.GetActor(),
		Since: req.GetSince(), Until: req.GetUntil(), Order: apikeysv1.SortOrder_SORT_ORDER_ASC,
	}
	if req.GetOrder() == apikeysv1.SortOrder_SORT_ORDER_DESC {
		asked.Order, asked.After = req.GetOrder(), req.GetAfter()
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(asked)
	if err != nil {
		return "" // No text of it is UTF-8 then, and it is refused.
	}
	return string(encoded)
}

// message returns the message of an event and its cursor.
func (s *events) message(e *apikey.Event, cursor string) (*apikeysv1.Event, error) {
	m, err := wire.Event(e)
	if err != nil {
		return nil, err
	}
	m.Cursor = cursor
	return m, nil
}

// eventFilter returns the filter that a request asks for. An id of the wrong form
// is one of a resource about which there are no events; an unknown type is a
// mistake, and it would be a long wait to find out.
func (f *faults) eventFilter(caller *apikey.Caller, req interface {
	GetTypes() []string
	GetResourceIds() []string
	GetActor() string
},
) apikey.EventFilter {
	filter := apikey.EventFilter{
		Organization: caller.Organization, Among: caller.Among(), ResourceIDs: req.GetResourceIds(), Actor: req.GetActor(),
	}
	for i, text := range req.GetTypes() {
		filter.Types = append(filter.Types, f.eventType(fmt.Sprintf("types[%d]", i), text))
	}
	return filter
}

// eventType returns the type of events that a filter names.
func (f *faults) eventType(field, text string) apikey.EventType {
	t := apikey.EventType(text)
	if !slices.Contains(apikey.EventTypes(), t) && !slices.Contains(apikey.OperatorEventTypes(), t) && !webhook.IsEventType(t) {
		f.add(field, "is not a type of event")
	}
	return t
}

// placeInLog is a cursor of a request, the field that it came in, and what opens it.
type placeInLog struct {
	field, text string
	open        func(text string) (int64, error)
}

// cursorOf returns the place that a cursor names, for whoever reads an organization.
func (s *events) cursorOf(after, organization string) placeInLog {
	return placeInLog{field: "after", text: after, open: func(text string) (int64, error) { return s.cursors.Open(text, organization) }}
}

// The answers to a cursor that cannot be used.
var cursorProblems = []struct {
	err     error
	reason  apikey.Reason
	problem string
}{
	{feed.ErrForged, "CURSOR_INVALID", "is not a cursor of this server"},
	{feed.ErrOtherPurpose, "CURSOR_WRONG_PLACE", "is a page token where a cursor belongs, or the other way round"},
	{feed.ErrOtherDatabase, "CURSOR_WRONG_DATABASE", "is a cursor of another database"},
	{feed.ErrOtherOrganization, "CURSOR_WRONG_ORGANIZATION", "is a cursor of another organization"},
	{feed.ErrOtherList, "CURSOR_WRONG_LIST", "is of a list with another order or other filters; send those of the page before again"},
}

// position returns the position of the cursor, or that of none.
func (place *placeInLog) position(none int64) (int64, error) {
	if place.text == "" {
		return none, nil
	}
	position, err := place.open(place.text)
	for _, p := range cursorProblems {
		if errors.Is(err, p.err) {
			return 0, cursorError(*place, p.reason, p.problem)
		}
	}
	return position, err
}

func cursorError(place placeInLog, reason apikey.Reason, problem string) error {
	err := apikey.InvalidField(place.field, "%s", problem)
	err.Reason = reason
	return err
}

func aheadError(place placeInLog) error {
	return cursorError(place, "CURSOR_AHEAD", "lies ahead of the newest event, so it is not of this database as it is now")
}

// readError returns what a caller is told of a log that could not be read.
func (s *events) readError(err error, organization string) error {
	if errors.Is(err, feed.ErrReplaced) {
		return errReplaced
	}
	tooOld, ok := errors.AsType[*apikey.TooOldError](err)
	if !ok {
		return err
	}
	expired := apikey.Errorf(apikey.KindOutOfRange, "CURSOR_EXPIRED",
		"Events after this cursor are no longer kept; what is kept begins after the cursor in oldest.")
	expired.Details = map[string]string{
		"oldest": s.cursors.Seal(tooOld.Floor, organization),
	}
	return expired
}

var errReplaced = apikey.Errorf(apikey.KindUnavailable, apikey.ReasonUnavailable,
	"The database has lost the newest part of its log; begin again with a state, or go on after the last cursor if it is taken.")
