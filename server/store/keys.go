package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// CreateKey stores the key that rule makes of its time, with a new id, and
// returns it. An error of rule is returned as it is and nothing is stored.
func (s *Store) CreateKey(ctx context.Context, by *apikey.Caller, rule func(now time.Time) (apikey.Key, error)) (apikey.Key, error) {
	return s.AddKey(ctx, by, 0, nil, rule)
}

// AddKey is CreateKey for an organization that may have most keys: where it has as
// many already, nothing is stored, and the error is full. Zero means any number.
func (s *Store) AddKey(
	ctx context.Context, by *apikey.Caller, most int, full error, rule func(now time.Time) (apikey.Key, error),
) (apikey.Key, error) {
	var created apikey.Key
	err := s.commitChange(ctx, by, func(ctx context.Context, t *tx) error {
		k, err := rule(t.now)
		if err != nil {
			return err
		}
		if most > 0 {
			// The last that it may have, by the index alone.
			last, err := t.ApiKey.Query().Where(entkey.OrganizationID(k.OrganizationID)).Order(entkey.ByID()).
				Offset(most - 1).Limit(1).IDs(ctx)
			if err != nil {
				return fmt.Errorf("count the organization's keys: %w", err)
			}
			if len(last) > 0 {
				return full
			}
		}
		if err := t.checkExternalID(ctx, &k); err != nil {
			return err
		}
		truncateTimes(&k)
		k.ID, k.CreatedBy = s.newID(apikey.IDPrefix), by.Actor
		if err := createKey(t.ApiKey, &k).Exec(ctx); err != nil {
			return fmt.Errorf("insert key: %w", err)
		}
		if k.Quota != (apikey.Quota{}) {
			k.Quota.Epoch = k.Version
			if err := t.setQuota(ctx, &k); err != nil {
				return err
			}
		}
		created = k
		t.result = &created
		return t.appendKey(ctx, apikey.KeyCreated, &k, nil)
	})
	return created, unexpected("create key", err)
}

// checkExternalID is an error where another key of k's organization has the external id
// of k already.
func (t *tx) checkExternalID(ctx context.Context, k *apikey.Key) error {
	if k.ExternalID == "" {
		return nil
	}
	id, err := t.ApiKey.Query().Where(entkey.OrganizationID(k.OrganizationID), entkey.ExternalID(k.ExternalID)).OnlyID(ctx)
	switch {
	case ent.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("look for the external id: %w", err)
	}
	return apikey.ErrExternalIDTaken(id)
}

// ChangeKey applies rule to a key of organization and returns the key as it is
// afterwards. A rule that leaves the key as it was writes nothing, whatever else
// it does; an error of rule is returned as it is and nothing is stored. What by may
// not do to this key, or may not grant, is refused. A key that is not there is
// apikey.ErrNotFound.
func (s *Store) ChangeKey(
	ctx context.Context, by *apikey.Caller, organization, id string, event apikey.EventType,
	rule func(k *apikey.Key, now time.Time) error,
) (apikey.Key, error) {
	commit := s.commitChange
	if event == apikey.KeyRevoked {
		commit = s.commitAtOnce
	}
	return s.changeKey(ctx, commit, by, organization, id, event, rule)
}

// DisableKey is ChangeKey for a rule that does nothing but disable a key. Like what
// revokes a key, it waits for no fan-out.
func (s *Store) DisableKey(
	ctx context.Context, by *apikey.Caller, organization, id string, rule func(k *apikey.Key, now time.Time) error,
) (apikey.Key, error) {
	return s.changeKey(ctx, s.commitAtOnce, by, organization, id, apikey.KeyUpdated, disabling(rule))
}

// disabling returns rule, which is to do nothing but disable a key.
func disabling(rule func(k *apikey.Key, now time.Time) error) func(k *apikey.Key, now time.Time) error {
	return func(k *apikey.Key, now time.Time) error {
		before := *k
		if err := rule(k, now); err != nil {
			return err
		}
		return disables(apikey.Changes(&before, k, now), k.Enabled)
	}
}

// disables is an error where changes are more than that something is disabled.
func disables(changes []string, enabled bool) error {
	other := func(name string) bool { return name != "enabled" && name != "state" && name != "disabled_reason" }
	if len(changes) > 0 && (enabled || slices.ContainsFunc(changes, other)) {
		return fmt.Errorf("a rule that may disable changes %v, to enabled %t", changes, enabled)
	}
	return nil
}

