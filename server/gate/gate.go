package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gofrs/uuid/v5"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/masked"
	"github.com/apikeys-dev/apikeys/server/outage"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// Config says what a Gate works with. All fields are required but those that say
// otherwise.
type Config struct {
	// Verifier checks the keys of requests.
	Verifier *verify.Verifier
	// Authn knows what the access token of the gate may do.
	Authn *authn.Authenticator
	// Sources are where requests carry their keys.
	Sources Sources
	// Rules say what requests need, by method and path. Empty for no table.
	Rules Rules
	// TrustedProxies are the gateways whose word about the client's address is taken.
	// Empty means that no client's address is known.
	TrustedProxies []netip.Prefix
	// Otherwise answers over HTTP what is asked elsewhere than at /forward_auth.
	Otherwise http.Handler
	// Env is what the envelope of a refusal says of the server.
	Env string
	// Logger hears of what an operator should mend, and Refusals of requests that are
	// refused.
	Logger   *slog.Logger
	Refusals *authn.Refusals
	// Secrets finds secrets in what a refusal repeats. Nil knows those that have a form.
	Secrets *apikey.SecretFinder
}

// Gate decides about the requests that gateways ask about. It is an http.Handler, and
// the service that [Gate.Service] describes.
type Gate struct {
	Config
	// token is what the gate verifies with; nil for the rights to verify everywhere.
	token atomic.Pointer[masked.Text]
	// tokenOutage is while the token is not good for that.
	tokenOutage *outage.Outage
	queries     queries
	routes      routes
	exchanges   sync.Pool // of *exchange
	end         []byte    // of every envelope
}

// New returns a Gate.
func New(c Config) *Gate {
	return &Gate{
		Config: c,
		end:    envelopeEnd(c.Env),
		tokenOutage: outage.New(c.Logger,
			"The operator token of the gate does not let it verify keys; every request is refused.", "The operator token of the gate lets it verify keys again."),
	}
}

// SetToken has the gate verify with the rights of an access token of an operator from
// now on.
func (g *Gate) SetToken(token masked.Text) { g.token.Store(&token) }

// request is what a gateway asks about.
type request struct {
	headers headers
	// methods and uris are what the gateway says of the original request. Where several
	// say it, they must agree.
	methods, uris []string
	need          *requirement
	gateway       netip.Addr // who asks
	client        netip.Addr // the client; the zero Addr is unknown
	way           verify.Way
}

// The codes of refusals that are no codes of a verification.
const (
	codeMissing     = "missing_credential"
	codeConflicting = "conflicting_credentials"
	codeNoRule      = "no_rule"
	codeAmbiguous   = "ambiguous_request"
	codeInvalid     = "invalid_question"
	codeNotAllowed  = "gate_not_permitted"
	codeUnavailable = "unavailable"
	codeInternal    = "internal"
)

// answer is what a gateway is told of a request.
type answer struct {
	apikey.Verification
	need *requirement
	// refusal is nil where the request may pass; code is what it is called then.
	refusal *apikey.Error
	code    string
	id      string // the UUID of the ids of a refusal
}

// exchange is what a question is answered with, by one after the other.
type exchange struct {
	question question
	request  request
	answer   answer
	nothing  requirement // of a question that is refused before it is known what it needs
}

// newExchange returns an exchange for a question, until release.
func (g *Gate) newExchange() *exchange {
	x, ok := g.exchanges.Get().(*exchange)
	if !ok {
		x = new(exchange)
	}
	x.answer.need = &x.nothing
	return x
}

// release gives an exchange back whose answer is made.
func (g *Gate) release(x *exchange) {
	x.question.reset()
	x.request, x.answer = request{}, answer{}
	g.exchanges.Put(x)
}

// refuse makes the answer a refusal.
func (a *answer) refuse(code string, err *apikey.Error) *answer {
	a.code, a.refusal = code, err
	a.id = uuid.Must(uuid.NewV7()).String()
	return a
}

