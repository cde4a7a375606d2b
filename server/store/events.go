package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entevent "github.com/apikeys-dev/apikeys/ent/event"
	entfanout "github.com/apikeys-dev/apikeys/ent/fanoutposition"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	entrevision "github.com/apikeys-dev/apikeys/ent/revision"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Events reads up to limit events that f wants after the position after, or
// after apikey.OldestKept, in their order and as of one moment. A page ends at about
// 1 MiB too, and looks at 10,000 rows at most, so a page of a filter can be short,
// even empty, and have more behind it. Where events after the position are no longer kept it is an
// *apikey.TooOldError: a page never has a hole.
func (s *Store) Events(ctx context.Context, f apikey.EventFilter, after int64, limit int) (apikey.EventPage, error) {
	return s.eventPage(ctx, &f, eventRange{after: after, limit: limit})
}

// EventsBefore is Events from the newest on: the events after the position after, and
// before the position before unless that is zero, the newest first.
func (s *Store) EventsBefore(ctx context.Context, f apikey.EventFilter, after, before int64, limit int) (apikey.EventPage, error) {
	return s.eventPage(ctx, &f, eventRange{after: after, before: before, limit: limit, descending: true})
}

// eventRange is the part of the log that a page is read of: after one position and,
// unless it is zero, before another.
type eventRange struct {
	after, before int64
	limit         int
	descending    bool
}

func (s *Store) eventPage(ctx context.Context, f *apikey.EventFilter, r eventRange) (apikey.EventPage, error) {
	// One snapshot for the bounds and the rows, or the floor could rise between.
	etx, err := s.reader.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return apikey.EventPage{}, fmt.Errorf("read events: %w", err)
	}
	defer etx.Rollback() //nolint:errcheck // Nothing was written.
	page, err := readEvents(ctx, etx, f, r)
	return page, unexpected("read events", err)
}

func readEvents(ctx context.Context, etx *ent.Tx, f *apikey.EventFilter, r eventRange) (page apikey.EventPage, err error) {
	if page.Floor, page.Newest, err = eventBounds(ctx, etx.Client()); err != nil {
		return page, err
	}
	switch {
	case r.after == apikey.OldestKept:
		r.after = page.Floor
	case r.after < page.Floor:
		return page, &apikey.TooOldError{Floor: page.Floor}
	}
	last := page.Newest
	if r.before > 0 {
		last = min(last, r.before-1)
	}
	end := max(r.after, last) // what the page has looked at if there are no more
	if r.descending {
		end = r.after
	}
	page.Next = end
	if r.after, last, err = narrowed(ctx, etx, f, page, r.after, last); err != nil || r.after >= last {
		return page, err
	}
	indexed, filtered := eventPredicates(f)
	if len(filtered) > 0 {
		// The last row that this call may look at, by the index alone.
		limit, err := etx.Event.Query().Where(slices.Concat(indexed, between(r.after, last))...).Order(r.order()).
			Offset(maxExamined - 1).Limit(1).IDs(ctx)
		switch {
		case err != nil:
			return page, err
		case len(limit) == 0:
		case r.descending && limit[0] > r.after+1:
			page.Next, page.More, r.after = limit[0], true, limit[0]-1
		case !r.descending && limit[0] < last:
			page.Next, page.More, last = limit[0], true, limit[0]
		}
	}
	where := slices.Concat(indexed, filtered)
	events, more, err := readPage(r.limit, sizeOfEvent, func(previous *apikey.Event, n int) ([]apikey.Event, error) {
		switch {
		case previous == nil:
		case r.descending:
			last = previous.Position - 1
		default:
			r.after = previous.Position
		}
		rows, err := etx.Event.Query().Where(slices.Concat(where, between(r.after, last))...).Order(r.order()).Limit(n).All(ctx)
		chunk := make([]apikey.Event, len(rows))
		for i, row := range rows {
			chunk[i] = eventOf(row)
		}
		return chunk, err
	})
	if page.Events = events; more {
		page.Next, page.More = events[len(events)-1].Position, true
	}
	return page, err
}

// order is that of the rows.
func (r *eventRange) order() entevent.OrderOption {
	if r.descending {
		return entevent.ByID(entsql.OrderDesc())
	}
	return entevent.ByID()
}

