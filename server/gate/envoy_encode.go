package gate

import (
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// codec is the codec of protobuf, which reads and writes the messages of Check itself.
type codec struct{ encoding.CodecV2 }

// NewCodec returns the codec of the server that has [Gate.Service].
func NewCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2(grpcproto.Name)} }

// Unmarshal reads a message.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	asked, ok := v.(*check)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	var text strings.Builder // whose bytes are the string
	text.Grow(data.Len())
	for _, b := range data {
		text.Write(b.ReadOnlyData())
	}
	return asked.question.decode(text.String())
}

// Marshal returns the bytes of v.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	asked, ok := v.(*check)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	return asked.call.Answer(append(make(mem.BufferSlice, 0, 2), mem.SliceBuffer(asked.encoded))), nil
}

// The numbers of the fields that are written.
const (
	responseStatus   = 1
	responseDenied   = 2
	responseOK       = 3
	responseMetadata = 4

	rpcStatusCode = 1

	deniedStatus  = 1
	deniedHeaders = 2
	deniedBody    = 3

	httpStatusCode = 1

	okHeaders         = 2
	okHeadersToRemove = 5
	okResponseHeaders = 6

	optionHeader       = 1
	optionAppendAction = 3
	overwriteOrAdd     = 2 // HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD

	structFields    = 1
	valueString     = 3
	valueList       = 6
	listValueValues = 1
)

// encodeAllowed returns the answer that lets a request pass: its headers of identity are
// set, and removed where they have no value. The limits go to the client.
func encodeAllowed(a *answer, q *question) []byte {
	values := a.fields()
	size := 512 // of all but the values, most of which stand in the metadata too
	for i := range values {
		size += 2 * len(values[i])
	}
	out := make([]byte, 0, size+8*len(a.Key.Scopes))
	out = appendText(out, responseStatus, "")
	out, ok := openMessage(out, responseOK)
	for i := range values {
		switch {
		case i >= fieldLimit:
			if values[i] != "" {
				out = appendHeader(out, okResponseHeaders, fieldNames[i].lower, values[i])
			}
		case values[i] != "":
			out = appendHeader(out, okHeaders, fieldNames[i].lower, values[i])
		default:
			out = appendText(out, okHeadersToRemove, fieldNames[i].lower)
		}
	}
	for i := range q.fields {
		if name := q.fields[i].name; strings.IndexByte(name, '_') >= 0 && isDisguised(name) {
			out = appendText(out, okHeadersToRemove, name)
		}
	}
	out = closeMessage(out, ok)
	out, metadata := openMessage(out, responseMetadata)
	out = appendMetadata(out, a.Key)
	return closeMessage(out, metadata)
}

// isDisguised reports whether a name is one of those of identity to a server that takes
// underscores for dashes, as CGI and WSGI do.
func isDisguised(name string) bool {
	plain := strings.ReplaceAll(name, "_", "-")
	for i := range fieldLimit {
		if strings.EqualFold(plain, fieldNames[i].lower) {
			return true
		}
	}
	return false
}

// encodeDenied returns the answer that refuses a request.
func (g *Gate) encodeDenied(a *answer) []byte {
	denied := make([]byte, 0, 1024)
	denied = appendBytes(denied, deniedStatus, protowire.AppendVarint(protowire.AppendTag(nil, httpStatusCode, protowire.VarintType), uint64(a.status())))
	set := func(name, value string) { denied = appendHeader(denied, deniedHeaders, strings.ToLower(name), value) }
	a.refusalFields(set)
	set("cache-control", "no-store")
	for i, value := range a.fields() {
		if value != "" {
			set(fieldNames[i].lower, value)
		}
	}
	denied = appendBytes(denied, deniedBody, g.envelope(a))
	out := make([]byte, 0, len(denied)+96)
	code := protowire.AppendVarint(protowire.AppendTag(nil, rpcStatusCode, protowire.VarintType), uint64(codeOf(a)))
	out = appendBytes(out, responseStatus, code)
	out = appendBytes(out, responseDenied, denied)
	return appendBytes(out, responseMetadata, appendEntry(nil, "code", a.code))
}

// codeOf returns the code of gRPC of a refusal, which Envoy only looks at for being none
// of OK.
func codeOf(a *answer) codes.Code {
	switch a.refusal.Kind.HTTPStatus() {
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Internal
}

// appendMetadata appends the dynamic metadata of a request that passes, a Struct.
func appendMetadata(m []byte, k *apikey.Key) []byte {
	m = appendEntry(m, "code", string(apikey.CodeValid))
	m = appendEntry(m, "api_key_id", k.ID)
	m = appendEntry(m, "organization_id", k.OrganizationID)
	m = appendEntry(m, "owner_id", k.OwnerID)
	m = appendEntry(m, "label", k.Label)
	m, entry := openMessage(m, structFields)
	m = appendText(m, mapKey, "scopes")
	m, value := openMessage(m, mapValue)
	m, list := openMessage(m, valueList)
	for _, scope := range k.Scopes {
		m = protowire.AppendTag(m, listValueValues, protowire.BytesType)
		m = protowire.AppendVarint(m, uint64(sizeOfText(scope)))
		m = appendText(m, valueString, scope)
	}
	return closeMessage(closeMessage(closeMessage(m, list), value), entry)
}

// openMessage appends the tag of a message whose fields follow, until closeMessage with
// where they begin.
func openMessage(dst []byte, number protowire.Number) (_ []byte, begin int) {
	dst = append(protowire.AppendTag(dst, number, protowire.BytesType), 0)
	return dst, len(dst)
}

// closeMessage ends a message, for the length of which there is one byte.
func closeMessage(dst []byte, begin int) []byte {
	length := len(dst) - begin
	more := protowire.SizeVarint(uint64(length)) - 1
	for range more {
		dst = append(dst, 0)
	}
	copy(dst[begin+more:], dst[begin:begin+length])
	protowire.AppendVarint(dst[:begin-1], uint64(length))
	return dst
}

// appendEntry appends an entry of a Struct whose value is a text.
func appendEntry(dst []byte, name, value string) []byte {
	inner := sizeOfText(value)
	dst = protowire.AppendTag(dst, structFields, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(sizeOfText(name)+1+protowire.SizeBytes(inner)))
	dst = appendText(dst, mapKey, name)
	dst = protowire.AppendTag(dst, mapValue, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(inner))
	return appendText(dst, valueString, value)
}

// appendHeader appends a HeaderValueOption that overwrites what is there.
func appendHeader(dst []byte, number protowire.Number, name, value string) []byte {
	header := sizeOfText(name) + sizeOfText(value)
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(1+protowire.SizeBytes(header)+2))
	dst = protowire.AppendTag(dst, optionHeader, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(header))
	dst = appendText(dst, headerValueKey, name)
	dst = appendText(dst, headerValueValue, value)
	dst = protowire.AppendTag(dst, optionAppendAction, protowire.VarintType)
	return protowire.AppendVarint(dst, overwriteOrAdd)
}

// sizeOfText returns the size of a text with a tag of one byte.
func sizeOfText(text string) int { return 1 + protowire.SizeBytes(len(text)) }

func appendText(dst []byte, number protowire.Number, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, number, protowire.BytesType), text)
}

func appendBytes(dst []byte, number protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, number, protowire.BytesType), message)
}
