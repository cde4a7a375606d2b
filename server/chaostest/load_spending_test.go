package chaostest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// quotaLimit is the budget of each key that the load spends.
const quotaLimit = 150

// budgetLife is how long a budget is spent before the next.
const budgetLife = 2500 * time.Millisecond

// budgetKind is a kind of limit.
type budgetKind string

// The kinds, of which a run has one after the other.
const (
	// spentOnce is a quota without a refill.
	spentOnce budgetKind = "quota"
	// refilled is a daily quota that was spent yesterday, so that it is refilled once
	// when it is first asked for.
	refilled budgetKind = "refilled quota"
	// exactRate is a rate limit that holds for all replicas together.
	exactRate budgetKind = "exact rate limit"
)

var budgetKinds = []budgetKind{spentOnce, refilled, exactRate}

// rateWindow is in what time an exact rate limit is refilled.
const rateWindow = 10 * time.Second

// budget is a key whose limit all replicas spend.
type budget struct {
	kind        budgetKind
	key, secret string
	limit       int64
	end         time.Duration // of its life in the load
}

// spending has the budgets of a run, the newest of which is spent.
type spending struct {
	mu     sync.Mutex
	all    []*budget
	making bool
}

// spend spends some of the newest budget at a replica, or makes the next one.
func (l *load) spend(r *replica, client int, random *rand.Rand) {
	b, due := l.spending.current(l.history.now())
	if due {
		l.makeBudget(r)
	}
	if b == nil {
		return
	}
	cost := int64(1 + random.IntN(3))
	o := &operation{Kind: "spend", Client: client, Key: b.key, Cost: cost, Label: string(b.kind)}
	l.call(r, o, organizations[0], verifyTimeout, func(ctx context.Context, o *operation) error {
		resp, err := r.keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: b.secret, Cost: proto.Int32(int32(cost))})
		o.Code = wordOf("VERIFICATION_CODE_", resp.GetCode().String())
		return err
	})
	switch o.Code {
	case "quota_exceeded", "rate_limited", "valid":
	default:
		if o.Outcome == answered {
			l.violation("the key %s, which only has a limit, is %s on replica %s", b.key, o.Code, r.settings.Name)
		}
	}
}

// current returns the budget to spend, nil where there is none yet, and whether the
// caller is to make the next one.
func (s *spending) current(now time.Duration) (b *budget, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.all); n > 0 {
		b = s.all[n-1]
	}
	due = !s.making && (b == nil || now >= b.end)
	s.making = s.making || due
	return b, due
}

// makeBudget makes the next budget through a replica. Where that fails, the one before
// is spent on.
func (l *load) makeBudget(r *replica) {
	s := &l.spending
	s.mu.Lock()
	kind := budgetKinds[len(s.all)%len(budgetKinds)]
	s.mu.Unlock()
	b, err := l.newBudget(r, kind)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.making = false
	if err == nil {
		b.end = l.history.now() + budgetLife
		s.all = append(s.all, b)
	}
}

func (l *load) newBudget(r *replica, kind budgetKind) (*budget, error) {
	ctx, cancel := context.WithTimeout(as(l.ctx, organizations[0]), changeTimeout)
	defer cancel()
	request := &apikeysv1.CreateApiKeyRequest{Label: "budget"}
	switch kind {
	case spentOnce:
		request.Quota = &apikeysv1.Quota{Limit: quotaLimit}
	case refilled:
		request.Quota = &apikeysv1.Quota{Limit: quotaLimit, Remaining: proto.Int64(0), Refill: apikeysv1.QuotaRefill_QUOTA_REFILL_DAILY}
	case exactRate:
		request.RateLimit = &apikeysv1.RateLimit{
			Requests: quotaLimit, WindowSeconds: int32(rateWindow / time.Second), Mode: apikeysv1.RateLimitMode_RATE_LIMIT_MODE_EXACT,
		}
	}
	resp, err := r.keys.CreateApiKey(ctx, request)
	if err != nil {
		return nil, err
	}
	b := &budget{kind: kind, key: resp.GetApiKey().GetId(), secret: resp.GetApiKey().GetSecret(), limit: quotaLimit}
	if kind == refilled {
		// The day passes in the database, since no clock can be set for a test.
		const yesterday = "UPDATE api_key_quotas SET refilled_at = refilled_at - 86400000000 WHERE id = $1"
		if err := l.database().exec(ctx, yesterday, b.key); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// checkBudgets holds what was granted against the budgets. What was granted without an
// answer is not known, and so not counted.
func checkBudgets(history []*operation, budgets []*budget, days int64, page pages) (faults []string) {
	spent := make(map[string][]*operation)
	for _, o := range history {
		if o.Kind == "spend" {
			spent[o.Key] = append(spent[o.Key], o)
		}
	}
	for _, b := range budgets {
		part := keyPartition{name: fmt.Sprintf("%s of key %s", b.kind, b.key)}
		limit := b.limit
		if b.kind == refilled {
			limit *= days // Midnight may pass in a run.
		}
		if b.kind == exactRate {
			var grants []*operation
			for _, o := range spent[b.key] {
				if o.Outcome == answered && o.Code == "valid" {
					grants = append(grants, o)
				}
			}
			if fault := checkRate(part.name, grants, b.limit, rateWindow); fault != "" {
				faults = append(faults, fault)
			}
			continue
		}
		var granted int64
		for _, o := range spent[b.key] {
			if o.Outcome == answered && o.Code == "valid" {
				granted += o.Cost
				part.operations = append(part.operations, interval(o, o.Call, o.Return))
			}
		}
		if granted > limit {
			faults = append(faults, fmt.Sprintf("%s: %d units were granted of %d", part.name, granted, limit))
		}
		if fault := page.check(budgetModel(limit), part); fault != "" {
			faults = append(faults, fault)
		}
	}
	return faults
}