// between selects the events after one position, up to another.
func between(after, last int64) []predicate.Event {
	return []predicate.Event{entevent.IDGT(after), entevent.IDLTE(last)}
}

// clockSlack is how far the times of events may be from the order of their positions:
// the time of a change is taken just before its position is, and clocks are set.
const clockSlack = 10 * time.Second

// narrowed returns the part of a range of positions outside of which no event is of
// the time that f wants.
func narrowed(ctx context.Context, q querier, f *apikey.EventFilter, page apikey.EventPage, after, last int64) (int64, int64, error) {
	if !f.Since.IsZero() {
		position, err := lastBefore(ctx, q, page.Floor, page.Newest, f.Since.Add(-clockSlack))
		if err != nil {
			return 0, 0, err
		}
		after = max(after, position)
	}
	if !f.Until.IsZero() {
		position, err := lastBefore(ctx, q, page.Floor, page.Newest, f.Until.Add(clockSlack))
		if err != nil {
			return 0, 0, err
		}
		last = min(last, position)
	}
	return after, last, nil
}

// lastBefore returns the position of the last event made before t, of those after one
// position and up to another, which are all kept; the first where there is none.
func lastBefore(ctx context.Context, q querier, after, last int64, t time.Time) (position int64, err error) {
	err = queryRows(ctx, q, halving, []any{after, last, t.UnixMicro()}, func(rows *sql.Rows) error {
		return rows.Scan(&position)
	})
	return position, err
}

// halving finds the last event after a position ($1), up to another ($2), that was made
// before a time ($3). Positions are gap-free and ascend with time, so the log is its
// own index: each step reads the event in the middle of what is left.
const halving = "WITH RECURSIVE halves (low, high) AS (SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT) UNION ALL SELECT " +
	"CASE WHEN e." + entevent.FieldCreatedAt + " < $3 THEN e." + entevent.FieldID + " ELSE h.low END, " +
	"CASE WHEN e." + entevent.FieldCreatedAt + " < $3 THEN h.high ELSE e." + entevent.FieldID + " - 1 END " +
	"FROM halves h JOIN " + entevent.Table + " e ON e." + entevent.FieldID + " = h.high - (h.high - h.low) / 2 WHERE h.low < h.high) " +
	"SELECT MAX(low) FROM halves"

// eventPredicates returns the part of the filter that an index answers in the
// order of positions, and those for which rows must be looked at.
func eventPredicates(f *apikey.EventFilter) (indexed, filtered []predicate.Event) {
	if f.Organization != "" {
		indexed = append(indexed, entevent.OrganizationID(f.Organization))
	}
	if f.Actor != "" {
		indexed = append(indexed, entevent.ActorID(f.Actor))
	}
	if f.Among != nil {
		filtered = append(filtered, entevent.OrganizationIDIn(f.Among...))
	}
	if len(f.Types) > 0 {
		types := make([]string, len(f.Types))
		for i, t := range f.Types {
			types[i] = string(t)
		}
		filtered = append(filtered, entevent.TypeIn(types...))
	}
	if len(f.ResourceIDs) > 0 {
		filtered = append(filtered, entevent.ResourceIDIn(f.ResourceIDs...))
	}
	if !f.Since.IsZero() {
		filtered = append(filtered, entevent.CreatedAtGTE(f.Since.UnixMicro()))
	}
	if !f.Until.IsZero() {
		filtered = append(filtered, entevent.CreatedAtLT(f.Until.UnixMicro()))
	}
	return indexed, filtered
}

func eventOf(row *ent.Event) apikey.Event {
	return apikey.Event{
		Position:       row.ID,
		ID:             row.EventID,
		Type:           apikey.EventType(row.Type),
		OrganizationID: row.OrganizationID,
		ResourceID:     row.ResourceID,
		Changes:        row.Changes,
		Origin: apikey.Origin{
			Actor:     apikey.Actor{Kind: apikey.ActorKind(row.ActorKind), ID: row.ActorID, Name: row.ActorName},
			RequestID: row.RequestID,
		},
		CreatedAt: fromMicros(&row.CreatedAt),
		Payload:   row.Payload,
	}
}

