package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/ent"
	entevent "github.com/apikeys-dev/apikeys/ent/event"
	entfanout "github.com/apikeys-dev/apikeys/ent/fanoutposition"
	entwebhook "github.com/apikeys-dev/apikeys/ent/webhook"
	entterm "github.com/apikeys-dev/apikeys/ent/webhookterm"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/broken"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// How much one turn of the fan-out looks at, and how many rows it inserts between two
// looks at the time.
const (
	fanOutEvents = 256
	fanOutRows   = 400
	fanOutChunk  = 50
)

// FanOutOrganizations returns the organizations that have terms of webhooks that the
// fan-out has not passed.
func (s *Store) FanOutOrganizations(ctx context.Context) ([]string, error) {
	ids, err := s.reader.FanOutPosition.Query().IDs(ctx)
	if err != nil {
		return nil, fmt.Errorf("read who is fanned out: %w", err)
	}
	return ids, nil
}

// FanOutOldest returns when the oldest event of an organization was made that the
// fan-out has not passed, in whichever server that runs. It is the zero time where there
// is none, and where the organization has no webhooks.
func (s *Store) FanOutOldest(ctx context.Context, organization string) (time.Time, error) {
	const doing = "read how far the fan-out has come"
	at, err := s.reader.FanOutPosition.Query().Where(entfanout.ID(organization)).Only(ctx)
	if ent.IsNotFound(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", doing, err)
	}
	next, err := s.reader.Event.Query().Where(entevent.OrganizationID(organization), entevent.IDGT(at.Position)).
		Order(entevent.ByID()).Select(entevent.FieldCreatedAt).First(ctx)
	if ent.IsNotFound(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", doing, err)
	}
	return fromMicros(&next.CreatedAt), nil
}

// FanOut goes on with the fan-out of an organization: it makes the deliveries of the
// events after its position, in the order of events and webhooks, for every webhook
// that was enabled and subscribed at the event's place in the log. Deliveries that are
// there already, which a replay has made, are left alone; those of a webhook that was
// deleted since are cancelled. Rows and position are written in one transaction, which
// ends when it has had the writer for about most, in the middle of an event too.
//
// Of an organization there must be one call at a time.
func (s *Store) FanOut(ctx context.Context, organization string, most time.Duration) (webhook.FannedOut, error) {
	const doing = "fan out"
	// Events do not change, and neither does what was subscribed to at their places, so
	// the writer is needed for the rows alone.
	plan, err := s.planFanOut(ctx, organization)
	if err != nil {
		return webhook.FannedOut{}, fmt.Errorf("%s: %w", doing, err)
	}
	if len(plan.events) == 0 {
		return webhook.FannedOut{Idle: plan.idle}, nil
	}
	var done webhook.FannedOut
	var began time.Time
	if broken.Is(broken.FanOutEarly) {
		plan.after(len(plan.rows))
		if err := s.transact(ctx, doing, plan.advance); err != nil {
			return webhook.FannedOut{}, err
		}
		plan.before = plan.to
	}
	err = s.transact(ctx, doing, func(ctx context.Context, etx *ent.Tx) error {
		began = time.Now() // Not the store's clock: it measures how long others wait.
		rows, err := plan.write(ctx, s, etx, most*3/5)
		if err != nil {
			return err
		}
		done = plan.after(rows)
		return plan.advance(ctx, etx)
	})
	if err != nil {
		return webhook.FannedOut{}, err
	}
	done.Held = time.Since(began)
	return done, nil
}

// fanOutPlan is what a turn of the fan-out has to do.
type fanOutPlan struct {
	organization string
	before       fanOutPlace
	events       []apikey.Event // without what a delivery's row does not need
	terms        []webhook.Term // ascending by the webhook's id
	rows         []plannedDelivery
	end          fanOutPlace // when all rows are written
	idle         bool        // the organization has no position

	to fanOutPlace // where it is to stand after this turn; of advance
}

// fanOutPlace is a place between two deliveries: every event up to position has all of
// its own, and the next event those to webhooks up to webhook.
type fanOutPlace struct {
	position int64
	webhook  string
}

type plannedDelivery struct {
	event *apikey.Event
	term  *webhook.Term
	// before is the place before this row.
	before fanOutPlace
}

// planFanOut reads what is next. Events are read before the terms: those that are in
// the log when the terms are read have their terms among them.
func (s *Store) planFanOut(ctx context.Context, organization string) (*fanOutPlan, error) {
	p := &fanOutPlan{organization: organization}
	row, err := s.reader.FanOutPosition.Query().Where(entfanout.ID(organization)).Only(ctx)
	if ent.IsNotFound(err) {
		p.idle = true
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the position: %w", err)
	}
	p.before = fanOutPlace{row.Position, row.WebhookID}
	events, err := s.reader.Event.Query().Where(entevent.OrganizationID(organization), entevent.IDGT(row.Position)).
		Order(entevent.ByID()).Limit(fanOutEvents).
		Select(entevent.FieldID, entevent.FieldEventID, entevent.FieldOrganizationID, entevent.FieldType, entevent.FieldResourceID, entevent.FieldCreatedAt).
		All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	if len(events) == 0 {
		return p, nil
	}
	p.events = make([]apikey.Event, len(events))
	for i, row := range events {
		p.events[i] = eventOf(row)
	}
	terms, err := s.reader.WebhookTerm.Query().Where(entterm.OrganizationID(organization), entterm.IDLT(events[len(events)-1].ID)).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read terms: %w", err)
	}
	p.terms = make([]webhook.Term, len(terms))
	for i, row := range terms {
		p.terms[i] = termOf(row)
	}
	slices.SortFunc(p.terms, func(a, b webhook.Term) int { return strings.Compare(a.ID, b.ID) })
	p.plan()
	return p, nil
}

