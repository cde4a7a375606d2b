package apikey

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mode is what a key is for. It is fixed when the key is made; verification
// reports it and never decides by it.
type Mode string

// The modes.
const (
	ModeLive Mode = "live"
	ModeTest Mode = "test"
)

// State is whether a key can be used, and if not, the first reason that holds.
type State string

// The states, in the order in which they are checked.
const (
	StateRevoked  State = "revoked"
	StateDisabled State = "disabled"
	StateExpired  State = "expired"
	StateActive   State = "active"
)

// RevokeReason is why a key was revoked.
type RevokeReason string

// The reasons of a revocation.
const (
	RevokeUnspecified        RevokeReason = "unspecified"
	RevokeKeyCompromise      RevokeReason = "key_compromise"
	RevokeSuperseded         RevokeReason = "superseded"
	RevokeNoLongerNeeded     RevokeReason = "no_longer_needed"
	RevokePrivilegeWithdrawn RevokeReason = "privilege_withdrawn"
)

// RateLimit is a burst of Requests, refilled evenly over WindowSeconds. The zero
// RateLimit limits nothing.
type RateLimit struct {
	Requests      int
	WindowSeconds int
	// Exact says that all servers on one database keep the limit together, by a
	// [SharedLimiter] that is stored; else each keeps it by itself, in memory.
	Exact bool
}

// Hash is what is kept of a secret: its HMAC-SHA-256 under a pepper. It is never
// accepted as a credential.
type Hash [sha256.Size]byte

// StoredSecret is what is kept of a secret.
type StoredSecret struct {
	Hash     Hash
	PepperID string // of the pepper that Hash was made under
	// EdgeHash is the secret's HMAC-SHA-256 under the edge key, by which programs
	// at the edge look keys up.
	EdgeHash Hash
	Mask     string
}

// Usage is how much a key was used: valid verifications, management calls made
// with it included, and the time of the latest.
type Usage struct {
	TotalRequests int64
	LastUsedAt    time.Time
	// Previous is the part of it that was made with the previous secret.
	Previous PreviousUsage
}

// PreviousUsage is how much the secret before a rotation was used since.
type PreviousUsage struct {
	// Rotation is the number of the rotation.
	Rotation   int64
	Requests   int64
	LastUsedAt time.Time
}

// Key is an API key as it is stored. The zero time stands for "not" or "never"
// in every field. What clients see and the event log keeps is made by package
// wire.
//
// A Key handed out by a store or a cache is shared: change a copy, and replace
// its slices and maps, never their elements.
type Key struct {
	ID             string
	OrganizationID string
	Label          string
	Description    string
	Scopes         Scopes
	IPAllowList    AllowList
	ExpiresAt      time.Time
	CreatedAt      time.Time
	UpdatedAt      time.Time
	CreatedBy      Actor
	Enabled        bool
	Mode           Mode
	Format         string // the name of the format of Secret
	OwnerID        string
	// ExternalID is the name that whoever made the key gave it, which no other key of
	// the organization has. Empty is none.
	ExternalID   string
	Metadata     map[string]string
	RateLimit    RateLimit
	Quota        Quota
	RevokedAt    time.Time
	RevokeReason RevokeReason
	// Secret is the current one; Previous is the one before the last rotation,
	// which works until PreviousExpiresAt.
	Secret            StoredSecret
	Previous          StoredSecret
	PreviousExpiresAt time.Time
	// Rotations counts the key's rotations. The number names the previous secret.
	Rotations int64
	// NoticeAt is when the next notice of the key's expiry is due.
	NoticeAt time.Time
	// Version counts the key's changes from 1; the etag is made of it.
	Version int64
	Usage   Usage
	// LastUse is from where it was used last; nil where that is not known.
	LastUse *LastUse
}

// State returns the key's state at now.
func (k *Key) State(now time.Time) State {
	switch {
	case !k.RevokedAt.IsZero():
		return StateRevoked
	case !k.Enabled:
		return StateDisabled
	case k.expired(now):
		return StateExpired
	default:
		return StateActive
	}
}

// expired reports whether the key's time is over: from expires_at on, that
// instant included.
func (k *Key) expired(now time.Time) bool {
	return !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt)
}

// PreviousUse returns what usage holds of the secret before the last rotation: of
// an older one nothing is told.
func (k *Key) PreviousUse(usage *Usage) PreviousUsage {
	if usage.Previous.Rotation != k.Rotations {
		return PreviousUsage{}
	}
	return usage.Previous
}

