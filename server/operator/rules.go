package operator

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The reasons that the rules of this package give.
const (
	ReasonNotFound      apikey.Reason = "OPERATOR_TOKEN_NOT_FOUND"
	ReasonExpired       apikey.Reason = "OPERATOR_TOKEN_EXPIRED"
	ReasonTooManyTokens apikey.Reason = "TOO_MANY_OPERATOR_TOKENS"
)

// ErrNotFound is the answer for a token that does not exist, and for one that the caller
// may not know of: the words are the same.
var ErrNotFound = apikey.Errorf(apikey.KindNotFound, ReasonNotFound, "There is no operator token with this id.")

const maxYear = 9999 // the last that RFC 3339, and so the event log, can write

// Rules is what a server configures about tokens.
type Rules struct {
	// Catalogue lists the scopes of keys, which tokens can be given too.
	Catalogue []string
	// MaxTokens is how many tokens each delegate may have, and how many may have been made
	// with each root token. Zero means any number.
	MaxTokens int
}

// CheckNumber is an error where count tokens count towards the bound that one more would
// count towards.
func (r Rules) CheckNumber(count int) error {
	if r.MaxTokens > 0 && count >= r.MaxTokens {
		return apikey.Errorf(apikey.KindFailedPrecondition, ReasonTooManyTokens,
			"There are %d operator tokens that count towards the bound of this caller, the most that there may be; delete one first.", r.MaxTokens)
	}
	return nil
}

// Delegate returns the id of the delegate whose bound the tokens that by makes count
// towards; empty where by has a root token, whose tokens are the delegates. token is that
// of by, nil where by has none.
//
// A delegate is a person, or a token that was made with a root token. What its tokens
// make counts towards its bound too. So a delegate has the bound once, however many
// tokens its tokens make, and takes nothing of what others may make.
func Delegate(by *apikey.Caller, token *Token) string {
	switch {
	case by.Root:
		return ""
	case token != nil && token.CountedFor != "":
		return token.CountedFor
	}
	return by.Actor.ID
}

// Create completes t, the token that a caller asked for, as one made at now, or says
// which fields are wrong: those that have faults already, which were found when the
// request was read, and those that break a rule.
func (r Rules) Create(t Token, now time.Time, faults ...apikey.FieldProblem) (Token, error) {
	t.CreatedAt, t.Version = now, 1
	t.ExpiresAt = apikey.StoredTime(t.ExpiresAt)
	t.Scopes, t.Organizations, t.IPAllowList = apikey.Unique(t.Scopes), apikey.Unique(t.Organizations), apikey.Unique(t.IPAllowList)
	if err := apikey.InvalidFields(append(slices.Clip(faults), r.problems(&t, now, mutable)...)); err != nil {
		return Token{}, err
	}
	return t, nil
}

// Patch is a change of some fields of a token.
type Patch struct {
	// Paths names what changes: mutable fields.
	Paths []string
	// Values holds the new values; one that is zero clears its field.
	Values Token
}

// mutable lists the fields that an update can change.
var mutable = []string{"name", "description", "scopes", "organizations", "ip_allow_list", "expires_at"}

// Update applies p to t, wholly or, with an error that names every faulty field, those
// of faults included, not at all. faults are what is wrong with the values as they were
// sent. Fields that stay as they are are not checked.
func (r Rules) Update(t *Token, p Patch, now time.Time, faults ...apikey.FieldProblem) error {
	after := *t
	faults = slices.Clip(faults)
	for _, path := range p.Paths {
		if problem := after.set(path, &p.Values); problem != "" {
			faults = append(faults, apikey.FieldProblem{Field: "update_mask", Problem: problem})
		}
	}
	changes := Changes(t, &after)
	faults = append(apikey.Standing(faults, mutable, changes), r.problems(&after, now, changes)...)
	if err := apikey.InvalidFields(faults); err != nil {
		return err
	}
	after.boundPrevious()
	*t = after
	return nil
}

