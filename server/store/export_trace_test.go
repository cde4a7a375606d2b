package store

import (
	"context"
	"database/sql"
	"sync"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/apikeys-dev/apikeys/ent"
)

// Trace collects the queries that the store makes from now on.
func (s *Store) Trace() *Trace {
	t := new(Trace)
	client := func(db *sql.DB) *ent.Client {
		return ent.NewClient(ent.Driver(traced{entsql.OpenDB(s.dialect, db), t}))
	}
	s.reader, s.writer = client(s.readerDB), client(s.writerDB)
	s.loads.driver = traced{s.loads.driver, t}
	return t
}

// Trace is a list of queries with their arguments.
type Trace struct {
	mu      sync.Mutex
	queries []Query
}

// Query is one of them.
type Query struct {
	Text string
	Args []any
}

// Take returns the queries made so far and forgets them.
func (t *Trace) Take() []Query {
	t.mu.Lock()
	defer t.mu.Unlock()
	queries := t.queries
	t.queries = nil
	return queries
}

func (t *Trace) add(text string, args any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	values, _ := args.([]any)
	t.queries = append(t.queries, Query{text, values})
}

type traced struct {
	dialect.Driver
	trace *Trace
}

func (d traced) Query(ctx context.Context, query string, args, v any) error {
	d.trace.add(query, args)
	return d.Driver.Query(ctx, query, args, v)
}

func (d traced) Exec(ctx context.Context, query string, args, v any) error {
	d.trace.add(query, args)
	return d.Driver.Exec(ctx, query, args, v)
}

func (d traced) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	d.trace.add(query, args)
	return d.Driver.(querier).QueryContext(ctx, query, args...)
}

func (d traced) Tx(ctx context.Context) (dialect.Tx, error) {
	tx, err := d.Driver.Tx(ctx)
	return tracedTx{tx, d.trace}, err
}

func (d traced) BeginTx(ctx context.Context, options *sql.TxOptions) (dialect.Tx, error) {
	tx, err := d.Driver.(interface {
		BeginTx(context.Context, *sql.TxOptions) (dialect.Tx, error)
	}).BeginTx(ctx, options)
	return tracedTx{tx, d.trace}, err
}

type tracedTx struct {
	dialect.Tx
	trace *Trace
}

func (d tracedTx) Query(ctx context.Context, query string, args, v any) error {
	d.trace.add(query, args)
	return d.Tx.Query(ctx, query, args, v)
}

func (d tracedTx) Exec(ctx context.Context, query string, args, v any) error {
	d.trace.add(query, args)
	return d.Tx.Exec(ctx, query, args, v)
}

func (d tracedTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	d.trace.add(query, args)
	return d.Tx.(querier).ExecContext(ctx, query, args...)
}

func (d tracedTx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	d.trace.add(query, args)
	return d.Tx.(querier).QueryContext(ctx, query, args...)
}
