package store

import (
	"context"

	"github.com/apikeys-dev/apikeys/ent"
	entevent "github.com/apikeys-dev/apikeys/ent/event"
)

// CopyEvents appends n copies of the newest event.
func (s *Store) CopyEvents(ctx context.Context, n int) error {
	return s.transact(ctx, "copy events", func(ctx context.Context, etx *ent.Tx) error {
		newest, err := etx.Event.Query().Order(ent.Desc(entevent.FieldID)).First(ctx)
		if err != nil {
			return err
		}
		at, end := newest.ID, newest.ID+int64(n)
		for at < end {
			creates := make([]*ent.EventCreate, 0, eventChunk)
			for at < end && len(creates) < eventChunk {
				at++
				creates = append(creates, etx.Event.Create().SetID(at).SetEventID(newest.EventID).
					SetOrganizationID(newest.OrganizationID).SetType(newest.Type).SetResourceID(newest.ResourceID).
					SetActorKind(newest.ActorKind).SetActorID(newest.ActorID).SetRequestID(newest.RequestID).
					SetCreatedAt(newest.CreatedAt).SetPayload(newest.Payload))
			}
			if err := etx.Event.CreateBulk(creates...).Exec(ctx); err != nil {
				return err
			}
		}
		return etx.Revision.Update().SetPosition(end).Exec(ctx)
	})
}
