package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"entgo.io/ent/dialect"

	"github.com/apikeys-dev/apikeys/ent"
	entevent "github.com/apikeys-dev/apikeys/ent/event"
	entrevision "github.com/apikeys-dev/apikeys/ent/revision"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// logReadTimeout bounds a read of the log over a network. It is above what a read
// takes that is of use, and is how long after a network came back the log may still
// be waited for over a connection that is dead.
const logReadTimeout = 2 * time.Second

// nextColumns are the columns of an event in the order in which scanNext takes them. They
// are named one by one: a column that is added must not end the reading of the log.
var nextColumns = []string{
	entevent.FieldID, entevent.FieldEventID, entevent.FieldOrganizationID, entevent.FieldType, entevent.FieldResourceID,
	entevent.FieldChanges, entevent.FieldActorKind, entevent.FieldActorID, entevent.FieldActorName, entevent.FieldRequestID,
	entevent.FieldCreatedAt, entevent.FieldPayload,
}

// nextEvents reads the bounds of the log, the time of the database, the id of the
// event at a position ($1), and up to so many ($2) of the events after it: one
// statement, and so one snapshot and one journey. A log that has nothing new is one
// row without an event.
var nextEvents = "SELECT r." + entrevision.FieldPosition + //nolint:gosec // The names are the schema's.
	", (SELECT MIN(" + entevent.FieldID + ") FROM " + entevent.Table + ")" +
	", " + databaseTime +
	", (SELECT " + entevent.FieldEventID + " FROM " + entevent.Table + " WHERE " + entevent.FieldID + " = $1)" +
	", e." + strings.Join(nextColumns, ", e.") +
	" FROM " + entrevision.Table + " r LEFT JOIN LATERAL (SELECT * FROM " + entevent.Table + " WHERE " + entevent.FieldID + " > $1" +
	" ORDER BY " + entevent.FieldID + " LIMIT $2) e ON true WHERE r." + entrevision.FieldID + " = $3 ORDER BY e." + entevent.FieldID

// NextEvents is Events of all organizations, for whoever follows the log all the time.
// On PostgreSQL it has a connection of its own, past any pooler, that lists and
// verifications cannot take away, and the page has the database's time. There it takes
// at most two seconds.
func (s *Store) NextEvents(ctx context.Context, after int64, limit int) (apikey.EventPage, error) {
	if s.dialect == dialect.SQLite {
		return s.Events(ctx, apikey.EventFilter{}, after, limit)
	}
	ctx, cancel := context.WithTimeout(ctx, logReadTimeout)
	defer cancel()
	page, err := readNext(ctx, s.logDB, after, min(limit, pageChunk))
	return page, unexpected("read events", err)
}

// Time returns the time of a PostgreSQL database.
func (s *Store) Time(ctx context.Context) (now time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, logReadTimeout)
	defer cancel()
	var micros int64
	err = s.logDB.QueryRowContext(ctx, "SELECT "+databaseTime).Scan(&micros)
	return fromMicros(&micros), unexpected("read the time", err)
}

// databaseTime is the time of the database, in microseconds.
const databaseTime = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint"

func readNext(ctx context.Context, db *sql.DB, after int64, limit int) (page apikey.EventPage, err error) {
	rows, err := db.QueryContext(ctx, nextEvents, after, limit, revisionRow)
	if err != nil {
		return page, err
	}
	defer rows.Close()
	found := false
	for rows.Next() {
		if err := scanNext(rows, &page); err != nil {
			return page, err
		}
		found = true
	}
	if err := rows.Err(); err != nil {
		return page, err
	}
	if !found {
		return page, fmt.Errorf("the log has no counter")
	}
	if after < page.Floor {
		page.Events = nil
		return page, &apikey.TooOldError{Floor: page.Floor}
	}
	page.Next = max(after, page.Newest)
	if n := len(page.Events); n == limit && page.Events[n-1].Position < page.Newest {
		page.Next, page.More = page.Events[n-1].Position, true
	}
	return page, nil
}

// scanNext adds a row of nextEvents to page.
func scanNext(rows *sql.Rows, page *apikey.EventPage) error {
	var oldest, now, id, createdAt sql.NullInt64
	var at, eventID, organization, kind, resource, actorKind, actorID, actorName, requestID sql.NullString
	var changes, payload []byte
	err := rows.Scan(&page.Newest, &oldest, &now, &at,
		&id, &eventID, &organization, &kind, &resource, &changes, &actorKind, &actorID, &actorName, &requestID, &createdAt, &payload)
	if err != nil {
		return err
	}
	page.Floor = page.Newest
	if oldest.Valid {
		page.Floor = oldest.Int64 - 1
	}
	page.Now, page.At = fromMicros(&now.Int64), at.String
	if !id.Valid {
		return nil
	}
	row := ent.Event{
		ID: id.Int64, EventID: eventID.String, OrganizationID: organization.String, Type: kind.String, ResourceID: resource.String,
		ActorKind: actorKind.String, ActorID: actorID.String, ActorName: actorName.String, RequestID: requestID.String, CreatedAt: createdAt.Int64, Payload: payload,
	}
	if len(changes) > 0 {
		if err := json.Unmarshal(changes, &row.Changes); err != nil {
			return fmt.Errorf("read the changes of an event: %w", err)
		}
	}
	page.Events = append(page.Events, eventOf(&row))
	return nil
}
