package apikey

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxOverlap is the longest time that a rotated secret may go on working.
const MaxOverlap = 30 * 24 * time.Hour

// The bounds of fields that a merge can pass although each request keeps them.
const (
	maxMetadataEntries = 50
	maxMetadataKey     = 64
	maxMetadataBytes   = 8 << 10
	maxRequests        = 1_000_000
	maxWindowSeconds   = 86_400
	maxQuota           = 1_000_000_000_000
	maxHints           = 3    // of faulty scopes, how many are told what is like them
	maxYear            = 9999 // the last that RFC 3339, and so the event log, can write
)

// Rules is what a server configures about keys.
type Rules struct {
	// Catalogue lists the scopes that may be granted; [AllScopes] always may.
	Catalogue []string
	// AbsentScopesMeanAll makes a key that is created without a list of scopes
	// hold [AllScopes].
	AbsentScopesMeanAll bool
	// ExpiringNotice is how long before its expiry a key is announced to expire;
	// where it is not positive, none is announced.
	ExpiringNotice time.Duration
	// Formats are those of the secrets of new keys, and of new secrets. Without any
	// of a mode, no key of that mode is made.
	Formats KeyFormats
	// MaxKeys is how many keys an organization may have; zero means any number.
	MaxKeys int
}

// TooManyKeys is the answer to an organization that has all the keys that it may
// have.
func (r Rules) TooManyKeys() error {
	return Errorf(KindFailedPrecondition, ReasonTooManyKeys,
		"The organization has %d keys, the most it may have; delete one first.", r.MaxKeys)
}

// Create completes k, the key that a caller asked for, as one made at now, or
// says which fields are wrong: those that have faults already, which were found
// when the request was read, and those that break a rule. A zero limit stands for
// none; one that was asked for and is 0 in all its parts is a fault of the request.
func (r Rules) Create(k Key, now time.Time, faults ...FieldProblem) (Key, error) {
	k.Mode = cmp.Or(k.Mode, ModeLive)
	format, problem := r.Formats.Choose(k.Format, k.Mode)
	if problem != nil {
		faults = append(slices.Clip(faults), *problem)
	}
	k.Format = format.Name
	k.CreatedAt, k.Version = now, 1
	k.ExpiresAt = StoredTime(k.ExpiresAt)
	k.Scopes = Unique(k.Scopes)
	k.IPAllowList = Unique(k.IPAllowList)
	k.Quota.begin(now)
	limits := map[string]bool{"rate_limit": k.RateLimit != (RateLimit{}), "quota": k.Quota != (Quota{})}
	checked := func(field string) bool {
		limited, isLimit := limits[field]
		return limited || !isLimit
	}
	if err := InvalidFields(append(slices.Clip(faults), r.problems(&k, now, checked)...)); err != nil {
		return Key{}, err
	}
	r.schedule(&k, now)
	return k, nil
}

// StoredTime returns t as it is kept: in UTC and whole microseconds. A time that is
// cut down only by the store would differ from the one that was answered and
// published, and setting it again would look like a change.
func StoredTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// problems returns what is wrong with the fields of k that checked names. A limit that
// it names is there, whatever the parts of the limit are.
func (r Rules) problems(k *Key, now time.Time, checked func(field string) bool) []FieldProblem {
	var found []FieldProblem
	report := func(field, format string, args ...any) {
		found = append(found, FieldProblem{field, fmt.Sprintf(format, args...)})
	}
	if checked("label") {
		if problem := LabelProblem(k.Label); problem != "" {
			report("label", "%s", problem)
		}
	}
	if checked("scopes") {
		found = append(found, UnknownScopes(k.Scopes, r.Catalogue, "is not a scope of this server's catalogue")...)
	}
	switch {
	case !checked("expires_at"):
	case k.expired(now):
		report("expires_at", "must be later than now")
	case k.ExpiresAt.Year() > maxYear:
		report("expires_at", "must not be after the year %d", maxYear)
	}
	if checked("metadata") {
		total, badKeys := 0, false
		for key, value := range k.Metadata {
			total += len(key) + len(value)
			badKeys = badKeys || key == "" || utf8.RuneCountInString(key) > maxMetadataKey
		}
		// One problem of the three: a field has one line in an answer.
		switch {
		case badKeys:
			report("metadata", "must have keys of 1 to %d characters", maxMetadataKey)
		case len(k.Metadata) > maxMetadataEntries:
			report("metadata", "must have at most %d entries", maxMetadataEntries)
		case total > maxMetadataBytes:
			report("metadata", "must have at most %d bytes in all", maxMetadataBytes)
		}
	}
	if checked("rate_limit") {
		found = append(found, k.RateLimit.Problems()...)
	}
	if checked("quota") {
		k.Quota.problems(report)
	}
	return found
}

// UnknownScopes returns the problem of each scope that is none of known, nor
// [AllScopes], with the names that are most like the first of them.
func UnknownScopes(scopes Scopes, known []string, problem string) (found []FieldProblem) {
	for i, s := range scopes {
		if len(found) > MaxFields {
			break
		}
		if s == AllScopes || slices.Contains(known, s) {
			continue
		}
		var hint string
		if len(found) < maxHints {
			if near := nearest(s, known); len(near) > 0 {
				hint = "; nearest: " + strings.Join(near, ", ")
			}
		}
		found = append(found, FieldProblem{fmt.Sprintf("scopes[%d]", i), problem + hint})
	}
	return found
}

