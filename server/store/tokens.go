package store

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/apikeys-dev/apikeys/ent"
	enttoken "github.com/apikeys-dev/apikeys/ent/accesstoken"
	entuse "github.com/apikeys-dev/apikeys/ent/accesstokenuse"
	"github.com/apikeys-dev/apikeys/ent/predicate"
	entsetting "github.com/apikeys-dev/apikeys/ent/setting"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/operator"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// CreateToken stores the token of an operator that rule makes of its time and of how many
// tokens count towards the same bound, with a new id, and returns it. An error of rule is
// returned as it is and nothing is stored; so is what by may not grant.
func (s *Store) CreateToken(ctx context.Context, by *apikey.Caller,
	rule func(count int, now time.Time) (operator.Token, error),
) (operator.Token, error) {
	var created operator.Token
	err := s.commitChange(ctx, by, func(ctx context.Context, t *tx) error {
		delegate, count, err := t.countTokens(ctx)
		if err != nil {
			return fmt.Errorf("count operator tokens: %w", err)
		}
		token, err := rule(count, t.now)
		if err != nil {
			return err
		}
		truncateTokenTimes(&token)
		token.ID, token.CreatedBy, token.CountedFor = s.newID(apikey.TokenIDPrefix), by.Actor, delegate
		if err := createAccessToken(t.AccessToken, &token).Exec(ctx); err != nil {
			return fmt.Errorf("insert operator token: %w", err)
		}
		created = token
		t.result = &created
		return t.appendToken(apikey.TokenCreated, &token, nil)
	})
	return created, unexpected("create operator token", err)
}

// countTokens returns the delegate whose bound a token counts towards that the caller
// makes, and how many tokens do so already.
func (t *tx) countTokens(ctx context.Context) (delegate string, count int, err error) {
	var token *operator.Token
	if t.by.HasToken() {
		if token, err = t.token(ctx, t.by.Actor.ID); err != nil {
			return "", 0, err
		}
	}
	delegate = operator.Delegate(t.by, token)
	if delegate == "" {
		count, err = t.AccessToken.Query().Where(enttoken.CountedFor(""), enttoken.CreatedByID(t.by.Actor.ID)).Count(ctx)
		return "", count, err
	}
	// Tokens of before there was the column count for their maker alone.
	count, err = t.AccessToken.Query().Where(enttoken.Or(
		enttoken.CountedFor(delegate), enttoken.And(enttoken.CountedFor(""), enttoken.CreatedByID(delegate)))).Count(ctx)
	return delegate, count, err
}

// ChangeToken applies rule to a token that by may know of, and returns the token as it
// is afterwards. A rule that leaves the token as it was writes nothing; an error of rule
// is returned as it is and nothing is stored. What by may not do to this token, or may
// not grant, is refused. A token that is not there, or that by may not know of, is
// operator.ErrNotFound.
func (s *Store) ChangeToken(ctx context.Context, by *apikey.Caller, id string, event apikey.EventType,
	rule func(token *operator.Token, now time.Time) error,
) (operator.Token, error) {
	var changed operator.Token
	err := s.commitChange(ctx, by, func(ctx context.Context, t *tx) error {
		before, err := t.visibleToken(ctx, id)
		if err != nil {
			return err
		}
		if err := t.rights.CheckSecret(event, by.Actor, before.Actor()); err != nil {
			return err
		}
		after := before
		if err := rule(&after, t.now); err != nil {
			return err
		}
		truncateTokenTimes(&after)
		changes := operator.Changes(&before, &after)
		t.result = &changed
		if changed = after; len(changes) == 0 {
			t.changedToken(id) // As of keys: another server may just have made the change.
			return nil
		}
		after.UpdatedAt = t.now
		after.Version++
		if err := t.updateAccessToken(ctx, &after); err != nil {
			return err
		}
		t.changedToken(id)
		changed = after
		return t.appendToken(event, &after, changes)
	})
	if err == nil {
		changed.Use = s.tokenUse(ctx, id)
	}
	return changed, unexpected("change operator token", err)
}

// tokenUse returns the latest use of a token whose change was made; none where it cannot be
// read, since the change is to be answered all the same.
func (s *Store) tokenUse(ctx context.Context, id string) (use operator.Use) {
	row, err := s.reader.AccessTokenUse.Get(ctx, id)
	if err != nil && !ent.IsNotFound(err) {
		s.log.Warn("The latest use of an operator token could not be read.", "operator_token_id", id, "error", err)
	}
	if err == nil {
		use = useOf(row)
	}
	return use
}

