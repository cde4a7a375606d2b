package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// openTerminal returns the two ends of a new terminal.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	var number, unlock int32
	for request, value := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &unlock} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Skipf("no terminals here: %v", errno)
		}
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	return master, terminal
}

// startWithLog starts serve as a process, and returns the lines of its log.
func startWithLog(t *testing.T, cmd *exec.Cmd, env ...string) *bufio.Scanner {
	t.Helper()
	cmd.Env = append(append(os.Environ(), runMain+"=1"), env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // for a test that ends early
	return bufio.NewScanner(stderr)
}

// awaitLine returns the first line of the log that holds text.
func awaitLine(t *testing.T, log *bufio.Scanner, text string) string {
	t.Helper()
	for log.Scan() {
		if strings.Contains(log.Text(), text) {
			return log.Text()
		}
	}
	t.Fatalf("the log ended without %q", text)
	return ""
}

// A server whose terminal is closed stops in order.
func TestHangupOfATerminal(t *testing.T) {
	t.Parallel()
	master, terminal := openTerminal(t)
	cmd := exec.Command(os.Args[0], "serve", "--data-dir", t.TempDir(), "--rest-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0")
	cmd.Stdin, cmd.SysProcAttr = terminal, &syscall.SysProcAttr{Setsid: true, Setctty: true}
	log := startWithLog(t, cmd)
	terminal.Close()
	awaitLine(t, log, "msg=serving")
	master.Close()
	awaitLine(t, log, "msg=stopped")
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// SIGHUP reads the token file and the level of the log anew. A file that is no good
// leaves the token as it was.
func TestHangupReadsAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const first, second = "the-first-root-token-of-all", "the-second-root-token-of-all"
	token, config := write("token", first), write("config.yaml", "log_level: info")
	cmd := exec.Command(os.Args[0], "serve", "--config", config, "--data-dir", filepath.Join(dir, "data"), "--rest-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0")
	log := startWithLog(t, cmd, "APIKEYS_ROOT_TOKEN_FILE="+token)
	if line := awaitLine(t, log, "msg=starting"); !strings.Contains(line, "data_dir="+filepath.Join(dir, "data")) || !strings.Contains(line, "keys=0") || !strings.Contains(line, "tls=off") {
		t.Errorf("the first line: %s", line)
	}
	found := addresses.FindStringSubmatch(awaitLine(t, log, "msg=serving"))
	s := &serving{base: "http://" + found[1]}
	check := func(good, bad string) {
		t.Helper()
		if code := s.get(t, "/developers/api_keys", good); code != http.StatusOK {
			t.Errorf("the token in force: %d", code)
		}
		if code := s.get(t, "/developers/api_keys", bad); code != http.StatusUnauthorized {
			t.Errorf("the other one: %d", code)
		}
	}
	check(first, second)
	hangUp := func(want string) {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		awaitLine(t, log, want)
	}
	hangUp("setting=log_level level=INFO was=INFO") // told although nothing has changed
	awaitLine(t, log, "setting=root_token_file")    // the last that one signal reads
	write("token", second)
	hangUp(`msg="read anew" setting=root_token_file`)
	check(second, first)
	write("token", "short")
	hangUp("stays in use")
	check(second, first)
	write("token", second)
	write("config.yaml", "log_level: debug")
	hangUp("level=DEBUG was=INFO")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, log, "msg=stopped")
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// A server that is asked to stop before it has started ends well. The file of its
// token, which is a pipe here, holds the start up until the signal was sent.
func TestTermDuringTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := syscall.Mkfifo(token, 0o600); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	cmd := exec.Command(os.Args[0], "serve", "--data-dir", filepath.Join(dir, "data"), "--rest-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0")
	log := startWithLog(t, cmd, "APIKEYS_ROOT_TOKEN_FILE="+token)
	pipe, err := os.OpenFile(token, os.O_WRONLY, 0) // waits for the server
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.WriteString("a-root-token-of-enough-length"); err != nil {
		t.Fatal(err)
	}
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for log.Scan() {
		text.WriteString(log.Text() + "\n")
	}
	if err := cmd.Wait(); err != nil || strings.Contains(text.String(), "level=ERROR") || strings.Contains(text.String(), "apikeys:") {
		t.Errorf("it ended with %v:\n%s", err, text.String())
	}
}

// A server whose log and output nobody reads any more serves on, and stops in order.
func TestBrokenPipe(t *testing.T) {
	t.Parallel()
	const token = "a-root-token-of-enough-length"
	cmd := exec.Command(os.Args[0], "serve", "--log-level=debug", "--data-dir", t.TempDir(), "--rest-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), runMain+"=1", "APIKEYS_ROOT_TOKEN="+token)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // for a test that ends early
	found := addresses.FindStringSubmatch(awaitLine(t, bufio.NewScanner(stderr), "msg=serving"))
	for _, pipe := range []io.Closer{stdout, stderr} {
		if err := pipe.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := &serving{base: "http://" + found[1]}
	for range 3 { // A refused call is a line of the log.
		if code := s.get(t, "/developers/api_keys", "wrong"); code != http.StatusUnauthorized {
			t.Errorf("a wrong token: %d", code)
		}
		if code := s.get(t, "/developers/api_keys", token); code != http.StatusOK {
			t.Errorf("the token: %d", code)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
