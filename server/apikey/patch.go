package apikey

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Patch is a change of some fields of a key.
type Patch struct {
	// Paths names what changes: a mutable field, one of the parts of rate_limit or
	// quota, or one entry of metadata as metadata.`key`, where a backtick in
	// the key is doubled (AIP-161).
	Paths []string
	// Values holds the new values; one that is zero clears its field.
	Values Key
}

// Update applies p to k, wholly or, with an error, not at all. A revoked key
// takes no update. Fields that p does not
// name are not judged, so that a key whose scope has left the catalogue can
// still be renamed.
func (r Rules) Update(k *Key, p Patch, now time.Time) error {
	if !k.RevokedAt.IsZero() {
		return errRevoked()
	}
	after := *k
	after.Quota = k.Quota.refilled(now)
	judged := make(map[string]bool)
	for _, path := range p.Paths {
		field, err := after.set(path, &p.Values)
		if err != nil {
			return err
		}
		judged[field] = true
	}
	if judged["quota"] && after.Quota != (Quota{}) {
		after.Quota.amend(k.Quota.At(now), func(part string) bool {
			return slices.Contains(p.Paths, "quota."+part) || slices.Contains(p.Paths, "quota")
		}, now)
	}
	// An expiry that stays is not judged: sending a key's past expires_at back
	// with another change must not fail.
	if after.ExpiresAt.Equal(k.ExpiresAt) {
		judged["expires_at"] = false
	}
	if err := InvalidFields(r.problems(&after, now, func(f string) bool { return judged[f] })); err != nil {
		return err
	}
	after.boundPrevious()
	if after.Enabled != k.Enabled || !after.ExpiresAt.Equal(k.ExpiresAt) {
		r.schedule(&after, now)
	}
	*k = after
	return nil
}

// set copies what path names from values and returns the field it belongs to.
func (k *Key) set(path string, values *Key) (field string, err error) {
	if name, ok := strings.CutPrefix(path, "metadata."); ok {
		entry, ok := unquote(name)
		if !ok {
			return "", InvalidField("update_mask", "names an entry of metadata in another form than metadata.`key`")
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
		return "metadata", nil
	}
	switch path {
	case "label":
		k.Label = values.Label
	case "description":
		k.Description = values.Description
	case "scopes":
		k.Scopes = unique(values.Scopes)
	case "ip_allow_list":
		k.IPAllowList = uniquePrefixes(values.IPAllowList)
	case "expires_at":
		// Clients that see whole seconds send those back; that is not a change.
		if !values.ExpiresAt.Equal(k.ExpiresAt.Truncate(time.Second)) {
			k.ExpiresAt = stored(values.ExpiresAt)
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
		return "rate_limit", nil
	case "rate_limit.window_seconds":
		k.RateLimit.WindowSeconds = values.RateLimit.WindowSeconds
		return "rate_limit", nil
	case "quota":
		k.Quota = values.Quota
	case "quota.limit", "quota.remaining", "quota.refill", "quota.refill_day":
		k.setQuota(strings.TrimPrefix(path, "quota."), &values.Quota)
		return "quota", nil
	default:
		return "", InvalidField("update_mask", "names a field that does not exist or cannot be changed")
	}
	return path, nil
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

// uniquePrefixes returns list without the later ones of equal entries.
func uniquePrefixes(list AllowList) AllowList {
	out := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
