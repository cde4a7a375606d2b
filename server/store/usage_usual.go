package store

import (
	"context"
	"time"

	"github.com/apikeys-dev/apikeys/ent"
	entbucket "github.com/apikeys-dev/apikeys/ent/usagebucket"
	entunit "github.com/apikeys-dev/apikeys/ent/usageunit"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// usualRows are of keys of which a flush counts what is usual: valid verifications of one
// hour, while the key had one owner. Of such a key PostgreSQL makes the rows of buckets and
// of units itself, by hour and by day, so that a key is sent once and not four times. All
// are of the same hour.
//
// They need no place in the order in which rows are locked: whoever writes them has locked
// the counters of their keys.
type usualRows struct {
	hour               time.Time
	organizations, ids texts
	calls, units       numbers
}

// add adds c if that is usual, and reports whether it is.
func (r *usualRows) add(c *apikey.UsageCount) bool {
	if c.Count == 0 || c.LastUsedAt.IsZero() || len(c.Outcomes) != 1 || len(c.Units) != 1 {
		return false
	}
	o, u := &c.Outcomes[0], &c.Units[0]
	if o.Code != apikey.CodeValid || o.Count != u.Calls || !o.Hour.Equal(u.Hour) {
		return false
	}
	if len(r.ids) == 0 {
		r.hour = o.Hour
	} else if !r.hour.Equal(o.Hour) {
		return false
	}
	r.organizations, r.ids = append(r.organizations, c.OrganizationID), append(r.ids, c.KeyID)
	r.calls, r.units = append(r.calls, u.Calls), append(r.units, u.Units)
	return true
}

// write adds to the rows, after those of counters.
func (r *usualRows) write(ctx context.Context, etx *ent.Tx) error {
	if len(r.ids) == 0 {
		return nil
	}
	_, err := etx.ExecContext(ctx, addUsual, r.organizations.array(), r.ids.array(), r.calls.array(), r.units.array(),
		apikey.Hourly.Start(r.hour).UnixMicro(), apikey.Daily.Start(r.hour).UnixMicro())
	return err
}

var addUsual = "WITH r AS (SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS r(organization, id, calls, units))," +
	" w(width, begin) AS (VALUES (3600::bigint, $5::bigint), (86400, $6))," +
	" b AS (INSERT INTO " + entbucket.Table + " (" + bucketName + ", " + entbucket.FieldCount + ")" +
	" SELECT organization, id, width, begin, '" + string(apikey.CodeValid) + "', calls FROM r, w" + addBuckets.tail + ")" +
	" INSERT INTO " + entunit.Table + " (" + unitColumns + ", " + entunit.FieldCalls + ", " + entunit.FieldUnits + ")" +
	" SELECT organization, '" + string(apikey.ByKey) + "', width, begin, id, calls, units FROM r, w" + addUnits.tail
