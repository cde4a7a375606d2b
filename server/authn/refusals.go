package authn

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Refusals logs calls that were refused before anyone had proved anything. Whoever
// can reach the server can make as many of them as they like, so there is at most
// one line a second for each address and reason; it says how many calls it stands
// for. At debug level each call has its line too.
//
// The zero value with a Logger is ready. It must not be copied after first use.
type Refusals struct {
	// Logger takes the lines. Required.
	Logger *slog.Logger
	// After calls a function once a time has passed. Defaults to time.AfterFunc.
	After func(time.Duration, func())

	mu   sync.Mutex
	open map[refusal]*refused
}

const (
	// refusalInterval is how long the calls of an address are counted before there
	// is another line.
	refusalInterval = time.Second
	// maxRefusals bounds the addresses and reasons that are counted separately. All
	// further ones share a line, which names no address.
	maxRefusals = 256
)

// refusal is what has a line of its own.
type refusal struct {
	addr   netip.Addr
	reason string
}

// refused is what happened since the last line.
type refused struct {
	count   int
	message string      // of the latest call
	attrs   []slog.Attr // of the latest call
}

// Log logs a refused call, or counts it for the next line of its address and
// reason.
func (r *Refusals) Log(ctx context.Context, addr netip.Addr, reason, message string, attrs ...slog.Attr) {
	attrs = append(attrs, slog.String("address", addressText(addr)))
	key, counted := r.count(refusal{addr, reason}, message, attrs)
	if counted {
		r.Logger.LogAttrs(ctx, slog.LevelDebug, message, attrs...)
		return
	}
	r.write(ctx, key, refused{count: 1, message: message, attrs: attrs})
}

// count adds a call to those that wait for the next line, and reports whether there
// are any: the first of a second has its line at once.
func (r *Refusals) count(key refusal, message string, attrs []slog.Attr) (refusal, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[key] == nil && len(r.open) >= maxRefusals {
		key = refusal{}
	}
	if waiting := r.open[key]; waiting != nil {
		waiting.count++
		waiting.message, waiting.attrs = message, attrs
		return key, true
	}
	if r.open == nil {
		r.open = make(map[refusal]*refused)
	}
	r.open[key] = new(refused)
	r.after(key)
	return key, false
}

// after has the line of key written when its time has come.
func (r *Refusals) after(key refusal) {
	flush := func() { r.flush(key) }
	if r.After != nil {
		r.After(refusalInterval, flush)
		return
	}
	time.AfterFunc(refusalInterval, flush)
}

// flush writes the line of what was counted, and forgets an address that has been
// quiet.
func (r *Refusals) flush(key refusal) {
	r.mu.Lock()
	waiting := *r.open[key]
	if waiting.count == 0 {
		delete(r.open, key)
	} else {
		r.open[key] = new(refused)
		r.after(key)
	}
	r.mu.Unlock()
	if waiting.count > 0 {
		r.write(context.Background(), key, waiting)
	}
}

// write writes a line: that of the latest call, and for how many it stands.
func (r *Refusals) write(ctx context.Context, key refusal, line refused) {
	attrs := append(line.attrs, slog.Int("count", line.count))
	if key == (refusal{}) {
		attrs = append(attrs, slog.Bool("many_addresses", true))
	}
	r.Logger.LogAttrs(ctx, slog.LevelInfo, line.message, attrs...)
}

// addressText is an address as the log shows it.
func addressText(addr netip.Addr) string {
	if !addr.IsValid() {
		return "unknown"
	}
	return addr.String()
}
