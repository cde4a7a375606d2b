package described

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// An Exchange is a request and its answer.
type Exchange struct {
	Method string `json:"method"`
	// Target is the path of the request, with its query.
	Target  string      `json:"target"`
	Request http.Header `json:"request"`
	// Sent is the body of the request, and Body that of the answer.
	Sent   []byte      `json:"sent,omitempty"`
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body,omitempty"`
}

// ordinary are the headers that answers of every kind have.
var ordinary = []string{
	"Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Connection", "Date", "Vary", "Cache-Control",
	"X-Content-Type-Options", "X-Accel-Buffering", "Referrer-Policy", "Content-Security-Policy", "Cross-Origin-Opener-Policy",
}

// Check returns what of an exchange the document does not say, or nil.
func (d *Document) Check(x *Exchange) error {
	target, err := url.Parse(x.Target)
	if err != nil {
		return nil //nolint:nilerr // What is no URL, net/http answers by itself.
	}
	response, place := d.response(x, d.find(target.Path))
	if response == nil {
		return fmt.Errorf("the document has no answer %d to %s %s", x.Status, x.Method, x.Target)
	}
	problems := d.checkHeader(x, response)
	if x.Method != http.MethodHead {
		problems = append(problems, d.checkBody(x, response, place))
	}
	if x.Status == http.StatusOK && x.Method != http.MethodOptions {
		problems = append(problems, d.checkRequest(x, target))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("%s %s, %d: not as the OpenAPI document says: %w", x.Method, x.Target, x.Status, err)
	}
	return nil
}

// method is the method whose operation a request calls.
func method(x *Exchange) string {
	if x.Method == http.MethodHead {
		return "get"
	}
	return strings.ToLower(x.Method)
}

// response is what the document says of an answer, and where.
func (d *Document) response(x *Exchange, template string) (map[string]any, []string) {
	status := strconv.Itoa(x.Status)
	shared := ""
	switch operation, _ := d.at("paths", template, method(x)); {
	case x.Status == http.StatusRequestHeaderFieldsTooLarge:
		shared = "RequestHeaderFieldsTooLarge"
	case template == "" && x.Status == http.StatusNotFound:
		shared = "NotFound"
	case template == "":
		return nil, nil
	case x.Method == http.MethodOptions && x.Status == http.StatusOK:
		shared = "Options"
	case operation == nil && x.Status == http.StatusMethodNotAllowed:
		shared = "MethodNotAllowed"
	}
	if shared != "" {
		return d.at("components", "responses", shared)
	}
	return d.at("paths", template, method(x), "responses", status)
}

// checkHeader looks for headers that are not described, and for values that are not
// as described.
func (d *Document) checkHeader(x *Exchange, response map[string]any) []error {
	var problems []error
	described, _ := response["headers"].(map[string]any)
	for name, values := range x.Header {
		if slices.Contains(ordinary, name) {
			continue
		}
		i := slices.IndexFunc(keys(described), func(known string) bool { return strings.EqualFold(known, name) })
		if i < 0 {
			problems = append(problems, fmt.Errorf("the header %s is not described (headers of server/openapi)", name))
			continue
		}
		header, place := d.at("components", "headers", keys(described)[i])
		if header == nil {
			continue
		}
		if err := d.validateText(values[0], append(place, "schema")); err != nil {
			problems = append(problems, fmt.Errorf("the header %s: %w", name, err))
		}
	}
	return problems
}

