package store

import (
	"context"
	"fmt"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
	entaccess "github.com/apikeys-dev/apikeys/ent/accesstoken"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	enttoken "github.com/apikeys-dev/apikeys/ent/operatortoken"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/operator"
)

// admit lets by make a change in this transaction, or is the error of a caller that
// may not: one that is a key, or has an operator's token, is checked by its row as the
// siblings before have left it, and a root token must still be stored.
func (t *tx) admit(ctx context.Context, by *apikey.Caller) error {
	rights, err := t.admitted(ctx, by)
	t.by, t.rights = by, rights
	return err
}

// admitted returns the rights of by in this transaction.
func (t *tx) admitted(ctx context.Context, by *apikey.Caller) (apikey.Rights, error) {
	switch id := by.Resource(); {
	case by.HasToken():
		token, err := t.token(ctx, id)
		if err != nil {
			return apikey.Rights{}, fmt.Errorf("read the caller's token: %w", err)
		}
		return operator.Readmit(by, token, t.now)
	case id != "":
		row, err := t.caller(ctx, id)
		if err != nil {
			return apikey.Rights{}, fmt.Errorf("read the caller: %w", err)
		}
		return by.Admit(row, t.now)
	case by.StoredToken:
		if stored, err := t.rootToken(ctx, by.Actor.ID); err != nil {
			return apikey.Rights{}, fmt.Errorf("read the caller's token: %w", err)
		} else if !stored {
			return apikey.Rights{}, apikey.ErrBadCredential()
		}
	}
	return by.Admit(nil, t.now)
}

// changedToken notes that the token of an operator changed: caches drop it after the
// commit, and siblings that follow are checked by its new row.
func (t *tx) changedToken(id string) {
	t.group.changedTokens = append(t.group.changedTokens, id)
	delete(t.group.tokens, id)
}

// token returns the token of an operator, nil where it is gone. It is read once for all
// members of a group between two changes of it, as caller is.
func (t *tx) token(ctx context.Context, id string) (*operator.Token, error) {
	if token, ok := t.group.tokens[id]; ok {
		return token, nil
	}
	var found *operator.Token
	row, err := t.AccessToken.Query().Where(entaccess.ID(id)).Only(ctx)
	switch {
	case ent.IsNotFound(err):
	case err != nil:
		return nil, err
	default:
		token, err := tokenOf(row)
		if err != nil {
			return nil, err
		}
		found = &token
	}
	if t.group.tokens == nil {
		t.group.tokens = make(map[string]*operator.Token)
	}
	t.group.tokens[id] = found
	return found, nil
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

// rootToken reports whether a root token is stored. It is read once for all members of a
// group, none of which changes root tokens.
func (t *tx) rootToken(ctx context.Context, id string) (bool, error) {
	if stored, ok := t.group.rootTokens[id]; ok {
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
	if t.group.rootTokens == nil {
		t.group.rootTokens = make(map[string]bool)
	}
	t.group.rootTokens[id] = stored
	return stored, nil
}

// tokenText returns the query that finds the root token with an id.
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
