package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// callTimeout is how long one call may take.
const callTimeout = time.Minute

// caller is what every command has that calls a server and shows what it says.
type caller struct {
	Output         output.Format `group:"output" short:"o" default:"table" placeholder:"FORMAT" complete:"formats" help:"table, json, jsonl, yaml, id, secret or jsonpath=PATH. JSON is what the REST API has in data."`
	clientSettings `embed:""`
}

// idCaller is a caller whose result is an id.
type idCaller struct {
	Output         output.Format `group:"output" short:"o" default:"id" placeholder:"FORMAT" complete:"formats" help:"id; or table, json, jsonl, yaml, jsonpath=PATH."`
	clientSettings `embed:""`
}

// call is caller's.
func (c *idCaller) call(ctx context.Context, sources *sources, out streams, id string, f func(context.Context, *session) error) error {
	return c.callAs(ctx, sources, out, c.Output, id, f)
}

// A session is a command's dealings with a server: the services, as the caller that
// the settings name, and what shows the results.
type session struct {
	*output.Printer
	keys       apikeysv1.ApiKeysServiceClient
	webhooks   apikeysv1.WebhooksServiceClient
	events     apikeysv1.EventsServiceClient
	tokens     apikeysv1.OperatorTokensServiceClient
	callers    apikeysv1.CallersServiceClient
	usage      apikeysv1.UsageServiceClient
	connection *connection
	sources    *sources
	out        streams
	now        time.Time
	format     output.Format
}

// call runs f with a session, and explains its error. id is the field that -o id shows.
func (c *caller) call(ctx context.Context, sources *sources, out streams, id string, f func(context.Context, *session) error) error {
	return c.callAs(ctx, sources, out, c.Output, id, f)
}

func (c *clientSettings) callAs(ctx context.Context, sources *sources, out streams, format output.Format, id string, f func(context.Context, *session) error) error {
	connection, err := c.connection(ctx, sources)
	if err != nil {
		return err
	}
	conn, err := connection.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	s := newSession(conn, connection, sources, out, format, id)
	err = f(connection.as(ctx), s)
	switch {
	case isClosedPipe(err):
		return nil
	case err == nil, errors.As(err, new(outputError)), errors.Is(err, output.ErrNoSecret), errors.As(err, new(usageError)), errors.As(err, new(exitError)):
		return err
	case ctx.Err() != nil:
		return errors.New("interrupted")
	}
	return explainStatus(connection.address, err)
}

func newSession(conn grpc.ClientConnInterface, connection *connection, sources *sources, out streams, format output.Format, id string) *session {
	return &session{
		Printer:    output.NewPrinter(out.stdout, format, out.shownOn(), id),
		keys:       apikeysv1.NewApiKeysServiceClient(conn),
		webhooks:   apikeysv1.NewWebhooksServiceClient(conn),
		events:     apikeysv1.NewEventsServiceClient(conn),
		tokens:     apikeysv1.NewOperatorTokensServiceClient(conn),
		callers:    apikeysv1.NewCallersServiceClient(conn),
		usage:      apikeysv1.NewUsageServiceClient(conn),
		connection: connection,
		sources:    sources,
		out:        out,
		now:        time.Now(),
		format:     format,
	}
}

// show writes the one result of a call, unless that failed.
func (s *session) show(m proto.Message, err error) error {
	if err != nil {
		return err
	}
	return s.One(wirejson.Append(nil, m))
}

// note writes a line to standard error.
func (s *session) note(format string, args ...any) {
	fmt.Fprintf(s.out.stderr, "apikeys: %s\n", output.Printable(fmt.Sprintf(format, args...)))
}

// once makes one call, which may not take long.
func once[Req, Resp any](ctx context.Context, method func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req, options ...grpc.CallOption) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return method(ctx, req, options...)
}

// pageLimit is how many results of a list a command shows.
type pageLimit struct {
	Limit int `group:"output" placeholder:"N" help:"How many results at most; 0 for all." default:"0"`
}

// mostOfAPage is how many results a page may have.
const mostOfAPage = 1000

// list shows the results of all pages, or of as many as limit asks for. It returns how
// many there were, and whether there may be more.
func list[T proto.Message](s *session, limit int, columns []output.Column, page func(size int32, token string) (items []T, next string, err error)) (n int, more bool, err error) {
	if limit < 0 {
		return 0, false, usageError{errors.New("--limit: must be 0 or more")}
	}
	token, begun := "", false
	for {
		size := mostOfAPage
		if limit > 0 {
			size = min(limit-n, mostOfAPage)
		}
		items, next, err := page(int32(size), token)
		if err != nil {
			return n, false, err
		}
		// An error of the first page leaves no half a list.
		if !begun {
			begun = true
			if err := s.Begin(columns); err != nil {
				return n, false, err
			}
		}
		for _, item := range items {
			if err := s.Item(wirejson.Append(nil, item)); err != nil {
				return n, false, err
			}
		}
		n += len(items)
		if err := s.Flush(); err != nil {
			return n, false, err
		}
		if token = next; token == "" || limit > 0 && n >= limit {
			return n, token != "", s.End()
		}
	}
}
