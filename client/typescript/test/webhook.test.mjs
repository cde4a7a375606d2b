import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import http from 'node:http'
import { after, before, test } from 'node:test'

import { verifyWebhook, WebhookError } from '../dist/index.js'
import { startServer } from './server.mjs'

// The vector that the authors of Standard Webhooks published.
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const body = '{"test": 2432232314}'
const now = new Date(1614265330_000)
const headers = {
  'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
  'webhook-timestamp': '1614265330',
  'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
}

test('a delivery that is genuine', async () => {
  assert.deepEqual(await verifyWebhook(secret, headers, body, now), { test: 2432232314 })
  assert.deepEqual(await verifyWebhook(secret, new Headers(headers), new TextEncoder().encode(body), now), { test: 2432232314 })
  const rotated = { ...headers, 'Webhook-Signature': `v1,AAAA v1a,x ${headers['webhook-signature']}` }
  delete rotated['webhook-signature']
  assert.ok(await verifyWebhook(secret, rotated, body, now))
})

test('what is not', async () => {
  const other = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
  for (const [name, args, want] of [
    ['the body', [secret, headers, '{"test": 2432232315}', now], /no signature fits/],
    ['the secret', [other, headers, body, now], /no signature fits/],
    ['the id', [secret, { ...headers, 'webhook-id': 'msg_x' }, body, now], /no signature fits/],
    ['no signature', [secret, { ...headers, 'webhook-signature': undefined }, body, now], /lacks/],
    ['another version', [secret, { ...headers, 'webhook-signature': headers['webhook-signature'].replace('v1', 'v2') }, body, now], /no signature fits/],
    ['too late', [secret, headers, body, new Date(now.getTime() + 301_000)], /five minutes/],
    ['too early', [secret, headers, body, new Date(now.getTime() - 301_000)], /five minutes/],
    ['a time that is none', [secret, { ...headers, 'webhook-timestamp': '1614265330.0' }, body, now], /five minutes/],
    ['no secret', ['', headers, body, now], /the secret is not/],
    ['a secret without its prefix', [secret.slice(6), headers, body, now], /the secret is not/],
    ['a short one', ['whsec_AAAA', headers, body, now], /the secret is not/],
  ]) {
    await assert.rejects(verifyWebhook(...args), (error) => error instanceof WebhookError && want.test(error.message) && !error.message.includes('MfKQ'), name)
  }
})

let server
before(async () => { server = await startServer() })
after(() => server.close())

test('what the server really delivers', { timeout: 30_000 }, async () => {
  let hook
  const received = new Promise((resolve, reject) => {
    const receiver = http.createServer((request, response) => {
      const chunks = []
      request.on('data', (chunk) => chunks.push(chunk))
      request.on('end', async () => {
        response.end()
        receiver.close()
        try {
          const raw = Buffer.concat(chunks)
          assert.equal(request.headers['x-webhook-signature'], createHmac('sha256', hook.secret).update(raw).digest('hex'))
          resolve(await verifyWebhook(hook.secret, request.headers, raw))
        } catch (error) {
          reject(error)
        }
      })
    })
    receiver.listen(0, '127.0.0.1', async () => {
      hook = await server.call('webhooks', { label: 'x', url: `http://127.0.0.1:${receiver.address().port}/`, events: ['api_key.created'], format: 'standard' })
      await server.create({ label: 'delivered' })
    })
  })
  const { type, data } = await received
  assert.equal(type, 'api_key.created')
  assert.equal(JSON.stringify(data).includes('delivered'), true)
})
