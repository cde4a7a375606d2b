package store

import (
	"context"
	"database/sql"
	"iter"
	"slices"
	"strings"

	"entgo.io/ent/dialect"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	entusage "github.com/apikeys-dev/apikeys/ent/apikeyusage"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// usageChunk is how many counters, and how many refusals, one transaction of a flush
// writes: a few milliseconds' worth, so that changes never wait long behind a flush.
const usageChunk = 400

// usageChunks returns counts in parts of which each is for one transaction.
func usageChunks(counts []apikey.UsageCount) iter.Seq[[]apikey.UsageCount] {
	return func(yield func([]apikey.UsageCount) bool) {
		for first := 0; first < len(counts); {
			end, refusals := first, 0
			for end < len(counts) && end-first < usageChunk {
				if refusals += len(counts[end].Refusals); refusals > usageChunk && end > first {
					break
				}
				end++
			}
			if !yield(counts[first:end]) {
				return
			}
			first = end
		}
	}
}

// AddUsage adds to the counters of keys: each count, of which a key has one, to
// the key's total, the later of both times as its last use, what its previous secret
// was used likewise, unless a later rotation has ended it, its outcomes to the
// buckets of the key and of its organization, and its refusals to its record. It returns how many of counts,
// which it sorts by id, are done with: all unless err is set, and those that are
// not can be given again. Of a key that was deleted only the organization's
// buckets, and what was to be paid, are counted on.
func (s *Store) AddUsage(ctx context.Context, counts []apikey.UsageCount) (stored int, err error) {
	slices.SortFunc(counts, func(a, b apikey.UsageCount) int { return strings.Compare(a.KeyID, b.KeyID) })
	for chunk := range usageChunks(counts) {
		err := s.transact(ctx, "add usage", func(ctx context.Context, etx *ent.Tx) error {
			return s.addUsage(ctx, etx, chunk)
		})
		if err != nil {
			return stored, err
		}
		stored += len(chunk)
	}
	return stored, nil
}

func (s *Store) addUsage(ctx context.Context, etx *ent.Tx, counts []apikey.UsageCount) error {
	ids := make(texts, 0, len(counts))
	for i := range counts {
		if counts[i].KeyID != "" {
			ids = append(ids, counts[i].KeyID)
		}
	}
	gone, err := s.gone(ctx, etx, ids)
	if err != nil {
		return err
	}
	totals := totalRows{ids: make(texts, 0, len(counts))}
	var previous []any
	b, units := newBuckets(), newUnitRows()
	var usual usualRows
	var refused refusedUses
	for i := range counts {
		c := &counts[i]
		b.addOrganization(c.OrganizationID, c.Outcomes)
		units.addOwners(c)
		if c.KeyID == "" || gone[c.KeyID] {
			units.addKey(c)
			continue
		}
		if s.dialect != dialect.Postgres || !usual.add(c) {
			units.addKey(c)
			b.addKey(c.OrganizationID, c.KeyID, c.Outcomes)
		}
		if !c.LastUsedAt.IsZero() {
			totals.add(c)
		}
		s.addRefused(&refused, c)
		if p := &c.Previous; p.Requests > 0 {
			previous = append(previous, c.KeyID, 0, 0, p.Rotation, p.Requests, p.LastUsedAt.UnixMicro())
		}
	}
	if err := totals.write(ctx, etx, s.dialect); err != nil {
		return err
	}
	if err := usual.write(ctx, etx); err != nil {
		return err
	}
	if err := addPrevious.exec(ctx, etx, s.dialect, previous); err != nil {
		return err
	}
	if err := s.addAddresses(ctx, etx, counts, gone); err != nil {
		return err
	}
	if err := refused.write(ctx, etx, s.dialect); err != nil {
		return err
	}
	if err := units.write(ctx, etx, s.dialect); err != nil {
		return err
	}
	return b.write(ctx, etx, s.dialect)
}

// totalRows is what is to be added to the counters of keys.
type totalRows struct {
	ids            texts
	counts, lastAt numbers
	ips, agents    texts
}

func (r *totalRows) add(c *apikey.UsageCount) {
	r.ids, r.counts, r.lastAt = append(r.ids, c.KeyID), append(r.counts, c.Count), append(r.lastAt, c.LastUsedAt.UnixMicro())
	r.ips, r.agents = append(r.ips, c.IP), append(r.agents, c.UserAgent)
}

func (r *totalRows) write(ctx context.Context, etx *ent.Tx, dialect string) error {
	return addTotals.exec(ctx, etx, dialect, r.ids, r.counts, r.lastAt, r.ips, r.agents)
}

// addTotals adds to the counters of keys.
var addTotals = columnBulk{
	head: "INSERT INTO " + entusage.Table + " (" +
		entusage.FieldID + ", " + entusage.FieldTotalRequests + ", " + entusage.FieldLastUsedAt + ", " +
		entusage.FieldLastIP + ", " + entusage.FieldLastUserAgent + ") ",
	types: []string{"text", "bigint", "bigint", "text", "text"},
	tail: " ON CONFLICT (" + entusage.FieldID + ") DO UPDATE SET " +
		entusage.FieldLastIP + " = " + ofLater(entusage.FieldLastIP) + ", " +
		entusage.FieldLastUserAgent + " = " + ofLater(entusage.FieldLastUserAgent) + ", " +
		entusage.FieldTotalRequests + " = " + usageTotal + " + excluded." + entusage.FieldTotalRequests + ", " +
		entusage.FieldLastUsedAt + " = CASE WHEN excluded." + entusage.FieldLastUsedAt + " > " + usageLast +
		" THEN excluded." + entusage.FieldLastUsedAt + " ELSE " + usageLast + " END",
}

// ofLater returns what a column becomes that is of the latest use. A server that knows
// of a later one by another server tells its time, and not from where it was.
func ofLater(column string) string {
	return "CASE WHEN excluded." + entusage.FieldLastUsedAt + " > " + usageLast +
		" THEN excluded." + column + " ELSE " + entusage.Table + "." + column + " END"
}

// addPrevious adds to the counters of previous secrets, whose keys have counters by
// then. Of two rotations the later one counts; of one, both counts are added.
var addPrevious = bulk{
	head: "INSERT INTO " + entusage.Table + " (" +
		entusage.FieldID + ", " + entusage.FieldTotalRequests + ", " + entusage.FieldLastUsedAt + ", " +
		entusage.FieldPreviousRotation + ", " + entusage.FieldPreviousRequests + ", " + entusage.FieldPreviousLastUsedAt + ") VALUES ",
	columns: 6,
	tail: " ON CONFLICT (" + entusage.FieldID + ") DO UPDATE SET " +
		entusage.FieldPreviousRequests + " = excluded." + entusage.FieldPreviousRequests +
		" + CASE WHEN excluded." + entusage.FieldPreviousRotation + " = " + previousRotation + " THEN " + previousRequests + " ELSE 0 END, " +
		entusage.FieldPreviousLastUsedAt + " = CASE WHEN excluded." + entusage.FieldPreviousRotation + " = " + previousRotation +
		" AND excluded." + entusage.FieldPreviousLastUsedAt + " < " + previousLast +
		" THEN " + previousLast + " ELSE excluded." + entusage.FieldPreviousLastUsedAt + " END, " +
		entusage.FieldPreviousRotation + " = excluded." + entusage.FieldPreviousRotation +
		" WHERE excluded." + entusage.FieldPreviousRotation + " >= " + previousRotation,
}

const (
	usageTotal = entusage.Table + "." + entusage.FieldTotalRequests
	usageLast  = entusage.Table + "." + entusage.FieldLastUsedAt

	previousRotation = entusage.Table + "." + entusage.FieldPreviousRotation
	previousRequests = entusage.Table + "." + entusage.FieldPreviousRequests
	previousLast     = entusage.Table + "." + entusage.FieldPreviousLastUsedAt
)

// countKeys counts those of ids that are keys.
var countKeys = columnBulk{
	head:  "SELECT COUNT(*) FROM " + entkey.Table + " WHERE " + entkey.FieldID + " IN (",
	types: []string{"text"},
	tail:  ")",
}

// gone returns those of ids, which are distinct, that are not keys: a key can be
// deleted after its last use, and nobody would ever take its counters away. That
// is rare, so they are counted first, which is cheaper than to read them.
func (s *Store) gone(ctx context.Context, etx *ent.Tx, ids texts) (map[string]bool, error) {
	if n, err := countKeys.sum(ctx, etx, s.dialect, ids); err != nil || n == len(ids) {
		return nil, err
	}
	gone := make(map[string]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	there, err := etx.ApiKey.Query().Where(entkey.IDIn(ids...)).IDs(ctx)
	for _, id := range there {
		delete(gone, id)
	}
	return gone, err
}

// addAddresses adds to what is counted of the addresses of keys, whose counters this
// transaction has written before, so that no other server merges meanwhile.
func (s *Store) addAddresses(ctx context.Context, etx *ent.Tx, counts []apikey.UsageCount, gone map[string]bool) error {
	more := make(map[string]*apikey.UsageCount)
	var ids []any
	for i := range counts {
		if c := &counts[i]; c.Addresses != nil && !c.LastUsedAt.IsZero() && !gone[c.KeyID] {
			more[c.KeyID] = c
			ids = append(ids, c.KeyID)
		}
	}
	var rows []any
	err := readAddresses.query(ctx, etx, s.dialect, ids, func(found *sql.Rows) error {
		var id string
		var day int64
		var counted []byte
		if err := found.Scan(&id, &day, &counted); err != nil {
			return err
		}
		var a apikey.Addresses
		a.Merge(day, counted)
		a.Merge(more[id].AddressDay, more[id].Addresses)
		rows = append(rows, id, 0, 0, a.Day(), a.Count(), a.Bytes())
		return nil
	})
	if err != nil {
		return err
	}
	return setAddresses.exec(ctx, etx, s.dialect, rows)
}

var (
	readAddresses = bulk{
		head: "SELECT " + entusage.FieldID + ", " + entusage.FieldAddressesDay + ", " + entusage.FieldAddresses +
			" FROM " + entusage.Table + " WHERE " + entusage.FieldID + " IN (VALUES ",
		columns: 1,
		tail:    ")",
	}
	setAddresses = bulk{
		head: "INSERT INTO " + entusage.Table + " (" +
			entusage.FieldID + ", " + entusage.FieldTotalRequests + ", " + entusage.FieldLastUsedAt + ", " +
			entusage.FieldAddressesDay + ", " + entusage.FieldAddressesCount + ", " + entusage.FieldAddresses + ") VALUES ",
		columns: 6,
		tail: " ON CONFLICT (" + entusage.FieldID + ") DO UPDATE SET " +
			entusage.FieldAddressesDay + " = excluded." + entusage.FieldAddressesDay + ", " +
			entusage.FieldAddressesCount + " = excluded." + entusage.FieldAddressesCount + ", " +
			entusage.FieldAddresses + " = excluded." + entusage.FieldAddresses,
	}
)
