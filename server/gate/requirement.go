package gate

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The bounds of what can be asked of a request, as those of VerifyApiKey are.
const (
	maxScopes = 100
	maxScope  = 128
	maxCost   = 1_000_000
	maxQuery  = 8 << 10
)

// requirement is what a request needs to pass. Its zero value asks for a good key of any
// organization, at a cost of one.
type requirement struct {
	scopes       []string
	organization string // empty for any that the gate may verify for
	cost         int
	hasCost      bool // else the cost is one
	limitStatus  int  // in place of 429; zero for none
	withoutRules bool // the table of rules is not asked
}

// set sets a parameter, and returns what is wrong with it, or "". What is not known is
// wrong too: a typing error must not open a route.
func (q *requirement) set(name, value string) string {
	switch name {
	case "scope":
		return q.addScopes(value)
	case "organization":
		if q.organization != "" {
			return "must stand once"
		}
		if value == apikey.AllOrganizations {
			return ""
		}
		if err := apikey.ValidateOrganizationID(value); err != nil {
			return err.Error()
		}
		q.organization = value
	case "cost":
		cost, err := strconv.Atoi(value)
		if err != nil || cost < 0 || cost > maxCost || q.hasCost {
			return "must be a number of 0 to 1,000,000, once"
		}
		q.cost, q.hasCost = cost, true
	default:
		return "is not a parameter; these are: scope, organization, cost, limit_status, rules"
	}
	return ""
}

// addScopes adds scopes, which are separated by spaces.
func (q *requirement) addScopes(value string) string {
	scopes := strings.Fields(value)
	if len(scopes) == 0 {
		return "must name a scope"
	}
	for _, scope := range scopes {
		if len(scope) > maxScope {
			return fmt.Sprintf("must have %d characters at most", maxScope)
		}
		if !slices.Contains(q.scopes, scope) {
			q.scopes = append(q.scopes, scope)
		}
	}
	if len(q.scopes) > maxScopes {
		return fmt.Sprintf("must be %d scopes at most", maxScopes)
	}
	return ""
}

// setOfEndpoint is set for the endpoint itself, which knows more parameters than a rule.
func (q *requirement) setOfEndpoint(name, value string) string {
	switch name {
	case "limit_status":
		if value != "403" && value != "429" {
			return "must be 403 or 429"
		}
		q.limitStatus = http.StatusTooManyRequests
		if value == "403" {
			q.limitStatus = http.StatusForbidden
		}
	case "rules":
		if value != "none" {
			return "must be none"
		}
		q.withoutRules = true
	default:
		return q.set(name, value)
	}
	return ""
}

// parseQuery returns what the query of the endpoint asks for.
func parseQuery(raw string) (*requirement, error) {
	q := new(requirement)
	if raw == "" {
		return q, nil
	}
	if len(raw) > maxQuery {
		return nil, apikey.Errorf(apikey.KindInvalid, "MALFORMED_QUERY", "The query of the endpoint is longer than 8 KiB.")
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, apikey.Errorf(apikey.KindInvalid, "MALFORMED_QUERY",
			"The query of the endpoint is not valid: escape its values, and separate them with &.")
	}
	var problems []apikey.FieldProblem
	for name, all := range values {
		for _, value := range all {
			if problem := q.setOfEndpoint(name, value); problem != "" {
				problems = append(problems, apikey.FieldProblem{Field: apikey.Excerpt(name), Problem: problem})
			}
		}
	}
	return q, faulty(problems)
}

// parseExtensions is parseQuery for the context extensions of a route of Envoy.
func parseExtensions(extensions map[string]string) (*requirement, error) {
	q := new(requirement)
	var problems []apikey.FieldProblem
	for name, value := range extensions {
		if problem := q.setOfEndpoint(name, value); problem != "" {
			problems = append(problems, apikey.FieldProblem{Field: apikey.Excerpt(name), Problem: problem})
		}
	}
	return q, faulty(problems)
}

// faulty returns the error of faulty parameters, always in the same order.
func faulty(problems []apikey.FieldProblem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortFunc(problems, func(a, b apikey.FieldProblem) int { return strings.Compare(a.Field, b.Field) })
	return apikey.InvalidFields(problems)
}

// with returns what the requirement of a rule adds to q. The cost that the endpoint's
// query names stands.
func (q *requirement) with(rule *requirement) (*requirement, error) {
	both := *q
	both.scopes = slices.Clone(q.scopes)
	for _, scope := range rule.scopes {
		if !slices.Contains(both.scopes, scope) {
			both.scopes = append(both.scopes, scope)
		}
	}
	switch {
	case rule.organization == "" || rule.organization == q.organization:
	case q.organization == "":
		both.organization = rule.organization
	default:
		return nil, apikey.InvalidField("organization", "must not be another than that of the rule")
	}
	if !q.hasCost {
		both.cost, both.hasCost = rule.cost, rule.hasCost
	}
	return &both, nil
}

// units returns the cost.
func (q *requirement) units() int {
	if !q.hasCost {
		return 1
	}
	return q.cost
}
