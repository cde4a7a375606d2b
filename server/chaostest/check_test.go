package chaostest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// logged is an event of the log with what finds its change.
type logged struct {
	servertest.Logged
	label, masked string
	enabled       bool // of a webhook
}

// readLog reads the whole log through a replica.
func (l *load) readLog(r *replica) (log []logged, err error) {
	ctx, cancel := context.WithTimeout(as(l.ctx, ""), time.Minute)
	defer cancel()
	cursors, err := l.cursors(ctx)
	if err != nil {
		return nil, err
	}
	for after := "start"; ; {
		page, err := r.events.ListEvents(ctx, &apikeysv1.ListEventsRequest{After: after, PageSize: 1000})
		if err != nil {
			return nil, fmt.Errorf("read the log: %w", err)
		}
		if len(page.GetEvents()) == 0 {
			return log, nil
		}
		for _, e := range page.GetEvents() {
			after = e.GetCursor()
			position, err := cursors.Open(after, "")
			if err != nil {
				return nil, fmt.Errorf("the cursor of %s: %w", e.GetId(), err)
			}
			log = append(log, logged{
				Logged: servertest.Logged{
					Position: position, ID: e.GetId(), Organization: e.GetOrganizationId(), Type: e.GetType(), Resource: e.GetResourceId(),
				},
				label: e.GetApiKey().GetLabel(), masked: e.GetApiKey().GetSecret(), enabled: e.GetWebhook().GetEnabled(),
			})
		}
	}
}

// logModel is a log, for porcupine: an append takes the next of the places that are
// known.
var logModel = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, _ any) (bool, any) {
		last, o := state.(int64), input.(*operation)
		return o.Cost == last+1, o.Cost
	},
	DescribeOperation: func(input, _ any) string { return input.(*operation).describe() },
	DescribeState:     func(state any) string { return fmt.Sprint("up to ", state) },
}

// changeKey names a change by what its event tells of it.
func changeKey(kind, resource, detail string) string {
	switch kind {
	case "api_key.updated", "api_key.rotated":
		return kind + " " + resource + " " + detail
	}
	return kind + " " + resource
}

// eventTypes are the types of the changes of the load.
var eventTypes = map[string]string{
	"create": "api_key.created", "update": "api_key.updated", "rotate": "api_key.rotated",
	"expire": "api_key.created", "revoke": "api_key.revoked", "delete": "api_key.deleted",
}

// placesOf returns the positions of the changes in a log, by what names them.
func placesOf(log []logged) map[string][]int64 {
	places := make(map[string][]int64)
	for _, e := range log {
		detail := e.label
		if e.Type == "api_key.rotated" {
			detail = e.masked
		}
		key := changeKey(e.Type, e.Resource, detail)
		places[key] = append(places[key], e.Position)
	}
	return places
}

// resolve returns a history in which the log has told of calls without an answer whether
// they were made. Those that were not are left out, and those that were have the end of
// the first answer to a later change of their key. Which rotation made an event, the log
// does not tell: where a key has none that nobody was answered, no other was made.
func resolve(history []*operation, log []logged) (resolved []*operation) {
	places := placesOf(log)
	rotations := make(map[string]int) // by key: events less answers
	for _, e := range log {
		if e.Type == "api_key.rotated" {
			rotations[e.Resource]++
		}
	}
	ends := make(map[string][]placedEnd)
	for _, o := range history {
		kind, ok := eventTypes[o.Kind]
		if !ok || o.Outcome != answered {
			continue
		}
		detail := o.Label
		if o.Kind == "rotate" {
			rotations[o.Key]--
			detail = o.Masked
		}
		if at := places[changeKey(kind, o.Key, detail)]; len(at) == 1 && o.Kind != "revoke" {
			ends[o.Key] = append(ends[o.Key], placedEnd{at[0], o.Return})
		}
	}
	for _, o := range history {
		kind, ok := eventTypes[o.Kind]
		switch {
		case !ok || o.Outcome != unknown:
			resolved = append(resolved, o)
		case o.Kind == "rotate":
			if rotations[o.Key] > 0 {
				resolved = append(resolved, o)
			}
		default:
			at := places[changeKey(kind, o.Key, o.Label)]
			if len(at) == 0 {
				continue
			}
			known := *o
			for _, end := range ends[o.Key] {
				// A key may have been revoked by another call.
				if end.position > at[0] && o.Kind != "revoke" {
					known.Return = min(known.Return, end.at)
				}
			}
			resolved = append(resolved, &known)
		}
	}
	return resolved
}

// placedEnd is the answer to a change with its position in the log.
type placedEnd struct {
	position int64
	at       time.Duration
}

