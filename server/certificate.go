package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
)

// expiryWarning is how long before its end a certificate is warned of.
const expiryWarning = 30 * 24 * time.Hour

// servingCertificate is what both listeners prove themselves with. It is read from its
// files at the start and at every reload. Connections that stand keep the one that
// they began with.
type servingCertificate struct {
	certFile, keyFile string
	now               func() time.Time
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]
}

// openCertificate reads the certificate of c. It returns nil where TLS is not set.
func openCertificate(c Config) (*servingCertificate, error) {
	if c.TLSCert == "" {
		return nil, nil
	}
	cert := &servingCertificate{certFile: c.TLSCert, keyFile: c.TLSKey, now: c.Now, log: c.Logger}
	if err := cert.reload(); err != nil {
		return nil, err
	}
	return cert, nil
}

// reload reads both files. Where they cannot be read, or do not belong together, it
// is an error, and the certificate of before stays in use.
func (c *servingCertificate) reload() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("tls_cert %s and tls_key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current.Store(&pair)
	return nil
}

// configs returns the TLS settings of the REST and the gRPC listener, both nil
// where there is no certificate.
func (c *servingCertificate) configs() (rest, grpc *tls.Config) {
	if c == nil {
		return nil, nil
	}
	rest = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
		NextProtos:     []string{"h2", "http/1.1"},
	}
	grpc = rest.Clone()
	grpc.NextProtos = []string{"h2"}
	return rest, grpc
}

// warn tells the log of a certificate of the chain that clients refuse, or will
// soon. It is a periodic job.
func (c *servingCertificate) warn(context.Context) (more bool, err error) {
	now := c.now()
	for i, der := range c.current.Load().Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return false, fmt.Errorf("tls_cert %s: certificate %d: %w", c.certFile, i+1, err)
		}
		log, left := c.log.With("file", c.certFile, "subject", cert.Subject.String()), cert.NotAfter.Sub(now)
		switch {
		case now.Before(cert.NotBefore):
			log.Warn("The TLS certificate is not valid yet: clients refuse it. Check the clock.", "not_before", cert.NotBefore.UTC())
		case left < 0:
			log.Error("The TLS certificate has expired: clients refuse it. Replace the files and send the server SIGHUP.", "not_after", cert.NotAfter.UTC())
		case left < expiryWarning:
			log.Warn("The TLS certificate expires soon. Replace the files and send the server SIGHUP.",
				"not_after", cert.NotAfter.UTC(), "days_left", int(left/(24*time.Hour)))
		}
	}
	return false, nil
}

// name returns the name that the certificate is of: host, if it may stand for that,
// else the first of its own.
func (c *servingCertificate) name(host string) string {
	leaf := c.current.Load().Leaf
	switch {
	case leaf == nil || leaf.VerifyHostname(host) == nil:
		return host
	case len(leaf.DNSNames) > 0:
		return strings.Replace(leaf.DNSNames[0], "*", "apikeys", 1)
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String()
	}
	return host
}
