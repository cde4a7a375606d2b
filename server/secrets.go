package server

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// secretKeySize is the size of every key in the secrets file.
const secretKeySize = 32

// The kinds of keys in the secrets file. With a key's id they name its check
// value in the database, so they never change.
const (
	kindPepper        = "pepper"
	kindEncryptionKey = "encryption_key"
	kindCursorKey     = "cursor_key"
)

// secrets is what the secrets file holds. Each list is newest first: the first
// key is for new values, the others still read what was written under them.
type secrets struct {
	peppers        []apikey.NamedKey // hash the secrets of API keys
	encryptionKeys []apikey.NamedKey // encrypt what must be read again
	cursorKeys     []apikey.NamedKey // seal cursors
}

// keyList is one list of the secrets file.
type keyList struct {
	name   string // in the file
	kind   string // in the database
	prefix string // of the ids made here
	keys   *[]apikey.NamedKey
}

// lists returns the lists in the order of the file.
func (s *secrets) lists() []keyList {
	return []keyList{
		{"peppers", kindPepper, "p_", &s.peppers},
		{"encryption_keys", kindEncryptionKey, "e_", &s.encryptionKeys},
		{"cursor_keys", kindCursorKey, "c_", &s.cursorKeys},
	}
}

// newSecrets returns secrets with one key in each list, from random, which is
// crypto/rand's reader where it is nil.
func newSecrets(random io.Reader) (secrets, error) {
	if random == nil {
		random = rand.Reader
	}
	var s secrets
	for _, list := range s.lists() {
		id, err := apikey.RandomToken(list.prefix, random)
		if err != nil {
			return secrets{}, fmt.Errorf("make secrets: %w", err)
		}
		key := make([]byte, secretKeySize)
		if _, err := io.ReadFull(random, key); err != nil {
			return secrets{}, fmt.Errorf("make secrets: %w", err)
		}
		// Eight characters tell the few keys of one file apart.
		*list.keys = []apikey.NamedKey{{ID: id[:len(list.prefix)+8], Key: key}}
	}
	return s, nil
}

// checkValues returns "<kind>/<id>" -> check value for every key. A database
// that keeps them notices a file with the same ids and other keys, under which
// nothing would verify and all that is newly written would be lost.
func (s *secrets) checkValues() map[string]string {
	values := map[string]string{}
	for _, list := range s.lists() {
		for _, k := range *list.keys {
			mac := hmac.New(sha256.New, k.Key)
			mac.Write([]byte("apikeys secrets check v1 " + list.kind + " " + k.ID))
			values[list.kind+"/"+k.ID] = hex.EncodeToString(mac.Sum(nil))
		}
	}
	return values
}

// verifyAgainst compares the secrets with the check values that the database
// keeps. It returns the names, ascending, of those that the database knows and
// s lacks: whether they are still needed is for the caller to find out. A key
// whose value differs is an error. Names of s alone are new; the caller stores
// them.
func (s *secrets) verifyAgainst(stored map[string]string) (missing []string, err error) {
	have := s.checkValues()
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
