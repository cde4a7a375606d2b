package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// place is one text of a request: put sets it, in a new message.
type textPlace struct {
	name   string // as a fault names it
	put    func(m protoreflect.Message, text string)
	marked bool // it may hold a secret
}

// textPlaces returns every text of a message type, those of its nested messages
// too, from the descriptors alone: a field that is added to a proto is in it.
func textPlaces(md protoreflect.MessageDescriptor, at string) (all []textPlace) {
	isUpdate := md.Fields().ByName("update_mask") != nil
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		name := at + string(fd.Name())
		marked, _ := proto.GetExtension(fd.Options(), apikeysv1.E_MayHoldSecret).(bool)
		isText := fd.Kind() == protoreflect.StringKind
		value := protoreflect.ValueOfString
		switch {
		case fd.IsMap():
			all = append(all, textPlace{name, func(m protoreflect.Message, text string) {
				m.Mutable(fd).Map().Set(value(text).MapKey(), value("x"))
			}, false}, textPlace{name, func(m protoreflect.Message, text string) {
				m.Mutable(fd).Map().Set(value("X-A").MapKey(), value(text))
			}, false})
		case isUpdate && fd.Name() == "update_mask":
			set := func(form string) func(m protoreflect.Message, text string) {
				return func(m protoreflect.Message, text string) {
					mask := m.Mutable(fd).Message()
					mask.Mutable(mask.Descriptor().Fields().ByName("paths")).List().Append(value(fmt.Sprintf(form, text)))
				}
			}
			all = append(all, textPlace{name, set("%s"), false}, textPlace{name, set("label.%s"), false})
		case fd.IsList() && isText:
			all = append(all, textPlace{name + "[0]", func(m protoreflect.Message, text string) {
				m.Mutable(fd).List().Append(value(text))
			}, marked})
		case isText:
			all = append(all, textPlace{name, func(m protoreflect.Message, text string) { m.Set(fd, value(text)) }, marked})
		case fd.Message() == nil || fd.Message().FullName().Parent() != "apikeys.v1":
		case fd.IsList():
			for _, p := range textPlaces(fd.Message(), name+"[0].") {
				put := p.put
				p.put = func(m protoreflect.Message, text string) {
					put(m.Mutable(fd).List().AppendMutable().Message(), text)
				}
				all = append(all, p)
			}
		default:
			if name += "."; isUpdate {
				name = at
			}
			for _, p := range textPlaces(fd.Message(), name) {
				put := p.put
				p.put = func(m protoreflect.Message, text string) { put(m.Mutable(fd).Message(), text) }
				all = append(all, p)
			}
		}
	}
	return all
}

// eachMethod calls f with every method of every service.
func eachMethod(t *testing.T, f func(t *testing.T, method protoreflect.MethodDescriptor)) {
	for _, file := range []protoreflect.FileDescriptor{
		apikeysv1.File_apikeys_v1_api_keys_proto, apikeysv1.File_apikeys_v1_events_proto, apikeysv1.File_apikeys_v1_webhooks_proto,
		apikeysv1.File_apikeys_v1_operator_tokens_proto, apikeysv1.File_apikeys_v1_callers_proto,
	} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				t.Run(string(methods.Get(j).Name()), func(t *testing.T) { f(t, methods.Get(j)) })
			}
		}
	}
}

