package store

import (
	"maps"
	"slices"
	"strings"
)

// postgresTimeouts are what PostgreSQL itself bounds, in milliseconds, for the
// transactions of the pools. All are below statementsTimeout, so that PostgreSQL answers
// why before the connection is given up.
//
// A server that is paused, or cut off, in the middle of a transaction holds what that
// has locked, the counter of events among it, for which every server waits. So such a
// transaction ends before those who wait for it give up.
var postgresTimeouts = map[string]string{
	"idle_in_transaction_session_timeout": "4000",
	"lock_timeout":                        "6000",
	"statement_timeout":                   "9000",
}

// noTimeouts lifts them.
var noTimeouts = map[string]string{
	"idle_in_transaction_session_timeout": "0",
	"lock_timeout":                        "0",
	"statement_timeout":                   "0",
}

// timeouts returns those of the database's transactions. What its URL sets counts more.
func (d *postgresDatabase) timeouts() map[string]string {
	timeouts := maps.Clone(postgresTimeouts)
	for name := range timeouts {
		if set := d.config.RuntimeParams[name]; set != "" {
			timeouts[name] = set
		}
	}
	return timeouts
}

// setTimeouts returns the statement that sets timeouts until the end of a transaction.
func setTimeouts(timeouts map[string]string) string {
	var calls []string
	for _, name := range slices.Sorted(maps.Keys(timeouts)) {
		value := strings.ReplaceAll(timeouts[name], "'", "''")
		calls = append(calls, "set_config('"+name+"', '"+value+"', true)")
	}
	return "SELECT " + strings.Join(calls, ", ")
}
