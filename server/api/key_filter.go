package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// keyFilter is what requests say of the keys that they mean: those for lists in their
// own fields, those for many keys in a message of its own.
type keyFilter interface {
	GetState() apikeysv1.ApiKeyState
	GetOwnerId() string
	GetQ() string
	GetExpiresBefore() *timestamppb.Timestamp
	GetUnusedSince() *timestamppb.Timestamp
	GetCreatedBy() string
	GetExternalId() string
	GetCreatedAfter() *timestamppb.Timestamp
	GetCreatedBefore() *timestamppb.Timestamp
	GetPreviousSecret() apikeysv1.PreviousSecretUse
	GetSecret() string
	GetScope() string
	GetMetadata() map[string]string
}

var (
	_ keyFilter = (*apikeysv1.ListApiKeysRequest)(nil)
	_ keyFilter = (*apikeysv1.ApiKeyFilter)(nil)
)

// keyFilter returns the filter that a request names, within the organizations of its
// caller. prefix is of the names of the fields.
func (f *faults) keyFilter(ctx context.Context, prefix string, asked keyFilter) store.KeyFilter {
	caller := callerOf(ctx)
	filter := store.KeyFilter{
		Organization:  caller.Organization,
		Among:         caller.Among(),
		State:         wire.State(asked.GetState()),
		OwnerID:       asked.GetOwnerId(),
		ExternalID:    asked.GetExternalId(),
		CreatedBy:     asked.GetCreatedBy(),
		Label:         asked.GetQ(),
		ExpiresBefore: f.time(prefix+"expires_before", asked.GetExpiresBefore()),
		UnusedSince:   f.time(prefix+"unused_since", asked.GetUnusedSince()),
		CreatedAfter:  f.time(prefix+"created_after", asked.GetCreatedAfter()),
		CreatedBefore: f.time(prefix+"created_before", asked.GetCreatedBefore()),
		PreviousInUse: asked.GetPreviousSecret() == apikeysv1.PreviousSecretUse_PREVIOUS_SECRET_USE_IN_USE,
		Scope:         asked.GetScope(),
		Metadata:      asked.GetMetadata(),
	}
	if text := asked.GetSecret(); text != "" {
		var problem string
		if filter.Secret, problem = apikey.ParseSecretPart(text); problem != "" {
			f.add(prefix+"secret", problem)
		}
	}
	return filter
}

// A boundToken is the token of a page that goes on for the same filters and in the same
// order alone: the id of the last row that was looked at, and a hash of the request.
type boundToken struct{ hash string }

// tokenHash is how many bytes of the hash a token has: it is there against mistakes.
const tokenHash = 8

// bindToken returns the tokens of a request. The fields that are named may differ from
// page to page.
func bindToken(req proto.Message, free ...protoreflect.Name) boundToken {
	m := proto.Clone(req)
	for _, name := range append(free, "page_token", "page_size") {
		if fd := m.ProtoReflect().Descriptor().Fields().ByName(name); fd != nil {
			m.ProtoReflect().Clear(fd)
		}
	}
	text, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m) // what was decoded can be encoded
	sum := sha256.Sum256(append([]byte(m.ProtoReflect().Descriptor().FullName()+"\x00"), text...))
	return boundToken{string(sum[:tokenHash])}
}

// encode returns the token of a page that ends with the id last; "" where it is empty.
func (b boundToken) encode(last string) string {
	if last == "" {
		return ""
	}
	return encodePageToken(last + b.hash)
}

// boundToken returns the id of a key that a token holds. Servers of earlier versions,
// which know ascending lists alone, give tokens that have nothing but the id: bare says
// that such a one is good.
func (f *faults) boundToken(b boundToken, token string, bare bool) (last string) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	last, hash := string(text), ""
	if n := len(last) - tokenHash; n > len(apikey.IDPrefix)+tokenHash && !apikey.IsID(apikey.IDPrefix, last) {
		last, hash = last[:n], last[n:]
	}
	switch {
	case token == "":
		return ""
	case err != nil || !apikey.IsID(apikey.IDPrefix, last) || hash == "" && !bare:
		f.add("page_token", "must be the next_page_token of another page")
	case hash != b.hash && hash != "":
		f.add("page_token", "is of other filters, or of another order; begin again without it")
	}
	return last
}
