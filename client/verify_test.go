package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// scriptedServer answers one verification after the other as it is told to.
type scriptedServer struct {
	apikeysv1.UnimplementedApiKeysServiceServer
	answers []any // an error, or an answer
	asked   []string
}

func (s *scriptedServer) VerifyApiKey(ctx context.Context, _ *apikeysv1.VerifyApiKeyRequest) (*apikeysv1.VerifyApiKeyResponse, error) {
	s.asked = append(s.asked, strings.Join(slices.Concat(metadata.ValueFromIncomingContext(ctx, "authorization"), metadata.ValueFromIncomingContext(ctx, "x-organization-id")), " "))
	next := s.answers[0]
	s.answers = s.answers[1:]
	if err, ok := next.(error); ok {
		return nil, err
	}
	return next.(*apikeysv1.VerifyApiKeyResponse), nil
}

func scriptedClient(t *testing.T, s *scriptedServer, o Options) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	apikeysv1.RegisterApiKeysServiceServer(g, s)
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	o.Token = "tok"
	c, err := New(listener.Addr().String(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// What the server cannot answer now is asked again, with a bound, and no longer than
// there is time for.
func TestVerifyTriesAgain(t *testing.T) {
	t.Parallel()
	gone := fault(t, codes.Unavailable, "Not now.", "UNAVAILABLE")
	busy := fault(t, codes.Unavailable, "Not now.", "UNAVAILABLE", &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	late := fault(t, codes.Unavailable, "Not now.", "UNAVAILABLE", &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Minute)})
	valid := &apikeysv1.VerifyApiKeyResponse{Valid: true, Code: apikeysv1.VerificationCode_VERIFICATION_CODE_VALID}
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		answers  []any
		attempts int
		waited   []time.Duration
		fails    codes.Code
	}{
		"at once":                     {[]any{valid}, 0, nil, codes.OK},
		"the third time":              {[]any{gone, gone, valid}, 0, []time.Duration{20 * ms, 40 * ms}, codes.OK},
		"never":                       {[]any{gone, gone, gone}, 0, []time.Duration{20 * ms, 40 * ms}, codes.Unavailable},
		"not at all":                  {[]any{gone}, 1, nil, codes.Unavailable},
		"as long as the server asks":  {[]any{busy, valid}, 0, []time.Duration{time.Second}, codes.OK},
		"longer than there is time":   {[]any{late}, 0, nil, codes.Unavailable},
		"what will not change":        {[]any{fault(t, codes.Unauthenticated, "No.", "UNAUTHENTICATED")}, 0, nil, codes.Unauthenticated},
		"a limit of the client's own": {[]any{fault(t, codes.ResourceExhausted, "No.", "RATE_LIMITED")}, 0, nil, codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &scriptedServer{answers: c.answers}
			client := scriptedClient(t, s, Options{Attempts: c.attempts, Timeout: 10 * time.Second, Organization: "org_a"})
			var waited []time.Duration
			client.random = func() float64 { return 0.6 }
			client.wait = func(_ context.Context, d time.Duration) { waited = append(waited, d) }
			_, err := client.Verify(t.Context(), Request{Key: "k"})
			if diff := cmp.Diff(c.waited, waited); diff != "" || len(s.answers) > 0 {
				t.Errorf("%d left, waited (-want +got)\n%s", len(s.answers), diff)
			}
			failed, _ := errors.AsType[*UnverifiedError](err)
			if (err == nil) != (c.fails == codes.OK) || err != nil && (failed.Code != c.fails || failed.SupportID != "support_1" || failed.Reason == "") {
				t.Errorf("it ended with %#v", err)
			}
			for _, as := range s.asked {
				if as != "Bearer tok org_a" {
					t.Errorf("it was asked as %q", as)
				}
			}
		})
	}
}

// An answer of a later server is no permission, and neither is one that contradicts
// itself.
func TestVerifyUnknownAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]*apikeysv1.VerifyApiKeyResponse{
		"an empty answer":       {},
		"a code of later":       {Valid: true, Code: 99},
		"valid and no valid":    {Code: apikeysv1.VerificationCode_VERIFICATION_CODE_VALID},
		"refused, and yet true": {Valid: true, Code: apikeysv1.VerificationCode_VERIFICATION_CODE_REVOKED},
	} {
		c := scriptedClient(t, &scriptedServer{answers: []any{answer}}, Options{})
		v, err := c.Verify(t.Context(), Request{Key: "k"})
		refused, ok := errors.AsType[*RefusedError](err)
		if v != nil || !ok || refused.Status != 401 {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		address string
		options Options
		want    string
	}{
		"no token":        {"127.0.0.1:1", Options{}, "token is empty"},
		"a line break":    {"127.0.0.1:1", Options{Token: "sesame\nx"}, "token must be one word of printable ASCII"},
		"no address":      {"", Options{Token: "sesame"}, `address must be host:port`},
		"http afar":       {"http://10.0.0.1", Options{Token: "sesame"}, "address \"http://10.0.0.1\" would send the token unencrypted"},
		"an organization": {"127.0.0.1:1", Options{Token: "sesame", Organization: "a b"}, "organization must be"},
		"attempts":        {"127.0.0.1:1", Options{Token: "sesame", Attempts: 11}, "attempts must be 1 to 10"},
		"a timeout":       {"127.0.0.1:1", Options{Token: "sesame", Timeout: -1}, "timeout must not be negative"},
	} {
		_, err := New(c.address, c.options)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || c.options.Token != "" && strings.Contains(err.Error(), c.options.Token) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRequest has no key read that the headers of a request do not hold, and no address
// that neither the connection nor a proxy that is trusted has given.
func FuzzRequest(f *testing.F) {
	f.Add("Bearer abc", "abc", "192.0.2.1, 10.0.0.2", "10.0.0.1:1")
	f.Add("bearer secret-token:abc", "", "junk", "[::1]:80")
	f.Add("Basic x", "\xff", ",,", "@")
	f.Fuzz(func(t *testing.T, authorization, apiKey, forwarded, peer string) {
		values := map[string][]string{"Authorization": {authorization}, "X-API-Key": {apiKey}}
		key, err := keyOf(defaultHeaders, func(name string) []string { return values[name] })
		if (err == nil) == (key == "") || !strings.Contains(authorization+"\n"+apiKey, key) || len(key) > apikey.MaxSecretLength {
			t.Errorf("the key is %q, %v", key, err)
		}
		if err != nil {
			if refused := withoutKey(err); refused.Status != 401 || refused.Message == "" {
				t.Errorf("refused with %#v", refused)
			}
		}
		from, err := netip.ParseAddrPort(peer)
		if err != nil {
			return
		}
		trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		addr := apikey.ClientAddress(from.Addr(), strings.Split(forwarded, "\n"), trusted)
		if !trusted[0].Contains(from.Addr().Unmap()) && addr != from.Addr().Unmap().WithZone("") {
			t.Errorf("the address of %s is %s", peer, addr)
		}
	})
}

// TestRefusedErrorOfOthers asks an error that no client made, such as that of a test of the
// caller's.
func TestRefusedErrorOfOthers(t *testing.T) {
	t.Parallel()
	err := &RefusedError{Status: http.StatusUnauthorized, Message: "No."}
	if challenge := err.Challenge("realm", "products.read"); challenge != "" {
		t.Errorf("challenge %q", challenge)
	}
	if st := status.Convert(err); st.Code() != codes.Unauthenticated || st.Message() != "No." {
		t.Errorf("status %v", st)
	}
}
