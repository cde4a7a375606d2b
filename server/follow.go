package server

import (
	"strings"
	"sync"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/broken"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// committed is told of each commit of this server, before anyone is answered.
func (s *Server) committed(commit store.Commit) {
	// Whoever hears of a change may ask about its key at once, so the cache
	// comes first.
	s.verifier.Drop(commit.ChangedKeys, commit.Position)
	s.tokens.Drop(commit.ChangedTokens)
	s.metrics.Committed(&commit)
	if s.own != nil && !commit.Unknown {
		s.own.add(commit.First, commit.Position)
	}
	s.feed.Notify(commit.Position)
	s.due(commit.Due)
	s.fanOut.Notify(commit.Organizations, commit.Subscribed)
	if len(commit.Deleted) > 0 {
		s.orphans.wake()
	}
}

// due is told of webhooks that have something to deliver now. This server takes what it
// has room for, and others what it leaves.
func (s *Server) due(webhookIDs []string) {
	s.worker.Wake(webhookIDs)
	s.db.store.AnnounceDue(webhookIDs)
}

// followed is told of all that is read of a log that other servers write too, before
// any follower is. What this server has committed is told of twice, in no order.
func (s *Server) followed(b feed.Batch) {
	if b.Missed {
		s.verifier.DropAll()
		s.fanOut.NotifyAll() // Nobody tells of the events that were missed.
	}
	if b.Replaced {
		s.db.store.Forget()
		s.own.forget()
	}
	var keys, tokens, organizations, subscribed []string
	var others []time.Time // when other servers changed keys
	deleted := false
	for i := range b.Events {
		e := &b.Events[i]
		isKey := strings.HasPrefix(e.ResourceID, apikey.IDPrefix)
		if isKey {
			keys = append(keys, e.ResourceID)
		}
		if strings.HasPrefix(e.ResourceID, apikey.TokenIDPrefix) {
			tokens = append(tokens, e.ResourceID)
		}
		if s.own.take(e.Position) || e.OrganizationID == "" {
			continue // Its fan-out has been told, or it has none.
		}
		if isKey {
			others = append(others, e.CreatedAt)
		}
		organizations = append(organizations, e.OrganizationID)
		if !isKey {
			// Any change of a webhook may begin a term.
			subscribed = append(subscribed, e.OrganizationID)
			deleted = deleted || e.Type == webhook.WebhookDeleted
		}
	}
	if !broken.Is(broken.KeepOthers) {
		s.verifier.Drop(keys, b.Newest)
	}
	s.tokens.Drop(tokens)
	for _, at := range others {
		s.metrics.Followed(s.config.Now().Sub(at))
	}
	s.fanOut.Notify(organizations, subscribed)
	if deleted {
		s.orphans.wake()
	}
}

// hear is told of the notices of other servers.
func (s *Server) hear(n store.Notice) {
	s.feed.Hear(n.Position)
	s.worker.Wake(n.Due)
}

// ownCommits are the positions that this server has committed and not yet read in the
// log. The zero value is ready. It is for databases that servers share.
type ownCommits struct {
	mu    sync.Mutex
	spans []span // ascending
}

// span is positions from first to last.
type span struct{ first, last int64 }

// maxSpans bounds what is remembered while the log cannot be read. What is forgotten
// is taken for another server's.
const maxSpans = 4096

// add notes a commit.
func (o *ownCommits) add(first, last int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.spans) < maxSpans {
		o.spans = append(o.spans, span{first, last})
	}
}

// forget forgets every position: those of a log that was replaced are of other commits.
func (o *ownCommits) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spans = nil
}

// take reports whether a position is of a commit of this server. It is asked for
// ascending positions, and forgets those before.
func (o *ownCommits) take(position int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for n < len(o.spans) && o.spans[n].last < position {
		n++
	}
	if o.spans = o.spans[n:]; len(o.spans) == 0 {
		o.spans = nil
	}
	return len(o.spans) > 0 && o.spans[0].first <= position
}
