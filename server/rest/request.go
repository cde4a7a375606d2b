package rest

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// fill reads all that the request says into m, which holds what its path gave. It
// is called once the caller is known; the order of the checks is the contract's.
func (e *exchange) fill(m proto.Message) error {
	if e.csv = e.route.csv != nil && prefersCSV(e.r.Header["Accept"]); !e.csv && !acceptsJSON(e.r.Header["Accept"]) {
		return errNotAcceptable
	}
	if e.route.body && e.hasBody() {
		if err := e.checkBody(); err != nil {
			return err
		}
	}
	var problems []apikey.FieldProblem
	if err := collect(&problems, e.readQuery(m)); err != nil {
		return err
	}
	if e.route.body {
		read := e.readBody
		if e.route.oauth {
			read = e.readForm
		}
		if err := collect(&problems, read(m)); err != nil {
			return err
		}
	}
	problems = append(problems, e.ifMatch(m.ProtoReflect())...)
	if len(problems) > 0 {
		return apikey.InvalidFields(problems)
	}
	return nil
}

// collect adds the faulty fields that err names to problems, and returns err where
// it is of another kind, as the caller may know it.
func collect(problems *[]apikey.FieldProblem, err error) error {
	if syntax, ok := errors.AsType[*wirejson.SyntaxError](err); ok {
		text := syntax.Error()
		return apikey.Errorf(apikey.KindInvalid, "MALFORMED_JSON", "%s.", strings.ToUpper(text[:1])+text[1:])
	}
	if known := apikey.AsError(err); known != nil && len(known.Fields) > 0 {
		*problems = append(*problems, known.Fields...)
		return nil
	}
	return err
}

// readQuery reads the parameters into m. A route with a body has none.
func (e *exchange) readQuery(m proto.Message) error {
	if e.r.URL.RawQuery == "" {
		return nil
	}
	query, err := url.ParseQuery(e.r.URL.RawQuery)
	if err != nil {
		return errMalformedQuery
	}
	if e.route.body {
		m = &emptypb.Empty{}
	}
	return wirejson.ReadQuery(query, m, e.route.bound...)
}

// hasBody reports whether there is a body, as far as the headers tell.
func (e *exchange) hasBody() bool {
	return e.r.ContentLength != 0 && e.r.Body != nil && e.r.Body != http.NoBody
}

// checkBody refuses a body for what its headers say of it: its coding, its type,
// its size.
func (e *exchange) checkBody() error {
	if !isIdentity(e.r.Header["Content-Encoding"]) {
		return errCompressed
	}
	if types := e.r.Header["Content-Type"]; e.route.oauth {
		if len(types) != 1 || !isForm(types[0]) {
			return errNotForm
		}
	} else if len(types) > 1 || len(types) == 1 && !isJSON(types[0], e.method) { // One that claims to be nothing is taken for JSON.
		return errNotJSON
	}
	if e.r.ContentLength > apikey.MaxRequest {
		return errTooLarge
	}
	return nil
}

// reserveBody counts a body that is yet to arrive among what its caller has under
// way: as large as it may be where it does not say.
func (e *exchange) reserveBody() error {
	length := e.r.ContentLength
	if length < 0 {
		length = apikey.MaxRequest
	}
	if e.onConnection.Reserve(length) != nil {
		return apikey.ErrAnswersUnread
	}
	return nil
}

// readBody reads the body into m.
func (e *exchange) readBody(m proto.Message) error {
	defer e.onConnection.Refund()
	if err := e.takeBody(); err != nil {
		return err
	}
	return wirejson.ReadRequest(e.in.Bytes(), m, e.route.bodyRules())
}

// takeBody reads the body into memory. What it counts for that the caller of it gives
// back, with Refund.
func (e *exchange) takeBody() error {
	e.in.Reset()
	if e.hasBody() {
		if err := e.reserveBody(); err != nil {
			return err
		}
		e.bodyRead = true
		_, err := e.in.ReadFrom(http.MaxBytesReader(e.w, e.r.Body, apikey.MaxRequest))
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			return errTooLarge
		case err != nil:
			e.bodyLate = errors.Is(err, os.ErrDeadlineExceeded)
			return fmt.Errorf("%w: %w", errIncomplete, err)
		}
	}
	return nil
}

// bodyRules is what a body of the route may and must hold.
func (r *route) bodyRules() wirejson.Body {
	body := wirejson.Body{Bound: r.bound}
	if r.method == http.MethodPut {
		body.Required, body.ReadOnly = []string{"label"}, wirejson.PassReadOnly
	}
	return body
}
