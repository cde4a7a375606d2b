import assert from 'node:assert/strict'
import http from 'node:http'
import net from 'node:net'
import { after, before, test } from 'node:test'

import { Client, RefusedError, UnverifiedError } from '../dist/index.js'
import { startServer } from './server.mjs'

let server
let keys
before(async () => {
  server = await startServer()
  keys = new Client({ url: server.url, token: (await server.create({ label: 'verifier', scopes: ['api_keys.verify'] })).secret })
})
after(() => server.close())

const answering = async (handler) => {
  const s = http.createServer(handler)
  await new Promise((resolve) => s.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${s.address().port}`, close: () => { s.closeAllConnections(); s.close() } }
}

test('a good key', async () => {
  const key = await server.create({ label: 'good', owner_id: 'anna', scopes: ['products.read'], quota: { limit: 10, refill: 'none' } })
  const v = await keys.verify({ key: key.secret, scopes: ['products.read'], address: '192.0.2.1', cost: 3 })
  assert.equal(v.key.id, key.id)
  assert.equal(v.key.owner_id, 'anna')
  assert.equal(v.quota.remaining, 7)
  assert.ok(!JSON.stringify(v).includes(key.secret))
})

test('a half of a surrogate pair is no part of a key, and does not stop a user agent', async () => {
  await assert.rejects(keys.verify({ key: 'sk_live_\ud800' }), (error) => error instanceof RefusedError && error.code === 'malformed' && error.status === 401)
  const key = await server.create({ label: 'good' })
  const v = await keys.verify({ key: key.secret, userAgent: 'a\udc00b' + '\u{1F600}'.repeat(600) })
  assert.equal(v.key.id, key.id)
})

test('a revocation is in force at once', async () => {
  for (let i = 0; i < 10; i++) {
    const key = await server.create({ label: 'x' })
    await keys.verify({ key: key.secret, cost: 0 })
    await server.call(`api_keys/${key.id}/revoke`)
    await assert.rejects(keys.verify({ key: key.secret }), (error) => error instanceof RefusedError && error.code === 'revoked' && error.status === 401)
  }
})

test('what costs more than is ever allowed', async () => {
  const key = await server.create({ label: 'x', quota: { limit: 2, refill: 'none' } })
  await assert.rejects(keys.verify({ key: key.secret, cost: 3 }), (error) => error instanceof RefusedError && error.status === 429 && error.retryAfter === undefined)
  await assert.rejects(keys.verify({ key: key.secret, cost: -1 }), UnverifiedError)
})

test('typed calls of the whole API', async () => {
  const root = new Client({ url: server.url, token: server.token })
  const { data } = await root.api.POST('/developers/api_keys', { body: { label: 'typed' } })
  assert.match(data.data.id, /^api_key_/)
  const { error, response } = await root.api.GET('/developers/api_keys/{id}', { params: { path: { id: 'api_key_none' } } })
  assert.equal(response.status, 404)
  assert.equal(error.log.reason, 'API_KEY_NOT_FOUND')
})

test('without an answer nobody is let in, in time, and no secret is told', async () => {
  const silent = net.createServer()
  await new Promise((resolve) => silent.listen(0, '127.0.0.1', resolve))
  const junk = await answering((request, response) => response.end('<html>hello</html>'))
  const lying = await answering((request, response) => response.end('{"status":200,"data":null}'))
  const moved = await answering((request, response) => response.writeHead(307, { location: server.url + request.url }).end())
  const weak = (await server.create({ label: 'may not verify' })).secret
  for (const [name, url, token] of [
    ['nobody', 'http://127.0.0.1:1', 'the-token'],
    ['silent', `http://127.0.0.1:${silent.address().port}`, 'the-token'],
    ['no JSON', junk.url, 'the-token'],
    ['no answer', lying.url, 'the-token'],
    ['redirected', moved.url, 'the-token'],
    ['a bad token', server.url, 'the-token'],
    ['a token without the scope', server.url, weak],
  ]) {
    const began = Date.now()
    await assert.rejects(new Client({ url, token, timeoutMs: 300 }).verify({ key: 'sk_live_presented' }), (error) => {
      assert.ok(error instanceof UnverifiedError, `${name}: ${error.stack}`)
      assert.ok(!`${error.stack}${JSON.stringify(error)}`.includes('sk_live_presented') && !error.message.includes(token), `${name}: ${error.message}`)
      return true
    }, name)
    assert.ok(Date.now() - began < 5000, name)
  }
  silent.close()
  for (const s of [junk, lying, moved]) s.close()
})

test('it tries again, and not for ever', async () => {
  let calls = 0
  const flaky = await answering(async (request, response) => {
    calls++
    if (calls < 3) return response.writeHead(503).end('{}')
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ status: 200, data: { valid: true, code: 'valid', api_key: { id: 'api_key_1', scopes: [] } } }))
  })
  const client = new Client({ url: flaky.url, token: 't' })
  assert.equal((await client.verify({ key: 'k' })).key.id, 'api_key_1')
  assert.equal(calls, 3)
  calls = -10
  await assert.rejects(client.verify({ key: 'k' }), UnverifiedError)
  assert.equal(calls, -7)
  flaky.close()
})

test('settings that are faulty', () => {
  const good = { url: 'https://keys.example.com', token: 't' }
  for (const [change, want] of [
    [{ url: 'keys' }, /^url must be such as/], [{ url: 'ftp://a' }, /^url must be such as/], [{ url: 'https://u:p@a' }, /^url must not hold/],
    [{ url: 'http://10.0.0.1' }, /would send the token unencrypted/], [{ token: '' }, /^token is empty/], [{ token: 'a\nb' }, /^token must be/],
    [{ token: undefined }, /^token is empty/], [{ organization: 'a b' }, /^organization/], [{ timeoutMs: 0 }, /^timeoutMs/], [{ attempts: 11 }, /^attempts/],
  ]) {
    assert.throws(() => new Client({ ...good, ...change }), { message: want })
  }
  for (const change of [{}, { url: 'http://10.0.0.1', allowInsecure: true }, { url: 'http://localhost:8080/' }, { url: 'http://[::1]:1' }]) {
    new Client({ ...good, ...change })
  }
})
