package gate

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxURI bounds the original URI.
const maxURI = 8 << 10

// splitURI returns the path and the query of an original URI, as a request has it in its
// first line: a path, or with some gateways the whole URL. The path is empty where it
// cannot be told where that URL's host ends.
func splitURI(uri string) (path, query string) {
	if scheme, rest, ok := strings.Cut(uri, "://"); ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")) {
		at := strings.IndexAny(rest, `/?\#`)
		if at >= 0 && (rest[at] == '\\' || rest[at] == '#') {
			return "", ""
		}
		if at < 0 {
			return "/", ""
		}
		if uri = rest[at:]; uri[0] == '?' {
			return "/", uri[1:]
		}
	}
	path, query, _ = strings.Cut(uri, "?")
	return path, query
}

// plainPath returns a path decoded, without a slash at its end, if it means one thing to
// everybody. Whether a server decodes twice, takes a backslash for a slash, merges
// slashes, drops what follows a semicolon or a dot at the end of a name, or has names
// composed anew, differs; a path that depends on that could be taken here for another
// than the one that is served. So it is refused.
func plainPath(raw string) (path string, ok bool) {
	if raw == "" || raw[0] != '/' || len(raw) > maxURI {
		return "", false
	}
	decoded, ok := decodePath(raw)
	if !ok {
		return "", false
	}
	if decoded == "/" {
		return decoded, true
	}
	decoded = strings.TrimSuffix(decoded, "/")
	for segment := range strings.SplitSeq(decoded[1:], "/") {
		if !plainSegment(segment) {
			return "", false
		}
	}
	return decoded, true
}

// decodePath decodes a path of which no character can be taken for another.
func decodePath(raw string) (string, bool) {
	escaped := false
	for i := range len(raw) {
		switch c := raw[i]; {
		case c == '%':
			escaped = true
		case !inPath[c]:
			return "", false
		}
	}
	if !escaped {
		return raw, true
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if i+2 >= len(raw) {
				return "", false
			}
			high, ok1 := unhex(raw[i+1])
			low, ok2 := unhex(raw[i+2])
			if !ok1 || !ok2 {
				return "", false
			}
			c = high<<4 | low
			i += 2
			if c == '/' || c == '\\' || c == ';' || c == '%' || c < ' ' || c == 0x7f {
				return "", false
			}
		}
		out = append(out, c)
	}
	return string(out), true
}

// plainSegment reports whether a decoded segment is a name that no server takes for
// another.
func plainSegment(segment string) bool {
	if segment == "" {
		return false // two slashes
	}
	// "." and "..", and names that Windows takes for those without the end.
	if last := segment[len(segment)-1]; last == '.' || last == ' ' || segment[0] == ' ' {
		return false
	}
	for i := range len(segment) {
		if segment[i] >= utf8.RuneSelf {
			return utf8.ValidString(segment) && norm.NFKC.IsNormalString(segment) && !strings.ContainsFunc(segment, unprintable)
		}
	}
	return true
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// inPath are the characters that a path can hold as they are (RFC 3986, 3.3), but for
// the semicolon.
var inPath = func() (in [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@/") {
		in[c] = true
	}
	return in
}()

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
