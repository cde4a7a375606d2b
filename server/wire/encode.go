package wire

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// AppendVerification appends the encoding of [Verification] of v to b. It is for
// the one answer that has to be fast: making the messages and walking them costs
// several times as much. A test holds it to what protobuf makes of the message.
func AppendVerification(b []byte, v *apikey.Verification) []byte {
	e := encoder(b)
	e.bool(1, v.Code == apikey.CodeValid)
	e.int(2, int64(codeEnum[v.Code]))
	if v.Key != nil {
		at := e.begin()
		e.key(v)
		e.end(3, at)
	}
	if v.Limit.Limit > 0 {
		at := e.begin()
		e.int(1, int64(v.Limit.Limit))
		e.int(2, int64(v.Limit.Remaining))
		e.time(3, v.Limit.ResetAt)
		e.end(4, at)
	}
	e.bool(5, v.Previous)
	if seconds := retryAfter(v); seconds > 0 {
		e.int(6, int64(seconds))
	}
	if v.Quota.Limit > 0 {
		at := e.begin()
		e.int(1, v.Quota.Limit)
		e.int(2, v.Quota.Remaining)
		e.time(3, v.Quota.RefillAt)
		e.end(7, at)
	}
	return e
}

// encoder is the bytes of a message so far. Its methods append a field by number
// and, as proto3 has it, leave out one that has no value.
type encoder []byte

// key appends the fields of an ApiKey, as [Key] has them.
func (e *encoder) key(v *apikey.Verification) {
	k := v.Key
	e.string(1, k.ID)
	e.string(2, k.OrganizationID)
	e.string(3, k.Label)
	e.string(4, k.Description)
	e.string(5, k.Secret.Mask)
	for _, s := range k.Scopes {
		e.element(6, s)
	}
	for _, p := range k.IPAllowList {
		e.element(7, apikey.FormatAllowed(p))
	}
	e.time(8, k.ExpiresAt)
	e.time(9, k.CreatedAt)
	e.time(10, k.UpdatedAt)
	e.bool(11, k.Enabled)
	e.int(12, int64(stateEnum[k.State(v.At)]))
	e.int(13, int64(modeEnum[k.Mode]))
	e.string(14, k.OwnerID)
	for name, value := range k.Metadata {
		at := e.begin()
		e.element(1, name)
		e.element(2, value)
		e.end(15, at)
	}
	if k.RateLimit != (apikey.RateLimit{}) {
		at := e.begin()
		e.int(1, int64(k.RateLimit.Requests))
		e.int(2, int64(k.RateLimit.WindowSeconds))
		e.end(16, at)
	}
	e.time(17, k.RevokedAt)
	if !k.RevokedAt.IsZero() {
		e.optional(18, int64(reasonEnum[k.RevokeReason]))
	}
	if k.PreviousWorks(v.At) {
		use := k.PreviousUse(&v.Usage)
		e.time(19, k.PreviousExpiresAt)
		e.time(24, use.LastUsedAt)
		e.optional(25, use.Requests)
	}
	at := e.begin()
	e.string(1, k.ID)
	e.int(2, v.Usage.TotalRequests)
	e.time(3, v.Usage.LastUsedAt)
	e.end(20, at)
	e.string(21, k.ETag())
	if k.Quota.Limit > 0 {
		remaining := k.Quota.Remaining
		if v.Quota.Limit > 0 {
			remaining = v.Quota.Remaining
		}
		at := e.begin()
		e.int(1, k.Quota.Limit)
		e.optional(2, remaining)
		e.int(3, int64(refillEnum[k.Quota.Refill]))
		if k.Quota.RefillDay != 0 {
			e.int(4, int64(k.Quota.RefillDay))
		}
		e.end(22, at)
	}
	if k.CreatedBy != (apikey.Actor{}) {
		at := e.begin()
		e.string(1, string(k.CreatedBy.Kind))
		e.string(2, k.CreatedBy.ID)
		e.end(23, at)
	}
}

func (e *encoder) tag(field protowire.Number, kind protowire.Type) {
	*e = protowire.AppendTag(*e, field, kind)
}

func (e *encoder) optional(field protowire.Number, n int64) {
	e.tag(field, protowire.VarintType)
	*e = protowire.AppendVarint(*e, uint64(n))
}

func (e *encoder) int(field protowire.Number, n int64) {
	if n != 0 {
		e.optional(field, n)
	}
}

func (e *encoder) bool(field protowire.Number, is bool) {
	if is {
		e.optional(field, 1)
	}
}

func (e *encoder) element(field protowire.Number, text string) {
	e.tag(field, protowire.BytesType)
	*e = protowire.AppendString(*e, text)
}

func (e *encoder) string(field protowire.Number, text string) {
	if text != "" {
		e.element(field, text)
	}
}

func (e *encoder) time(field protowire.Number, t time.Time) {
	if t.IsZero() {
		return
	}
	at := e.begin()
	e.int(1, t.Unix())
	e.int(2, int64(t.Nanosecond()))
	e.end(field, at)
}

// begin begins a message within the message and returns where.
func (e *encoder) begin() int { return len(*e) }

// end makes what was appended since begin a field: it moves that behind the tag
// and the length, which nobody knew before.
func (e *encoder) end(field protowire.Number, begin int) {
	size := len(*e) - begin
	e.tag(field, protowire.BytesType)
	*e = protowire.AppendVarint(*e, uint64(size))
	var head [12]byte
	n := copy(head[:], (*e)[begin+size:])
	copy((*e)[begin+n:], (*e)[begin:begin+size])
	copy((*e)[begin:], head[:n])
}
