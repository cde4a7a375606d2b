package chaostest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/servertest/network"
)

// organizations are those whose keys the load changes.
var organizations = []string{"org_a", "org_b", "org_c"}

// as returns a context of a call of the operator in an organization, or in all where
// it is empty.
func as(ctx context.Context, organization string) context.Context {
	if organization == "" {
		organization = "*"
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+rootToken, "x-organization-id", organization)
}

// cluster is a run: the replicas, their databases and all that is recorded.
type cluster struct {
	t        *testing.T
	dir      string
	primary  *postgres
	standby  *postgres // nil for none
	promoted bool      // the standby is the primary now
	replicas []*replica
	history  *history
	faults   *faultLog
	random   *rand.Rand // of the one goroutine that breaks things
	seed     uint64
	close    func()
	stop     func() // ends the load, where there is one
}

// clusterConfig says what a cluster is made of.
type clusterConfig struct {
	standby bool
	// clockOffsets are how far the clocks of the replicas are off.
	clockOffsets [3]time.Duration
	// settings are further settings of PostgreSQL.
	settings []string
}

// newCluster starts a database and three replicas, until the test ends.
func newCluster(t *testing.T, c clusterConfig) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaostest") //nolint:usetesting // It is kept where the test fails.
	if err != nil {
		t.Fatal(err)
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	k := &cluster{t: t, dir: dir, seed: seed, random: rand.New(rand.NewPCG(seed, 1))}
	t.Logf("files in %s, seed %d", dir, seed)
	k.close = sync.OnceFunc(k.end)
	t.Cleanup(k.close)
	k.must(k.open(c))
	return k
}

func (k *cluster) open(c clusterConfig) (err error) {
	ctx := k.t.Context()
	if k.history, err = newHistory(filepath.Join(k.dir, "history.jsonl")); err != nil {
		return err
	}
	if k.faults, err = newFaultLog(k.history, filepath.Join(k.dir, "faults.txt")); err != nil {
		return err
	}
	if k.primary, err = newPostgres(k.dir, "primary"); err != nil {
		return err
	}
	if err := k.primary.initialize(); err != nil {
		return err
	}
	if err := k.primary.start(ctx, c.settings...); err != nil {
		return err
	}
	if c.standby {
		if err := k.addStandby(ctx); err != nil {
			return err
		}
	}
	secrets := filepath.Join(k.dir, "secrets")
	for i, name := range []string{"a", "b", "c"} {
		r, err := k.newReplica(i, name, secrets, c.clockOffsets[i])
		if err != nil {
			return err
		}
		k.replicas = append(k.replicas, r)
	}
	// The first makes the secrets file that all share.
	for i, r := range k.replicas {
		if err := r.start(); err != nil {
			return err
		}
		if i == 0 {
			if err := retry(ctx, 20*time.Second, r.serving); err != nil {
				return err
			}
		}
	}
	return k.recovered(ctx, 20*time.Second)
}

// addStandby gives the primary a standby that it waits for with each commit.
func (k *cluster) addStandby(ctx context.Context) (err error) {
	if k.standby, err = newPostgres(k.dir, "standby"); err != nil {
		return err
	}
	if err := k.standby.copyOf(k.primary); err != nil {
		return err
	}
	if err := k.standby.start(ctx); err != nil {
		return err
	}
	if err := k.followed(ctx); err != nil {
		return err
	}
	if err := k.primary.exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = '*'"); err != nil {
		return err
	}
	return k.primary.exec(ctx, "SELECT pg_reload_conf()")
}

