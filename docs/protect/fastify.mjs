// A Fastify API that lets nobody in without a good API key.

import Fastify from 'fastify'
import { verify } from './verify.mjs'

function protect(...scopes) {
  return async (request, reply) => {
    const { status, key, retryAfter } = await verify(request.headers, request.ip, scopes)
    if (status === 200) {
      request.apiKey = key
      return
    }
    if (status === 401) reply.header('WWW-Authenticate', 'Bearer')
    if (retryAfter) reply.header('Retry-After', String(retryAfter))
    return reply.code(status).send({ error: 'refused' })
  }
}

const app = Fastify()
app.decorateRequest('apiKey', null)
app.get('/products', { preHandler: protect('products.read') }, async (request) => ({ owner: request.apiKey.owner_id }))
await app.listen({ port: Number(process.env.PORT ?? 4000), host: '127.0.0.1' })
console.log(`listening on 127.0.0.1:${app.server.address().port}`)
