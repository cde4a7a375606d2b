package store

import (
	"context"
	"fmt"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/operator"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// The bounds of one page of a list. All lists are read by [readPage], which keeps
// them.
const (
	// maxExamined bounds how many rows a page with filters looks at.
	maxExamined = 10_000
	// pageChunk bounds how many rows one statement of a page reads, and so what is
	// read of rows that do not fit: each can have 16 KiB and more.
	pageChunk = 128
	// rowBytes is about what a row takes apart from its texts.
	rowBytes = 512
)

// beginPage waits until one more page may be read, and returns what ends that. A page
// can take several statements. Were there no bound, each of thousands of lists would
// hold the rows of its first statement while it waits for the connection of its
// second. One connection is left to the feed.
func (s *Store) beginPage(ctx context.Context) (end func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, statementsTimeout, errNoAnswer)
	defer cancel()
	select {
	case s.listing <- struct{}{}:
		return func() { <-s.listing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// readPage returns the rows of one page: limit rows or about [apikey.MaxPage]
// bytes of them, whichever comes first, and one row whatever its size is. more reports whether rows follow the last one.
//
// read returns up to n rows that follow last, or the first rows where last is
// nil. size returns about how many bytes a row takes.
func readPage[R any](limit int, size func(*R) int, read func(last *R, n int) ([]R, error)) (rows []R, more bool, err error) {
	var last *R
	for held := 0; ; {
		n := min(limit-len(rows)+1, pageChunk)
		chunk, err := read(last, n)
		if err != nil {
			return nil, false, err
		}
		for i := range chunk {
			held += size(&chunk[i])
			if len(rows) == limit || len(rows) > 0 && held > apikey.MaxPage {
				return rows, true, nil
			}
			rows = append(rows, chunk[i])
		}
		if len(chunk) < n {
			return rows, false, nil
		}
		last = &rows[len(rows)-1]
	}
}

// lastExamined returns the id of the last row that a page with filters may look
// at, and "" where it may look at all that there are. ids returns one id of the
// rows that an index answers, after so many others.
func lastExamined(ctx context.Context, ids func(ctx context.Context, skip int) ([]string, error)) (string, error) {
	last, err := ids(ctx, maxExamined-1)
	if err != nil || len(last) == 0 {
		return "", err
	}
	return last[0], nil
}

func sizeOfWebhook(w *webhook.Webhook) int {
	n := rowBytes + len(w.Label) + len(w.Description) + len(w.URL)
	for _, e := range w.Events {
		n += len(e)
	}
	for _, h := range w.Headers {
		n += len(h.Name)
	}
	return n
}

func sizeOfDelivery(d *DeliveryOf) int {
	n := rowBytes + len(d.URL) + len(d.Last.Body)
	if d.Of != nil {
		n += len(d.Of.Payload)
	}
	return n
}

func sizeOfToken(t *operator.Token) int {
	n := rowBytes + len(t.Name) + len(t.Description)
	for _, list := range [][]string{t.Scopes, t.Organizations} {
		for _, s := range list {
			n += len(s)
		}
	}
	return n
}

func sizeOfEvent(e *apikey.Event) int { return rowBytes + len(e.Payload) }

// errList says what was attempted.
func errList(what string, err error) error { return fmt.Errorf("list %s: %w", what, err) }
