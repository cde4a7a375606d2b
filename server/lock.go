package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// fileLock keeps a second server off a database file. The operating system
// holds the lock and drops it with the process, so that a lock file left behind
// by a crash blocks nobody.
type fileLock struct{ file *os.File }

// lockDatabase locks the database file at path, or says who holds it. The
// file's directory must exist; the file need not.
//
// Everything is done through the one open file: the name could stand for another
// file a moment later. A name that leads elsewhere is refused, since the number of
// the process is written into the file.
func lockDatabase(path string) (*fileLock, error) {
	path = realPath(path) + ".lock"
	// Without NONBLOCK a pipe of that name would hold the start up.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600) //nolint:gosec // The operator names the path.
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("lock the database: %s is a symbolic link; remove it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the database: %w", err)
	}
	lock := &fileLock{f}
	if err := lock.take(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return lock, nil
}

// take locks the open file and writes the number of this process into it.
func (l *fileLock) take(path string) error {
	info, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("lock the database: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("lock the database: %s is not a regular file; remove it", path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
		return fmt.Errorf("lock the database: %s is also a file of another name (a hard link); remove it", path)
	}
	err = syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("the database is in use by another server%s: %s is locked", l.holder(), path)
	}
	if err != nil {
		return fmt.Errorf("lock the database: %w", err)
	}
	// The number is for people only; a lock without it is as good.
	if l.file.Truncate(0) == nil {
		_, _ = l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return nil
}

// release gives the lock up. The file stays: removing it would let one server
// lock the removed file while another locks a new one of the same name.
func (l *fileLock) release() error { return l.file.Close() }

// holder returns " (process <pid>)" where the lock file names one.
func (l *fileLock) holder() string {
	text, err := io.ReadAll(io.LimitReader(l.file, 32))
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