// Problems returns what is wrong with the fields of a limit that was sent.
func (l RateLimit) Problems() (found []FieldProblem) {
	if l.Requests < 1 || l.Requests > maxRequests {
		found = append(found, FieldProblem{"rate_limit.requests", fmt.Sprintf("must be 1 to %d", maxRequests)})
	}
	if l.WindowSeconds < 1 || l.WindowSeconds > maxWindowSeconds {
		found = append(found, FieldProblem{"rate_limit.window_seconds", fmt.Sprintf("must be 1 to %d", maxWindowSeconds)})
	}
	return found
}

// Rotate replaces the key's secret by one of format, which is the next of the key's.
// The old one works for overlap more, but never
// past the key's own expiry; 0 ends it at once. A key whose last rotation is not
// over is not rotated, so that a retry does not end the secret that was promised
// its time: see [Key.EndPrevious].
func (r Rules) Rotate(k *Key, format KeyFormat, secret StoredSecret, overlap time.Duration, now time.Time) error {
	switch {
	case overlap < 0 || overlap > MaxOverlap:
		return InvalidField("overlap_seconds", "must be 0 to %d", int(MaxOverlap/time.Second))
	case !k.RevokedAt.IsZero():
		return errRevoked()
	case k.expired(now):
		return Errorf(KindFailedPrecondition, ReasonExpired,
			"The key has expired; give it a later expires_at before rotating it.")
	case k.PreviousWorks(now):
		return ErrRotating(k.PreviousExpiresAt)
	case format == KeyFormat{}:
		return Errorf(KindFailedPrecondition, ReasonNoKeyFormat,
			"The server has no key format of the mode %s any more; its setting key_formats needs one.", k.Mode)
	}
	k.EndPrevious()
	if overlap > 0 {
		k.Previous, k.PreviousExpiresAt = k.Secret, now.Add(overlap)
	}
	k.Secret, k.Format = secret, format.Name
	k.Rotations++
	k.Usage.Previous = PreviousUsage{Rotation: k.Rotations}
	k.boundPrevious()
	return nil
}

// ErrRotating returns the answer to the rotation of a credential whose last rotation is
// not over until then.
func ErrRotating(until time.Time) *Error {
	return Errorf(KindConflict, ReasonRotating,
		"The secret before the last rotation works until %s; set end_previous to end it now.", until.UTC().Format(time.DateTime))
}

// EndPrevious ends the secret before the last rotation.
func (k *Key) EndPrevious() { k.Previous, k.PreviousExpiresAt = StoredSecret{}, time.Time{} }

// boundPrevious keeps the previous secret from outliving the key.
func (k *Key) boundPrevious() {
	if !k.ExpiresAt.IsZero() && k.PreviousExpiresAt.After(k.ExpiresAt) {
		k.PreviousExpiresAt = k.ExpiresAt
	}
}

// Revoke ends the key for good. A key that is revoked already keeps its first
// time and reason.
func (r Rules) Revoke(k *Key, reason RevokeReason, now time.Time) {
	if k.RevokedAt.IsZero() {
		k.RevokedAt, k.RevokeReason = now, reason
		k.NoticeAt = time.Time{}
	}
}

// schedule sets when the next notice of expiry is due: the announcement, unless
// less than its lead was left when the expiry was set; then the expiry itself;
// never for a key that cannot be used anyway.
func (r Rules) schedule(k *Key, now time.Time) {
	k.NoticeAt = time.Time{}
	if k.State(now) != StateActive || k.ExpiresAt.IsZero() {
		return
	}
	k.NoticeAt = k.ExpiresAt
	if early := k.ExpiresAt.Add(-r.ExpiringNotice); r.ExpiringNotice > 0 && !early.Before(now) {
		k.NoticeAt = early
	}
}

// Notice returns the type of event that is due for k at now, with the names of
// the fields it changes, and sets the time of the next. A server that was down
// over both notices gives the later one only.
func (r Rules) Notice(k *Key, now time.Time) (EventType, []string) {
	if k.expired(now) {
		k.NoticeAt = time.Time{}
		return KeyExpired, []string{"state"}
	}
	k.NoticeAt = k.ExpiresAt
	return KeyExpiring, nil
}

func errRevoked() *Error {
	return Errorf(KindFailedPrecondition, ReasonRevoked, "The key is revoked; a revoked key cannot be changed.")
}

// LabelProblem returns what is wrong with a label, as the end of a sentence that
// begins with it, or "". A label is there to be read by people: blanks alone, or
// characters that show nothing, are none.
func LabelProblem(label string) string {
	switch {
	case label == "":
		return "is required and must not be empty"
	case !strings.ContainsFunc(label, visible):
		return "must have at least one visible character"
	}
	return ""
}

// visible reports whether r is a letter, digit, mark, number, punctuation or
// symbol.
func visible(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S)
}