// TestPastedSecretsAreRefused puts secrets of every kind into every text of every
// request, over gRPC and REST: each is refused with the name of its field, and
// neither an answer, nor the log, nor a file of the server holds one afterwards.
func TestPastedSecretsAreRefused(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.take(t, "key", "rest", step{rpc: "CreateApiKey", body: `{"label": "k", "scopes": ["*"]}`, save: "k"})
	w.take(t, "webhook", "rest", step{rpc: "CreateWebhook", body: `{"label": "w", "url": "https://example.com/", "events": ["*"]}`, save: "w"})
	w.take(t, "operator token", "rest", operatorToken("t", `"role": "viewer", "organizations": ["*"]`))
	token, err := apikey.RandomToken("root_", zeros{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := apikey.RandomToken("acme_prod_", zeros{})
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{
		"a key's secret": w.saved["k.secret"], "of another prefix": other, "an access token": token,
		"an operator's token": w.saved["t.secret"], "a webhook's secret": w.saved["w.secret"], "the configured root token": servertest.RootToken,
	}
	var answers bytes.Buffer
	var pasted []string // in each form
	for kind, secret := range secrets {
		if secret == "" {
			t.Fatalf("there is no %s", kind)
		}
		w.pasteElsewhere(t, secret, &answers)
		pasted = append(pasted, secret, "https://example.com/"+strings.ReplaceAll(strings.ReplaceAll(secret, "_", "%255F"), "-", "%252d")+"/x")
	}
	// Each place gets the next one, so that each secret comes to many places.
	next := rand.IntN(len(pasted))
	eachMethod(t, func(t *testing.T, method protoreflect.MethodDescriptor) {
		for _, place := range textPlaces(method.Input(), "") {
			m := newMessage(t, method.Input())
			place.put(m, pasted[next])
			w.refuseOverGRPC(t, method, place, m, &answers)
			w.refuseOverREST(t, method, place, m, &answers)
			next = (next + 1) % len(pasted)
		}
	})
	w.Stop()
	written := files(t, w.Dir)
	written["the log"], written["an answer"] = w.Log.String(), answers.String()
	for name, text := range written {
		for kind, secret := range secrets {
			for _, part := range []string{secret, url.PathEscape(secret), strings.ReplaceAll(secret, "_", "%5F"), secret[8:36]} {
				if at := strings.Index(text, part); at >= 0 {
					t.Errorf("%s holds %s: ...%s", name, kind, text[max(0, at-200):at])
				}
			}
		}
	}
}

// zeros is randomness that is none.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

func newMessage(t *testing.T, md protoreflect.MessageDescriptor) protoreflect.Message {
	t.Helper()
	typ, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return typ.New()
}

// refuseOverGRPC sends m, which holds a secret at place.
func (w *harness) refuseOverGRPC(t *testing.T, method protoreflect.MethodDescriptor, place textPlace, m protoreflect.Message, answers io.Writer) {
	t.Helper()
	name := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	ctx, cancel := context.WithCancel(w.Context(t.Context()))
	defer cancel()
	resp := newMessage(t, method.Output()).Interface()
	var err error
	if method.IsStreamingServer() {
		var stream grpc.ClientStream
		if stream, err = w.Conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name); err == nil {
			_, _ = stream.SendMsg(m.Interface()), stream.CloseSend() // what failed, RecvMsg says
			err = stream.RecvMsg(resp)
		}
	} else {
		err = w.Conn.Invoke(ctx, name, m.Interface(), resp)
	}
	st := status.Convert(err)
	var fields []string
	for _, d := range st.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
	}
	fmt.Fprintln(answers, name, place.name, st.Proto(), resp)
	if !place.marked && (st.Code() != codes.InvalidArgument || !slices.Contains(fields, place.name)) {
		t.Errorf("over gRPC, %s: %s naming %q, %s", place.name, st.Code(), fields, st.Message())
	}
}

// refuseOverREST sends m by each of its routes, as far as they have place: in the
// path, the query or the body.
func (w *harness) refuseOverREST(t *testing.T, method protoreflect.MethodDescriptor, place textPlace, m protoreflect.Message, answers io.Writer) {
	t.Helper()
	if place.name == "update_mask" {
		return // over REST the body is the mask
	}
	rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		verb, template := verbOf(r)
		target := strings.ReplaceAll(template, "{id}", "api_key_0197c0ec-a197-719f-84a9-99270a79b42a")
		body, query, headers := "", url.Values{}, []string(nil)
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(strings.TrimSuffix(place.name, "[0]")))
		switch inPath := place.name == "id" && strings.Contains(template, "{id}") && m.Has(fd); {
		case inPath:
			target = strings.ReplaceAll(template, "{id}", url.PathEscape(m.Get(fd).String()))
			if path.Clean(target) != target || strings.Contains(target, "%2F") {
				continue // not one segment of a path
			}
		case strings.Contains(template, "="): // {collection=...}: only its words fit
			continue
		case r.GetBody() == "":
			if fd == nil {
				continue
			}
			var text string
			if fd.IsList() {
				text = m.Get(fd).List().Get(0).String()
			} else {
				text = m.Get(fd).String()
			}
			query.Set(string(fd.Name()), text)
		case ruleOf(method).GetOauth() && fd != nil:
			body, headers = url.Values{string(fd.Name()): {m.Get(fd).String()}}.Encode(), []string{formHeader}
		default:
			body = bodyOf(t, m)
		}
		if len(query) > 0 {
			target += "?" + query.Encode()
		}
		a := w.ask(t, verb, target, body, headers...)
		fmt.Fprintln(answers, verb, place.name, a.Status, string(a.Body))
		if !place.marked && a.Status != http.StatusBadRequest {
			t.Errorf("%s with %s: %d %s", verb, place.name, a.Status, a.Body)
		}
	}
}

