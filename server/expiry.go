package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// How often keys are looked at for notices of their expiry, which are promised
// within a second, and how many are published in one transaction.
const (
	noticeInterval = 400 * time.Millisecond
	noticeBatch    = 100
)

// publishNotices publishes the events about the expiry of keys until ctx ends.
func publishNotices(ctx context.Context, s *store.Store, rules apikey.Rules, log *slog.Logger) error {
	tick := time.NewTicker(noticeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// A full batch means that more may be due, so the next follows at once.
		for published := noticeBatch; published == noticeBatch; {
			var err error
			if published, _, err = s.PublishNotices(ctx, noticeBatch, rules.Notice); err != nil && ctx.Err() == nil {
				log.Error("The notices of keys that expire could not be published; they are tried again.", "error", err)
			}
		}
	}
}
