package gate

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/apikeys-dev/apikeys/server/connection"
)

// question is what a CheckRequest says, as far as it matters here. It is read from the
// bytes themselves: the message as protobuf makes it would be most of the work of a call.
type question struct {
	http         bool      // whether there is an HTTP request at all
	method, path [1]string // of that
	source       string    // the address that it came from
	fields       []pair    // its headers, as they are sent: in small letters
	extensions   []pair    // the context extensions of its route
	key          []byte    // the extensions as they came, by which they are known
	lines        []string  // what values has returned last
}

// pair is a name and a value.
type pair struct{ name, value string }

var _ headers = (*question)(nil)

// values returns the lines of a header.
func (q *question) values(f field) []string {
	q.lines = q.lines[:0]
	for i := range q.fields {
		if q.fields[i].name == f.lower {
			q.lines = append(q.lines, q.fields[i].value)
		}
	}
	return q.lines
}

// keptFields is how many headers a question has room for that is used again.
const keptFields = 128

// reset makes q an empty question that keeps its room.
func (q *question) reset() {
	if cap(q.fields) > keptFields || cap(q.key) > maxQuery {
		*q = question{}
		return
	}
	clear(q.fields)
	clear(q.extensions)
	clear(q.lines[:cap(q.lines)])
	*q = question{fields: q.fields[:0], extensions: q.extensions[:0], key: q.key[:0], lines: q.lines[:0]}
}

var (
	errMalformed  = errors.New("the message is no CheckRequest")
	errManyFields = errors.New("the request has too many headers")
)

// The numbers of the fields that are read, as envoy/service/auth/v3 and
// envoy/config/core/v3 have them.
const (
	checkAttributes = 1

	attributesSource     = 1
	attributesRequest    = 4
	attributesExtensions = 10

	peerAddress          = 1
	addressSocketAddress = 1
	socketAddressAddress = 2

	requestHTTP    = 2
	httpMethod     = 2
	httpHeadersMap = 3
	httpPath       = 4
	httpHeaderMap  = 13

	headerMapHeaders    = 1
	headerValueKey      = 1
	headerValueValue    = 2
	headerValueRawValue = 3

	mapKey   = 1
	mapValue = 2
)

// decode reads a message. The texts that it keeps are parts of data.
func (q *question) decode(data string) error {
	for len(data) > 0 {
		number, attributes, rest, err := nextField(data)
		if err != nil {
			return err
		}
		if data = rest; number != checkAttributes {
			continue
		}
		if err := q.decodeAttributes(attributes); err != nil {
			return err
		}
	}
	return nil
}

