// Runs the issuer of the npm package oidc-provider on 127.0.0.1, at the port of its first
// argument, or a free one:
//
//	node issuer.mjs PORT KEYS
//
// KEYS names a file of private keys, a JWKS, which is made where it is missing; the first
// of them signs. SIGUSR2 puts a new key in front of the others, SIGHUP takes all but the
// first away. It prints the URL of the issuer when it listens, and again when it does with
// other keys.
import { createServer } from 'node:http'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { generateKeyPairSync } from 'node:crypto'
import Provider from 'oidc-provider'

const [port, file] = process.argv.slice(2)
const resource = 'https://apikeys.example.com'

function newKey(kid, alg) {
  const kinds = { ES256: ['ec', { namedCurve: 'P-256' }], RS256: ['rsa', { modulusLength: 2048 }] }
  const { privateKey } = generateKeyPairSync(...kinds[alg])
  return { ...privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' }
}
let keys = existsSync(file) ? JSON.parse(readFileSync(file)).keys : [newKey('key-1', 'ES256')]

// What the clients are for; their claims are what the server maps.
const claims = {
  gateway: { org_id: '*', groups: ['gateways'] },
  anna: { org_id: ['org_a', 'org_b'], groups: ['managers', 'staff'], name: 'Anna' },
  nobody: { org_id: 'org_a', groups: ['staff'] }
}

function provider(url) {
  const issuer = new Provider(url, {
    jwks: { keys },
    clients: [
      ...Object.keys(claims).map((client_id) => ({
        client_id, client_secret: 'secret-of-' + client_id, redirect_uris: [], response_types: [], grant_types: ['client_credentials']
      })),
      {
        client_id: 'apikeys', token_endpoint_auth_method: 'none', application_type: 'native', redirect_uris: [], response_types: [],
        grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token']
      }
    ],
    clientDefaults: { id_token_signed_response_alg: keys[0].alg },
    features: {
      devInteractions: { enabled: true }, // its page takes any name, and any password
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      resourceIndicators: {
        enabled: true,
        // What people log in for, whose program names no resource.
        defaultResource: (_, client) => client.clientId === 'apikeys' ? resource : undefined,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, indicator, client) => ({
          scope: 'api_keys.read api_keys.verify', audience: indicator, accessTokenFormat: 'jwt',
          // The token of a person ends so soon that each command renews it.
          accessTokenTTL: client.clientId === 'apikeys' ? 50 : 1800,
          jwt: { sign: { alg: keys[0].alg, kid: keys[0].kid } }
        })
      }
    },
    issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
    extraTokenClaims: (_, token) => claims[token.accountId ?? token.clientId]
  })
  return issuer.callback()
}

let serve
const server = createServer((req, res) => serve(req, res))
function begin() {
  writeFileSync(file, JSON.stringify({ keys }))
  const url = `http://127.0.0.1:${server.address().port}`
  serve = provider(url)
  console.log(url, resource, keys.map((key) => key.kid).join(' '))
}
process.on('SIGUSR2', () => { keys = [newKey('key-' + (keys.length + 1), 'RS256'), ...keys]; begin() })
process.on('SIGHUP', () => { keys = keys.slice(0, 1); begin() })
server.listen(Number(port), '127.0.0.1', begin)
