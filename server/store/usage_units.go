package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	entbucket "github.com/apikeys-dev/apikeys/ent/usagebucket"
	entunit "github.com/apikeys-dev/apikeys/ent/usageunit"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Units are the figures that are billed: how many valid verifications there were and
// what they cost, in rows by key, by owner and by organization, by hour and by day. Each
// flush adds to all of them in one transaction with the counts that they are of, so that
// a call is in each of them once or in none. They have the owner that the key had when
// it was used, and outlive the key.

// unit is what is to be added to one row.
type unit struct {
	organization string
	kind         apikey.UsageGroup
	width        apikey.Granularity
	start        int64 // microseconds
	name         string
	calls, units int64
}

// compare orders units as their index does.
func (u unit) compare(other unit) int {
	if u.organization != other.organization {
		return cmp.Compare(u.organization, other.organization)
	}
	if u.kind != other.kind {
		return cmp.Compare(u.kind, other.kind)
	}
	return cmp.Or(cmp.Compare(u.width, other.width), cmp.Compare(u.start, other.start), cmp.Compare(u.name, other.name))
}

// unitRows is what is to be added to rows. Several can be of one row.
type unitRows struct {
	hours, days []unit // of keys
	// owners are added up at once: every count of a flush has a part in them.
	owners map[ownerHour]spent
}

// ownerHour is an owner in an organization in an hour.
type ownerHour struct {
	organization, owner string
	hour                int64 // seconds since 1970
}

type spent struct{ calls, units int64 }

func newUnitRows() *unitRows { return &unitRows{owners: make(map[ownerHour]spent)} }

// addKey adds what a key cost to its own rows.
func (r *unitRows) addKey(c *apikey.UsageCount) {
	for _, u := range c.Units {
		r.hours = append(r.hours, unitOf(c.OrganizationID, apikey.ByKey, apikey.Hourly, u.Hour, c.KeyID, u.Calls, u.Units))
		r.days = append(r.days, unitOf(c.OrganizationID, apikey.ByKey, apikey.Daily, u.Hour, c.KeyID, u.Calls, u.Units))
	}
}

// addOwners adds what a key cost to the rows of its owners and its organization.
func (r *unitRows) addOwners(c *apikey.UsageCount) {
	for _, u := range c.Units {
		of := ownerHour{c.OrganizationID, u.Owner, u.Hour.Unix()}
		all := r.owners[of]
		r.owners[of] = spent{all.calls + u.Calls, all.units + u.Units}
	}
}

func unitOf(organization string, kind apikey.UsageGroup, width apikey.Granularity, hour time.Time, name string, calls, units int64) unit {
	return unit{organization, kind, width, width.Start(hour).UnixMicro(), name, calls, units}
}

// sorted returns all that is to be added, one for each row, in the order of their index.
func (r *unitRows) sorted() []unit {
	all := append(r.hours, r.days...) //nolint:gocritic // They are not used again.
	for of, n := range r.owners {
		hour := time.Unix(of.hour, 0).UTC()
		for _, width := range [...]apikey.Granularity{apikey.Hourly, apikey.Daily} {
			all = append(all, unitOf(of.organization, apikey.ByOwner, width, hour, of.owner, n.calls, n.units),
				unitOf(of.organization, apikey.ByOrganization, width, hour, "", n.calls, n.units))
		}
	}
	slices.SortFunc(all, unit.compare)
	rows := all[:0]
	for _, one := range all {
		if n := len(rows); n > 0 && rows[n-1].compare(one) == 0 {
			rows[n-1].calls, rows[n-1].units = rows[n-1].calls+one.calls, rows[n-1].units+one.units
		} else {
			rows = append(rows, one)
		}
	}
	return rows
}

const unitColumns = entunit.FieldOrganizationID + ", " + entunit.FieldKind + ", " + entunit.FieldWidth + ", " +
	entunit.FieldStart + ", " + entunit.FieldName

// addUnits adds to the rows of units.
var addUnits = columnBulk{
	head:  "INSERT INTO " + entunit.Table + " (" + unitColumns + ", " + entunit.FieldCalls + ", " + entunit.FieldUnits + ") ",
	types: []string{"text", "text", "bigint", "bigint", "text", "bigint", "bigint"},
	tail: " ON CONFLICT (" + unitColumns + ") DO UPDATE SET " +
		entunit.FieldCalls + " = " + entunit.Table + "." + entunit.FieldCalls + " + excluded." + entunit.FieldCalls + ", " +
		entunit.FieldUnits + " = " + entunit.Table + "." + entunit.FieldUnits + " + excluded." + entunit.FieldUnits,
}

// write adds to the rows.
func (r *unitRows) write(ctx context.Context, etx *ent.Tx, dialect string) error {
	rows := r.sorted()
	organizations, kinds, names := make(texts, len(rows)), make(texts, len(rows)), make(texts, len(rows))
	widths, starts, calls, units := make(numbers, len(rows)), make(numbers, len(rows)), make(numbers, len(rows)), make(numbers, len(rows))
	for i := range rows {
		u := &rows[i]
		organizations[i], kinds[i], names[i] = u.organization, string(u.kind), u.name
		widths[i], starts[i], calls[i], units[i] = int64(seconds(u.width)), u.start, u.calls, u.units
	}
	return addUnits.exec(ctx, etx, dialect, organizations, kinds, widths, starts, names, calls, units)
}

