// Openapi lets two validators check the OpenAPI document, and what a server answered in
// tests by it:
//
//	go -C .tools/openapi run . DOCUMENT FOLDER
//
// FOLDER holds the exchanges that tests recorded (APIKEYS_RECORD_EXCHANGES). At the end
// facts of the document are changed, and each validator must find that the exchanges are not
// as it says. It has a module of its own, because the validators bring more
// dependencies than the server has use for.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	liberrors "github.com/pb33f/libopenapi-validator/errors"
)

// maxBody is how large the bodies are that are looked at: what is larger repeats one
// resource.
const maxBody = 32 << 10

// An exchange is a request and its answer, as server/servertest/described records them.
type exchange struct {
	Method  string      `json:"method"`
	Target  string      `json:"target"`
	Request http.Header `json:"request"`
	Sent    []byte      `json:"sent"`
	Status  int         `json:"status"`
	Header  http.Header `json:"header"`
	Body    []byte      `json:"body"`
}

// A checker says what of an exchange is not as a document says.
type checker interface {
	answer(x *exchange) error
	request(x *exchange) error
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: openapi DOCUMENT FOLDER")
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(path, folder string) error {
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	exchanges, err := read(folder)
	if err != nil {
		return err
	}
	for name, make := range checkers {
		start := time.Now()
		c, err := make(document, true)
		if err != nil {
			return fmt.Errorf("%s: the document: %w", name, err)
		}
		count, faults := inspect(c, exchanges, 20)
		if len(faults) > 0 {
			return fmt.Errorf("%s: %w", name, errors.Join(faults...))
		}
		fmt.Printf("%s: the document is valid, and so are %d exchanges, in %.1fs\n", name, count, time.Since(start).Seconds())
		for what, change := range mutations {
			mutated, err := mutate(document, change)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			c, err := make(mutated, false)
			if err != nil {
				return fmt.Errorf("%s: a document with %s changed: %w", name, what, err)
			}
			if _, faults := inspect(c, exchanges, 1); len(faults) == 0 {
				return fmt.Errorf("%s does not find that %s is changed in the document", name, what)
			}
		}
		fmt.Printf("%s: found %d changes of the document\n", name, len(mutations))
	}
	return nil
}

// read returns the exchanges of calls that the document describes: those at a path and with
// a method that it has, but for streams, whose lines the tests check themselves.
func read(folder string) ([]*exchange, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	var list []*exchange
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewReader(file)
		for {
			line, err := lines.ReadBytes('\n')
			if len(line) > 0 {
				x := new(exchange)
				if err := json.Unmarshal(line, x); err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				if x.isDescribed() {
					list = append(list, x)
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
	if len(list) < 1000 {
		return nil, fmt.Errorf("there are %d exchanges in %s, fewer than the tests make", len(list), folder)
	}
	return list, nil
}

func (x *exchange) isDescribed() bool {
	switch {
	case x.Method == http.MethodOptions, x.Method == http.MethodHead, x.Status == http.StatusMethodNotAllowed,
		x.Status == http.StatusRequestHeaderFieldsTooLarge, bytes.Contains(x.Body, []byte(`"ROUTE_NOT_FOUND"`)),
		len(x.Body) > maxBody, len(x.Sent) > maxBody:
		return false
	}
	return x.Header.Get("Content-Type") == "application/json"
}

// inspect lets a checker look at exchanges until it has found a number of faults.
func inspect(c checker, exchanges []*exchange, most int) (count int, faults []error) {
	for _, x := range exchanges {
		err := c.answer(x)
		if err == nil && x.Status == http.StatusOK {
			err = c.request(x)
		}
		count++
		if err != nil {
			faults = append(faults, fmt.Errorf("%s %s, %d: %w\n%.600s\n%.600s", x.Method, x.Target, x.Status, err, x.Sent, x.Body))
			if len(faults) == most {
				break
			}
		}
	}
	return count, faults
}

func (x *exchange) httpRequest() (*http.Request, error) {
	target, err := url.Parse("http://127.0.0.1" + x.Target)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(context.Background(), x.Method, target.String(), bytes.NewReader(x.Sent))
	if err != nil {
		return nil, err
	}
	r.Header = x.Request.Clone()
	if len(x.Sent) > 0 && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if len(x.Sent) == 0 {
		r.Body = http.NoBody
	}
	return r, nil
}

// checkers make the checkers of a document, which is itself checked if check is set.
var checkers = map[string]func(document []byte, check bool) (checker, error){
	"libopenapi-validator": newPB33F,
	"kin-openapi":          newKin,
}

type pb33f struct{ validator.Validator }

func newPB33F(text []byte, check bool) (checker, error) {
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(document, config.WithLogger(slog.New(slog.DiscardHandler)))
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if check {
		if ok, faults := v.ValidateDocument(); !ok {
			return nil, told(faults)
		}
	}
	return &pb33f{v}, nil
}

func told(faults []*liberrors.ValidationError) error {
	var list []error
	for _, f := range faults {
		list = append(list, fmt.Errorf("%s: %s", f.Message, f.Reason))
		for _, s := range f.SchemaValidationErrors {
			list = append(list, fmt.Errorf("  %s at %s", s.Reason, s.FieldPath))
		}
	}
	return errors.Join(list...)
}

func (p *pb33f) answer(x *exchange) error {
	r, err := x.httpRequest()
	if err != nil {
		return nil // no request of a client's library
	}
	_, faults := p.ValidateHttpResponse(r, &http.Response{
		StatusCode: x.Status, Header: x.Header.Clone(), Body: io.NopCloser(bytes.NewReader(x.Body)), Request: r, ContentLength: int64(len(x.Body)),
	})
	return told(faults)
}

func (p *pb33f) request(x *exchange) error {
	r, err := x.httpRequest()
	if err != nil {
		return nil
	}
	_, faults := p.ValidateHttpRequest(r)
	return told(faults)
}

type kin struct {
	router  routers.Router
	options *openapi3filter.Options
}

func newKin(text []byte, check bool) (checker, error) {
	document, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	if check {
		if err := document.Validate(context.Background()); err != nil {
			return nil, err
		}
	}
	router, err := gorillamux.NewRouter(document)
	if err != nil {
		return nil, err
	}
	return &kin{router, &openapi3filter.Options{
		MultiError: true, IncludeResponseStatus: true,
		ExcludeReadOnlyValidations: true, // a PUT takes a resource back as it was read
		AuthenticationFunc:         openapi3filter.NoopAuthenticationFunc,
	}}, nil
}

func (k *kin) input(x *exchange) (*openapi3filter.RequestValidationInput, error) {
	r, err := x.httpRequest()
	if err != nil {
		return nil, nil
	}
	route, parameters, err := k.router.FindRoute(r)
	if err != nil {
		return nil, err
	}
	return &openapi3filter.RequestValidationInput{Request: r, PathParams: parameters, Route: route, Options: k.options}, nil
}

func (k *kin) answer(x *exchange) error {
	in, err := k.input(x)
	if in == nil || err != nil {
		return err
	}
	return openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: x.Status, Header: x.Header, Body: io.NopCloser(bytes.NewReader(x.Body)), Options: k.options,
	})
}

func (k *kin) request(x *exchange) error {
	in, err := k.input(x)
	if in == nil || err != nil {
		return err
	}
	return openapi3filter.ValidateRequest(context.Background(), in)
}

// mutations are facts of the document, and what they are changed to.
var mutations = map[string]struct {
	place string
	value any
}{
	"a status":              {"components schemas ApiKeyAnswer properties status", map[string]any{"const": 201}},
	"a null":                {"components schemas ApiKey properties revoked_at", map[string]any{"$ref": "#/components/schemas/Time"}},
	"a bound":               {"components schemas ApiKey properties secret maxLength", 5},
	"a word":                {"components schemas ApiKeyState enum", []string{"API_KEY_STATE_ACTIVE"}},
	"the form of a time":    {"components schemas Time pattern", `^\d{4}-\d{2}-\d{2}T`},
	"the type of a number":  {"components schemas ApiKeyMetrics properties total_requests type", "string"},
	"a null of a request":   {"components schemas CreateApiKeyRequest properties scopes type", "string"},
	"what a request needs":  {"components schemas CreateApiKeyRequest required", []string{"label", "mode"}},
	"a parameter's maximum": {"paths /developers/api_keys get parameters 0 schema maximum", 0},
}

// mutate returns the document with another value at a place.
func mutate(document []byte, change struct {
	place string
	value any
},
) ([]byte, error) {
	var root any
	if err := json.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	names := strings.Fields(change.place)
	here := root
	for _, name := range names[:len(names)-1] {
		switch v := here.(type) {
		case map[string]any:
			here = v[name]
		case []any:
			here = v[name[0]-'0']
		}
		if here == nil {
			return nil, fmt.Errorf("%s is not in the document", change.place)
		}
	}
	here.(map[string]any)[names[len(names)-1]] = change.value
	return json.Marshal(root)
}
