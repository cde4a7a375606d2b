package apikey

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// People paste secrets where they do not belong: into a label, a path, a header.
// What is kept of a text is kept in the database and in every event, so a text
// that holds a whole secret is refused, and what an error or a log line repeats of
// a request is cut down.

// Pasted is what is wrong with a field whose text holds a secret, as the end of a
// sentence that begins with the field.
const Pasted = "must not hold a secret; leave it out, and replace the secret if others have seen it"

// The bounds of what is looked at.
const (
	// shortestToken is the least length of a configured token, and so of anything
	// that is found.
	shortestToken = 24

	webhookSecretPrefix = "whsec_"
	webhookSecretLength = 43 // base64 characters of 32 bytes, without padding
)

// SecretFinder finds whole secrets in texts. It knows the forms of everything that
// is issued here: the secrets of keys, of any prefix; access tokens; the secrets
// of webhooks. Besides, it knows tokens that have no form, which Add tells it, and those
// of OpenID Connect issuers that are meant for this server, which AddIdentityTokens tells
// it. A nil *SecretFinder knows the forms alone. Its methods are safe for concurrent use.
type SecretFinder struct {
	tokens atomic.Pointer[[]tokenFinder]
	// ours reports whether a token of an issuer is meant for this server.
	ours atomic.Pointer[func(token string) bool]
	// beginning matches what begins like a credential; nil stands for
	// defaultBeginning.
	beginning *regexp.Regexp
}

// NewSecretFinder returns a SecretFinder that knows tokens besides the forms. Of the
// secrets of keys in formats it masks a part too, which has no form.
func NewSecretFinder(formats KeyFormats, tokens ...string) *SecretFinder {
	f := &SecretFinder{beginning: beginningOf(formats)}
	for _, t := range tokens {
		f.Add(t)
	}
	return f
}

// Add makes f know a further token. One that is too short to be a token is passed
// over, since it would be found everywhere.
func (f *SecretFinder) Add(token string) {
	if len(token) < shortestToken {
		return
	}
	for {
		known := f.tokens.Load()
		more := []tokenFinder{newTokenFinder(token)}
		if known != nil {
			more = append(more, *known...)
		}
		if f.tokens.CompareAndSwap(known, &more) {
			return
		}
	}
}

// AddIdentityTokens makes f know the tokens of issuers that ours reports to be meant for
// this server. Those for others are what a webhook's headers may well hold.
func (f *SecretFinder) AddIdentityTokens(ours func(token string) bool) { f.ours.Store(&ours) }

// In reports whether a whole secret stands anywhere in text, as it is or
// percent-encoded any number of times.
func (f *SecretFinder) In(text string) bool {
	if len(text) < shortestToken {
		return false
	}
	if f.plainIn(text) {
		return true
	}
	return strings.IndexByte(text, '%') >= 0 && f.plainIn(percentDecoded(text))
}

func (f *SecretFinder) plainIn(text string) bool {
	if holdsForm(text) {
		return true
	}
	if f == nil {
		return false
	}
	if ours := f.ours.Load(); ours != nil && strings.Contains(text, identityTokenPrefix) &&
		slices.ContainsFunc(identityTokens.FindAllString(text, -1), *ours) {
		return true
	}
	tokens := f.tokens.Load()
	if tokens == nil {
		return false
	}
	for i := range *tokens {
		if (*tokens)[i].in(text) {
			return true
		}
	}
	return false
}

// HoldsSecret reports whether a whole secret of a form of ours stands anywhere in
// text.
func HoldsSecret(text string) bool { return (*SecretFinder)(nil).In(text) }

// holdsForm looks at every underscore: each prefix ends with one.
func holdsForm(text string) bool {
	for at := 0; ; at++ {
		next := strings.IndexByte(text[at:], '_')
		if next < 0 {
			return false
		}
		at += next
		if endsToken(text, at) || endsWebhookSecret(text, at) {
			return true
		}
	}
}

// endsToken reports whether a prefix ends at text[at] behind which the randomness
// and the checksum of a token follow. Which prefix it is, the checksum tells: it is
// over the prefix too.
func endsToken(text string, at int) bool {
	end := at + 1 + randomLength
	if len(text) < end+checksumLength {
		return false
	}
	for i := at + 1; i < end+checksumLength; i++ {
		if !inBase62[text[i]] {
			return false
		}
	}
	for start := at - 1; start >= 0 && start > at-maxPrefix; start-- {
		switch c := text[start]; {
		case c >= 'a' && c <= 'z':
			if hasChecksum(text[start:end], text[end:end+checksumLength]) {
				return true
			}
		case c >= '0' && c <= '9', c == '_':
		default:
			return false
		}
	}
	return false
}

// endsWebhookSecret reports whether the prefix of a webhook's secret ends at
// text[at], and 32 bytes in base64 follow. They have no checksum.
func endsWebhookSecret(text string, at int) bool {
	end := at + 1 + webhookSecretLength
	if len(text) < end || !strings.HasSuffix(text[:at+1], webhookSecretPrefix) {
		return false
	}
	for i := at + 1; i < end; i++ {
		if c := text[i]; !inBase62[c] && !strings.ContainsRune("+/-_", rune(c)) {
			return false
		}
	}
	return true
}