// EventBounds returns the position after which every event is kept, and that of
// the newest event.
func (s *Store) EventBounds(ctx context.Context) (floor, newest int64, err error) {
	floor, newest, err = eventBounds(ctx, s.reader)
	return floor, newest, unexpected("read the bounds of the log", err)
}

// eventBounds reads both bounds in one statement: read one after the other they
// could be of two different logs.
func eventBounds(ctx context.Context, from *ent.Client) (floor, newest int64, err error) {
	const oldestColumn = "oldest_event"
	rows, err := from.Revision.Query().Where(entrevision.ID(revisionRow)).Modify(func(sel *entsql.Selector) {
		oldest := entsql.Dialect(sel.Dialect()).Select(entsql.Min(entevent.FieldID)).From(entsql.Table(entevent.Table))
		sel.AppendSelectExprAs(oldest, oldestColumn)
	}).All(ctx)
	if err != nil {
		return 0, 0, err
	}
	if len(rows) != 1 {
		return 0, 0, fmt.Errorf("the log has %d counters", len(rows))
	}
	floor, newest = rows[0].Position, rows[0].Position
	if value, err := rows[0].Value(oldestColumn); err == nil && value != nil {
		oldest, ok := value.(int64)
		if !ok {
			return 0, 0, fmt.Errorf("the oldest event is %v", value)
		}
		floor = oldest - 1
	}
	return floor, newest, nil
}

// DeleteEventsBefore deletes up to limit of the oldest events, as far as they
// were made before the time given, and returns how many. Positions ascend with
// time, so nothing is looked for: an event that a clock gone wrong dated later
// keeps those behind it until its own time has come. So does one that the fan-out or a
// delivery that has not ended still needs. The counter of positions stays.
func (s *Store) DeleteEventsBefore(ctx context.Context, before time.Time, limit int) (deleted int, err error) {
	const doing = "delete old events"
	rows, err := s.reader.Event.Query().Order(entevent.ByID()).Limit(limit).
		Select(entevent.FieldID, entevent.FieldCreatedAt).All(ctx)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	for deleted < len(rows) && rows[deleted].CreatedAt < before.UnixMicro() {
		deleted++
	}
	if deleted == 0 {
		return 0, nil
	}
	err = s.transact(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
		last := rows[deleted-1].ID
		needed, err := oldestNeeded(ctx, etx, last)
		if err != nil {
			return err
		}
		for deleted > 0 && rows[deleted-1].ID >= needed {
			deleted--
		}
		if deleted == 0 {
			return nil
		}
		_, err = etx.Event.Delete().Where(entevent.IDLTE(rows[deleted-1].ID)).Exec(ctx)
		return err
	})
	s.recent.forget()
	return deleted, err
}

// oldestNeeded returns the position of the first event up to last that something still
// needs, or one after last.
func oldestNeeded(ctx context.Context, q querier, last int64) (int64, error) {
	needed := last + 1
	for _, query := range []string{neededByDelivery, neededByFanOut} {
		err := queryRows(ctx, q, query, []any{last}, func(rows *sql.Rows) error {
			position := sql.NullInt64{}
			err := rows.Scan(&position)
			if position.Valid {
				needed = min(needed, position.Int64)
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return needed, nil
}

// neededByDelivery finds the first event that a delivery which has not ended is of, and
// neededByFanOut the first that its organization's fan-out has not passed.
const (
	neededByDelivery = "SELECT MIN(" + entdelivery.FieldEventPosition + ") FROM " + entdelivery.Table +
		" WHERE " + entdelivery.FieldEndedAt + " IS NULL AND " + entdelivery.FieldEventPosition + " <= $1"
	neededByFanOut = "SELECT MIN(e." + entevent.FieldID + ") FROM " + entevent.Table + " e WHERE e." + entevent.FieldID + " <= $1" +
		" AND EXISTS (SELECT 1 FROM " + entfanout.Table + " f WHERE f." + entfanout.FieldID + " = e." + entevent.FieldOrganizationID +
		" AND f." + entfanout.FieldPosition + " < e." + entevent.FieldID + ")"
)
