package apikey

import (
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// RefusalIDPrefix begins every refusal's id.
const RefusalIDPrefix = "refusal_"

// CodePreviousSecret is why a call was refused that needs the current secret and was
// made with the previous one. It is of refusals alone: no verification says it.
const CodePreviousSecret Code = "previous_secret"

// RefusalVia is how a refused secret came.
type RefusalVia string

// The ways.
const (
	// ViaVerification is that somebody asked about it.
	ViaVerification RefusalVia = "verification"
	// ViaAuthentication is that a call on this server was made with it.
	ViaAuthentication RefusalVia = "authentication"
)

// MaxRefusals bounds the refusals that are kept of a key: the newest.
const MaxRefusals = 100

// RefusedUse is one use of a key that was refused.
type RefusedUse struct {
	ID        string
	At        time.Time
	Code      Code
	Via       RefusalVia
	IP        string // empty where it is not known
	UserAgent string
	// Caller is whoever asked about the key; the key itself where a call was made with
	// it.
	Caller Actor
}

// LastUse is from where a key was used last: see [Usage] for when.
type LastUse struct {
	IP, UserAgent string
	// Addresses is how many addresses it was used from on the day AddressDay: see
	// [Addresses].
	Addresses, AddressDay int64
}

// AddressText returns an address as it is kept: without a zone, which can be any text,
// and empty where it is not known.
func AddressText(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.Unmap().WithZone("").String()
}

// The bounds of what is kept of the name of a program.
const (
	// MaxUserAgent is how many characters are kept.
	MaxUserAgent = 256
	// maxAgentBytes bounds what is looked at.
	maxAgentBytes = 4 * MaxUserAgent
)

// UserAgent returns what is kept of the name that a program gives itself: its first
// [MaxUserAgent] characters, none of them a control character or one that acts like
// one, and masked where it looks like a credential.
func (f *SecretFinder) UserAgent(text string) string {
	if len(text) > maxAgentBytes {
		text = text[:maxAgentBytes]
	}
	text = strings.ToValidUTF8(text, "")
	if strings.ContainsFunc(text, hiddenInAgent) {
		text = strings.Map(func(c rune) rune {
			if hiddenInAgent(c) {
				return -1
			}
			return c
		}, text)
	}
	// After that: a character that was taken away may have kept a secret apart.
	text = f.Redact(text)
	if utf8.RuneCountInString(text) > MaxUserAgent {
		at := 0
		for range MaxUserAgent {
			_, size := utf8.DecodeRuneInString(text[at:])
			at += size
		}
		text = text[:at]
	}
	return strings.Clone(text)
}

// hiddenInAgent reports whether c is not shown, or changes how what follows is.
func hiddenInAgent(c rune) bool { return unicode.Is(unicode.C, c) || c == '\u2028' || c == '\u2029' }
