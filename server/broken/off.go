//go:build !broken

package broken

// Is reports whether this build has the fault f, which it has not.
func Is(Fault) bool { return false }
