package apikey

import (
	"slices"
	"strings"
)

// AllScopes stands for every scope of the catalogue, those added later
// included. It is asked for by name, never assumed.
const AllScopes = "*"

// AllApplicationScopes stands for every scope of the application, and
// AllOperatorScopes for every scope of operators. Keys are given neither.
const (
	AllApplicationScopes = "app:*"
	AllOperatorScopes    = operatorScopes + "*"
)

// operatorScopes begins the scopes that access tokens of operators alone can hold.
const operatorScopes = "operator_tokens."

// OperatorScopes lists the scopes of the methods about access tokens of operators. They
// are in no catalogue, so no key is given one, and [AllScopes] does not stand for them.
func OperatorScopes() []string {
	return []string{
		operatorScopes + "create", operatorScopes + "read", operatorScopes + "update", operatorScopes + "delete",
	}
}

// IsOperatorScope reports whether scope is one of those that keys never hold.
func IsOperatorScope(scope string) bool { return strings.HasPrefix(scope, operatorScopes) }

// isApplicationScope reports whether scope is none that this server knows.
func isApplicationScope(scope string) bool {
	return scope != AllScopes && !IsOperatorScope(scope) && !slices.Contains(serverScopes, scope)
}

// ServerScopes lists the scopes that the methods of this server ask for. They are
// in every catalogue.
func ServerScopes() []string { return slices.Clone(serverScopes) }

var serverScopes = []string{
	"api_keys.create", "api_keys.update", "api_keys.delete", "api_keys.read", "api_keys.verify",
	"webhooks.create", "webhooks.read", "webhooks.update", "webhooks.delete",
	"webhooks_queue.read", "webhooks_queue.update",
	"events.read",
}

// ApplicationScopes lists the scopes of the application whose keys are kept here,
// where it configures none. No method of this server asks for them.
func ApplicationScopes() []string {
	return []string{
		"invoices.create", "invoices.update", "invoices.read",
		"payments.create", "payments.update", "payments.read",
		"products.create", "products.read", "products.update", "products.delete",
		"notifications.read", "notifications.update",
		"notifications_settings.read", "notifications_settings.update",
		"organizations.create", "organizations.read", "organizations.update", "organizations.deactivate",
		"users.update", "users.deactivate", "users.sessions.read", "users.sessions.deactivate",
	}
}

// Catalogue returns the scopes that keys can be given: those of the server and
// those of the application.
func Catalogue(application []string) []string { return Unique(append(ServerScopes(), application...)) }

// DefaultScopes is the catalogue of a server that configures none.
func DefaultScopes() []string { return Catalogue(ApplicationScopes()) }

// Scopes is a set of scopes in the order in which they were given.
type Scopes []string

// Has reports whether the set holds scope, by name or by what stands for it.
func (s Scopes) Has(scope string) bool {
	for _, held := range s {
		if held == scope {
			return true
		}
		switch held {
		case AllScopes:
			if !IsOperatorScope(scope) {
				return true
			}
		case AllApplicationScopes:
			if isApplicationScope(scope) {
				return true
			}
		case AllOperatorScopes:
			if IsOperatorScope(scope) {
				return true
			}
		}
	}
	return false
}

// Lacking returns those of scopes that the set does not hold.
func (s Scopes) Lacking(scopes []string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), s.Has)
}

// Expand returns the scopes of catalogue, and those of operators, that the set holds.
func (s Scopes) Expand(catalogue []string) []string {
	held := []string{}
	for _, scope := range slices.Concat(catalogue, OperatorScopes()) {
		if s.Has(scope) {
			held = append(held, scope)
		}
	}
	return held
}

// HasAll reports whether the set holds every one of scopes.
func (s Scopes) HasAll(scopes []string) bool {
	for _, scope := range scopes {
		if !s.Has(scope) {
			return false
		}
	}
	return true
}

// Unique returns list without the later ones of equal entries, in its order.
func Unique[E comparable](list []E) []E {
	out, seen := make([]E, 0, len(list)), make(map[E]bool, len(list))
	for _, s := range list {
		if !seen[s] {
			out, seen[s] = append(out, s), true
		}
	}
	return out
}
