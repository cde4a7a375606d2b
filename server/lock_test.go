package server

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSecondLockIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "apikeys.db")
	first, err := lockDatabase(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockDatabase(path)
	want := fmt.Sprintf("the database is in use by another server (process %d): %s.lock is locked", os.Getpid(), path)
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if err := first.release(); err != nil {
		t.Fatal(err)
	}
	again, err := lockDatabase(path)
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	again.release()
}

func TestOtherNamesOfADatabaseAreTheSameLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "apikeys.db")
	for link, target := range map[string]string{"file.db": path, "dir": dir} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, existing := range []string{"missing", "existing"} {
		if existing == "existing" {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		lock, err := lockDatabase(filepath.Join(dir, "dir", "apikeys.db"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lockDatabase(path); err == nil {
			t.Errorf("%s database: locked twice, through a linked directory", existing)
		}
		if _, err := lockDatabase(filepath.Join(dir, "file.db")); err == nil && existing == "existing" {
			t.Errorf("%s database: locked twice, through a linked file", existing)
		}
		lock.release()
	}
}

// A server that is killed leaves its lock file, and the next one starts.
func TestLockEndsWithItsProcess(t *testing.T) {
	t.Parallel()
	if path := os.Getenv("LOCK_AND_WAIT"); path != "" {
		if _, err := lockDatabase(path); err != nil {
			t.Fatal(err)
		}
		fmt.Println("locked")
		select {}
	}
	path := filepath.Join(t.TempDir(), "apikeys.db")
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLockEndsWithItsProcess$")
	child.Env = append(os.Environ(), "LOCK_AND_WAIT="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_, err = lockDatabase(path)
	if want := fmt.Sprintf("(process %d)", child.Process.Pid); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("beside the other process: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	if _, err := os.Stat(path + ".lock"); err != nil {
		t.Errorf("the file: %v", err)
	}
	lock, err := lockDatabase(path)
	if err != nil {
		t.Fatalf("after the kill: %v", err)
	}
	lock.release()
}

func TestLockInAMissingDirectory(t *testing.T) {
	t.Parallel()
	_, err := lockDatabase(filepath.Join(t.TempDir(), "none", "apikeys.db"))
	if err == nil || !strings.HasPrefix(err.Error(), "lock the database: ") {
		t.Errorf("got %v", err)
	}
}

// The number of the process is written into the lock file, so a file of that name
// that somebody else has put there must not lead to another one.
func TestLockFileThatLeadsElsewhere(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		make func(target, lock string) error
		want string
	}{
		{"a symbolic link", os.Symlink, "is a symbolic link; remove it"},
		{"a symbolic link to nothing", func(target, lock string) error { return os.Symlink(target+"-missing", lock) }, "is a symbolic link; remove it"},
		{"a hard link", os.Link, "is also a file of another name (a hard link); remove it"},
		{"a directory", func(_, lock string) error { return os.Mkdir(lock, 0o700) }, "is a directory"},
		{"a pipe", func(_, lock string) error { return syscall.Mkfifo(lock, 0o600) }, "is not a regular file; remove it"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			target, path := filepath.Join(dir, "target"), filepath.Join(dir, "apikeys.db")
			if err := os.WriteFile(target, []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.make(target, path+".lock"); err != nil {
				t.Fatal(err)
			}
			lock, err := lockDatabase(path)
			if err == nil {
				lock.release()
				t.Fatal("it was locked")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if text, err := os.ReadFile(target); err != nil || string(text) != "kept" {
				t.Errorf("the target holds %q, %v", text, err)
			}
			if _, err := os.Stat(target + "-missing"); err == nil {
				t.Error("the missing target was made")
			}
		})
	}
}
