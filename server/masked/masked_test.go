package masked_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/apikeys-dev/apikeys/server/masked"
)

// credential embeds a text, as the types of secrets do.
type credential struct{ masked.Text }

// holder is what a server's own types do with secrets.
type holder struct {
	text   masked.Text
	inside *credential
	Shown  masked.Text
	List   []credential
	Map    map[string]masked.Text
}

// Nothing that formats, encodes or logs a text shows it.
func TestNothingPrintsAText(t *testing.T) {
	t.Parallel()
	const plain = "hunter2-plainly-readable"
	text := masked.New(plain)
	c := credential{text}
	h := holder{text, &c, text, []credential{c}, map[string]masked.Text{"a": text}}
	values := map[string]any{
		"text": text, "pointer": &text, "embedded": c, "pointer to embedded": &c,
		"list": []masked.Text{text}, "map": map[string]credential{"a": c}, "array": [1]masked.Text{text},
		"struct": h, "pointer to struct": &h, "any": []any{text, &text},
		"with ends": masked.NewWithEnds(plain, 3, 2),
		"short":     masked.NewWithEnds(plain, len(plain), 1),
	}
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var shown strings.Builder
			for _, verb := range "vsqxXdtbcoOeEfFgGUTpw" {
				for _, flags := range []string{"", "+", "#", " ", "#+", "060.60"} {
					fmt.Fprintf(&shown, "%"+flags+string(verb)+"\n", value)
				}
			}
			fmt.Fprintln(&shown, value, errors.Join(fmt.Errorf("wrapped: %w, %v", errors.New("cause"), value)))
			for _, h := range []slog.Handler{slog.NewTextHandler(&shown, nil), slog.NewJSONHandler(&shown, nil)} {
				slog.New(h).With("with", value).Info("said", "value", value, "group", slog.GroupValue(slog.Any("value", value)))
			}
			for what, encode := range map[string]func() ([]byte, error){
				"json": func() ([]byte, error) { return json.Marshal(value) },
				"yaml": func() ([]byte, error) { return yaml.Marshal(value) },
				"xml":  func() ([]byte, error) { return xml.Marshal(value) },
				"gob": func() ([]byte, error) {
					var b bytes.Buffer
					err := gob.NewEncoder(&b).Encode(value)
					return b.Bytes(), err
				},
			} {
				data, err := encode()
				if err != nil && what == "json" {
					t.Errorf("%s: %v", what, err)
				}
				shown.Write(data)
				fmt.Fprintln(&shown, err)
			}
			const part = "plainly"
			for form, text := range map[string]string{
				"text": part, "hex": fmt.Sprintf("%x", part), "HEX": fmt.Sprintf("%X", part), "spaced hex": fmt.Sprintf("% x", part),
				"numbers": strings.Trim(fmt.Sprint([]byte(part)), "[]"), "base64": "cGxhaW5seS",
			} {
				if strings.Contains(shown.String(), text) {
					t.Errorf("shown as %s", form)
				}
			}
		})
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text masked.Text
		want string
	}{
		{masked.Text{}, ""},
		{masked.New(""), ""},
		{masked.New("x"), "********"},
		{masked.NewWithEnds("abcdefgh", 3, 2), "abc...gh"},
		{masked.NewWithEnds("abcdefgh", 0, 2), "...gh"},
		{masked.NewWithEnds("abcde", 3, 2), "********"},
	} {
		if got := fmt.Sprintf("%v", c.text); got != c.want || c.text.Mask() != c.want || c.text.IsZero() != (c.want == "") {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if a, b := masked.New("x"), masked.NewWithEnds("x", 1, 1); !a.Equal(b) || a.Equal(masked.New("y")) || a.Equal(masked.Text{}) {
		t.Error("Equal does not compare the texts")
	}
}

func ExampleText() {
	secret := masked.NewWithEnds("whsec_cm90YXRlZC1vdXQ", 10, 5)
	fmt.Printf("%v %q %d %+v\n", secret, secret, secret, struct{ Password masked.Text }{masked.New("hunter2")})
	// Output: whsec_cm90...1vdXQ whsec_cm90...1vdXQ whsec_cm90...1vdXQ {Password:********}
}
