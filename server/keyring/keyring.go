package keyring

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// keySize is the size of every key in the secrets file.
const keySize = 32

// The kinds of keys in the secrets file. With a key's id they name its check
// value in the database, so they never change.
const (
	KindPepper        = "pepper"
	kindEncryptionKey = "encryption_key"
	kindCursorKey     = "cursor_key"
	kindEdgeKey       = "edge_key"
)

// Key is a secret key of the server with the id by which rows refer to it, so
// that keys can be replaced while rows under the older ones stay good. It prints
// as its id.
type Key struct {
	ID  string
	key masked.Text
}

// NewKey returns the key of the bytes in key.
func NewKey(id, key string) Key { return Key{id, masked.New(key)} }

func (k Key) bytes() []byte { return []byte(k.key.Reveal()) }

// Keyring is what the secrets file holds. Each list is newest first: the first
// key is for new values, the others still read what was written under them.
type Keyring struct {
	peppers        []Key // hash the secrets of API keys
	encryptionKeys []Key // encrypt what must be read again
	cursorKeys     []Key // seal cursors
	edgeKey        []Key // one: hashes the secrets of API keys for programs at the edge
}

// keyList is one list of the secrets file.
type keyList struct {
	name   string // in the file
	kind   string // in the database
	prefix string // of the ids made here
	single bool   // the file has one key in place of a list
	keys   *[]Key
}

// lists returns the lists in the order of the file.
func (r *Keyring) lists() []keyList {
	return []keyList{
		{"peppers", KindPepper, "p_", false, &r.peppers},
		{"encryption_keys", kindEncryptionKey, "e_", false, &r.encryptionKeys},
		{"cursor_keys", kindCursorKey, "c_", false, &r.cursorKeys},
		{"edge_key", kindEdgeKey, "x_", true, &r.edgeKey},
	}
}

// New returns a keyring with one key of each kind, from random, which is
// crypto/rand's reader where it is nil.
func New(random io.Reader) (*Keyring, error) {
	if random == nil {
		random = rand.Reader
	}
	r := &Keyring{}
	for _, list := range r.lists() {
		id, err := apikey.RandomToken(list.prefix, random)
		if err != nil {
			return nil, fmt.Errorf("make keys: %w", err)
		}
		var key [keySize]byte
		if _, err := io.ReadFull(random, key[:]); err != nil {
			return nil, fmt.Errorf("make keys: %w", err)
		}
		// Eight characters tell the few keys of one file apart.
		*list.keys = []Key{NewKey(id[:len(list.prefix)+8], string(key[:]))}
	}
	return r, nil
}

// Peppers returns what hashes the secrets of API keys.
func (r *Keyring) Peppers() *Peppers { return NewPeppers(r.edgeKey[0], r.peppers...) }

// Sealer returns what seals values that are kept in rows.
func (r *Keyring) Sealer() (*Sealer, error) { return NewSealer(r.encryptionKeys...) }

// CursorSealer returns what seals cursors. They have keys of their own: a random
// nonce is good for 2^32 values under one key, and cursors are many.
func (r *Keyring) CursorSealer() (*Sealer, error) { return NewSealer(r.cursorKeys...) }

// CheckValues returns "<kind>/<id>" -> check value for every key. A database
// that keeps them notices a file with the same ids and other keys, under which
// nothing would verify and all that is newly written would be lost.
func (r *Keyring) CheckValues() map[string]string {
	values := map[string]string{}
	for _, list := range r.lists() {
		for _, k := range *list.keys {
			mac := hmac.New(sha256.New, k.bytes())
			mac.Write([]byte("apikeys secrets check v1 " + list.kind + " " + k.ID))
			values[list.kind+"/"+k.ID] = hex.EncodeToString(mac.Sum(nil))
		}
	}
	return values
}

// VerifyAgainst compares the keys with the check values that the database keeps.
// It returns the names, ascending, of those that the database knows and the
// keyring lacks: whether they are still needed is for the caller to find out. A
// key whose value differs is an error. Names of the keyring alone are new; the
// caller stores them.
func (r *Keyring) VerifyAgainst(stored map[string]string) (missing []string, err error) {
	have := r.CheckValues()
	var differ []string
	for name, value := range stored {
		switch check, ok := have[name]; {
		case !ok:
			missing = append(missing, name)
		case check != value:
			differ = append(differ, name)
		}
	}
	slices.Sort(missing)
	slices.Sort(differ)
	if len(differ) > 0 {
		return nil, fmt.Errorf("%s is not the key that the database was written under: the secrets file is of another database", differ[0])
	}
	return missing, nil
}
