package server

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
)

// validate returns what is wrong with c, a line for each fault, or nil. It is
// asked after withDefaults and opens nothing.
func (c Config) validate() error {
	var faults []error
	fault := func(setting, format string, args ...any) {
		faults = append(faults, fmt.Errorf(setting+": "+format, args...))
	}
	oneOf := func(setting, value string, words ...string) {
		if !slices.Contains(words, value) {
			fault(setting, "must be %s, not %q", strings.Join(words, " or "), apikey.Excerpt(value))
		}
	}
	together := func(setting, value, other, otherValue string) {
		if (value == "") != (otherValue == "") {
			fault(setting, "must be set together with %s", other)
		}
	}
	if err := checkAddr(c.RESTAddr); err != nil {
		fault("rest_addr", "%w", err)
	}
	if err := checkAddr(c.GRPCAddr); err != nil {
		fault("grpc_addr", "%w", err)
	}
	if c.OpsAddr != "" {
		if err := checkAddr(opsAddr(c.OpsAddr)); err != nil {
			fault("ops_addr", "%w", err)
		}
		if addr := opsAddr(c.OpsAddr); (addr == c.RESTAddr || addr == c.GRPCAddr) && !strings.HasSuffix(addr, ":0") {
			fault("ops_addr", "must not be rest_addr or grpc_addr, %s", addr)
		}
	}
	if c.RESTAddr == c.GRPCAddr && !strings.HasSuffix(c.RESTAddr, ":0") {
		fault("grpc_addr", "must not be rest_addr, %s", c.RESTAddr)
	}
	c.checkGate(fault)
	if !c.mayBeReached() {
		for setting, addr := range map[string]string{"rest_addr": c.RESTAddr, "grpc_addr": c.GRPCAddr, "ops_addr": opsAddr(c.OpsAddr), "gate_addr": c.GateAddr} {
			if host, _, err := net.SplitHostPort(addr); err == nil && offLoopback(host) {
				fault(setting, needsTLS, addr)
			}
		}
	}
	if _, _, err := c.gateRules(); err != nil {
		faults = append(faults, err)
	}
	c.checkDatabase(fault)
	if !c.RootToken.IsZero() && c.RootTokenFile != "" {
		fault("root_token", "must not be set together with root_token_file")
	} else if !c.RootToken.IsZero() {
		if err := c.checkToken(c.RootToken); err != nil {
			fault("root_token", "%w", err)
		}
	}
	oneOf("env", c.Env, Development, Production)
	oneOf("absent_scopes", c.AbsentScopes, AbsentScopesNone, AbsentScopesAll)
	together("tls_cert", c.TLSCert, "tls_key", c.TLSKey)
	if c.Plaintext && c.TLSCert != "" {
		fault("plaintext", "must not be set together with tls_cert: TLS ends either here or in front")
	}
	for _, p := range c.TrustedProxies {
		if !p.IsValid() {
			fault("trusted_proxies", "holds a range that is none")
		}
	}
	for _, p := range identity.Check(c.OIDC, c.Env == Development, apikey.Catalogue(c.Scopes)) {
		fault(p.Field, "%s", p.Problem)
	}
	c.checkBounds(fault)
	if err := checkCatalogue(c.Scopes); err != nil {
		fault("scopes", "%w", err)
	}
	if err := c.KeyFormats.Check(); err != nil {
		fault("key_formats", "%w", err)
	}
	if c.IdempotencyRetention < time.Minute || c.IdempotencyRetention > 30*24*time.Hour {
		fault("idempotency_retention", "must be a minute to 30 days")
	}
	if c.IdempotencyMax < 1 || c.IdempotencyMax > 10_000_000 {
		fault("idempotency_max", "must be 1 to 10,000,000")
	}
	if c.IdempotencyBytesMax < 1<<20 || c.IdempotencyBytesMax > 1<<40 {
		fault("idempotency_bytes_max", "must be 1 MiB to 1 TiB")
	}
	if most := 366 * 24 * time.Hour; c.ExpiringNotice > most {
		fault("expiring_notice", "must be at most 366 days")
	}
	if c.EventRetention < time.Minute {
		fault("event_retention", "must be at least a minute")
	}
	if c.RefusalRetention < time.Minute {
		fault("refusal_retention", "must be at least a minute")
	}
	if c.RefusalsMax < 1000 || c.RefusalsMax > 100_000_000 {
		fault("refusals_max", "must be 1000 to 100000000")
	}
	if c.HourlyUsageRetention < time.Hour {
		fault("hourly_usage_retention", "must be at least an hour")
	}
	if c.DailyUsageRetention < 24*time.Hour {
		fault("daily_usage_retention", "must be at least a day")
	}
	// A day answers for its hours.
	if c.DailyUsageRetention < c.HourlyUsageRetention {
		fault("daily_usage_retention", "must not be shorter than hourly_usage_retention")
	}
	if c.DeliveryRetention < time.Minute {
		fault("delivery_retention", "must be at least a minute")
	}
	// A delivery's body is made of its event.
	if c.DeliveryRetention > c.EventRetention {
		fault("delivery_retention", "must not be longer than event_retention")
	}
	for _, p := range c.WebhooksAllowNetworks {
		if !p.IsValid() {
			fault("webhooks_allow_networks", "holds a range that is none")
		}
	}
	for _, d := range c.WebhooksDelays {
		if d <= 0 || d > 7*24*time.Hour {
			fault("webhooks_delays", "must be times of up to 7 days")
		}
	}
	if c.WebhooksDisableAfter < time.Minute {
		fault("webhooks_disable_after", "must be at least a minute")
	}
	if c.KeysMax < 0 {
		fault("keys_max", "must not be negative")
	}
	if c.OperatorTokensMax < 1 || c.OperatorTokensMax > 100_000 {
		fault("operator_tokens_max", "must be 1 to 100,000")
	}
	if c.WebhooksMax < 1 || c.WebhooksMax > 10_000 {
		fault("webhooks_max", "must be 1 to 10,000")
	}
	if c.WebhooksInFlight < 1 || c.WebhooksInFlight > 256 {
		fault("webhooks_in_flight", "must be 1 to 256")
	}
	if c.WebhooksInFlightHost < 1 || c.WebhooksInFlightHost > 4096 {
		fault("webhooks_in_flight_host", "must be 1 to 4,096")
	}
	if c.WebhooksInFlightOrganization < 1 || c.WebhooksInFlightOrganization > 4096 {
		fault("webhooks_in_flight_organization", "must be 1 to 4,096")
	}
	if c.WebhooksMaxBehind < time.Second {
		fault("webhooks_max_behind", "must be at least a second")
	}
	if c.ShutdownDelay < 0 || c.ShutdownDelay > 10*time.Minute {
		fault("shutdown_delay", "must be 0 to 10 minutes")
	}
	if c.ShutdownTimeout < 0 {
		fault("shutdown_timeout", "must not be negative")
	}
	return errors.Join(faults...)
}

// checkCatalogue reports the first scope that cannot be one.
func checkCatalogue(scopes []string) error {
	for i, s := range scopes {
		switch {
		case s == apikey.AllScopes:
			return errors.New("must not name *, which stands for all of them")
		case apikey.IsOperatorScope(s):
			return fmt.Errorf("must not name %s, which is for the tokens of operators alone", apikey.Excerpt(s))
		case s == "" || len(s) > 128:
			return fmt.Errorf("must have 1 to 128 characters each; number %d has %d", i+1, len(s))
		case strings.ContainsFunc(s, notInScope):
			return fmt.Errorf("may hold only letters, digits and _ . : - /, unlike %q", apikey.Excerpt(s))
		case slices.Contains(scopes[:i], s):
			return fmt.Errorf("names %s twice", apikey.Excerpt(s))
		}
	}
	return nil
}

func notInScope(r rune) bool {
	letterOrDigit := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letterOrDigit && !strings.ContainsRune("_.:-/", r)
}
