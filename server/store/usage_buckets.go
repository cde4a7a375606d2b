package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	entbucket "github.com/apikeys-dev/apikeys/ent/usagebucket"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// bucket is what is to be added to one row: what is counted, in which hour or
// day, of what outcome. All of an organization has no key.
type bucket struct {
	organization, key string
	width             apikey.Granularity
	start             int64 // microseconds
	code              apikey.Code
	count             int64
}

// compare orders buckets as their index does. The key comes first that most often
// decides: a flush has few organizations and many keys.
func (b bucket) compare(other bucket) int {
	if b.organization != other.organization {
		return cmp.Compare(b.organization, other.organization)
	}
	if b.key != other.key {
		return cmp.Compare(b.key, other.key)
	}
	return cmp.Or(cmp.Compare(b.width, other.width), cmp.Compare(b.start, other.start), cmp.Compare(b.code, other.code))
}

// buckets is what is to be added to rows. Several can be of one row.
type buckets struct {
	keys []bucket
	// organizations are added up at once: every count of a flush has a part in them.
	organizations map[organizationHour]int64
}

// organizationHour is an outcome of an organization in an hour.
type organizationHour struct {
	organization string
	hour         int64 // seconds since 1970
	code         apikey.Code
}

func newBuckets() *buckets { return &buckets{organizations: make(map[organizationHour]int64)} }

// addKey counts outcomes of a key by hour and by day.
func (b *buckets) addKey(organization, key string, outcomes []apikey.OutcomeCount) {
	for _, o := range outcomes {
		b.keys = appendBuckets(b.keys, organization, key, o)
	}
}

// addOrganization counts outcomes of an organization.
func (b *buckets) addOrganization(organization string, outcomes []apikey.OutcomeCount) {
	for _, o := range outcomes {
		b.organizations[organizationHour{organization, o.Hour.Unix(), o.Code}] += o.Count
	}
}

// appendBuckets appends the hour and the day that an outcome belongs to.
func appendBuckets(to []bucket, organization, key string, o apikey.OutcomeCount) []bucket {
	for _, width := range [...]apikey.Granularity{apikey.Hourly, apikey.Daily} {
		to = append(to, bucket{organization, key, width, width.Start(o.Hour).UnixMicro(), o.Code, o.Count})
	}
	return to
}

// sorted returns all that is to be added, one for each row, in the order of their
// index.
func (b *buckets) sorted() []bucket {
	all := make([]bucket, 0, 2*len(b.organizations)+len(b.keys))
	for o, count := range b.organizations { // before those of its keys, as in the index
		all = appendBuckets(all, o.organization, "", apikey.OutcomeCount{Hour: time.Unix(o.hour, 0).UTC(), Code: o.code, Count: count})
	}
	all = append(all, b.keys...)
	slices.SortFunc(all, bucket.compare)
	rows := all[:0]
	for _, one := range all {
		if n := len(rows); n > 0 && rows[n-1].compare(one) == 0 {
			rows[n-1].count += one.count
		} else {
			rows = append(rows, one)
		}
	}
	return rows
}

// addBuckets adds to the rows of buckets.
var addBuckets = columnBulk{
	head:  "INSERT INTO " + entbucket.Table + " (" + bucketName + ", " + entbucket.FieldCount + ") ",
	types: []string{"text", "text", "bigint", "bigint", "text", "bigint"},
	tail: " ON CONFLICT (" + bucketName + ") DO UPDATE SET " +
		entbucket.FieldCount + " = " + entbucket.Table + "." + entbucket.FieldCount + " + excluded." + entbucket.FieldCount,
}

const bucketName = entbucket.FieldOrganizationID + ", " + entbucket.FieldKeyID + ", " + entbucket.FieldWidth + ", " +
	entbucket.FieldStart + ", " + entbucket.FieldCode

// write adds to the rows.
func (b *buckets) write(ctx context.Context, etx *ent.Tx, dialect string) error {
	rows := b.sorted()
	organizations, keys, codes := make(texts, len(rows)), make(texts, len(rows)), make(texts, len(rows))
	widths, starts, counts := make(numbers, len(rows)), make(numbers, len(rows)), make(numbers, len(rows))
	for i := range rows {
		r := &rows[i]
		organizations[i], keys[i], codes[i] = r.organization, r.key, string(r.code)
		widths[i], starts[i], counts[i] = int64(seconds(r.width)), r.start, r.count
	}
	return addBuckets.exec(ctx, etx, dialect, organizations, keys, widths, starts, codes, counts)
}

func seconds(g apikey.Granularity) int { return int(time.Duration(g) / time.Second) }

// deleteBuckets deletes the buckets of a key. Those of its organization stay:
// what was asked was asked.
func (t *tx) deleteBuckets(ctx context.Context, k *apikey.Key) error {
	_, err := t.UsageBucket.Delete().
		Where(entbucket.OrganizationID(k.OrganizationID), entbucket.KeyID(k.ID)).Exec(ctx)
	if err != nil {
		return fmt.Errorf("delete the key's usage: %w", err)
	}
	return nil
}

