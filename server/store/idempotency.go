package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/ent"
	entrecord "github.com/apikeys-dev/apikeys/ent/idempotencyrecord"
	entkept "github.com/apikeys-dev/apikeys/ent/idempotencyusage"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/keyring"
)

// AnswerLimits bound what is kept of the answers of idempotent calls.
type AnswerLimits struct {
	// Retention is how long an answer is kept.
	Retention time.Duration
	// Records and Bytes are how many answers an organization may have kept, and how
	// large they may be together.
	Records, Bytes int64
}

// KeepAnswers sets the bounds of what is kept for idempotent calls. It is to be called
// before the first of them.
func (s *Store) KeepAnswers(limits AnswerLimits) { s.answers = limits }

const (
	// recordSize is what a record is charged beside its answer.
	recordSize = 512
	// claimTime is how long a claim holds that its call does not renew, which it does
	// with each of its transactions.
	claimTime = time.Minute
)

// IdempotentCall is a call that names an idempotency key: its change is made once, and
// repeating the call gets the first answer. There are two kinds:
//
//   - A call that makes one change. The record with its answer is written in the
//     transaction of the change, after the change.
//   - A call that makes several. [Store.ClaimCall] writes the record before the first,
//     without an answer, and [Store.CompleteCall] adds the answer after the last. Each
//     change in between renews the claim, and is refused where another call has it.
//
// A call travels with the context of its changes: see [WithCall].
type IdempotentCall struct {
	// ID is the id of the record: see [RecordID]. Organization is the one that the
	// record counts for, empty for none.
	ID, Organization string
	// Request is the method and the request. What is stored of it is an HMAC.
	Request []byte
	// Answer returns the answer of a call that makes one change, for what the method of
	// the store returns of the change, to which result points. It is called while the
	// writer is held.
	Answer func(result any) ([]byte, error)

	claim string // names the claim that the call has
}

// RecordID returns the id of the record of an idempotency key, which is the caller's
// own within its organization.
func RecordID(organization string, by apikey.Actor, key string) string {
	hash := sha256.Sum256([]byte(strings.Join([]string{organization, string(by.Kind), by.ID, key}, "\x00")))
	return hex.EncodeToString(hash[:])
}

// place is what the answer is sealed for.
func (c *IdempotentCall) place() string { return "idempotency_record " + c.ID }

type callKey struct{}

// WithCall returns a context whose changes are those of c; nil for those of no
// idempotent call.
func WithCall(ctx context.Context, c *IdempotentCall) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

func callOf(ctx context.Context) *IdempotentCall {
	c, _ := ctx.Value(callKey{}).(*IdempotentCall)
	return c
}

// AnsweredError says that a call was made before, and nothing was changed now. It
// holds the answer.
type AnsweredError struct{ Answer []byte }

// Error implements error.
func (*AnsweredError) Error() string { return "the call was answered before" }

// errReused and errClaimed are the answers for a key that another request has, and for
// one whose call is not over.
func errReused() error {
	return apikey.Errorf(apikey.KindFailedPrecondition, apikey.ReasonKeyReused,
		"This idempotency key was used for another request; use a new one for each request, and the same only to repeat it.")
}

func errClaimed() error {
	e := apikey.Errorf(apikey.KindConflict, apikey.ReasonKeyInUse,
		"The call with this idempotency key is still under way; repeat it later to get its answer.")
	e.RetryAfter = time.Second
	return e
}

func errAnswerLimit() error {
	return apikey.Errorf(apikey.KindExhausted, apikey.ReasonAnswerLimit,
		"As many answers are kept for the idempotency keys of this organization as may be; nothing was changed. Call without a key, or wait until the oldest answers end.")
}

// Answered returns nil where c has not been made before. An [AnsweredError] holds its
// answer, and other errors say why there is none: the key is of another request, or the
// call is under way. It is a look without the writer; the transaction of the change
// looks again.
func (s *Store) Answered(ctx context.Context, c *IdempotentCall) error {
	row, err := findRecord(ctx, s.reader.IdempotencyRecord, c)
	if err != nil || row == nil || row.ExpiresAt <= s.timestamp().UnixMicro() {
		return err
	}
	return s.repeat(row, c, s.timestamp())
}

// findRecord returns the record of a call, nil where there is none.
func findRecord(ctx context.Context, from *ent.IdempotencyRecordClient, c *IdempotentCall) (*ent.IdempotencyRecord, error) {
	row, err := from.Get(ctx, c.ID)
	if err != nil && !ent.IsNotFound(err) {
		return nil, fmt.Errorf("read an idempotency record: %w", err)
	}
	return row, nil
}

