package gate

import (
	"net/http"
	"strings"
	"testing"
)

func TestPlainPath(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"/":                                 "/",
		"/a":                                "/a",
		"/a/":                               "/a",
		"/a/b.json":                         "/a/b.json",
		"/%61dmin":                          "/admin",
		"/a%20b":                            "/a b",
		"/keys/x:verify":                    "/keys/x:verify",
		"/caf%C3%A9":                        "/café",
		"/~user/a,b=c@d$e!":                 "/~user/a,b=c@d$e!",
		"/...":                              "", // a dot at the end
		"":                                  "",
		"a":                                 "",
		"*":                                 "",
		"//":                                "",
		"/a//b":                             "",
		"//a":                               "",
		"/a//":                              "",
		"/.":                                "",
		"/a/./b":                            "",
		"/a/../b":                           "",
		"/a/..":                             "",
		"/a/%2e%2e/b":                       "",
		"/a/.%2E/b":                         "",
		"/a%2fb":                            "",
		"/a%2Fb":                            "",
		"/a%5cb":                            "",
		`/a\b`:                              "",
		"/a%252fb":                          "",
		"/%25":                              "",
		"/a;b":                              "",
		"/a%3bb":                            "",
		"/a%00":                             "",
		"/a%0a":                             "",
		"/a%7f":                             "",
		"/a\x00":                            "",
		"/a b":                              "",
		"/a%2":                              "",
		"/a%":                               "",
		"/a%zz":                             "",
		"/a.":                               "",
		"/a%20":                             "",
		"/%20a":                             "",
		"/a./b":                             "",
		"/a#b":                              "",
		"/a?b":                              "",
		"/café":                             "", // not encoded
		"/%ff":                              "",
		"/%c0%ae%c0%ae/":                    "", // dots, overlong
		"/%ef%bd%81dmin":                    "", // a wide a
		"/%e2%80%ae":                        "", // turns the writing around
		"/" + strings.Repeat("a", maxURI+1): "",
	} {
		got, ok := plainPath(raw)
		if got != want || ok != (want != "") {
			t.Errorf("%.40q is %q, %v, want %q", raw, got, ok, want)
		}
	}
}

func TestSplitURI(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string][2]string{
		"/a?b=c":                   {"/a", "b=c"},
		"/a":                       {"/a", ""},
		"http://example.test/a?b":  {"/a", "b"},
		"HTTPS://example.test":     {"/", ""},
		"https://example.test?b":   {"/", "b"},
		"http://example.test/a://": {"/a://", ""},
		"ftp://example.test/a":     {"ftp://example.test/a", ""},
		"/a?u=http://b/c":          {"/a", "u=http://b/c"},
		`http://a\@b/c?d`:          {"", ""},
		"http://a#/c?d":            {"", ""},
		"":                         {"", ""},
	} {
		if path, query := splitURI(uri); path != want[0] || query != want[1] {
			t.Errorf("%q is %q and %q, want %q", uri, path, query, want)
		}
	}
}

// FuzzPlainPath has no path called plain that a server could take for another: decoded
// again, cleaned and composed anew it is the same.
func FuzzPlainPath(f *testing.F) {
	for _, seed := range []string{"/a/b", "/a/%2e%2e/b", "/a%252fb", "/%61", "/caf%C3%A9", "/a;b", "//", "/a/./b/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		path, ok := plainPath(raw)
		if !ok {
			return
		}
		if !strings.HasPrefix(path, "/") || len(path) > len(raw) || strings.ContainsAny(path, "\\;%\x00\n\r\x7f") ||
			strings.Contains(path, "//") || path != "/" && strings.HasSuffix(path, "/") {
			t.Fatalf("%q is called plain, as %q", raw, path)
		}
		for segment := range strings.SplitSeq(path[1:], "/") {
			if segment == "." || segment == ".." || strings.HasSuffix(segment, ".") {
				t.Fatalf("%q is called plain, as %q", raw, path)
			}
		}
		// What net/http would route is the same, but for a slash at the end.
		r, err := http.NewRequest(http.MethodGet, "http://a.test"+raw, nil)
		if err != nil || strings.TrimSuffix(r.URL.Path, "/") != strings.TrimSuffix(path, "/") {
			t.Fatalf("%q is %q, and to net/http %v, %v", raw, path, r, err)
		}
	})
}