// Usage returns the buckets of a period that hold anything, ascending: those of a
// key of organization or, without an id, of all that the organization asked. A
// key that is not there is apikey.ErrNotFound.
func (s *Store) Usage(ctx context.Context, organization, id string, p apikey.Period) ([]apikey.Bucket, error) {
	if id != "" {
		there, err := s.reader.ApiKey.Query().Where(entkey.ID(id), entkey.OrganizationID(organization)).Exist(ctx)
		if err != nil {
			return nil, fmt.Errorf("read usage: %w", err)
		}
		if !there {
			return nil, apikey.ErrNotFound
		}
	}
	rows, err := s.reader.UsageBucket.Query().
		Where(append(inPeriod(p), entbucket.OrganizationID(organization), entbucket.KeyID(id))...).
		Order(entbucket.ByStart()).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	var found []apikey.Bucket
	for _, row := range rows {
		start := fromMicros(&row.Start)
		if n := len(found); n == 0 || !found[n-1].Start.Equal(start) {
			found = append(found, apikey.Bucket{Start: start, Counts: make(map[apikey.Code]int64)})
		}
		found[len(found)-1].Counts[apikey.Code(row.Code)] += row.Count
	}
	return found, nil
}

func inPeriod(p apikey.Period) []predicate.UsageBucket {
	return []predicate.UsageBucket{
		entbucket.Width(seconds(p.Granularity)),
		entbucket.StartGTE(p.Since.UnixMicro()), entbucket.StartLT(p.Until.UnixMicro()),
	}
}

// MostUsed returns the keys of organization with the most valid verifications in
// a period, most first and of equal ones the older first, at most limit. Whole
// days are read by the day, which is kept longer than its hours, too. The cost grows
// with the keys of an organization, so there is one such read at a time, whoever
// picks, and the other readers are left to everybody else.
func (s *Store) MostUsed(ctx context.Context, organization string, p apikey.Period, limit int) ([]apikey.KeyUse, error) {
	select {
	case s.summing <- struct{}{}:
		defer func() { <-s.summing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("read the most used keys: %w", ctx.Err())
	}
	var parts []predicate.UsageBucket
	for _, part := range p.Parts() {
		parts = append(parts, entbucket.And(append(inPeriod(part), entbucket.OrganizationID(organization))...))
	}
	var sums []struct {
		KeyID string `json:"key_id"`
		Sum   int64  `json:"sum"`
	}
	err := s.reader.UsageBucket.Query().
		Where(entbucket.Or(parts...), entbucket.KeyIDNEQ(""), entbucket.Code(string(apikey.CodeValid))).
		Modify(func(sel *entsql.Selector) {
			sum := entsql.Sum(sel.C(entbucket.FieldCount))
			sel.Select(sel.C(entbucket.FieldKeyID), entsql.As(sum, "sum")).GroupBy(sel.C(entbucket.FieldKeyID)).
				OrderBy(entsql.Desc(sum), sel.C(entbucket.FieldKeyID)).Limit(limit)
		}).Scan(ctx, &sums)
	if err != nil {
		return nil, fmt.Errorf("read the most used keys: %w", err)
	}
	ids := make([]string, len(sums))
	for i := range sums {
		ids[i] = sums[i].KeyID
	}
	rows, err := s.reader.ApiKey.Query().Where(entkey.IDIn(ids...)).Select(entkey.FieldID, entkey.FieldLabel).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the most used keys: %w", err)
	}
	labels := make(map[string]string, len(rows))
	for _, row := range rows {
		labels[row.ID] = row.Label
	}
	var uses []apikey.KeyUse
	for _, sum := range sums {
		if label, there := labels[sum.KeyID]; there {
			uses = append(uses, apikey.KeyUse{KeyID: sum.KeyID, Label: label, Count: sum.Sum})
		}
	}
	return uses, nil
}

// DeleteUsageBefore deletes up to limit buckets of a granularity that ended before
// the time given, oldest first, and returns how many.
func (s *Store) DeleteUsageBefore(ctx context.Context, g apikey.Granularity, before time.Time, limit int) (int, error) {
	const doing = "delete old usage"
	ids, err := s.reader.UsageBucket.Query().
		Where(entbucket.Width(seconds(g)), entbucket.StartLT(before.Add(-time.Duration(g)).UnixMicro())).
		Order(entbucket.ByStart()).Limit(limit).IDs(ctx)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	if len(ids) == 0 {
		return 0, nil
	}
	return len(ids), s.transact(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
		_, err := etx.UsageBucket.Delete().Where(entbucket.IDIn(ids...)).Exec(ctx)
		return err
	})
}
