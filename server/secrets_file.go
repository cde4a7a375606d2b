package server

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// secretsHeading tells whoever finds the file what it is worth.
const secretsHeading = `# The secret keys of an apikeys server.
#
# Keep this file as safe as the keys that it protects, and back it up: a backup
# is the database AND this file. Without it no API key verifies and no webhook
# secret can be read again. Nothing can make it anew.
#
# Each list is newest first. The first key is for new values; the others still
# read what was written under them. All servers of one database share this file.
`

// createSecrets makes new secrets and writes them to path, for its owner alone.
// It never replaces a file: where there is one it fails with fs.ErrExist. When
// it returns, the file is on the disk whole.
func createSecrets(path string) (secrets, error) {
	s, err := newSecrets(nil)
	if err != nil {
		return secrets{}, err
	}
	if err := writeFile(path, s.encode(), keepExisting); err != nil {
		return secrets{}, fmt.Errorf("make the secrets file: %w", err)
	}
	return s, nil
}

// loadSecrets reads the secrets at path. It is an error of fs.ErrNotExist where
// there is no file, and no error ever repeats a part of a key. A file that
// others may read is a warning only: mounted secrets often cannot be tighter.
func loadSecrets(path string, logger *slog.Logger) (secrets, error) {
	f, err := os.Open(path)
	if err != nil {
		return secrets{}, fmt.Errorf("open the secrets file: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o077 != 0 {
		logger.Warn("the secrets file is open to other users of this machine; its mode should be 0600",
			"path", path, "mode", info.Mode().Perm().String())
	}
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return secrets{}, fmt.Errorf("read the secrets file: %w", err)
	}
	s, err := decodeSecrets(data)
	if err != nil {
		return secrets{}, fmt.Errorf("the secrets file %s: %w", path, err)
	}
	return s, nil
}

// encode returns the file's text.
func (s *secrets) encode() []byte {
	var b bytes.Buffer
	b.WriteString(secretsHeading)
	for _, list := range s.lists() {
		fmt.Fprintf(&b, "\n%s:\n", list.name)
		for _, k := range *list.keys {
			fmt.Fprintf(&b, "  - id: %s\n    key: %s\n", k.ID, base64.StdEncoding.EncodeToString(k.Key))
		}
	}
	return b.Bytes()
}

// decodeSecrets reads the file's text. It walks the YAML itself: the messages
// of a YAML decoder quote the values that they cannot take.
func decodeSecrets(data []byte) (secrets, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return secrets{}, errors.New("is not YAML" + lineOf(err))
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return secrets{}, errors.New("must hold peppers, encryption_keys and cursor_keys")
	}
	var s secrets
	root := doc.Content[0]
	lists := s.lists()
	for i := 0; i < len(root.Content); i += 2 {
		name, value := root.Content[i], root.Content[i+1]
		at := slices.IndexFunc(lists, func(l keyList) bool { return l.name == name.Value })
		if at < 0 {
			return secrets{}, fmt.Errorf("line %d: unknown field", name.Line)
		}
		if *lists[at].keys != nil {
			return secrets{}, fmt.Errorf("line %d: %s stands here a second time", name.Line, lists[at].name)
		}
		keys, err := decodeKeys(value)
		if err != nil {
			return secrets{}, err
		}
		*lists[at].keys = keys
	}
	for _, list := range lists {
		if len(*list.keys) == 0 {
			return secrets{}, fmt.Errorf("has no %s", list.name)
		}
	}
	return s, nil
}

// decodeKeys reads one list.
func decodeKeys(list *yaml.Node) ([]apikey.NamedKey, error) {
	if list.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: must be a list", list.Line)
	}
	keys := make([]apikey.NamedKey, 0, len(list.Content))
	for _, item := range list.Content {
		k, err := decodeKey(item)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(keys, func(other apikey.NamedKey) bool { return other.ID == k.ID }) {
			return nil, fmt.Errorf("line %d: the id %s stands here a second time", item.Line, k.ID)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

var keyIDForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`)

// decodeKey reads one key.
func decodeKey(item *yaml.Node) (apikey.NamedKey, error) {
	wrong := func(n *yaml.Node, what string) (apikey.NamedKey, error) {
		return apikey.NamedKey{}, fmt.Errorf("line %d: %s", n.Line, what)
	}
	if item.Kind != yaml.MappingNode {
		return wrong(item, "must be an id and a key")
	}
	var k apikey.NamedKey
	for i := 0; i < len(item.Content); i += 2 {
		name, value := item.Content[i], item.Content[i+1]
		switch {
		case name.Value == "id" && k.ID == "":
			if !keyIDForm.MatchString(value.Value) {
				return wrong(value, "an id must have 1 to 40 letters, digits, _ or -")
			}
			k.ID = value.Value
		case name.Value == "key" && k.Key == nil:
			key, err := base64.StdEncoding.Strict().DecodeString(value.Value)
			if err != nil || len(key) != secretKeySize {
				return wrong(value, fmt.Sprintf("a key must be the base64 of %d bytes", secretKeySize))
			}
			k.Key = key
		default:
			return wrong(name, "must be one id and one key")
		}
	}
	if k.ID == "" || k.Key == nil {
		return wrong(item, "must be an id and a key")
	}
	return k, nil
}

var yamlLine = regexp.MustCompile(`line \d+`)

// lineOf returns " (line 3)" where a YAML error tells a line; the rest of its
// text may hold what it stumbled over.
func lineOf(err error) string {
	if line := yamlLine.FindString(err.Error()); line != "" {
		return " (" + line + ")"
	}
	return ""
}

// existing says what writeFile does with a file that is there already.
type existing int

const (
	keepExisting existing = iota // leave it, and fail with fs.ErrExist
	replaceExisting
)

// writeFile makes path with data, readable for its owner alone, and its
// directory where that is missing. It appears whole or not at all, and is on
// the disk when writeFile returns.
func writeFile(path string, data []byte, there existing) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if rerr := os.Remove(f.Name()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if there == replaceExisting {
		err = os.Rename(f.Name(), path)
	} else {
		// A link, unlike a rename, fails where the name is taken.
		err = os.Link(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in dir outlive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
