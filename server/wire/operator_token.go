package wire

import (
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/operator"
)

// Token returns the message of t as it is at now, its secret masked, without its role,
// which depends on the catalogue.
func Token(t *operator.Token, now time.Time) *apikeysv1.OperatorToken {
	m := &apikeysv1.OperatorToken{
		Id:            t.ID,
		Name:          t.Name,
		Description:   t.Description,
		Secret:        t.Secret.Mask,
		Scopes:        t.Scopes,
		Organizations: t.Organizations,
		IpAllowList:   ranges(t.IPAllowList),
		ExpiresAt:     Timestamp(t.ExpiresAt),
		CreatedAt:     Timestamp(t.CreatedAt),
		UpdatedAt:     Timestamp(t.UpdatedAt),
		CreatedBy:     actorMessage(t.CreatedBy),
		LastUsedAt:    Timestamp(t.Use.At),
		Etag:          t.ETag(),
	}
	if t.Use.Addr.IsValid() {
		m.LastUsedIp = t.Use.Addr.String()
	}
	if t.PreviousWorks(now) {
		m.PreviousSecretExpiresAt = Timestamp(t.PreviousExpiresAt)
	}
	return m
}

// SetRole sets the role of the message of t on a server with a catalogue.
func SetRole(m *apikeysv1.OperatorToken, t *operator.Token, catalogue []string) {
	if role := operator.RoleOf(t.Scopes, catalogue); role != "" {
		m.Role = roles.number[role].Enum()
	}
}

// Role returns the word of a role; the unspecified one has none.
func Role(e apikeysv1.OperatorRole) operator.Role { return roles.word[e] }

// RequestedToken returns the token that a request asks for, but for its scopes where it
// names a role, and what is wrong with the fields that no token can have.
// [operator.Rules.Create] checks and completes the token.
func RequestedToken(r *apikeysv1.CreateOperatorTokenRequest) (operator.Token, []apikey.FieldProblem) {
	return requestedToken(r)
}

// TokenPatch returns the change that a request for an update asks for, and what is wrong
// with the fields that no token can have.
func TokenPatch(r *apikeysv1.UpdateOperatorTokenRequest) (operator.Patch, []apikey.FieldProblem) {
	values, problems := requestedToken(r.GetOperatorToken())
	return operator.Patch{Paths: r.GetUpdateMask().GetPaths(), Values: values}, problems
}

// requestedToken returns the fields that creations and updates have alike.
func requestedToken(m interface {
	GetName() string
	GetDescription() string
	GetScopes() []string
	GetOrganizations() []string
	GetIpAllowList() []string
	GetExpiresAt() *timestamppb.Timestamp
},
) (t operator.Token, problems []apikey.FieldProblem) {
	t = operator.Token{Name: m.GetName(), Description: m.GetDescription(), Scopes: m.GetScopes(), Organizations: m.GetOrganizations()}
	t.IPAllowList, problems = allowList(m.GetIpAllowList())
	var problem string
	if t.ExpiresAt, problem = Time(m.GetExpiresAt()); problem != "" {
		problems = append(problems, apikey.FieldProblem{Field: "expires_at", Problem: problem})
	}
	return t, problems
}

// allowList reads an allow list. An entry that is none becomes a range that no list has.
func allowList(texts []string) (list apikey.AllowList, problems []apikey.FieldProblem) {
	for i, text := range texts {
		p, err := apikey.ParseAllowed(text)
		if err != nil {
			problems = append(problems, apikey.FieldProblem{Field: fmt.Sprintf("ip_allow_list[%d]", i), Problem: err.Error()})
			p = netip.Prefix{}
		}
		list = append(list, p)
	}
	return list, problems
}

// ranges writes an allow list.
func ranges(list apikey.AllowList) (texts []string) {
	for _, p := range list {
		texts = append(texts, apikey.FormatAllowed(p))
	}
	return texts
}
