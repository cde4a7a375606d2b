package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// outputFormat is the form of a command's results.
type outputFormat string

// UnmarshalText takes table or json.
func (f *outputFormat) UnmarshalText(text []byte) error {
	switch *f = outputFormat(text); *f {
	case "table", "json":
		return nil
	}
	return fmt.Errorf("must be table or json, not %q", apikey.Excerpt(string(text)))
}

// An eventPrinter writes events, each at once, in one write.
type eventPrinter struct {
	format outputFormat
	w      io.Writer
	widths []int // of the table's columns so far; nil before its head
	// organizations tells that they differ, so that the table has them.
	organizations bool
	line          []byte
}

func newEventPrinter(format outputFormat, w io.Writer, organization string) *eventPrinter {
	return &eventPrinter{format: format, w: w, organizations: organization == "*"}
}

// events writes a page of a list: in JSON each event as it stands in the list of
// REST.
func (p *eventPrinter) events(events []*apikeysv1.Event) error {
	if p.format == "json" {
		for _, e := range events {
			p.line = append(wirejson.Append(p.line[:0], e), '\n')
			if err := p.flush(); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, len(events))
	for i, e := range events {
		rows[i] = p.row(e)
	}
	return p.table(rows)
}

// message writes a message of a stream: in JSON as a line of REST's stream,
// heartbeats too, since whoever reads them keeps their cursors.
func (p *eventPrinter) message(m *apikeysv1.WatchEventsResponse) error {
	if p.format == "json" {
		p.line = append(wirejson.AppendWatch(p.line[:0], m), '\n')
		return p.flush()
	}
	if m.GetEvent() == nil {
		return p.table(nil)
	}
	return p.table([][]string{p.row(m.GetEvent())})
}

func (p *eventPrinter) row(e *apikeysv1.Event) []string {
	actor := e.GetActor().GetId()
	if kind := e.GetActor().GetKind(); !strings.HasPrefix(actor, kind) {
		actor = strings.TrimSpace(kind + " " + actor)
	}
	row := []string{e.GetCreatedAt().AsTime().Format(time.DateTime), e.GetType(), e.GetResourceId(), actor, strings.Join(e.GetChanges(), ", ")}
	if p.organizations {
		row = append([]string{row[0], e.GetOrganizationId()}, row[1:]...)
	}
	return row
}

// table writes rows under a head that comes first. A column is as wide as the
// widest that it has held, so that what follows is aligned.
func (p *eventPrinter) table(rows [][]string) error {
	if p.widths == nil {
		head := []string{"TIME (UTC)", "TYPE", "RESOURCE", "ACTOR", "CHANGES"}
		p.widths = []int{len(time.DateTime), len("webhook.secret_rotated"), len("api_key_") + 36, len("operator_") + 36, 0}
		if p.organizations {
			head = append([]string{head[0], "ORGANIZATION"}, head[1:]...)
			p.widths = append([]int{p.widths[0], 0}, p.widths[1:]...)
		}
		rows = append([][]string{head}, rows...)
	}
	for _, row := range rows {
		for i, text := range row {
			p.widths[i] = max(p.widths[i], len(text))
		}
	}
	for _, row := range rows {
		p.line = p.line[:0]
		for i, text := range row {
			p.line = fmt.Appendf(p.line, "%-*s  ", p.widths[i], text)
		}
		p.line = append([]byte(strings.TrimRight(string(p.line), " ")), '\n')
		if err := p.flush(); err != nil {
			return err
		}
	}
	return nil
}

func (p *eventPrinter) flush() error {
	if _, err := p.w.Write(p.line); err != nil {
		return outputError{fmt.Errorf("write the events: %w", err)}
	}
	return nil
}
