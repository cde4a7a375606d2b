import assert from 'node:assert/strict'
import http from 'node:http'
import { after, before, test } from 'node:test'

import { serve } from '@hono/node-server'
import express from 'express'
import Fastify from 'fastify'
import { Hono } from 'hono'

import { Client } from '../dist/index.js'
import * as ofExpress from '../dist/express.js'
import * as ofFastify from '../dist/fastify.js'
import * as ofHono from '../dist/hono.js'
import { startServer } from './server.mjs'

let server
let keys
before(async () => {
  server = await startServer()
  keys = new Client({ url: server.url, token: (await server.create({ label: 'verifier', scopes: ['api_keys.verify'] })).secret })
})
after(() => server.close())

// Each starts an API and returns its port and how it is closed.
const frameworks = {
  async Express(client, options) {
    const requires = ofExpress.protect(client, options)
    const app = express()
    app.post('/products', requires('products.read'), (request, response) => {
      response.json({ owner: ofExpress.verified(request).key.owner_id })
    })
    app.get('/open', (request, response) => response.json({ owner: ofExpress.verified(request).key.owner_id }))
    app.use((error, request, response, next) => response.status(500).end())
    return await new Promise((resolve) => {
      const s = app.listen(0, '127.0.0.1', () => resolve({ port: s.address().port, close: () => s.close() }))
    })
  },
  async Fastify(client, options) {
    const requires = ofFastify.protect(client, options)
    const app = Fastify()
    app.post('/products', { onRequest: requires('products.read') }, async (request) => ({ owner: ofFastify.verified(request).key.owner_id }))
    app.get('/open', async (request) => ({ owner: ofFastify.verified(request).key.owner_id }))
    await app.listen({ port: 0, host: '127.0.0.1' })
    return { port: app.server.address().port, close: () => app.close() }
  },
  async Hono(client, options) {
    const requires = ofHono.protect(client, options)
    const app = new Hono()
    app.post('/products', requires('products.read'), (c) => c.json({ owner: ofHono.verified(c).key.owner_id }))
    app.get('/open', (c) => c.json({ owner: ofHono.verified(c).key.owner_id }))
    app.onError((error, c) => c.text('', 500))
    return await new Promise((resolve) => {
      const s = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }, (info) => resolve({ port: info.port, close: () => s.close() }))
    })
  },
}

// fetch would join the lines of a header.
function post(port, headers, { method = 'POST', path = '/products' } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request({ port, host: '127.0.0.1', method, path, agent: false }, (response) => {
      let body = ''
      response.on('data', (chunk) => { body += chunk })
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }))
    })
    request.on('error', reject)
    for (const [name, value] of Object.entries(headers)) request.setHeader(name, value)
    request.end()
  })
}

for (const [name, start] of Object.entries(frameworks)) {
  test(name, async (t) => {
    const make = async (key) => (await server.create({ label: 'x', scopes: ['products.read'], ...key })).secret
    const good = await make({ owner_id: 'anna' })
    const near = await make({ ip_allow_list: ['127.0.0.1', '203.0.113.7'] })
    const far = await make({ ip_allow_list: ['203.0.113.7'] })
    const narrow = await make({ scopes: ['invoices.read'] })
    const busy = await make({ rate_limit: { requests: 1, window_seconds: 3600 } })
    const app = await start(keys, {})
    t.after(() => app.close())
    const expect = async (what, status, headers, check = () => {}) => {
      const answer = await post(app.port, headers)
      assert.equal(answer.status, status, `${what}: ${answer.body}`)
      if (status !== 200) {
        assert.equal(answer.headers['cache-control'], 'no-store', what)
        assert.match(answer.headers['content-type'], /^application\/json/, what)
        assert.equal(JSON.parse(answer.body).status, status, what)
      }
      check(answer)
    }
    const challenge = (want) => ({ headers }) => assert.match(headers['www-authenticate'], want)
    await expect('no key', 401, {}, challenge(/^Bearer realm="api"$/))
    await expect('junk', 401, { authorization: 'Bearer junk' }, challenge(/error="invalid_token"/))
    await expect('a megabyte would be', 401, { 'x-api-key': 'a'.repeat(8000) }, challenge(/error="invalid_token"/))
    await expect('a good key', 200, { authorization: `Bearer ${good}` }, ({ body }) => assert.equal(JSON.parse(body).owner, 'anna'))
    await expect('in X-API-Key', 200, { 'x-api-key': good })
    await expect('two that differ', 401, { authorization: `Bearer ${good}`, 'x-api-key': near }, challenge(/error="invalid_request"/))
    await expect('two lines that differ', 401, { authorization: [`Bearer ${good}`, `Bearer ${near}`] })
    await expect('two lines of another that differ', 401, { 'x-api-key': [good, near] })
    await expect('another scope', 403, { authorization: narrow }, challenge(/error="insufficient_scope".*scope="products.read"/))
    await expect('its address', 200, { authorization: near })
    await expect('another address', 403, { authorization: far })
    await expect('what a client says of its address', 403, { 'authorization': far, 'x-forwarded-for': '203.0.113.7' })
    await expect('the first of one', 200, { authorization: busy }, ({ headers }) => {
      assert.equal(headers['x-ratelimit-remaining'], '0')
      assert.match(headers['ratelimit-policy'], /^"rate";q=1;w=3600$/)
    })
    await expect('the second of one', 429, { authorization: busy }, ({ headers, body }) => {
      assert.match(headers['retry-after'], /^3[56]\d\d$/)
      assert.equal(JSON.parse(body).reason, 'RATE_LIMITED')
      assert.equal(headers['x-ratelimit-limit'], '1')
    })
    assert.equal((await post(app.port, { authorization: good }, { method: 'GET', path: '/open' })).status, 500, 'a route that nobody protected knows no key')

    const behind = await start(keys, { trustedProxies: ['127.0.0.0/8'], cost: () => 2 })
    t.after(() => behind.close())
    assert.equal((await post(behind.port, { 'authorization': far, 'x-forwarded-for': '198.51.100.1, 203.0.113.7' })).status, 200, 'a proxy says it')
    assert.equal((await post(behind.port, { 'authorization': far, 'x-forwarded-for': '203.0.113.7, 198.51.100.1' })).status, 403, 'the client wrote it')
    assert.equal((await post(behind.port, { authorization: await make({ rate_limit: { requests: 3, window_seconds: 3600 } }) })).headers['x-ratelimit-remaining'], '1')

    const errors = []
    const alone = await start(new Client({ url: 'http://127.0.0.1:1', token: 't' }), { onError: (error) => { errors.push(error); throw error } })
    t.after(() => alone.close())
    const refused = await post(alone.port, { authorization: good })
    assert.deepEqual([refused.status, refused.headers['retry-after']], [503, '1'])
    assert.equal(errors.length, 1)
    assert.ok(!errors[0].stack.includes(good))
  })
}
