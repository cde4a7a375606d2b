package server

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// redactor is a slog.Handler that masks credentials. No code here logs one, but
// people paste them where they do not belong: into a path, a label, an id. It is
// the last line of defence, so it looks at all text.
type redactor struct {
	next    slog.Handler
	secrets *apikey.SecretFinder
}

var _ slog.Handler = redactor{}

// Enabled asks the next handler.
func (r redactor) Enabled(ctx context.Context, level slog.Level) bool {
	return r.next.Enabled(ctx, level)
}

// Handle passes the record on with every text in it masked.
func (r redactor) Handle(ctx context.Context, record slog.Record) error {
	clean := slog.NewRecord(record.Time, record.Level, r.secrets.Redact(record.Message), record.PC)
	record.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(r.attr(a))
		return true
	})
	return r.next.Handle(ctx, clean)
}

// WithAttrs masks the attributes and keeps them.
func (r redactor) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = r.attr(a)
	}
	return redactor{r.next.WithAttrs(clean), r.secrets}
}

// WithGroup opens a group in the next handler.
func (r redactor) WithGroup(name string) slog.Handler {
	return redactor{r.next.WithGroup(name), r.secrets}
}

// attr returns a with every text in it masked.
func (r redactor) attr(a slog.Attr) slog.Attr {
	value := a.Value.Resolve()
	switch value.Kind() {
	case slog.KindString:
		return slog.String(a.Key, r.secrets.Redact(value.String()))
	case slog.KindGroup:
		members := value.Group()
		clean := make([]any, len(members))
		for i, m := range members {
			clean[i] = r.attr(m)
		}
		return slog.Group(a.Key, clean...)
	case slog.KindAny:
		// Whatever it is, it is logged as text.
		return slog.String(a.Key, r.secrets.Redact(fmt.Sprint(value.Any())))
	default: // Numbers, times and the like hold no text.
	}
	return slog.Attr{Key: a.Key, Value: value}
}
