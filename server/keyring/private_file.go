package keyring

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

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
