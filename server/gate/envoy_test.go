package gate

import (
	"errors"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
)

func sampleCheckRequest() *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "198.51.100.7", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 4711}},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "1", Method: "GET", Path: "/a?b", Size: -1, Headers: map[string]string{"x-api-key": "k"},
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "accept", RawValue: []byte("*/*")}, {Key: "te", Value: "trailers"}}},
		}},
		ContextExtensions: map[string]string{"scope": "a b"},
	}}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	data, err := proto.Marshal(sampleCheckRequest())
	if err != nil {
		t.Fatal(err)
	}
	var got question
	if err := got.decode(string(data)); err != nil {
		t.Fatal(err)
	}
	want := question{
		http: true, method: [1]string{"GET"}, path: [1]string{"/a?b"}, source: "198.51.100.7",
		fields: []pair{{"x-api-key", "k"}, {"accept", "*/*"}, {"te", "trailers"}}, extensions: []pair{{"scope", "a b"}},
		key: []byte("\x0c\x0a\x05scope\x12\x03a b"),
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(question{}, pair{})); diff != "" {
		t.Errorf("the question (-want +got):\n%s", diff)
	}
	for n := range len(data) {
		var cut question
		_ = cut.decode(string(data[:n])) // It must not panic.
	}
	many := sampleCheckRequest()
	for range 3000 {
		h := many.GetAttributes().GetRequest().GetHttp().GetHeaderMap()
		h.Headers = append(h.Headers, &corev3.HeaderValue{Key: "a"})
	}
	if data, err = proto.Marshal(many); err != nil {
		t.Fatal(err)
	}
	if err := new(question).decode(string(data)); !errors.Is(err, errManyFields) {
		t.Errorf("3,000 headers: %v", err)
	}
}

// FuzzDecode reads every message as protobuf does.
func FuzzDecode(f *testing.F) {
	data, err := proto.Marshal(sampleCheckRequest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{0x0a, 0x00})
	f.Add([]byte{0x0b, 0x0c})
	f.Fuzz(func(t *testing.T, data []byte) {
		var want authv3.CheckRequest
		var got question
		failed := got.decode(string(data))
		if proto.Unmarshal(data, &want) != nil || failed != nil {
			return // What is refused by either passes nowhere.
		}
		http := want.GetAttributes().GetRequest().GetHttp()
		if got.http != (http != nil) || got.method[0] != http.GetMethod() || got.path[0] != http.GetPath() {
			t.Fatalf("%q is %+v, want %v", data, got, http)
		}
		for name, value := range http.GetHeaders() {
			values := got.values(field{lower: name})
			if len(values) == 0 || len(http.GetHeaderMap().GetHeaders()) == 0 && values[len(values)-1] != value {
				t.Fatalf("%q: the header %q is %q, want %q", data, name, values, value)
			}
		}
		extensions := make(map[string]string)
		for _, e := range got.extensions {
			extensions[e.name] = e.value
		}
		if diff := cmp.Diff(want.GetAttributes().GetContextExtensions(), extensions); diff != "" && len(extensions) > 0 {
			t.Fatalf("%q: the extensions (-want +got):\n%s", data, diff)
		}
		if _, ok := want.GetAttributes().GetSource().GetAddress().GetAddress().(*corev3.Address_SocketAddress); ok &&
			want.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress() != got.source && got.source != "" {
			if !strings.Contains(string(data), got.source) {
				t.Fatalf("%q comes from %q", data, got.source)
			}
		}
	})
}