// PreviousWorks reports whether the secret before the last rotation is still
// good at now.
func (k *Key) PreviousWorks(now time.Time) bool {
	return now.Before(k.PreviousExpiresAt)
}

// ETag names this version of the key.
func (k *Key) ETag() string { return strconv.FormatInt(k.Version, 10) }

// Hashes returns the hashes under which the key can be found: the current
// secret's, and the previous one's if there is one.
func (k *Key) Hashes() []Hash {
	hashes := []Hash{k.Secret.Hash}
	if k.Previous.Mask != "" {
		hashes = append(hashes, k.Previous.Hash)
	}
	return hashes
}

// What a field takes of a message at most, beside its own text.
const (
	fixedSize   = 400 // all numbers, times and tags that a key has one of, its limits included
	elementSize = 12  // the tags and lengths of an element of a list or a map
	lastUseSize = 40  // the times, numbers and tags of the last use
	rangeSize   = 48  // an entry of an allow list: an IPv6 range as text, 43 characters
)

// SharingTexts returns the key with those of its texts that text contains as parts of
// it, so that whoever keeps both keeps them once. Its id and its organization, which
// others keep for longer, stay as they are.
func (k *Key) SharingTexts(text string) Key {
	part := func(s string) string {
		if at := strings.Index(text, s); at >= 0 {
			return text[at : at+len(s)]
		}
		return s
	}
	c := *k
	for _, field := range []*string{&c.Label, &c.Description, &c.OwnerID, &c.ExternalID, &c.Format, &c.Secret.Mask} {
		*field = part(*field)
	}
	c.Scopes = make(Scopes, len(k.Scopes))
	for i, scope := range k.Scopes {
		c.Scopes[i] = part(scope)
	}
	if k.Metadata != nil {
		c.Metadata = make(map[string]string, len(k.Metadata))
		for name, value := range k.Metadata {
			c.Metadata[part(name)] = part(value)
		}
	}
	return c
}

// MessageSize returns an upper estimate of how many bytes the key takes in an
// answer, as protobuf encodes it with what a verification tells beside it. It is
// for bounding answers before they are made, and never too low; keys of usual
// sizes take about half of it.
func (k *Key) MessageSize() int {
	size := fixedSize + 2*len(k.ID) + len(k.OrganizationID) + len(k.Label) + len(k.Description) +
		len(k.Secret.Mask) + len(k.Format) + len(k.OwnerID) + len(k.ExternalID) + len(k.CreatedBy.Kind) + len(k.CreatedBy.ID) + len(k.CreatedBy.Name) + rangeSize*len(k.IPAllowList)
	if k.LastUse != nil {
		size += lastUseSize + len(k.LastUse.IP) + len(k.LastUse.UserAgent)
	}
	for _, s := range k.Scopes {
		size += len(s) + elementSize
	}
	for name, value := range k.Metadata {
		size += len(name) + len(value) + elementSize
	}
	return size
}

// Changes returns the names of the resource's fields whose values differ between
// before and after at now, in the resource's order. updated_at and etag, which
// every change moves, and metrics, which no change moves, are left out.
func Changes(before, after *Key, now time.Time) []string {
	var names []string
	differs := func(name string, differ bool) {
		if differ {
			names = append(names, name)
		}
	}
	differs("label", before.Label != after.Label)
	differs("description", before.Description != after.Description)
	differs("secret", before.Secret.Hash != after.Secret.Hash)
	differs("scopes", !slices.Equal(before.Scopes, after.Scopes))
	differs("ip_allow_list", !slices.Equal(before.IPAllowList, after.IPAllowList))
	differs("expires_at", !before.ExpiresAt.Equal(after.ExpiresAt))
	differs("enabled", before.Enabled != after.Enabled)
	differs("state", before.State(now) != after.State(now))
	differs("key_format", before.Format != after.Format)
	differs("owner_id", before.OwnerID != after.OwnerID)
	differs("metadata", !maps.Equal(before.Metadata, after.Metadata))
	differs("rate_limit", before.RateLimit != after.RateLimit)
	differs("quota", before.Quota.refilled(now) != after.Quota.refilled(now))
	differs("revoked_at", !before.RevokedAt.Equal(after.RevokedAt))
	differs("revoke_reason", before.RevokeReason != after.RevokeReason)
	differs("previous_secret_expires_at", !before.PreviousExpiresAt.Equal(after.PreviousExpiresAt))
	return names
}
