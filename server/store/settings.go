package store

import (
	"context"
	"fmt"

	"github.com/apikeys-dev/apikeys/ent"
	entaccess "github.com/apikeys-dev/apikeys/ent/accesstoken"
	entkey "github.com/apikeys-dev/apikeys/ent/apikey"
	enttoken "github.com/apikeys-dev/apikeys/ent/operatortoken"
	entsetting "github.com/apikeys-dev/apikeys/ent/setting"
	"github.com/apikeys-dev/apikeys/server/keyring"
)

// Settings returns the facts about the database itself by their names. It is
// empty until the database is first initialized.
func (s *Store) Settings(ctx context.Context) (map[string]string, error) {
	rows, err := s.reader.Setting.Query().Order(entsetting.ByID()).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	settings := make(map[string]string, len(rows))
	for _, row := range rows {
		settings[row.ID] = row.Value
	}
	return settings, nil
}

// Initialize adds settings to the database and, where token is not nil, the first
// operator token, together. A setting that is there already stays as it is.
func (s *Store) Initialize(ctx context.Context, settings map[string]string, token *keyring.OperatorToken) error {
	return s.transact(ctx, "initialize the database", func(ctx context.Context, etx *ent.Tx) error {
		if n, err := etx.Revision.Query().Count(ctx); err != nil {
			return err
		} else if n == 0 {
			if err := etx.Revision.Create().SetID(revisionRow).SetPosition(0).Exec(ctx); err != nil {
				return err
			}
		}
		for name, value := range settings {
			if err := etx.Setting.Create().SetID(name).SetValue(value).OnConflictColumns(entsetting.FieldID).Ignore().Exec(ctx); err != nil {
				return err
			}
		}
		if token != nil {
			return createToken(ctx, etx, *token)
		}
		return nil
	})
}

// UsesPepper reports whether a key or token is stored under the pepper.
func (s *Store) UsesPepper(ctx context.Context, id string) (bool, error) {
	used, err := s.reader.OperatorToken.Query().Where(enttoken.PepperID(id)).Exist(ctx)
	if err == nil && !used {
		used, err = s.reader.AccessToken.Query().Where(entaccess.Or(entaccess.PepperID(id), entaccess.PreviousPepperID(id))).Exist(ctx)
	}
	if err == nil && !used {
		used, err = s.reader.ApiKey.Query().Where(entkey.Or(entkey.PepperID(id), entkey.PreviousPepperID(id))).Exist(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("look for rows under pepper %s: %w", id, err)
	}
	return used, nil
}

// CountKeys returns how many keys there are.
func (s *Store) CountKeys(ctx context.Context) (int, error) {
	n, err := s.reader.ApiKey.Query().Count(ctx)
	if err != nil {
		return 0, fmt.Errorf("count keys: %w", err)
	}
	return n, nil
}

// RootTokens returns the root tokens that are good now, ascending by id.
func (s *Store) RootTokens(ctx context.Context) ([]keyring.OperatorToken, error) {
	rows, err := s.reader.OperatorToken.Query().Order(enttoken.ByID()).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read root tokens: %w", err)
	}
	tokens := make([]keyring.OperatorToken, len(rows))
	for i, row := range rows {
		hash, err := hashOf(row.Hash)
		if err != nil {
			return nil, fmt.Errorf("read root token %s: %w", row.ID, err)
		}
		tokens[i] = keyring.OperatorToken{ID: row.ID, Hash: hash, PepperID: row.PepperID, CreatedAt: fromMicros(&row.CreatedAt)}
	}
	return tokens, nil
}

// ReplaceRootTokens makes token the only root token.
func (s *Store) ReplaceRootTokens(ctx context.Context, token keyring.OperatorToken) error {
	return s.transact(ctx, "replace the root tokens", func(ctx context.Context, etx *ent.Tx) error {
		if _, err := etx.OperatorToken.Delete().Exec(ctx); err != nil {
			return err
		}
		return createToken(ctx, etx, token)
	})
}

func createToken(ctx context.Context, etx *ent.Tx, token keyring.OperatorToken) error {
	return etx.OperatorToken.Create().SetID(token.ID).SetHash(token.Hash[:]).SetPepperID(token.PepperID).
		SetCreatedAt(token.CreatedAt.UnixMicro()).Exec(ctx)
}

// transact runs a transaction that changes no key and appends no event.
func (s *Store) transact(ctx context.Context, doing string, apply func(context.Context, *ent.Tx) error) (err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	defer func() { s.faults.observe(err) }()
	etx, err := s.writer.Tx(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer etx.Rollback() //nolint:errcheck // After the commit it has nothing to do.
	if err := checkFence(ctx, ctx, etx); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := apply(ctx, etx); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := etx.Commit(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}
