package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/apikeys-dev/apikeys/server/outage"
)

// The times of notices.
const (
	// dueDelay is how long the ids of webhooks are gathered before the other servers
	// are told: this one has taken by then what it has room for.
	dueDelay = 50 * time.Millisecond
	// maxDue bounds the ids in one notice, whose text PostgreSQL bounds at 8,000 bytes.
	maxDue = 150
	// sendTimeout bounds how long a notice may take to be sent.
	sendTimeout = 2 * time.Second
	// listenPing is after how long a silent connection is asked whether it still
	// stands, and listenTimeout how long that, or making it, may take.
	listenPing    = 5 * time.Second
	listenTimeout = 3 * time.Second
	// listenPause is how long after its loss the connection is made again.
	listenPause = 250 * time.Millisecond
)

// Notice is what a server hears from another one that shares its database.
type Notice struct {
	// Position is the position of the newest event of a commit. Zero means that
	// notices may have been missed, and that the log is to be looked at.
	Position int64
	// Due are the ids of webhooks that may have something to deliver.
	Due []string
}

// NoticeStatus says how the exchange of notices goes.
type NoticeStatus struct {
	// Listening says that a connection for the notices of others stands.
	Listening bool
	// Sent and Heard count notices, those heard without this server's own.
	Sent, Heard int64
}

// notices are NOTIFY and LISTEN of PostgreSQL. They are hints alone: whoever misses
// one finds the same in the log. They go over connections of their own, since a
// NOTIFY inside the transaction of a change would hold a lock that all servers wait
// for, and LISTEN needs a session that no pooler lends to others.
type notices struct {
	database          *postgresDatabase
	sender            *sql.DB
	origin            string // tells this server's own notices from those of others
	sending, hearing  *outage.Outage
	wakeup            chan struct{} // of the sender; holds one message
	listening         atomic.Bool
	sent, heard       atomic.Int64
	mu                sync.Mutex
	position, already int64 // the newest to tell of, and the newest told of
	due               map[string]bool
	dueSince          time.Time // when the first of due came
}

func newNotices(d *postgresDatabase, log *slog.Logger) *notices {
	return &notices{
		database: d, sender: d.pool(1), origin: rand.Text(), wakeup: make(chan struct{}, 1), due: make(map[string]bool),
		sending: outage.New(log, "The other servers cannot be told of changes at once; they find them a little later.", "The other servers are told of changes at once again."),
		hearing: outage.New(log, "The changes of other servers are not heard of at once; they are found a little later.", "The changes of other servers are heard of at once again."),
	}
}

// committed notes that events up to a position are to be told of. It waits for
// nothing, and has no notices to work with on SQLite.
func (n *notices) committed(position int64) {
	if n == nil {
		return
	}
	n.mu.Lock()
	n.position = max(n.position, position)
	n.mu.Unlock()
	n.wake()
}

func (n *notices) wake() {
	select {
	case n.wakeup <- struct{}{}:
	default:
	}
}

// AnnounceDue tells other servers that webhooks may have something to deliver which
// this server has not taken. It waits for nothing.
func (s *Store) AnnounceDue(webhookIDs []string) {
	n := s.notices
	if n == nil || len(webhookIDs) == 0 {
		return
	}
	n.mu.Lock()
	if len(n.due) == 0 {
		n.dueSince = time.Now()
	}
	for _, id := range webhookIDs {
		n.due[id] = true
	}
	n.mu.Unlock()
	n.wake()
}

// ExchangeNotices tells other servers of this one's commits, and calls hear for those
// of others, until ctx ends. hear must not block. A database that others do not share
// has no notices.
func (s *Store) ExchangeNotices(ctx context.Context, hear func(Notice)) error {
	if s.notices == nil {
		return nil
	}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { s.notices.send(ctx); return nil })
	both.Go(func() error { s.notices.listen(ctx, hear); return nil })
	return both.Wait()
}

// Notices returns how the exchange of notices goes; false where there are none.
func (s *Store) Notices() (NoticeStatus, bool) {
	n := s.notices
	if n == nil {
		return NoticeStatus{}, false
	}
	return NoticeStatus{Listening: n.listening.Load(), Sent: n.sent.Load(), Heard: n.heard.Load()}, true
}

