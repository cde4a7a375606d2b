package gate

import (
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/authn"
	"github.com/apikeys-dev/apikeys/server/connection"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// forwardAuthPath is where gateways ask over HTTP.
const forwardAuthPath = "/forward_auth"

var (
	methodFields = [...]field{newField("X-Forwarded-Method"), newField("X-Original-Method")}
	uriFields    = [...]field{newField("X-Forwarded-Uri"), newField("X-Original-Uri"), newField("X-Original-Url")}
)

// account is whom the calls of gateways are counted for.
var account = connection.Account{Kind: "gate"}

// ServeHTTP answers one question, or what is asked elsewhere.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != forwardAuthPath {
		g.Otherwise.ServeHTTP(w, r)
		return
	}
	var call connection.Call
	ctx := connection.NewCall(r.Context(), &call)
	defer call.Close()
	x := g.newExchange()
	defer g.release(x)
	asked, a := &x.request, &x.answer
	asked.way, asked.headers = verify.WayGate, httpHeaders(r.Header)
	defer func() {
		if p := recover(); p != nil {
			g.panicked(p, a)
			g.write(w, r, a)
		}
	}()
	g.fromHTTP(r, asked)
	call.Conn().Prove() // Whoever reaches this listener is one of the network's gateways.
	switch need, err := g.queries.parse(r.URL.RawQuery); {
	case call.Admit(account) != nil:
		a.refuse(codeUnavailable, errUnavailable)
	case connection.TooManyHeaders(r.Header):
		a.refuse(codeInvalid, errTooManyHeaders)
	case err != nil:
		a.misunderstood(err)
	case isClients(r.URL.RawQuery, asked.headers):
		a.misunderstood(errClientsQuery)
	default:
		asked.need = need
		g.decide(ctx, asked, a)
	}
	if a.refusal != nil {
		g.tell(ctx, asked, a)
	}
	g.write(w, r, a)
}

// fromHTTP fills in what the request of a gateway tells of the one that it asks about.
func (g *Gate) fromHTTP(r *http.Request, asked *request) {
	client := authn.Client{ForwardedFor: r.Header["X-Forwarded-For"]}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		client.Addr = peer.Addr().Unmap().WithZone("")
	}
	asked.gateway, asked.client = client.Addr, client.Forwarded(g.TrustedProxies)
	if len(g.Rules) == 0 && g.Sources.query == "" {
		return
	}
	for _, f := range methodFields {
		asked.methods = append(asked.methods, asked.headers.values(f)...)
	}
	for _, f := range uriFields {
		asked.uris = append(asked.uris, asked.headers.values(f)...)
	}
}

// errClientsQuery is what a gateway is told that asks with the query of its client, who
// could then say what the request needs.
var errClientsQuery = apikey.Errorf(apikey.KindInvalid, "CLIENTS_QUERY",
	"The query of the endpoint is that of the client's request; have the gateway ask with one of its own, or with none.")

var errTooManyHeaders = apikey.Errorf(apikey.KindInvalid, reasonTooManyHeaders, "The request has more than 2,048 headers.")

// reasonTooManyHeaders has a status of its own.
const reasonTooManyHeaders apikey.Reason = "TOO_MANY_HEADERS"

// isClients reports whether the query of the endpoint is that of the original request.
func isClients(query string, h headers) bool {
	if query == "" {
		return false
	}
	for _, f := range uriFields {
		for _, uri := range h.values(f) {
			if _, of := splitURI(uri); of == query {
				return true
			}
		}
	}
	return false
}

// write writes an answer.
func (g *Gate) write(w http.ResponseWriter, r *http.Request, a *answer) {
	header := w.Header()
	a.setFields(header)
	header["Cache-Control"] = noStore
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		header.Set("Connection", "close") // Else the server would read the body first.
	}
	if a.refusal == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	a.refusalFields(header.Set)
	body := g.envelope(a)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status())
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // The gateway has gone; there is nobody to tell.
	}
}

var noStore = []string{"no-store"}

// panicked makes a an answer that refuses, after a panic.
func (g *Gate) panicked(p any, a *answer) {
	a.refuse(codeInternal, errInternal)
	g.Logger.Error("gate: a request could not be checked", "error", fmt.Sprintf("panic: %v\n%s", p, debug.Stack()), "support_id", a.supportID())
}
