package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/identity"
)

// tellStart writes the first line of the log: what runs where, so that a start in
// the wrong directory, which makes a new and empty server, is seen at once. Then it
// warns of files that others can read or change.
func (s *Server) tellStart(ctx context.Context) error {
	c := s.config
	keys, err := s.db.store.CountKeys(ctx)
	if err != nil {
		return fmt.Errorf("count the keys: %w", err)
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	tls := "on"
	switch {
	case c.TLSCert == "" && c.Plaintext:
		tls = "in front"
	case c.TLSCert == "":
		tls = "off"
	}
	c.Logger.Info("starting", "data_dir", dir, "version", c.Version, "tls", tls, "keys", keys, "env", c.Env)
	if c.Env == Production {
		s.warnPrefixes()
	}
	dirs, files := []string{dir}, []string{c.tokenFile(), c.RootTokenFile, c.GateTokenFile, c.TLSKey, c.DatabasePasswordFile}
	if !c.postgres() {
		path, err := sqlitePath(c.Database)
		if err != nil {
			return err
		}
		// SQLite gives the mode of the database to the files beside it.
		dirs, files = append(dirs, filepath.Dir(path)), append(files, path, path+"-wal", path+"-shm")
	}
	for _, issuer := range c.OIDC {
		dirs = append(dirs, issuer.JWKSFile) // Public, but whoever writes there makes tokens.
	}
	s.warnOpenFiles(0o022, dirs...)
	s.warnOpenFiles(0o077, files...)
	return nil
}

// warnPrefixes says in one line that secret scanners take the keys of this server for
// another vendor's, where they do.
func (s *Server) warnPrefixes() {
	var shared []string
	for _, format := range apikey.DefaultKeyFormats() {
		if slices.Contains(s.config.KeyFormats.Prefixes(), format.Prefix) {
			shared = append(shared, format.Prefix)
		}
	}
	if len(shared) > 0 {
		s.config.Logger.Warn("Secret scanners take the keys of this server for another vendor's, which uses the same prefixes.",
			"prefixes", strings.Join(shared, " "), "remedy", "set key_formats to prefixes of your own, and give scanners the rule that apikeys scan-rule prints")
	}
}

// warnOpenFiles warns of the files of the server whose modes have any of the bits
// open: all but their owner's. It is no error, since mounted files often cannot be
// tighter.
func (s *Server) warnOpenFiles(open fs.FileMode, paths ...string) {
	told := make(map[string]bool)
	for _, path := range paths {
		if path == "" {
			continue
		}
		path, err := filepath.Abs(path)
		if err != nil || told[path] {
			continue
		}
		told[path] = true
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.config.Logger.Warn("The mode of a file cannot be read.", "path", path, "error", err)
			continue
		}
		mode := info.Mode().Perm()
		if mode&open == 0 {
			continue
		}
		s.config.Logger.Warn("A file of the server is open to other users of this machine.",
			"path", path, "mode", fmt.Sprintf("%04o", mode), "remedy", fmt.Sprintf("chmod %04o %s", mode&^open, shellQuote(path)))
	}
}

// Reload reads the certificate, the files of the root token and the gate's token, and
// those of issuers' keys anew, where they are set. Each that cannot be read stays as it
// was, which is an error and a line of the log; the others are taken all the same. Connections that stand keep the certificate
// that they began with, and a call that was let in with the token of before ends as
// it would have.
func (s *Server) Reload() error {
	var faults []error
	note := func(setting string, err error) {
		if err != nil {
			faults = append(faults, err)
			s.config.Logger.Error("A file could not be read anew; what was read before stays in use.", "setting", setting, "error", err)
			return
		}
		s.config.Logger.Info("read anew", "setting", setting)
	}
	if certificate := s.listeners.certificate; certificate != nil {
		err := certificate.reload()
		note("tls_cert", err)
		if err == nil {
			if _, err := certificate.warn(context.Background()); err != nil {
				s.config.Logger.Warn("The dates of the certificate cannot be read.", "error", err)
			}
		}
	}
	if s.config.RootTokenFile != "" {
		root, err := s.config.rootToken()
		if err == nil {
			s.secrets.Add(root.Reveal()) // From now on no log shows it, nor the one before.
			s.operators.SetRoot(root)
		}
		note("root_token_file", err)
	}
	if s.config.GateTokenFile != "" {
		token, err := s.config.gateToken()
		if err == nil {
			s.gate.gate.SetToken(token)
		}
		note("gate_token_file", err)
	}
	if slices.ContainsFunc(s.config.OIDC, func(i identity.Issuer) bool { return i.JWKSFile != "" }) {
		note("oidc", s.people.Reload())
	}
	return errors.Join(faults...)
}
