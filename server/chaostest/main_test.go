package chaostest

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/masked"
)

var (
	chaosTime = flag.Duration("chaos", 0, "how long a random run lasts; 0 skips all that starts replicas")
	chaosSeed = flag.Uint64("chaos.seed", 0, "seed of the choices of a run; 0 takes a new one")
	chaosKeep = flag.Bool("chaos.keep", false, "keep the files of a run that passes, too")
)

// replicaVariable holds, for a replica's process, what the replica is told: this test
// binary is then a server.
const replicaVariable = "CHAOSTEST_REPLICA"

// rootToken is the operator's token of all replicas.
const rootToken = "chaostest-root-token-of-enough-length"

func TestMain(m *testing.M) {
	if told := os.Getenv(replicaVariable); told != "" {
		if err := serve(told); err != nil {
			fmt.Fprintln(os.Stderr, "replica:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

// needsChaos skips a test that starts replicas unless it was asked for.
func needsChaos(t *testing.T) {
	t.Helper()
	if *chaosTime == 0 {
		t.Skip("takes the whole machine; run: go test -count=1 ./server/chaostest -chaos=75s")
	}
}

// replicaSettings are what a replica's process is told.
type replicaSettings struct {
	Name, Database, Dir, Secrets string
	GRPC, REST                   string
	// ClockOffset is how far the replica's clock is off.
	ClockOffset time.Duration
}

// webhookDelays is the schedule of attempts in a run, which is over sooner than the
// real one.
var webhookDelays = []time.Duration{
	300 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 5 * time.Second,
	5 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second,
}

// serve runs the server as the process of a replica, until SIGTERM.
func serve(told string) error {
	var r replicaSettings
	if err := json.Unmarshal([]byte(told), &r); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := server.Config{
		RESTAddr: r.REST, GRPCAddr: r.GRPC, DataDir: r.Dir, SecretsFile: r.Secrets, Database: r.Database,
		RootToken:      masked.New(rootToken),
		WebhooksDelays: webhookDelays,
		Logger:         slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	if r.ClockOffset != 0 {
		start := time.Now()
		c.Machine.Now = func() (time.Time, time.Duration) {
			now := time.Now()
			return now.Add(r.ClockOffset), now.Sub(start)
		}
	}
	s, err := server.New(ctx, c)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
