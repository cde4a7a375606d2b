package api_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/meter"
	"github.com/apikeys-dev/apikeys/server/store"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// harness is the services with everything below them, behind the connection inside
// the process, so that a test inside a synctest bubble owns the time.
type harness struct {
	testing.TB
	store    *store.Store
	meter    *meter.Meter
	verifier *verify.Verifier
	cursors  *feed.Cursors
	api      *api.API
	conn     grpc.ClientConnInterface
	keys     apikeysv1.ApiKeysServiceClient
	events   apikeysv1.EventsServiceClient

	// gate passes a message of the streams that were opened with slow, each time
	// that something is received from it.
	gate chan struct{}
}

// slow is metadata of a stream whose client takes what the gate passes.
const slow = "x-slow"

// gatedStream blocks in SendMsg, as HTTP/2 does where the client takes nothing,
// until the gate opens or the handler returns. The connection inside the process
// would hold a lock meanwhile that its handler waits for.
type gatedStream struct {
	grpc.ServerStream
	gate  chan struct{}
	ended chan struct{}
}

func (s *gatedStream) SendMsg(m any) error {
	select {
	case s.gate <- struct{}{}:
		return s.ServerStream.SendMsg(m)
	case <-s.ended:
		return io.ErrClosedPipe
	}
}

const (
	rootToken  = "root_token_of_the_tests"
	databaseID = "database_1"
)

var (
	peppers   = keyring.NewPeppers(keyring.NewKey("x_1", "edge"), keyring.NewKey("p_1", "pepper"))
	cursorKey = keyring.NewKey("c_1", "0123456789abcdef0123456789abcdef")
)

// inBubble runs a test on a new harness, in a bubble.
func inBubble(t *testing.T, test func(t *testing.T, r *harness), change ...func(*api.Config)) {
	synctest.Test(t, func(t *testing.T) { test(t, newHarness(t, change...)) })
}

func newHarness(t testing.TB, change ...func(*api.Config)) *harness {
	t.Helper()
	r := &harness{TB: t, gate: make(chan struct{})}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	var err error
	r.store, err = store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "apikeys.db"), Logger: log})
	r.must(err)
	t.Cleanup(func() { r.store.Close() })
	r.must(r.store.Initialize(t.Context(), map[string]string{"database_id": databaseID}, nil))
	r.meter = meter.New(meter.Config{Usage: r.store, Quotas: r.store, Rates: r.store, Logger: log})
	r.verifier, err = verify.New(verify.Config{Keys: r.store, Meter: r.meter, Peppers: peppers})
	r.must(err)
	f, err := feed.New(t.Context(), feed.Config{Log: r.store, Tail: 16, Poll: 5 * time.Second, Logger: log})
	r.must(err)
	r.store.OnCommit(func(c store.Commit) {
		r.verifier.Drop(c.ChangedKeys, c.Position)
		f.Notify(c.Position)
	})
	sealer, err := keyring.NewSealer(cursorKey)
	r.must(err)
	r.cursors = feed.NewCursors(databaseID, sealer)
	r.must(err)
	r.resetToken(rootToken)
	config := api.Config{
		Store: r.store, Verifier: r.verifier, Meter: r.meter, Peppers: peppers, Feed: f, Cursors: r.cursors,
		Rules: apikey.Rules{Catalogue: apikey.DefaultScopes(), Formats: apikey.DefaultKeyFormats()},
		Authn: authn.New(authn.Config{Verifier: r.verifier, Operators: &authn.Operators{
			Peppers: peppers, Stored: r.store.RootTokens, Now: time.Now,
		}}),
		Logger: log, Now: time.Now, SlowClientTimeout: time.Minute,
	}
	for _, f := range change {
		f(&config)
	}
	r.api, err = api.New(config)
	r.must(err)
	r.api.HoldRootUses()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	local := new(inprocgrpc.Channel).
		WithServerStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if metadata.ValueFromIncomingContext(stream.Context(), slow) != nil {
				gated := &gatedStream{stream, r.gate, make(chan struct{})}
				defer close(gated.ended)
				stream = gated
			}
			return handler(srv, stream)
		})
	r.api.Register(local)
	r.conn = local
	r.keys, r.events = apikeysv1.NewApiKeysServiceClient(local), apikeysv1.NewEventsServiceClient(local)
	return r
}

func (r *harness) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// resetToken makes token the only operator's.
func (r *harness) resetToken(token string) {
	r.must(r.store.ReplaceRootTokens(r.Context(), keyring.OperatorToken{ID: "operator_1", Hash: peppers.Hash(0, token), PepperID: "p_1", CreatedAt: time.Now()}))
}

