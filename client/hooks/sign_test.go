package hooks

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The values that tests begin with.
var (
	testNow     = time.Date(2026, 11, 21, 9, 30, 0, 123_456_000, time.UTC)
	testSecret  = mustSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	otherSecret = mustSecret("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
)

func mustSecret(text string) Secret {
	s, err := ParseSecret(text)
	if err != nil {
		panic(err)
	}
	return s
}

// The vectors that the authors of Standard Webhooks published.
func TestSignVectors(t *testing.T) {
	t.Parallel()
	const id = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	at := time.Unix(1614265330, 0)
	for body, want := range map[string]string{
		`{"test": 2432232314}`: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		``:                     "v1,v48jdbgvh29KJz2Qc+ghw8G6vG3nAKnujWBg8oM/62A=",
	} {
		if got := Sign([]Secret{testSecret}, id, at, []byte(body)); got != want {
			t.Errorf("%q: %s, want %s", body, got, want)
		}
	}
}

// Made by: printf '{"a":1}' | openssl dgst -sha256 -hmac whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
func TestSignClassicVector(t *testing.T) {
	t.Parallel()
	const want = "45ec03b2b33403c8043a90de06bedad0827183927115fd7e448ef97eeb13c5be"
	if got := SignClassic(testSecret, []byte(`{"a":1}`)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSignNewestFirst(t *testing.T) {
	t.Parallel()
	both := Sign([]Secret{otherSecret, testSecret}, "delivery_1", testNow, []byte("x"))
	first, second, _ := strings.Cut(both, " ")
	if first != Sign([]Secret{otherSecret}, "delivery_1", testNow, []byte("x")) ||
		second != Sign([]Secret{testSecret}, "delivery_1", testNow, []byte("x")) {
		t.Errorf("got %s", both)
	}
}

// signed returns the headers of a delivery that secrets signed at testNow.
func signed(body []byte, secrets ...Secret) http.Header {
	return http.Header{
		HeaderID:        {"delivery_1"},
		HeaderTimestamp: {strconv.FormatInt(testNow.Unix(), 10)},
		HeaderSignature: {Sign(secrets, "delivery_1", testNow, body)},
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	body := []byte(`{"a":1}`)
	stamp := strconv.FormatInt(testNow.Unix(), 10)
	cases := []struct {
		name   string
		secret string
		change func(http.Header)
		body   string
		now    time.Time
		want   error
	}{
		{"newest secret", otherSecret.Reveal(), nil, `{"a":1}`, testNow, nil},
		{"secret before the rotation", testSecret.Reveal(), nil, `{"a":1}`, testNow, nil},
		{"at the end of the tolerance", testSecret.Reveal(), nil, `{"a":1}`, testNow.Truncate(time.Second).Add(Tolerance), nil},
		{"late", testSecret.Reveal(), nil, `{"a":1}`, testNow.Truncate(time.Second).Add(Tolerance + 1), ErrBadTimestamp},
		{"early", testSecret.Reveal(), nil, `{"a":1}`, testNow.Add(-Tolerance - time.Second), ErrBadTimestamp},
		{"another body", testSecret.Reveal(), nil, `{"a":2}`, testNow, ErrBadSignature},
		{"another secret", "whsec_" + strings.Repeat("A", 32), nil, `{"a":1}`, testNow, ErrBadSignature},
		{"empty secret", "", nil, `{"a":1}`, testNow, ErrBadSecret},
		{"secret of no bytes", "whsec_", nil, `{"a":1}`, testNow, ErrBadSecret},
		{"no id", testSecret.Reveal(), func(h http.Header) { h.Del("webhook-id") }, `{"a":1}`, testNow, ErrNoSignature},
		{"no timestamp", testSecret.Reveal(), func(h http.Header) { h.Del("webhook-timestamp") }, `{"a":1}`, testNow, ErrNoSignature},
		{"no signature", testSecret.Reveal(), func(h http.Header) { h.Del("webhook-signature") }, `{"a":1}`, testNow, ErrNoSignature},
		{"another id", testSecret.Reveal(), func(h http.Header) { h.Set("webhook-id", "delivery_2") }, `{"a":1}`, testNow, ErrBadSignature},
		{"another spelling of the time", testSecret.Reveal(), func(h http.Header) { h.Set("webhook-timestamp", "+"+stamp) }, `{"a":1}`, testNow, ErrBadTimestamp},
		{"no number", testSecret.Reveal(), func(h http.Header) { h.Set("webhook-timestamp", "soon") }, `{"a":1}`, testNow, ErrBadTimestamp},
		{"a time past all times", testSecret.Reveal(), func(h http.Header) { h.Set("webhook-timestamp", "9223372036854775807") }, `{"a":1}`, testNow, ErrBadTimestamp},
		{"signature without version", testSecret.Reveal(), func(h http.Header) {
			h.Set("webhook-signature", strings.ReplaceAll(h.Get("webhook-signature"), "v1,", ""))
		}, `{"a":1}`, testNow, ErrBadSignature},
		{"strange versions beside it", testSecret.Reveal(), func(h http.Header) {
			h.Set("webhook-signature", "v1a,xyz v2,"+" "+h.Get("webhook-signature"))
		}, `{"a":1}`, testNow, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := signed(body, otherSecret, testSecret)
			if c.change != nil {
				c.change(h)
			}
			if got := Verify(c.secret, h, []byte(c.body), c.now); !errors.Is(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Whatever is sent verifies, and one bit makes it another body.
func TestVerifyWhatWasSigned(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		secret, err := NewSecret(bytes.NewReader(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")))
		if err != nil {
			t.Fatal(err)
		}
		h := signed(body, secret)
		if err := Verify(secret.Reveal(), h, body, testNow); err != nil {
			t.Fatal(err)
		}
		if len(body) > 0 {
			body[rapid.IntRange(0, len(body)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			if err := Verify(secret.Reveal(), h, body, testNow); !errors.Is(err, ErrBadSignature) {
				t.Fatalf("after a flip: %v", err)
			}
		}
	})
}

func FuzzVerify(f *testing.F) {
	h := signed([]byte("x"), otherSecret, testSecret)
	f.Add(h.Get(HeaderID), h.Get(HeaderTimestamp), h.Get(HeaderSignature))
	f.Add("", "-1", "v1,")
	f.Fuzz(func(t *testing.T, id, stamp, signature string) {
		other := http.Header{HeaderID: {id}, HeaderTimestamp: {stamp}, HeaderSignature: {signature}}
		same := id == h.Get(HeaderID) && stamp == h.Get(HeaderTimestamp) &&
			strings.Contains(signature, Sign([]Secret{testSecret}, id, testNow, []byte("x")))
		if err := Verify(testSecret.Reveal(), other, []byte("x"), testNow); err == nil && !same {
			t.Errorf("forged: %q %q %q", id, stamp, signature)
		}
	})
}

func TestParseSecret(t *testing.T) {
	t.Parallel()
	for text, good := range map[string]bool{
		testSecret.Reveal():  true,
		otherSecret.Reveal(): true,
		"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 64)): true,
		"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65)): false,
		"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 23)): false,
		strings.TrimPrefix(testSecret.Reveal(), "whsec_"):              false,
		"whsec_" + strings.Repeat("-", 32):                             false,
		otherSecret.Reveal() + "\n":                                    false,
		"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=":           false, // bits behind the end
		"": false,
	} {
		_, err := ParseSecret(text)
		if (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error repeats %q", text)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	other := struct{ secret Secret }{testSecret}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", testSecret)
	js, err := json.Marshal(map[string]any{"secret": testSecret})
	if err != nil {
		t.Fatal(err)
	}
	shown := log.String() + string(js)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
		shown += fmt.Sprintf(verb, testSecret) + fmt.Sprintf(verb, other) + fmt.Sprintf(verb, &other)
	}
	secret := testSecret.Reveal()
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprint([]byte(secret))} {
		if strings.Contains(shown, form) {
			t.Errorf("it printed %q", form)
		}
	}
	if got, want := testSecret.String(), "whsec_MfKQ...aLaSw"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The zero secret is no key: nothing is signed under it, and nothing verifies.
func TestZeroSecret(t *testing.T) {
	t.Parallel()
	var zero Secret
	if got := Sign([]Secret{zero, testSecret, zero}, "delivery_1", testNow, nil); got != Sign([]Secret{testSecret}, "delivery_1", testNow, nil) {
		t.Errorf("signed: %q", got)
	}
	if got := SignClassic(zero, nil) + zero.Mask() + zero.Reveal(); got != "" {
		t.Errorf("got %q", got)
	}
}
