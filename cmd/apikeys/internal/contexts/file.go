package contexts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"go.yaml.in/yaml/v3"
)

// A Context is a server and how it is called. Its members are settings of the command
// line, by the same names; an empty one is at its default.
type Context struct {
	Address      string `yaml:"address,omitempty"`
	Organization string `yaml:"organization,omitempty"`
	TLS          bool   `yaml:"tls,omitempty"`
	CAFile       string `yaml:"ca_file,omitempty"`
	TokenFile    string `yaml:"token_file,omitempty"`
	// Credential is where the credential is that login has stored: keyring, file, or
	// nothing where there is none.
	Credential string `yaml:"credential,omitempty"`
}

// A File is what config.yaml holds.
type File struct {
	// Current is the context that is used where none is named.
	Current  string              `yaml:"current,omitempty"`
	Contexts map[string]*Context `yaml:"contexts,omitempty"`
}

// MaxContexts is how many contexts a file may hold.
const MaxContexts = 1000

// Names returns the names of the contexts, ascending.
func (f *File) Names() []string {
	names := make([]string, 0, len(f.Contexts))
	for name := range f.Contexts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Dir is a directory of a person's settings of this program.
type Dir struct {
	// Path is the directory's; it need not exist.
	Path string
	// Keyring is the system's, nil where it is not to be used.
	Keyring Store
}

// ConfigFile returns the path of the file of contexts.
func (d Dir) ConfigFile() string { return filepath.Join(d.Path, "config.yaml") }

// Load reads the contexts. There need be no file.
func (d Dir) Load() (*File, error) {
	f := &File{}
	text, err := readPrivate(d.ConfigFile())
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(f); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: must hold current and contexts, each a name and address, organization, tls, ca_file, token_file, credential: %w", d.ConfigFile(), notYAML(err))
	}
	if len(f.Contexts) > MaxContexts {
		return nil, fmt.Errorf("%s: has %d contexts; %d are the most", d.ConfigFile(), len(f.Contexts), MaxContexts)
	}
	for name, c := range f.Contexts {
		if err := CheckName(name); err != nil {
			return nil, fmt.Errorf("%s: %w", d.ConfigFile(), err)
		}
		if c == nil {
			f.Contexts[name] = &Context{}
		}
	}
	return f, nil
}

// Update changes the contexts: it reads them, lets change do its work, and writes
// them, while every other Update waits. An error of change leaves all as it was.
func (d Dir) Update(change func(*File) error) error {
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	f, err := d.Load()
	if err != nil {
		return err
	}
	if f.Contexts == nil {
		f.Contexts = map[string]*Context{}
	}
	if err := change(f); err != nil {
		return err
	}
	text, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("write %s: %w", d.ConfigFile(), err)
	}
	return writePrivate(d.ConfigFile(), text)
}

// lock waits until no other program changes the directory's files.
func (d Dir) lock() (unlock func(), err error) { return d.lockAs(".lock") }

func (d Dir) lockAs(name string) (unlock func(), err error) {
	if d.Path == "" {
		return nil, errors.New("there is no directory for settings: HOME is not set")
	}
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(d.Path, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// CheckName says whether a context can have a name.
func CheckName(name string) error {
	ok := name != "" && len(name) <= 64 && name[0] != '-'
	for _, c := range []byte(name) {
		ok = ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return fmt.Errorf("the name of a context must be 1 to 64 of a-z, A-Z, 0-9, - _ and ., such as production")
	}
	return nil
}

// readPrivate reads a file that nobody else may read or change.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s: has mode %04o: others can read or change it; run chmod 600 on it", path, mode)
	}
	if info.Size() > 1<<20 {
		return nil, fmt.Errorf("%s: is over 1 MiB", path)
	}
	return os.ReadFile(path)
}

// writePrivate replaces a file, mode 0600, whole or not at all.
func writePrivate(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // which has mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// notYAML keeps of an error of the parser the lines, and nothing of what stands there.
func notYAML(err error) error {
	var typed *yaml.TypeError
	if errors.As(err, &typed) && len(typed.Errors) > 0 {
		line, _, _ := bytes.Cut([]byte(typed.Errors[0]), []byte(":"))
		return fmt.Errorf("what stands on %s is none of these", line)
	}
	return errors.New("not YAML")
}
