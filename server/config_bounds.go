package server

import (
	"time"

	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/connection"
)

// checkBounds tells fault what is wrong with the bounds of connections.
func (c Config) checkBounds(fault func(setting, format string, args ...any)) {
	if c.ConnectionsMax < 1 || c.ConnectionsMax > 1_000_000 {
		fault("connections_max", "must be 1 to 1,000,000")
	}
	if c.ConnectionsPerAddress < 1 || c.ConnectionsPerAddress > 1_000_000 {
		fault("connections_per_address", "must be 1 to 1,000,000")
	}
	for setting, timeout := range map[string]time.Duration{
		"credential_timeout": c.CredentialTimeout, "header_timeout": c.HeaderTimeout,
		"message_timeout": c.MessageTimeout, "answer_timeout": c.AnswerTimeout,
	} {
		if timeout < time.Millisecond || timeout > time.Hour {
			fault(setting, "must be up to an hour")
		}
	}
	if c.AnswerBytesPerCaller < api.MaxRequest {
		fault("answer_bytes_per_caller", "must be at least 1048576, which is the size of one page")
	}
	if c.AnswerBytesMax < c.AnswerBytesPerCaller {
		fault("answer_bytes_max", "must not be less than answer_bytes_per_caller")
	}
	if c.FailuresPerSecond < 1 || c.FailuresPerSecond > 1_000_000 {
		fault("failures_per_second", "must be 1 to 1,000,000")
	}
}

// connections returns the bounds of connections.
func (c Config) connections() connection.Config {
	return connection.Config{
		Max:                  c.ConnectionsMax,
		MaxPerAddress:        c.ConnectionsPerAddress,
		TrustedProxies:       c.TrustedProxies,
		CredentialTimeout:    c.CredentialTimeout,
		MessageTimeout:       c.MessageTimeout,
		AnswerTimeout:        c.AnswerTimeout,
		MaxFailures:          c.FailuresPerSecond,
		MaxAnswerBytes:       c.AnswerBytesMax,
		MaxCallerAnswerBytes: c.AnswerBytesPerCaller,
		Logger:               c.Logger,
	}
}
