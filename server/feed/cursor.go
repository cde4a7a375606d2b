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
	ErrOtherList         = errors.New("a page of another list")
)

// What is sealed: the position, the database, the organization whose events its
// holder may see, zeros for all, and of a page the list that it is of. Names are
// hashed so that every cursor has one length, which tells nothing.
const (
	nameSize   = 16
	cursorSize = 8 + nameSize + nameSize
	tokenSize  = cursorSize + nameSize
)

// size returns how many bytes are sealed for a purpose.
func (p Purpose) size() int {
	if p == PurposePage {
		return tokenSize
	}
	return cursorSize
}

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
func (c *Cursors) Seal(position int64, organization string) string {
	return c.seal(PurposeCursor, position, organization, "")
}

// SealPage returns the token of the page of a list that begins at a position. list
// says which list that is: its order and its filters.
func (c *Cursors) SealPage(position int64, organization, list string) string {
	return c.seal(PurposePage, position, organization, list)
}

func (c *Cursors) seal(p Purpose, position int64, organization, list string) string {
	var memory [tokenSize]byte
	plain := memory[:p.size()]
	binary.BigEndian.PutUint64(plain, uint64(position))
	name := organizationOf(organization)
	copy(plain[8:], c.database[:])
	copy(plain[8+nameSize:], name[:])
	if p == PurposePage {
		of := nameOf("list", list)
		copy(plain[cursorSize:], of[:])
	}
	var sealed [tokenSize + keyring.Overhead]byte
	return base64.RawURLEncoding.EncodeToString(c.sealer.AppendSeal(sealed[:0], plain, string(p)))
}

// Open returns the position of a cursor, or one of the errors above. Who may see
// all organizations, asking with an empty one, may use the cursors of each.
func (c *Cursors) Open(cursor, organization string) (position int64, err error) {
	position, _, err = c.open(PurposeCursor, cursor, organization)
	return position, err
}

// OpenPage is [Cursors.Open] for the token of a page of a list.
func (c *Cursors) OpenPage(token, organization, list string) (position int64, err error) {
	position, of, err := c.open(PurposePage, token, organization)
	if err == nil && [nameSize]byte(of) != nameOf("list", list) {
		return 0, ErrOtherList
	}
	return position, err
}

// open returns the position of a cursor, and the name of the list that it is of.
func (c *Cursors) open(p Purpose, cursor, organization string) (position int64, list []byte, err error) {
	plain, ok := c.unseal(p, cursor)
	if !ok {
		for _, other := range purposes {
			if _, ok := c.unseal(other, cursor); ok {
				return 0, nil, ErrOtherPurpose
			}
		}
		return 0, nil, ErrForged
	}
	if [nameSize]byte(plain[8:]) != c.database {
		return 0, nil, ErrOtherDatabase
	}
	if organization != "" && [nameSize]byte(plain[8+nameSize:]) != organizationOf(organization) {
		return 0, nil, ErrOtherOrganization
	}
	return int64(binary.BigEndian.Uint64(plain)), plain[cursorSize:], nil
}

// unseal returns what was sealed for a purpose.
func (c *Cursors) unseal(p Purpose, cursor string) ([]byte, bool) {
	size := p.size() + keyring.Overhead
	// The length comes first, since decoding passes over line breaks.
	if len(cursor) != base64.RawURLEncoding.EncodedLen(size) {
		return nil, false
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(sealed) != size {
		return nil, false
	}
	return c.sealer.OpenAny(sealed, string(p))
}
