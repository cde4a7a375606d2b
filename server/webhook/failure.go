package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// failureOf returns the class and the words of what an attempt failed with. The
// error's own words stay inside, but for those about certificates: they can hold
// addresses of our network and whatever the endpoint sent.
func failureOf(err error) Failure {
	if blocked, ok := errors.AsType[*blockedError](err); ok {
		return Failure{ClassBlockedAddress, "The host resolves to " + blocked.what + ", which webhooks may not call."}
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return Failure{ClassDNSError, "The host does not exist."}
		}
		return Failure{ClassDNSError, "The host could not be looked up."}
	}
	if timeout, ok := errors.AsType[net.Error](err); errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout() {
		return Failure{ClassTimeout, "The endpoint did not answer completely in time."}
	}
	if message := tlsMessage(err); message != "" {
		return Failure{ClassTLSError, message}
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Failure{ClassConnectionRefused, "The endpoint refused the connection."}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return Failure{ClassConnectionFailed, "The endpoint could not be reached."}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), isNetwork(err):
		return Failure{ClassConnectionFailed, "The connection broke before the answer was complete."}
	}
	return Failure{ClassInvalidResponse, "The endpoint's answer is not valid HTTP, or its headers are too large."}
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