// commit is one of the ways in which a change is committed.
type commit func(ctx context.Context, by *apikey.Caller, apply func(context.Context, *tx) error) error

func (s *Store) changeKey(
	ctx context.Context, commit commit, by *apikey.Caller, organization, id string, event apikey.EventType,
	rule func(k *apikey.Key, now time.Time) error,
) (apikey.Key, error) {
	var changed apikey.Key
	err := commit(ctx, by, func(ctx context.Context, t *tx) (err error) {
		t.result = &changed
		if changed, err = t.key(ctx, organization, id); err != nil {
			return err
		}
		_, err = t.changeKey(ctx, &changed, event, rule)
		return err
	})
	return changed, unexpected("change key", err)
}

// changeKey applies rule to k, a key as it was read in the transaction, and reports
// whether there was anything to write. An error for the caller comes before anything is
// written.
func (t *tx) changeKey(
	ctx context.Context, k *apikey.Key, event apikey.EventType, rule func(k *apikey.Key, now time.Time) error,
) (changed bool, err error) {
	changes, err := applyRule(&t.rights, t.by.Actor, event, k, rule, t.now)
	if err != nil {
		return false, err
	}
	// Where nothing changes, too: another server may just have made the change, and what is
	// cached here may be older. It must be in force here too once this is answered.
	t.changed(k.ID)
	if len(changes) == 0 {
		return false, nil
	}
	k.UpdatedAt = t.now
	k.Version++
	if err := t.updateKey(ctx, k); err != nil {
		return false, err
	}
	if slices.Contains(changes, "quota") {
		k.Quota.Epoch = k.Version
		if err := t.setQuota(ctx, k); err != nil {
			return false, err
		}
	}
	return true, t.appendKey(ctx, event, k, changes)
}

// applyRule applies rule to k and returns the names of the fields that differ. Where
// rule, or the rights of by, do not allow the change, k stays.
func applyRule(
	rights *apikey.Rights, by apikey.Actor, event apikey.EventType, k *apikey.Key,
	rule func(k *apikey.Key, now time.Time) error, now time.Time,
) ([]string, error) {
	if err := rights.CheckSecret(event, by, apikey.Actor{Kind: apikey.ActorKey, ID: k.ID}); err != nil {
		return nil, err
	}
	after := *k
	if err := rule(&after, now); err != nil {
		return nil, err
	}
	truncateTimes(&after)
	changes := apikey.Changes(k, &after, now)
	if len(changes) > 0 {
		if err := rights.CheckChange(event, by, &after, changes); err != nil {
			return nil, err
		}
	}
	*k = after
	return changes, nil
}

// DeleteKey takes a key of organization out of the store; its events stay. A key
// that is not there is apikey.ErrNotFound.
func (s *Store) DeleteKey(ctx context.Context, by *apikey.Caller, organization, id string) error {
	return unexpected("delete key", s.commitAtOnce(ctx, by, func(ctx context.Context, t *tx) error {
		k, err := t.key(ctx, organization, id)
		if err != nil {
			return err
		}
		return t.deleteKey(ctx, &k)
	}))
}

// deleteKey takes k, a key as it was read in the transaction, out of the store.
func (t *tx) deleteKey(ctx context.Context, k *apikey.Key) error {
	if err := t.ApiKey.DeleteOneID(k.ID).Exec(ctx); err != nil {
		return fmt.Errorf("delete key: %w", err)
	}
	if err := t.ApiKeyUsage.DeleteOneID(k.ID).Exec(ctx); err != nil && !ent.IsNotFound(err) {
		return fmt.Errorf("delete the key's counters: %w", err)
	}
	if err := t.ApiKeyQuota.DeleteOneID(k.ID).Exec(ctx); err != nil && !ent.IsNotFound(err) {
		return fmt.Errorf("delete the key's quota: %w", err)
	}
	if err := t.ApiKeyRateLimit.DeleteOneID(k.ID).Exec(ctx); err != nil && !ent.IsNotFound(err) {
		return fmt.Errorf("delete the key's rate limit: %w", err)
	}
	if err := t.deleteBuckets(ctx, k); err != nil {
		return err
	}
	if err := t.deleteRefusals(ctx, k.ID); err != nil {
		return err
	}
	t.changed(k.ID)
	return t.appendKey(ctx, apikey.KeyDeleted, k, nil)
}