// The refusals that are the gate's own.
var (
	errNoRule = apikey.Errorf(apikey.KindPermissionDenied, "NO_RULE",
		"No rule lets a request of this method to this path pass.")
	errAmbiguous = apikey.Errorf(apikey.KindPermissionDenied, "AMBIGUOUS_REQUEST",
		"The method or the path of the request can be read in more than one way; write them plainly.")
	errNotPermitted = apikey.Errorf(apikey.KindUnavailable, "GATE_NOT_PERMITTED",
		"The gate may not check this key now.")
	errUnavailable = apikey.Errorf(apikey.KindUnavailable, apikey.ReasonUnavailable, "The key could not be checked; try again.")
	errInternal    = apikey.Errorf(apikey.KindInternal, apikey.ReasonInternal,
		"Something went wrong on our side; the support id names it.")
)

// gateActor is who asks, for the record of refused uses, where the gate has no access
// token.
var gateActor = apikey.Actor{Kind: apikey.ActorSystem, ID: string(apikey.ActorSystem), Name: "gate"}

var userAgent = newField("User-Agent")

// decide decides about a request, and leaves what came of it in a, which has none yet.
// Whether its key is good comes first, so that without one nobody learns what the table of
// rules holds.
func (g *Gate) decide(ctx context.Context, r *request, a *answer) {
	secret, err := g.Sources.find(r.headers, r.uri)
	unread := err
	need, blocked := r.need, (*refusal)(nil)
	if len(g.Rules) > 0 && !need.withoutRules {
		if need, blocked = g.byRule(r); blocked != nil {
			need = &requirement{organization: r.need.organization, hasCost: true} // It spends nothing.
		}
	}
	a.need = need
	asked := verify.Request{
		Secret: secret, Organization: need.organization, Scopes: need.scopes, Addr: r.client, Cost: need.units(), Way: r.way,
		Caller: &gateActor,
	}
	if agents := r.headers.values(userAgent); len(agents) > 0 {
		asked.UserAgent = agents[0]
	}
	if err := g.confine(ctx, &asked, r); err != nil {
		g.failed(ctx, a, err)
		return
	}
	a.Verification, err = g.Verifier.Verify(ctx, asked)
	if err != nil {
		g.failed(ctx, a, err)
		return
	}
	switch {
	case errors.Is(unread, apikey.ErrNoCredential):
		a.refuse(codeMissing, apikey.ErrNoKey)
	case errors.Is(unread, apikey.ErrTwoCredentials):
		a.refuse(codeConflicting, apikey.ErrTwoCredentials)
	case a.Code != apikey.CodeValid:
		a.refuse(string(a.Code), a.Refusal(need.scopes))
	case blocked != nil:
		a.refuse(blocked.code, blocked.err)
	}
}

// misunderstood makes a the answer to a question that is faulty itself.
func (a *answer) misunderstood(err error) {
	a.refuse(codeInvalid, errInternal)
	if known := apikey.AsError(err); known != nil {
		a.refusal = known
	}
}

// uri returns the original URI, for a key in its query.
func (r *request) uri() string {
	if one, ok := agreed(r.uris); ok {
		return one
	}
	return ""
}

// refusal is why a request is refused whatever its key is.
type refusal struct {
	code string
	err  *apikey.Error
}

// byRule returns what a request needs by the table of rules and by what the gateway
// asks, or why it is refused.
func (g *Gate) byRule(r *request) (*requirement, *refusal) {
	method, ok := agreed(r.methods)
	if !ok || !isMethod(method) || overridden(r.headers, method) {
		return nil, &refusal{codeAmbiguous, errAmbiguous}
	}
	uri, ok := agreed(r.uris)
	if !ok {
		return nil, &refusal{codeAmbiguous, errAmbiguous}
	}
	raw, _ := splitURI(uri)
	path, ok := plainPath(raw)
	if !ok || rerouted(r.headers, raw) {
		return nil, &refusal{codeAmbiguous, errAmbiguous}
	}
	rule := g.Rules.find(method, path)
	if rule == nil {
		return nil, &refusal{codeNoRule, errNoRule}
	}
	need, err := r.need.with(&rule.needs)
	if err != nil {
		return nil, &refusal{codeInvalid, apikey.AsError(err)}
	}
	return need, nil
}

// agreed returns the one value of a header that gateways set, and false where there is
// none, or others that differ.
func agreed(values []string) (string, bool) {
	for _, value := range values {
		if value != values[0] {
			return "", false
		}
	}
	if len(values) == 0 || values[0] == "" {
		return "", false
	}
	return values[0], true
}

