package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/deliver"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// webhooksListenCommand follows events and posts them as a server would.
type webhooksListenCommand struct {
	ForwardTo      forwardURL    `group:"webhooks" argument:"" required:"" placeholder:"URL" help:"Where events are posted, such as http://localhost:3000/hook."`
	Type           []string      `group:"webhooks" argument:"" default:"*" placeholder:"TYPE" help:"Only events of this type, such as api_key.created or webhook.test; * stands for every type of api_key. Can be repeated."`
	Format         bodyFormat    `group:"webhooks" argument:"" default:"classic" placeholder:"FORMAT" help:"The form of the body: classic, resource, standard or cloudevents."`
	Secret         signingSecret `group:"webhooks" argument:"" placeholder:"SECRET" help:"The signing secret, whsec_ and base64. One for local use: every user of this machine can read it. Default: one that is made for this run."`
	After          string        `group:"webhooks" argument:"" placeholder:"CURSOR" help:"Begin after this cursor, or with the oldest event that is kept: start. Default: with the next event."`
	clientSettings `embed:""`
}

// Run posts events until ctx is done, which is no error, or until the server says
// something that connecting again does not help against.
func (c *webhooksListenCommand) Run(ctx context.Context, sources *sources, out streams) error {
	connection, err := c.connection(ctx, sources)
	if err != nil {
		return err
	}
	secret, shown := c.Secret.Secret, c.Secret.Mask()
	if shown == "" {
		if secret, err = hooks.NewSecret(nil); err != nil {
			return err
		}
		shown = secret.Reveal() + " (made for this run, for local use only)"
	}
	l := &listener{
		local:  deliver.NewLocal(string(c.ForwardTo), c.Type, webhook.Format(c.Format), secret),
		client: deliver.NewClient(deliver.ClientConfig{Guard: webhook.Unguarded()}),
		url:    string(c.ForwardTo),
		out:    out.stdout,
		now:    time.Now,
	}
	if err := l.write("Signing secret: %s\n", shown); isClosedPipe(err) {
		return nil
	} else if err != nil {
		return err
	}
	req := &apikeysv1.WatchEventsRequest{After: c.After, Types: c.Type}
	if slices.Contains(c.Type, string(webhook.AllEvents)) {
		req.Types = nil // The server knows types alone; the local webhook decides.
	}
	take := func(m *apikeysv1.WatchEventsResponse) error { return l.message(ctx, m) }
	return connection.watcher(req, take, out.stderr).run(ctx)
}

// A listener posts events to one URL, one after the other.
type listener struct {
	local  *deliver.Local
	client *deliver.Client
	url    string
	out    io.Writer
	now    func() time.Time

	headed bool // the head of the table is out
}

// message posts the event of m, if it has one that is wanted, and tells what came
// of it. It is the endpoint's fault if that is a failure, and no error.
func (l *listener) message(ctx context.Context, m *apikeysv1.WatchEventsResponse) error {
	if !l.headed {
		// The first message says that the stream has begun.
		if err := l.row("TIME (UTC)", "TYPE", "RESOURCE", "STATUS", "DURATION", ""); err != nil {
			return err
		}
		l.headed = true
	}
	e := m.GetEvent()
	if e == nil || !l.local.Wants(e) {
		return nil
	}
	began := l.now()
	header, body, err := l.local.Request(e, began)
	if err != nil {
		// A newer server may tell of resources that this program does not know.
		return l.row(began.UTC().Format(time.DateTime), e.GetType(), e.GetResourceId(), "-", "-", "not sent: "+err.Error())
	}
	outcome, err := l.client.Send(ctx, l.url, header, body)
	// Each has a connection of its own: on one that was kept, and that the endpoint
	// then breaks, the transport would try a second time.
	l.client.Close()
	if err != nil {
		return err
	}
	status := "-"
	if outcome.Status != 0 {
		status = fmt.Sprint(outcome.Status)
	}
	took := l.now().Sub(began).Round(time.Millisecond)
	return l.row(began.UTC().Format(time.DateTime), e.GetType(), e.GetResourceId(), status, took.String(), outcome.Failure.Message)
}

func (l *listener) row(at, event, resource, status, took, failure string) error {
	// The server and the endpoint have written parts of it.
	line := output.Printable(fmt.Sprintf("%-19s  %-22s  %-44s  %-6s  %-8s  %s", at, event, resource, status, took, failure))
	return l.write("%s\n", strings.TrimRight(line, " "))
}

func (l *listener) write(format string, args ...any) error {
	if _, err := fmt.Fprintf(l.out, format, args...); err != nil {
		return outputError{Err: fmt.Errorf("write what was sent: %w", err)}
	}
	return nil
}

// forwardURL is where a listener posts to.
type forwardURL string

// UnmarshalText takes a URL; http:// can be left out. Any host will do: the user
// of this machine may call what this machine can reach.
func (u *forwardURL) UnmarshalText(text []byte) error {
	whole := string(text)
	if !strings.Contains(whole, "://") {
		whole = "http://" + whole
	}
	if _, err := webhook.Unguarded().URL(whole); err != nil {
		return err
	}
	*u = forwardURL(whole)
	return nil
}

// bodyFormat is the form of a body.
type bodyFormat webhook.Format

// UnmarshalText takes the name of a format.
func (f *bodyFormat) UnmarshalText(text []byte) error {
	switch webhook.Format(text) {
	case webhook.FormatClassic, webhook.FormatResource, webhook.FormatStandard, webhook.FormatCloudEvents:
		*f = bodyFormat(text)
		return nil
	}
	return errors.New("must be classic, resource, standard or cloudevents")
}

// signingSecret is a secret of a webhook.
type signingSecret struct{ hooks.Secret }

// UnmarshalText takes the text of a secret, which its error does not repeat.
func (s *signingSecret) UnmarshalText(text []byte) (err error) {
	s.Secret, err = hooks.ParseSecret(string(text))
	return err
}
