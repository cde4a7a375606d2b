package chaostest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgres is a PostgreSQL server of a run, with its files in a folder of its own.
type postgres struct {
	dir, log string
	port     int
	bin      string
	as       *syscall.Credential // nil: as whoever runs the test
	cmd      *exec.Cmd
	gone     chan struct{} // closed once the process has ended
}

// findPostgres returns the folder of PostgreSQL's programs.
func findPostgres() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		if path, err := exec.LookPath("initdb"); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		return "", errors.New("PostgreSQL is not installed: apt-get install postgresql")
	}
	slices.SortFunc(found, func(a, b string) int { return len(a) - len(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

// credential returns as whom PostgreSQL runs: it refuses root.
func credential() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// newPostgres makes an empty server in a folder below dir. It does not run yet.
func newPostgres(dir, name string) (*postgres, error) {
	p := &postgres{dir: filepath.Join(dir, name), log: filepath.Join(dir, name+".log")}
	var err error
	if p.bin, err = findPostgres(); err != nil {
		return nil, err
	}
	if p.as, err = credential(); err != nil {
		return nil, err
	}
	if p.port, err = freePort(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	if p.as != nil {
		// PostgreSQL has to come into the folder of the run, whose names are no secret.
		if err := errors.Join(os.Chown(p.dir, int(p.as.Uid), int(p.as.Gid)), os.Chmod(dir, 0o711)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// initialize makes the files of an empty database.
func (p *postgres) initialize() error {
	return p.run("initdb", "-D", p.dir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
}

// copyOf makes p a standby of a primary that runs.
func (p *postgres) copyOf(primary *postgres) error {
	return p.run("pg_basebackup", "-h", "127.0.0.1", "-p", strconv.Itoa(primary.port), "-U", "postgres",
		"-D", p.dir, "-R", "-X", "stream", "-c", "fast", "--no-sync")
}

func (p *postgres) run(program string, args ...string) error {
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.Dir, cmd.SysProcAttr = "/", p.process()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out.String())
	}
	return nil
}

// process returns how processes are started: they end with the test.
func (p *postgres) process() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: p.as, Pdeathsig: syscall.SIGKILL}
}

// start starts the server and returns once it takes connections.
func (p *postgres) start(ctx context.Context, settings ...string) error {
	args := []string{"-D", p.dir, "-p", strconv.Itoa(p.port)}
	for _, s := range append([]string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "full_page_writes=off",
		"max_connections=60", "shared_buffers=64MB", "wal_keep_size=256MB", "hot_standby=on",
	}, settings...) {
		args = append(args, "-c", s)
	}
	if err := p.launch(args); err != nil {
		return err
	}
	return retry(ctx, 30*time.Second, func(ctx context.Context) error {
		select {
		case <-p.gone:
			// What a server that was killed has left may still be in its way.
			if err := p.launch(args); err != nil {
				return err
			}
			return fmt.Errorf("PostgreSQL ended; see %s", p.log)
		default:
			return p.exec(ctx, "SELECT 1")
		}
	})
}

// launch starts the server's process.
func (p *postgres) launch(args []string) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, gone := exec.Command(filepath.Join(p.bin, "postgres"), args...), make(chan struct{})
	cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = "/", p.process(), log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.gone = cmd, gone
	go func() {
		_ = cmd.Wait() // It is stopped by a signal, which is what this says.
		close(gone)
	}()
	return nil
}

// stop ends the server by a signal: SIGINT closes its connections in order, SIGQUIT is
// a crash, and SIGKILL ends all of its processes at one moment, as a power cut does.
func (p *postgres) stop(s syscall.Signal) {
	if p.cmd == nil {
		return
	}
	if s == syscall.SIGKILL {
		// What a process alone has seen must not come out after another's end.
		p.signal(syscall.SIGSTOP)
		p.signal(syscall.SIGKILL)
	} else {
		_ = p.cmd.Process.Signal(s) // One that has ended needs none.
	}
	<-p.gone
	if s == syscall.SIGKILL {
		_ = os.Remove(filepath.Join(p.dir, "postmaster.pid"))
	}
}

// signal sends a signal to all processes of the server, as SIGSTOP, where the
// machine is suspended.
func (p *postgres) signal(s syscall.Signal) {
	// A server that was killed has no children any more, and one that was not stopped
	// yet may start another.
	children := p.children()
	_ = p.cmd.Process.Signal(s)
	for _, pid := range append(children, p.children()...) {
		_ = syscall.Kill(pid, s)
	}
}

// children returns the processes that the server has started.
func (p *postgres) children() (pids []int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.cmd.Process.Pid, p.cmd.Process.Pid))
	for _, field := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// promote makes a standby the primary.
func (p *postgres) promote(ctx context.Context) error {
	return p.exec(ctx, "SELECT pg_promote(true, 30)")
}

// connect opens a connection to the server, around all proxies.
func (p *postgres) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable&connect_timeout=2", p.port))
}

// exec executes a statement.
func (p *postgres) exec(ctx context.Context, statement string, args ...any) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, statement, args...)
	return err
}

// scan reads one row.
func (p *postgres) scan(ctx context.Context, query string, into ...any) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return conn.QueryRow(ctx, query).Scan(into...)
}

// freePort returns a port of loopback that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// retry calls f until it returns nil, and gives up after a time with its last error that
// is not the end of that time.
func retry(ctx context.Context, most time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if last != nil && ctx.Err() != nil {
			err = last
		}
		last = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", most, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