func (q *question) decodeAttributes(attributes string) error {
	for len(attributes) > 0 {
		number, value, rest, err := nextField(attributes)
		if err != nil {
			return err
		}
		attributes = rest
		switch number {
		case attributesSource:
			err = q.decodeSource(value)
		case attributesRequest:
			err = q.decodeRequest(value)
		case attributesExtensions:
			err = q.addExtension(value)
		default: // It does not matter here.
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (q *question) addExtension(entry string) error {
	extension, err := decodePair(entry, mapKey, mapValue, 0)
	if err != nil {
		return err
	}
	if len(q.extensions) >= maxScopes {
		return errManyFields
	}
	q.extensions = append(q.extensions, extension)
	q.key = protowire.AppendString(q.key, entry)
	return nil
}

func (q *question) decodeSource(peer string) error {
	for len(peer) > 0 {
		number, address, rest, err := nextField(peer)
		if err != nil {
			return err
		}
		if peer = rest; number != peerAddress {
			continue
		}
		q.source = "" // Of several kinds of addresses the last one counts.
		for len(address) > 0 {
			var socket string
			if number, socket, address, err = nextField(address); err != nil {
				return err
			}
			if number != addressSocketAddress {
				continue
			}
			for len(socket) > 0 {
				var value string
				if number, value, socket, err = nextField(socket); err != nil {
					return err
				}
				if number == socketAddressAddress {
					q.source = value
				}
			}
		}
	}
	return nil
}

func (q *question) decodeRequest(request string) error {
	for len(request) > 0 {
		number, http, rest, err := nextField(request)
		if err != nil {
			return err
		}
		if request = rest; number != requestHTTP {
			continue
		}
		q.http = true
		if err := q.decodeHTTP(http); err != nil {
			return err
		}
	}
	return nil
}

func (q *question) decodeHTTP(http string) error {
	for len(http) > 0 {
		number, value, rest, err := nextField(http)
		if err != nil {
			return err
		}
		http = rest
		switch number {
		case httpMethod:
			q.method[0] = value
		case httpPath:
			q.path[0] = value
		case httpHeadersMap:
			err = q.addHeader(value, mapKey, mapValue, 0)
		case httpHeaderMap:
			err = q.decodeHeaderMap(value)
		default: // It does not matter here.
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (q *question) decodeHeaderMap(headers string) error {
	for len(headers) > 0 {
		number, header, rest, err := nextField(headers)
		if err != nil {
			return err
		}
		if headers = rest; number != headerMapHeaders {
			continue
		}
		if err := q.addHeader(header, headerValueKey, headerValueValue, headerValueRawValue); err != nil {
			return err
		}
	}
	return nil
}

func (q *question) addHeader(entry string, key, value, raw protowire.Number) error {
	header, err := decodePair(entry, key, value, raw)
	if err != nil {
		return err
	}
	if len(q.fields) >= connection.MaxHeaders {
		return errManyFields
	}
	if q.fields == nil {
		q.fields = make([]pair, 0, 24)
	}
	q.fields = append(q.fields, header)
	return nil
}

// decodePair reads a name and a value, which may stand in a second field.
func decodePair(entry string, key, value, other protowire.Number) (p pair, err error) {
	for len(entry) > 0 {
		var number protowire.Number
		var text string
		if number, text, entry, err = nextField(entry); err != nil {
			return p, err
		}
		switch {
		case number == 0:
		case number == key:
			p.name = text
		case number == value, number == other && text != "":
			p.value = text
		}
	}
	return p, nil
}

// nextField reads the first field of a message. Those that are looked at all have a
// length: of one that has none only the number is told, as zero.
func nextField(message string) (number protowire.Number, value, rest string, err error) {
	number, kind, n := consumeTag(message)
	if n < 0 {
		return 0, "", "", errMalformed
	}
	message = message[n:]
	if kind != protowire.BytesType {
		if n = sizeOfScalar(message, kind); n < 0 || n > len(message) {
			return 0, "", "", errMalformed
		}
		return 0, "", message[n:], nil
	}
	length, n := consumeVarint(message)
	if n < 0 || length > uint64(len(message)-n) {
		return 0, "", "", errMalformed
	}
	return number, message[n : n+int(length)], message[n+int(length):], nil
}

// sizeOfScalar returns the size of a value that has no length, which is passed over. No
// message that is read has groups.
func sizeOfScalar(message string, kind protowire.Type) int {
	switch kind {
	case protowire.VarintType:
		_, n := consumeVarint(message)
		return n
	case protowire.Fixed32Type:
		return 4
	case protowire.Fixed64Type:
		return 8
	default:
		return -1
	}
}

// maxVarint is the size of the longest varint.
const maxVarint = 10

// consumeTag is protowire.ConsumeTag for a string.
func consumeTag(s string) (protowire.Number, protowire.Type, int) {
	v, n := consumeVarint(s)
	if n < 0 {
		return 0, 0, n
	}
	number, kind := protowire.DecodeTag(v)
	if number < protowire.MinValidNumber || number > protowire.MaxValidNumber {
		return 0, 0, -1
	}
	return number, kind, n
}

// consumeVarint is protowire.ConsumeVarint for a string.
func consumeVarint(s string) (v uint64, n int) {
	if len(s) > 0 && s[0] < 0x80 {
		return uint64(s[0]), 1
	}
	for i := range min(len(s), maxVarint) {
		b := s[i]
		if i == maxVarint-1 && b > 1 {
			return 0, -1
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return v, i + 1
		}
	}
	return 0, -1
}
