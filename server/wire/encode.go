package wire

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// EncodeKey returns the encoding of what an answer says of k that stays while k does
// not change, for [apikey.Verification.Encoded]. It is empty where that cannot be
// encoded.
func EncodeKey(k *apikey.Key) string {
	encoded, err := proto.Marshal(staticKey(k))
	if err != nil {
		return ""
	}
	return string(encoded)
}

// maxAnswer is how many bytes the answer of a verification takes at most, beside
// what [EncodeKey] made: two ids of a key, numbers, times and tags.
const maxAnswer = 256

// AppendVerification appends the encoding of [Verification] of v to b. It is for
// the one answer that has to be fast: making the messages and walking them costs
// several times as much. Of the key it writes only the fields that time and use
// change; all others are in v.Encoded. A test holds it to what protobuf makes of
// the message.
func AppendVerification(b []byte, v *apikey.Verification) []byte {
	if b == nil {
		b = make([]byte, 0, len(v.Encoded)+maxAnswer)
	}
	e := encoder(b)
	e.bool(1, v.Code == apikey.CodeValid)
	e.int(2, int64(codes.number[v.Code]))
	if v.Key != nil {
		e.key(3, v)
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

// key appends the ApiKey of v as a field: what is encoded already, and the fields
// that completeKey sets.
func (e *encoder) key(field protowire.Number, v *apikey.Verification) {
	k, static := v.Key, v.Encoded
	if static == "" {
		static = EncodeKey(k)
	}
	at := e.begin()
	*e = append(*e, static...)
	e.int(12, int64(states.number[k.State(v.At)]))
	if k.PreviousWorks(v.At) {
		use := k.PreviousUse(&v.Usage)
		e.time(19, k.PreviousExpiresAt)
		e.time(24, use.LastUsedAt)
		e.optional(25, use.Requests)
	}
	metrics := e.begin()
	e.string(1, k.ID)
	e.int(2, v.Usage.TotalRequests)
	e.time(3, v.Usage.LastUsedAt)
	e.end(20, metrics)
	if k.Quota.Limit > 0 {
		remaining := k.Quota.Remaining
		if v.Quota.Limit > 0 {
			remaining = v.Quota.Remaining
		}
		quota := e.begin()
		e.int(1, k.Quota.Limit)
		e.optional(2, remaining)
		e.int(3, int64(refills.number[k.Quota.Refill]))
		if k.Quota.RefillDay != 0 {
			e.int(4, int64(k.Quota.RefillDay))
		}
		e.end(22, quota)
	}
	e.end(field, at)
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

func (e *encoder) string(field protowire.Number, text string) {
	if text != "" {
		e.tag(field, protowire.BytesType)
		*e = protowire.AppendString(*e, text)
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
