package store

import (
	"context"
	"fmt"

	entsql "entgo.io/ent/dialect/sql"

	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	enttoken "github.com/apikeys-dev/apikeys/ent/operatortoken"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// admit lets by make a change in this transaction, or is the error of a caller that
// may not: one that is a key is checked by its row as the siblings before have left
// it, and the token of an operator must still be stored.
func (t *tx) admit(ctx context.Context, by *apikey.Caller) error {
	var row *apikey.Key
	if id := by.Resource(); id != "" {
		var err error
		if row, err = t.caller(ctx, id); err != nil {
			return fmt.Errorf("read the caller: %w", err)
		}
	}
	if by.StoredToken {
		if stored, err := t.token(ctx, by.Actor.ID); err != nil {
			return fmt.Errorf("read the caller's token: %w", err)
		} else if !stored {
			return apikey.ErrBadCredential()
		}
	}
	rights, err := by.Admit(row, t.now)
	t.by, t.rights = by, rights
	return err
}

// changed notes that a key changed: caches drop it after the commit, and siblings that
// follow are checked by its new row.
func (t *tx) changed(id string) {
	t.group.changed = append(t.group.changed, id)
	delete(t.group.callers, id)
}

// caller returns the key of a caller, nil where it is gone. It is read once for all
// members of a group between two changes of it. A member that is rolled back leaves
// nothing here that is not so: what it has read, it read before its own changes.
func (t *tx) caller(ctx context.Context, id string) (*apikey.Key, error) {
	if k, ok := t.group.callers[id]; ok {
		return k, nil
	}
	rows, err := t.QueryContext(ctx, t.store.callerText, id) //nolint:rowserrcheck // The scan checks it.
	if err != nil {
		return nil, err
	}
	var found *apikey.Key
	err = scanRows(rows, (*keyRow).rightsColumns, nil, func(row *keyRow) error {
		k, err := row.decodeRights()
		found = &k
		return err
	})
	if err != nil {
		return nil, err
	}
	if t.group.callers == nil {
		t.group.callers = make(map[string]*apikey.Key)
	}
	t.group.callers[id] = found
	return found, nil
}

// token reports whether an operator's access token is stored. It is read once for all
// members of a group, none of which changes tokens.
func (t *tx) token(ctx context.Context, id string) (bool, error) {
	if stored, ok := t.group.tokens[id]; ok {
		return stored, nil
	}
	rows, err := t.QueryContext(ctx, t.store.tokenText, id)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	stored := rows.Next()
	if err := rows.Err(); err != nil {
		return false, err
	}
	if t.group.tokens == nil {
		t.group.tokens = make(map[string]bool)
	}
	t.group.tokens[id] = stored
	return stored, nil
}

// tokenText returns the query that finds the access token with an id.
func tokenText(dialect string) string {
	build := entsql.Dialect(dialect)
	token := build.Table(enttoken.Table)
	text, _ := build.Select(token.C(enttoken.FieldID)).From(token).Where(entsql.EQ(token.C(enttoken.FieldID), "")).Query()
	return text
}

// callerText returns the query of the key with an id, made once so that the driver
// finds it prepared.
func callerText(dialect string) string {
	build := entsql.Dialect(dialect)
	key := build.Table(entkey.Table)
	query := build.Select()
	for _, c := range new(keyRow).rightsColumns() {
		query.AppendSelect(key.C(c.name))
	}
	text, _ := query.From(key).Where(entsql.EQ(key.C(entkey.FieldID), "")).Query()
	return text
}
