package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/servertest"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

const (
	keysPath   = "/developers/api_keys"
	tokensPath = "/developers/operator_tokens"
)

// places are the verb and the path of each RPC.
var places = map[string]struct{ verb, path string }{
	"CreateApiKey": {http.MethodPost, keysPath},
	"ListApiKeys":  {http.MethodGet, keysPath},
	"GetApiKey":    {http.MethodGet, keysPath + "/{id}"},
	"UpdateApiKey": {http.MethodPatch, keysPath + "/{id}"},
	"RotateApiKey": {http.MethodPost, keysPath + "/{id}/rotate"},
	"RevokeApiKey": {http.MethodPost, keysPath + "/{id}/revoke"},
	"DeleteApiKey": {http.MethodDelete, keysPath + "/{id}"},
	"VerifyApiKey": {http.MethodPost, keysPath + "/verify"},

	"BatchUpdateApiKeys": {http.MethodPost, keysPath + "/update_batch"},
	"BatchRotateApiKeys": {http.MethodPost, keysPath + "/rotate_batch"},
	"BatchRevokeApiKeys": {http.MethodPost, keysPath + "/revoke_batch"},
	"BatchDeleteApiKeys": {http.MethodPost, keysPath + "/delete_batch"},

	"ListScopes":           {http.MethodGet, "/developers/scopes"},
	"BatchVerifyApiKeys":   {http.MethodPost, keysPath + "/verify_batch"},
	"GetApiKeyUsage":       {http.MethodGet, keysPath + "/{id}/usage"},
	"ListApiKeyRefusals":   {http.MethodGet, keysPath + "/{id}/refusals"},
	"GetWebhooksAnalytics": {http.MethodGet, "/analytics/webhooks"},
	"GetUsage":             {http.MethodGet, "/developers/usage"},
	"GetApiKeysAnalytics":  {http.MethodGet, "/analytics/api_keys"},

	"CreateOperatorToken": {http.MethodPost, tokensPath},
	"ListOperatorTokens":  {http.MethodGet, tokensPath},
	"GetOperatorToken":    {http.MethodGet, tokensPath + "/{id}"},
	"UpdateOperatorToken": {http.MethodPatch, tokensPath + "/{id}"},
	"RotateOperatorToken": {http.MethodPost, tokensPath + "/{id}/rotate"},
	"DeleteOperatorToken": {http.MethodDelete, tokensPath + "/{id}"},
	"GetCaller":           {http.MethodGet, "/developers/me"},

	"CreateWebhook":         {http.MethodPost, hooksPath},
	"ListWebhooks":          {http.MethodGet, hooksPath},
	"GetWebhook":            {http.MethodGet, hooksPath + "/{id}"},
	"UpdateWebhook":         {http.MethodPatch, hooksPath + "/{id}"},
	"DeleteWebhook":         {http.MethodDelete, hooksPath + "/{id}"},
	"RotateWebhookSecret":   {http.MethodPost, hooksPath + "/{id}/rotate_secret"},
	"TestWebhook":           {http.MethodPost, hooksPath + "/{id}/test"},
	"ReplayEvents":          {http.MethodPost, hooksPath + "/{id}/replay"},
	"RetryDeliveries":       {http.MethodPost, hooksPath + "/{id}/retry"},
	"ListWebhookEventTypes": {http.MethodGet, hooksPath + "/events"},
	"ListDeliveries":        {http.MethodGet, queuePath},
	"GetDelivery":           {http.MethodGet, queuePath + "/{id}"},
	"ListEvents":            {http.MethodGet, "/developers/events"},
	"RetryDelivery":         {http.MethodPost, queuePath + "/{id}/retry"},
	"CancelDelivery":        {http.MethodPost, queuePath + "/{id}/cancel"},
}

// statuses are the HTTP statuses of the gRPC codes.
var statuses = map[string]int{
	"OK": 200, "InvalidArgument": 400, "FailedPrecondition": 400, "OutOfRange": 400, "Unauthenticated": 401,
	"PermissionDenied": 403, "NotFound": 404, "Aborted": 409, "AlreadyExists": 409, "ResourceExhausted": 429, "Internal": 500, "Unavailable": 503, "Unimplemented": 404,
}

