package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// fileLock keeps a second server off a database file. The operating system
// holds the lock and drops it with the process, so that a lock file left behind
// by a crash blocks nobody.
type fileLock struct{ flock *flock.Flock }

// lockDatabase locks the database file at path, or says who holds it. The
// file's directory must exist; the file need not.
func lockDatabase(path string) (*fileLock, error) {
	path = realPath(path) + ".lock"
	lock := flock.New(path, flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the database: %w", err)
	}
	if !ok {
		return nil, fmt.Errorf("the database is in use by another server%s: %s is locked", lockHolder(path), path)
	}
	// The number is for people only; a lock without it is as good.
	_ = os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600) //nolint:gosec // The operator names the path.
	return &fileLock{lock}, nil
}

// release gives the lock up. The file stays: removing it would let one server
// lock the removed file while another locks a new one of the same name.
func (l *fileLock) release() error { return l.flock.Unlock() }

// lockHolder returns " (process <pid>)" where the lock file names one.
func lockHolder(path string) string {
	text, err := os.ReadFile(path) //nolint:gosec // The operator names the path.
	if err != nil {
		return ""
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// realPath follows symbolic links, so that two names of one database are one
// lock. A file that does not exist yet is placed in its real directory.
func realPath(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}
