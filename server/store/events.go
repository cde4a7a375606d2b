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
	// One snapshot for the bounds and the rows, or the floor could rise between.
	etx, err := s.reader.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return apikey.EventPage{}, fmt.Errorf("read events: %w", err)
	}
	defer etx.Rollback() //nolint:errcheck // Nothing was written.
	page, err := eventPage(ctx, etx.Client(), f, after, limit)
	return page, unexpected("read events", err)
}

func eventPage(ctx context.Context, from *ent.Client, f apikey.EventFilter, after int64, limit int) (page apikey.EventPage, err error) {
	if page.Floor, page.Newest, err = eventBounds(ctx, from); err != nil {
		return page, err
	}
	switch {
	case after == apikey.OldestKept:
		after = page.Floor
	case after < page.Floor:
		return page, &apikey.TooOldError{Floor: page.Floor}
	}
	page.Next = max(after, page.Newest)
	if after >= page.Newest {
		return page, nil
	}
	indexed, filtered := eventPredicates(&f)
	where := slices.Concat(indexed, filtered)
	if len(filtered) > 0 {
		// The last row that this call may look at, by the index alone.
		last, err := from.Event.Query().Where(append(indexed, entevent.IDGT(after))...).Order(entevent.ByID()).
			Offset(maxExamined - 1).Limit(1).IDs(ctx)
		if err != nil {
			return page, err
		}
		if len(last) == 1 && last[0] < page.Newest {
			page.Next, page.More = last[0], true
			where = append(where, entevent.IDLTE(page.Next))
		}
	}
	events, more, err := readPage(limit, sizeOfEvent, func(last *apikey.Event, n int) ([]apikey.Event, error) {
		if last != nil {
			after = last.Position
		}
		rows, err := from.Event.Query().Where(slices.Concat(where, []predicate.Event{entevent.IDGT(after)})...).
			Order(entevent.ByID()).Limit(n).All(ctx)
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

// eventPredicates returns the part of the filter that an index answers in the
// order of positions, and those for which rows must be looked at.
func eventPredicates(f *apikey.EventFilter) (indexed, filtered []predicate.Event) {
	if f.Organization != "" {
		indexed = append(indexed, entevent.OrganizationID(f.Organization))
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
			Actor:     apikey.Actor{Kind: apikey.ActorKind(row.ActorKind), ID: row.ActorID},
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
