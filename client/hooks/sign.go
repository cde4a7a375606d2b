package hooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers that every delivery carries. The last three are those of Standard
// Webhooks.
const (
	HeaderClassicSignature = "X-Webhook-Signature"
	HeaderClassicTimestamp = "X-Webhook-Timestamp"
	HeaderEvent            = "X-Webhook-Event"
	HeaderDelivery         = "X-Webhook-Delivery"
	HeaderID               = "Webhook-Id"
	HeaderTimestamp        = "Webhook-Timestamp"
	HeaderSignature        = "Webhook-Signature"
)

// Tolerance is how far the clocks of sender and receiver may be apart before
// [Verify] takes a delivery for a replayed one.
const Tolerance = 5 * time.Minute

// The reasons why a delivery does not verify.
var (
	ErrBadSecret    = errors.New("the secret is not whsec_ and the base64 of 24 to 64 bytes")
	ErrNoSignature  = errors.New("the request lacks webhook-id, webhook-timestamp or webhook-signature")
	ErrBadTimestamp = errors.New("webhook-timestamp is not a time within five minutes of now")
	ErrBadSignature = errors.New("no signature fits the body and the secret")
)

// Verify reports whether a request with header and body is a delivery that was
// signed with secret, the text that begins with whsec_, about now. body is what
// was received, byte for byte: parse it afterwards.
func Verify(secret string, header http.Header, body []byte, now time.Time) error {
	parsed, err := ParseSecret(secret)
	if err != nil {
		return ErrBadSecret
	}
	id, timestamp, signatures := header.Get(HeaderID), header.Get(HeaderTimestamp), header.Get(HeaderSignature)
	if id == "" || timestamp == "" || signatures == "" {
		return ErrNoSignature
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != timestamp {
		return ErrBadTimestamp
	}
	if at := time.Unix(seconds, 0); at.Before(now.Add(-Tolerance)) || at.After(now.Add(Tolerance)) {
		return ErrBadTimestamp
	}
	want := signature(parsed, id, timestamp, body)
	for s := range strings.FieldsSeq(signatures) {
		// Of equal length or not, no time tells how much of it fits.
		if hmac.Equal([]byte(s), []byte(want)) {
			return nil
		}
	}
	return ErrBadSignature
}

// Sign returns the webhook-signature of a body that is sent at a time under an
// id: one signature for each secret, in their order, with a space between.
func Sign(secrets []Secret, id string, at time.Time, body []byte) string {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	all := make([]string, 0, len(secrets))
	for _, s := range secrets {
		if s.text != nil {
			all = append(all, signature(s, id, timestamp, body))
		}
	}
	return strings.Join(all, " ")
}

// signature is "v1," and the base64 of the HMAC of "id.timestamp.body" under the
// decoded key.
func signature(secret Secret, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(*secret.key))
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// SignClassic returns the X-Webhook-Signature of a body: the lower-case hex of
// its HMAC under the text of the secret, whsec_ included. It covers no time, so
// it does not tell a delivery from its replay.
func SignClassic(secret Secret, body []byte) string {
	if secret.text == nil {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}
