package api

// HoldRootUses keeps the event about the first use of a root token in an hour out of the
// log, for tests that count positions.
func (a *API) HoldRootUses() { a.chain.rootUses.mu.Lock() }

// ListOf names the list of events that a request asks for.
var ListOf = listOf
