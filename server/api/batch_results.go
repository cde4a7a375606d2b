package api

import (
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// outcomes counts what became of keys.
type outcomes struct{ done, unchanged, refused int32 }

// outcome returns what became of a key, with the reason why it was refused, and counts
// it.
func (o *outcomes) outcome(r *store.KeyResult) (apikeysv1.BatchOutcome, *apikeysv1.BatchError) {
	switch {
	case r.Err != nil:
		o.refused++
		return apikeysv1.BatchOutcome_BATCH_OUTCOME_REFUSED, &apikeysv1.BatchError{Reason: string(r.Err.Reason), Message: r.Err.Error()}
	case r.Changed:
		o.done++
		return apikeysv1.BatchOutcome_BATCH_OUTCOME_DONE, nil
	default:
		o.unchanged++
		return apikeysv1.BatchOutcome_BATCH_OUTCOME_UNCHANGED, nil
	}
}

// keyResults returns the messages of results.
func keyResults(results []store.KeyResult) (list []*apikeysv1.ApiKeyResult, o outcomes) {
	for i := range results {
		r := &results[i]
		m := &apikeysv1.ApiKeyResult{Id: r.ID, Label: r.Key.Label}
		m.Outcome, m.Error = o.outcome(r)
		list = append(list, m)
	}
	return list, o
}

// keyRotations returns the messages of the results of rotations, without secrets.
func keyRotations(results []store.KeyResult) (list []*apikeysv1.ApiKeyRotation, o outcomes) {
	for i := range results {
		r := &results[i]
		m := &apikeysv1.ApiKeyRotation{Id: r.ID, Label: r.Key.Label}
		m.Outcome, m.Error = o.outcome(r)
		if r.Err == nil {
			m.PreviousSecretExpiresAt = wire.Timestamp(r.Key.PreviousExpiresAt)
		}
		list = append(list, m)
	}
	return list, o
}
