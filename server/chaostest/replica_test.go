package chaostest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest/network"
)

// replica is one of the servers, as a process that can be killed, paused and started
// again. It keeps its addresses.
type replica struct {
	number   int
	settings replicaSettings
	log      string
	proxies  []*network.Proxy // to the primary and, where there is one, to the standby
	jitter   time.Duration    // of these
	conn     *grpc.ClientConn
	keys     apikeysv1.ApiKeysServiceClient
	events   apikeysv1.EventsServiceClient
	hooks    apikeysv1.WebhooksServiceClient
	health   healthpb.HealthClient

	mu     sync.Mutex
	cmd    *exec.Cmd
	gone   chan struct{}
	paused bool
	// starts counts the processes so far.
	starts int
}

// newReplica returns a replica that does not run yet.
func newReplica(dir string, number int, settings replicaSettings) (*replica, error) {
	r := &replica{number: number, settings: settings, log: filepath.Join(dir, settings.Name+".log")}
	for _, address := range []*string{&r.settings.GRPC, &r.settings.REST} {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		*address = fmt.Sprintf("127.0.0.1:%d", port)
	}
	var err error
	r.conn, err = r.dial()
	if err != nil {
		return nil, err
	}
	r.keys = apikeysv1.NewApiKeysServiceClient(r.conn)
	r.events = apikeysv1.NewEventsServiceClient(r.conn)
	r.hooks = apikeysv1.NewWebhooksServiceClient(r.conn)
	r.health = healthpb.NewHealthClient(r.conn)
	return r, nil
}

// dial returns a connection to the replica that is made again soon after it was lost.
func (r *replica) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+r.settings.GRPC,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}))
}

// start starts the process. It does not wait until that serves.
func (r *replica) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	told, err := json.Marshal(&r.settings)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	r.starts++
	fmt.Fprintf(log, "-- start %d at %s\n", r.starts, time.Now().Format(time.StampMicro))
	r.cmd = exec.Command(os.Args[0])
	r.cmd.Env = append(os.Environ(), replicaVariable+"="+string(told))
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		return err
	}
	r.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan struct{}) {
		_ = cmd.Wait() // Most processes are killed.
		close(gone)
	}(r.cmd, r.gone)
	return nil
}

// ended reports whether the process has ended.
func (r *replica) ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return true
	}
	select {
	case <-r.gone:
		return true
	default:
		return false
	}
}

// kill ends the process as a power cut would.
func (r *replica) kill() {
	r.signal(syscall.SIGKILL)
	<-r.gone
}

// stop ends the process in order, or reports that it does not end.
func (r *replica) stop() error {
	r.signal(syscall.SIGTERM)
	select {
	case <-r.gone:
		return nil
	case <-time.After(40 * time.Second):
		r.kill()
		return errors.New("it did not stop within 40 s")
	}
}

// pause stops the process where it stands; resume lets it go on.
func (r *replica) pause()  { r.signal(syscall.SIGSTOP) }
func (r *replica) resume() { r.signal(syscall.SIGCONT) }

func (r *replica) signal(s syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return
	}
	r.paused = s == syscall.SIGSTOP
	_ = r.cmd.Process.Signal(s) // A process that has ended needs none.
}

// serving returns nil once the replica answers from its database.
func (r *replica) serving(ctx context.Context) error {
	if r.ended() {
		return fmt.Errorf("%s has ended by itself; see %s", r.settings.Name, r.log)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := r.keys.ListApiKeys(as(ctx, organizations[0]), &apikeysv1.ListApiKeysRequest{PageSize: 1})
	if err != nil {
		return fmt.Errorf("%s does not serve: %w", r.settings.Name, err)
	}
	return nil
}
