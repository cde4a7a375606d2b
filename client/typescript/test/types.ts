// Compiles where the types fit those of the frameworks; nothing here is run.

import express from 'express'
import Fastify from 'fastify'
import { Hono } from 'hono'

import { Client, RefusedError, verifyWebhook, type Event } from '../src/index.js'
import * as ofExpress from '../src/express.js'
import * as ofFastify from '../src/fastify.js'
import * as ofHono from '../src/hono.js'

const keys = new Client({ url: 'https://keys.example.com', token: 'sk_live_…' })

const app = express()
app.get('/products', ofExpress.protect(keys)('products.read'), (request, response) => {
  const owner: string = ofExpress.verified(request).key.owner_id
  response.json({ owner })
})
app.use(ofExpress.protect<express.Request>(keys, { cost: (request) => Number(request.query['n'] ?? 1) })())

const fastify = Fastify()
fastify.get('/products', { onRequest: ofFastify.protect(keys)('products.read') }, async (request) => ofFastify.verified(request).key.metadata)

const hono = new Hono()
hono.get('/products', ofHono.protect(keys)('products.read'), (c) => c.json({ owner: ofHono.verified(c).key.owner_id }))

export async function all(): Promise<Event | undefined> {
  try {
    await keys.verify({ key: 'x' })
  } catch (error) {
    if (error instanceof RefusedError) {
      const status: 401 | 403 | 429 = error.status
      console.log(status)
    }
  }
  const hook = await verifyWebhook<{ type: string }>('whsec_', new Headers(), '')
  for await (const { event } of keys.watch({ after: hook.type })) return event
  // @ts-expect-error: the field does not exist.
  await keys.api.POST('/developers/api_keys', { body: { labl: 'x' } })
  return undefined
}
