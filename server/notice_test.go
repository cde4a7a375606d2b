package server

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/masked"
)

var noticeToken = masked.New("root_0123456789abcdefghijkl")

// firstStart returns what a first start with c says.
func firstStart(t *testing.T, c Config) string {
	t.Helper()
	var notice bytes.Buffer
	c.Notice = &notice
	l, err := listen(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	path, err := c.keepToken(noticeToken)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.tellFirstStart(noticeToken, path, l); err != nil {
		t.Fatal(err)
	}
	if want := "curl http://" + l.rest.Addr().String() + "/developers/api_keys -X POST "; !strings.Contains(notice.String(), want) {
		t.Errorf("no %q in %s", want, notice.String())
	}
	return notice.String()
}

func TestFirstStartOnATerminalShowsTheToken(t *testing.T) {
	t.Parallel()
	c := freePorts()
	c.DataDir, c.NoticeIsTerminal = t.TempDir(), true
	notice := firstStart(t, c)
	if !strings.Contains(notice, "\n  "+noticeToken.Reveal()+"\n") || !strings.Contains(notice, "  TOKEN="+noticeToken.Reveal()+"\n") {
		t.Error(notice)
	}
	if files, err := os.ReadDir(c.DataDir); err != nil || len(files) != 0 {
		t.Errorf("files %v, %v", files, err)
	}
}

func TestFirstStartElsewhereWritesTheToken(t *testing.T) {
	t.Parallel()
	c := freePorts()
	c.DataDir = filepath.Join(t.TempDir(), "it's data")
	notice := firstStart(t, c)
	if strings.Contains(notice, noticeToken.Reveal()) {
		t.Errorf("the token is told: %s", notice)
	}
	path := filepath.Join(c.DataDir, "root-token")
	if want := "  TOKEN=$(cat " + shellQuote(path) + ")\n"; !strings.Contains(notice, want) {
		t.Errorf("no %s in %s", want, notice)
	}
	checkTokenFile(t, path, noticeToken)
}

func TestShowTokenTellsThePathAlone(t *testing.T) {
	t.Parallel()
	var notice bytes.Buffer
	c := Config{DataDir: t.TempDir(), Notice: &notice}
	path := filepath.Join(c.DataDir, "root-token")
	for _, token := range []masked.Text{noticeToken, masked.New("root_another-one-of-these")} {
		notice.Reset()
		if err := c.ShowToken(token); err != nil {
			t.Fatal(err)
		}
		if notice.String() != path+"\n" {
			t.Errorf("told %q", notice.String())
		}
		checkTokenFile(t, path, token)
	}
	notice.Reset()
	c.NoticeIsTerminal = true
	if err := c.ShowToken(noticeToken); err != nil || !strings.Contains(notice.String(), noticeToken.Reveal()) {
		t.Errorf("on a terminal: %q, %v", notice.String(), err)
	}
}

func checkTokenFile(t *testing.T, path string, want masked.Text) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || string(text) != want.Reveal()+"\n" {
		t.Errorf("the file holds another token, or %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestShellQuote(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"/var/lib/root-token": "/var/lib/root-token",
		"/a b":                "'/a b'",
		"/it's":               `'/it'\''s'`,
		"/$(rm)":              "'/$(rm)'",
	}
	for path, want := range cases {
		if got := shellQuote(path); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}
