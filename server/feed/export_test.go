package feed

import "context"

// Fill reads the log to its end, as Run does after a ring.
func (f *Feed) Fill(ctx context.Context) error {
	for {
		if more, err := f.fill(ctx); err != nil || !more {
			return err
		}
	}
}

// Bells returns how many bells hang.
func (f *Feed) Bells() int { return len(f.organizations) + len(f.resources) }
