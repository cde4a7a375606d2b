package apikey

import "strings"

// SecretPart is what people see of a secret where it is masked: its beginning, and its
// end where they know that. The zero SecretPart stands for any secret.
type SecretPart struct{ Head, Tail string }

// leastShown is how many characters of what is random a SecretPart has at least: with
// fewer, it would be that of many keys.
const leastShown = 3

const secretPartForm = "must be what is seen of a secret: its prefix with 3 to 12 characters, then ... and the last 1 to 5 where they are known, such as sk_live_4fT or sk_live_4fT0cYxLq2Rk...x81Qz"

// ParseSecretPart returns the part of a secret that text shows. problem says what is
// wrong with text, "" if nothing is.
func ParseSecretPart(text string) (part SecretPart, problem string) {
	part.Head, part.Tail, _ = strings.Cut(text, "...")
	end := strings.LastIndexByte(part.Head, '_') + 1
	prefix, shown := part.Head[:end], part.Head[end:]
	switch {
	case !isPrefix(prefix), len(shown) < leastShown, len(shown) > shownAfterPrefix, len(part.Tail) > shownAtEnd,
		strings.ContainsFunc(shown+part.Tail, func(r rune) bool { return r > 'z' || !inBase62[r] }):
		return SecretPart{}, secretPartForm
	}
	return part, ""
}

// IsZero reports whether p stands for any secret.
func (p SecretPart) IsZero() bool { return p == SecretPart{} }
