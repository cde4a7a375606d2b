package server_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
)

// A server that stops ends the streams over both protocols at once, and tells them to
// go on elsewhere.
func TestStopEndsWatchers(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	// The server's own client closes its connection before it stops.
	conn, err := grpc.NewClient(s.Conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := apikeysv1.NewEventsServiceClient(conn).WatchEvents(s.Context(t.Context()), &apikeysv1.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	health, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := health.Recv(); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.REST+"/developers/events/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+servertest.RootToken)
	resp, err := s.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() {
		t.Fatal(resp.Status, lines.Err())
	}

	start := time.Now()
	stopped := make(chan struct{})
	go func() { s.Stop(); close(stopped) }()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("over gRPC: %v", err)
	}
	var last string
	for lines.Scan() {
		last = lines.Text()
	}
	if !strings.Contains(last, `"SERVER_STOPPING"`) {
		t.Errorf("over REST: %s, %v", last, lines.Err())
	}
	<-stopped
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("the stop took %s", d)
	}
}