// PublishNotices appends the events about expiry that are due, at most limit of
// them, and returns how many there were and when the next is due; the zero time
// means that none is. rule names the event and sets when the key's next is due.
func (s *Store) PublishNotices(ctx context.Context, limit int,
	rule func(k *apikey.Key, now time.Time) (apikey.EventType, []string),
) (published int, next time.Time, err error) {
	// A look first: with nothing due the writer is not held.
	if next, err = nextNotice(ctx, s.reader.ApiKey); err != nil || next.IsZero() || next.After(s.timestamp()) {
		return 0, next, unexpected("look for notices", err)
	}
	err = s.commitAtOnce(ctx, apikey.System("notices of expiry"), func(ctx context.Context, t *tx) error {
		published = 0
		rows, err := readKeys(ctx, t, s.dialect, entkey.NoticeAtLTE(t.now.UnixMicro()), func(q *entsql.Selector) {
			q.OrderBy(q.C(entkey.FieldNoticeAt), q.C(entkey.FieldID)).Limit(limit)
		})
		if err != nil {
			return fmt.Errorf("read due notices: %w", err)
		}
		for i := range rows {
			k, err := rows[i].decode()
			if err != nil {
				// One row that nobody can read must not keep all others' notices.
				s.log.Error("A key cannot be read; its notice of expiry is dropped.", "api_key_id", rows[i].key.ID, "error", err)
				if err := t.ApiKey.Update().Where(entkey.ID(rows[i].key.ID)).ClearNoticeAt().Exec(ctx); err != nil {
					return fmt.Errorf("drop a notice: %w", err)
				}
				continue
			}
			event, changes := rule(&k, t.now)
			update := t.ApiKey.Update().Where(entkey.ID(k.ID)).SetNillableNoticeAt(micros(k.NoticeAt))
			if k.NoticeAt.IsZero() {
				update.ClearNoticeAt()
			}
			if err := update.Exec(ctx); err != nil {
				return fmt.Errorf("schedule the next notice: %w", err)
			}
			if err := t.appendKey(ctx, event, &k, changes); err != nil {
				return err
			}
			published++
		}
		next, err = nextNotice(ctx, t.ApiKey)
		return err
	})
	if err != nil {
		return 0, time.Time{}, unexpected("publish notices", err)
	}
	return published, next, nil
}

// nextNotice returns when the earliest notice is due, or the zero time.
func nextNotice(ctx context.Context, keys *ent.ApiKeyClient) (time.Time, error) {
	first, err := keys.Query().Where(entkey.NoticeAtNotNil()).Order(entkey.ByNoticeAt()).
		Select(entkey.FieldNoticeAt).First(ctx)
	if ent.IsNotFound(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the next notice: %w", err)
	}
	return fromMicros(first.NoticeAt), nil
}

// key reads a key of organization inside the transaction.
func (t *tx) key(ctx context.Context, organization, id string) (apikey.Key, error) {
	return findKey(ctx, t, t.store.dialect, organization, id)
}

// updateKey writes every column of k that can change.
func (t *tx) updateKey(ctx context.Context, k *apikey.Key) error {
	update := setKey(t.ApiKey.Update().Where(entkey.ID(k.ID)), k)
	clearKey(update, k)
	if err := update.Exec(ctx); err != nil {
		return fmt.Errorf("update key: %w", err)
	}
	return nil
}

// appendKey adds the event about k to the transaction, unless the caller may not make
// such a change.
func (t *tx) appendKey(_ context.Context, event apikey.EventType, k *apikey.Key, changes []string) error {
	if err := t.rights.CheckChange(event, t.by.Actor, k, changes); err != nil {
		return err
	}
	payload, err := wire.KeyPayload(k, t.now)
	if err != nil {
		return err
	}
	_, err = t.append(apikey.Event{
		Type: event, OrganizationID: k.OrganizationID, ResourceID: k.ID, Changes: changes, Payload: payload,
	})
	return err
}

// Key returns a key of organization, or apikey.ErrNotFound.
func (s *Store) Key(ctx context.Context, organization, id string) (apikey.Key, error) {
	return findKey(ctx, s.reader, s.dialect, organization, id)
}

func findKey(ctx context.Context, q querier, dialect, organization, id string) (apikey.Key, error) {
	rows, err := readKeys(ctx, q, dialect, entkey.ID(id), entkey.OrganizationID(organization))
	if err != nil {
		return apikey.Key{}, fmt.Errorf("read key: %w", err)
	}
	if len(rows) == 0 {
		return apikey.Key{}, apikey.ErrNotFound
	}
	return rows[0].decode()
}