// set copies what path names from values. problem says what is wrong with the path, ""
// if nothing is.
func (t *Token) set(path string, values *Token) (problem string) {
	switch path {
	case "name":
		t.Name = values.Name
	case "description":
		t.Description = values.Description
	case "scopes":
		t.Scopes = apikey.Unique(values.Scopes)
	case "organizations":
		t.Organizations = apikey.Unique(values.Organizations)
	case "ip_allow_list":
		t.IPAllowList = apikey.Unique(values.IPAllowList)
	case "expires_at":
		// Clients that see whole seconds send those back; that is not a change.
		if !values.ExpiresAt.Equal(t.ExpiresAt.Truncate(time.Second)) {
			t.ExpiresAt = apikey.StoredTime(values.ExpiresAt)
		}
	default:
		return apikey.UnknownPath
	}
	return ""
}

// problems returns what is wrong with the fields that are named.
func (r Rules) problems(t *Token, now time.Time, fields []string) []apikey.FieldProblem {
	var found []apikey.FieldProblem
	report := func(field, format string, args ...any) {
		found = append(found, apikey.FieldProblem{Field: field, Problem: fmt.Sprintf(format, args...)})
	}
	for _, field := range fields {
		switch field {
		case "name":
			if problem := apikey.LabelProblem(t.Name); problem != "" {
				report(field, "%s", problem)
			}
		case "scopes":
			found = append(found, r.scopeProblems(t.Scopes)...)
		case "organizations":
			found = append(found, organizationProblems(t.Organizations)...)
		case "expires_at":
			switch {
			case t.expired(now):
				report(field, "must be later than now")
			case t.ExpiresAt.Year() > maxYear:
				report(field, "must not be after the year %d", maxYear)
			}
		}
	}
	return found
}

// scopeProblems returns what is wrong with the scopes of a token. One without any could
// call nothing.
func (r Rules) scopeProblems(scopes apikey.Scopes) []apikey.FieldProblem {
	if len(scopes) == 0 {
		return []apikey.FieldProblem{{Field: "scopes", Problem: "must name a scope at least, or be left out beside a role"}}
	}
	known := slices.Concat(r.Catalogue, apikey.OperatorScopes(), []string{apikey.AllScopes, apikey.AllApplicationScopes, apikey.AllOperatorScopes})
	return apikey.UnknownScopes(scopes, known, "is not a scope that a token can have")
}

// organizationProblems returns what is wrong with the organizations of a token.
func organizationProblems(organizations []string) (found []apikey.FieldProblem) {
	if len(organizations) == 0 {
		return []apikey.FieldProblem{{Field: "organizations", Problem: "is required: the organizations that the token is for, or * alone for all of them"}}
	}
	for i, o := range organizations {
		field := fmt.Sprintf("organizations[%d]", i)
		if o == apikey.AllOrganizations {
			if len(organizations) > 1 {
				found = append(found, apikey.FieldProblem{Field: field, Problem: "is *, which stands for all of them, and so must stand alone"})
			}
		} else if err := apikey.ValidateOrganizationID(o); err != nil {
			found = append(found, apikey.FieldProblem{Field: field, Problem: strings.TrimSpace(err.Error())})
		}
	}
	return found
}

// Rotate replaces the token's secret. The old one works for overlap more, but never past
// the token's own expiry; 0 ends it at once. A token whose last rotation is not over is
// not rotated: see [Token.EndPrevious].
func (r Rules) Rotate(t *Token, secret apikey.StoredSecret, overlap time.Duration, now time.Time) error {
	switch {
	case overlap < 0 || overlap > apikey.MaxOverlap:
		return apikey.InvalidField("overlap_seconds", "must be 0 to %d", int(apikey.MaxOverlap/time.Second))
	case t.expired(now):
		return apikey.Errorf(apikey.KindFailedPrecondition, ReasonExpired,
			"The token has expired; give it a later expires_at before rotating it.")
	case t.PreviousWorks(now):
		return apikey.ErrRotating(t.PreviousExpiresAt)
	}
	t.EndPrevious()
	if overlap > 0 {
		t.Previous, t.PreviousExpiresAt = t.Secret, now.Add(overlap)
	}
	t.Secret = secret
	t.Rotations++
	t.boundPrevious()
	return nil
}
