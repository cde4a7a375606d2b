package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/keyring"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/store"
)

// databaseIDSetting names the database's identity among its settings. A database
// that has none has never been initialized: it is empty.
const databaseIDSetting = "database_id"

// checkSettings begins the names of the settings that keep the check values of
// the secrets file.
const checkSettings = "check/"

// quickCheckTimeout bounds the check of the whole file at the start.
const quickCheckTimeout = 2 * time.Second

// database is the open database with the secrets that its rows depend on.
type database struct {
	lock    *fileLock
	store   *store.Store
	keys    *keyring.Keyring
	peppers *keyring.Peppers
	cursors *feed.Cursors
	// newToken is the operator token that was made with the database; empty
	// where it was there before.
	newToken masked.Text
	// tokenPath is the file that newToken was written to, if it was.
	tokenPath string
}

// openDatabase locks and opens the database, and reads its secrets file. An empty
// database is initialized: it gets its identity, the first operator token and,
// where there is none yet, the secrets file. No other database ever gets a new
// file, since its keys could not be verified under it.
//
// It looks for damage as long as quickCheckTimeout lets it, so that a large file
// does not hold the start up. onFault hears of damage and of other faults of the
// file, now and later.
//
// The clock of a database that servers share is read before anything is made.
func openDatabase(ctx context.Context, c Config, clock *feed.Clock, onFault func(*store.Fault)) (_ *database, err error) {
	config, err := c.storeConfig(onFault)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	for _, dir := range []string{c.DataDir, filepath.Dir(cmp.Or(config.Path, c.SecretsFile))} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("data_dir: %w", err)
		}
	}
	d := &database{}
	defer func() {
		if err != nil {
			if d.store != nil && d.store.Fault() != nil {
				err = fmt.Errorf("database: %w", d.store.Fault()) // Whatever failed, this is why.
			}
			err = errors.Join(err, d.close())
		}
	}()
	if config.Path != "" {
		if d.lock, err = lockDatabase(config.Path); err != nil {
			return nil, err
		}
	}
	if d.store, err = store.Open(ctx, config); err != nil {
		if fault, ok := errors.AsType[*store.Fault](err); ok {
			return nil, fmt.Errorf("database: %w", fault)
		}
		if config.Path == "" {
			return nil, fmt.Errorf("database: %w", err)
		}
		return nil, fmt.Errorf("database %s: %w", config.Path, err)
	}
	if clock != nil {
		if err := clock.Read(ctx, d.store.Time); err != nil {
			return nil, fmt.Errorf("database: %w", err)
		}
	}
	check, cancel := context.WithTimeout(ctx, quickCheckTimeout)
	defer cancel()
	d.store.QuickCheck(check)
	if err := d.store.SetUp(ctx, func(ctx context.Context) error { return d.setUp(ctx, c) }); err != nil {
		return nil, err
	}
	settings, err := d.store.Settings(ctx)
	if err != nil {
		return nil, err
	}
	cursors, err := d.keys.CursorSealer()
	if err != nil {
		return nil, err
	}
	d.cursors = feed.NewCursors(settings[databaseIDSetting], cursors)
	sealer, err := d.keys.Sealer()
	if err != nil {
		return nil, err
	}
	d.store.SealWith(sealer)
	d.store.KeepAnswers(store.AnswerLimits{Retention: c.IdempotencyRetention, Records: c.IdempotencyMax, Bytes: c.IdempotencyBytesMax})
	return d, d.store.VoidLeases(ctx)
}

// close releases what openDatabase has opened so far.
func (d *database) close() error {
	var faults []error
	if d.store != nil {
		faults = append(faults, d.store.Close())
	}
	if d.lock != nil {
		faults = append(faults, d.lock.release())
	}
	return errors.Join(faults...)
}

// setUp opens the secrets file of the database, and initializes a database that is
// empty. Servers that start together on one database do it one after the other, so that
// one of them makes the file and its check values, and the others must have that file.
func (d *database) setUp(ctx context.Context, c Config) error {
	settings, err := d.store.Settings(ctx)
	if err != nil {
		return err
	}
	empty := settings[databaseIDSetting] == ""
	if err := d.openSecrets(ctx, c, settings, empty); err != nil {
		return err
	}
	return d.initialize(ctx, c, empty)
}

