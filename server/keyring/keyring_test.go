package keyring

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var quiet = slog.New(slog.DiscardHandler)

func TestSecretsSurviveTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "secrets")
	made, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	read, err := Load(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made.CheckValues(), read.CheckValues()); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	for _, list := range read.lists() {
		keys := *list.keys
		if len(keys) != 1 || len(keys[0].bytes()) != keySize || !strings.HasPrefix(keys[0].ID, list.prefix) || len(keys[0].ID) != len(list.prefix)+8 {
			t.Errorf("%s: %v", list.name, keys)
		}
	}
}

func TestSecretsFileIsNeverReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("the file now holds %q, %v", text, err)
	}
}

func TestLooseModeIsWarnedOf(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secrets")
	if _, err := Create(path); err != nil {
		t.Fatal(err)
	}
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o444: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		if _, err := Load(path, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "level=WARN"); got != warned {
			t.Errorf("mode %v: log %q", mode, log.String())
		}
	}
}

// keyText returns the base64 of a key that repeats b.
func keyText(b byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, keySize))
}

// secretsWithout returns the text of a file without an edge key.
func secretsWithout(peppers string) []byte {
	text := secretsText(peppers)
	return text[:bytes.Index(text, []byte("edge_key"))]
}

func secretsText(peppers string) []byte {
	return fmt.Appendf(nil, "peppers: %s\nencryption_keys: [{id: e_1, key: %s}]\ncursor_keys: [{id: c_1, key: %s}]\nedge_key: {id: x_1, key: %s}\n", peppers, keyText(2), keyText(3), keyText(4))
}

func TestSecretsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	text := secretsText(fmt.Sprintf("[{id: p_new, key: %s}, {id: p_old, key: %s}]", keyText(9), keyText(1)))
	s, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.peppers) != 2 || s.peppers[0].ID != "p_new" || s.peppers[1].ID != "p_old" {
		t.Errorf("got %v", s.peppers)
	}
}

// A faulty secrets file is one line, and none of its keys is in it.
func TestFaultySecretsFiles(t *testing.T) {
	t.Parallel()
	key := keyText('K')
	good := "{id: p_1, key: " + key + "}"
	cases := []struct {
		name string
		text []byte
		want string
	}{
		{"empty", nil, "must hold peppers, encryption_keys, cursor_keys and edge_key"},
		{"a list", []byte("- " + key), "must hold peppers, encryption_keys, cursor_keys and edge_key"},
		{"not YAML", []byte("peppers:\n  - id: \"" + key), "is not YAML (line 2)"},
		{"unknown list", append(secretsText("["+good+"]"), key+": []\n"...), "line 5: unknown field"},
		{"a list twice", append(secretsText("["+good+"]"), "peppers: []\n"...), "line 5: peppers stands here a second time"},
		{"no list", []byte("peppers: [" + good + "]"), "has no encryption_keys"},
		{"an empty list", secretsText("[]"), "has no peppers"},
		{"a list of edge keys", append(secretsWithout("["+good+"]"), "edge_key: ["+good+"]\n"...), "line 4: must be an id and a key"},
		{"no edge key", secretsWithout("[" + good + "]"), "has no edge_key"},
		{"no list but a key", secretsText(key), "line 1: must be a list"},
		{"a bare key", secretsText("[" + key + "]"), "line 1: must be an id and a key"},
		{"unknown field", secretsText("[{id: p_1, kee: " + key + "}]"), "line 1: must be one id and one key"},
		{"a key twice", secretsText("[{id: p_1, key: " + key + ", key: " + key + "}]"), "line 1: must be one id and one key"},
		{"no id", secretsText("[{key: " + key + "}]"), "line 1: must be an id and a key"},
		{"no key", secretsText("[{id: p_1}]"), "line 1: must be an id and a key"},
		{"a strange id", secretsText("[{id: p/1, key: " + key + "}]"), "line 1: an id must have 1 to 40 letters, digits, _ or -"},
		{"an id twice", secretsText("[" + good + ", " + good + "]"), "line 1: the id p_1 stands here a second time"},
		{"a short key", secretsText("[{id: p_1, key: " + key[:40] + "}]"), "line 1: a key must be the base64 of 32 bytes"},
		{"no base64", secretsText("[{id: p_1, key: " + key[:43] + "!}]"), "line 1: a key must be the base64 of 32 bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secrets")
			if err := os.WriteFile(path, c.text, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path, quiet)
			if err == nil {
				t.Fatal("no error")
			}
			if want := "the secrets file " + path + ": " + c.want; err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if strings.Contains(err.Error(), key[:8]) || strings.Contains(err.Error(), "\n") {
				t.Errorf("it tells too much: %q", err)
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none"), quiet); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestSecretsAgainstADatabase(t *testing.T) {
	t.Parallel()
	s, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	pepper := KindPepper + "/" + s.peppers[0].ID

	if missing, err := s.VerifyAgainst(nil); err != nil || missing != nil {
		t.Errorf("an empty database: %v, %v", missing, err)
	}
	stored := s.CheckValues()
	if missing, err := s.VerifyAgainst(stored); err != nil || missing != nil {
		t.Errorf("its own database: %v, %v", missing, err)
	}
	stored["pepper/p_gone"], stored["cursor_key/c_gone"] = "a", "b"
	if missing, err := s.VerifyAgainst(stored); err != nil || !slices.Equal(missing, []string{"cursor_key/c_gone", "pepper/p_gone"}) {
		t.Errorf("keys that the file lost: %v, %v", missing, err)
	}
	s.peppers[0].key = other.peppers[0].key
	if _, err := s.VerifyAgainst(stored); err == nil || !strings.HasPrefix(err.Error(), pepper+" is not the key") {
		t.Errorf("another key under the same id: %v", err)
	}
}

// The database keeps check values for good, so how they are made never changes.
func TestCheckValueStaysAsItWas(t *testing.T) {
	t.Parallel()
	s, err := decode(secretsText("[{id: p_1, key: " + keyText(1) + "}]"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"pepper/p_1":         "753e398e7b0f38203c22f40e8fdca5eb931f7d20feb271ad23cadd81cb7ec485",
		"encryption_key/e_1": "eec804af3a43a697b7b4966c08b43ce2ec40f175c4a91f762aa8edd23aabbebe",
		"edge_key/x_1":       "e186b3b70a2ae7b36e4a712c324d02dc79c651e81006a0683aa9ddb2be69f3bc",
		"cursor_key/c_1":     "76917b7781132e7fa03500407dab97a832243e0134180318cf00342c6aeb8540",
	}
	if diff := cmp.Diff(want, s.CheckValues()); diff != "" {
		t.Error(diff)
	}
}
