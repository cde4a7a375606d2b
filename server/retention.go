package server

import (
	"context"
	"log/slog"
	"time"
)

// How often old rows are looked for, how many are deleted in one transaction, and
// how long changes have the database to themselves after each.
const (
	retentionInterval = time.Minute
	retentionBatch    = 200
	retentionPause    = 20 * time.Millisecond
)

// deleteOld deletes what was kept long enough until ctx ends. remove deletes up
// to limit of the rows that were made, or over, before a time, and returns how many.
func deleteOld(ctx context.Context, what string, keep time.Duration, now func() time.Time, log *slog.Logger,
	remove func(ctx context.Context, before time.Time, limit int) (int, error),
) error {
	wait := time.NewTimer(retentionPause)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		deleted, err := remove(ctx, now().Add(-keep), retentionBatch)
		if err != nil && ctx.Err() == nil {
			log.Error("What is old could not be deleted; it is tried again.", "what", what, "error", err)
		}
		// A full batch means that more are old enough.
		if err == nil && deleted == retentionBatch {
			wait.Reset(retentionPause)
		} else {
			wait.Reset(retentionInterval)
		}
	}
}
