package operator

import (
	"slices"
	"strings"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Role is a name for some scopes, which a token can be made with in place of a list.
// What is stored is the scopes: a role that a later version makes wider does not widen
// the tokens that there are.
type Role string

// The roles.
const (
	RoleVerifier Role = "verifier"
	RoleViewer   Role = "viewer"
	RoleManager  Role = "manager"
	RoleAuditor  Role = "auditor"
	RoleAdmin    Role = "admin"
)

// Roles lists the roles, the narrowest first.
func Roles() []Role { return []Role{RoleVerifier, RoleAuditor, RoleViewer, RoleManager, RoleAdmin} }

// Scopes returns the scopes of a role on a server whose catalogue is given; none for
// what is no role.
func (r Role) Scopes(catalogue []string) apikey.Scopes {
	switch r {
	case RoleVerifier:
		return apikey.Scopes{"api_keys.verify"}
	case RoleAuditor:
		return apikey.Scopes{"events.read", "api_keys.read"}
	case RoleViewer:
		return slices.DeleteFunc(slices.Concat(catalogue, apikey.OperatorScopes()), func(scope string) bool {
			return !strings.HasSuffix(scope, ".read")
		})
	case RoleManager:
		return append(apikey.ServerScopes(), apikey.AllApplicationScopes)
	case RoleAdmin:
		return apikey.Scopes{apikey.AllScopes, apikey.AllOperatorScopes}
	default:
		return nil
	}
}

// RoleOf returns the role whose scopes are those of a token, in any order, or "".
func RoleOf(scopes apikey.Scopes, catalogue []string) Role {
	for _, r := range Roles() {
		of := r.Scopes(catalogue)
		if len(of) == len(scopes) && !slices.ContainsFunc(of, func(s string) bool { return !slices.Contains(scopes, s) }) {
			return r
		}
	}
	return ""
}
