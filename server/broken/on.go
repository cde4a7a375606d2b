//go:build broken

package broken

import "os"

var chosen = Fault(os.Getenv("APIKEYS_BROKEN"))

// Is reports whether this build has the fault f.
func Is(f Fault) bool { return f == chosen }
