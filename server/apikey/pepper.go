package apikey

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"sync"
)

// NamedKey is a secret key of the server with the id by which rows refer to it,
// so that keys can be replaced while rows under the older ones stay good.
type NamedKey struct {
	ID  string
	Key []byte
}

var (
	_ fmt.Formatter  = NamedKey{}
	_ slog.LogValuer = NamedKey{}
)

// Format writes the id alone for every verb. String alone would not do: %d and
// its like pass it by.
func (k NamedKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.ID) }

// String returns the id alone.
func (k NamedKey) String() string { return k.ID }

// GoString returns the id alone.
func (k NamedKey) GoString() string { return k.ID }

// LogValue returns the id alone.
func (k NamedKey) LogValue() slog.Value { return slog.StringValue(k.ID) }

// MarshalText returns the id alone.
func (k NamedKey) MarshalText() ([]byte, error) { return []byte(k.ID), nil }

// Hash is what is kept of a secret: its HMAC-SHA-256 under a pepper. It is never
// accepted as a credential.
type Hash [sha256.Size]byte

// Peppers hash secrets. The first of them is used for new secrets; the others
// still find the secrets that were made under them. The keys themselves are held
// by functions only, so that no way of printing a Peppers shows one.
type Peppers struct {
	ids   []string
	pools []sync.Pool // of *hasher, one for each key
}

// hasher is the state of one HMAC with the buffers that its calls would
// otherwise make escape to the heap.
type hasher struct {
	mac hash.Hash
	in  [MaxSecretLength]byte
	out Hash
}

// NewPeppers returns peppers of keys, newest first. It needs one at least.
func NewPeppers(keys []NamedKey) *Peppers {
	p := &Peppers{ids: make([]string, len(keys)), pools: make([]sync.Pool, len(keys))}
	for i, k := range keys {
		p.ids[i] = k.ID
		p.pools[i].New = func() any { return &hasher{mac: hmac.New(sha256.New, k.Key)} }
	}
	return p
}

// Len returns the number of peppers.
func (p *Peppers) Len() int { return len(p.ids) }

// Newest returns the id of the pepper for new secrets.
func (p *Peppers) Newest() string { return p.ids[0] }

// Hash returns the hash of text, of which [MaxSecretLength] bytes count, under
// pepper i, counted from the newest. It allocates nothing once it is warm.
func (p *Peppers) Hash(i int, text string) Hash {
	h := p.pools[i].Get().(*hasher)
	h.mac.Reset()
	h.mac.Write(h.in[:copy(h.in[:], text)])
	h.mac.Sum(h.out[:0])
	sum := h.out
	p.pools[i].Put(h)
	return sum
}

// Hashes returns the hash of text under every pepper, newest first.
func (p *Peppers) Hashes(text string) []Hash {
	hashes := make([]Hash, len(p.ids))
	for i := range p.ids {
		hashes[i] = p.Hash(i, text)
	}
	return hashes
}

// Stored returns what is kept of secret: its hash under the newest pepper and
// its mask.
func (p *Peppers) Stored(secret Secret) StoredSecret {
	return StoredSecret{Hash: p.Hash(0, secret.Reveal()), PepperID: p.Newest(), Mask: secret.Mask()}
}