// checkLog holds the log against the changes: it is gap-free, has one event for each
// change that was answered and none that was refused, and who was answered before
// another called is before it.
func checkLog(history []*operation, log []logged, page pages) (faults []string) {
	for i, e := range log {
		if e.Position != int64(i)+1 {
			return append(faults, fmt.Sprintf("event number %d, %s, is at position %d: the log has a gap or a double", i+1, e.ID, e.Position))
		}
	}
	places := placesOf(log)
	part := keyPartition{name: "the log"}
	for key, at := range places {
		if len(at) > 1 && strings.HasPrefix(key, "api_key.") {
			faults = append(faults, fmt.Sprintf("%s has %d events, at %v", key, len(at), at))
		}
	}
	for _, o := range history {
		kind, ok := eventTypes[o.Kind]
		if !ok || o.Key == "" {
			continue
		}
		detail := o.Label
		if o.Kind == "rotate" {
			detail = o.Masked
		}
		at := places[changeKey(kind, o.Key, detail)]
		switch {
		case o.Outcome == answered && len(at) == 0:
			faults = append(faults, fmt.Sprintf("%s of key %s was answered at %v by replica %c and is not in the log", o.Kind, o.Key, o.Return, 'a'+o.Replica))
		case o.Outcome == refused && len(at) > 0 && o.Kind == "update":
			faults = append(faults, fmt.Sprintf("%s of key %s was refused and is in the log at %d", o.Kind, o.Key, at[0]))
		case o.Outcome == answered && o.Kind != "revoke": // A key that is revoked again is not changed.
			placed := *o
			placed.Kind, placed.Label, placed.Cost = "append", o.Kind, at[0]
			part.operations = append(part.operations, interval(&placed, o.Call, o.Return))
		}
	}
	// The places of those that are known, without gaps.
	slices.SortFunc(part.operations, func(a, b porcupine.Operation) int {
		return int(a.Input.(*operation).Cost - b.Input.(*operation).Cost)
	})
	for i := range part.operations {
		part.operations[i].Input.(*operation).Cost = int64(i) + 1
	}
	if fault := page.check(logModel, part); fault != "" {
		faults = append(faults, fault)
	}
	return faults
}

// checkWatchers holds what watchers saw against the log.
func checkWatchers(watchers []*watcher, log []logged) (faults []string) {
	plain := make([]servertest.Logged, len(log))
	for i := range log {
		plain[i] = log[i].Logged
	}
	for _, w := range watchers {
		faults = append(faults, w.Check(plain)...)
	}
	return faults
}

// deliveryRow is a delivery as it is stored.
type deliveryRow struct {
	id, webhook, event, state, lease string
	dueIn                            time.Duration
}

// demanded returns which deliveries the log demands, as webhook and event.
func demanded(webhooks []*subscribed, log []logged) map[string]bool {
	demand := make(map[string]bool)
	for _, w := range webhooks {
		enabled := false
		for _, e := range log {
			switch {
			case e.Resource == w.id && e.Type == "webhook.created", e.Resource == w.id && e.Type == "webhook.updated":
				enabled = e.enabled
			case enabled && e.Organization == w.organization && strings.HasPrefix(e.Type, "api_key.") &&
				(w.types[0] == "*" || slices.Contains(w.types, e.Type)):
				demand[w.id+" "+e.ID] = true
			}
		}
	}
	return demand
}

// checkDeliveries holds the queue and what was received against the log: a row for each
// delivery that is demanded and for no other, each received unless it still waits, none
// again after its acknowledgement but around a fault.
func checkDeliveries(webhooks []*subscribed, log []logged, rows []deliveryRow, received map[string][]receipt, around func(at time.Duration) bool) (faults []string) {
	demand := demanded(webhooks, log)
	seen := make(map[string]bool)
	known := make(map[string]bool)
	for _, row := range rows {
		known[row.id] = true
		key := row.webhook + " " + row.event
		if !demand[key] || seen[key] {
			faults = append(faults, fmt.Sprintf("the delivery %s of event %s to webhook %s is not demanded", row.id, row.event, row.webhook))
		}
		seen[key] = true
		got := received[row.id]
		acknowledged := slices.IndexFunc(got, func(r receipt) bool { return r.status == 200 })
		if row.state == "delivered" && acknowledged < 0 {
			faults = append(faults, fmt.Sprintf("the delivery %s is delivered, and its receiver has not acknowledged it", row.id))
		}
		if acknowledged >= 0 && len(got) > acknowledged+1 && !around(got[acknowledged].at) {
			faults = append(faults, fmt.Sprintf("the delivery %s was acknowledged at %v and sent again at %v, with no fault around it",
				row.id, got[acknowledged].at, got[acknowledged+1].at))
		}
	}
	for key := range demand {
		if !seen[key] {
			faults = append(faults, fmt.Sprintf("the delivery of webhook and event %s was not made", key))
		}
	}
	for id := range received {
		if !known[id] {
			faults = append(faults, fmt.Sprintf("the delivery %s was received and is not stored", id))
		}
	}
	slices.Sort(faults)
	return faults
}
