package gate

import (
	"net/http"
	"strings"
	"testing"
)

func TestSources(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		names   []string
		query   string
		headers []string
		uri     string
		want    string // empty where there is none
	}{
		"bearer":              {names: []string{"Authorization", "X-API-Key"}, headers: []string{"Authorization: Bearer a"}, want: "a"},
		"bare":                {names: []string{"Authorization", "X-API-Key"}, headers: []string{"X-API-Key: a"}, want: "a"},
		"both alike":          {names: []string{"Authorization", "X-API-Key"}, headers: []string{"Authorization: Bearer a", "X-Api-Key: a"}, want: "a"},
		"both that differ":    {names: []string{"Authorization", "X-API-Key"}, headers: []string{"Authorization: Bearer a", "X-Api-Key: b"}},
		"two lines":           {names: []string{"X-API-Key"}, headers: []string{"X-Api-Key: a", "X-Api-Key: b"}},
		"by another name":     {names: []string{"x-token"}, headers: []string{"X-Token: a", "X-Api-Key: b"}, want: "a"},
		"a header not named":  {names: []string{"X-Token"}, headers: []string{"X-Api-Key: b"}},
		"user":                {names: []string{"basic:user"}, headers: []string{"Authorization: Basic YTo="}, want: "a"},
		"password":            {names: []string{"Basic:Password"}, headers: []string{"Authorization: Basic eDph"}, want: "a"},
		"Basic or Bearer":     {names: []string{"Authorization", "basic:user"}, headers: []string{"Authorization: Bearer a"}, want: "a"},
		"Basic, not Bearer":   {names: []string{"Authorization", "basic:user"}, headers: []string{"Authorization: Basic YTo="}, want: "a"},
		"Basic where not set": {names: []string{"Authorization"}, headers: []string{"Authorization: Basic YTo="}, want: "Basic YTo="},
		"query":               {names: []string{"X-API-Key"}, query: "key", uri: "/x?key=a", want: "a"},
		"query where not set": {names: []string{"X-API-Key"}, uri: "/x?key=a"},
		"query and header":    {names: []string{"X-API-Key"}, query: "key", headers: []string{"X-Api-Key: b"}, uri: "/x?key=a"},
		"query twice":         {names: []string{"X-API-Key"}, query: "key", uri: "/x?key=a&key=b"},
		"an unreadable query": {names: []string{"X-API-Key"}, query: "key", uri: "/x?key=%zz", want: "?"},
		"a long query":        {names: []string{"X-API-Key"}, query: "key", uri: "/x?key=" + strings.Repeat("a", maxURI), want: "?"},
		"a fragment":          {names: []string{"X-API-Key"}, query: "key", uri: "/x#?key=a", want: "a"},
		"a URI of RFC 8959":   {names: []string{"X-API-Key"}, headers: []string{"X-Api-Key: secret-token:a"}, want: "a"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sources, err := ParseSources(tc.names, tc.query)
			if err != nil {
				t.Fatal(err)
			}
			h := http.Header{}
			for _, line := range tc.headers {
				name, value, _ := strings.Cut(line, ": ")
				h.Add(name, value)
			}
			got, err := sources.find(httpHeaders(h), func() string { return tc.uri })
			if got != tc.want || (err != nil) != (tc.want == "") {
				t.Errorf("the key is %q, %v, want %q", got, err, tc.want)
			}
		})
	}
	for _, names := range [][]string{
		{"X Key"}, {""}, {"basic:"}, {"Basic:x"}, {"X-Forwarded-For"}, {"Cookie"}, {"a", "A"}, make([]string, maxSources+1), {strings.Repeat("a", 65)},
	} {
		if _, err := ParseSources(names, ""); err == nil {
			t.Errorf("%.60q is taken", names)
		}
	}
}
