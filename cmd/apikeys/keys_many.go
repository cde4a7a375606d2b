package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// chosenKeys are the keys that a command changes: one by its id, or many.
type chosenKeys struct {
	IDs []string `arg:"" optional:"" name:"id" complete:"keys" help:"The ids of the keys; without any, those that the filters choose."`
}

// many is how a command is told to change many keys.
type many struct {
	DryRun bool `group:"many" help:"Change nothing, and show which keys would be changed."`
	Yes    bool `group:"many" short:"y" help:"Do not ask before many keys are changed."`
}

// A manyAnswer is what the server says of a call for many keys.
type manyAnswer interface {
	GetDone() int32
	GetUnchanged() int32
	GetRefused() int32
	GetNextPageToken() string
}

// A manyPage is a part of a job: the keys of these ids, or those of the filter, from a
// token on.
type manyPage struct {
	ids    []string
	filter *apikeysv1.ApiKeyFilter
	dryRun bool
	token  string
}

// manyColumns are the columns of what became of many keys.
var manyColumns = []output.Column{
	{Head: "ID", Path: "id"}, {Head: "LABEL", Path: "label", Flexible: true}, {Head: "OUTCOME", Path: "outcome"}, {Head: "ERROR", Path: "error.reason"},
}

// mostIDs is how many ids one call takes.
const mostIDs = 1000

// A job changes many keys, page by page.
type job struct {
	*session
	verb    string // in the past tense, such as revoked
	ids     []string
	filter  *apikeysv1.ApiKeyFilter
	columns []output.Column
	// call makes one call. Its results are messages of the kind of ApiKeyResult.
	call func(context.Context, manyPage) (manyAnswer, []proto.Message, error)

	done, unchanged, refused int
}

// isOne reports whether one key is meant, by its id; an error where none are.
func (c *chosenKeys) isOne(filter *keyFilter, m many) (bool, error) {
	switch isEmpty := filter.isEmpty(); {
	case len(c.IDs) == 0 && isEmpty:
		return false, usageError{errors.New("which keys? give ids, or a filter such as --owner ID (see --help)")}
	case len(c.IDs) > 0 && !isEmpty:
		return false, usageError{errors.New("ids and filters cannot be given together; give one of them")}
	}
	return len(c.IDs) == 1 && !m.DryRun, nil
}

// job returns what changes the keys that are chosen.
func (c *chosenKeys) job(s *session, filter *keyFilter, verb string, call func(context.Context, manyPage) (manyAnswer, []proto.Message, error)) *job {
	j := &job{session: s, verb: verb, columns: manyColumns, call: call}
	for _, id := range c.IDs {
		if !slices.Contains(j.ids, id) {
			j.ids = append(j.ids, id)
		}
	}
	if len(j.ids) == 0 {
		j.filter = filter.proto(s.now)
	}
	return j
}

// run shows what would become of the keys, or asks and changes them.
func (j *job) run(ctx context.Context, m many) error {
	if m.DryRun {
		return j.dryRun(ctx)
	}
	total := 0
	if !m.Yes {
		var err error
		if total, err = j.ask(ctx); err != nil || total == 0 {
			return err
		}
	}
	if err := j.Begin(j.columns); err != nil {
		return err
	}
	bar := j.progress(total)
	err := j.pages(ctx, false, func(answer manyAnswer, results []proto.Message) error {
		bar.clear()
		defer func() { bar.show(j.done + j.unchanged + j.refused) }()
		return j.showAll(results)
	})
	bar.clear()
	return j.end(ctx, err)
}

// dryRun shows what would become of the keys.
func (j *job) dryRun(ctx context.Context) error {
	if err := j.Begin(j.columns); err != nil {
		return err
	}
	err := j.pages(ctx, true, func(_ manyAnswer, results []proto.Message) error { return j.showAll(results) })
	if err != nil {
		return err
	}
	j.note("would be %s: %d; as they are: %d; refused: %d. Nothing was changed", j.verb, j.done, j.unchanged, j.refused)
	return j.End()
}

