package output

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

const (
	first  = `{"id":"a1","label":"日本語","n":12345678901234567890,"list":["x","y"],"empty":[],"none":null,"in":{"at":"2027-01-01 00:00:00"},"map":{}}`
	second = `{"id":"b2","label":"evil \u001b[31m\u009b` + "\u202e" + `","n":1,"list":[],"empty":[],"none":true,"in":{"at":null},"map":{"k":"no"}}`
)

var columns = []Column{{Head: "ID", Path: "id"}, {Head: "LABEL", Path: "label", Flexible: true}, {Head: "AT", Path: "in.at", Else: "n"}, {Head: "LIST", Path: "list"}}

func format(t *testing.T, text string) Format {
	t.Helper()
	var f Format
	if err := f.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return f
}

func listed(t *testing.T, form string, terminal Terminal, items ...string) string {
	t.Helper()
	var b bytes.Buffer
	p := NewPrinter(&b, format(t, form), terminal, "id")
	if err := p.Begin(columns); err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		if err := p.Item([]byte(item)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.End(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLists(t *testing.T) {
	t.Parallel()
	const safe = `evil \u001b[31m\u009b\u202e`
	cases := []struct{ form, want, empty string }{
		{"json", "[" + first + "," + second + "]\n", "[]\n"},
		{"jsonl", first + "\n" + second + "\n", ""},
		{"id", "a1\nb2\n", ""},
		{"jsonpath=$[*].n", "12345678901234567890\n1\n", ""},
		{"jsonpath={[?@.id=='a1'].in}", `{"at":"2027-01-01 00:00:00"}` + "\n", ""},
		{"table", "ID  LABEL                        AT                   LIST\n" +
			"a1  日本語                       2027-01-01 00:00:00  x,y\n" +
			"b2  " + safe + "  1                    -\n", "ID  LABEL  AT  LIST\n"},
	}
	for _, c := range cases {
		if diff := cmp.Diff(c.want, listed(t, c.form, Terminal{}, first, second)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.form, diff)
		}
		if got := listed(t, c.form, Terminal{}); got != c.empty {
			t.Errorf("an empty %s is %q", c.form, got)
		}
	}
	var back []map[string]any
	text := listed(t, "yaml", Terminal{}, first, second)
	if err := yaml.Unmarshal([]byte(text), &back); err != nil || len(back) != 2 || back[1]["map"].(map[string]any)["k"] != "no" || back[0]["none"] != nil || !strings.HasPrefix(text, "- id: a1\n  label: 日本語\n  n: 12345678901234567890\n") {
		t.Errorf("yaml: %v\n%s", err, text)
	}
	if back[0]["in"].(map[string]any)["at"] != "2027-01-01 00:00:00" {
		t.Errorf("a time is not a text: %v", back[0])
	}
	if got := listed(t, "yaml", Terminal{}); got != "[]\n" {
		t.Errorf("an empty yaml is %q", got)
	}
	if err := NewPrinter(new(bytes.Buffer), format(t, "secret"), Terminal{}, "id").Begin(columns); !errors.Is(err, ErrNoSecret) {
		t.Errorf("secrets of a list: %v", err)
	}
}

// A table fits the terminal, keeps ids whole, and has no text that the terminal obeys.
func TestTableOnATerminal(t *testing.T) {
	t.Parallel()
	long := strings.ReplaceAll(first, "日本語", strings.Repeat("日本語", 20))
	got := listed(t, "table", Terminal{Width: 50, Color: true}, long, second)
	for text := range strings.Lines(strings.NewReplacer("\x1b[1m", "", "\x1b[0m", "").Replace(got)) {
		if w := width(strings.TrimSuffix(text, "\n")); w > 50 || strings.Contains(text, "\x1b") {
			t.Errorf("%d columns: %q", w, text)
		}
	}
	if !strings.HasPrefix(got, "\x1b[1mID") || !strings.Contains(got, "\na1 ") || !strings.Contains(got, "日本語日本語") || !strings.Contains(got, "…") {
		t.Errorf("got\n%s", got)
	}
	// JSON for a terminal is the same values, with nothing that it obeys.
	got = listed(t, "json", Terminal{Width: 50}, second)
	if strings.ContainsAny(got, "\u009b\u202e") || !strings.Contains(got, `\u009b\u202e`) {
		t.Errorf("JSON: %q", got)
	}
}

func TestOne(t *testing.T) {
	t.Parallel()
	one := func(form, text string) string {
		t.Helper()
		var b bytes.Buffer
		if err := NewPrinter(&b, format(t, form), Terminal{}, "id").One([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for form, want := range map[string]string{
		"json": first + "\n", "jsonl": first + "\n", "id": "a1\n", "jsonpath=$.in.at": "2027-01-01 00:00:00\n", "jsonpath=.list": `["x","y"]` + "\n",
		"table": "id     a1\nlabel  日本語\nn      12345678901234567890\nlist   x,y\nempty  -\nnone   -\nin.at  2027-01-01 00:00:00\nmap    -\n",
	} {
		if diff := cmp.Diff(want, one(form, first)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", form, diff)
		}
	}
	if got := one("secret", `{"secret":"s3"}`); got != "s3\n" {
		t.Errorf("secret: %q", got)
	}
	if err := NewPrinter(new(bytes.Buffer), format(t, "secret"), Terminal{}, "id").One([]byte(first)); !errors.Is(err, ErrNoSecret) {
		t.Errorf("no secret: %v", err)
	}
}

func TestFaultyFormats(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"xml": "must be table, json", "jsonpath=$[": "RFC 9535", "jsonpath=": "RFC 9535", "": "must be table"} {
		var f Format
		if err := f.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Whatever is printed reaches a terminal as text.
func FuzzPrintable(f *testing.F) {
	for _, seed := range []string{"", "a\nb", "\x1b[31m", "\u009b", "\u202e", "\xff\xfe", "日本語", "\u2028"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := Printable(text)
		if strings.ContainsFunc(got, unsafe) {
			t.Errorf("%q is printed as %q", text, got)
		}
		if Printable(got) != got {
			t.Errorf("%q is not stable", got)
		}
		if w := width(cut(got, 10)); w > 10 {
			t.Errorf("%q is cut to %d columns", got, w)
		}
	})
}

// Whatever JSON a server sends is printed in each form, or is an error.
func FuzzForms(f *testing.F) {
	f.Add(first)
	f.Add(second)
	f.Add(`[1,{"a":[{}]}]`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, form := range []string{"table", "json", "jsonl", "yaml", "id", "secret", "jsonpath=$..*"} {
			var parsed Format
			if err := parsed.UnmarshalText([]byte(form)); err != nil {
				t.Fatal(err)
			}
			p := NewPrinter(new(bytes.Buffer), parsed, Terminal{Width: 20}, "id")
			_ = p.One([]byte(text))
			if p.Begin(columns) == nil && p.Item([]byte(text)) == nil {
				_ = p.End()
			}
		}
	})
}

// A path that is taken is written as one that finds the same, in whatever JSON.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"$", "$[*].id", ".rate_limit.requests", "{.items[0]}", "$..*", "$[?@.a == 'b' && @.c < 1]", "$['a}']", "$[::-1]", "$[1:2:0]", "$[?match(@.a, '(')]", "$[?length(@) > 9007199254740993]", "", "$[", "{}", "$[?@.a == \"\\u202e\"]", "$['\\ud800']"} {
		f.Add(seed, first)
	}
	f.Fuzz(func(t *testing.T, path, text string) {
		if len(path)+len(text) > 300 || strings.Count(path, "..") > 2 {
			return // Many descents of descents take their time.
		}
		var parsed, again Format
		if err := parsed.UnmarshalText([]byte("jsonpath=" + path)); err != nil {
			if message := err.Error(); strings.Contains(message, "\n") || len(message) > 500 {
				t.Errorf("%q is refused by %q", path, message)
			}
			return
		}
		written := parsed.path.String()
		if err := again.UnmarshalText([]byte("jsonpath=" + written)); err != nil {
			t.Fatalf("%q is %q, which is refused: %v", path, written, err)
		}
		found := make([]string, 2)
		for i, format := range []Format{parsed, again} {
			var b bytes.Buffer
			if err := NewPrinter(&b, format, Terminal{}, "id").One([]byte(text)); err != nil {
				return // The text is no JSON.
			}
			found[i] = b.String()
		}
		if !strings.Contains(path, "*") && !strings.Contains(path, "?") && !strings.Contains(path, "..") && found[0] != found[1] {
			t.Errorf("%q finds %q, and %q finds %q", path, found[0], written, found[1])
		}
	})
}

// YAML that is written means what the JSON meant.
func FuzzYAML(f *testing.F) {
	for _, seed := range []string{first, second, `{"<<":"x","~":null,"y":"yes","n":"0x10","t":"2027-01-01","e":"1e3"}`, `["\u0085","\u2028","\ufeff","a: b","- c","# d"," e ","\n\n","\t"]`, `1e400`, `-0`, `1E5`, `0.10`, `"\u0000"`, `[[],{},[[]],""]`, `{"":{"":[""]}}`, `"null"`, `{"a":"=","=":"a"}`, `"!x"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parse([]byte(text))
		if err != nil {
			return
		}
		written, err := v.yamlText(false)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var node yaml.Node
		if err := yaml.Unmarshal(written, &node); err != nil {
			t.Fatalf("%q is the YAML %q, which cannot be read: %v", text, written, err)
		}
		if got := ofYAML(t, node.Content[0]); !same(v, got) {
			t.Errorf("%q is the YAML %q", text, written)
		}
	})
}

// ofYAML returns what a node says, a number, true, false or null as it is written.
func ofYAML(t *testing.T, node *yaml.Node) *value {
	v := &value{text: node.Value}
	switch node.Kind {
	case yaml.MappingNode:
		v.kind = '{'
		for i := 0; i < len(node.Content); i += 2 {
			if node.Content[i].Tag != "!!str" {
				t.Errorf("the name %q is %s", node.Content[i].Value, node.Content[i].Tag)
			}
			v.names = append(v.names, node.Content[i].Value)
			v.members = append(v.members, ofYAML(t, node.Content[i+1]))
		}
	case yaml.SequenceNode:
		v.kind = '['
		for _, item := range node.Content {
			v.members = append(v.members, ofYAML(t, item))
		}
	default:
		v.kind = map[string]jsontext.Kind{"!!str": '"', "!!null": 'n', "!!int": '0', "!!float": '0'}[node.Tag]
		if node.Tag == "!!bool" {
			v.kind = jsontext.Kind(node.Value[0])
		}
	}
	return v
}

// same reports whether two values are one. A number that no float can hold is a text in
// YAML.
func same(a, b *value) bool {
	return a.kind == '0' && a.text == b.text || a.kind == b.kind && (a.text == b.text || a.kind == '{' || a.kind == '[') && slices.Equal(a.names, b.names) && slices.EqualFunc(a.members, b.members, same)
}
