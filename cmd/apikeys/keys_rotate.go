package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/gofrs/uuid/v5"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/pending"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// keysRotateCommand gives keys new secrets.
type keysRotateCommand struct {
	chosenKeys   `embed:""`
	rotation     `embed:""`
	keyFilter    `embed:""`
	many         `embed:""`
	secretCaller `embed:""`
}

// rotation is what becomes of the secrets before the new one.
type rotation struct {
	Overlap     period `group:"fields" default:"0s" placeholder:"TIME" help:"How long the old secret works beside the new one, up to 30d."`
	EndPrevious bool   `group:"fields" help:"End the secret before this one now, where its overlap is not over."`
}

// rotationColumns are the columns of what became of many keys that were rotated.
var rotationColumns = []output.Column{
	{Head: "ID", Path: "id"}, {Head: "SECRET", Path: "secret"}, {Head: "OUTCOME", Path: "outcome"}, {Head: "LABEL", Path: "label", Flexible: true}, {Head: "ERROR", Path: "error.reason"},
}

// Run shows the new secret, or those of many.
func (c *keysRotateCommand) Run(ctx context.Context, parsed *kong.Context, sources *sources, out streams) error {
	one, err := c.isOne(&c.keyFilter, c.many)
	if err != nil {
		return err
	}
	overlap := c.Overlap.seconds()
	if one {
		req := &apikeysv1.RotateApiKeyRequest{Id: c.IDs[0], OverlapSeconds: overlap, EndPrevious: c.EndPrevious}
		return makeSecret(ctx, &c.secretCaller, sources, out, fixed(req), func(ctx context.Context, s *session, req *apikeysv1.RotateApiKeyRequest) (*apikeysv1.ApiKey, error) {
			answer, err := s.keys.RotateApiKey(ctx, req)
			return answer.GetApiKey(), err
		})
	}
	if !onCommandLine(parsed, "output") {
		c.Output = output.Format{} // A secret alone does not tell which key it is of.
	}
	return c.callAs(ctx, sources, out, c.Output, "id", func(ctx context.Context, s *session) error {
		j := c.job(s, &c.keyFilter, "rotated", func(ctx context.Context, p manyPage) (manyAnswer, []proto.Message, error) {
			answer, err := s.keys.BatchRotateApiKeys(ctx, &apikeysv1.BatchRotateApiKeysRequest{
				Ids: p.ids, Filter: p.filter, ValidateOnly: p.dryRun, PageToken: p.token, OverlapSeconds: overlap, EndPrevious: c.EndPrevious,
			})
			return answer, messagesOf(answer.GetResults()), err
		})
		j.columns = rotationColumns
		if c.DryRun {
			if c.Output.IsSecret() {
				return output.ErrNoSecret
			}
			return j.dryRun(ctx)
		}
		return c.rotateMany(ctx, j)
	})
}

// A rotationState is how far a rotation of many keys has come.
type rotationState struct {
	Page  int    `json:"page"` // how many pages are safe
	IDs   int    `json:"ids"`  // how many of the ids were sent before this page
	Token string `json:"token"`
	File  string `json:"file"`
	Done  int    `json:"done"`
}

// rotateMany rotates page by page. The idempotency key of each page is on disk before
// the page is sent, and the page counts as safe when its secrets are written: what is
// interrupted goes on with the same key, and gets the secrets that an answer has lost.
func (c *keysRotateCommand) rotateMany(ctx context.Context, j *job) error {
	remembered, err := c.remember(j)
	if err != nil {
		return err
	}
	state := rotationState{File: c.SecretFile}
	if err := remembered.State(&state); err != nil {
		return err
	}
	if remembered.Resumed {
		j.note("going on with an earlier run of this command, of %s, after %d keys", remembered.MadeAt.Format(time.DateTime), state.Done)
		if j.filter != nil {
			j.filter = c.keyFilter.proto(remembered.MadeAt)
		}
	} else if !c.Yes {
		total, err := j.ask(ctx)
		if err != nil || total == 0 {
			_ = remembered.Done()
			return err
		}
	}
	file, err := newSecretsFile(c.SecretFile, remembered.Resumed)
	if err != nil {
		_ = remembered.Done()
		return err
	}
	defer file.close()
	if err := j.beginSecrets(); err != nil {
		return err
	}
	bar := j.progress(0)
	page, _ := j.first()
	page.ids = j.ids[state.IDs:min(len(j.ids), state.IDs+mostIDs)]
	page.token = state.Token
	err = remembered.SetProgress(state)
	for ok := true; ok && err == nil; {
		var answer manyAnswer
		var results []proto.Message
		answer, results, err = j.make(metadata.AppendToOutgoingContext(ctx, "idempotency-key", fmt.Sprintf("%s.%d", remembered.Key, state.Page)), page)
		if err != nil {
			break
		}
		bar.clear()
		if err = j.tellRotated(results, file); err != nil {
			break
		}
		page.token = answer.GetNextPageToken()
		if page.token == "" {
			state.IDs += len(page.ids)
		}
		page, ok = j.next(page)
		state.Page, state.Token, state.Done = state.Page+1, page.token, state.Done+int(answer.GetDone())
		err = remembered.SetProgress(state)
		bar.show(j.done + j.unchanged + j.refused)
	}
	bar.clear()
	if err == nil {
		_ = remembered.Done()
	} else if isRefusal(err) && state.Page == 0 {
		_ = remembered.Done()
		file.discardIfEmpty()
	} else {
		remembered.Keep()
	}
	return j.endSecrets(ctx, err)
}