// useOf returns the use of a row.
func useOf(row *ent.AccessTokenUse) operator.Use {
	addr, _ := netip.ParseAddr(row.Address) // the zero Addr where it is unknown
	return operator.Use{At: fromMicros(&row.UsedAt), Addr: addr}
}

// DeleteToken takes a token that by may know of out of the store; its events stay. A
// token that is not there, or that by may not know of, is operator.ErrNotFound.
func (s *Store) DeleteToken(ctx context.Context, by *apikey.Caller, id string) error {
	return unexpected("delete operator token", s.commitAtOnce(ctx, by, func(ctx context.Context, t *tx) error {
		token, err := t.visibleToken(ctx, id)
		if err != nil {
			return err
		}
		if err := t.AccessToken.DeleteOneID(id).Exec(ctx); err != nil {
			return fmt.Errorf("delete operator token: %w", err)
		}
		if err := t.AccessTokenUse.DeleteOneID(id).Exec(ctx); err != nil && !ent.IsNotFound(err) {
			return fmt.Errorf("delete the use of an operator token: %w", err)
		}
		t.changedToken(id)
		return t.appendToken(apikey.TokenDeleted, &token, nil)
	}))
}

// Token returns the token with an id, or operator.ErrNotFound.
func (s *Store) Token(ctx context.Context, id string) (operator.Token, error) {
	row, err := s.reader.AccessToken.Query().Where(enttoken.ID(id)).Only(ctx)
	if ent.IsNotFound(err) {
		return operator.Token{}, operator.ErrNotFound
	}
	if err != nil {
		return operator.Token{}, fmt.Errorf("read operator token: %w", err)
	}
	list, err := s.tokensOf(ctx, []*ent.AccessToken{row})
	if err != nil {
		return operator.Token{}, fmt.Errorf("read operator token: %w", err)
	}
	return list[0], nil
}

// TokenFilter says which tokens a list holds.
type TokenFilter struct {
	// CreatedBy is the id of whoever made the tokens; empty means anybody.
	CreatedBy string
	// Visible says whether a token may be listed. Required.
	Visible func(*operator.Token) bool
}

// Tokens returns a page of up to limit tokens that f wants, after the id after,
// ascending by id, and the id after which the next page goes on; empty when this is the
// last. A page ends at about 1 MiB too. It looks at 10,000 rows at most, so a page can be
// short, even empty, and have a next still.
func (s *Store) Tokens(ctx context.Context, f TokenFilter, after string, limit int) (list []operator.Token, next string, err error) {
	end, err := s.beginPage(ctx)
	if err != nil {
		return nil, "", errList("operator tokens", err)
	}
	defer end()
	var where []predicate.AccessToken
	if f.CreatedBy != "" {
		where = append(where, enttoken.CreatedByID(f.CreatedBy))
	}
	examined, ended := 0, false
	list, more, err := readPage(limit, sizeOfToken, func(last *operator.Token, n int) (visible []operator.Token, err error) {
		if last != nil {
			after = last.ID
		}
		for !ended && len(visible) < n {
			if examined >= maxExamined {
				next = after
				break
			}
			rows, err := s.reader.AccessToken.Query().Where(append(slices.Clip(where), enttoken.IDGT(after))...).
				Order(enttoken.ByID()).Limit(n - len(visible)).All(ctx)
			if err != nil {
				return nil, err
			}
			tokens, err := s.tokensOf(ctx, rows)
			if err != nil {
				return nil, err
			}
			ended = len(rows) < n-len(visible)
			for i := range tokens {
				examined++
				after = tokens[i].ID
				if f.Visible(&tokens[i]) {
					visible = append(visible, tokens[i])
				}
			}
		}
		return visible, nil
	})
	if err != nil {
		return nil, "", errList("operator tokens", err)
	}
	if more {
		next = list[len(list)-1].ID
	}
	return list, next, nil
}

// TokensBySecret returns the tokens that have one of hashes as their current or previous
// secret, without their use.
func (s *Store) TokensBySecret(ctx context.Context, hashes []apikey.Hash) ([]operator.Token, error) {
	columns := make([][]byte, len(hashes))
	for i := range hashes {
		columns[i] = hashes[i][:]
	}
	rows, err := s.loader.AccessToken.Query().
		Where(enttoken.Or(enttoken.SecretHashIn(columns...), enttoken.PreviousHashIn(columns...))).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up operator tokens: %w", err)
	}
	tokens := make([]operator.Token, len(rows))
	for i, row := range rows {
		if tokens[i], err = tokenOf(row); err != nil {
			return nil, fmt.Errorf("look up operator tokens: %w", err)
		}
	}
	return tokens, nil
}