// headers are the lines of a step, its credential included.
func (s *step) headers() http.Header {
	h := make(http.Header)
	switch s.as {
	case "":
		h.Set("Authorization", "Bearer "+servertest.RootToken)
	case "-":
	default:
		h.Set("Authorization", "Bearer "+s.as)
	}
	for line := range strings.Lines(s.head) {
		name, value, _ := strings.Cut(line, ":")
		h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return h
}

// rest makes a step over REST and looks at what every answer has.
func (w *harness) rest(t *testing.T, s step) answer {
	t.Helper()
	place := places[s.rpc]
	if s.verb != "" {
		place.verb = s.verb
	}
	target := w.REST + strings.ReplaceAll(place.path, "{id}", url.PathEscape(s.id))
	var body io.Reader
	if place.verb == http.MethodGet {
		if s.body != "" {
			target += "?" + s.body
		}
	} else if s.body != "" {
		body = strings.NewReader(s.body)
	}
	req, err := http.NewRequestWithContext(t.Context(), place.verb, target, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = s.headers()
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.match != "" {
		req.Header.Set("If-Match", `"`+s.match+`"`)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.envelope(t, resp.StatusCode, resp.Header, text)
}

var supportForm = regexp.MustCompile(`^support_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// envelope reads an answer over REST, and fails the test where it is not
// what every answer is: eight keys in order, null where there is nothing to say,
// the headers of its status, and a line of the log under its support id.
func (w *harness) envelope(t *testing.T, status int, h http.Header, text []byte) answer {
	t.Helper()
	a := answer{status: status, next: h.Get("X-Next-Page-Token")}
	values, names := make(map[string]json.RawMessage), []string(nil)
	d := json.NewDecoder(bytes.NewReader(text))
	for first := true; first || d.More(); first = false {
		token, err := d.Token()
		if name, ok := token.(string); ok && err == nil {
			var value json.RawMessage
			err = d.Decode(&value)
			names, values[name] = append(names, name), value
		}
		if err != nil {
			t.Fatalf("an answer of %d outside the envelope: %v: %q", status, err, text)
		}
	}
	if want := []string{"status", "data", "error", "log", "validator", "support_id", "message", "env"}; !slices.Equal(names, want) {
		t.Errorf("keys %q of %s", names, text)
	}
	null, set := []string{"error", "log", "validator", "support_id"}, []string{"message"}
	if status != http.StatusOK {
		null, set = []string{"data", "message"}, []string{"error", "log", "support_id"}
	}
	for _, name := range null {
		if string(values[name]) != "null" {
			t.Errorf("%s in an answer of %d: %s", name, status, text)
		}
	}
	for _, name := range set {
		if string(values[name]) == "null" || string(values[name]) == `""` {
			t.Errorf("no %s in an answer of %d: %s", name, status, text)
		}
	}
	var e servertest.Envelope
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(e.Data, &a.data); err != nil {
		t.Fatal(err)
	}
	a.validator = e.Validator
	if status != http.StatusOK && e.SupportID != nil {
		a.reason, a.text = e.Log["reason"], *e.Error
		if !supportForm.MatchString(*e.SupportID) || !strings.HasPrefix(e.Log["request_id"], "request_") || !strings.Contains(w.Log.String(), *e.SupportID) {
			t.Errorf("support id or request id, or no line of the log has them: %s", text)
		}
	}
	a.retry, _ = strconv.Atoi(h.Get("Retry-After"))
	if e.Status != status || e.Env != "development" || h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" ||
		(h.Get("WWW-Authenticate") != "") != (e.Status == http.StatusUnauthorized) || !a.waits(h.Get("Retry-After") != "") ||
		(h.Get("Allow") != "") != (e.Status == http.StatusMethodNotAllowed) || (h.Get("Link") != "") != (a.next != "") {
		t.Errorf("headers or frame of %s: %v", text, h)
	}
	return a
}

// waits reports whether an answer names a time to wait, which is named or not, where
// time helps and nowhere else.
func (a *answer) waits(named bool) bool {
	switch a.reason {
	case "RATE_LIMITED", "UNAVAILABLE", "ANSWERS_UNREAD", "TOO_MANY_CALLS":
		return a.retry > 0
	case "QUOTA_EXCEEDED": // if it refills
		return named == (a.retry > 0)
	}
	return !named
}

// request builds the gRPC request that a step's JSON stands for. A fault that
// only JSON can have is an *apikey.Error or a *wirejson.SyntaxError.
func (s *step) request(md protoreflect.MethodDescriptor) (proto.Message, error) {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName())
	if err != nil {
		return nil, err
	}
	m := mt.New()
	if fd := md.Input().Fields().ByName("id"); fd != nil {
		m.Set(fd, protoreflect.ValueOfString(s.id))
	}
	if places[s.rpc].verb == http.MethodGet {
		query, err := url.ParseQuery(s.body)
		if err == nil {
			err = wirejson.ReadQuery(query, m.Interface())
		}
		return m.Interface(), err
	}
	body := wirejson.Body{Bound: []string{"id", "collection"}}
	if s.verb == http.MethodPut {
		body.Required, body.ReadOnly = []string{"label"}, wirejson.PassReadOnly
	}
	err = wirejson.ReadRequest([]byte(s.body), m.Interface(), body)
	if s.match != "" {
		m.Set(md.Input().Fields().ByName("etag"), protoreflect.ValueOfString(s.match))
	}
	return m.Interface(), err
}

// methodOf returns the method of that name, of whichever service.
func methodOf(t *testing.T, name string) protoreflect.MethodDescriptor {
	t.Helper()
	for _, file := range []protoreflect.FileDescriptor{apikeysv1.File_apikeys_v1_api_keys_proto, apikeysv1.File_apikeys_v1_webhooks_proto, apikeysv1.File_apikeys_v1_events_proto,
		apikeysv1.File_apikeys_v1_operator_tokens_proto, apikeysv1.File_apikeys_v1_callers_proto, apikeysv1.File_apikeys_v1_usage_proto} {
		if md := file.Services().Get(0).Methods().ByName(protoreflect.Name(name)); md != nil {
			return md
		}
	}
	t.Fatalf("no method %s", name)
	return nil
}

// grpc makes a step over gRPC and looks at what every answer has.
func (w *harness) grpc(t *testing.T, s step) answer {
	t.Helper()
	md := methodOf(t, s.rpc)
	req, err := s.request(md)
	if fields := (*apikey.Error)(nil); errors.As(err, &fields) {
		// protobuf has no such request; the reader that REST has says what is wrong.
		a := answer{status: 400, code: "InvalidArgument", reason: "INVALID_ARGUMENT", validator: map[string]string{}}
		for _, p := range fields.Fields {
			a.validator[p.Field] = p.Problem
		}
		return a
	}
	if err != nil {
		t.Fatal(err)
	}
	headers := make(metadata.MD)
	for name, values := range s.headers() {
		headers.Append(name, values...)
	}
	ctx := metadata.NewOutgoingContext(t.Context(), headers)
	mt, err := protoregistry.GlobalTypes.FindMessageByName(md.Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	out := mt.New()
	if err := w.Conn.Invoke(ctx, fmt.Sprintf("/%s/%s", md.Parent().FullName(), s.rpc), req, out.Interface()); err != nil {
		return w.failure(t, err)
	}
	a := answer{status: 200, code: "OK"}
	data := wirejson.Append(nil, out.Interface())
	fields := md.Output().Fields()
	if fd := fields.ByName("next_page_token"); fd != nil {
		a.next = out.Get(fd).String()
	}
	whole := []string{"VerifyApiKey", "DeleteApiKey", "DeleteOperatorToken", "GetApiKeyUsage", "GetUsage", "GetWebhooksAnalytics", "GetApiKeysAnalytics", "DeleteWebhook", "ReplayEvents", "RetryDeliveries",
		"BatchUpdateApiKeys", "BatchRotateApiKeys", "BatchRevokeApiKeys", "BatchDeleteApiKeys"}
	if fd := fields.Get(0); !slices.Contains(whole, s.rpc) {
		data = wirejson.AppendField(nil, out, fd)
	}
	if err := json.Unmarshal(data, &a.data); err != nil {
		t.Fatal(err)
	}
	return a
}

// failure reads the status of a failed gRPC call.
func (w *harness) failure(t *testing.T, err error) answer {
	t.Helper()
	st, retries := status.Convert(err), false
	a := answer{code: st.Code().String(), text: st.Message(), status: statuses[st.Code().String()]}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if a.reason = d.GetReason(); d.GetDomain() != "apikeys" {
				t.Errorf("domain %q", d.GetDomain())
			}
		case *errdetails.BadRequest:
			a.validator = make(map[string]string)
			for _, v := range d.GetFieldViolations() {
				a.validator[v.GetField()] = v.GetDescription()
			}
		case *errdetails.RetryInfo:
			retries = true
			a.retry = int((d.GetRetryDelay().AsDuration() + time.Second - 1) / time.Second)
		case *errdetails.RequestInfo:
			if !supportForm.MatchString(d.GetServingData()) || !strings.HasPrefix(d.GetRequestId(), "request_") || !strings.Contains(w.Log.String(), d.GetServingData()) {
				t.Errorf("support id or request id: %v", d)
			}
		}
	}
	if a.reason == "REQUEST_TOO_LARGE" {
		a.status = http.StatusRequestEntityTooLarge
	}
	if len(st.Details()) < 2 || a.text == "" || !a.waits(retries) {
		t.Errorf("details of %v: %v", err, st.Details())
	}
	return a
}