// percentDecoded returns text with every percent escape decoded, and with those
// decoded that this brings forth, in one pass: however often a text was encoded,
// the work is bounded by its length.
func percentDecoded(text string) string {
	out := make([]byte, 0, len(text))
	for i := range len(text) {
		out = append(out, text[i])
		for n := len(out); n >= 3 && out[n-3] == '%'; n = len(out) {
			high, low := unhex[out[n-2]], unhex[out[n-1]]
			if high == 0 || low == 0 {
				break
			}
			out = append(out[:n-3], (high-1)<<4|(low-1))
		}
	}
	return string(out)
}

// unhex holds the values of hexadecimal digits, each one more than it is.
var unhex = func() (values [256]byte) {
	for i, c := range []byte("0123456789abcdef") {
		values[c] = byte(i + 1)
	}
	for i, c := range []byte("ABCDEF") {
		values[c] = byte(i + 11)
	}
	return values
}()

// tokenFinder finds one token by a rolling hash with a random factor, so that how
// long a text takes tells nothing about how much of the token it holds.
type tokenFinder struct {
	token  string
	factor uint64
	hash   uint64 // of token
	power  uint64 // factor to the token's length
}

func newTokenFinder(token string) tokenFinder {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails
	f := tokenFinder{token: token, factor: binary.LittleEndian.Uint64(random[:]) | 1, power: 1}
	for i := range len(token) {
		f.hash = f.hash*f.factor + uint64(token[i])
		f.power *= f.factor
	}
	return f
}

func (f *tokenFinder) in(text string) bool {
	n := len(f.token)
	if len(text) < n {
		return false
	}
	var hash uint64
	for i := range len(text) {
		hash = hash*f.factor + uint64(text[i])
		if i >= n {
			hash -= f.power * uint64(text[i-n])
		}
		if i >= n-1 && hash == f.hash && subtle.ConstantTimeCompare([]byte(text[i+1-n:i+1]), []byte(f.token)) == 1 {
			return true
		}
	}
	return false
}

// MaxExcerpt is how many characters of a text an error or a log line repeats at
// most.
const MaxExcerpt = 40

// Redacted stands where a secret is not shown.
const Redacted = "[redacted]"

// Excerpt returns what an error or a log line may repeat of a text that came from
// outside: at most [MaxExcerpt] characters, none of them a control character, and
// nothing of a text that holds a secret. A longer text is cut to half of that.
func (f *SecretFinder) Excerpt(text string) string {
	if f.In(text) {
		return Redacted
	}
	const enough = 8 * MaxExcerpt // bytes, of which no more than MaxExcerpt characters are shown
	text = f.masked(text[:min(len(text), enough)])
	var out strings.Builder
	shown, kept := 0, 0
	for _, c := range text {
		piece := string(c)
		if !unicode.IsPrint(c) || c == utf8.RuneError {
			piece = escaped(c)
		}
		if shown += utf8.RuneCountInString(piece); shown > MaxExcerpt {
			return out.String()[:kept] + "..."
		}
		out.WriteString(piece)
		if shown <= MaxExcerpt/2 {
			kept = out.Len()
		}
	}
	return out.String()
}

// Excerpt is [SecretFinder.Excerpt] where no token without a form can be known.
func Excerpt(text string) string { return (*SecretFinder)(nil).Excerpt(text) }

// escaped returns \u and the four or more hexadecimal digits of c.
func escaped(c rune) string {
	const digits = "0123456789abcdef"
	text := `\u`
	for shift := 28; shift >= 0; shift -= 4 {
		if shift < 16 || c>>shift != 0 {
			text += string(digits[c>>shift&15])
		}
	}
	return text
}

// beginningOf returns what matches texts that begin like a credential, whole or cut
// off: one that is issued by default, or the secret of a key in one of formats.
func beginningOf(formats KeyFormats) *regexp.Regexp {
	prefixes := append([]string{"root_", TokenPrefix, webhookSecretPrefix}, DefaultKeyFormats().Prefixes()...)
	prefixes = append(prefixes, formats.Prefixes()...)
	return regexp.MustCompile("(" + strings.Join(prefixes, "|") + ")[0-9A-Za-z+/=]{16,}")
}

var defaultBeginning = beginningOf(nil)

// identityTokens matches tokens of OpenID Connect issuers, whole or cut off behind their
// header.
var identityTokens = regexp.MustCompile(identityTokenPrefix + `[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_.=-]*`)

// masked returns text with everything masked in it that begins like a credential, a
// part of one too.
func (f *SecretFinder) masked(text string) string {
	if strings.Contains(text, identityTokenPrefix) {
		text = identityTokens.ReplaceAllString(text, identityTokenPrefix+Redacted)
	}
	beginning := defaultBeginning
	if f != nil && f.beginning != nil {
		beginning = f.beginning
	}
	return beginning.ReplaceAllString(text, "${1}"+Redacted)
}

// RedactSecrets returns text with everything masked in it that begins like a
// credential that is issued by default, a part of one too.
func RedactSecrets(text string) string { return (*SecretFinder)(nil).masked(text) }

// Redact returns text as it may be logged: masked where it looks like a
// credential, and nothing of it where it holds a secret all the same.
func (f *SecretFinder) Redact(text string) string {
	text = f.masked(text)
	if f.In(text) {
		return Redacted
	}
	return text
}
