package api_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// listen opens the harness's services to the network, and returns a connection.
func (r *harness) listen() *grpc.ClientConn {
	r.Helper()
	server := grpc.NewServer(grpc.UnknownServiceHandler(r.api.Unknown), grpc.ForceServerCodecV2(api.NewCodec()))
	r.api.Register(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	r.must(err)
	r.Cleanup(func() {
		conn.Close()
		r.api.EndStreams()
		server.Stop()
		<-done
	})
	return conn
}

// load is many writers, and how far they are.
type load struct {
	mu      sync.Mutex
	moved   *sync.Cond
	done    int   // changes that were answered
	over    bool  // no more will be
	end     int64 // position of the last, once it is over
	changes map[string]int
}

// answered notes an answered change of a key.
func (l *load) answered(event apikey.EventType, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done++
	l.changes[string(event)+" "+id]++
	l.moved.Broadcast()
}

// await waits until n more changes were answered, or there are no more.
func (l *load) await(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for end := l.done + n; l.done < end && !l.over; {
		l.moved.Wait()
	}
}

// passed reports whether position is at the end of the log.
func (l *load) passed(position int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over && position >= l.end
}

var historyOrganizations = []string{"org_a", "org_b", "org_c"}

// write makes changes of keys of random organizations, a life of a key at a time.
func (l *load) write(r *harness, lives int, random *rand.Rand) error {
	for range lives {
		ctx := r.as("", "x-organization-id", historyOrganizations[random.IntN(3)])
		created, err := r.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "key"})
		if err != nil {
			return err
		}
		id := created.GetApiKey().GetId()
		l.answered(apikey.KeyCreated, id)
		for i := range random.IntN(4) {
			if _, err := r.keys.UpdateApiKey(ctx, &apikeysv1.UpdateApiKeyRequest{
				Id: id, ApiKey: &apikeysv1.ApiKey{Label: fmt.Sprint("label ", i)}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"label"}},
			}); err != nil {
				return err
			}
			l.answered(apikey.KeyUpdated, id)
		}
		if random.IntN(2) == 0 {
			if _, err := r.keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: id}); err != nil {
				return err
			}
			l.answered(apikey.KeyRevoked, id)
		}
		if random.IntN(2) == 0 {
			if _, err := r.keys.DeleteApiKey(ctx, &apikeysv1.DeleteApiKeyRequest{Id: id}); err != nil {
				return err
			}
			l.answered(apikey.KeyDeleted, id)
		}
	}
	return nil
}

// A manner is how a watcher behaves.
type manner struct {
	slow int // changes that it lets pass between messages
	cut  int // messages after which it is cut, about
	late int // changes that it lets pass before it begins
	from string
}

// watchHistory watches until the load is over and it has come to the end.
func watchHistory(r *harness, conn grpc.ClientConnInterface, l *load, h *servertest.History, m manner, random *rand.Rand) error {
	l.await(m.late)
	organization := h.Organization
	if organization == "" {
		organization = "*"
	}
	req := &apikeysv1.WatchEventsRequest{After: m.from, Types: h.Types, ResourceIds: h.Resources, HeartbeatSeconds: proto.Int32(1)}
	for over := false; !over; {
		ctx, cancel := context.WithCancel(r.as("", "x-organization-id", organization))
		stream, err := apikeysv1.NewEventsServiceClient(conn).WatchEvents(ctx, req)
		if err != nil {
			cancel()
			return err
		}
		for left := 1 + random.IntN(2*m.cut+1); !over && (m.cut == 0 || left > 0); left-- {
			message, err := stream.Recv()
			if err != nil {
				cancel()
				return err
			}
			position, err := r.cursors.Open(message.GetCursor(), h.Organization)
			if err != nil {
				cancel()
				return err
			}
			if len(h.Seen) == 0 {
				h.From = position
			}
			h.Seen = append(h.Seen, servertest.Seen{Position: position, ID: message.GetEvent().GetId()})
			req.After = message.GetCursor()
			over = l.passed(position)
			l.await(m.slow)
		}
		cancel()
		for { // The end of a stream that was cut is of no interest, but it has one.
			if _, err := stream.Recv(); err != nil {
				if status.Code(err) != codes.Canceled {
					return err
				}
				break
			}
		}
	}
	return nil
}

// TestHistories lets writers and watchers of all manners at the service, over both
// connections, with a tail that is far too small for the slow.
func TestHistories(t *testing.T) {
	t.Parallel()
	r := newHarness(t)
	conns := map[string]grpc.ClientConnInterface{"network": r.listen(), "inside": r.conn}
	l := &load{changes: make(map[string]int)}
	l.moved = sync.NewCond(&l.mu)
	known := r.create(&apikeysv1.CreateApiKeyRequest{}, "x-organization-id", "org_a").GetId()
	l.answered(apikey.KeyCreated, known)

	filters := map[string]servertest.History{
		"all":      {},
		"one":      {Organization: "org_a"},
		"types":    {Organization: "org_b", Types: []string{string(apikey.KeyRevoked), string(apikey.KeyDeleted)}},
		"resource": {Resources: []string{known}},
	}
	manners := map[string]manner{
		"eager":           {},
		"from the oldest": {from: "start"},
		"slow":            {slow: 5},
		"cut":             {cut: 10},
		"late, slow, cut": {slow: 3, cut: 20, late: 100, from: "start"},
	}
	var watchers, writers sync.WaitGroup
	var histories []*servertest.History
	n := uint64(0)
	for connName, conn := range conns {
		for filterName, filter := range filters {
			for mannerName, m := range manners {
				h := filter
				h.Name = connName + ", " + filterName + ", " + mannerName
				histories = append(histories, &h)
				n++
				random := rand.New(rand.NewPCG(n, 1))
				watchers.Go(func() {
					if err := watchHistory(r, conn, l, &h, m, random); err != nil {
						t.Errorf("%s: %v", h.Name, err)
					}
				})
			}
		}
	}
	for i := range 6 {
		writers.Go(func() {
			if err := l.write(r, 40, rand.New(rand.NewPCG(uint64(i), 2))); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	_, newest, err := r.store.EventBounds(t.Context())
	r.must(err)
	l.mu.Lock()
	l.over, l.end = true, newest
	l.moved.Broadcast()
	l.mu.Unlock()
	watchers.Wait()

	all, _ := r.list(&apikeysv1.ListEventsRequest{PageSize: 100}, "x-organization-id", "*")
	var log []servertest.Logged
	for _, e := range all {
		position, err := r.cursors.Open(e.GetCursor(), "")
		r.must(err)
		log = append(log, servertest.Logged{
			Position: position, ID: e.GetId(), Organization: e.GetOrganizationId(), Type: e.GetType(), Resource: e.GetResourceId(),
		})
		l.changes[e.GetType()+" "+e.GetResourceId()]--
	}
	for change, n := range l.changes {
		if n != 0 {
			t.Errorf("%s was answered %d times more than the log has it", change, n)
		}
	}
	total := 0
	for _, h := range histories {
		if m := manners[strings.SplitN(h.Name, ", ", 3)[2]]; m.from == "start" && h.From != 0 {
			t.Errorf("%s begins at %d", h.Name, h.From)
		}
		for _, fault := range h.Check(log) {
			t.Error(fault)
		}
		total += len(h.Seen)
	}
	t.Logf("%d changes, %d watchers, %d messages", len(log), len(histories), total)
}
