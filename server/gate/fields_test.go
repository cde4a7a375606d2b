package gate

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

func TestHeaderText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":               "",
		"Anna's key":     "Anna's key",
		" a ":            "%20a%20",
		"a%20b":          "a%2520b",
		"Ägypten":        "%C3%84gypten",
		"a\r\nX-Evil: 1": "a%0D%0AX-Evil: 1",
		"\x7f":           "%7F",
	} {
		got := headerText(text)
		if got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
		if back, err := url.PathUnescape(got); err != nil || back != text {
			t.Errorf("%q comes back as %q, %v", text, back, err)
		}
	}
}

// FuzzHeaderText has no text leave its header.
func FuzzHeaderText(f *testing.F) {
	f.Add("a\r\nb")
	f.Add(" % ")
	f.Fuzz(func(t *testing.T, text string) {
		got := headerText(text)
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) || strings.TrimSpace(got) != got {
			t.Errorf("%q is %q", text, got)
		}
		if back, err := url.PathUnescape(got); err != nil || back != text {
			t.Errorf("%q comes back as %q, %v", text, back, err)
		}
	})
}

// TestFields has the headers of an answer that passes and of those that do not.
func TestFields(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	key := &apikey.Key{
		ID: "api_key_1", OrganizationID: "org_1", Scopes: apikey.Scopes{"a", "b"}, OwnerID: "ä", Label: "Key",
		RateLimit: apikey.RateLimit{Requests: 10, WindowSeconds: 60}, Quota: apikey.Quota{Limit: 100, Refill: apikey.RefillDaily},
	}
	limited := apikey.Verification{
		Code: apikey.CodeValid, Key: key, At: at,
		Limit: apikey.LimitStatus{Limit: 10, Remaining: 9, ResetAt: at.Add(5500 * time.Millisecond)},
		Quota: apikey.QuotaStatus{Limit: 100, Remaining: 99, RefillAt: at.Add(12 * time.Hour)},
	}
	over := limited
	over.Code, over.RetryAfter = apikey.CodeRateLimited, 1500*time.Millisecond
	endless := limited
	endless.Limit, endless.Quota.RefillAt = apikey.LimitStatus{}, time.Time{}
	endless.Key = &apikey.Key{ID: "api_key_2", OrganizationID: "org_1"}
	tests := map[string]struct {
		v    apikey.Verification
		want map[string]string
	}{
		"passes": {limited, map[string]string{
			"X-Api-Key-Id": "api_key_1", "X-Organization-Id": "org_1", "X-Api-Key-Scopes": "a b", "X-Api-Key-Owner": "%C3%A4", "X-Api-Key-Label": "Key",
			"X-Api-Key-Error": "", "Ratelimit": `"rate";r=9;t=6, "quota";r=99;t=43200`, "Ratelimit-Policy": `"rate";q=10;w=60, "quota";q=100;w=86400`,
			"X-Ratelimit-Limit": "10", "X-Ratelimit-Remaining": "9", "X-Ratelimit-Reset": "6",
		}},
		"over its rate": {over, map[string]string{
			"X-Api-Key-Id": "", "X-Organization-Id": "", "X-Api-Key-Scopes": "", "X-Api-Key-Owner": "", "X-Api-Key-Label": "",
			"X-Api-Key-Error": "rate_limited", "Ratelimit": `"rate";r=9;t=6, "quota";r=99;t=43200`, "Ratelimit-Policy": `"rate";q=10;w=60, "quota";q=100;w=86400`,
			"X-Ratelimit-Limit": "10", "X-Ratelimit-Remaining": "9", "X-Ratelimit-Reset": "6",
		}},
		"a quota alone": {endless, map[string]string{
			"X-Api-Key-Id": "api_key_2", "X-Organization-Id": "org_1", "X-Api-Key-Scopes": "", "X-Api-Key-Owner": "", "X-Api-Key-Label": "",
			"X-Api-Key-Error": "", "Ratelimit": `"quota";r=99`, "Ratelimit-Policy": `"quota";q=100`,
			"X-Ratelimit-Limit": "100", "X-Ratelimit-Remaining": "99", "X-Ratelimit-Reset": "",
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &answer{Verification: tc.v, need: new(requirement)}
			if tc.v.Code != apikey.CodeValid {
				a.refuse(string(tc.v.Code), tc.v.Refusal(nil))
				if got := a.retryAfter(); got != 2 {
					t.Errorf("Retry-After is %d", got)
				}
			}
			h := http.Header{}
			a.setFields(h)
			got := map[string]string{}
			for name, values := range h {
				got[name] = strings.Join(values, "|")
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}
