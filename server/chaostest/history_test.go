package chaostest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// outcome is what came of a call.
type outcome string

// The outcomes.
const (
	// answered calls have done what their answer says.
	answered outcome = "answered"
	// refused calls have done nothing, for the reason that they were given.
	refused outcome = "refused"
	// unknown calls have done what was asked, or nothing: maybe later.
	unknown outcome = "unknown"
)

// forever is when a call without an answer returns.
const forever = time.Duration(1<<62 - 1)

// operation is one call of a client, as its client saw it.
type operation struct {
	Kind    string        `json:"kind"` // such as "verify"
	Replica int           `json:"replica"`
	Client  int           `json:"client"`
	Call    time.Duration `json:"-"`
	Return  time.Duration `json:"-"`
	Outcome outcome       `json:"outcome"`
	// Key is the id of the key that it is about.
	Key string `json:"key,omitempty"`
	// Secret numbers the secrets of a key: the one that was verified, or that a
	// rotation has made.
	Secret int `json:"secret,omitempty"`
	// Enabled is what an update has set, Overlap whether a rotation let the secret
	// before it work on.
	Enabled bool `json:"enabled,omitempty"`
	Overlap bool `json:"overlap,omitempty"`
	// Code is what a verification has answered, or the reason of a refusal.
	Code string `json:"code,omitempty"`
	Cost int64  `json:"cost,omitempty"`
	// Label is that of an update, which no other has; Masked the masked secret of a
	// rotation or a creation. They find the event of the change.
	Label  string `json:"label,omitempty"`
	Masked string `json:"masked,omitempty"`
	// Expires is when a secret ends.
	Expires time.Duration `json:"expires_ns,omitempty"`
}

// MarshalJSON writes the times in microseconds from the start of the run.
func (o *operation) MarshalJSON() ([]byte, error) {
	type plain operation
	line := struct {
		Call   int64  `json:"call_us"`
		Return *int64 `json:"return_us"` // null: no answer
		*plain
	}{Call: o.Call.Microseconds(), plain: (*plain)(o)}
	if o.Return != forever {
		us := o.Return.Microseconds()
		line.Return = &us
	}
	return json.Marshal(&line)
}

// history is all that clients saw in a run. It may be used by many goroutines at once.
type history struct {
	began time.Time

	mu   sync.Mutex
	all  []*operation
	file *os.File
	out  *bufio.Writer
	err  error
}

func newHistory(path string) (*history, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &history{began: time.Now(), file: file, out: bufio.NewWriter(file)}, nil
}

// now returns the time since the start of the run, by a clock that nobody sets.
func (h *history) now() time.Duration { return time.Since(h.began) }

// add takes down an operation that is over.
func (h *history) add(o *operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, o)
	line, err := json.Marshal(o)
	if err == nil {
		_, err = h.out.Write(append(line, '\n'))
	}
	h.err = errors.Join(h.err, err)
}

// of returns the operations of some kinds, all for none, in the order of their ends.
func (h *history) of(kinds ...string) (list []*operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.all {
		wanted := len(kinds) == 0
		for _, kind := range kinds {
			wanted = wanted || o.Kind == kind
		}
		if wanted {
			list = append(list, o)
		}
	}
	return list
}

func (h *history) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.err, h.out.Flush(), h.file.Close())
}

// faultLog has what was broken when.
type faultLog struct {
	history *history
	path    string

	mu   sync.Mutex
	list []*brokenTime
}

// part is what a fault is of.
type part string

// The parts.
const (
	ofProcess  part = "process" // of a replica: killed, stopped, paused
	ofNetwork  part = "network" // between a replica and the database
	ofDatabase part = "database"
)

// brokenTime is a time in which something was broken.
type brokenTime struct {
	of         part
	what       string
	replica    int // everyReplica for all
	begin, end time.Duration
}

const everyReplica = -1

func newFaultLog(h *history, path string) (*faultLog, error) {
	return &faultLog{history: h, path: path}, os.WriteFile(path, nil, 0o600)
}

// begin takes down that something is broken from now on; the function that it returns
// says that it is mended.
func (f *faultLog) begin(of part, replica int, what string) (end func()) {
	b := &brokenTime{of: of, what: what, replica: replica, begin: f.history.now(), end: forever}
	f.mu.Lock()
	f.list = append(f.list, b)
	f.mu.Unlock()
	f.write("begin", b)
	return func() {
		f.mu.Lock()
		b.end = f.history.now()
		f.mu.Unlock()
		f.write("end", b)
	}
}

func (f *faultLog) write(word string, b *brokenTime) {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return // Without the line the run is as good.
	}
	defer file.Close()
	on := "all"
	if b.replica != everyReplica {
		on = string(rune('a' + b.replica))
	}
	fmt.Fprintf(file, "%12d us  %-5s  replica %-3s  %s: %s\n", f.history.now().Microseconds(), word, on, b.of, b.what)
}

// around reports whether anything was broken within slack of a time.
func (f *faultLog) around(at, slack time.Duration) bool {
	return f.any(at-slack, at+slack, slack, func(*brokenTime) bool { return true })
}

// process reports whether the process of a replica was broken in a time, or until slack
// before it.
func (f *faultLog) process(replica int, begin, end, slack time.Duration) bool {
	return f.any(begin, end, slack, func(b *brokenTime) bool {
		return b.of == ofProcess && (b.replica == replica || b.replica == everyReplica)
	})
}

func (f *faultLog) any(begin, end, slack time.Duration, is func(*brokenTime) bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.list {
		if b.begin <= end && begin <= b.end+slack && is(b) {
			return true
		}
	}
	return false
}

// count returns how many faults there were.
func (f *faultLog) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.list)
}
