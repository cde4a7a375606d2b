package wire

import (
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Caller returns the message of whoever makes a call, on a server with a catalogue.
func Caller(c *apikey.Caller, catalogue []string) *apikeysv1.Caller {
	m := &apikeysv1.Caller{
		Actor:          actorMessage(c.Actor),
		Credential:     credentials.number[c.Credential()],
		PreviousSecret: c.Rights.Previous,
		OrganizationId: c.Organization,
		Organizations:  c.Rights.Organizations,
		Scopes:         c.Rights.Scopes.Expand(catalogue),
		GrantedScopes:  c.Rights.Scopes,
		Mode:           modes.number[c.Rights.Mode],
	}
	if c.Rights.Organization != "" {
		m.Organizations = []string{c.Rights.Organization}
	}
	if !c.Rights.AnyAddress {
		m.IpAllowList = ranges(c.Rights.Addresses)
	}
	if c.Rights.Until.Before(apikey.Endless) {
		m.ExpiresAt = Timestamp(c.Rights.Until)
	}
	if c.Addr.IsValid() {
		m.Ip = c.Addr.String()
	}
	return m
}