// as returns a context of calls with a credential and further metadata; without
// a credential they are the operator's.
func (r *harness) as(credential string, pairs ...string) context.Context {
	if credential == "" {
		credential = rootToken
	}
	return metadata.AppendToOutgoingContext(r.Context(), append([]string{"authorization", "Bearer " + credential}, pairs...)...)
}

// create makes a key as the operator does.
func (r *harness) create(req *apikeysv1.CreateApiKeyRequest, pairs ...string) *apikeysv1.ApiKey {
	r.Helper()
	if req.Label == "" {
		req.Label = "key"
	}
	resp, err := r.keys.CreateApiKey(r.as("", pairs...), req)
	r.must(err)
	return resp.GetApiKey()
}

// reader makes a key that may read events and keys.
func (r *harness) reader() *apikeysv1.ApiKey {
	return r.create(&apikeysv1.CreateApiKeyRequest{Scopes: []string{"events.read", "api_keys.read"}})
}

// stream is an open stream.
type stream struct {
	*harness
	apikeysv1.EventsService_WatchEventsClient
	cancel context.CancelFunc
}

// watch opens a stream and waits for its first message, a heartbeat.
func (r *harness) watch(ctx context.Context, req *apikeysv1.WatchEventsRequest) *stream {
	r.Helper()
	s := r.open(ctx, req)
	m, err := s.Recv()
	if err != nil || m.GetEvent() != nil || m.GetCursor() == "" {
		r.Fatalf("the first message: %v, %v", m, err)
	}
	return s
}

func (r *harness) open(ctx context.Context, req *apikeysv1.WatchEventsRequest) *stream {
	r.Helper()
	ctx, cancel := context.WithCancel(ctx)
	s, err := r.conn.NewStream(ctx, &apikeysv1.EventsService_ServiceDesc.Streams[0], apikeysv1.EventsService_WatchEvents_FullMethodName)
	r.must(err)
	// Refused before the request was read is io.EOF here; why, is received.
	if err := s.SendMsg(req); !errors.Is(err, io.EOF) {
		r.must(err)
	}
	// The stream has a finalizer, which must not run in the bubble's lifetime: it
	// would cancel from outside.
	r.Cleanup(func() { cancel(); runtime.KeepAlive(s) })
	return &stream{r, &grpc.GenericClientStream[apikeysv1.WatchEventsRequest, apikeysv1.WatchEventsResponse]{ClientStream: s}, cancel}
}

// event receives an event of a type.
func (s *stream) event(want apikey.EventType) *apikeysv1.Event {
	s.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			s.Fatalf("waiting for %s: %v", want, err)
		}
		if m.GetEvent() == nil {
			continue
		}
		if m.GetEvent().GetType() != string(want) || m.GetEvent().GetCursor() != m.GetCursor() {
			s.Fatalf("got %v, want %s", m, want)
		}
		return m.GetEvent()
	}
}

// watchSlowly opens a stream whose client takes what take takes, and takes the
// first message.
func (r *harness) watchSlowly(credential, after string) *stream {
	r.Helper()
	s := r.open(r.as(credential, slow, "1"), &apikeysv1.WatchEventsRequest{After: after, HeartbeatSeconds: proto.Int32(300)})
	s.take()
	return s
}

// take receives one message of a slow stream.
func (s *stream) take() *apikeysv1.WatchEventsResponse {
	s.Helper()
	select {
	case <-s.gate:
	case <-time.After(time.Minute):
		s.Fatal("nothing is sent")
	}
	m, err := s.Recv()
	s.must(err)
	return m
}

// idle receives heartbeats, and nothing else, until a time has passed.
func (s *stream) idle(d time.Duration) {
	s.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		if m, err := s.Recv(); err != nil || m.GetEvent() != nil {
			s.Fatalf("while nothing happened: %v, %v", m, err)
		}
	}
}

// end receives until the stream ends, and checks why it did.
func (s *stream) end(code codes.Code, reason string) {
	s.Helper()
	for {
		if _, err := s.Recv(); err != nil {
			checkFailure(s.TB, err, code, reason)
			return
		}
	}
}

func checkFailure(t testing.TB, err error, code codes.Code, reason string) *errdetails.ErrorInfo {
	t.Helper()
	if errors.Is(err, io.EOF) {
		t.Fatal("the stream ended without a status")
	}
	st := status.Convert(err)
	info := &errdetails.ErrorInfo{}
	for _, d := range st.Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			info = i
		}
	}
	if st.Code() != code || info.GetReason() != reason {
		t.Errorf("got %v %s (%s), want %v %s", st.Code(), info.GetReason(), st.Message(), code, reason)
	}
	return info
}
