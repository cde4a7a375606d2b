package feed

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/apikeys-dev/apikeys/server/keyring"
)

// Purpose is what a sealed position is for. One that was sealed for one purpose
// is good for no other.
type Purpose string

// The purposes.
const (
	// PurposeCursor is for following the log and for listing from a place in it.
	PurposeCursor Purpose = "cursor"
	// PurposePage is for the next page of a list.
	PurposePage Purpose = "page"
)

var purposes = []Purpose{PurposeCursor, PurposePage}

// Why a text is not a cursor that can be used. A caller may be told which.
var (
	ErrForged            = errors.New("not a cursor of this server")
	ErrOtherPurpose      = errors.New("a cursor for another purpose")
	ErrOtherDatabase     = errors.New("a cursor of another database")
	ErrOtherOrganization = errors.New("a cursor of another organization")
)

// What is sealed: the position, the database, and the organization whose events
// its holder may see, zeros for all. Names are hashed so that every cursor has
// one length, which tells nothing.
const (
	nameSize   = 16
	plainSize  = 8 + nameSize + nameSize
	sealedSize = plainSize + keyring.Overhead
)

// Cursors seals positions, so that nobody outside can read one or make one up. Two
// cursors of one place differ, since a sealer's nonces are random: an organization
// does not learn from its heartbeats whether others changed anything.
type Cursors struct {
	database [nameSize]byte
	sealer   *keyring.Sealer
}

// NewCursors returns the cursors of a database.
func NewCursors(database string, sealer *keyring.Sealer) *Cursors {
	return &Cursors{nameOf("database", database), sealer}
}

func nameOf(kind, name string) (short [nameSize]byte) {
	sum := sha256.Sum256([]byte(kind + " " + name))
	copy(short[:], sum[:])
	return short
}

// organizationOf is the name of an organization in a cursor; that of all of them
// is zero.
func organizationOf(organization string) [nameSize]byte {
	if organization == "" {
		return [nameSize]byte{}
	}
	return nameOf("organization", organization)
}

// Seal returns the cursor of a position in what organization may see; empty means
// all organizations.
func (c *Cursors) Seal(p Purpose, position int64, organization string) string {
	var plain [plainSize]byte
	binary.BigEndian.PutUint64(plain[:], uint64(position))
	name := organizationOf(organization)
	copy(plain[8:], c.database[:])
	copy(plain[8+nameSize:], name[:])
	var sealed [sealedSize]byte
	return base64.RawURLEncoding.EncodeToString(c.sealer.AppendSeal(sealed[:0], plain[:], string(p)))
}

// Open returns the position of a cursor, or one of the errors above. Who may see
// all organizations, asking with an empty one, may use the cursors of each.
func (c *Cursors) Open(p Purpose, cursor, organization string) (position int64, err error) {
	// The length comes first, since decoding passes over line breaks.
	if len(cursor) != base64.RawURLEncoding.EncodedLen(sealedSize) {
		return 0, ErrForged
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(sealed) != sealedSize {
		return 0, ErrForged
	}
	plain, ok := c.sealer.OpenAny(sealed, string(p))
	if !ok {
		for _, other := range purposes {
			if _, ok := c.sealer.OpenAny(sealed, string(other)); ok {
				return 0, ErrOtherPurpose
			}
		}
		return 0, ErrForged
	}
	if [nameSize]byte(plain[8:]) != c.database {
		return 0, ErrOtherDatabase
	}
	if organization != "" && [nameSize]byte(plain[8+nameSize:]) != organizationOf(organization) {
		return 0, ErrOtherOrganization
	}
	return int64(binary.BigEndian.Uint64(plain)), nil
}
