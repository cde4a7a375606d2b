package feed

import "context"

// Fill reads the log to its end, as Run does when it is notified.
func (f *Feed) Fill(ctx context.Context) error {
	for {
		if more, err := f.fill(ctx); err != nil || !more {
			return err
		}
	}
}

// Notifiers returns how many notifiers are held.
func (f *Feed) Notifiers() int { return len(f.organizations) + len(f.resources) }
