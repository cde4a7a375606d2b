package json

import (
	"maps"
	"slices"
	"strconv"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Failure is what the envelope says of a request over HTTP that failed.
type Failure struct {
	Status int
	Reason string
	// Text is a sentence that a person can act on.
	Text string
	// Fields are the faulty fields; nil for null.
	Fields []apikey.FieldProblem
	// Facts are further entries of the log.
	Facts                map[string]string
	RequestID, SupportID string
}

// AppendEnvelope appends the envelope of f, without its end: env and the closing brace.
func (f *Failure) AppendEnvelope(dst []byte) []byte {
	dst = strconv.AppendInt(append(dst, `{"status":`...), int64(f.Status), 10)
	dst = AppendString(append(dst, `,"data":null,"error":`...), f.Text)
	dst = AppendString(append(dst, `,"log":{"reason":`...), f.Reason)
	dst = AppendString(append(dst, `,"request_id":`...), f.RequestID)
	for _, name := range slices.Sorted(maps.Keys(f.Facts)) {
		if name != "reason" && name != "request_id" {
			dst = append(AppendString(append(dst, ','), name), ':')
			dst = AppendString(dst, f.Facts[name])
		}
	}
	dst = append(dst, `},"validator":`...)
	dst = appendValidator(dst, f.Fields)
	dst = AppendString(append(dst, `,"support_id":`...), f.SupportID)
	return append(dst, `,"message":null`...)
}

// AppendEnvelopeEnd appends the end of every envelope of a server.
func AppendEnvelopeEnd(dst []byte, env string) []byte {
	return append(AppendString(append(dst, `,"env":`...), env), '}')
}

func appendValidator(dst []byte, fields []apikey.FieldProblem) []byte {
	if len(fields) == 0 {
		return append(dst, "null"...)
	}
	sep := byte('{')
	for _, p := range fields {
		dst = append(AppendString(append(dst, sep), p.Field), ':')
		dst = AppendString(dst, p.Problem)
		sep = ','
	}
	return append(dst, '}')
}
