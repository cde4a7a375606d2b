package api

import (
	"cmp"
	"encoding/base64"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// What requests of all services have in common.

// defaultPageSize is how many rows a page holds where the request names no size.
const defaultPageSize = 100

func pageSize(asked int32) int {
	if asked == 0 {
		return defaultPageSize
	}
	return int(asked)
}

// page collects the rows of one page of a list. Every list of this package is made
// with it, so that none can become larger than its readers take.
type page[M proto.Message] struct {
	rows  []M
	bytes int
	row   []byte // the memory in which the latest row was measured
}

// add adds m and returns true, or false where m belongs on the next page. The first
// row is always taken, however large it is.
func (p *page[M]) add(m M) bool {
	p.row = wirejson.Append(p.row[:0], m)
	if p.bytes += len(p.row); p.bytes > apikey.MaxPage && len(p.rows) > 0 {
		return false
	}
	p.rows = append(p.rows, m)
	return true
}

// A page token is the id of the last row that was looked at, encoded so that
// nobody takes it for one to build.
func encodePageToken(last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(last))
}

// pageToken returns the id, which has prefix, that a page token holds.
func (f *faults) pageToken(prefix, token string) (last string) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(text) > 0 && !apikey.IsID(prefix, string(text)) {
		f.add("page_token", "must be the next_page_token of another page")
	}
	return string(text)
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

// target checks what an update says of the resource that it means. An error says
// that there is nothing else to check.
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
