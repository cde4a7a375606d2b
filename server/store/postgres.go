package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"ariga.io/atlas/sql/postgres"
	"entgo.io/ent/dialect"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresSchema is how migrations are applied to PostgreSQL.
var postgresSchema = schemaDialect{dialect.Postgres, beginMigration, postgres.Open}

// minPostgres is the oldest version that is served, as PostgreSQL counts them.
const minPostgres = 14_00_00

// postgresDatabase is a PostgreSQL database as a URL names it.
type postgresDatabase struct {
	config *pgx.ConnConfig
	// pooled says that connections lead to a pooler that gives each transaction
	// another session, so that no session keeps anything.
	pooled       bool
	passwordFile string
}

// CheckPostgresURL returns what is wrong with the URL of a PostgreSQL database, in
// words that show no password, and whether it leads through PgBouncer.
func CheckPostgresURL(text string) (pooled bool, _ error) {
	d, err := parsePostgres(text, "")
	if err != nil {
		return false, err
	}
	return d.pooled, nil
}

// parsePostgres reads the URL of a database. What the URL leaves out comes from
// the variables of libpq, such as PGPASSFILE.
func parsePostgres(text, passwordFile string) (*postgresDatabase, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errors.New("must be postgres://<user>@<host>:<port>/<database>")
	}
	d := &postgresDatabase{passwordFile: passwordFile}
	query := u.Query()
	switch query.Get("pgbouncer") {
	case "true":
		d.pooled = true
	case "", "false":
	default:
		return nil, errors.New("must have pgbouncer=true or no pgbouncer")
	}
	query.Del("pgbouncer")
	for name := range query {
		if strings.HasPrefix(name, "default_query_exec_mode") || strings.HasSuffix(name, "_cache_capacity") {
			return nil, fmt.Errorf("may not set %s; pgbouncer=true is for a database behind PgBouncer", name)
		}
	}
	u.RawQuery = query.Encode()
	if d.config, err = pgx.ParseConfig(u.String()); err != nil {
		// Its text repeats the URL.
		known, ok := errors.AsType[*pgconn.ParseConfigError](err)
		if ok && known.Unwrap() != nil && !strings.Contains(known.Unwrap().Error(), text) {
			return nil, fmt.Errorf("is no URL of a database: %w", maskedPassword(known.Unwrap(), u))
		}
		return nil, errors.New("is no URL of a database: must be postgres://<user>@<host>:<port>/<database>?sslmode=verify-full&sslrootcert=<file>")
	}
	if d.pooled {
		d.config.DefaultQueryExecMode = pgx.QueryExecModeExec
		d.config.StatementCacheCapacity, d.config.DescriptionCacheCapacity = 0, 0
	}
	if d.config.RuntimeParams["application_name"] == "" {
		d.config.RuntimeParams["application_name"] = "apikeys"
	}
	if !query.Has("connect_timeout") {
		d.config.ConnectTimeout = 5 * time.Second
	}
	return d, nil
}

// maskedPassword returns err unless its text holds the password of u.
func maskedPassword(err error, u *url.URL) error {
	if password, ok := u.User.Password(); ok && password != "" && strings.Contains(err.Error(), password) {
		return errors.New("one of its parts is malformed")
	}
	return err
}

// String names the database without a credential.
func (d *postgresDatabase) String() string {
	at := net.JoinHostPort(d.config.Host, strconv.Itoa(int(d.config.Port)))
	if strings.HasPrefix(d.config.Host, "/") {
		at = d.config.Host
	}
	return fmt.Sprintf("PostgreSQL database %s at %s", cmp.Or(d.config.Database, d.config.User), at)
}

// pool returns a pool of connections that are kept open. It opens none yet.
func (d *postgresDatabase) pool(connections int) *sql.DB {
	config, inTransaction := d.config.Copy(), ""
	if timeouts := d.timeouts(); d.pooled {
		inTransaction = setTimeouts(timeouts) // A pooler gives each transaction another session.
	} else {
		maps.Copy(config.RuntimeParams, timeouts)
	}
	db := sql.OpenDB(postgresConnector{inTransaction: inTransaction, Connector: stdlib.GetConnector(*config, stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
		return d.readPassword(c)
	}))})
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db
}

