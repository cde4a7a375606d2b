package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// usage is the service of usage that can be billed.
type usage struct {
	apikeysv1.UnimplementedUsageServiceServer

	store     *store.Store
	now       func() time.Time
	retention map[apikey.Granularity]time.Duration
}

// closedAfter is how long after its end an hour or a day is closed. Servers store what
// they counted once a second, and later where the database was out of reach.
const closedAfter = 5 * time.Minute

// GetUsage returns what was used, in rows.
func (s *usage) GetUsage(ctx context.Context, req *apikeysv1.GetUsageRequest) (*apikeysv1.GetUsageResponse, error) {
	caller, found := callerOf(ctx), faultsOf(ctx)
	granularity := apikey.Daily
	if req.GetGranularity() == apikeysv1.UsageGranularity_USAGE_GRANULARITY_HOUR {
		granularity = apikey.Hourly
	}
	filter := store.UnitFilter{Organization: caller.Organization, Among: caller.Among(), Group: wire.UsageGroup(req.GetGroupBy())}
	switch id, owner := req.GetApiKeyId(), req.GetOwnerId(); {
	case id != "" && filter.Group != apikey.ByKey:
		found.add("api_key_id", "is for group_by api_key_id alone")
	case owner != "" && filter.Group != apikey.ByOwner:
		found.add("owner_id", "is for group_by owner_id alone")
	default:
		filter.Name = id + owner // of which one is empty
	}
	if filter.Organization == "" && filter.Group != apikey.ByOrganization {
		found.add("group_by", "must be organization_id where usage of all organizations is asked for")
	}
	token := bindToken(req)
	place := found.usagePlace(token, req.GetPageToken())
	before := len(found)
	since, until := found.span(req)
	if len(found) > before { // there is no span
		return nil, found.err()
	}
	period, err := apikey.NewPeriod(granularity, since, until, s.now())
	if err := found.with(err); err != nil {
		return nil, err
	}
	filter.Period = period
	rows, more, err := s.store.Units(ctx, filter, place, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	incomplete, err := s.incompleteBefore(ctx, &filter, rows)
	if err != nil {
		return nil, err
	}
	resp := &apikeysv1.GetUsageResponse{
		Since: wire.Timestamp(period.Since), Until: wire.Timestamp(period.Until),
		Granularity: wire.UsageGranularity(granularity), GroupBy: wire.UsageGroupMessage(filter.Group),
		ClosedBefore:     wire.Timestamp(granularity.Start(s.now().Add(-closedAfter))),
		IncompleteBefore: wire.Timestamp(incomplete),
	}
	var page page[*apikeysv1.UsageRow]
	for i := range rows {
		if more = !page.add(wire.UsageRow(filter.Group, &rows[i])) || more; len(page.rows) == i {
			break
		}
	}
	if resp.Rows = page.rows; more {
		resp.NextPageToken = token.encodePlace(rows[len(page.rows)-1].UsagePlace)
	}
	return resp, nil
}

// incompleteBefore returns until when the usage of a filter is not whole: older than
// what is kept, or counted by a server that knew of no units. The zero time means that
// all of it is whole.
func (s *usage) incompleteBefore(ctx context.Context, f *store.UnitFilter, rows []apikey.UsageRow) (time.Time, error) {
	var until time.Time
	width := time.Duration(f.Period.Granularity)
	// Whatever ended before this may have been deleted.
	if kept := s.now().Add(-s.retention[f.Period.Granularity]); f.Period.Since.Add(width).Before(kept) {
		until = f.Period.Granularity.Start(kept)
	}
	organizations := []string{f.Organization}
	if f.Organization == "" {
		organizations = nil
		for i := range rows {
			if name := rows[i].Organization; len(organizations) == 0 || organizations[len(organizations)-1] != name {
				organizations = append(organizations, name)
			}
		}
	}
	seen := make(map[string]bool)
	for _, name := range organizations {
		if seen[name] {
			continue
		}
		seen[name] = true
		uncounted, err := s.store.UncountedUntil(ctx, name, f.Period)
		if err != nil {
			return time.Time{}, err
		}
		if uncounted.After(until) {
			until = uncounted
		}
	}
	return until, nil
}

// encodePlace returns the token of a page that goes on after a row.
func (b boundToken) encodePlace(p apikey.UsagePlace) string {
	text, _ := json.Marshal(p) // of texts and a number
	return base64.RawURLEncoding.EncodeToString(append([]byte(b.hash), text...))
}

// usagePlace returns the row after which a token goes on.
func (f *faults) usagePlace(b boundToken, token string) (p apikey.UsagePlace) {
	if token == "" {
		return p
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	switch {
	case err != nil || len(text) <= tokenHash || json.Unmarshal(text[tokenHash:], &p) != nil:
		f.add("page_token", "must be the next_page_token of another page")
	case string(text[:tokenHash]) != b.hash:
		f.add("page_token", "is of another request; begin again without it")
	}
	return p
}
