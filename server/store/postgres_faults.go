package store

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// postgresFaults are the answers of PostgreSQL that are faults of its storage, by
// their SQLSTATE.
var postgresFaults = map[string]FaultKind{
	"XX001": FaultDamaged, // data_corrupted
	"XX002": FaultDamaged, // index_corrupted
	"25006": FaultReadOnly,
	"53100": FaultFull,
	"58030": FaultIO,
}

var postgresFaultTexts = [...]faultText{
	FaultDamaged:    {"is damaged", "stop the server and restore the database from the backup that belongs to its secrets file"},
	FaultReadOnly:   {"cannot be written to: it is read-only, as a standby is", "lead the server to the primary, such as by target_session_attrs=read-write in a URL of several hosts; the server goes on by itself once it can write"},
	FaultFull:       {"has no room to grow: the disk of PostgreSQL is full", "free some space on that disk; the server goes on by itself"},
	FaultIO:         {"cannot be read or written: the disk of PostgreSQL fails", "look for disk errors in the log of PostgreSQL and of its machine; the server goes on by itself if the disk comes back"},
	FaultUnopenable: {"cannot be opened", "look into the log of PostgreSQL"},
}

// fault returns err as a fault of the storage of PostgreSQL, or nil where it is
// none.
func (d *postgresDatabase) fault(err error) *Fault {
	kind, ok := postgresFaults[postgresCode(err)]
	if !ok {
		return nil
	}
	return &Fault{Kind: kind, Database: d.String(), Err: err}
}

const errReadOnly = refusal("is read-only, as a standby is; name the primary, or add target_session_attrs=read-write to the URL where that names several hosts")

// lockNotAvailable is the SQLSTATE of a lock that was not had in time.
const lockNotAvailable = "55P03"

// temporary reports whether a database that answers with err may soon answer
// otherwise.
func temporary(err error) bool {
	if code := postgresCode(err); code != "" {
		// Starting or stopping, too many connections, lost connection.
		return strings.HasPrefix(code, "57P") || strings.HasPrefix(code, "53") || strings.HasPrefix(code, "08")
	}
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	return connecting && !errors.Is(err, os.ErrPermission) && !refusedTLS(err) && !untrusted(err)
}

// refusedTLS reports whether a server does not offer TLS, which pgx tells in text alone.
func refusedTLS(err error) bool {
	return strings.Contains(err.Error(), "server refused TLS connection")
}

// untrusted reports whether a server's certificate was refused.
func untrusted(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// postgresCode returns the SQLSTATE of an answer of PostgreSQL, or "".
func postgresCode(err error) string {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return answer.Code
	}
	return ""
}

// refusal says why a database cannot be used, after its name.
type refusal string

// Error returns the reason.
func (r refusal) Error() string { return string(r) }

// refuse returns an error of the start in one line that names the database and
// says what to do.
func (d *postgresDatabase) refuse(err error) error {
	err = d.explain(err)
	if _, ok := errors.AsType[refusal](err); ok {
		return fmt.Errorf("%s %w", d, err)
	}
	return fmt.Errorf("%s: %w", d, err)
}

// explain returns what PostgreSQL or the network answered as a refusal; another
// error stays as it is.
func (d *postgresDatabase) explain(err error) error {
	if known, ok := errors.AsType[refusal](err); ok {
		return known
	}
	role := d.config.User
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if connecting, failed := errors.AsType[*pgconn.ConnectError](err); !ok && failed {
		switch {
		case refusedTLS(err):
			return refusal("cannot be reached: it does not offer TLS, which sslmode asks for; set ssl = on in postgresql.conf, or sslmode=disable in the URL where nobody can listen on the way")
		case untrusted(err):
			return refusal("cannot be reached: its certificate is not trusted; name the certificate that signed it by sslrootcert, and the host as the certificate has it (" + oneLine(connecting.Unwrap()) + ")")
		}
		return refusal("cannot be reached: " + oneLine(connecting.Unwrap()))
	}
	if !ok {
		return err
	}
	message := oneLine(errors.New(answer.Message))
	switch answer.Code {
	case "28000":
		if strings.Contains(message, "no encryption") {
			return refusal(fmt.Sprintf("does not let the role %s in without TLS; set sslmode=verify-full and sslrootcert in the URL (%s)", role, message))
		}
		fallthrough
	case "28P01":
		return refusal(fmt.Sprintf("does not let the role %s in; check the password and pg_hba.conf (%s)", role, message))
	case "3D000":
		return refusal(fmt.Sprintf("does not exist; make it, such as by: createdb --owner=%s %s", role, cmp.Or(d.config.Database, role)))
	case "42501":
		return d.noRights(message)
	case "25006":
		return errReadOnly
	case "53300":
		return refusal(fmt.Sprintf("has no connection left; raise max_connections of PostgreSQL (%s)", message))
	}
	return refusal(fmt.Sprintf("answers: %s (SQLSTATE %s)", message, answer.Code))
}

// oneLine returns the text of err in one line. A client that tries an address with
// TLS and without says the same of both.
func oneLine(err error) string {
	if err == nil {
		return "no connection"
	}
	var lines []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
