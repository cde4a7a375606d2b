package api

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// faults collects the faulty fields of a request. There are four sources, and a
// caller is told of all of them at once:
//
//   - over REST, the reader of JSON and of queries: what has another type, or another
//     name
//   - the search for pasted secrets
//   - the rules of the proto
//   - the method: what its proto cannot say, and the rules of the resource
type faults []apikey.FieldProblem

// tellsFaults reports whether the method of a request tells its faults itself,
// together with those that it finds. The faults of all other requests are told before
// their method is called.
func tellsFaults(req any) bool {
	switch req.(type) {
	case *apikeysv1.CreateApiKeyRequest, *apikeysv1.UpdateApiKeyRequest, *apikeysv1.ListApiKeysRequest, *apikeysv1.ListApiKeyRefusalsRequest,
		*apikeysv1.BatchUpdateApiKeysRequest, *apikeysv1.BatchRotateApiKeysRequest,
		*apikeysv1.BatchRevokeApiKeysRequest, *apikeysv1.BatchDeleteApiKeysRequest,
		*apikeysv1.GetApiKeyUsageRequest, *apikeysv1.GetApiKeysAnalyticsRequest, *apikeysv1.GetUsageRequest, *apikeysv1.GetWebhooksAnalyticsRequest,
		*apikeysv1.CreateWebhookRequest, *apikeysv1.UpdateWebhookRequest, *apikeysv1.ListWebhooksRequest,
		*apikeysv1.ListDeliveriesRequest, *apikeysv1.ReplayEventsRequest,
		*apikeysv1.CreateOperatorTokenRequest, *apikeysv1.UpdateOperatorTokenRequest, *apikeysv1.ListOperatorTokensRequest,
		*apikeysv1.ListEventsRequest, *apikeysv1.WatchEventsRequest:
		return true
	}
	return false
}

// keep returns err, with which a request was read inside the process. Where err names
// fields that could not be read, they are kept with the other faults, and there is no
// error.
func (c *call) keep(err error) error {
	if known := apikey.AsError(err); known != nil && len(known.Fields) > 0 {
		c.refused = append(c.refused, known.Fields...)
		return nil
	}
	return err
}

// faultsOf returns the faults of the request that were found before its method was
// called. See tellsFaults.
func faultsOf(ctx context.Context) faults {
	c := callOf(ctx)
	return append(slices.Clip(c.refused), c.faults...)
}

// ruleFaultsOf returns what the proto refuses of an update or of a creation. The rules
// of the resource take it, because a field that stays as it is has no fault.
func ruleFaultsOf(ctx context.Context) faults { return slices.Clip(callOf(ctx).faults) }

// withRefused returns err, which the rules of the resource gave, with the fields that
// are refused whatever these rules say.
func withRefused(ctx context.Context, err error) error { return callOf(ctx).refused.with(err) }

// faulty reports whether it is known before the rules of the resource are asked that
// a request is refused, or may be. That is told without the store's writer.
func faulty(ctx context.Context) bool {
	c := callOf(ctx)
	return len(c.refused)+len(c.faults) > 0
}

// with returns an error that names f and the faulty fields of err. Without any f it is
// err.
func (f faults) with(err error) error {
	if len(f) == 0 {
		return err
	}
	all := slices.Clip(f)
	if known := apikey.AsError(err); known != nil {
		all = append(all, known.Fields...)
	}
	return all.err()
}

func (f *faults) add(field, problem string) {
	*f = append(*f, apikey.FieldProblem{Field: field, Problem: problem})
}

func (f *faults) err() error {
	if len(*f) == 0 {
		return nil
	}
	return apikey.InvalidFields(*f)
}

// time returns the time of a field as it can be stored and compared; an unset one
// is the zero time.
func (f *faults) time(field string, t *timestamppb.Timestamp) time.Time {
	read, problem := wire.Time(t)
	if problem != "" {
		f.add(field, problem)
	}
	return read
}

// span returns the span of time that a request names.
func (f *faults) span(req interface {
	GetSince() *timestamppb.Timestamp
	GetUntil() *timestamppb.Timestamp
},
) (since, until time.Time) {
	return f.time("since", req.GetSince()), f.time("until", req.GetUntil())
}
