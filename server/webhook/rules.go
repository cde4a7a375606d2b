package webhook

import (
	"fmt"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// The reasons that the rules of this package give.
const (
	ReasonWebhookNotFound  apikey.Reason = "WEBHOOK_NOT_FOUND"
	ReasonDeliveryNotFound apikey.Reason = "DELIVERY_NOT_FOUND"
	ReasonTooManyWebhooks  apikey.Reason = "TOO_MANY_WEBHOOKS"
	ReasonTooManySecrets   apikey.Reason = "TOO_MANY_SECRETS"
	ReasonWebhookDisabled  apikey.Reason = "WEBHOOK_DISABLED"
	ReasonNotPending       apikey.Reason = "DELIVERY_NOT_PENDING"
	ReasonFanOutBehind     apikey.Reason = "FAN_OUT_BEHIND"
)

// The answers for what does not exist, and for what the caller may not know of:
// the words are the same.
var (
	ErrNotFound         = apikey.Errorf(apikey.KindNotFound, ReasonWebhookNotFound, "There is no webhook with this id.")
	ErrDeliveryNotFound = apikey.Errorf(apikey.KindNotFound, ReasonDeliveryNotFound, "There is no delivery with this id.")
)

// DefaultOverlap is how long the old secret goes on signing after a rotation
// that does not say.
const DefaultOverlap = 24 * time.Hour

const maxEvents = 50

// Rules is what a server configures about webhooks.
type Rules struct {
	// Guard says where deliveries may go.
	Guard Guard
	// DisableAfter is how long a webhook may fail without a success before it is
	// disabled. Zero means for ever.
	DisableAfter time.Duration
	// MaxWebhooks is how many an organization may have. Zero means any number.
	MaxWebhooks int
}

// Admit reports whether an organization that has count webhooks may have one
// more.
func (r Rules) Admit(count int) error {
	if r.MaxWebhooks > 0 && count >= r.MaxWebhooks {
		return apikey.Errorf(apikey.KindFailedPrecondition, ReasonTooManyWebhooks,
			"The organization has %d webhooks, the most it may have; delete one first.", r.MaxWebhooks)
	}
	return nil
}

// Create completes w, the webhook that a caller asked for, as one made at now
// with secret, or says which fields are wrong: those that have faults already,
// which were found when the request was read, and those that break a rule.
func (r Rules) Create(w Webhook, secret hooks.Secret, now time.Time, faults ...apikey.FieldProblem) (Webhook, error) {
	w.CreatedAt, w.Version = now, 1
	w.Events = apikey.Unique(w.Events)
	w.setSecrets([]SigningSecret{{Secret: secret}})
	if err := apikey.InvalidFields(append(slices.Clip(faults), r.problems(&w, mutable)...)); err != nil {
		return Webhook{}, err
	}
	return w, nil
}

// Patch is a change of some fields of a webhook.
type Patch struct {
	// Paths names what changes: a mutable field, or one header as headers.`name`.
	Paths []string
	// Values holds the new values; one that is zero clears its field. A header
	// whose value is [HeaderMask] keeps the value that it has.
	Values Webhook
}

// Disables reports whether p does nothing but disable a webhook.
func (p *Patch) Disables() bool {
	return slices.Equal(p.Paths, []string{"enabled"}) && !p.Values.Enabled
}

// mutable lists the fields that an update can change.
var mutable = []string{"label", "description", "url", "events", "format", "headers", "enabled"}

// Update applies p to w, wholly or, with an error that names every faulty field,
// those of faults included, not at all. faults are what is wrong with the values as
// they were sent. Fields that stay as they are are not checked, so that a webhook whose
// url a later configuration forbids can still be renamed, and sent back as it was
// read.
//
// A url of another scheme, host or port needs the value of every header anew: a value
// that nobody may read must not go to a place for which its owner did not give it.
func (r Rules) Update(w *Webhook, p Patch, faults ...apikey.FieldProblem) error {
	after := *w
	faults = slices.Clip(faults)
	given := make(map[string]bool) // the headers whose values p has
	for _, path := range p.Paths {
		if problem := after.set(path, &p.Values, given); problem != "" {
			faults = append(faults, apikey.FieldProblem{Field: "update_mask", Problem: problem})
		}
	}
	changes := Changes(w, &after)
	faults = append(apikey.Standing(faults, mutable, changes), r.problems(&after, changes)...)
	if slices.Contains(changes, "url") && !sameOrigin(w.URL, after.URL) &&
		slices.ContainsFunc(after.Headers, func(h Header) bool { return !given[h.Name] }) {
		faults = append(faults, apikey.FieldProblem{Field: "headers", Problem: "must have the value of every header anew, because the url's scheme, host or port changes; send each value, or leave the header out"})
	}
	if err := apikey.InvalidFields(faults); err != nil {
		return err
	}
	// Another endpoint, or one that its owner vouches for again, begins anew.
	if after.URL != w.URL || after.Enabled != w.Enabled {
		after.Health, after.DisabledReason = Health{}, ""
	}
	*w = after
	return nil
}

// sameOrigin reports whether two urls have the same scheme, host and port.
func sameOrigin(a, b string) bool {
	x, xErr := url.Parse(a)
	y, yErr := url.Parse(b)
	return xErr == nil && yErr == nil && x.Scheme == y.Scheme &&
		strings.EqualFold(x.Hostname(), y.Hostname()) && portOf(x) == portOf(y)
}

// portOf returns the port that u names or implies.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"https": "443", "http": "80"}[u.Scheme]
}

