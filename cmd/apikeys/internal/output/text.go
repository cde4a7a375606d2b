package output

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

// Printable returns text on one line that any terminal shows as it is: what a
// terminal would obey, and what turns the direction of writing, is written as an
// escape. A line break or a tab becomes a space.
func Printable(text string) string {
	return escape(text, true)
}

func escape(text string, oneLine bool) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return unsafe(r) || r == utf8.RuneError }) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case (r == '\n' || r == '\t') && !oneLine:
			b.WriteRune(r)
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteByte(' ')
		case unsafe(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		case r == utf8.RuneError:
			_, size := utf8.DecodeRuneInString(text[i:])
			if size == 1 {
				r = '?'
			}
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unsafe reports whether a terminal does something else with r than to show it.
func unsafe(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp) || '\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069'
}

// A safeWriter escapes what a terminal would obey. Each write is whole characters.
type safeWriter struct{ w io.Writer }

// SafeWriter returns a writer to a terminal. What is written through it may hold
// anything: line breaks and tabs are kept, other control characters are escaped, in
// JSON as JSON does.
func SafeWriter(w io.Writer) io.Writer { return safeWriter{w} }

func (s safeWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.w, escape(string(p), false)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// widths measures in columns of a terminal. What East Asian terminals may show wide
// is taken as narrow everywhere, so that an output does not depend on the locale.
var widths = &runewidth.Condition{StrictEmojiNeutral: true}

func width(text string) int { return widths.StringWidth(text) }

// cut returns text in at most w columns.
func cut(text string, w int) string {
	if width(text) <= w {
		return text
	}
	return widths.Truncate(text, w, "…")
}

func pad(text string, w int) string {
	return text + strings.Repeat(" ", max(0, w-width(text)))
}
