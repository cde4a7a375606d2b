package store

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/apikeys-dev/apikeys/ent"
)

// Fault is what is wrong with the storage of the database itself, and is for an
// operator to mend. Calls fail because of it, whatever they ask for.
type Fault struct {
	// Kind is what is wrong.
	Kind FaultKind
	// File is the absolute path of the database of SQLite.
	File string
	// Database names the database of PostgreSQL.
	Database string
	// Err is what the database said.
	Err error
}

var _ error = (*Fault)(nil)

// FaultKind is what can be wrong with the storage.
type FaultKind int

// The kinds of faults, the worst first. Only the first one stays until a restart.
const (
	FaultDamaged FaultKind = iota
	FaultReadOnly
	FaultFull
	FaultIO
	FaultUnopenable
)

// faultText says what is wrong and what to do.
type faultText struct{ what, remedy string }

var faultTexts = [...]faultText{
	FaultDamaged:    {"is damaged", "stop the server and restore the database together with its secrets file from the backup, or save what can be read with the .recover command of sqlite3"},
	FaultReadOnly:   {"cannot be written to", "check the owner and the mode of the file and its directory, and how the disk is mounted; the server goes on by itself"},
	FaultFull:       {"has no room to grow: the disk is full", "free some space on the disk; the server goes on by itself"},
	FaultIO:         {"cannot be read or written: the disk fails", "look for disk errors in the system's log; the server goes on by itself if the disk comes back"},
	FaultUnopenable: {"cannot be opened", "check that the file is there, its owner and its mode, and how many files the server may have open"},
}

// Name is the file or the database of PostgreSQL.
func (f *Fault) Name() string { return f.File + f.Database }

func (f *Fault) text() faultText {
	if f.Database != "" {
		return postgresFaultTexts[f.Kind]
	}
	return faultTexts[f.Kind]
}

// Error says what is wrong with the database and what to do, in one line.
func (f *Fault) Error() string {
	return fmt.Sprintf("%s %s (%v); %s", f.Name(), f.text().what, f.Err, f.Remedy())
}

// Unwrap returns what the database said.
func (f *Fault) Unwrap() error { return f.Err }

// Public says what is wrong in words that show nothing of the machine but the
// name of the file.
func (f *Fault) Public() string {
	if f.Database != "" {
		return fmt.Sprintf("The database %s.", f.text().what)
	}
	return fmt.Sprintf("The database file %s %s.", filepath.Base(f.File), f.text().what)
}

// Remedy says what an operator can do.
func (f *Fault) Remedy() string { return f.text().remedy }

// faults keeps the fault that stands. Its methods are safe for concurrent use.
type faults struct {
	of   func(error) *Fault // by the dialect: an error as a fault, or nil
	tell func(*Fault)       // may be nil

	mu       sync.Mutex
	standing *Fault
}

// observe looks at what the database answered. Of several faults the worst stands.
func (f *faults) observe(err error) {
	fault := f.of(err)
	if fault == nil {
		return
	}
	f.mu.Lock()
	worse := f.standing == nil || fault.Kind < f.standing.Kind
	if worse {
		f.standing = fault
	}
	f.mu.Unlock()
	if worse && f.tell != nil {
		f.tell(fault)
	}
}

// current returns the fault that stands, or nil.
func (f *faults) current() *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.standing
}

// clear ends a fault that has been found to be over.
func (f *faults) clear(fault *Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.standing == fault {
		f.standing = nil
	}
}

// Fault returns what is wrong with the storage as far as it has shown, or nil.
func (s *Store) Fault() *Fault { return s.faults.current() }

// Retry writes, where a fault of the storage stands that can end by itself, and
// ends it if that works. It returns the fault that still stands, or nil.
func (s *Store) Retry(ctx context.Context) *Fault {
	fault := s.faults.current()
	if fault == nil || fault.Kind == FaultDamaged {
		return fault
	}
	err := s.transact(ctx, "try the storage", func(ctx context.Context, etx *ent.Tx) error {
		// The row stays as it is, and its page is written all the same.
		return etx.Revision.Update().AddPosition(0).Exec(ctx)
	})
	if err == nil {
		s.faults.clear(fault)
	}
	return s.faults.current()
}

// QuickCheck looks for damage in the whole file until ctx ends. What it finds is
// the fault that stands from then on. It reports whether it came to the end.
func (s *Store) QuickCheck(ctx context.Context) (complete bool) {
	_ = s.quickCheck(ctx) // A check that fails has shown what it met to faults.
	return ctx.Err() == nil
}
