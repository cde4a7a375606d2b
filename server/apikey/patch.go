package apikey

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Patch is a change of some fields of a key.
type Patch struct {
	// Paths names what changes: a mutable field, one of the parts of rate_limit or
	// quota, or one entry of metadata as metadata.`key`, where a backtick in
	// the key is doubled (AIP-161). rate_limit.* and quota.* name a limit and none of
	// its parts: a limit that the key has stays as it is.
	Paths []string
	// Values holds the new values; one that is zero clears its field. A limit that
	// is named by a part is there afterwards, and its parts are checked; one that is
	// named as a whole goes away where its value is zero.
	Values Key
}

// Disables reports whether p does nothing but disable a key.
func (p *Patch) Disables() bool {
	return slices.Equal(p.Paths, []string{"enabled"}) && !p.Values.Enabled
}

// mutable lists the fields that an update can change.
var mutable = []string{
	"label", "description", "scopes", "ip_allow_list", "expires_at", "enabled", "owner_id", "metadata", "rate_limit", "quota",
}

// Update applies p to k, wholly or, with an error that names every faulty field,
// those of faults included, not at all. faults are what is wrong with the values as
// they were sent. A revoked key takes no update. Fields that stay as they are are not
// checked, so that a key whose scope has left the catalogue can still be renamed,
// and sent back as it was read.
func (r Rules) Update(k *Key, p Patch, now time.Time, faults ...FieldProblem) error {
	if !k.RevokedAt.IsZero() {
		return errRevoked()
	}
	after := *k
	after.Quota = k.Quota.refilled(now)
	faults = slices.Clip(faults)
	limited := make(map[string]bool)
	for _, path := range p.Paths {
		if problem := after.set(path, &p.Values); problem != "" {
			faults = append(faults, FieldProblem{"update_mask", problem})
		}
		if field, _, isPart := strings.Cut(path, "."); isPart {
			limited[field] = true
		}
	}
	if p.Names("quota") && (limited["quota"] || after.Quota != (Quota{})) {
		after.Quota.amend(k.Quota.At(now), func(part string) bool {
			return slices.Contains(p.Paths, "quota."+part) || slices.Contains(p.Paths, "quota")
		}, now)
	}
	changes := Changes(k, &after, now)
	checked := func(field string) bool {
		switch field {
		case "rate_limit":
			if after.RateLimit == (RateLimit{}) {
				return limited[field] // else it is taken away
			}
		case "quota":
			if after.Quota == (Quota{}) {
				return limited[field]
			}
		}
		return slices.Contains(changes, field)
	}
	faults = append(Standing(faults, mutable, changes), r.problems(&after, now, checked)...)
	if err := InvalidFields(faults); err != nil {
		return err
	}
	after.boundPrevious()
	if after.Enabled != k.Enabled || !after.ExpiresAt.Equal(k.ExpiresAt) {
		r.schedule(&after, now)
	}
	*k = after
	return nil
}

// PatchProblems returns what is wrong with p whatever key it is applied to.
func (r Rules) PatchProblems(p Patch, now time.Time) (found []FieldProblem) {
	// All that p does not set is right in this key, and p differs from it in all that it
	// sets, but for values that are right.
	k := Key{Label: "-", RateLimit: RateLimit{Requests: 1, WindowSeconds: 1}, Quota: Quota{Limit: maxQuota, Remaining: maxQuota, Refill: RefillNone}}
	err := AsError(r.Update(&k, p, now))
	if err == nil {
		return nil
	}
	for _, f := range err.Fields {
		if f.Field != "quota.refill_day" { // Some keys' refills have a day.
			found = append(found, f)
		}
	}
	return found
}

