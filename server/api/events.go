package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
	organization := callerOf(ctx).Organization
	faulty := faultsOf(ctx)
	filter := faulty.eventFilter(organization, req.GetTypes(), req.GetResourceIds())
	var place placeInLog // the oldest event, unless the request names one
	switch {
	case req.GetPageToken() != "":
		place = placeInLog{purpose: feed.PurposePage, field: "page_token", text: req.GetPageToken()}
	case req.GetAfter() != fromStart:
		place = placeInLog{purpose: feed.PurposeCursor, field: "after", text: req.GetAfter()}
	}
	after, err := apikey.OldestKept, error(nil)
	if place.text != "" {
		after, err = s.open(place, organization)
	}
	if err := faulty.with(err); err != nil {
		return nil, err
	}
	found, err := s.store.Events(ctx, filter, after, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, s.readError(err, organization)
	}
	if after > found.Newest {
		return nil, aheadError(place)
	}
	var page page[*apikeysv1.Event]
	for i := range found.Events {
		e := &found.Events[i]
		m, err := s.message(e, s.cursors.Seal(feed.PurposeCursor, e.Position, organization))
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
		resp.NextPageToken = s.cursors.Seal(feed.PurposePage, found.Next, organization)
	}
	return resp, nil
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
func (f *faults) eventFilter(organization string, types, resources []string) apikey.EventFilter {
	filter := apikey.EventFilter{Organization: organization, ResourceIDs: resources}
	for i, text := range types {
		filter.Types = append(filter.Types, f.eventType(fmt.Sprintf("types[%d]", i), text))
	}
	return filter
}

// eventType returns the type of events that a filter names.
func (f *faults) eventType(field, text string) apikey.EventType {
	t := apikey.EventType(text)
	if !slices.Contains(apikey.EventTypes(), t) && !webhook.IsEventType(t) {
		f.add(field, "is not a type of event")
	}
	return t
}

// placeInLog is a cursor of a request, and the field that it came in.
type placeInLog struct {
	purpose     feed.Purpose
	field, text string
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
}

// open returns the position of a cursor.
func (s *events) open(place placeInLog, organization string) (int64, error) {
	position, err := s.cursors.Open(place.purpose, place.text, organization)
	for _, p := range cursorProblems {
		if errors.Is(err, p.err) {
			return 0, cursorError(place, p.reason, p.problem)
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
	tooOld, ok := errors.AsType[*apikey.TooOldError](err)
	if !ok {
		return err
	}
	expired := apikey.Errorf(apikey.KindOutOfRange, "CURSOR_EXPIRED",
		"Events after this cursor are no longer kept; what is kept begins after the cursor in oldest.")
	expired.Details = map[string]string{
		"oldest": s.cursors.Seal(feed.PurposeCursor, tooOld.Floor, organization),
	}
	return expired
}