// tokensOf returns the tokens of rows with their use.
func (s *Store) tokensOf(ctx context.Context, rows []*ent.AccessToken) ([]operator.Token, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	uses, err := s.reader.AccessTokenUse.Query().Where(entuse.IDIn(ids...)).All(ctx)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]operator.Use, len(uses))
	for _, u := range uses {
		byID[u.ID] = useOf(u)
	}
	tokens := make([]operator.Token, len(rows))
	for i, row := range rows {
		if tokens[i], err = tokenOf(row); err != nil {
			return nil, err
		}
		tokens[i].Use = byID[row.ID]
	}
	return tokens, nil
}

// RecordTokenUses stores the latest use of tokens, by their ids. What is stored of a
// later use stays. Tokens that are gone are passed over.
func (s *Store) RecordTokenUses(ctx context.Context, uses map[string]operator.Use) error {
	ids := make([]string, 0, len(uses))
	for id := range uses {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for chunk := range slices.Chunk(ids, usageChunk) {
		err := s.transact(ctx, "record the use of operator tokens", func(ctx context.Context, etx *ent.Tx) error {
			for _, id := range chunk {
				address := ""
				if u := uses[id]; u.Addr.IsValid() {
					address = u.Addr.String()
				}
				if _, err := etx.ExecContext(ctx, recordTokenUse, uses[id].At.UnixMicro(), address, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// recordTokenUse numbers its arguments in their order: to SQLite these are names, which it
// counts as they come.
const recordTokenUse = "INSERT INTO " + entuse.Table + " (" + entuse.FieldID + ", " + entuse.FieldUsedAt + ", " + entuse.FieldAddress + ")" +
	" SELECT " + enttoken.FieldID + ", CAST($1 AS BIGINT), CAST($2 AS VARCHAR) FROM " + enttoken.Table + " WHERE " + enttoken.FieldID + " = $3" +
	" ON CONFLICT (" + entuse.FieldID + ") DO UPDATE SET " +
	entuse.FieldUsedAt + " = excluded." + entuse.FieldUsedAt + ", " + entuse.FieldAddress + " = excluded." + entuse.FieldAddress +
	" WHERE excluded." + entuse.FieldUsedAt + " > " + entuse.Table + "." + entuse.FieldUsedAt

// rootUseSetting is the setting that tells which hour the newest event about the use of
// a root token is of, and of which token.
const rootUseSetting = "root_token_used"

// RecordRootUse appends the event about the use of by's root token in an hour, unless
// there is one already.
func (s *Store) RecordRootUse(ctx context.Context, by *apikey.Caller, hour time.Time) error {
	return unexpected("record the use of a root token", s.commitAtOnce(ctx, by, func(ctx context.Context, t *tx) error {
		value := by.Actor.ID + " " + hour.UTC().Format(time.RFC3339)
		known, err := t.Setting.Query().Where(entsetting.ID(rootUseSetting), entsetting.Value(value)).Exist(ctx)
		if err != nil || known {
			return err
		}
		err = t.Setting.Create().SetID(rootUseSetting).SetValue(value).
			OnConflictColumns(entsetting.FieldID).UpdateNewValues().Exec(ctx)
		if err != nil {
			return err
		}
		_, err = t.append(apikey.Event{Type: apikey.RootTokenUsed, ResourceID: by.Actor.ID, Payload: []byte{}})
		return err
	}))
}

// visibleToken reads a token inside the transaction, where its caller may know of it.
func (t *tx) visibleToken(ctx context.Context, id string) (operator.Token, error) {
	token, err := t.token(ctx, id)
	if err != nil {
		return operator.Token{}, fmt.Errorf("read operator token: %w", err)
	}
	if token == nil || !token.Within(&t.rights) {
		return operator.Token{}, operator.ErrNotFound
	}
	return *token, nil
}

// appendToken adds the event about a token to the transaction, unless the caller may not
// make such a change.
func (t *tx) appendToken(event apikey.EventType, token *operator.Token, changes []string) error {
	if err := operator.CheckChange(&t.rights, event, token, changes); err != nil {
		return err
	}
	payload, err := wire.TokenPayload(token, t.now)
	if err != nil {
		return err
	}
	_, err = t.append(apikey.Event{Type: event, ResourceID: token.ID, Changes: changes, Payload: payload})
	return err
}