// remember returns the job as it is remembered, from an earlier run or from now on.
func (c *keysRotateCommand) remember(j *job) (*pending.Call, error) {
	description, err := proto.MarshalOptions{Deterministic: true}.Marshal(&apikeysv1.BatchRotateApiKeysRequest{
		Ids: j.ids, Filter: c.keyFilter.proto(time.Unix(0, 0)), OverlapSeconds: c.Overlap.seconds(), EndPrevious: c.EndPrevious,
	})
	if err != nil {
		return nil, err
	}
	description = bytes.Join([][]byte{[]byte(j.connection.address), []byte(j.connection.organization), []byte(c.SecretFile), description}, []byte{0})
	remembered, err := j.sources.pending().Begin(description, j.now, func() string { return uuid.Must(uuid.NewV4()).String() })
	if err != nil {
		return nil, fmt.Errorf("remember the rotation before it begins: %w", err)
	}
	return remembered, nil
}

func (j *job) beginSecrets() error {
	if j.format.IsSecret() {
		return nil // lines of their own
	}
	return j.Begin(j.columns)
}

func (j *job) endSecrets(ctx context.Context, err error) error {
	if errors.As(err, new(outputError)) {
		// That nobody reads a secret is no good end.
		return exitError{fmt.Errorf("%w; run the same command again within a day to have the secrets of the last keys", err), 1}
	}
	if !j.format.IsSecret() || err != nil {
		return j.end(ctx, err)
	}
	j.note("%s: %d; refused: %d", j.verb, j.done, j.refused)
	if j.refused > 0 {
		return exitError{fmt.Errorf("%d keys were refused; without -o secret it is told why", j.refused), 1}
	}
	return nil
}

// tellRotated shows the secrets of a page, or writes them to the file and shows the rest.
func (j *job) tellRotated(results []proto.Message, file *secretsFile) error {
	for _, m := range results {
		result, ok := m.(*apikeysv1.ApiKeyRotation)
		if !ok || result.GetSecret() == "" {
			continue
		}
		if file != nil {
			if err := file.add(result.GetId(), result.GetSecret()); err != nil {
				return err
			}
			result.Secret = ""
		} else if j.format.IsSecret() {
			if _, err := fmt.Fprintln(j.out.stdout, result.GetSecret()); err != nil {
				return err
			}
		}
	}
	if err := file.sync(); err != nil || j.format.IsSecret() {
		return err
	}
	return j.showAll(results)
}

// A secretsFile takes the secrets of many keys, a line each: the id, a space, the
// secret.
type secretsFile struct {
	file *os.File
	ids  map[string]bool // those that an earlier run has written
}

// newSecretsFile makes the file, or opens the one that an earlier run has begun; nil for
// no path.
func newSecretsFile(path string, resumed bool) (*secretsFile, error) {
	if path == "" {
		return nil, nil
	}
	flags := os.O_CREATE | os.O_EXCL | os.O_WRONLY
	f := &secretsFile{ids: map[string]bool{}}
	if resumed {
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("--secret-file: %w", err)
		}
		for text := range strings.Lines(string(text)) {
			// The last line can be a part of one; its key is written again.
			if id, _, _ := strings.Cut(text, " "); strings.HasSuffix(text, "\n") {
				f.ids[id] = true
			}
		}
		flags = os.O_CREATE | os.O_APPEND | os.O_WRONLY
		if n := len(text); n > 0 && text[n-1] != '\n' {
			defer func() { _, _ = f.file.WriteString("\n") }()
		}
	}
	var err error
	if f.file, err = os.OpenFile(path, flags, 0o600); errors.Is(err, fs.ErrExist) {
		return nil, usageError{fmt.Errorf("--secret-file: %s is there already, and is not overwritten; give another path", path)}
	} else if err != nil {
		return nil, fmt.Errorf("--secret-file: %w", err)
	}
	return f, nil
}

func (f *secretsFile) add(id, secret string) error {
	if f.ids[id] {
		return nil
	}
	if _, err := fmt.Fprintf(f.file, "%s %s\n", id, secret); err != nil {
		return fmt.Errorf("--secret-file: %w", err)
	}
	return nil
}

func (f *secretsFile) sync() error {
	if f == nil {
		return nil
	}
	return f.file.Sync()
}

func (f *secretsFile) close() {
	if f != nil {
		_ = f.file.Close()
	}
}

// discardIfEmpty removes a file that no secret was written to.
func (f *secretsFile) discardIfEmpty() {
	if f == nil {
		return
	}
	if info, err := f.file.Stat(); err == nil && info.Size() == 0 {
		_ = os.Remove(f.file.Name())
	}
}
