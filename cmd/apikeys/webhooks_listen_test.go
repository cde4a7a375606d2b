package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/apikeys-dev/apikeys/client/hooks"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// listening is a running `apikeys webhooks listen`.
type listening struct {
	stdout *lines
	stderr bytes.Buffer // to be read once it has ended
	secret string
	stop   context.CancelFunc
	done   chan error
}

// startListening returns once it has told its secret and, where the stream has
// begun with it, the head of its table.
func startListening(t *testing.T, args ...string) *listening {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	l := &listening{stdout: newLines(t), stop: cancel, done: make(chan error, 1)}
	go func() {
		l.done <- run(ctx, append([]string{"webhooks", "listen"}, args...), []string{"APIKEYS_TOKEN=" + servertest.RootToken}, streams{stdout: l.stdout, stderr: &l.stderr})
		l.stdout.pipe.Close()
	}()
	line := l.stdout.next()
	told := regexp.MustCompile(`^Signing secret: (whsec_\S+)`).FindStringSubmatch(line)
	if told == nil {
		t.Fatalf("it began with %s", line)
	}
	l.secret = told[1]
	if head := l.stdout.next(); !strings.HasPrefix(head, "TIME (UTC) ") {
		t.Fatalf("head: %s", head)
	}
	return l
}

// end stops it as Ctrl-C does.
func (l *listening) end(t *testing.T) {
	t.Helper()
	l.stop()
	if err := <-l.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// post is a request that a receiver got.
type post struct {
	path   string
	header http.Header
	body   []byte
}

// receiver answers what answer writes to each post, and hands the posts on.
func receiver(t *testing.T, answer http.HandlerFunc) (url string, posts chan post) {
	t.Helper()
	posts = make(chan post, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		posts <- post{r.URL.Path, r.Header, body}
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, posts
}

func nextPost(t *testing.T, posts chan post) post {
	t.Helper()
	select {
	case p := <-posts:
		return p
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was posted")
		return post{}
	}
}

func noContent(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// What is posted is what the server itself delivers of the same event, to the
// byte, but for the ids of webhook and delivery, the url and the secret.
func TestListenPostsWhatTheServerDelivers(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	service := apikeysv1.NewWebhooksServiceClient(s.Conn)
	as := func() context.Context { return s.Context(t.Context()) }
	key, err := s.Keys.CreateApiKey(as(), &apikeysv1.CreateApiKeyRequest{Label: "x", Metadata: map[string]string{"b": "<&>", "a": "ü"}})
	if err != nil {
		t.Fatal(err)
	}
	own := regexp.MustCompile(`"(webhook_id|url|id)":"(webhook_|http|delivery_)[^"]*"`)
	for name, format := range map[string]apikeysv1.WebhookFormat{
		"classic":     apikeysv1.WebhookFormat_WEBHOOK_FORMAT_CLASSIC,
		"resource":    apikeysv1.WebhookFormat_WEBHOOK_FORMAT_RESOURCE,
		"standard":    apikeysv1.WebhookFormat_WEBHOOK_FORMAT_STANDARD,
		"cloudevents": apikeysv1.WebhookFormat_WEBHOOK_FORMAT_CLOUDEVENTS,
	} {
		t.Run(name, func(t *testing.T) {
			url, posts := receiver(t, noContent)
			created, err := service.CreateWebhook(as(), &apikeysv1.CreateWebhookRequest{Label: name, Url: url + "/server", Events: []string{"*"}, Format: format})
			if err != nil {
				t.Fatal(err)
			}
			defer service.DeleteWebhook(as(), &apikeysv1.DeleteWebhookRequest{Id: created.GetWebhook().GetId()})
			l := startListening(t, "--server", s.Conn.Target(), "--format", name, "--forward-to", url+"/local")
			if _, err := s.Keys.UpdateApiKey(as(), &apikeysv1.UpdateApiKeyRequest{
				Id: key.GetApiKey().GetId(), ApiKey: &apikeysv1.ApiKey{Label: name}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"label"}},
			}); err != nil {
				t.Fatal(err)
			}
			got := map[string]post{}
			for range 2 {
				p := nextPost(t, posts)
				got[p.path] = p
			}
			local, server := got["/local"], got["/server"]
			if diff := cmp.Diff(own.ReplaceAllString(string(server.body), ""), own.ReplaceAllString(string(local.body), "")); diff != "" {
				t.Errorf("body (-server +listen)\n%s", diff)
			}
			// What differs from one delivery to the next has a value in both, and of
			// the same form.
			form := regexp.MustCompile(`[0-9A-Za-z+/]`)
			for name := range server.header {
				if want, got := form.ReplaceAllString(server.header.Get(name), "x"), form.ReplaceAllString(local.header.Get(name), "x"); name != "Content-Length" && name != "Webhook-Signature" && want != got {
					t.Errorf("%s: %q, and from the server %q", name, local.header.Get(name), server.header.Get(name))
				}
			}
			if len(local.header) != len(server.header) {
				t.Errorf("headers %v, and from the server %v", local.header, server.header)
			}
			if err := hooks.Verify(l.secret, local.header, local.body, time.Now()); err != nil {
				t.Errorf("with the secret that it told: %v", err)
			}
			secret, err := hooks.ParseSecret(l.secret)
			if err != nil {
				t.Fatal(err)
			}
			if local.header.Get(hooks.HeaderClassicSignature) != hooks.SignClassic(secret, local.body) {
				t.Error("the classic signature is another")
			}
			want := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  api_key\.updated +` + key.GetApiKey().GetId() + `  204 +\d+m?s$`)
			if line := l.stdout.next(); !want.MatchString(line) {
				t.Errorf("told %q", line)
			}
			l.end(t)
		})
	}
}

// keyEvent is a message about a change of a key.
func keyEvent(n, kind string) *apikeysv1.WatchEventsResponse {
	return &apikeysv1.WatchEventsResponse{Cursor: n, Event: &apikeysv1.Event{
		Id: "event_" + n, Type: kind, ResourceId: "api_key_" + n, Cursor: n, ApiKey: &apikeysv1.ApiKey{Id: "api_key_" + n},
	}}
}

// Events are posted in their order, each once whatever comes of it, and only
// those that are wanted.
func TestListenTellsWhatCameOfIt(t *testing.T) {
	t.Parallel()
	requests := make(chan *apikeysv1.WatchEventsRequest, 1)
	_, address := serveFeed(t, "127.0.0.1:0", feed{watch: func(req *apikeysv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]) error {
		requests <- req
		for _, m := range []*apikeysv1.WatchEventsResponse{
			heartbeat("0"), keyEvent("1", "api_key.created"), keyEvent("2", "api_key.updated"), heartbeat("x"),
			{Cursor: "w", Event: &apikeysv1.Event{Id: "event_w", Type: "webhook.created", Webhook: &apikeysv1.Webhook{}}},
			{Cursor: "n", Event: &apikeysv1.Event{Id: "event_n", Type: "api_key.reincarnated", ResourceId: "r"}},
			keyEvent("3", "api_key.revoked"), keyEvent("4", "api_key.deleted"),
		} {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}})
	url, posts := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("X-Webhook-Event") {
		case "api_key.created":
			w.WriteHeader(http.StatusInternalServerError)
		case "api_key.updated":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "api_key.revoked":
			panic(http.ErrAbortHandler)
		}
	})
	l := startListening(t, "--server", address, "--forward-to", strings.TrimPrefix(url, "http://")+"/hook?a=b", "--secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if l.secret != "whsec_MfKQ...aLaSw" {
		t.Errorf("of a given secret it shows %s", l.secret)
	}
	if types := (<-requests).GetTypes(); len(types) > 0 {
		t.Errorf("it asked for %v", types)
	}
	for _, want := range []string{
		"api_key.created api_key_1 500 The endpoint answered 500 Internal Server Error.",
		"api_key.updated api_key_2 302 The endpoint answered 302 Found; redirects are not followed.",
		"api_key.reincarnated r - not sent: body of delivery delivery_n: the event event_n shows no resource",
		"api_key.revoked api_key_3 - The connection broke before the answer was complete.",
		"api_key.deleted api_key_4 200",
	} {
		line := regexp.MustCompile(`^\S+ \S+|\d+m?s| - `).ReplaceAllString(l.stdout.next(), " ")
		want = strings.ReplaceAll(want, " - ", " ")
		if got := strings.Join(strings.Fields(line), " "); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	l.end(t)
	for _, want := range []string{"delivery_1", "delivery_2", "delivery_3", "delivery_4"} {
		p := nextPost(t, posts)
		if got := p.header.Get("Webhook-Id"); got != want || p.path != "/hook" {
			t.Errorf("posted %s to %s, want %s", got, p.path, want)
		}
		if err := hooks.Verify("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", p.header, p.body, time.Now()); err != nil {
			t.Error(err)
		}
	}
	if len(posts) > 0 {
		t.Error("more was posted")
	}
	if want := "apikeys: to go on from here: --after=4\n"; l.stderr.String() != want {
		t.Errorf("told %q", l.stderr.String())
	}
}

// A lost stream goes on after the last event that was posted, and one that was
// being posted when Ctrl-C came counts as not posted.
func TestListenGoesOn(t *testing.T) {
	t.Parallel()
	_, address := serveFeed(t, "127.0.0.1:0", feed{watch: func(req *apikeysv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apikeysv1.WatchEventsResponse]) error {
		if req.GetAfter() == "start" {
			if err := stream.Send(keyEvent("1", "api_key.created")); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "gone")
		}
		if err := stream.Send(keyEvent("after-"+req.GetAfter(), "api_key.created")); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}})
	url, posts := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Webhook-Id") != "delivery_1" {
			<-r.Context().Done() // never
		}
	})
	l := startListening(t, "--server", address, "--forward-to", url, "--after=start", "--type=api_key.created")
	nextPost(t, posts)
	l.stdout.next()
	if id := nextPost(t, posts).header.Get("Webhook-Id"); id != "delivery_after-1" {
		t.Errorf("it went on with %s", id)
	}
	l.end(t)
	if _, more := <-l.stdout.c; more {
		t.Error("there was more")
	}
	if told := l.stderr.String(); !strings.HasSuffix(told, "to go on from here: --after=1\n") {
		t.Errorf("told %s", told)
	}
}

func TestListenIsToldNonsense(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                                      "missing flags: --forward-to=URL",
		"--forward-to ftp://localhost":          "--forward-to: must begin with https://",
		"--forward-to http://":                  "--forward-to: must be an absolute URL",
		"--forward-to http://user:pw@localhost": "--forward-to: must not have a user name",
		"--forward-to localhost:1 --format morse":       "--format: must be classic, resource, standard or cloudevents",
		"--forward-to localhost:1 --secret whsec_s3cr=": "--secret: a webhook secret is whsec_ and the base64 of 24 to 64 bytes",
	} {
		err := run(t.Context(), append([]string{"webhooks", "listen"}, strings.Fields(args)...), []string{"APIKEYS_TOKEN=t"}, streams{stdout: io.Discard, stderr: io.Discard})
		if err == nil || exitCode(err) != 2 || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cr") {
			t.Errorf("%s: %v", args, err)
		}
	}
	// Any address of the developer's own is good, however private it is.
	var u forwardURL
	for _, good := range []string{"localhost:3000", "http://192.168.1.5/hook", "http://[::1]:3000/", "https://10.0.0.1", "http://host.docker.internal:3000"} {
		if err := u.UnmarshalText([]byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestListenOutputFails(t *testing.T) {
	t.Parallel()
	for fault, want := range map[error]error{syscall.EPIPE: nil, syscall.ENOSPC: syscall.ENOSPC} {
		err := run(t.Context(), []string{"webhooks", "listen", "--forward-to=localhost:1"}, []string{"APIKEYS_TOKEN=t"}, streams{stdout: failing{fault}, stderr: io.Discard})
		if !errors.Is(err, want) {
			t.Errorf("%v: %v", fault, err)
		}
	}
}
