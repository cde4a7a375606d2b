package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"entgo.io/ent/dialect"

	"github.com/apikeys-dev/apikeys/ent"
	entdelivery "github.com/apikeys-dev/apikeys/ent/delivery"
	entfanout "github.com/apikeys-dev/apikeys/ent/fanoutposition"
)

// maxCounted bounds how many deliveries that wait are counted, one by one, in an index
// of those alone.
const maxCounted = 100_000

// Backlog is what waits in the queue and in the log.
type Backlog struct {
	// Pending is how many deliveries have not ended; no more than 100,000 are counted.
	Pending int
	// OldestPending is when the delivery of the oldest event was made that has not
	// ended; the zero time where there is none.
	OldestPending time.Time
	// Unfanned is how many positions the newest event is beyond the place up to which
	// the events of an organization have their deliveries; those of other organizations
	// between them count. Zero where no organization was named.
	Unfanned int64
}

// Backlog counts what waits. organization is the one whose fan-out is furthest behind;
// empty for none. It is for a few calls a minute: its cost is bounded, but is not that
// of a single row.
func (s *Store) Backlog(ctx context.Context, organization string) (b Backlog, err error) {
	const pending = "SELECT count(*) FROM (SELECT 1 FROM " + entdelivery.Table + " WHERE " + entdelivery.FieldEndedAt + " IS NULL LIMIT "
	if err := s.readerDB.QueryRowContext(ctx, pending+strconv.Itoa(maxCounted)+") AS pending").Scan(&b.Pending); err != nil {
		return b, fmt.Errorf("count the deliveries that wait: %w", err)
	}
	oldest, err := s.reader.Delivery.Query().Where(entdelivery.EndedAtIsNil()).
		Order(entdelivery.ByEventPosition()).Select(entdelivery.FieldCreatedAt).First(ctx)
	if err == nil {
		b.OldestPending = fromMicros(&oldest.CreatedAt)
	} else if !ent.IsNotFound(err) {
		return b, fmt.Errorf("read the oldest delivery that waits: %w", err)
	}
	if organization == "" {
		return b, nil
	}
	row, err := s.reader.FanOutPosition.Query().Where(entfanout.ID(organization)).Only(ctx)
	if ent.IsNotFound(err) {
		return b, nil
	}
	if err != nil {
		return b, fmt.Errorf("read how far the fan-out is: %w", err)
	}
	newest, err := s.reader.Revision.Query().Only(ctx)
	if err != nil {
		return b, fmt.Errorf("read the revision: %w", err)
	}
	b.Unfanned = max(newest.Position-row.Position, 0)
	return b, nil
}

// Pools returns the statistics of the pools of connections, by what they are for.
func (s *Store) Pools() map[string]sql.DBStats {
	return map[string]sql.DBStats{
		"writer": s.writerDB.Stats(), "reader": s.readerDB.Stats(), "loads": s.loadsDB.Stats(),
	}
}

// FileSizes returns how large the files of an SQLite database are, in bytes: the
// database and its write-ahead log. It reads no database. There are none on PostgreSQL.
func (s *Store) FileSizes() (database, wal int64, err error) {
	if s.dialect != dialect.SQLite {
		return 0, 0, nil
	}
	info, err := os.Stat(s.file)
	if err != nil {
		return 0, 0, err
	}
	log, err := os.Stat(s.file + "-wal")
	if errors.Is(err, os.ErrNotExist) {
		return info.Size(), 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	return info.Size(), log.Size(), nil
}