// overrides and reroutes are headers by which some servers take another method, or
// another path, than those of the request.
var reroutes = [...]field{newField("X-Rewrite-Url"), newField("X-Original-Url")}

var overrides = [...]field{newField("X-HTTP-Method-Override"), newField("X-HTTP-Method"), newField("X-Method-Override")}

// overridden reports whether a request asks to be taken for one of another method.
func overridden(h headers, method string) bool {
	for _, f := range overrides {
		for _, value := range h.values(f) {
			if !strings.EqualFold(strings.TrimSpace(value), method) {
				return true
			}
		}
	}
	return false
}

// rerouted reports whether a request asks to be taken for one to another path than raw.
func rerouted(h headers, raw string) bool {
	for _, f := range reroutes {
		for _, value := range h.values(f) {
			if path, _ := splitURI(strings.TrimSpace(value)); path != raw {
				return true
			}
		}
	}
	return false
}

// verifying is what the token of the gate must be good for.
var verifying = apikey.Requirement{Scopes: []string{"api_keys.verify"}, AnyOrganization: true}

// errConfined is in the chain of an error of the gate's own token.
var errConfined = errors.New("the gate may not verify")

// confine confines what is asked to the rights of the gate's token, if it has one.
func (g *Gate) confine(ctx context.Context, asked *verify.Request, r *request) error {
	token := g.token.Load()
	if token == nil {
		return nil
	}
	organization := asked.Organization
	if organization == "" {
		organization = apikey.AllOrganizations
	}
	caller, err := g.Authn.OperatorToken(ctx, token.Reveal(), organization, verifying, r.gateway)
	if err != nil {
		return fmt.Errorf("%w: %w", errConfined, err)
	}
	g.tokenOutage.Note(nil)
	asked.Organization, asked.Among, asked.Caller = caller.Organization, caller.Among(), &caller.Actor
	return nil
}

// failed makes a the answer to a request that could not be checked, which is refused.
func (g *Gate) failed(ctx context.Context, a *answer, err error) {
	known := apikey.AsError(err)
	switch {
	case known != nil && known.Kind == apikey.KindInvalid && (a.Code == apikey.CodeRateLimited || a.Code == apikey.CodeQuotaExceeded):
		// A cost that the key's limits can never meet.
		told := *known
		told.Kind, told.Fields, told.Reason = apikey.KindExhausted, nil, apikey.ReasonRateLimited
		if a.Code == apikey.CodeQuotaExceeded {
			told.Reason = apikey.ReasonQuotaExceeded
		}
		a.refuse(string(a.Code), &told)
		return
	case ctx.Err() != nil, known != nil && known.Kind == apikey.KindUnavailable:
		a.refuse(codeUnavailable, errUnavailable)
	case errors.Is(err, errConfined):
		a.refuse(codeNotAllowed, errNotPermitted)
		if known == nil || known.Reason != apikey.ReasonWrongOrganization { // That is of this question alone.
			g.tokenOutage.Note(err, "support_id", a.supportID())
		}
		return
	default:
		a.refuse(codeInternal, errInternal)
	}
	if ctx.Err() == nil {
		g.Logger.ErrorContext(ctx, "gate: a request could not be checked", "error", err, "support_id", a.supportID())
	}
}

// supportID names a refusal, for whoever reads the log.
func (a *answer) supportID() string { return "support_" + a.id }

// status returns the status of the answer over HTTP.
func (a *answer) status() int {
	if a.refusal == nil {
		return http.StatusOK
	}
	status := a.refusal.Kind.HTTPStatus()
	if a.refusal.Reason == reasonTooManyHeaders {
		status = http.StatusRequestHeaderFieldsTooLarge
	}
	if status == http.StatusTooManyRequests && a.need.limitStatus != 0 {
		return a.need.limitStatus
	}
	return status
}

// tell writes the line of a refusal to the log.
func (g *Gate) tell(ctx context.Context, r *request, a *answer) {
	g.Refusals.Log(ctx, r.client, string(a.refusal.Reason), "gate: request refused",
		slog.String("gateway", r.gateway.String()), slog.String("protocol", r.way.String()),
		slog.String("code", a.code), slog.String("reason", string(a.refusal.Reason)), slog.String("support_id", a.supportID()))
}
