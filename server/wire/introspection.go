package wire

import (
	"strings"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Introspection returns what RFC 7662 says of a secret whose state was checked.
func Introspection(v *apikey.Verification) *apikeysv1.IntrospectTokenResponse {
	if v.Code != apikey.CodeValid {
		return &apikeysv1.IntrospectTokenResponse{}
	}
	k := v.Key
	sub, until := k.OwnerID, k.ExpiresAt
	if sub == "" {
		sub = k.ID
	}
	if v.Previous && (until.IsZero() || k.PreviousExpiresAt.Before(until)) {
		until = k.PreviousExpiresAt
	}
	m := &apikeysv1.IntrospectTokenResponse{
		Active: true, Scope: proto.String(strings.Join(k.Scopes, " ")), ClientId: proto.String(k.ID), Sub: proto.String(sub),
		TokenType: proto.String("Bearer"), Iat: proto.Int64(k.CreatedAt.Unix()), OrganizationId: proto.String(k.OrganizationID),
	}
	if !until.IsZero() {
		m.Exp = proto.Int64(until.Unix())
	}
	return m
}
