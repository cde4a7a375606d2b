package contexts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/zalando/go-keyring"
)

// A Credential is what calls are made with: a token that login was given, or one that
// an issuer gave, which is renewed.
type Credential struct {
	// Token is an access token of an operator, an API key, or an issuer's access token.
	Token string `json:"token"`
	// ExpiresAt is when the token ends, zero for one that is not known to.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// RefreshToken gets another token from the issuer.
	RefreshToken string `json:"refresh_token,omitempty"`
	Issuer       string `json:"issuer,omitempty"`
	ClientID     string `json:"client_id,omitempty"`
}

// A Store keeps secrets by names.
type Store interface {
	// Get returns a secret, or ErrNoCredential.
	Get(name string) (string, error)
	Set(name, secret string) error
	// Delete takes a secret away, or returns ErrNoCredential.
	Delete(name string) error
}

// ErrNoCredential is the answer about a name that has no secret.
var ErrNoCredential = errors.New("no credential is stored")

// Where the credential of a context is.
const (
	InKeyring = "keyring"
	InFile    = "file"
)

// Credential returns the credential of a context, or ErrNoCredential.
func (d Dir) Credential(name string, c *Context) (*Credential, error) {
	store := d.store(c.Credential)
	if store == nil {
		return nil, ErrNoCredential
	}
	text, err := store.Get(d.account(c.Credential, name))
	if err != nil {
		return nil, err
	}
	credential := &Credential{}
	if err := json.Unmarshal([]byte(text), credential); err != nil || credential.Token == "" {
		return nil, fmt.Errorf("the stored credential of context %s cannot be read; run apikeys login --context %s", name, name)
	}
	return credential, nil
}

// SetCredential stores the credential of a context that is named for the first time,
// or again, and returns where: in the keyring, else in a file, with the reason why.
// With where it is told which of the two.
func (d Dir) SetCredential(name string, credential *Credential, where string) (stored string, reason error, err error) {
	text, err := json.Marshal(credential) //nolint:gosec // This is where it is stored.
	if err != nil {
		return "", nil, err
	}
	if where != InFile {
		if d.Keyring == nil {
			reason = errors.New("the keyring is not used")
		} else {
			reason = d.Keyring.Set(d.account(InKeyring, name), string(text))
		}
		if reason == nil {
			return InKeyring, nil, nil
		}
		if where == InKeyring {
			return "", nil, fmt.Errorf("store the credential in the keyring of the system: %w", reason)
		}
	}
	if err := d.store(InFile).Set(name, string(text)); err != nil {
		return "", nil, fmt.Errorf("store the credential: %w", err)
	}
	return InFile, reason, nil
}

// Renew returns the credential of a context, and gets another with refresh where it has
// ended or is about to. Programs that want that at the same time wait for each other,
// and one alone asks: issuers end a refresh token that is used twice.
func (d Dir) Renew(name string, c *Context, now time.Time, refresh func(*Credential) (*Credential, error)) (*Credential, error) {
	credential, err := d.Credential(name, c)
	if err != nil || !credential.ends(now) {
		return credential, err
	}
	unlock, err := d.lockAs(".renew-lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if credential, err = d.Credential(name, c); err != nil || !credential.ends(now) {
		return credential, err
	}
	if credential, err = refresh(credential); err != nil {
		return nil, err
	}
	_, _, err = d.SetCredential(name, credential, c.Credential)
	return credential, err
}

// ends reports whether a token that can be renewed is at its end.
func (c *Credential) ends(now time.Time) bool {
	return c.RefreshToken != "" && !c.ExpiresAt.IsZero() && now.Add(time.Minute).After(c.ExpiresAt)
}

// DeleteCredential takes the credential of a context away, if it has one.
func (d Dir) DeleteCredential(name string, c *Context) error {
	store := d.store(c.Credential)
	if store == nil {
		return nil
	}
	if err := store.Delete(d.account(c.Credential, name)); err != nil && !errors.Is(err, ErrNoCredential) {
		return fmt.Errorf("delete the stored credential: %w", err)
	}
	return nil
}

// store returns the store that a context's credential is in, nil for none.
func (d Dir) store(where string) Store {
	switch where {
	case InKeyring:
		return d.Keyring
	case InFile:
		return fileStore{filepath.Join(d.Path, "credentials")}
	}
	return nil
}

// account returns the name of a context's secret. The keyring is one for all
// directories of the person.
func (d Dir) account(where, name string) string {
	if where == InKeyring {
		return d.ConfigFile() + "#" + name
	}
	return name
}

// System is the keyring of the system: the Secret Service, macOS's keychain, the
// Credential Manager of Windows.
type System struct{}

const service = "apikeys"

// Get returns a secret.
func (System) Get(name string) (string, error) {
	secret, err := keyring.Get(service, name)
	return secret, translate(err)
}

// Set stores a secret.
func (System) Set(name, secret string) error { return translate(keyring.Set(service, name, secret)) }

// Delete takes a secret away.
func (System) Delete(name string) error { return translate(keyring.Delete(service, name)) }

func translate(err error) error {
	if errors.Is(err, keyring.ErrNotFound) {
		return ErrNoCredential
	}
	return err
}

// A fileStore keeps secrets in one file of mode 0600.
type fileStore struct{ path string }

func (s fileStore) Get(name string) (string, error) {
	all, err := s.read()
	if err != nil {
		return "", err
	}
	secret, ok := all[name]
	if !ok {
		return "", ErrNoCredential
	}
	return secret, nil
}

func (s fileStore) Set(name, secret string) error {
	return s.change(func(all map[string]string) error {
		all[name] = secret
		return nil
	})
}

func (s fileStore) Delete(name string) error {
	return s.change(func(all map[string]string) error {
		if _, ok := all[name]; !ok {
			return ErrNoCredential
		}
		delete(all, name)
		return nil
	})
}

func (s fileStore) change(f func(map[string]string) error) error {
	unlock, err := Dir{Path: filepath.Dir(s.path)}.lockAs(".credentials-lock")
	if err != nil {
		return err
	}
	defer unlock()
	all, err := s.read()
	if err != nil {
		return err
	}
	if err := f(all); err != nil {
		return err
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(s.path, append(text, '\n'))
}

func (s fileStore) read() (map[string]string, error) {
	all := map[string]string{}
	text, err := readPrivate(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &all); err != nil || all == nil {
		return nil, fmt.Errorf("%s: is no JSON object of texts; delete it and log in again", s.path)
	}
	return all, nil
}
