package keyring

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

	"github.com/apikeys-dev/apikeys/server/masked"
)

// fileHeading tells whoever finds the file what it is worth.
const fileHeading = `# The secret keys of an apikeys server.
#
# Keep this file as safe as the keys that it protects, and back it up: a backup
# is the database AND this file. Without it no API key verifies and no webhook
# secret can be read again. Nothing can make it anew.
#
# Each list is newest first. The first key is for new values; the others still
# read what was written under them. The edge key is one, and is never replaced.
# All servers of one database share this file.
`

// Create makes new keys and writes them to path, for its owner alone. It never
// replaces a file: where there is one it fails with fs.ErrExist. When it returns,
// the file is on the disk whole.
func Create(path string) (*Keyring, error) {
	r, err := New(nil)
	if err != nil {
		return nil, err
	}
	if err := CreateFile(path, r.encode()); err != nil {
		return nil, fmt.Errorf("make the secrets file: %w", err)
	}
	return r, nil
}

// Load reads the secrets file at path. The error is fs.ErrNotExist where there is
// no file, and no error ever repeats a part of a key. A file that others may read
// is a warning only: mounted secrets often cannot be tighter.
func Load(path string, logger *slog.Logger) (*Keyring, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the secrets file: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o077 != 0 {
		logger.Warn("the secrets file is open to other users of this machine; its mode should be 0600",
			"path", path, "mode", info.Mode().Perm().String())
	}
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read the secrets file: %w", err)
	}
	r, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("the secrets file %s: %w", path, err)
	}
	return r, nil
}

// encode returns the file's text.
func (r *Keyring) encode() []byte {
	var b bytes.Buffer
	b.WriteString(fileHeading)
	for _, list := range r.lists() {
		fmt.Fprintf(&b, "\n%s:\n", list.name)
		item := "- "
		if list.single {
			item = ""
		}
		for _, k := range *list.keys {
			fmt.Fprintf(&b, "  %sid: %s\n  %*skey: %s\n", item, k.ID, len(item), "", base64.StdEncoding.EncodeToString(k.bytes()))
		}
	}
	return b.Bytes()
}

// contents names what a secrets file must hold.
const contents = "peppers, encryption_keys, cursor_keys and edge_key"

// decode reads the file's text. It walks the YAML itself: the messages of a YAML
// decoder quote the values that they cannot take.
func decode(data []byte) (*Keyring, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, errors.New("is not YAML" + lineOf(err))
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("must hold " + contents)
	}
	r := &Keyring{}
	root := doc.Content[0]
	lists := r.lists()
	for i := 0; i < len(root.Content); i += 2 {
		name, value := root.Content[i], root.Content[i+1]
		at := slices.IndexFunc(lists, func(l keyList) bool { return l.name == name.Value })
		if at < 0 {
			return nil, fmt.Errorf("line %d: unknown field", name.Line)
		}
		list := lists[at]
		if *list.keys != nil {
			return nil, fmt.Errorf("line %d: %s stands here a second time", name.Line, list.name)
		}
		if list.single {
			value = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{value}}
		}
		keys, err := decodeKeys(value)
		if err != nil {
			return nil, err
		}
		*list.keys = keys
	}
	for _, list := range lists {
		if len(*list.keys) == 0 {
			return nil, fmt.Errorf("has no %s", list.name)
		}
	}
	return r, nil
}

// decodeKeys reads one list.
func decodeKeys(list *yaml.Node) ([]Key, error) {
	if list.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: must be a list", list.Line)
	}
	keys := make([]Key, 0, len(list.Content))
	for _, item := range list.Content {
		k, err := decodeKey(item)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(keys, func(other Key) bool { return other.ID == k.ID }) {
			return nil, fmt.Errorf("line %d: the id %s stands here a second time", item.Line, k.ID)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

var keyIDForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`)

// decodeKey reads one key.
func decodeKey(item *yaml.Node) (Key, error) {
	wrong := func(n *yaml.Node, what string) (Key, error) {
		return Key{}, fmt.Errorf("line %d: %s", n.Line, what)
	}
	if item.Kind != yaml.MappingNode {
		return wrong(item, "must be an id and a key")
	}
	var k Key
	for i := 0; i < len(item.Content); i += 2 {
		name, value := item.Content[i], item.Content[i+1]
		switch {
		case name.Value == "id" && k.ID == "":
			if !keyIDForm.MatchString(value.Value) {
				return wrong(value, "an id must have 1 to 40 letters, digits, _ or -")
			}
			k.ID = value.Value
		case name.Value == "key" && k.key.IsZero():
			key, err := base64.StdEncoding.Strict().DecodeString(value.Value)
			if err != nil || len(key) != keySize {
				return wrong(value, fmt.Sprintf("a key must be the base64 of %d bytes", keySize))
			}
			k.key = masked.New(string(key))
		default:
			return wrong(name, "must be one id and one key")
		}
	}
	if k.ID == "" || k.key.IsZero() {
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

// CreateFile makes path with data, readable for its owner alone, and its directory
// where that is missing. The file appears whole or not at all, and is on the disk
// when CreateFile returns. Where there is a file already, the error is fs.ErrExist.
func CreateFile(path string, data []byte) error {
	// A link, unlike a rename, fails where the name is taken.
	return writeFile(path, data, os.Link)
}

// ReplaceFile is [CreateFile] for a file that may be there already.
func ReplaceFile(path string, data []byte) error { return writeFile(path, data, os.Rename) }

// writeFile writes data to a file beside path, to which place then brings it.
func writeFile(path string, data []byte, place func(from, to string) error) (err error) {
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
	if err := place(f.Name(), path); err != nil {
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
