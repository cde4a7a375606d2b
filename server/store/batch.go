package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// KeysChange is one change that is made of many keys, each as if it were made of that
// key alone: checked by the caller's rights as they are then, with an event of its own.
type KeysChange struct {
	// Filter chooses the keys. Its organization is that of the keys, and its IDs are
	// those that the transaction looks at, ascending: a key that the filter does not
	// choose any more is left alone.
	Filter KeyFilter
	// Named says that the keys are named by their ids: one that is not there has a
	// result too.
	Named bool
	// Event is what happens to each key, by Rule; KeyDeleted takes it out of the store,
	// and has no rule.
	Event apikey.EventType
	Rule  func(k *apikey.Key, now time.Time) error
	// Disables says that the rule does nothing but disable keys. Like what ends keys,
	// this waits for no fan-out.
	Disables bool
}

// KeyResult is what became of one key.
type KeyResult struct {
	ID string
	// Key is the key as it is afterwards, or was when it was deleted; the zero Key
	// where there is none.
	Key     apikey.Key
	Changed bool
	// Err says why the key was not changed.
	Err *apikey.Error
}

// KeyResults are those of one call.
type KeyResults struct {
	Results []KeyResult
	// Ended says that the caller may call no more since one of the changes: what
	// follows was left alone.
	Ended bool
}

// ChangeKeys makes a change of many keys in one transaction, which has no other
// changes. So that nobody waits long for it, it is to be called with a few dozen ids at
// a time. An error says that nothing was changed.
func (s *Store) ChangeKeys(ctx context.Context, by *apikey.Caller, c *KeysChange) (KeyResults, error) {
	commit := s.commitMany
	if c.Event == apikey.KeyRevoked || c.Event == apikey.KeyDeleted || c.Disables {
		commit = s.commitManyAtOnce
	}
	var results KeyResults
	err := commit(ctx, by, func(ctx context.Context, t *tx) error {
		results = KeyResults{}
		t.result = &results
		filter := c.Filter
		// Nothing has an id of another form, and PostgreSQL does not take every text.
		filter.IDs = slices.DeleteFunc(append([]string{}, filter.IDs...), func(id string) bool { return !apikey.IsID(apikey.IDPrefix, id) })
		sel, err := s.selectBy(ctx, t, &filter, t.now)
		if err != nil {
			return err
		}
		rows, err := s.read(ctx, t, &sel, "", "", len(filter.IDs))
		if err != nil {
			return fmt.Errorf("read keys: %w", err)
		}
		for _, id := range c.Filter.IDs {
			r := KeyResult{ID: id}
			switch {
			case len(rows) > 0 && rows[0].key.ID == id:
				if r.Key, err = rows[0].decode(); err != nil {
					return err
				}
				rows = rows[1:]
				r.Changed, err = t.changeOne(ctx, c, &r.Key)
			case c.Named:
				err = apikey.ErrNotFound
			default:
				continue
			}
			if r.Err = apikey.AsError(err); r.Err == nil && err != nil {
				return err
			}
			results.Results = append(results.Results, r)
			if !r.Changed || id != by.Resource() {
				continue
			}
			// The caller has changed itself: what follows is by what it is now.
			switch err := t.admit(ctx, by); {
			case apikey.AsError(err) != nil:
				results.Ended = true
				return nil //nolint:nilerr // What it may not do any more is no fault of what is done.
			case err != nil:
				return err
			}
		}
		return nil
	})
	if err != nil {
		return KeyResults{}, unexpected("change keys", err)
	}
	return results, nil
}

// changeOne makes a change of one key, and reports whether there was anything to
// change.
func (t *tx) changeOne(ctx context.Context, c *KeysChange, k *apikey.Key) (changed bool, err error) {
	if c.Event == apikey.KeyDeleted {
		return true, t.deleteKey(ctx, k)
	}
	return t.changeKey(ctx, k, c.Event, c.rule())
}

// rule returns the rule, which may do no more than it says.
func (c *KeysChange) rule() func(k *apikey.Key, now time.Time) error {
	if c.Disables {
		return disabling(c.Rule)
	}
	return c.Rule
}

// Try returns what the change of a key would come to that was read before, as far as
// that can be told without making it.
func (c *KeysChange) Try(by *apikey.Caller, k *apikey.Key, now time.Time) KeyResult {
	r := KeyResult{ID: k.ID, Key: *k, Changed: c.Event == apikey.KeyDeleted}
	if !r.Changed {
		changes, err := applyRule(&by.Rights, by.Actor, c.Event, &r.Key, c.rule(), now)
		r.Changed, r.Err = len(changes) > 0 && err == nil, apikey.AsError(err)
	}
	return r
}
