package api

import (
	"encoding/base64"

	"github.com/apikeys-dev/apikeys/server/apikey"
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

// A page token is the id of the last row that was looked at, encoded so that
// nobody takes it for one to build.
func encodePageToken(last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(last))
}

// decodePageToken returns the id, which has prefix, that a page token holds.
func decodePageToken(prefix, token string) (last string, err error) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(text) > 0 && !apikey.IsID(prefix, string(text)) {
		return "", apikey.InvalidField("page_token", "must be the next_page_token of another page")
	}
	return string(text), nil
}

// checkETag is a conflict where a request names an etag that is not the
// resource's.
func checkETag(asked, current string) error {
	if asked == "" || asked == current {
		return nil
	}
	return apikey.Errorf(apikey.KindConflict, apikey.ReasonStaleETag,
		"The resource has changed since this etag; read it again. Its etag is now %s.", current)
}

// errNoMask is the answer to an update that does not say what it changes.
func errNoMask() error {
	return apikey.InvalidField("update_mask", "is required; it names the fields to change")
}