// repeat returns what a call comes to whose record is row: an error always, but for a
// claim that is over.
func (s *Store) repeat(row *ent.IdempotencyRecord, c *IdempotentCall, now time.Time) error {
	same, err := s.sealer.IsFingerprint(keyring.Sealed{KeyID: row.SealedKeyID, Data: row.Request}, c.Request)
	switch {
	case err != nil:
		return fmt.Errorf("read an idempotency record: %w", err)
	case !same:
		return errReused()
	case row.Answer == nil && row.ClaimedUntil != nil && *row.ClaimedUntil <= now.UnixMicro():
		return nil
	case row.Answer == nil:
		return errClaimed()
	}
	answer, err := s.sealer.Open(keyring.Sealed{KeyID: row.SealedKeyID, Data: row.Answer}, c.place())
	if err != nil {
		return fmt.Errorf("read an idempotency record: %w", err)
	}
	return &AnsweredError{answer}
}

// once runs the change of a call, unless it was made before, and keeps its answer.
func (t *tx) once(ctx context.Context, c *IdempotentCall, apply func(context.Context, *tx) error) error {
	if c.claim != "" {
		if err := t.renewClaim(ctx, c); err != nil {
			return err
		}
		return apply(ctx, t)
	}
	kept, err := t.begin(ctx, c)
	if err != nil {
		return err
	}
	t.result = nil
	if err := apply(ctx, t); err != nil {
		return err
	}
	if c.Answer == nil || t.result == nil {
		return errors.New("a call names an idempotency key, and its answer is not kept")
	}
	answer, err := c.Answer(t.result)
	if err != nil {
		return fmt.Errorf("make the answer to keep: %w", err)
	}
	sealed := t.store.sealer.Seal(answer, c.place())
	return t.insertRecord(ctx, c, kept, sealed, "")
}

// begin is an error where a call was made before, or no further answer may be kept.
// It returns how many are.
func (t *tx) begin(ctx context.Context, c *IdempotentCall) (*ent.IdempotencyUsage, error) {
	row, err := findRecord(ctx, t.IdempotencyRecord, c)
	if err != nil {
		return nil, err
	}
	if row != nil {
		if row.ExpiresAt > t.now.UnixMicro() {
			if err := t.store.repeat(row, c, t.now); err != nil {
				return nil, err
			}
		}
		if err := t.deleteRecords(ctx, []*ent.IdempotencyRecord{row}); err != nil {
			return nil, err
		}
	}
	kept, err := t.IdempotencyUsage.Get(ctx, c.Organization)
	switch {
	case ent.IsNotFound(err):
		kept = &ent.IdempotencyUsage{}
	case err != nil:
		return nil, fmt.Errorf("read how many answers are kept: %w", err)
	}
	if limits := &t.store.answers; kept.Records >= limits.Records || kept.Bytes+recordSize > limits.Bytes {
		return nil, errAnswerLimit()
	}
	return kept, nil
}

// insertRecord writes the record of a call: its answer, or its claim. kept is what the
// organization has beside it.
func (t *tx) insertRecord(ctx context.Context, c *IdempotentCall, kept *ent.IdempotencyUsage, answer keyring.Sealed, claim string) error {
	size := int64(recordSize + len(answer.Data))
	limits := &t.store.answers
	if kept.Bytes+size > limits.Bytes {
		return errAnswerLimit()
	}
	request := t.store.sealer.Fingerprint(c.Request)
	create := t.IdempotencyRecord.Create().SetID(c.ID).SetOrganizationID(c.Organization).
		SetSealedKeyID(request.KeyID).SetRequest(request.Data).SetSize(size).
		SetExpiresAt(t.now.Add(limits.Retention).UnixMicro())
	if claim == "" {
		create.SetAnswer(answer.Data)
	} else {
		create.SetClaim(claim).SetClaimedUntil(t.now.Add(claimTime).UnixMicro())
	}
	if err := create.Exec(ctx); err != nil {
		return fmt.Errorf("insert an idempotency record: %w", err)
	}
	return t.countRecords(ctx, c.Organization, 1, size)
}

// countRecords adds to what is kept of an organization.
func (t *tx) countRecords(ctx context.Context, organization string, records, bytes int64) error {
	err := t.IdempotencyUsage.Create().SetID(organization).SetRecords(records).SetBytes(bytes).
		OnConflictColumns(entkept.FieldID).
		Update(func(u *ent.IdempotencyUsageUpsert) { u.AddRecords(records).AddBytes(bytes) }).Exec(ctx)
	if err != nil {
		return fmt.Errorf("count the answers that are kept: %w", err)
	}
	return nil
}

// deleteRecords deletes records and takes them off what their organizations have.
func (t *tx) deleteRecords(ctx context.Context, rows []*ent.IdempotencyRecord) error {
	type count struct{ records, bytes int64 }
	ids, counts := make([]string, len(rows)), make(map[string]count)
	for i, row := range rows {
		ids[i] = row.ID
		c := counts[row.OrganizationID]
		counts[row.OrganizationID] = count{c.records + 1, c.bytes + row.Size}
	}
	organizations := slices.Sorted(maps.Keys(counts))
	for _, organization := range organizations {
		c := counts[organization]
		if err := t.countRecords(ctx, organization, -c.records, -c.bytes); err != nil {
			return err
		}
	}
	if _, err := t.IdempotencyRecord.Delete().Where(entrecord.IDIn(ids...)).Exec(ctx); err != nil {
		return fmt.Errorf("delete idempotency records: %w", err)
	}
	if _, err := t.IdempotencyUsage.Delete().Where(entkept.IDIn(organizations...), entkept.RecordsLTE(0)).Exec(ctx); err != nil {
		return fmt.Errorf("delete the counts of no records: %w", err)
	}
	return nil
}