func keys(m map[string]any) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// checkBody holds the body of an answer to its schema.
func (d *Document) checkBody(x *Exchange, response map[string]any, place []string) error {
	content, _ := response["content"].(map[string]any)
	if len(content) == 0 && len(x.Body) == 0 {
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(x.Header.Get("Content-Type"))
	if content["*/*"] != nil {
		return nil // nothing is told of it
	}
	if err != nil || content[mediaType] == nil {
		return fmt.Errorf("an answer of the type %q is not described", x.Header.Get("Content-Type"))
	}
	at := append(slices.Clip(place), "content", mediaType, "schema")
	if schema, _ := d.at(at...); schema == nil {
		return nil // nothing is told of it
	}
	switch {
	case mediaType == "application/json":
		return d.validateJSON(x.Body, at)
	case mediaType == "application/x-ndjson":
		return d.checkLines(x.Body, at)
	case mediaType == "text/event-stream":
		return d.checkEvents(x.Body)
	case strings.HasSuffix(mediaType, "json"):
		return d.validateJSON(x.Body, at)
	}
	return nil
}

// checkLines holds the whole lines of a stream to a schema.
func (d *Document) checkLines(body []byte, at []string) error {
	var problems []error
	for line := range bytes.Lines(body) {
		if bytes.HasSuffix(line, []byte("\n")) {
			problems = append(problems, d.validateJSON(bytes.TrimSpace(line), at))
		}
	}
	return errors.Join(problems...)
}

// checkEvents holds the data of Server-Sent Events to the schemas of events and of failures.
func (d *Document) checkEvents(body []byte) error {
	var problems []error
	blocks := strings.Split(string(body), "\n\n")
	for _, block := range blocks[:len(blocks)-1] { // the last is not whole
		at := []string{"components", "schemas", "Event"}
		for line := range strings.SplitSeq(block, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			switch {
			case name == "event" && value == "error":
				at[2] = "Failure"
			case name == "data":
				problems = append(problems, d.validateJSON([]byte(value), at))
			}
		}
	}
	return errors.Join(problems...)
}

// checkRequest looks for what a request that succeeded has that is not described.
func (d *Document) checkRequest(x *Exchange, target *url.URL) error {
	template := d.find(target.Path)
	operation, place := d.at("paths", template, method(x))
	var problems []error
	parameters, _ := operation["parameters"].([]any)
	query := target.Query()
	for i := range parameters {
		p, at := d.parameter(append(slices.Clip(place), "parameters"), i, parameters[i])
		name, _ := p["name"].(string)
		switch values := query[name]; {
		case p["in"] == "query" && d.inList(append(slices.Clip(at), "schema"))["type"] == "object":
			for entry := range query {
				if strings.HasPrefix(entry, name+".") { // each a parameter of its own
					delete(query, entry)
				}
			}
		case p["in"] == "query" && len(values) > 0:
			delete(query, name)
			problems = append(problems, d.checkQuery(name, values, append(at, "schema")))
		case p["in"] == "header" && x.Request.Get(name) != "":
			if err := d.validateText(x.Request.Get(name), append(at, "schema")); err != nil {
				problems = append(problems, fmt.Errorf("the header %s of the request: %w", name, err))
			}
		}
	}
	for name := range query {
		problems = append(problems, fmt.Errorf("the parameter %q is not described", name))
	}
	body, bodyPlace := d.at(append(slices.Clip(place), "requestBody")...)
	switch {
	case body == nil:
	case len(x.Sent) == 0 && body["required"] == true:
		problems = append(problems, errors.New("the document wants a body"))
	case len(x.Sent) > 0:
		mediaType, _, _ := mime.ParseMediaType(x.Request.Get("Content-Type"))
		if mediaType == "" {
			mediaType = "application/json"
		}
		at := append(slices.Clip(bodyPlace), "content", mediaType, "schema")
		if schema, _ := d.at(at...); schema == nil {
			problems = append(problems, fmt.Errorf("a request of the type %q is not described", mediaType))
		} else if err := d.checkSent(mediaType, x.Sent, at); err != nil {
			problems = append(problems, fmt.Errorf("the request: %w", err))
		}
	}
	return errors.Join(problems...)
}

// checkSent holds the body of a request to its schema.
func (d *Document) checkSent(mediaType string, sent []byte, at []string) error {
	if mediaType != "application/x-www-form-urlencoded" {
		return d.validateJSON(sent, at)
	}
	values, err := url.ParseQuery(string(sent))
	if err != nil {
		return err
	}
	form := make(map[string]any)
	for name := range values {
		form[name] = values.Get(name)
	}
	return d.validate(form, at)
}

// parameter is a parameter of an operation, and where it really is.
func (d *Document) parameter(place []string, i int, given any) (map[string]any, []string) {
	p, _ := given.(map[string]any)
	if target, ok := p["$ref"].(string); ok {
		return d.at(unescape(target)...)
	}
	return p, append(place, strconv.Itoa(i))
}

// checkQuery holds the values of a parameter to its schema. A text without a value is
// absent.
func (d *Document) checkQuery(name string, values []string, at []string) error {
	schema := d.inList(at)
	var problems []error
	if schema["type"] == "array" {
		at = append(slices.Clip(at), "items")
		values = strings.Split(strings.Join(values, ","), ",")
	}
	for _, v := range values {
		if v == "" {
			continue
		}
		if err := d.validateText(v, at); err != nil {
			problems = append(problems, fmt.Errorf("the parameter %s: %w", name, err))
		}
	}
	return errors.Join(problems...)
}

// inList is at for a place that leads through a list.
func (d *Document) inList(place []string) map[string]any {
	here := any(d.root)
	for _, name := range place {
		switch v := here.(type) {
		case map[string]any:
			here = v[name]
		case []any:
			i, _ := strconv.Atoi(name)
			here = v[i]
		}
	}
	m, _ := here.(map[string]any)
	return m
}

// validateText holds a text to a schema that may be of a number or of a bool.
func (d *Document) validateText(text string, at []string) error {
	schema := d.inList(at)
	if target, ok := schema["$ref"].(string); ok {
		at = unescape(target)
		schema, _ = d.at(at...)
	}
	switch schema["type"] {
	case "integer", "number", "boolean":
		return d.validateJSON([]byte(text), at)
	}
	return d.validate(text, at)
}

// pretty is for the messages of tests.
func pretty(x *Exchange) string {
	var out bytes.Buffer
	if json.Indent(&out, x.Body, "", "  ") != nil {
		return string(x.Body)
	}
	return out.String()
}
