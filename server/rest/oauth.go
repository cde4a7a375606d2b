package rest

import (
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// Some routes speak as OAuth 2.0 does (RFC 6749, RFC 7662): the request is a form, and
// the answer JSON without an envelope, in which what is not set does not stand.

const formType = "application/x-www-form-urlencoded"

var errNotForm = apikey.Errorf(apikey.KindInvalid, reasonUnsupportedType,
	"Send the body as a form, with the header Content-Type: "+formType+".")

// isForm reports whether a content type is that of a form in UTF-8.
func isForm(contentType string) bool {
	kind, parameters, err := mime.ParseMediaType(contentType)
	charset, given := parameters["charset"]
	return err == nil && kind == formType && (!given || strings.EqualFold(charset, "utf-8"))
}

// readForm reads the body into m. Parameters that the method does not know are passed
// over, as OAuth has it.
func (e *exchange) readForm(m proto.Message) error {
	defer e.onConnection.Refund()
	if err := e.takeBody(); err != nil {
		return err
	}
	values, err := url.ParseQuery(e.in.String())
	if err != nil {
		return apikey.Errorf(apikey.KindInvalid, "MALFORMED_FORM", "The form is not valid: escape its values, and separate them with &.")
	}
	known := url.Values{}
	for i := range m.ProtoReflect().Descriptor().Fields().Len() {
		name := string(m.ProtoReflect().Descriptor().Fields().Get(i).Name())
		if values.Has(name) {
			known[name] = values[name]
		}
	}
	return wirejson.ReadQuery(known, m, e.route.bound...)
}

// appendBare appends an answer without an envelope.
func appendBare(dst []byte, m protoreflect.Message) []byte {
	sep := byte('{')
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.HasPresence() && !m.Has(field) {
			continue
		}
		dst = append(wirejson.AppendString(append(dst, sep), string(field.Name())), ':')
		sep = ','
		switch value := m.Get(field); field.Kind() {
		case protoreflect.BoolKind:
			dst = strconv.AppendBool(dst, value.Bool())
		case protoreflect.Int64Kind:
			dst = strconv.AppendInt(dst, value.Int(), 10)
		default:
			dst = wirejson.AppendString(dst, value.String())
		}
	}
	return append(dst, '}')
}

// oauthErrors are the codes of RFC 6749, 5.2 and 4.1.2.1, by status.
var oauthErrors = map[int]string{
	http.StatusUnauthorized:        "invalid_client",
	http.StatusForbidden:           "insufficient_scope", // RFC 6750
	http.StatusTooManyRequests:     "temporarily_unavailable",
	http.StatusServiceUnavailable:  "temporarily_unavailable",
	http.StatusGatewayTimeout:      "temporarily_unavailable",
	http.StatusInternalServerError: "server_error",
}

// appendOAuth appends the failure as OAuth has it.
func (f *failure) appendOAuth(dst []byte) []byte {
	code, ok := oauthErrors[f.status]
	if !ok {
		code = "invalid_request"
	}
	text := f.text
	if len(f.fields) > 0 {
		text = f.fields[0].Field + " " + f.fields[0].Problem
	}
	dst = wirejson.AppendString(append(dst, `{"error":`...), code)
	dst = wirejson.AppendString(append(dst, `,"error_description":`...), text)
	dst = wirejson.AppendString(append(dst, `,"support_id":`...), f.supportID)
	return append(dst, '}')
}