// followed waits until the standby follows the primary. One that does not must not take
// over: after a crash the primary shows commits that it had not waited for.
func (k *cluster) followed(ctx context.Context) error {
	return retry(ctx, 20*time.Second, func(ctx context.Context) error {
		var n int
		err := k.primary.scan(ctx, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", &n)
		if err == nil && n == 0 {
			err = errors.New("the standby does not follow")
		}
		return err
	})
}

// newReplica makes a replica that reaches the databases through proxies of its own.
func (k *cluster) newReplica(number int, name, secrets string, clock time.Duration) (*replica, error) {
	var hosts, ports []string
	var proxies []*network.Proxy
	for _, p := range []*postgres{k.primary, k.standby} {
		if p == nil {
			continue
		}
		through := network.NewProxy(k.t, net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)))
		_, port, err := net.SplitHostPort(through.Addr())
		if err != nil {
			return nil, err
		}
		proxies = append(proxies, through)
		hosts, ports = append(hosts, "127.0.0.1"), append(ports, port)
	}
	database := fmt.Sprintf("postgres://postgres@127.0.0.1:%s/postgres?sslmode=disable&connect_timeout=2", ports[0])
	if len(hosts) > 1 {
		// As an operator names a primary and a standby.
		database = fmt.Sprintf("postgres://postgres@/postgres?host=%s&port=%s&sslmode=disable&connect_timeout=2&target_session_attrs=read-write",
			strings.Join(hosts, ","), strings.Join(ports, ","))
	}
	r, err := newReplica(k.dir, number, replicaSettings{
		Name: name, Database: database, Dir: filepath.Join(k.dir, "data-"+name), Secrets: secrets, ClockOffset: clock,
	})
	if err != nil {
		return nil, err
	}
	r.proxies = proxies
	return r, nil
}

// end ends all processes, and removes the files of a run that has passed.
func (k *cluster) end() {
	if k.stop != nil {
		k.stop() // What still goes on makes no further call.
	}
	for _, r := range k.replicas {
		r.signal(syscall.SIGKILL)
		_ = r.conn.Close()
	}
	for _, p := range []*postgres{k.standby, k.primary} {
		if p != nil {
			p.stop(syscall.SIGQUIT)
		}
	}
	if k.history != nil {
		if err := k.history.close(); err != nil {
			k.t.Error(err)
		}
	}
	if k.t.Failed() || *chaosKeep {
		k.t.Logf("the files are kept in %s; the package's documentation says how to read them (seed %d)", k.dir, k.seed)
		return
	}
	_ = os.RemoveAll(k.dir)
}

func (k *cluster) must(err error) {
	if err != nil {
		k.t.Helper()
		k.t.Fatal(err)
	}
}

// recovered waits until every replica serves.
func (k *cluster) recovered(ctx context.Context, most time.Duration) error {
	var all []error
	for _, r := range k.replicas {
		all = append(all, retry(ctx, most, r.serving))
	}
	return errors.Join(all...)
}

// connection is how the network between a replica and its databases is.
type connection string

const (
	connected connection = "connected"
	cut       connection = "cut"       // ends all connections and every new one
	blackhole connection = "blackhole" // takes data and lets none through; nobody is told
)

// network changes the network between a replica and its databases. How slow it is stays.
func (r *replica) network(to connection) {
	for _, p := range r.proxies {
		switch to {
		case cut:
			p.Cut()
		case blackhole:
			p.Hold()
		case connected:
			p.Restore()
			p.Jitter(r.jitter)
		}
	}
}

// slow slows that network down.
func (r *replica) slow(most time.Duration) {
	r.jitter = most
	for _, p := range r.proxies {
		p.Jitter(most)
	}
}

// cursors returns what opens the cursors of the run's database.
func (k *cluster) cursors(ctx context.Context) (*feed.Cursors, error) {
	keys, err := keyring.Load(k.replicas[0].settings.Secrets, slog.Default())
	if err != nil {
		return nil, err
	}
	sealer, err := keys.CursorSealer()
	if err != nil {
		return nil, err
	}
	var id string
	if err := k.database().scan(ctx, "SELECT value FROM settings WHERE id = 'database_id'", &id); err != nil {
		return nil, err
	}
	return feed.NewCursors(id, sealer), nil
}

// database returns the database that is the primary now.
func (k *cluster) database() *postgres {
	if k.promoted {
		return k.standby
	}
	return k.primary
}