// ask counts the keys, and asks whether to change them. Where there are none it says so.
func (j *job) ask(ctx context.Context) (total int, err error) {
	err = j.pages(ctx, true, func(manyAnswer, []proto.Message) error { return nil })
	if err != nil {
		return 0, err
	}
	count := j.done
	total = j.done + j.unchanged + j.refused
	j.done, j.unchanged, j.refused = 0, 0, 0
	if count == 0 {
		j.note("nothing to do: %d keys are chosen, and none of them would be %s", total, j.verb)
		return 0, nil
	}
	keys := fmt.Sprintf("%d keys", count)
	if count == 1 {
		keys = "1 key"
	}
	if err := j.out.confirm(ctx, keys+" will be "+j.verb+"; go on?", false); err != nil {
		return 0, err
	}
	return total, nil
}

// pages makes the calls, one after the other, and hands take what they say.
func (j *job) pages(ctx context.Context, dryRun bool, take func(manyAnswer, []proto.Message) error) error {
	for page, ok := j.first(); ok; page, ok = j.next(page) {
		page.dryRun = dryRun
		answer, results, err := j.make(ctx, page)
		if err != nil {
			return err
		}
		if err := take(answer, results); err != nil {
			return err
		}
		page.token = answer.GetNextPageToken()
	}
	return nil
}

// make makes the call of a page, again where it got no answer, and counts.
func (j *job) make(ctx context.Context, page manyPage) (manyAnswer, []proto.Message, error) {
	var results []proto.Message
	answer, err := withRetries(ctx, j.session, func(ctx context.Context) (answer manyAnswer, err error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		answer, results, err = j.call(ctx, page)
		return answer, err
	})
	if err != nil {
		return nil, nil, err
	}
	j.done += int(answer.GetDone())
	j.unchanged += int(answer.GetUnchanged())
	j.refused += int(answer.GetRefused())
	return answer, results, nil
}

// first returns the first page; next the one after a page whose token is that of its
// answer.
func (j *job) first() (manyPage, bool) {
	return manyPage{ids: j.ids[:min(len(j.ids), mostIDs)], filter: j.filter}, true
}

func (j *job) next(page manyPage) (manyPage, bool) {
	if page.token != "" {
		return page, true
	}
	n := len(page.ids)
	if n == 0 {
		return page, false
	}
	// The ids of a page are a part of all, and those behind them are left.
	at := slices.Index(j.ids, page.ids[n-1]) + 1
	rest := j.ids[at:]
	page.ids = rest[:min(len(rest), mostIDs)]
	return page, len(rest) > 0
}

func (j *job) showAll(results []proto.Message) error {
	for _, result := range results {
		if err := j.Item(wirejson.Append(nil, result)); err != nil {
			return err
		}
	}
	return j.Flush()
}

// end tells what became of the keys; it is an error where not all are as they should be.
func (j *job) end(ctx context.Context, err error) error {
	counts := fmt.Sprintf("%s: %d; as they were: %d; refused: %d", j.verb, j.done, j.unchanged, j.refused)
	if err != nil {
		_ = j.End() // so that JSON is whole
		j.note("%s. Not all keys were reached: run the same command again to go on", counts)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	if err := j.End(); err != nil {
		return err
	}
	j.note("%s", counts)
	if j.refused > 0 {
		return exitError{fmt.Errorf("%d keys were refused; the column ERROR says why", j.refused), 1}
	}
	return nil
}

// A progressBar is one line of a terminal, which is written anew. Elsewhere it is
// nothing.
type progressBar struct {
	out   streams
	verb  string
	total int
	shown bool
}

func (j *job) progress(total int) *progressBar {
	return &progressBar{out: j.out, verb: j.verb, total: total}
}

func (b *progressBar) show(n int) {
	if b.out.person == nil || b.total > 0 && n >= b.total {
		return
	}
	b.shown = true
	if b.total == 0 {
		fmt.Fprintf(b.out.stderr, "\r\x1b[K%s %d keys", b.verb, n)
		return
	}
	const width = 30
	full := width * n / b.total
	fmt.Fprintf(b.out.stderr, "\r\x1b[K[%-*s] %d of %d keys", width, slices.Repeat([]byte("="), full), n, b.total)
}

func (b *progressBar) clear() {
	if b.shown {
		fmt.Fprint(b.out.stderr, "\r\x1b[K")
		b.shown = false
	}
}

// isEmpty reports whether a filter chooses nothing.
func (f *keyFilter) isEmpty() bool {
	return proto.Size(f.proto(time.Time{}.AddDate(2000, 0, 0))) == 0
}

// messagesOf returns messages of a kind as messages.
func messagesOf[T proto.Message](all []T) []proto.Message {
	messages := make([]proto.Message, len(all))
	for i, m := range all {
		messages[i] = m
	}
	return messages
}
