// A Hono API that lets nobody in without a good API key.

import { Client } from '@apikeys-dev/client'
import { protect, verified } from '@apikeys-dev/client/hono'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'

const keys = new Client({ url: process.env.APIKEYS_URL ?? 'http://127.0.0.1:8080', token: process.env.APIKEYS_KEY })
const requires = protect(keys)

const app = new Hono()
app.get('/products', requires('products.read'), (c) => c.json({ owner: verified(c).key.owner_id }))

serve({ fetch: app.fetch, port: Number(process.env.PORT ?? 4000), hostname: '127.0.0.1' }, (info) => {
  console.log(`listening on 127.0.0.1:${info.port}`)
})
