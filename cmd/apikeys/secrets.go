package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/uuid/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/client"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/pending"
)

// secretCaller is what every command has that makes a secret.
type secretCaller struct {
	Output         output.Format `group:"output" short:"o" default:"secret" placeholder:"FORMAT" complete:"formats" help:"secret for the secret alone on a line; or table, json, jsonl, yaml, id, jsonpath=PATH."`
	SecretFile     string        `group:"output" type:"path" placeholder:"FILE" help:"Write the secret to this file, which must not be there yet, mode 0600, and show it nowhere."`
	clientSettings `embed:""`
}

// A secretHolder is a resource as it is shown this once.
type secretHolder interface {
	proto.Message
	GetId() string
	GetSecret() string
}

// attempts is how often a call is made whose answer got lost.
const attempts = 4

// makeSecret makes a call that answers with a new secret, and shows it. The call is
// remembered until the secret is written: where its answer gets lost it is made again
// with the same idempotency key, by this run or the next of the same command, and gives
// the same secret. build makes the request, with spans counted from a time.
func makeSecret[Req proto.Message, Holder secretHolder](
	ctx context.Context, c *secretCaller, sources *sources, out streams,
	build func(now time.Time) Req, call func(context.Context, *session, Req) (Holder, error),
) error {
	return c.callAs(ctx, sources, out, c.Output, "id", func(ctx context.Context, s *session) error {
		file, err := newSecretFile(c.SecretFile)
		if err != nil {
			return err
		}
		defer file.discard()
		var zero Req
		description, err := proto.MarshalOptions{Deterministic: true}.Marshal(build(time.Unix(0, 0)))
		if err != nil {
			return err
		}
		description = bytes.Join([][]byte{[]byte(s.connection.address), []byte(s.connection.organization), []byte(zero.ProtoReflect().Descriptor().FullName()), description}, []byte{0})
		remembered, err := sources.pending().Begin(description, s.now, func() string { return uuid.Must(uuid.NewV4()).String() })
		if err != nil {
			return fmt.Errorf("remember the call before it is made: %w", err)
		}
		if remembered.Resumed {
			s.note("an earlier run of this command, at %s, got no answer; going on with it", remembered.MadeAt.Format(time.DateTime))
		}
		req := build(remembered.MadeAt)
		holder, err := withRetries(metadata.AppendToOutgoingContext(ctx, "idempotency-key", remembered.Key), s, func(ctx context.Context) (Holder, error) {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			return call(ctx, s, req)
		})
		if err != nil {
			if isRefusal(err) {
				_ = remembered.Done() // One that is left does no harm: nothing was made under its key.
			} else {
				remembered.Keep()
			}
			return err
		}
		if err := s.tellSecret(holder, file); err != nil {
			remembered.Keep()
			return exitError{fmt.Errorf("%w; the secret of %s was not written: run the same command again within a day to have it", err, holder.GetId()), 1}
		}
		return remembered.Done()
	})
}

// tellSecret shows a secret, or writes it to the file.
func (s *session) tellSecret(holder secretHolder, file *secretFile) error {
	name := ""
	switch h := holder.(type) {
	case interface{ GetLabel() string }:
		name = h.GetLabel()
	case interface{ GetName() string }:
		name = h.GetName()
	}
	if file != nil {
		if err := file.write(holder.GetSecret()); err != nil {
			return err
		}
		s.note("the secret of %s (%s) is in %s", holder.GetId(), name, file.path)
		// What else is shown does not have it.
		message := holder.ProtoReflect()
		message.Clear(message.Descriptor().Fields().ByName("secret"))
		if s.format.IsSecret() {
			_, err := fmt.Fprintln(s.out.stdout, holder.GetId())
			return err
		}
		return s.show(holder, nil)
	}
	s.note("the secret of %s (%s) is shown this once", holder.GetId(), name)
	return s.show(holder, nil)
}

// withRetries makes a call again that may have got no answer.
func withRetries[T any](ctx context.Context, s *session, call func(context.Context) (T, error)) (answer T, err error) {
	for n := range attempts {
		if answer, err = call(ctx); err == nil || isRefusal(err) || ctx.Err() != nil {
			return answer, err
		}
		// The server that nobody listens for has made nothing: its address may be wrong.
		if n == attempts-1 || n == 0 && strings.Contains(status.Convert(err).Message(), "Error while dialing") {
			return answer, err
		}
		s.note("no answer, trying again: %v", explainStatus(s.connection.address, err))
		wait(ctx, max(shortestDelay<<(2*n), min(client.RetryAfter(err), longestDelay)))
	}
	return answer, err
}

// How long a call waits before it is made again: the first of these, then four times as
// long each time, or as long as the server asks, up to the longest.
const (
	shortestDelay = 200 * time.Millisecond
	longestDelay  = 10 * time.Second
)

// wait returns after d, or when ctx is done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// isRefusal reports whether an error says that the call has changed nothing, and that
// making it again would not either.
func isRefusal(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal, codes.Aborted, codes.ResourceExhausted:
		return reasonOf(err) == "ROTATION_IN_PROGRESS" || reasonOf(err) == "RATE_LIMITED" || reasonOf(err) == "QUOTA_EXCEEDED" || reasonOf(err) == "IDEMPOTENCY_LIMIT"
	default:
		return true
	}
}

// A secretFile is the new file that a secret is to be written to. It is made before the
// secret is, so that a secret is never without a place.
type secretFile struct {
	path    string
	file    *os.File
	written bool
}

// newSecretFile makes a file that must not be there yet; nil for no path.
func newSecretFile(path string) (*secretFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, usageError{fmt.Errorf("--secret-file: %s is there already, and is not overwritten; give another path", path)}
	}
	if err != nil {
		return nil, fmt.Errorf("--secret-file: %w", err)
	}
	return &secretFile{path: path, file: f}, nil
}

func (f *secretFile) write(secret string) error {
	_, err := fmt.Fprintln(f.file, secret)
	if err = errors.Join(err, f.file.Sync(), f.file.Close()); err != nil {
		return fmt.Errorf("--secret-file: %w", err)
	}
	f.written = true
	return nil
}

// discard removes the file where no secret was written.
func (f *secretFile) discard() {
	if f != nil && !f.written {
		_ = f.file.Close()
		_ = os.Remove(f.path)
	}
}

// pending is where calls are remembered.
func (s *sources) pending() pending.Dir {
	if s.stateDir == "" {
		return ""
	}
	return pending.Dir(filepath.Join(s.stateDir, "apikeys", "calls"))
}

// fixed returns a request that no time is part of.
func fixed[Req proto.Message](req Req) func(time.Time) Req {
	return func(time.Time) Req { return req }
}