func ruleOf(method protoreflect.MethodDescriptor) *apikeysv1.MethodRule {
	rule, _ := proto.GetExtension(method.Options(), apikeysv1.E_Rule).(*apikeysv1.MethodRule)
	return rule
}

// bodyOf returns m as the body of a request; of an update the resource is it.
func bodyOf(t *testing.T, m protoreflect.Message) string {
	t.Helper()
	for fd, v := range m.Range {
		if m.Descriptor().Fields().ByName("update_mask") != nil && fd.Message() != nil && fd.Name() != "update_mask" {
			m = v.Message()
			break
		}
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m.Interface())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func verbOf(r *annotations.HttpRule) (verb, template string) {
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		return http.MethodPost, p.Post
	case *annotations.HttpRule_Put:
		return http.MethodPut, p.Put
	case *annotations.HttpRule_Patch:
		return http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		return http.MethodDelete, p.Delete
	}
	return "", ""
}

// ask sends a request whose headers may be anything.
func (w *harness) ask(t *testing.T, verb, target, body string, headers ...string) servertest.Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), verb, w.REST+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+servertest.RootToken)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	a := servertest.Answer{Status: resp.StatusCode}
	// A stream that was begun has no end.
	text, err := io.ReadAll(io.LimitReader(resp.Body, 200))
	if err == nil && resp.Header.Get("Content-Type") == "application/json" {
		var rest []byte
		rest, err = io.ReadAll(resp.Body)
		text = append(text, rest...)
	}
	if a.Body = text; err != nil {
		t.Fatalf("%s %s: %v", verb, target, err)
	}
	return a
}