// ClaimCall commits that c is under way, before the first of its changes. Its errors are
// those of [Store.Answered], of a caller that may not call, and of the bounds.
func (s *Store) ClaimCall(ctx context.Context, by *apikey.Caller, c *IdempotentCall) error {
	claim := rand.Text()
	err := s.commitAtOnce(WithCall(ctx, nil), by, func(ctx context.Context, t *tx) error {
		kept, err := t.begin(ctx, c)
		if err != nil {
			return err
		}
		return t.insertRecord(ctx, c, kept, keyring.Sealed{}, claim)
	})
	if err != nil {
		return unexpected("claim an idempotency key", err)
	}
	c.claim = claim
	return nil
}

// claimed selects the record of a call while the call has it.
func (t *tx) claimed(c *IdempotentCall) *ent.IdempotencyRecordUpdate {
	return t.IdempotencyRecord.Update().Where(entrecord.ID(c.ID), entrecord.Claim(c.claim))
}

// renewClaim keeps the claim of a call, which is an error where another has it.
func (t *tx) renewClaim(ctx context.Context, c *IdempotentCall) error {
	n, err := t.claimed(c).SetClaimedUntil(t.now.Add(claimTime).UnixMicro()).Save(ctx)
	if err != nil {
		return fmt.Errorf("renew a claim: %w", err)
	}
	if n == 0 {
		return errClaimed()
	}
	return nil
}

// CompleteCall keeps the answer of a call that has made all its changes. It is made for a
// caller that has gone, too.
func (s *Store) CompleteCall(ctx context.Context, c *IdempotentCall, answer []byte) error {
	return s.endClaim(ctx, "complete an idempotent call", func(ctx context.Context, t *tx) error {
		sealed := s.sealer.Seal(answer, c.place())
		// The fingerprint is made anew, since one key id stands for both.
		n, err := t.claimed(c).SetAnswer(sealed.Data).SetSealedKeyID(sealed.KeyID).SetRequest(s.sealer.Fingerprint(c.Request).Data).
			SetClaim("").ClearClaimedUntil().AddSize(int64(len(sealed.Data))).Save(ctx)
		if err != nil {
			return fmt.Errorf("keep an answer: %w", err)
		}
		if n == 0 {
			return errClaimed()
		}
		return t.countRecords(ctx, c.Organization, 0, int64(len(sealed.Data)))
	})
}

// AbandonCall gives up the claim of a call that failed, so that it can be repeated.
func (s *Store) AbandonCall(ctx context.Context, c *IdempotentCall) error {
	return s.endClaim(ctx, "abandon an idempotent call", func(ctx context.Context, t *tx) error {
		row, err := findRecord(ctx, t.IdempotencyRecord, c)
		if err != nil || row == nil || row.Claim != c.claim {
			return err
		}
		return t.deleteRecords(ctx, []*ent.IdempotencyRecord{row})
	})
}

// endClaim commits the end of a claim. It is the server's own change: that the caller
// may call no longer does not undo what the call has done.
func (s *Store) endClaim(ctx context.Context, doing string, apply func(context.Context, *tx) error) error {
	ctx = WithCall(context.WithoutCancel(ctx), nil)
	return unexpected(doing, s.commitAtOnce(ctx, apikey.System("idempotency"), apply))
}

// DeleteAnswersBefore deletes up to limit idempotency records that ended before a time,
// and returns how many.
func (s *Store) DeleteAnswersBefore(ctx context.Context, before time.Time, limit int) (deleted int, err error) {
	const doing = "delete idempotency records"
	// A look first: with nothing to delete the writer is not held.
	ids, err := s.reader.IdempotencyRecord.Query().Where(entrecord.ExpiresAtLTE(before.UnixMicro())).
		Order(entrecord.ByExpiresAt()).Limit(limit).IDs(ctx)
	if err != nil || len(ids) == 0 {
		return 0, unexpected(doing, err)
	}
	slices.Sort(ids)
	err = s.commitAtOnce(ctx, apikey.System("retention"), func(ctx context.Context, t *tx) error {
		rows, err := t.IdempotencyRecord.Query().Where(entrecord.IDIn(ids...), entrecord.ExpiresAtLTE(before.UnixMicro())).
			Select(entrecord.FieldID, entrecord.FieldOrganizationID, entrecord.FieldSize).All(ctx)
		if err != nil {
			return fmt.Errorf("read idempotency records: %w", err)
		}
		deleted = len(rows)
		return t.deleteRecords(ctx, rows)
	})
	if err != nil {
		return 0, unexpected(doing, err)
	}
	return deleted, nil
}
