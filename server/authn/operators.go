package authn

import (
	"context"
	"crypto/subtle"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// OperatorTokenPrefix begins the access tokens that the server makes.
const OperatorTokenPrefix = "root_"

// RootID names the operator whose root token is configured rather than stored, and is
// what people call every root token.
const RootID = "root"

// TokenTTL is how old the list of stored tokens may be: a token that was reset
// stops working within it, and the new one works.
const TokenTTL = time.Second

// Operators knows the root tokens, with which operators may do everything. Its zero fields are explained
// one by one; it must not be copied after first use.
type Operators struct {
	// Peppers hash tokens. Required.
	Peppers *keyring.Peppers
	// Stored reads the stored tokens. Required where there is no configured one.
	Stored func(ctx context.Context) ([]keyring.OperatorToken, error)
	// Now is the clock. Required.
	Now func() time.Time

	root atomic.Pointer[apikey.Hash]

	mu     sync.Mutex
	tokens []keyring.OperatorToken
	read   time.Time
}

// SetRoot makes token the configured one, which is the only one then. The empty
// token takes the configured one away, if there was one.
func (o *Operators) SetRoot(token masked.Text) {
	if token.IsZero() {
		o.root.Store(nil)
		return
	}
	hash := o.Peppers.Hash(0, token.Reveal())
	o.root.Store(&hash)
}

// find returns the id of the operator whose token credential is. Every stored
// token is compared, each in constant time.
func (o *Operators) find(ctx context.Context, credential string) (string, error) {
	if root := o.root.Load(); root != nil {
		if got := o.Peppers.Hash(0, credential); subtle.ConstantTimeCompare(root[:], got[:]) != 1 {
			return "", apikey.ErrBadCredential()
		}
		return RootID, nil
	}
	tokens, err := o.current(ctx)
	if err != nil {
		return "", fmt.Errorf("read the root tokens: %w", err)
	}
	var id string
	for i := range o.Peppers.Len() {
		got := o.Peppers.Hash(i, credential)
		for _, t := range tokens {
			if subtle.ConstantTimeCompare(t.Hash[:], got[:]) == 1 {
				id = t.ID
			}
		}
	}
	if id == "" {
		return "", apikey.ErrBadCredential()
	}
	return id, nil
}

// current returns the stored tokens, at most TokenTTL old.
func (o *Operators) current(ctx context.Context) ([]keyring.OperatorToken, error) {
	now := o.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tokens != nil && now.Sub(o.read) < TokenTTL && !now.Before(o.read) {
		return o.tokens, nil
	}
	tokens, err := o.Stored(ctx)
	if err != nil {
		return nil, err
	}
	o.tokens, o.read = tokens, now
	return tokens, nil
}
