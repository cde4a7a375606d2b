package rest

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// acceptsJSON reports whether an Accept header leaves room for
// application/json.
func acceptsJSON(values []string) bool {
	_, quality := acceptance(values, "application/json")
	return quality > 0
}

// acceptance is how welcome a media type is to an Accept header: the quality of
// the ranges that it fits, and how exactly they name it, from 3 for the type
// itself to 1 for everything. Of ranges the most exact ones count. No header at
// all is room for everything, but names nothing.
func acceptance(values []string, mediaType string) (level int, quality float64) {
	if len(values) == 0 {
		return 0, 1
	}
	kind, given := mediaType[:strings.IndexByte(mediaType, '/')+1], false
	for _, line := range values {
		for element := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(element, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			given = given || name != ""
			l := 0
			switch name {
			case mediaType:
				l = 3
			case kind + "*":
				l = 2
			case "*/*", "*":
				l = 1
			}
			if l == 0 || l < level {
				continue
			}
			if q := qualityOf(params); l > level || q > quality {
				level, quality = l, q
			}
		}
	}
	if !given {
		return 0, 1
	}
	return level, quality
}

// qualityOf is the q of a media range's parameters; one that cannot be read is
// as good as none.
func qualityOf(params string) float64 {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			if q, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil && q >= 0 && q <= 1 {
				return q
			}
		}
	}
	return 1
}

// isIdentity reports whether a Content-Encoding, which has no case, leaves a body
// as it is.
func isIdentity(values []string) bool {
	for _, line := range values {
		for coding := range strings.SplitSeq(line, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				return false
			}
		}
	}
	return true
}

// isJSON reports whether a Content-Type is one that a body may have.
func isJSON(contentType, method string) bool {
	if contentType == "application/json" {
		return true
	}
	name, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	charset, given := params["charset"]
	if given && !strings.EqualFold(charset, "utf-8") {
		return false
	}
	return name == "application/json" || name == "application/merge-patch+json" && method == http.MethodPatch
}