// readPassword sets the password of a connection from its file, where there is
// one: it is read for each connection, so that it can change.
func (d *postgresDatabase) readPassword(c *pgx.ConnConfig) error {
	if d.passwordFile == "" {
		return nil
	}
	text, err := os.ReadFile(d.passwordFile)
	if err != nil {
		return fmt.Errorf("database_password_file: %w", err)
	}
	c.Password = strings.TrimRight(string(text), "\r\n")
	return nil
}

// connect opens a connection outside the pools.
func (d *postgresDatabase) connect(ctx context.Context) (*pgx.Conn, error) {
	c := d.config.Copy()
	if err := d.readPassword(c); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, c)
}

// openPostgres opens the database of c and brings its schema up to date.
func openPostgres(ctx context.Context, c Config) (_ *backend, err error) {
	d, err := parsePostgres(c.Postgres.Reveal(), c.PostgresPasswordFile)
	if err != nil {
		return nil, fmt.Errorf("the URL of the database %w", err)
	}
	direct := d
	if !c.PostgresDirect.IsZero() {
		if direct, err = parsePostgres(c.PostgresDirect.Reveal(), c.PostgresPasswordFile); err != nil {
			return nil, fmt.Errorf("the direct URL of the database %w", err)
		}
	}
	if c.moving {
		d.prepareMove()
	}
	b := &backend{
		dialect: dialect.Postgres,
		faults:  &faults{of: d.fault, tell: c.OnFault},
		// One connection writes, as on SQLite: transactions that wait for each other
		// in this process never hold locks against each other.
		writerDB:   d.pool(1),
		readerDB:   d.pool(max(4, runtime.NumCPU())),
		loadsDB:    d.pool(LoadsTogether),
		logDB:      direct.pool(1),
		leasesDB:   d.pool(1),
		quickCheck: func(context.Context) error { return nil },
		setUp:      direct.setUp,
		connect:    direct.connect,
	}
	if !direct.pooled && !c.Existing && !c.Unnotified && !c.moving {
		b.notices = newNotices(direct, c.Logger)
	}
	defer func() {
		if err != nil {
			err = errors.Join(d.refuse(err), b.close())
		}
	}()
	if err := d.await(ctx, b.writerDB, c); err != nil {
		return nil, err
	}
	if c.Serving || c.moving {
		if b.presence, err = direct.appear(ctx, c); err != nil {
			return nil, err
		}
	}
	if err := d.migrate(ctx, b.writerDB, c); err != nil {
		return nil, err
	}
	return b, d.checkRights(ctx, b.writerDB)
}

// migrationWait is how long a server that migrates at its start tries to lock a table
// that somebody else holds, where Config.Wait is shorter.
const migrationWait = 30 * time.Second