// send sends what there is to tell until ctx ends. While one notice is sent, what
// comes is gathered for the next.
func (n *notices) send(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		payload, wait := n.next(time.Now())
		if payload != "" {
			err := n.notify(ctx, payload)
			if ctx.Err() != nil {
				return
			}
			n.sending.Note(n.database.explain(err))
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-n.wakeup:
		case <-timer.C:
		}
	}
}

// next returns the text of the next notice, or else how long until there may be one.
func (n *notices) next(now time.Time) (payload string, wait time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wait = time.Hour
	var ids []string
	if len(n.due) > 0 {
		if wait = n.dueSince.Add(dueDelay).Sub(now); wait <= 0 {
			for id := range n.due {
				if ids = append(ids, id); len(ids) == maxDue {
					break
				}
			}
			for _, id := range ids {
				delete(n.due, id)
			}
		}
	}
	if n.position == n.already && len(ids) == 0 {
		return "", wait
	}
	n.already = n.position
	return n.origin + " " + strconv.FormatInt(n.position, 10) + " " + strings.Join(ids, ","), 0
}

// notify sends one notice. One that fails is not sent again, except over a new
// connection at once: by the next one, or their polls, the others find all of it.
func (n *notices) notify(ctx context.Context, payload string) error {
	var err error
	for range 2 {
		attempt, cancel := context.WithTimeout(ctx, sendTimeout)
		_, err = n.sender.ExecContext(attempt, "SELECT pg_notify("+noticeChannel+", $1)", payload)
		cancel()
		if err == nil {
			n.sent.Add(1)
			return nil
		}
		if attempt.Err() != nil {
			break
		}
	}
	return err
}

// noticeChannel names the channel of a schema: several may share a database.
const noticeChannel = "'apikeys_' || (hashtext(current_schema())::bigint & 4294967295)"

// listen hears notices until ctx ends. A connection that is lost is made again.
func (n *notices) listen(ctx context.Context, hear func(Notice)) {
	for {
		err := n.session(ctx, hear)
		n.listening.Store(false)
		if ctx.Err() != nil {
			return
		}
		n.hearing.Note(n.database.explain(err))
		select {
		case <-time.After(listenPause):
		case <-ctx.Done():
			return
		}
	}
}

// session hears notices over one connection until that is lost.
func (n *notices) session(ctx context.Context, hear func(Notice)) error {
	start, cancel := context.WithTimeout(ctx, listenTimeout)
	defer cancel()
	conn, err := n.database.connect(start)
	if err != nil {
		return err
	}
	defer closeSoon(conn)
	var channel string
	if err := conn.QueryRow(start, "SELECT "+noticeChannel).Scan(&channel); err != nil {
		return err
	}
	if _, err := conn.Exec(start, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	n.listening.Store(true)
	n.hearing.Note(nil)
	hear(Notice{}) // What was said before nobody has heard.
	for {
		if err := n.hearNext(ctx, conn, hear); err != nil {
			return err
		}
	}
}

// hearNext waits for a notice, or until the connection has shown that it stands.
func (n *notices) hearNext(ctx context.Context, conn *pgx.Conn, hear func(Notice)) error {
	wait, cancel := context.WithTimeout(ctx, listenPing)
	defer cancel()
	said, err := conn.WaitForNotification(wait)
	switch {
	case err == nil:
		if notice, own := n.parse(said.Payload); !own {
			n.heard.Add(1)
			hear(notice)
		}
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case !errors.Is(err, context.DeadlineExceeded) || conn.IsClosed():
		return err
	}
	ping, cancel := context.WithTimeout(ctx, listenTimeout)
	defer cancel()
	return conn.Ping(ping)
}

// parse reads the text of a notice. One that has another form says only that there is
// something to look at.
func (n *notices) parse(payload string) (_ Notice, own bool) {
	origin, rest, _ := strings.Cut(payload, " ")
	position, ids, _ := strings.Cut(rest, " ")
	notice := Notice{}
	if at, err := strconv.ParseInt(position, 10, 64); err == nil && at > 0 {
		notice.Position = at
	}
	if ids != "" {
		notice.Due = strings.Split(ids, ",")
	}
	return notice, origin == n.origin
}

// close closes the connection of the sender.
func (n *notices) close() {
	if n != nil {
		_ = n.sender.Close() // It holds nothing.
	}
}

// closeSoon closes a connection, which may be lost.
func closeSoon(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // It is gone either way.
}
