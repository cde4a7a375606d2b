package api

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// faults collects the faulty fields of a request: what its proto refuses, and what
// its handler cannot read. The rules of the resource add theirs, so that a caller
// is told all of them at once.
//
// What cannot be read becomes a value that no resource has: an update must not
// take it for the one that is there.
type faults []apikey.FieldProblem

// tellsFaults reports whether the handler of a request tells its faults itself,
// together with those that the rules of the resource find.
func tellsFaults(req any) bool {
	switch req.(type) {
	case *apikeysv1.CreateApiKeyRequest, *apikeysv1.UpdateApiKeyRequest,
		*apikeysv1.CreateWebhookRequest, *apikeysv1.UpdateWebhookRequest:
		return true
	}
	return false
}

// keep returns err, with which a request was read inside the process. Where it names
// fields that could not be read, and the request's handler tells faults, they are
// kept for it, and there is no error.
func (c *call) keep(req any, err error) error {
	if known := apikey.AsError(err); known != nil && len(known.Fields) > 0 && tellsFaults(req) {
		c.unreadable = known.Fields
		return nil
	}
	return err
}

// faultsOf returns what the proto refuses of the request, which its handler has to
// tell. See tellsFaults.
func faultsOf(ctx context.Context) faults { return slices.Clip(callOf(ctx).faults) }

// withUnreadable returns err, which the rules of the resource gave, with the fields
// of the request that could not be read.
func withUnreadable(ctx context.Context, err error) error {
	unreadable := slices.Clip(callOf(ctx).unreadable)
	if len(unreadable) == 0 {
		return err
	}
	if known := apikey.AsError(err); known != nil {
		unreadable = append(unreadable, known.Fields...)
	}
	return unreadable.err()
}

// faulty reports whether it is known before the rules of the resource are asked that
// a request is refused, or may be. That is told without the store's writer.
func faulty(ctx context.Context) bool {
	c := callOf(ctx)
	return len(c.unreadable)+len(c.faults) > 0
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
	if t == nil {
		return time.Time{}
	}
	if !t.IsValid() || t.GetSeconds() < 0 {
		f.add(field, "must be a time of the years 1970 to 9999")
		return time.Unix(-1, 0)
	}
	return t.AsTime().Truncate(time.Microsecond)
}

// span returns the span of time that a request names.
func (f *faults) span(req interface {
	GetSince() *timestamppb.Timestamp
	GetUntil() *timestamppb.Timestamp
},
) (since, until time.Time) {
	return f.time("since", req.GetSince()), f.time("until", req.GetUntil())
}

// allowList reads a list of ranges and names each entry that is none.
func (f *faults) allowList(field string, texts []string) apikey.AllowList {
	var list apikey.AllowList
	for i, text := range texts {
		p, err := apikey.ParseAllowed(text)
		if err != nil {
			f.add(fmt.Sprintf("%s[%d]", field, i), err.Error())
			p = netip.Prefix{}
		}
		list = append(list, p)
	}
	return list
}

// An updateRequest is a request that changes the fields of a resource which its
// mask names.
type updateRequest interface {
	GetId() string
	GetEtag() string
	GetUpdateMask() *fieldmaskpb.FieldMask
}

// A resource has an id and an etag, which say in an update which version of it is
// meant.
type resource interface {
	GetId() string
	GetEtag() string
}

// target judges what an update says of the resource that it means. An error says
// that there is nothing else to judge.
func (f *faults) target(req updateRequest, sent resource) error {
	if id := sent.GetId(); id != "" && id != req.GetId() {
		f.add("id", "must be the id of the resource that is updated")
	}
	if etag := sent.GetEtag(); etag != "" && req.GetEtag() != "" && etag != req.GetEtag() {
		f.add("etag", "is not the one of the resource that is sent")
	}
	if req.GetUpdateMask() == nil {
		f.add("update_mask", "is required; it names the fields to change")
		return f.err()
	}
	return nil
}

// checkETag is a conflict where an update names an etag that is not the
// resource's.
func checkETag(req updateRequest, sent resource, current string) error {
	asked := cmp.Or(req.GetEtag(), sent.GetEtag())
	if asked == "" || asked == current {
		return nil
	}
	return apikey.Errorf(apikey.KindConflict, apikey.ReasonETagMismatch,
		"The resource has changed since this etag; read it again. Its etag is now %s.", current)
}