func termOf(row *ent.WebhookTerm) webhook.Term {
	t := webhook.Term{From: row.ID, Webhook: webhook.Webhook{
		ID: row.WebhookID, OrganizationID: row.OrganizationID, URL: row.URL,
		Events: eventTypes(row.Events), Format: webhook.Format(row.Format), Enabled: true,
	}}
	if row.UntilPosition != nil {
		t.Until = *row.UntilPosition
	}
	return t
}

// plan lists the rows to be written.
func (p *fanOutPlan) plan() {
	place := p.before
	for i := range p.events {
		e := &p.events[i]
		for j := range p.terms {
			t := &p.terms[j]
			if t.ID <= place.webhook || !t.Receives(e) {
				continue
			}
			if len(p.rows) == fanOutRows {
				p.end = place
				return
			}
			p.rows = append(p.rows, plannedDelivery{e, t, place})
			// The place within an event is after the one before it.
			place = fanOutPlace{e.Position - 1, t.ID}
		}
		place = fanOutPlace{position: e.Position}
	}
	p.end = place
}

// write inserts rows until it has taken the time most, and returns how many.
func (p *fanOutPlan) write(ctx context.Context, s *Store, etx *ent.Tx, most time.Duration) (written int, err error) {
	if len(p.rows) == 0 {
		return 0, nil
	}
	began := time.Now()
	there, err := p.existing(ctx, etx)
	if err != nil {
		return 0, err
	}
	now := s.timestamp()
	for chunk := range slices.Chunk(p.rows, fanOutChunk) {
		rows := make([]deliveryRow, len(chunk))
		for i, row := range chunk {
			d := webhook.NewDelivery(&row.term.Webhook, row.event, webhook.TriggerSchedule, now)
			if !there[row.term.ID] {
				d.Abandon(now)
			}
			rows[i] = deliveryRow{&d, row.event.Position}
		}
		if err := s.insertDeliveries(ctx, etx, rows); err != nil {
			return written, err
		}
		if written += len(chunk); time.Since(began) >= most {
			break
		}
	}
	return written, nil
}

// existing returns those webhooks of the rows that were not deleted.
func (p *fanOutPlan) existing(ctx context.Context, etx *ent.Tx) (map[string]bool, error) {
	first, last := p.rows[0].term.ID, p.rows[0].term.ID
	for _, row := range p.rows {
		first, last = min(first, row.term.ID), max(last, row.term.ID)
	}
	ids, err := etx.Webhook.Query().Where(entwebhook.OrganizationID(p.organization), entwebhook.IDGTE(first), entwebhook.IDLTE(last)).IDs(ctx)
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	there := make(map[string]bool, len(ids))
	for _, id := range ids {
		there[id] = true
	}
	return there, nil
}

// after returns what the turn has done when it has written so many rows.
func (p *fanOutPlan) after(written int) webhook.FannedOut {
	p.to = p.end
	if written < len(p.rows) {
		p.to = p.rows[written].before
	}
	var done webhook.FannedOut
	seen := make(map[string]bool)
	for _, row := range p.rows[:written] {
		if !seen[row.term.ID] {
			seen[row.term.ID] = true
			done.Due = append(done.Due, row.term.ID)
		}
	}
	last := &p.events[len(p.events)-1]
	done.More = p.to.position < last.Position || len(p.events) == fanOutEvents
	if done.More {
		done.Oldest = last.CreatedAt
	}
	for i := range p.events {
		if p.events[i].Position > p.to.position {
			done.Oldest = p.events[i].CreatedAt
			break
		}
	}
	return done
}

// errMoved says that another server has gone on with the same organization.
var errMoved = errors.New("the position was moved by another server")

// advance moves the position, deletes the terms that it has passed, and with the last
// of them the position itself.
func (p *fanOutPlan) advance(ctx context.Context, etx *ent.Tx) error {
	n, err := etx.FanOutPosition.Update().
		Where(entfanout.ID(p.organization), entfanout.Position(p.before.position), entfanout.WebhookID(p.before.webhook)).
		SetPosition(p.to.position).SetWebhookID(p.to.webhook).Save(ctx)
	if err != nil {
		return fmt.Errorf("advance the position: %w", err)
	}
	if n != 1 {
		return errMoved
	}
	passed := func(t webhook.Term) bool { return t.Until != 0 && t.Until <= p.to.position }
	if !slices.ContainsFunc(p.terms, passed) {
		return nil
	}
	if _, err := etx.WebhookTerm.Delete().Where(entterm.OrganizationID(p.organization), entterm.UntilPositionLTE(p.to.position)).Exec(ctx); err != nil {
		return fmt.Errorf("delete terms: %w", err)
	}
	left, err := etx.WebhookTerm.Query().Where(entterm.OrganizationID(p.organization)).Exist(ctx)
	if err != nil {
		return fmt.Errorf("read terms: %w", err)
	}
	if !left {
		_, err = etx.FanOutPosition.Delete().Where(entfanout.ID(p.organization)).Exec(ctx)
	}
	return err
}
