// Package broken names the faults that the tests of replicas have to find. Only a
// build with the tag broken has them, and one of them at a time, which the variable
// APIKEYS_BROKEN names:
//
//	go test -tags broken -run Broken ./server/chaostest -chaos=2m
//
// Every other build asks a function that is always false, so that the compiler leaves
// the fault out.
package broken

// Fault is one way in which a build is broken. Its text is the value of
// APIKEYS_BROKEN.
type Fault string

// The faults.
const (
	// StaleEntry keeps what a slow read has found of a key, although the key was
	// changed meanwhile.
	StaleEntry Fault = "stale-entry"
	// DropEarly tells the cache, the feed and the fan-out of a change before its
	// commit, inside the transaction.
	DropEarly Fault = "drop-early"
	// KeepOthers does not drop what is cached of keys that other replicas have
	// changed.
	KeepOthers Fault = "keep-others"
	// ServeStale serves entries however long the log was not read.
	ServeStale Fault = "serve-stale"
	// AnswerEarly answers a change whatever becomes of its commit.
	AnswerEarly Fault = "answer-early"
	// RefillTwice refills a quota and does not note that it was refilled.
	RefillTwice Fault = "refill-twice"
	// GrantUnreserved gives units of a quota away and does not take them off.
	GrantUnreserved Fault = "grant-unreserved"
	// HeartbeatEarly sends heartbeats of events that were not sent yet.
	HeartbeatEarly Fault = "heartbeat-early"
	// WatchSkips lets a watcher that is behind go on at the newest events.
	WatchSkips Fault = "watch-skips"
	// ClaimUnfenced gives a claim up before its attempt, so that other workers claim the
	// delivery too.
	ClaimUnfenced Fault = "claim-unfenced"
	// FanOutEarly notes that an organization was fanned out before its deliveries are
	// made.
	FanOutEarly Fault = "fan-out-early"
	// LocalClock checks expiry by the replica's own clock.
	LocalClock Fault = "local-clock"
	// ExactLocal keeps a limit that is exact on each replica by itself.
	ExactLocal Fault = "exact-local"
)
