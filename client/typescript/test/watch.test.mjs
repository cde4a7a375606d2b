import assert from 'node:assert/strict'
import http from 'node:http'
import { after, before, test } from 'node:test'

import { Client, StreamError } from '../dist/index.js'
import { startServer } from './server.mjs'

let server
before(async () => { server = await startServer() })
after(() => server.close())

// No event is missing and none comes twice, while the server stops and starts again.
test('watch goes on after a restart', { timeout: 60_000 }, async () => {
  const root = new Client({ url: server.url, token: server.token })
  const made = []
  const make = async () => made.push((await server.create({ label: 'x' })).id)
  await make()
  await make()
  const [lost, found] = [[], []]
  const seen = []
  const stop = new AbortController()
  for await (const { event } of root.watch({ after: 'start', types: ['api_key.created'], signal: stop.signal, onLost: (e) => lost.push(e.message), onFound: () => found.push(1) })) {
    if (!event) continue
    seen.push(event.resource_id)
    if (seen.length === 2) {
      await server.restart()
      await make()
      await make()
    }
    if (seen.length === 4) stop.abort()
  }
  assert.deepEqual(seen, made)
  assert.deepEqual([lost.length, found.length], [1, 1])
})

test('watch ends where going on would not help', async () => {
  const bad = new Client({ url: server.url, token: 'not-a-token' })
  await assert.rejects(async () => { for await (const _ of bad.watch()); }, (e) => e instanceof StreamError && e.status === 401 && !e.message.includes('not-a-token'))
  const root = new Client({ url: server.url, token: server.token })
  await assert.rejects(async () => { for await (const _ of root.watch({ after: 'forged' })); }, (e) => e instanceof StreamError && e.status === 400)
  const key = await server.create({ label: 'x', scopes: ['events.read'] })
  await assert.rejects(async () => {
    for await (const message of new Client({ url: server.url, token: key.secret }).watch({ after: 'start' })) {
      if (!message.event) await server.call(`api_keys/${key.id}/revoke`)
    }
  }, (e) => e instanceof StreamError && e.status === 401)
})

// The cursor of a message counts once the loop is done with it, and half a line for nothing.
test('watch resumes after the last message', { timeout: 20_000 }, async () => {
  const asked = []
  const parts = [
    ['{"cursor":"a"}\n{"cursor":"b","ev', 'ent":{"type":"x"}}\n{"cursor":"c"'],
    ['not json\n'],
    ['{"status":503,"error":"Stopping.","log":{"reason":"UNAVAILABLE"}}\n'],
    ['{"cursor":"d"}\n{"status":400,"error":"Too old.","log":{"reason":"CURSOR_EXPIRED","oldest":"z"}}\n'],
  ]
  const fake = http.createServer(async (request, response) => {
    const url = new URL(request.url, 'http://x')
    asked.push(url.searchParams.get('after'))
    for (const part of parts[asked.length - 1]) {
      response.write(part)
      await new Promise((resolve) => setImmediate(resolve))
    }
    response.end()
  })
  await new Promise((resolve) => fake.listen(0, '127.0.0.1', resolve))
  const seen = []
  await assert.rejects(async () => {
    const client = new Client({ url: `http://127.0.0.1:${fake.address().port}`, token: 't' })
    for await (const message of client.watch()) seen.push(message.cursor)
  }, (e) => e.reason === 'CURSOR_EXPIRED' && e.oldest === 'z')
  assert.deepEqual(seen, ['a', 'b', 'd'])
  assert.deepEqual(asked, [null, 'b', 'b', 'b'])
  fake.closeAllConnections()
  fake.close()
})

test('what the loop throws ends the watch', async () => {
  const root = new Client({ url: server.url, token: server.token })
  await server.create({ label: 'x' })
  await assert.rejects(async () => {
    for await (const message of root.watch({ after: 'start' })) throw new Error(`own ${typeof message.cursor}`)
  }, /own string/)
})
