package webhook

import (
	"fmt"
	"net/textproto"
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
	ReasonWebhookDisabled  apikey.Reason = "WEBHOOK_DISABLED"
	ReasonNotPending       apikey.Reason = "DELIVERY_NOT_PENDING"
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
	// FailingAfter is how many failed attempts in a row of one delivery make a
	// webhook a failing one. Zero means 4.
	FailingAfter int
	// DisableAfter is how long a webhook may fail without a success before it is
	// disabled. Zero means 5 days.
	DisableAfter time.Duration
	// MaxWebhooks is how many an organization may have. Zero means 100.
	MaxWebhooks int
}

// Admit reports whether an organization that has count webhooks may have one
// more.
func (r Rules) Admit(count int) error {
	if limit := positive(r.MaxWebhooks, 100); count >= limit {
		return apikey.Errorf(apikey.KindFailedPrecondition, ReasonTooManyWebhooks,
			"The organization has %d webhooks, the most it may have; delete one first.", limit)
	}
	return nil
}

// Create completes w, the webhook that a caller asked for, as one made at now
// with secret, or says which fields are wrong.
func (r Rules) Create(w Webhook, secret hooks.Secret, now time.Time) (Webhook, error) {
	w.CreatedAt, w.Version = now, 1
	w.Events = uniqueEvents(w.Events)
	w.setSecrets([]SigningSecret{{Secret: secret}})
	if err := r.problems(&w, func(string) bool { return true }); err != nil {
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

// Update applies p to w. Fields that p does not name are not judged, so that a
// webhook whose url a later configuration forbids can still be renamed.
func (r Rules) Update(w *Webhook, p Patch) error {
	before := *w
	judged := make(map[string]bool)
	for _, path := range p.Paths {
		field, err := w.set(path, &p.Values)
		if err != nil {
			return err
		}
		judged[field] = true
	}
	if err := r.problems(w, func(field string) bool { return judged[field] }); err != nil {
		return err
	}
	// Another endpoint, or one that its owner vouches for again, begins anew.
	if w.URL != before.URL || w.Enabled != before.Enabled {
		w.Health, w.DisabledReason = Health{}, ""
	}
	return nil
}

// set copies what path names from values and returns the field it belongs to.
func (w *Webhook) set(path string, values *Webhook) (field string, err error) {
	if name, ok := strings.CutPrefix(path, "headers."); ok {
		name = strings.TrimSuffix(strings.TrimPrefix(name, "`"), "`")
		w.setHeader(textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "``", "`")), values.Headers)
		return "headers", nil
	}
	switch path {
	case "label":
		w.Label = values.Label
	case "description":
		w.Description = values.Description
	case "url":
		w.URL = values.URL
	case "events":
		w.Events = uniqueEvents(values.Events)
	case "format":
		w.Format = values.Format
	case "headers":
		known := w.Headers
		w.Headers = make([]Header, len(values.Headers))
		for i, h := range values.Headers {
			w.Headers[i] = keepMasked(h, known)
		}
	case "enabled":
		w.Enabled = values.Enabled
	default:
		return "", apikey.InvalidField("update_mask", "names %q, which is not a field that can be changed", path)
	}
	return path, nil
}

// setHeader gives the header called name the value that values has for it, or
// takes it away where they have none.
func (w *Webhook) setHeader(name string, values []Header) {
	known := w.Headers
	w.Headers = make([]Header, 0, len(known)+1)
	for _, h := range known {
		if h.Name != name {
			w.Headers = append(w.Headers, h)
		}
	}
	for _, h := range values {
		if h.Name == name {
			w.Headers = append(w.Headers, keepMasked(h, known))
		}
	}
	sortHeaders(w.Headers)
}

// keepMasked returns h, with the value that known has for its name where h only
// says the mask: a caller that sends back what it read changes nothing.
func keepMasked(h Header, known []Header) Header {
	for _, k := range known {
		if k.Name == h.Name && h.Value.Reveal() == HeaderMask {
			return k
		}
	}
	return h
}

// problems judges the fields of w that judged names.
func (r Rules) problems(w *Webhook, judged func(field string) bool) error {
	var found []apikey.FieldProblem
	report := func(field, format string, args ...any) {
		found = append(found, apikey.FieldProblem{Field: field, Problem: fmt.Sprintf(format, args...)})
	}
	if judged("label") && w.Label == "" {
		report("label", "is required and must not be empty")
	}
	if judged("url") {
		if _, err := r.Guard.URL(w.URL); err != nil {
			report("url", "%v", err)
		}
	}
	if judged("events") {
		if n := len(w.Events); n < 1 || n > maxEvents {
			report("events", "must name 1 to %d types of events, or *", maxEvents)
		}
		for i, t := range w.Events {
			if t != AllEvents && !isSubscribable(t) {
				report(fmt.Sprintf("events[%d]", i), "is not a type of events that can be subscribed to")
			}
		}
	}
	if judged("format") {
		if !w.Format.IsKnown() {
			report("format", "must be one of classic, resource, standard, cloudevents")
		}
	}
	if judged("headers") {
		found = append(found, headerProblems(w.Headers)...)
	}
	// A nil *Error in an error would not be nil.
	if err := apikey.InvalidFields(found); err != nil {
		return err
	}
	return nil
}

// RotateSecret gives w a new secret. The old one signs beside it for overlap
// more, and so do older ones that still do, but none of them longer: a rotation
// without overlap ends them all.
func (r Rules) RotateSecret(w *Webhook, secret hooks.Secret, overlap time.Duration, now time.Time) {
	secrets := []SigningSecret{{Secret: secret}}
	end := now.Add(overlap)
	for _, s := range w.Secrets {
		if s.ExpiresAt.IsZero() || s.ExpiresAt.After(end) {
			s.ExpiresAt = end
		}
		if s.ExpiresAt.After(now) && len(secrets) < maxSecrets {
			secrets = append(secrets, s)
		}
	}
	w.setSecrets(secrets)
}

func (w *Webhook) setSecrets(secrets []SigningSecret) {
	w.Secrets, w.SecretMask = secrets, secrets[0].Secret.Mask()
}

// positive returns n, or standard where n is not set.
func positive[N int | time.Duration](n, standard N) N {
	if n > 0 {
		return n
	}
	return standard
}