// UnitFilter says which rows of usage are listed.
type UnitFilter struct {
	// Organization is the one whose usage it is; empty means all, or Among, which only
	// the usage by organization can be listed of.
	Organization string
	Among        []string
	Group        apikey.UsageGroup
	// Name is that of the one key or owner whose usage is listed; empty means all.
	Name   string
	Period apikey.Period
}

// Units returns a page of up to limit rows after a place, ascending by time and then by
// organization and name, and whether there are more.
func (s *Store) Units(ctx context.Context, f UnitFilter, after apikey.UsagePlace, limit int) (rows []apikey.UsageRow, more bool, err error) {
	end, err := s.beginPage(ctx)
	if err != nil {
		return nil, false, errList("usage", err)
	}
	defer end()
	where := []predicate.UsageUnit{
		entunit.Kind(string(f.Group)), entunit.Width(seconds(f.Period.Granularity)),
		entunit.StartGTE(max(f.Period.Since.UnixMicro(), after.Start)), entunit.StartLT(f.Period.Until.UnixMicro()),
	}
	switch {
	case f.Organization != "":
		where = append(where, entunit.OrganizationID(f.Organization))
	case f.Among != nil:
		where = append(where, entunit.OrganizationIDIn(f.Among...))
	}
	if f.Name != "" {
		// Each bucket by itself: those of other names are between them.
		var starts []int64
		for t := f.Period.Since; t.Before(f.Period.Until); t = t.Add(time.Duration(f.Period.Granularity)) {
			starts = append(starts, t.UnixMicro())
		}
		where = append(where, entunit.Name(f.Name), entunit.StartIn(starts...))
	}
	if after != (apikey.UsagePlace{}) {
		where = append(where, func(q *entsql.Selector) { // (start, organization, name) > after
			q.Where(entsql.CompositeGT([]string{q.C(entunit.FieldStart), q.C(entunit.FieldOrganizationID), q.C(entunit.FieldName)},
				after.Start, after.Organization, after.Name))
		})
	}
	order := []entunit.OrderOption{entunit.ByStart(), entunit.ByOrganizationID(), entunit.ByName()}
	if f.Organization != "" {
		order = []entunit.OrderOption{entunit.ByStart(), entunit.ByName()}
	}
	found, err := s.reader.UsageUnit.Query().Where(where...).Order(order...).Limit(limit + 1).All(ctx)
	if err != nil {
		return nil, false, errList("usage", err)
	}
	for _, row := range found[:min(len(found), limit)] {
		rows = append(rows, apikey.UsageRow{
			UsagePlace: apikey.UsagePlace{Start: row.Start, Organization: row.OrganizationID, Name: row.Name},
			Calls:      row.Calls, Units: row.Units,
		})
	}
	return rows, len(found) > limit, nil
}

// UncountedUntil returns the end of the last bucket of a period in which an organization
// had valid verifications that are not in its units: those which a server of an earlier
// version counted. The zero time means that there is none.
func (s *Store) UncountedUntil(ctx context.Context, organization string, p apikey.Period) (time.Time, error) {
	b, u := entbucket.Table+" AS b", entunit.Table+" AS u"
	text := "SELECT max(b.start) FROM " + b + " LEFT JOIN " + u + " ON u.organization_id = b.organization_id AND u.kind = '" + string(apikey.ByOrganization) +
		"' AND u.width = b.width AND u.start = b.start AND u.name = ''" +
		" WHERE b.organization_id = $1 AND b.key_id = '' AND b.width = $2 AND b.start >= $3 AND b.start < $4 AND b.code = $5 AND b.count > coalesce(u.calls, 0)"
	var last sql.NullInt64
	err := queryRows(ctx, s.reader, text, []any{
		organization, seconds(p.Granularity), p.Since.UnixMicro(), p.Until.UnixMicro(), string(apikey.CodeValid),
	}, func(rows *sql.Rows) error { return rows.Scan(&last) })
	if err != nil || !last.Valid {
		return time.Time{}, unexpected("look for usage without units", err)
	}
	return fromMicros(&last.Int64).Add(time.Duration(p.Granularity)), nil
}

// DeleteUnitsBefore deletes up to limit rows of units of a granularity that ended before
// the time given, and returns how many.
func (s *Store) DeleteUnitsBefore(ctx context.Context, g apikey.Granularity, before time.Time, limit int) (int, error) {
	const doing = "delete old units"
	var ids []int64
	for _, kind := range []apikey.UsageGroup{apikey.ByKey, apikey.ByOwner, apikey.ByOrganization} {
		if len(ids) == limit {
			break
		}
		more, err := s.reader.UsageUnit.Query().
			Where(entunit.Kind(string(kind)), entunit.Width(seconds(g)), entunit.StartLT(before.Add(-time.Duration(g)).UnixMicro())).
			Order(entunit.ByStart()).Limit(limit - len(ids)).IDs(ctx)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", doing, err)
		}
		ids = append(ids, more...)
	}
	if len(ids) == 0 {
		return 0, nil
	}
	return len(ids), s.transact(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
		_, err := etx.UsageUnit.Delete().Where(entunit.IDIn(ids...)).Exec(ctx)
		return err
	})
}
