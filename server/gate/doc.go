// Package gate lets the gateways of a trusted network ask about the requests that they
// are about to pass on: is the API key of this one good, for that?
//
// A [Gate] answers two protocols by the same rules: forward authentication over HTTP,
// `/forward_auth`, which nginx, Caddy, Traefik, HAProxy, Kong and APISIX speak, and
// Envoy's envoy.service.auth.v3.Authorization over gRPC. A [Splitter] tells the two apart
// on one listener, by the first bytes of a connection. Who may ask is a matter of the
// network: a gateway needs no credential of its own.
//
// What it promises:
//
//   - A request passes only if its key was verified: whatever cannot be checked, storage
//     that fails and a question that is not understood refuse it.
//   - The headers of identity are in every answer, empty where there is nothing to tell,
//     so that a gateway which copies them leaves nothing of what a client has written.
//   - The address of the client is the one that a trusted proxy gives, else unknown; it
//     is never that of the gateway.
//   - A request that upstream could read as another one (a dot segment, an encoded slash,
//     a second method) is refused where a [Rules] table has to check it.
//
// What a key is and whether it is good is for packages apikey and verify; it is asked
// directly, and counted like any verification. The package keeps nothing of a request.
package gate
