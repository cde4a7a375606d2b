package rest

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// acceptsJSON reports whether an Accept header leaves room for
// application/json. Of the ranges that name it the most exact one counts, and
// no header at all is room for everything.
func acceptsJSON(values []string) bool {
	if len(values) == 0 {
		return true
	}
	level, quality, given := 0, 0.0, false
	for _, line := range values {
		for element := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(element, ";")
			name = strings.TrimSpace(name)
			given = given || name != ""
			l := 0
			switch strings.ToLower(name) {
			case "application/json":
				l = 3
			case "application/*":
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
	return !given || quality > 0
}

// qualityOf is the q of a media range's parameters; one that cannot be read is
// as good as none.
func qualityOf(params string) float64 {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if strings.EqualFold(name, "q") {
			if q, err := strconv.ParseFloat(value, 64); err == nil {
				return q
			}
		}
	}
	return 1
}

// isJSON reports whether a Content-Type is one that a body may have.
func isJSON(contentType, verb string) bool {
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
	return name == "application/json" || name == "application/merge-patch+json" && verb == http.MethodPatch
}
