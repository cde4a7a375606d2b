package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

// blockedAddress says the same for every address that is refused.
var blockedAddress = webhook.Failure{Class: webhook.ClassBlockedAddress, Message: "The host's address is not one that webhooks may call."}

// failureOf returns the class and the words of what an attempt failed with. The
// error's own words stay inside, but for those about certificates: they can hold
// addresses of our network and whatever the endpoint sent.
func failureOf(err error) webhook.Failure {
	if errors.Is(err, webhook.ErrBlockedAddress) {
		return blockedAddress
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return webhook.Failure{Class: webhook.ClassDNSError, Message: "The host does not exist."}
		}
		return webhook.Failure{Class: webhook.ClassDNSError, Message: "The host could not be looked up."}
	}
	if timeout, ok := errors.AsType[net.Error](err); errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout() {
		return webhook.Failure{Class: webhook.ClassTimeout, Message: "The endpoint did not answer completely in time."}
	}
	if message := tlsMessage(err); message != "" {
		return webhook.Failure{Class: webhook.ClassTLSError, Message: message}
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return webhook.Failure{Class: webhook.ClassConnectionRefused, Message: "The endpoint refused the connection."}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return webhook.Failure{Class: webhook.ClassConnectionFailed, Message: "The endpoint could not be reached."}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), isNetwork(err), strings.Contains(err.Error(), "server closed idle connection"):
		return webhook.Failure{Class: webhook.ClassConnectionFailed, Message: "The connection broke before the answer was complete."}
	}
	return webhook.Failure{Class: webhook.ClassInvalidResponse, Message: "The endpoint's answer is not valid HTTP, or its headers are too large."}
}

// isNetwork reports whether err came from a connection, such as a reset.
func isNetwork(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

// tlsMessage returns the words for a failure of TLS, or "".
func tlsMessage(err error) string {
	if errors.Is(err, http.ErrSchemeMismatch) {
		return "The endpoint does not speak TLS."
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "The endpoint does not speak TLS."
	}
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return certificateMessage(bad.Err)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return "The endpoint ended the TLS handshake: " + plain(op.Err.Error()) + "."
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if strings.HasPrefix(inner.Error(), "tls: ") {
			return "The TLS handshake failed: " + plain(inner.Error()) + "."
		}
	}
	return ""
}

func certificateMessage(err error) string {
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "The endpoint's certificate is for another host."
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "The endpoint's certificate is signed by an unknown authority."
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "The endpoint's certificate has expired or is not valid yet."
	}
	return "The endpoint's certificate is not valid."
}

// plain bounds a text that is to be shown and leaves visible ASCII alone.
func plain(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f {
			return -1
		}
		return c
	}, s)
	return s[:min(len(s), 120)]
}

// statusFailure returns the failure that an answer's status is; a 2xx is none.
func statusFailure(status int) webhook.Failure {
	switch {
	case status >= 200 && status <= 299:
		return webhook.Failure{}
	case status >= 300 && status <= 399:
		return webhook.Failure{Class: webhook.ClassHTTPStatus, Message: fmt.Sprintf("The endpoint answered %s; redirects are not followed.", statusName(status))}
	default:
		return webhook.Failure{Class: webhook.ClassHTTPStatus, Message: fmt.Sprintf("The endpoint answered %s.", statusName(status))}
	}
}

// statusName is the code with its usual name, never with the endpoint's words.
func statusName(code int) string {
	if text := http.StatusText(code); text != "" {
		return fmt.Sprintf("%d %s", code, text)
	}
	return fmt.Sprint(code)
}
