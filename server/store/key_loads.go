package store

import (
	"context"
	"fmt"
	"slices"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entrevision "github.com/apikeys-dev/apikeys/ent/revision"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// loads is the read that each verification of a key that is not in memory waits
// for. It is the one read that ent does not build and scan each time, which took
// most of its time: its texts are made once, for a few numbers of hashes, so that
// the driver finds its statements prepared, and its rows are scanned straight into
// a keyRow.
type loads struct {
	driver dialect.Driver
	texts  [len(loadSizes)]string
}

// loadSizes are the numbers of hashes that there are texts for, ascending. A load
// of another number repeats its last hash up to the next of them.
var loadSizes = [...]int{1, 2, 4, 16, 64, 256}

// LoadsTogether is how many connections loads have: as many calls of KeysBySecret
// as that run at a time without waiting for each other.
const LoadsTogether = 2

func newLoads(driver dialect.Driver) *loads {
	l := &loads{driver: driver}
	for i, n := range loadSizes {
		l.texts[i] = loadText(driver.Dialect(), n)
	}
	return l
}

// loadText returns the query of the keys that have one of n hashes as their
// current or previous secret. Its arguments are the hashes, twice.
func loadText(dialect string, n int) string {
	build := entsql.Dialect(dialect)
	query := selectKeys(dialect)
	query.AppendSelectExprAs(build.Select(entrevision.FieldPosition).From(build.Table(entrevision.Table)), entrevision.FieldPosition)
	hashes := slices.Repeat([]any{[]byte(nil)}, n) // of which only the number counts
	text, _ := query.Where(entsql.Or(
		entsql.In(query.C(entkey.FieldSecretHash), hashes...),
		entsql.In(query.C(entkey.FieldPreviousHash), hashes...),
	)).Query()
	return text
}

// KeysBySecret returns the keys that have one of hashes as their current or
// previous secret, in no order, and the position of the log at which the first of
// them was read, in the same statement. Hashes that belong to no key are passed
// over.
func (s *Store) KeysBySecret(ctx context.Context, hashes []apikey.Hash) (keys []apikey.Key, position int64, err error) {
	for chunk := range slices.Chunk(hashes, loadSizes[len(loadSizes)-1]) {
		found, at, err := s.loads.load(ctx, chunk)
		if err != nil {
			return nil, 0, fmt.Errorf("look up secrets: %w", err)
		}
		if len(keys) == 0 {
			position = at
		}
		keys = append(keys, found...)
	}
	return keys, position, nil
}

// load reads the keys of at most as many hashes as the largest of loadSizes.
func (l *loads) load(ctx context.Context, hashes []apikey.Hash) (keys []apikey.Key, position int64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if l.driver.Dialect() == dialect.SQLite {
		// Watching for the end of ctx costs more than the read, which takes
		// microseconds and waits for no network.
		ctx = context.WithoutCancel(ctx)
	}
	size, _ := slices.BinarySearch(loadSizes[:], len(hashes))
	n := loadSizes[size]
	args := make([]any, 2*n)
	for i := range n {
		args[i] = hashes[min(i, len(hashes)-1)][:]
		args[n+i] = args[i]
	}
	var rows entsql.Rows
	if err := l.driver.Query(ctx, l.texts[size], args, &rows); err != nil {
		return nil, 0, err
	}
	var at int64
	err = scanKeys(rows, &at, func(row *keyRow) error {
		k, err := row.decode()
		if len(keys) == 0 {
			position = at
		}
		keys = append(keys, k)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return keys, position, nil
}
