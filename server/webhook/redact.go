package webhook

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/url"
	"slices"
	"strings"
)

// MaxKeptAnswer bounds what is kept of an endpoint's answer, in bytes.
const MaxKeptAnswer = 16 << 10

// minRedacted is the length from which a text is taken for a secret: shorter ones
// are none, and masking them would hide half of an answer.
const minRedacted = 4

// KeptAnswer returns what is kept of body, which an endpoint answered: its first
// 16 KiB, with the webhook's secrets and header values masked. An endpoint that
// echoes what it was sent must not bring them into the delivery log, so they are
// masked first and body is cut afterwards. body may be the beginning of a longer
// answer: the beginning of a secret at its end is masked as well.
func (w *Webhook) KeptAnswer(body []byte) []byte {
	if len(body) == 0 {
		return nil
	}
	body = mask(body, w.hiddenTexts())
	if len(body) > MaxKeptAnswer {
		body = bytes.Clone(body[:MaxKeptAnswer])
	}
	return body
}

// hiddenTexts returns the texts that no answer may bring back, each in the forms in
// which an endpoint that echoes would show it.
func (w *Webhook) hiddenTexts() [][]byte {
	var list [][]byte
	add := func(text string) {
		quoted, _ := json.Marshal(text) //nolint:errchkjson // a text always has a form
		for _, form := range []string{
			text, string(quoted[1 : len(quoted)-1]), html.EscapeString(text), url.QueryEscape(text), url.PathEscape(text),
			base64.StdEncoding.EncodeToString([]byte(text)),
		} {
			if len(form) >= minRedacted && !slices.ContainsFunc(list, func(known []byte) bool { return string(known) == form }) {
				list = append(list, []byte(form))
			}
		}
	}
	for _, h := range w.Headers {
		value := h.Value.Reveal()
		if len(value) < minRedacted {
			continue
		}
		add(value)
		// The credential of "Bearer credential", and the like.
		for _, word := range strings.FieldsFunc(value, func(c rune) bool { return strings.ContainsRune(" ,;=", c) }) {
			if len(word) > 2*minRedacted {
				add(word)
			}
		}
		if encoded, ok := strings.CutPrefix(value, "Basic "); ok {
			if decoded, err := base64.StdEncoding.DecodeString(encoded); err == nil {
				add(string(decoded))
				if _, password, ok := strings.Cut(string(decoded), ":"); ok && len(password) >= minRedacted {
					add(password)
				}
			}
		}
	}
	for _, s := range w.Secrets {
		add(s.Secret.Reveal())
	}
	return list
}

// mask returns body with every part replaced that is one of texts, or, at its end,
// the beginning of one. Parts that overlap are replaced together, so that nothing of
// the longer one is left.
func mask(body []byte, texts [][]byte) []byte {
	type part struct{ from, to int }
	var found []part
	for _, text := range texts {
		for from := 0; ; {
			i := bytes.Index(body[from:], text)
			if i < 0 {
				break
			}
			found = append(found, part{from + i, from + i + len(text)})
			from += i + 1
		}
		for n := min(len(text)-1, len(body)); n >= minRedacted; n-- {
			if bytes.HasSuffix(body, text[:n]) {
				found = append(found, part{len(body) - n, len(body)})
				break
			}
		}
	}
	if len(found) == 0 {
		return body
	}
	slices.SortFunc(found, func(a, b part) int { return cmp.Compare(a.from, b.from) })
	masked := make([]byte, 0, len(body))
	end := 0
	for _, p := range found {
		if p.from >= end {
			masked = append(append(masked, body[end:p.from]...), HeaderMask...)
		}
		end = max(end, p.to)
	}
	return append(masked, body[end:]...)
}