// migrate brings the schema up to date. A table that is to be changed may be in use by a
// transaction of somebody else, such as a backup. Whoever waits for its lock has all
// others wait behind it, so each try waits for a moment only, and is made again.
func (d *postgresDatabase) migrate(ctx context.Context, db *sql.DB, c Config) error {
	for began, told := time.Now(), false; ; {
		err := bringUpToDate(ctx, db, postgresSchema, c)
		if postgresCode(err) != lockNotAvailable || ctx.Err() != nil {
			return err
		}
		if time.Since(began) >= max(c.Wait, migrationWait) {
			return refusal("cannot be migrated: a transaction of another program has held a table for " + max(c.Wait, migrationWait).String() +
				"; end that transaction (SELECT pid, query FROM pg_stat_activity WHERE xact_start < now() - interval '10 s') and start again")
		}
		if !told {
			c.Logger.Warn("The database cannot be migrated yet: another transaction holds a table; it is tried again.", "wait", max(c.Wait, migrationWait).String())
			told = true
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// checkRights is an error where the role may not read or write one of the tables. It
// tells of one fault at the start rather than of many later.
func (d *postgresDatabase) checkRights(ctx context.Context, db *sql.DB) error {
	_, tables := moveTables()
	var missing string
	err := db.QueryRowContext(ctx, `SELECT coalesce(string_agg(p || ' on ' || c.relname, ', ' ORDER BY c.relname, p), '')
		FROM pg_class AS c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relname IN ('`+strings.Join(tables, "', '")+`')
			AND NOT has_table_privilege(c.oid, p)`).Scan(&missing)
	if err == nil && missing != "" {
		return d.noRights("lacks " + missing)
	}
	return err
}

// noRights says that the role may not do what it has to.
func (d *postgresDatabase) noRights(what string) refusal {
	return refusal(fmt.Sprintf("does not give the role %s the rights it needs; make the role the owner of the database and of its schema (%s)", d.config.User, what))
}

// prepareMove lets statements and transactions take as long as the rows need.
func (d *postgresDatabase) prepareMove() {
	d.config.RuntimeParams["application_name"] = "apikeys migrate"
	d.config.RuntimeParams["statement_timeout"] = "0"
	d.config.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
}

// await returns once the database answers and can be written to. It asks again
// for as long as c.Wait says where that may help.
func (d *postgresDatabase) await(ctx context.Context, db *sql.DB, c Config) error {
	for began, told := time.Now(), false; ; {
		err := checkPostgres(ctx, db)
		if err == nil || ctx.Err() != nil || !temporary(err) || time.Since(began) >= c.Wait {
			return err
		}
		if !told {
			c.Logger.Warn("The database does not answer; the server waits for it.", "error", d.explain(err), "wait", c.Wait.String())
			told = true
		}
		select {
		case <-time.After(min(250*time.Millisecond, c.Wait)):
		case <-ctx.Done():
		}
	}
}

// checkPostgres is an error where the database does not answer or is none that
// can be used. It writes nothing.
func checkPostgres(ctx context.Context, db *sql.DB) error {
	var version int
	var readOnly bool
	var encoding, schema string
	err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int,
		pg_is_in_recovery() OR current_setting('transaction_read_only')::bool,
		current_setting('server_encoding'), coalesce(current_schema(), '')`).Scan(&version, &readOnly, &encoding, &schema)
	switch {
	case err != nil:
		return err
	case version < minPostgres:
		return refusal(fmt.Sprintf("is of version %d; apikeys needs PostgreSQL 14 or newer", version/10_000))
	case readOnly:
		return errReadOnly
	case encoding != "UTF8":
		return refusal(fmt.Sprintf("is in encoding %s; make a database with ENCODING 'UTF8'", encoding))
	case schema == "":
		return refusal("has none of the schemas that the search_path of the role names; make one, such as: CREATE SCHEMA apikeys AUTHORIZATION <role>")
	}
	return nil
}

// migrationLock is the class of the advisory lock that migrations and the first start
// are made under; its second number is the schema's.
const migrationLock int32 = 0x61706b31

// setUp calls do under the lock of migrations, which a session of its own holds: a
// pooler may be in the way of all others.
func (d *postgresDatabase) setUp(ctx context.Context, do func(context.Context) error) error {
	if d.pooled {
		return d.refuse(refusal("is behind PgBouncer; set database_direct to its URL without PgBouncer"))
	}
	conn, err := d.connect(ctx)
	if err != nil {
		return d.refuse(err)
	}
	// The lock ends with the session.
	defer conn.Close(context.WithoutCancel(ctx)) // It is gone either way.
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1, hashtext(current_schema()))", migrationLock); err != nil {
		return d.refuse(err)
	}
	return do(ctx)
}

// beginMigration begins the transaction of the migrations, one at a time however
// many servers start.
func beginMigration(ctx context.Context, db *sql.DB) (*sql.Tx, error) {
	dbtx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	if err := prepareMigration(ctx, dbtx); err != nil {
		return nil, errors.Join(err, dbtx.Rollback())
	}
	return dbtx, nil
}

// prepareMigration takes the lock of migrations and refuses a schema that holds
// another program's tables.
func prepareMigration(ctx context.Context, dbtx *sql.Tx) error {
	// Others may migrate for long, and so may this one.
	if _, err := dbtx.ExecContext(ctx, setTimeouts(noTimeouts)); err != nil {
		return err
	}
	if _, err := dbtx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1, hashtext(current_schema()))", migrationLock); err != nil {
		return err
	}
	var ours bool
	var tables int
	var schema string
	err := dbtx.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE tablename = $1) > 0, count(*), current_schema()
		FROM pg_tables WHERE schemaname = current_schema()`, revisionTable).Scan(&ours, &tables, &schema)
	if err != nil {
		return err
	}
	if !ours && tables > 0 {
		return refusal(fmt.Sprintf("holds tables of another program in schema %s; give apikeys a database, or by search_path a schema, of its own", schema))
	}
	_, err = dbtx.ExecContext(ctx, setTimeouts(map[string]string{"lock_timeout": "1000"}))
	return err
}
