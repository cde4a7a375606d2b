package api

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// mostUsed is how many keys the analytics name.
const mostUsed = 10

// GetApiKeyUsage returns how often a key was verified.
func (s *apiKeys) GetApiKeyUsage(ctx context.Context, req *apikeysv1.GetApiKeyUsageRequest) (*apikeysv1.GetApiKeyUsageResponse, error) {
	granularity, named := apikey.Hourly, apikeysv1.UsageGranularity_USAGE_GRANULARITY_HOUR
	if req.GetGranularity() == apikeysv1.UsageGranularity_USAGE_GRANULARITY_DAY {
		granularity, named = apikey.Daily, req.GetGranularity()
	}
	period, err := s.period(ctx, granularity, req)
	if err != nil {
		return nil, err
	}
	if !apikey.IsID(apikey.IDPrefix, req.GetId()) {
		return nil, apikey.ErrNotFound
	}
	found, err := s.store.Usage(ctx, callerOf(ctx).Organization, req.GetId(), period)
	if err != nil {
		return nil, err
	}
	return &apikeysv1.GetApiKeyUsageResponse{
		ApiKeyId:    req.GetId(),
		Granularity: named,
		Since:       wire.Timestamp(period.Since),
		Until:       wire.Timestamp(period.Until),
		Totals:      wire.UsageCounts(apikey.Total(found)),
		Series:      wire.UsageBuckets(period.Fill(found)),
	}, nil
}

// GetApiKeysAnalytics returns what the verifications of an organization came to.
func (s *apiKeys) GetApiKeysAnalytics(ctx context.Context, req *apikeysv1.GetApiKeysAnalyticsRequest) (*apikeysv1.GetApiKeysAnalyticsResponse, error) {
	period, err := s.period(ctx, apikey.Hourly, req)
	if err != nil {
		return nil, err
	}
	organization := callerOf(ctx).Organization
	found, err := s.store.Usage(ctx, organization, "", period)
	if err != nil {
		return nil, err
	}
	uses, err := s.store.MostUsed(ctx, organization, period, mostUsed)
	if err != nil {
		return nil, err
	}
	totals := apikey.Total(found)
	resp := &apikeysv1.GetApiKeysAnalyticsResponse{
		Since:       wire.Timestamp(period.Since),
		Until:       wire.Timestamp(period.Until),
		Totals:      wire.UsageCounts(totals),
		UnknownKeys: totals[apikey.CodeMalformed] + totals[apikey.CodeNotFound],
		Series:      wire.UsageBuckets(period.Fill(found)),
	}
	if passed := period.Passed(s.now()); passed > 0 {
		resp.RequestsPerSecond = float64(resp.GetTotals().GetTotal()) / passed.Seconds()
	}
	if total := resp.GetTotals().GetTotal(); total > 0 {
		rate := float64(totals[apikey.CodeValid]) / float64(total)
		resp.SuccessRate = &rate
	}
	for _, use := range uses {
		resp.MostUsed = append(resp.MostUsed, &apikeysv1.KeyUse{ApiKeyId: use.KeyID, Label: use.Label, Requests: use.Count})
	}
	return resp, nil
}

// period returns the buckets that a request asks for.
func (s *apiKeys) period(ctx context.Context, g apikey.Granularity, req interface {
	GetSince() *timestamppb.Timestamp
	GetUntil() *timestamppb.Timestamp
},
) (apikey.Period, error) {
	found := faultsOf(ctx)
	before := len(found)
	since, until := found.span(req)
	if len(found) > before { // there is no span
		return apikey.Period{}, found.err()
	}
	period, err := apikey.NewPeriod(g, since, until, s.now())
	return period, found.with(err)
}
