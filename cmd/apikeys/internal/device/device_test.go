package device

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An issuer answers in memory, so that time can be the test's.
type issuer struct {
	mu      sync.Mutex
	calls   []string             // the grants that were asked for, with the time since the start
	answers []string             // of the token endpoint, one after the other
	began   time.Time            //
	change  func(map[string]any) // of the discovery document
	expires int
}

const address = "https://login.invalid/realm"

func (i *issuer) RoundTrip(req *http.Request) (*http.Response, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	switch req.URL.Path {
	case "/realm/.well-known/openid-configuration":
		document := map[string]any{"issuer": address, "token_endpoint": address + "/token", "device_authorization_endpoint": address + "/device"}
		if i.change != nil {
			i.change(document)
		}
		_ = json.NewEncoder(w).Encode(document)
	case "/realm/device":
		_ = req.ParseForm()
		i.calls = append(i.calls, "device "+req.Form.Get("client_id")+" "+req.Form.Get("scope")+" "+req.Form.Get("audience"))
		_ = json.NewEncoder(w).Encode(map[string]any{
			"device_code": "secret-code", "user_code": "ABCD-EFGH", "verification_uri": address + "/page",
			"verification_uri_complete": address + "/page?code=ABCD-EFGH", "expires_in": i.expires, "interval": 5,
		})
	case "/realm/token":
		_ = req.ParseForm()
		i.calls = append(i.calls, time.Since(i.began).String()+" "+req.Form.Get("grant_type"))
		answer := i.answers[0]
		if len(i.answers) > 1 {
			i.answers = i.answers[1:]
		}
		if strings.Contains(answer, `"error"`) {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.WriteString(answer)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
	return w.Result(), nil
}

func (i *issuer) config() Config {
	return Config{Issuer: address, ClientID: "apikeys", Scopes: []string{"openid", "offline_access"}, Audience: "keys", HTTP: &http.Client{Transport: i}}
}

const (
	pending = `{"error":"authorization_pending"}`
	slower  = `{"error":"slow_down"}`
	token   = `{"access_token":"at","refresh_token":"rt","token_type":"Bearer","expires_in":300}`
)

// The person logs in after a while; the issuer is asked as seldom as it wants.
func TestLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{answers: []string{pending, slower, pending, token}, began: time.Now(), expires: 600}
		var shown Prompt
		got, err := i.config().Login(t.Context(), func(p Prompt) error { shown = p; return nil })
		if err != nil || got.AccessToken != "at" || got.RefreshToken != "rt" || time.Until(got.Expiry) != 300*time.Second {
			t.Fatalf("%+v %v", got, err)
		}
		if shown.Code != "ABCD-EFGH" || shown.URL != address+"/page" || !strings.HasSuffix(shown.Complete, "?code=ABCD-EFGH") {
			t.Errorf("the person is told %+v", shown)
		}
		const grant = " urn:ietf:params:oauth:grant-type:device_code"
		want := []string{"device apikeys openid offline_access keys", "5s" + grant, "10s" + grant, "20s" + grant, "30s" + grant}
		if !slices.Equal(i.calls, want) {
			t.Errorf("calls\n%q, want\n%q", i.calls, want)
		}
	})
}

func TestLoginEnds(t *testing.T) {
	t.Parallel()
	for want, answers := range map[string][]string{
		"the login was refused":           {pending, `{"error":"access_denied"}`},
		"the code has ended":              {pending},
		"run the login again":             {`{"error":"expired_token"}`},
		`"invalid_client": "who is this"`: {`{"error":"invalid_client","error_description":"who is this"}`},
		"has no token":                    {`{}`},
	} {
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{answers: answers, began: time.Now(), expires: 60}
			_, err := i.config().Login(t.Context(), func(Prompt) error { return nil })
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret-code") {
				t.Errorf("want %q: %v", want, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	i := &issuer{answers: []string{pending}, expires: 600}
	if _, err := i.config().Login(ctx, func(Prompt) error { cancel(); return nil }); err == nil || err.Error() != "interrupted" {
		t.Errorf("interrupted: %v", err)
	}
}

func TestIssuers(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(map[string]any){
		"calls itself":              func(d map[string]any) { d["issuer"] = "https://other.invalid" },
		"token_endpoint must begin": func(d map[string]any) { d["token_endpoint"] = "http://login.invalid/token" },
		"endpoint must be a URL":    func(d map[string]any) { d["device_authorization_endpoint"] = "https://user:pw@login.invalid/" },
		"offers no device login":    func(d map[string]any) { delete(d, "device_authorization_endpoint") },
	} {
		i := &issuer{change: change, answers: []string{pending}}
		if _, err := i.config().Login(t.Context(), func(Prompt) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	for _, text := range []string{"", "login.invalid", "http://login.invalid", "ftp://login.invalid", "https://"} {
		if _, err := (Config{Issuer: text, HTTP: &http.Client{Transport: &issuer{}}}).Login(t.Context(), nil); err == nil {
			t.Errorf("%q is an issuer", text)
		}
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	i := &issuer{answers: []string{`{"access_token":"at2","token_type":"Bearer"}`}}
	if got, err := i.config().Refresh(t.Context(), "rt"); err != nil || got.AccessToken != "at2" || got.RefreshToken != "rt" {
		t.Errorf("%+v %v", got, err)
	}
	i = &issuer{answers: []string{`{"error":"invalid_grant"}`}}
	if _, err := i.config().Refresh(t.Context(), "rt"); err == nil || !strings.Contains(err.Error(), "apikeys login") {
		t.Errorf("an old token: %v", err)
	}
}
