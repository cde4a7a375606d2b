package apikey

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The bounds of the formats that a server is set to.
const (
	maxFormats    = 32
	maxFormatName = 32
	// maxPrefix is the length of the longest prefix, its last underscore included.
	maxPrefix = 24
)

// KeyFormat is a form of the secrets of new keys: a prefix, by which people and
// secret scanners tell whose key a text is, for the keys of a mode.
type KeyFormat struct {
	Name   string
	Prefix string
	Mode   Mode
}

// KeyFormats are the formats of new keys. The first of a mode is for the keys that
// are created without naming one.
//
// They decide about new secrets alone: a secret that was made in another format is
// found and works as before, since [IsSecret] takes any prefix.
type KeyFormats []KeyFormat

// DefaultKeyFormats returns the formats of a server that is set to none.
func DefaultKeyFormats() KeyFormats {
	return KeyFormats{
		{"sk_live", "sk_live_", ModeLive},
		{"sk_test", "sk_test_", ModeTest},
	}
}

// ParseKeyFormat returns the format that text, name=prefix:mode, is. Whether a
// server may be set to it, [KeyFormats.Check] tells.
func ParseKeyFormat(text string) (KeyFormat, error) {
	name, rest, hasName := strings.Cut(text, "=")
	prefix, mode, hasMode := strings.Cut(rest, ":")
	if !hasName || !hasMode {
		return KeyFormat{}, errors.New("must be name=prefix:mode, such as acme=acme_live_:live")
	}
	return KeyFormat{name, prefix, Mode(mode)}, nil
}

// String returns f as ParseKeyFormat takes it, separated by commas.
func (f KeyFormats) String() string {
	texts := make([]string, len(f))
	for i, format := range f {
		texts[i] = fmt.Sprintf("%s=%s:%s", format.Name, format.Prefix, format.Mode)
	}
	return strings.Join(texts, ",")
}

// Check returns the first reason why a server cannot be set to f, or nil.
func (f KeyFormats) Check() error {
	if len(f) == 0 || len(f) > maxFormats {
		return fmt.Errorf("must be 1 to %d formats, not %d", maxFormats, len(f))
	}
	for i, format := range f {
		if err := format.check(); err != nil {
			return fmt.Errorf("number %d %w", i+1, err)
		}
		for j, other := range f[:i] {
			switch {
			case other.Name == format.Name:
				return fmt.Errorf("number %d has the name of number %d; each needs its own", i+1, j+1)
			case strings.HasPrefix(other.Prefix, format.Prefix) || strings.HasPrefix(format.Prefix, other.Prefix):
				return fmt.Errorf("number %d has the prefix %s, and number %d %s: none may be the start of another", i+1, format.Prefix, j+1, other.Prefix)
			}
		}
	}
	return nil
}

// check returns what is wrong with a format by itself.
func (f KeyFormat) check() error {
	switch {
	case !isFormatName(f.Name):
		return fmt.Errorf("has the name %q; a name has 1 to %d of a-z, 0-9, _ and -, and begins with a letter", Excerpt(f.Name), maxFormatName)
	case len(f.Prefix) > maxPrefix || !isPrefix(f.Prefix):
		return fmt.Errorf("has the prefix %q; a prefix has up to %d characters, words of a-z and 0-9 with an underscore after each, and begins with a letter", Excerpt(f.Prefix), maxPrefix)
	case isReserved(f.Prefix):
		return fmt.Errorf("has the prefix %s; what begins with %s is reserved for other tokens and ids", f.Prefix, strings.Join(reservedPrefixes, ", "))
	case f.Mode != ModeLive && f.Mode != ModeTest:
		return fmt.Errorf("has the mode %q; a mode is %s or %s", Excerpt(string(f.Mode)), ModeLive, ModeTest)
	}
	return nil
}

func isFormatName(name string) bool {
	if name == "" || len(name) > maxFormatName || name[0] < 'a' || name[0] > 'z' {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		letterOrDigit := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		return !letterOrDigit && r != '_' && r != '-'
	})
}

// isPrefix reports whether text is words of lower-case letters and digits with an
// underscore after each, and begins with a letter:
// [a-z][a-z0-9]*(_[a-z0-9]+)*_
func isPrefix(text string) bool {
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return false
	}
	for i := range len(text) {
		switch c := text[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '_' && text[i-1] != '_':
		default:
			return false
		}
	}
	return text[len(text)-1] == '_'
}

// reservedPrefixes begin access tokens, secrets of webhooks and ids, so that no
// prefix of a key's secret may begin with them.
var reservedPrefixes = []string{
	"root_", TokenPrefix, webhookSecretPrefix, "api_key_", "webhook_", "event_", "delivery_", "support_", "request_", "operator_", "refusal_",
}

func isReserved(prefix string) bool {
	for _, reserved := range reservedPrefixes {
		if strings.HasPrefix(prefix, reserved) {
			return true
		}
	}
	return false
}

// Prefixes returns the prefixes of f, in its order.
func (f KeyFormats) Prefixes() []string {
	prefixes := make([]string, len(f))
	for i, format := range f {
		prefixes[i] = format.Prefix
	}
	return prefixes
}

// Choose returns the format of a key that is created with a mode, by default live,
// and with the name of a format or none. It returns what is wrong with the two where
// there is none.
func (f KeyFormats) Choose(name string, mode Mode) (KeyFormat, *FieldProblem) {
	mode = cmp.Or(mode, ModeLive)
	if name == "" {
		if format, ok := f.first(mode); ok {
			return format, nil
		}
		return KeyFormat{}, &FieldProblem{"mode", fmt.Sprintf("is %s, for which this server has no key format", mode)}
	}
	i := slices.IndexFunc(f, func(format KeyFormat) bool { return format.Name == name })
	switch {
	case i < 0:
		names := make([]string, len(f))
		for i, format := range f {
			names[i] = format.Name
		}
		return KeyFormat{}, &FieldProblem{"key_format", "is not a key format of this server; these are: " + strings.Join(names, ", ")}
	case f[i].Mode != mode:
		return KeyFormat{}, &FieldProblem{"key_format", fmt.Sprintf("is of the mode %s, and the key's is %s", f[i].Mode, mode)}
	}
	return f[i], nil
}

// Next returns the format of the next secret of k: the one of k's secret while the
// server has it, else the first of k's mode. It is the zero KeyFormat where the
// server has none of that mode.
func (f KeyFormats) Next(k *Key) KeyFormat {
	for _, format := range f {
		if format.Name == k.Format && format.Mode == k.Mode {
			return format
		}
	}
	format, _ := f.first(k.Mode)
	return format
}

// first returns the first format of a mode.
func (f KeyFormats) first(mode Mode) (KeyFormat, bool) {
	for _, format := range f {
		if format.Mode == mode {
			return format, true
		}
	}
	return KeyFormat{}, false
}
