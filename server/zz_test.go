package server_test

import (
	"context"
	"fmt"
	"time"

	"github.com/apikeys-dev/apikeys/server/webhook"
)

type countQ struct {
	webhook.Queue
	claims, claimed, settles, settled, asks int
	ct, st time.Duration
}

func (q *countQ) Claim(ctx context.Context, asks []webhook.Ask, lease string, until time.Time) ([]webhook.Claim, map[string]time.Time, error) {
	b := time.Now()
	c, n, err := q.Queue.Claim(ctx, asks, lease, until)
	q.claims++; q.claimed += len(c); q.asks += len(asks); q.ct += time.Since(b)
	return c, n, err
}

func (q *countQ) Settle(ctx context.Context, r []webhook.Result, b webhook.Backoff) ([]webhook.Delivery, error) {
	bb := time.Now()
	q.settles++; q.settled += len(r)
	defer func() { q.st += time.Since(bb) }()
	return q.Queue.Settle(ctx, r, b)
}
func (q *countQ) String() string { return fmt.Sprintf("claims %d of %d (asks %d) %v; settles %d of %d %v", q.claims, q.claimed, q.asks, q.ct, q.settles, q.settled, q.st) }
