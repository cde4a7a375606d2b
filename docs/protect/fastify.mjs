// A Fastify API that lets nobody in without a good API key.

import { Client } from '@apikeys-dev/client'
import { protect, verified } from '@apikeys-dev/client/fastify'
import Fastify from 'fastify'

const keys = new Client({ url: process.env.APIKEYS_URL ?? 'http://127.0.0.1:8080', token: process.env.APIKEYS_KEY })
const requires = protect(keys)

const app = Fastify()
app.get('/products', { onRequest: requires('products.read') }, async (request) => {
  return { owner: verified(request).key.owner_id }
})

await app.listen({ port: Number(process.env.PORT ?? 4000), host: '127.0.0.1' })
console.log(`listening on 127.0.0.1:${app.server.address().port}`)
