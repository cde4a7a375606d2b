package gate

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// maxRules bounds a table.
const maxRules = 1000

// anyMethod stands for every method in a rule.
const anyMethod = "ANY"

// Rule says what requests of some methods to some paths need.
type Rule struct {
	methods  []string // nil for any
	segments []string // of the pattern, without the rest
	rest     bool     // whether more segments may follow
	needs    requirement
}

// Rules is a table of rules, of which the first that matches a request counts. A request
// that none matches is refused.
type Rules []Rule

// ParseRules returns the table that texts are, each as [ParseRule] takes it.
func ParseRules(texts []string) (Rules, error) {
	if len(texts) > maxRules {
		return nil, fmt.Errorf("must be %d rules at most, not %d", maxRules, len(texts))
	}
	var rules Rules
	for i, text := range texts {
		rule, err := ParseRule(text)
		if err != nil {
			return nil, fmt.Errorf("number %d %w", i+1, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// ParseRule returns the rule that text is: methods, a path and what is needed, separated
// by spaces, such as
//
//	GET|HEAD /v1/products/* scope=products.read
//	ANY /v1/** scope=products.write&cost=5
//
// In a path `*` stands for one segment and `**`, at the end, for any number of them.
func ParseRule(text string) (Rule, error) {
	parts := strings.Fields(text)
	if len(parts) < 2 || len(parts) > 3 {
		return Rule{}, errors.New("must be methods, a path and what is needed, such as GET|HEAD /v1/products/* scope=products.read")
	}
	var r Rule
	if err := r.parseMethods(parts[0]); err != nil {
		return Rule{}, err
	}
	if err := r.parsePath(parts[1]); err != nil {
		return Rule{}, err
	}
	if len(parts) == 3 {
		if err := r.parseNeeds(parts[2]); err != nil {
			return Rule{}, err
		}
	}
	return r, nil
}

func (r *Rule) parseMethods(text string) error {
	if text == anyMethod {
		return nil
	}
	for method := range strings.SplitSeq(text, "|") {
		if !isMethod(method) || method == anyMethod {
			return fmt.Errorf("has the method %q; methods are words such as GET, in capital letters, separated by |, or ANY", apikey.Excerpt(method))
		}
		r.methods = append(r.methods, method)
		if method == http.MethodGet {
			r.methods = append(r.methods, http.MethodHead)
		}
	}
	return nil
}

func (r *Rule) parsePath(text string) error {
	path, rest := text, false
	if before, ok := strings.CutSuffix(text, "/**"); ok {
		path, rest = before+"/", true
	}
	if plain, ok := plainPath(path); !ok || strings.Contains(path, "**") {
		return fmt.Errorf("has the path %q; a path begins with / and has no empty, dot or encoded part, * for one segment, and /** at its end for any number of them", apikey.Excerpt(text))
	} else if plain != "/" {
		r.segments = strings.Split(plain[1:], "/")
	}
	for _, segment := range r.segments {
		if segment != "*" && strings.Contains(segment, "*") {
			return fmt.Errorf("has the path %q; * stands for a whole segment", apikey.Excerpt(text))
		}
	}
	r.rest = rest
	return nil
}

func (r *Rule) parseNeeds(text string) error {
	values, err := url.ParseQuery(text)
	if err != nil {
		return fmt.Errorf("needs %q; it must be like scope=products.read&cost=2", apikey.Excerpt(text))
	}
	for name, all := range values {
		for _, value := range all {
			if problem := r.needs.set(name, value); problem != "" {
				return fmt.Errorf("has %s, which %s", apikey.Excerpt(name), problem)
			}
		}
	}
	return nil
}

// matches reports whether the rule is for requests of a method to a plain path. The case
// of letters does not count: where a server tells them apart, what it serves under
// another spelling needs what the rule says all the same.
func (r *Rule) matches(method, path string) bool {
	if r.methods != nil && !slices.Contains(r.methods, method) {
		return false
	}
	rest := strings.TrimPrefix(path, "/")
	for _, want := range r.segments {
		if rest == "" {
			return false
		}
		var segment string
		segment, rest, _ = strings.Cut(rest, "/")
		if want != "*" && !strings.EqualFold(want, segment) {
			return false
		}
	}
	return rest == "" || r.rest
}

// find returns the first rule that matches, nil for none.
func (rs Rules) find(method, path string) *Rule {
	for i := range rs {
		if rs[i].matches(method, path) {
			return &rs[i]
		}
	}
	return nil
}

// maxMethod bounds a method.
const maxMethod = 32

// isMethod reports whether text is a method as it must be written: some servers take
// others for the same.
func isMethod(text string) bool {
	if text == "" || len(text) > maxMethod {
		return false
	}
	for _, c := range []byte(text) {
		if (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return true
}
