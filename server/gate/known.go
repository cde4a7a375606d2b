package gate

import (
	"strings"
	"sync"
)

// known keeps what questions ask for, by the text that they ask it with, of which a
// network has as many as its gateways have routes.
type known struct {
	mu   sync.RWMutex
	need map[string]*requirement
}

// The bounds of what is kept.
const (
	maxKnown     = 1024
	maxKnownText = 1 << 10
)

func (k *known) put(text string, need *requirement) {
	if len(text) > maxKnownText {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.need == nil {
		k.need = make(map[string]*requirement)
	}
	if len(k.need) < maxKnown {
		k.need[text] = need
	}
}

// queries knows the queries of the endpoint.
type queries struct{ known }

// parse is parseQuery, from memory where it can be.
func (k *queries) parse(raw string) (*requirement, error) {
	k.mu.RLock()
	need := k.need[raw]
	k.mu.RUnlock()
	if need != nil {
		return need, nil
	}
	need, err := parseQuery(raw)
	if err == nil {
		k.put(raw, need)
	}
	return need, err
}

// routes knows the context extensions of routes of Envoy.
type routes struct{ known }

// parse is parseExtensions, from memory where it can be.
func (k *routes) parse(q *question) (*requirement, error) {
	k.mu.RLock()
	need := k.need[string(q.key)]
	k.mu.RUnlock()
	if need != nil {
		return need, nil
	}
	extensions := make(map[string]string, len(q.extensions))
	for _, e := range q.extensions {
		// What is kept must not keep the message.
		extensions[strings.Clone(e.name)] = strings.Clone(e.value)
	}
	need, err := parseExtensions(extensions)
	if err == nil {
		k.put(string(q.key), need)
	}
	return need, err
}