// set copies what path names from values, and adds the headers whose values these have
// to given. problem says what is wrong with the
// path, "" if nothing is.
func (w *Webhook) set(path string, values *Webhook, given map[string]bool) (problem string) {
	if name, ok, problem := apikey.EntryOf("headers", path); ok {
		if problem == "" {
			w.setHeader(textproto.CanonicalMIMEHeaderKey(name), values.Headers, given)
		}
		return problem
	}
	switch path {
	case "label":
		w.Label = values.Label
	case "description":
		w.Description = values.Description
	case "url":
		w.URL = values.URL
	case "events":
		w.Events = apikey.Unique(values.Events)
	case "format":
		w.Format = values.Format
	case "headers":
		known := w.Headers
		w.Headers = make([]Header, len(values.Headers))
		for i, h := range values.Headers {
			w.Headers[i] = keepMasked(h, known, given)
		}
	case "enabled":
		w.Enabled = values.Enabled
	default:
		return apikey.UnknownPath
	}
	return ""
}

// setHeader gives the header called name the value that values has for it, or
// takes it away where they have none.
func (w *Webhook) setHeader(name string, values []Header, given map[string]bool) {
	known := w.Headers
	w.Headers = make([]Header, 0, len(known)+1)
	for _, h := range known {
		if h.Name != name {
			w.Headers = append(w.Headers, h)
		}
	}
	for _, h := range values {
		if h.Name == name {
			w.Headers = append(w.Headers, keepMasked(h, known, given))
		}
	}
	sortHeaders(w.Headers)
}

// keepMasked returns h, with the value that known has for its name where h only
// says the mask: a caller that sends back what it read changes nothing. Any other
// value is given.
func keepMasked(h Header, known []Header, given map[string]bool) Header {
	if h.Value.Reveal() != HeaderMask {
		given[h.Name] = true
		return h
	}
	for _, k := range known {
		if k.Name == h.Name {
			return k
		}
	}
	return h
}

// problems checks the fields of w that fields names.
func (r Rules) problems(w *Webhook, fields []string) []apikey.FieldProblem {
	checked := func(field string) bool { return slices.Contains(fields, field) }
	var found []apikey.FieldProblem
	report := func(field, format string, args ...any) {
		found = append(found, apikey.FieldProblem{Field: field, Problem: fmt.Sprintf(format, args...)})
	}
	if checked("label") {
		if problem := apikey.LabelProblem(w.Label); problem != "" {
			report("label", "%s", problem)
		}
	}
	if checked("url") {
		if _, err := r.Guard.URL(w.URL); err != nil {
			report("url", "%v", err)
		}
	}
	if checked("events") {
		if n := len(w.Events); n < 1 || n > maxEvents {
			report("events", "must name 1 to %d types of events, or *", maxEvents)
		}
		for i, t := range w.Events {
			if t != AllEvents && !isSubscribable(t) {
				report(fmt.Sprintf("events[%d]", i), "is not a type of events that can be subscribed to")
			}
		}
	}
	if checked("format") {
		if !w.Format.IsKnown() {
			report("format", "must be one of classic, resource, standard, cloudevents")
		}
	}
	if checked("headers") {
		found = append(found, headerProblems(w.Headers)...)
	}
	return found
}

// Rotation says what becomes of the older secrets when a webhook gets a new one.
type Rotation struct {
	// Overlap is how long the secret of before signs beside the new one.
	Overlap time.Duration
	// EndOldest ends the oldest secret where five sign already.
	EndOldest bool
}

// RotateSecret gives w a new secret. The old one signs beside it for the overlap, and
// so do older ones that still do, but none of them longer: a rotation without overlap
// ends them all. At most five sign at a time; a receiver relies on each of them, so none
// is ended without being asked for.
func (r Rules) RotateSecret(w *Webhook, secret hooks.Secret, rotation Rotation, now time.Time) error {
	secrets := []SigningSecret{{Secret: secret}}
	end := now.Add(rotation.Overlap)
	for _, s := range w.Secrets {
		if s.ExpiresAt.IsZero() || s.ExpiresAt.After(end) {
			s.ExpiresAt = end
		}
		if s.ExpiresAt.After(now) {
			secrets = append(secrets, s)
		}
	}
	if len(secrets) > maxSecrets {
		if !rotation.EndOldest {
			return apikey.Errorf(apikey.KindAlreadyExists, ReasonTooManySecrets,
				"%d secrets sign the deliveries of this webhook, the most that may; set end_oldest to end the oldest now, or overlap_seconds to 0 to end all, or wait.", maxSecrets)
		}
		secrets = secrets[:maxSecrets]
	}
	w.setSecrets(secrets)
	return nil
}

func (w *Webhook) setSecrets(secrets []SigningSecret) {
	w.Secrets, w.SecretMask = secrets, secrets[0].Secret.Mask()
}
