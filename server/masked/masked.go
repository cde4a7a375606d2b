// Package masked has the one type for text that must not be shown: secrets,
// keys, tokens, the values of headers. Every way of printing such a text shows
// its mask: every verb of package fmt, JSON and every other encoding, slog,
// errors, and structs that hold it in an unexported field. Only [Text.Reveal]
// returns the text.
//
// The package stands below all others and imports the standard library alone,
// so that every package of the server can use it. A secret of package client/hooks
// prints its mask by its own methods, because that package imports nothing.
package masked

import (
	"crypto/subtle"
	"encoding"
	"encoding/gob"
	"fmt"
	"io"
	"log/slog"
)

// Mask is what is shown of a text of which nothing may be shown.
const Mask = "********"

// Text is a text that must not be shown. The zero Text is the empty text, which
// prints as nothing.
//
// The text is behind a pointer, because package fmt calls no methods on the
// unexported fields of other types: of a Text in such a field it prints an
// address.
type Text struct {
	text *string
	// The numbers of characters at its ends that may be shown.
	head, tail int
}

var (
	_ fmt.Formatter          = Text{}
	_ fmt.GoStringer         = Text{}
	_ slog.LogValuer         = Text{}
	_ encoding.TextMarshaler = Text{}
	_ gob.GobEncoder         = Text{}
)

// New returns text, of which nothing is shown but [Mask].
func New(text string) Text { return Text{&text, 0, 0} }

// NewWithEnds returns text, of which the first head and the last tail bytes may
// be shown. A text that is not longer than both together shows nothing.
func NewWithEnds(text string, head, tail int) Text { return Text{&text, head, tail} }

// Reveal returns the whole text.
func (t Text) Reveal() string {
	if t.text == nil {
		return ""
	}
	return *t.text
}

// Mask returns what may be shown: the ends of the text with "..." between them,
// or [Mask].
func (t Text) Mask() string {
	switch text := t.Reveal(); {
	case text == "":
		return ""
	case t.head+t.tail == 0 || t.head+t.tail >= len(text):
		return Mask
	default:
		return text[:t.head] + "..." + text[len(text)-t.tail:]
	}
}

// IsZero reports whether the text is empty.
func (t Text) IsZero() bool { return t.Reveal() == "" }

// Equal reports whether both are the same text, in a time that depends on their
// lengths alone.
func (t Text) Equal(other Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(other.Reveal())) == 1
}

// Format writes the mask for every verb. String alone would not do, since %d and
// its like do not call it.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.Mask()) }

// String returns the mask.
func (t Text) String() string { return t.Mask() }

// GoString returns the mask.
func (t Text) GoString() string { return t.Mask() }

// LogValue returns the mask.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.Mask()) }

// MarshalText returns the mask, for JSON and the other encodings of text.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.Mask()), nil }

// GobEncode returns the mask.
func (t Text) GobEncode() ([]byte, error) { return []byte(t.Mask()), nil }
