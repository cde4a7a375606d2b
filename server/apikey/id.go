package apikey

import (
	"fmt"
	"strings"
	"time"

	"github.com/gofrs/uuid/v5"
)

// IDPrefix begins every key's id.
const IDPrefix = "api_key_"

// NewID returns prefix and a new UUID version 7 (RFC 9562). Ids of one process
// ascend in the order in which they were made.
func NewID(prefix string) string {
	return prefix + uuid.Must(uuid.NewV7()).String()
}

// NewIDAt returns a function that makes ids as NewID does, by a clock.
func NewIDAt(now func() time.Time) func(prefix string) string {
	made := uuid.NewGenWithOptions(uuid.WithEpochFunc(now))
	return func(prefix string) string { return prefix + uuid.Must(made.NewV7()).String() }
}

// IsID reports whether id is prefix and a UUID in its canonical, lower-case
// form. An id that is not can name nothing, so looking it up is needless.
func IsID(prefix, id string) bool {
	text, ok := strings.CutPrefix(id, prefix)
	if !ok || len(text) != 36 {
		return false
	}
	u, err := uuid.FromString(text)
	return err == nil && u.String() == text
}

// ValidateOrganizationID reports whether id can name an organization: 1 to 128
// characters of [A-Za-z0-9_.:-]. Whether it is a secret is not asked here.
func ValidateOrganizationID(id string) error {
	if id == "" || len(id) > 128 {
		return fmt.Errorf("must have 1 to 128 characters")
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '_', c == '.', c == ':', c == '-':
		default:
			return fmt.Errorf("may hold only letters, digits and _ . : -")
		}
	}
	return nil
}