// pasteElsewhere puts a secret where no field is: names, headers, paths, methods.
func (w *harness) pasteElsewhere(t *testing.T, secret string, answers io.Writer) {
	t.Helper()
	quoted, _ := json.Marshal(secret)
	for _, c := range []struct {
		want               int // 0 for any refusal
		verb, target, body string
		header             string
	}{
		{400, "POST", keysPath, `{"label": "x", ` + string(quoted) + `: 1}`, ""},
		{400, "POST", keysPath, `{"label": "x", "rate_limit": {` + string(quoted) + `: 1}}`, ""},
		{400, "POST", keysPath, `{"label": "x", "metadata": {` + string(quoted) + `: 1}}`, ""},
		{400, "POST", keysPath, `{"label": "x", "enabled": ` + string(quoted) + `}`, ""},
		{400, "POST", keysPath, `{"label": "x", "mode": ` + string(quoted) + `}`, ""},
		{400, "POST", keysPath, `{"label": "x", "expires_at": ` + string(quoted) + `}`, ""},
		{400, "POST", keysPath, `{"label": "x", ` + string(quoted), ""},
		{400, "POST", keysPath + "/verify_batch", `{"keys": [{` + string(quoted) + `: 1}]}`, ""},
		{400, "PATCH", hooksPath + "/" + w.saved["w.id"], `{"headers": {` + string(quoted) + `: null}}`, ""},
		{400, "PATCH", keysPath + "/" + w.saved["k.id"], `{"metadata": {` + string(quoted) + `: null}}`, ""},
		{400, "PATCH", keysPath + "/" + w.saved["k.id"], `{"description": "x"}`, `If-Match: "` + secret + `"`},
		{400, "GET", keysPath + "?" + url.QueryEscape(secret) + "=1", "", ""},
		{400, "GET", keysPath + "?page_size=" + url.QueryEscape(secret), "", ""},
		{400, "GET", keysPath + "?state=" + url.QueryEscape(secret), "", ""},
		{400, "GET", keysPath, "", "X-Organization-Id: " + secret},
		{400, "POST", keysPath, `{"label": "x"}`, "X-Organization-Id: " + secret},
		{400, "POST", keysPath + "/verify", `{"key": "x"}`, "X-Organization-Id: " + secret},
		{400, "GET", "/developers/events/watch", "", "Last-Event-ID: " + secret},
		{404, "GET", "/" + url.PathEscape(secret), "", ""},
		{404, "GET", keysPath + "/" + url.PathEscape(url.PathEscape(secret)) + "/" + url.PathEscape(secret), "", ""},
		{0, "GET", keysPath, "", "Accept: " + secret},
		{0, "POST", keysPath, `{"label": "x"}`, "Content-Type: " + secret},
		{0, "POST", keysPath, `{"label": "x"}`, "Content-Encoding: " + secret},
		{0, strings.NewReplacer("=", "", "/", "").Replace(secret), keysPath, "", ""},
		{200, "GET", keysPath + "?page_size=1", "", "User-Agent: " + secret},
		{200, "GET", keysPath + "?page_size=1", "", "X-Forwarded-For: " + secret},
		{200, "GET", keysPath + "?page_size=1", "", "Traceparent: " + secret},
	} {
		var headers []string
		if c.header != "" {
			headers = append(headers, c.header)
		}
		a := w.ask(t, c.verb, c.target, c.body, headers...)
		fmt.Fprintln(answers, a.Status, string(a.Body))
		if a.Status != c.want && (c.want != 0 || a.Status < 400 || a.Status >= 500) {
			t.Errorf("%s %s %s %s: %d %s, want %d", c.verb, c.target, c.header, c.body, a.Status, a.Body, c.want)
		}
	}
	for _, method := range []string{"/apikeys.v1.ApiKeysService/" + secret, "/" + strings.ReplaceAll(secret, "/", "") + "/List", "/apikeys.v1." + secret} {
		err := w.Conn.Invoke(w.Context(t.Context()), method, &apikeysv1.ListApiKeysRequest{}, &apikeysv1.ListApiKeysResponse{})
		fmt.Fprintln(answers, status.Convert(err).Proto())
		if err == nil {
			t.Errorf("%s was called", method)
		}
	}
}

// TestSecretBesideFaults puts a secret without a form where a fault of another kind
// would repeat it: in the key of an entry whose value is refused.
func TestSecretBesideFaults(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	for _, body := range []string{
		`{"label": "k", "metadata": {"` + servertest.RootToken + `": "\u0000"}}`,
		`{"label": "k", "metadata": {"` + servertest.RootToken + `": 1}}`,
		`{"label": "k", "` + servertest.RootToken + `": 1}`,
	} {
		rest := w.ask(t, http.MethodPost, keysPath, body)
		if rest.Status != http.StatusBadRequest || strings.Contains(string(rest.Body), servertest.RootToken[:16]) {
			t.Errorf("%s over REST: %d %s", body, rest.Status, rest.Body)
		}
	}
	_, err := w.Keys.CreateApiKey(w.Context(t.Context()), &apikeysv1.CreateApiKeyRequest{
		Label: "k", Metadata: map[string]string{servertest.RootToken: "\x00"},
	})
	if text := fmt.Sprint(err, status.Convert(err).Details()); status.Code(err) != codes.InvalidArgument || strings.Contains(text, servertest.RootToken[:16]) {
		t.Errorf("over gRPC: %s", text)
	}
	if strings.Contains(w.Log.String(), servertest.RootToken[:16]) {
		t.Errorf("the log holds it: %s", w.Log.String())
	}
}
