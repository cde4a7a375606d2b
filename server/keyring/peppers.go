package keyring

import (
	"time"

	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// Peppers hash secrets, with HMAC-SHA-256. The first of them is used for new
// secrets; the others still find the secrets that were made under them. Beside
// them stands the edge key: programs at the edge look secrets up by their hash
// under it, so that no pepper ever leaves the server. The keys are held by
// functions only, so that no way of printing a Peppers shows one.
type Peppers struct {
	ids  []string
	macs []macs // one for each pepper
	edge macs
}

// macs is the states of the HMAC under one key that are not in use.
type macs struct{ pool sync.Pool } // of *mac

// mac is the state of one HMAC with the buffers that its calls would otherwise
// make escape to the heap.
type mac struct {
	hash hash.Hash
	in   [apikey.MaxSecretLength]byte
	out  apikey.Hash
}

func (m *macs) init(k Key) {
	m.pool.New = func() any { return &mac{hash: hmac.New(sha256.New, k.bytes())} }
}

// sum allocates nothing once it is warm.
func (m *macs) sum(text string) apikey.Hash {
	h := m.pool.Get().(*mac)
	h.hash.Reset()
	h.hash.Write(h.in[:copy(h.in[:], text)])
	h.hash.Sum(h.out[:0])
	sum := h.out
	m.pool.Put(h)
	return sum
}

// NewPeppers returns peppers, newest first, of which it needs one at least, and
// the edge key.
func NewPeppers(edge Key, keys ...Key) *Peppers {
	p := &Peppers{ids: make([]string, len(keys)), macs: make([]macs, len(keys))}
	for i, k := range keys {
		p.ids[i] = k.ID
		p.macs[i].init(k)
	}
	p.edge.init(edge)
	return p
}

// Len returns the number of peppers.
func (p *Peppers) Len() int { return len(p.ids) }

// Newest returns the id of the pepper for new secrets.
func (p *Peppers) Newest() string { return p.ids[0] }

// Hash returns the hash of text, of which [apikey.MaxSecretLength] bytes count,
// under pepper i, counted from the newest. It allocates nothing once it is warm.
func (p *Peppers) Hash(i int, text string) apikey.Hash { return p.macs[i].sum(text) }

// Hashes returns the hash of text under every pepper, newest first.
func (p *Peppers) Hashes(text string) []apikey.Hash {
	hashes := make([]apikey.Hash, len(p.ids))
	for i := range p.ids {
		hashes[i] = p.Hash(i, text)
	}
	return hashes
}

// Stored returns what is kept of secret: its hash under the newest pepper, its
// hash under the edge key, and its mask.
func (p *Peppers) Stored(secret apikey.Secret) apikey.StoredSecret {
	text := secret.Reveal()
	return apikey.StoredSecret{Hash: p.Hash(0, text), PepperID: p.Newest(), EdgeHash: p.edge.sum(text), Mask: secret.Mask()}
}

// OperatorToken is an access token of an operator, as it is stored: its hash under
// one of the peppers.
type OperatorToken struct {
	ID        string
	Hash      apikey.Hash
	PepperID  string
	CreatedAt time.Time
}