// openSecrets reads the secrets file and holds it against the check values of the
// database.
func (d *database) openSecrets(ctx context.Context, c Config, settings map[string]string, empty bool) (err error) {
	d.keys, err = keyring.Load(c.SecretsFile, c.Logger)
	if errors.Is(err, fs.ErrNotExist) {
		if !empty {
			return fmt.Errorf("secrets_file: %s is missing, and without it no key of this database can be verified; restore it from the backup%s", c.SecretsFile, c.orFromAnother())
		}
		d.keys, err = keyring.Create(c.SecretsFile)
	}
	if err != nil {
		return fmt.Errorf("secrets_file: %w", err)
	}
	d.peppers = d.keys.Peppers()

	stored := make(map[string]string)
	for name, value := range settings {
		if id, ok := strings.CutPrefix(name, checkSettings); ok {
			stored[id] = value
		}
	}
	missing, err := d.keys.VerifyAgainst(stored)
	if err != nil {
		return fmt.Errorf("secrets_file: %s: %w", c.SecretsFile, err)
	}
	for _, name := range missing {
		used := true
		if id, ok := strings.CutPrefix(name, keyring.KindPepper+"/"); ok {
			if used, err = d.store.UsesPepper(ctx, id); err != nil {
				return err
			}
		}
		if used {
			return fmt.Errorf("secrets_file: %s lacks %s, which the database was written under; restore it from the backup%s", c.SecretsFile, name, c.orFromAnother())
		}
	}
	return nil
}

// orFromAnother names the other place where the secrets file may be: the servers of a
// database share it.
func (c Config) orFromAnother() string {
	if c.postgres() {
		return ", or copy it from another server of this database"
	}
	return ""
}

// initialize stores the check values that the database lacks and, in an empty
// one, makes its identity and its first operator token.
func (d *database) initialize(ctx context.Context, c Config, empty bool) error {
	settings := make(map[string]string)
	for name, value := range d.keys.CheckValues() {
		settings[checkSettings+name] = value
	}
	if empty {
		settings[databaseIDSetting] = apikey.NewID("")
	}
	root, err := c.rootToken()
	if err != nil {
		return err
	}
	tokens, err := d.store.RootTokens(ctx)
	if err != nil {
		return err
	}
	// Not only an empty database has no token: one whose first server had a
	// configured token has none either once that is taken away.
	if !root.IsZero() || len(tokens) > 0 {
		return d.store.Initialize(ctx, settings, nil)
	}
	token, first, err := newToken(d.peppers, c)
	if err != nil {
		return err
	}
	// The file comes before the commit: a token that is stored and shown nowhere
	// would be of no use.
	if d.tokenPath, err = c.keepToken(token); err != nil {
		return err
	}
	d.newToken = token
	return d.store.Initialize(ctx, settings, &first)
}

// newToken makes an operator token.
func newToken(peppers *keyring.Peppers, c Config) (masked.Text, keyring.OperatorToken, error) {
	text, err := apikey.RandomToken(authn.OperatorTokenPrefix, rand.Reader)
	if err != nil {
		return masked.Text{}, keyring.OperatorToken{}, fmt.Errorf("make an operator token: %w", err)
	}
	return masked.New(text), keyring.OperatorToken{
		ID:        apikey.NewID("operator_"),
		Hash:      peppers.Hash(0, text),
		PepperID:  peppers.Newest(),
		CreatedAt: c.Now(),
	}, nil
}

// ResetToken makes a new operator token, the only one from then on: a running
// server takes it, and no longer the ones before it, within a second. It is an
// error where there is no database yet, or where root_token is configured, beside
// which no stored token is good.
func ResetToken(ctx context.Context, c Config) (_ masked.Text, err error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return masked.Text{}, err
	}
	if !c.RootToken.IsZero() || c.RootTokenFile != "" {
		return masked.Text{}, errors.New("root_token is configured, which is then the only operator token; change it there")
	}
	path, err := sqlitePath(c.Database)
	if err != nil {
		return masked.Text{}, fmt.Errorf("database: %w", err)
	}
	s, err := store.Open(ctx, store.Config{Path: path, Existing: true, Now: c.Now, Logger: c.Logger})
	if errors.Is(err, fs.ErrNotExist) {
		return masked.Text{}, fmt.Errorf("database: there is none at %s yet; apikeys serve makes it, with a token", path)
	}
	if err != nil {
		return masked.Text{}, fmt.Errorf("database %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	settings, err := s.Settings(ctx)
	if err != nil {
		return masked.Text{}, err
	}
	d := &database{store: s}
	if err := d.openSecrets(ctx, c, maps.Clone(settings), false); err != nil {
		return masked.Text{}, err
	}
	token, stored, err := newToken(d.peppers, c)
	if err != nil {
		return masked.Text{}, err
	}
	if err := s.ReplaceRootTokens(ctx, stored); err != nil {
		return masked.Text{}, err
	}
	return token, awaitReset(ctx, path)
}

// awaitReset waits until a server that runs on the database has taken notice of
// its new token, so that whoever is told of the reset can rely on it.
func awaitReset(ctx context.Context, path string) error {
	lock, err := lockDatabase(path)
	if err == nil {
		return lock.release() // No server runs.
	}
	select {
	case <-time.After(authn.TokenTTL):
	case <-ctx.Done():
	}
	return nil
}
