// Package pending remembers calls whose answers must not be lost: those that make
// secrets, which a server shows once, and jobs on many keys that can be interrupted.
//
// Before such a call is made, its idempotency key is written to a file; when the answer
// is safe the file is removed. Where a program was interrupted in between, the same
// command finds the file, calls with the same idempotency key, and is given the same
// answer: the same secret, and nothing is made twice.
//
// The files hold idempotency keys and the progress of jobs, and no secret. They have
// mode 0600. A file is a line for each state of its call, the newest last: a crash while
// one is written leaves those before it. A call that is under way in another program holds a lock on its file, so
// that two runs of one command at a time are two calls.
package pending

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Dir is the directory of the files; it need not exist. An empty one keeps nothing.
type Dir string

// Kept is how long a call can be gone on with: servers keep answers for a day, unless
// they are set otherwise.
const Kept = 23 * time.Hour

// mostAtOnce is how many runs of one command there may be at a time.
const mostAtOnce = 1000

// A Call is one that is under way, or was when its program was interrupted.
type Call struct {
	// Key is the idempotency key.
	Key string `json:"idempotency_key"`
	// MadeAt is when the call began.
	MadeAt time.Time `json:"made_at"`
	// Progress is what a job has to remember.
	Progress json.RawMessage `json:"progress,omitempty"`

	// Resumed says that an earlier run began the call.
	Resumed bool `json:"-"`
	// Expired says that there was an earlier run too long ago to go on with.
	Expired bool `json:"-"`

	file *os.File
}

// Begin returns the call of this description: one that was interrupted, or a new one
// with the idempotency key that newKey returns. It is on disk when Begin returns.
func (d Dir) Begin(description []byte, now time.Time, newKey func() string) (*Call, error) {
	c := &Call{Key: newKey(), MadeAt: now.UTC().Truncate(time.Second)}
	if d == "" {
		return c, nil
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(description)
	name := hex.EncodeToString(sum[:16])
	for n := range mostAtOnce {
		f, err := lock(filepath.Join(string(d), fmt.Sprintf("%s.%d", name, n)))
		if err != nil {
			return nil, err
		}
		if f == nil {
			continue // It is another program's, at this moment.
		}
		c.file = f
		if old, err := newest(f); err != nil {
			return nil, errors.Join(err, f.Close())
		} else if old != nil {
			if c.Expired = now.Sub(old.MadeAt) > Kept; !c.Expired {
				old.file, old.Resumed = f, true
				return old, nil
			}
		}
		if err := errors.Join(f.Truncate(0), c.save()); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return c, nil
	}
	return nil, fmt.Errorf("%d runs of this command are under way", mostAtOnce)
}

// newest returns the newest state of a call that its file holds whole; nil for none. What
// comes behind it is a part of one, and is taken away.
func newest(f *os.File) (*Call, error) {
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	for end := len(text); end > 0; {
		begin := bytes.LastIndexByte(text[:end-1], '\n') + 1
		c := &Call{}
		if text[end-1] == '\n' && json.Unmarshal(text[begin:end], c) == nil && c.Key != "" {
			return c, f.Truncate(int64(end))
		}
		end = begin
	}
	return nil, nil
}

// lock opens the file of a call and locks it; nil where another program has it.
func lock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, f.Close()
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		opened, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		// Whoever had the lock before may have removed the file.
		now, err := os.Stat(path)
		if err == nil && os.SameFile(opened, now) {
			return f, nil
		}
		_ = f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// SetProgress remembers how far a job has come.
func (c *Call) SetProgress(progress any) error {
	text, err := json.Marshal(progress)
	if err != nil {
		return err
	}
	c.Progress = text
	return c.save()
}

// State reads what SetProgress has remembered into v; it leaves v alone where nothing was.
func (c *Call) State(v any) error {
	if len(c.Progress) == 0 {
		return nil
	}
	return json.Unmarshal(c.Progress, v)
}

// save adds the state of the call to the file.
func (c *Call) save() error {
	if c.file == nil {
		return nil
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if _, err := c.file.Write(append(text, '\n')); err != nil {
		return err
	}
	return c.file.Sync()
}

// Done forgets the call: its answer is safe, or there will be none.
func (c *Call) Done() error {
	if c.file == nil {
		return nil
	}
	err := os.Remove(c.file.Name())
	return errors.Join(err, c.file.Close())
}

// Keep ends this run, and leaves the call for another one.
func (c *Call) Keep() {
	if c.file != nil {
		_ = c.file.Close()
	}
}
