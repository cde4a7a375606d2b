package keyring_test

import (
	"fmt"
	"strings"

	"github.com/apikeys-dev/apikeys/server/keyring"
)

// A new key in front seals from now on; the one before still opens. What was sealed
// for one row opens for no other.
func ExampleSealer() {
	first := keyring.NewKey("e_1", strings.Repeat("1", 32))
	second := keyring.NewKey("e_2", strings.Repeat("2", 32))
	before, err := keyring.NewSealer(first)
	if err != nil {
		fmt.Println(err)
		return
	}
	after, err := keyring.NewSealer(second, first)
	if err != nil {
		fmt.Println(err)
		return
	}
	old := before.Seal([]byte("a header's value"), "webhook_1")
	value, err := after.Open(old, "webhook_1")
	fmt.Printf("%s: %s, %v\n", old.KeyID, value, err)
	fmt.Println(after.Seal(value, "webhook_1").KeyID)
	_, err = after.Open(old, "webhook_2")
	fmt.Println("for another row:", err != nil)
	// Output:
	// e_1: a header's value, <nil>
	// e_2
	// for another row: true
}