// set copies what path names from values. problem says what is wrong with the
// path, "" if nothing is.
func (k *Key) set(path string, values *Key) (problem string) {
	if entry, ok, problem := EntryOf("metadata", path); ok {
		if problem != "" {
			return problem
		}
		k.Metadata = maps.Clone(k.Metadata)
		if value, ok := values.Metadata[entry]; ok {
			if k.Metadata == nil {
				k.Metadata = make(map[string]string)
			}
			k.Metadata[entry] = value
		} else {
			delete(k.Metadata, entry)
		}
		return ""
	}
	switch path {
	case "label":
		k.Label = values.Label
	case "description":
		k.Description = values.Description
	case "scopes":
		k.Scopes = Unique(values.Scopes)
	case "ip_allow_list":
		k.IPAllowList = Unique(values.IPAllowList)
	case "expires_at":
		// Clients that see whole seconds send those back; that is not a change.
		if !values.ExpiresAt.Equal(k.ExpiresAt.Truncate(time.Second)) {
			k.ExpiresAt = StoredTime(values.ExpiresAt)
		}
	case "enabled":
		k.Enabled = values.Enabled
	case "owner_id":
		k.OwnerID = values.OwnerID
	case "metadata":
		k.Metadata = values.Metadata
	case "rate_limit":
		k.RateLimit = values.RateLimit
	case "rate_limit.requests":
		k.RateLimit.Requests = values.RateLimit.Requests
	case "rate_limit.window_seconds":
		k.RateLimit.WindowSeconds = values.RateLimit.WindowSeconds
	case "rate_limit.mode":
		k.RateLimit.Exact = values.RateLimit.Exact
	case "quota":
		k.Quota = values.Quota
	case "quota.limit", "quota.remaining", "quota.refill", "quota.refill_day":
		k.setQuota(strings.TrimPrefix(path, "quota."), &values.Quota)
	case "rate_limit.*", "quota.*":
	default:
		return UnknownPath
	}
	return ""
}

// setQuota copies one part of a quota. A key that had none gets a full one.
func (k *Key) setQuota(part string, values *Quota) {
	if k.Quota == (Quota{}) {
		k.Quota.Remaining = FullQuota
	}
	switch part {
	case "limit":
		k.Quota.Limit = values.Limit
	case "remaining":
		if k.Quota.Remaining = values.Remaining; *values == (Quota{}) {
			k.Quota.Remaining = FullQuota // null, and so as if it had not been given
		}
	case "refill":
		k.Quota.Refill = values.Refill
	case "refill_day":
		k.Quota.RefillDay = values.RefillDay
	}
}

// Names reports whether p changes field, wholly or in part.
func (p *Patch) Names(field string) bool {
	return slices.ContainsFunc(p.Paths, func(path string) bool {
		return path == field || strings.HasPrefix(path, field+".")
	})
}

// EntryPath returns the path of one entry of a map in a field mask: metadata.`key`,
// where a backtick in the key is doubled (AIP-161).
func EntryPath(field, key string) string { return field + "." + quote(key) }

// EntryOf returns the key of the entry that path names. ok is false for a path that is
// not below field. problem says what is wrong with one that is, "" if nothing is.
func EntryOf(field, path string) (key string, ok bool, problem string) {
	below, ok := strings.CutPrefix(path, field+".")
	if !ok {
		return "", false, ""
	}
	key, valid := unquote(below)
	if !valid {
		return "", true, "names an entry of " + field + " in another form than " + EntryPath(field, "key")
	}
	return key, true, ""
}

func quote(key string) string { return "`" + strings.ReplaceAll(key, "`", "``") + "`" }

// unquote reads a map key of a field mask: a plain word, or any text between
// backticks with those inside doubled.
func unquote(text string) (string, bool) {
	inner, quoted := strings.CutPrefix(text, "`")
	if !quoted {
		return text, text != "" && !strings.ContainsAny(text, ".`")
	}
	inner, closed := strings.CutSuffix(inner, "`")
	if !closed || strings.Contains(strings.ReplaceAll(inner, "``", ""), "`") {
		return "", false
	}
	return strings.ReplaceAll(inner, "``", "`"), true
}

// UnknownPath is what is wrong with an update_mask that names something else than
// a mutable field.
const UnknownPath = "names a field that does not exist or cannot be changed"

// Standing returns those of faults, which were found when an update was read,
// that count: all but those of fields that stay as they are. A field is checked
// because it changes, not because it is named, so that a resource can be sent back
// as it was read, whatever the rules have become since. fields are the mutable
// ones, and changed those whose values differ afterwards.
func Standing(faults []FieldProblem, fields, changed []string) []FieldProblem {
	return slices.DeleteFunc(slices.Clone(faults), func(f FieldProblem) bool {
		field := f.Field
		if i := strings.IndexAny(field, ".["); i >= 0 {
			field = field[:i]
		}
		return slices.Contains(fields, field) && !slices.Contains(changed, field)
	})
}
