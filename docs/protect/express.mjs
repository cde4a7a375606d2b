// An Express API that lets nobody in without a good API key.

import express from 'express'
import { verify } from './verify.mjs'

function protect(...scopes) {
  return async (request, response, next) => {
    const { status, key, retryAfter } = await verify(request.headers, request.ip, scopes)
    if (status === 200) {
      request.apiKey = key
      return next()
    }
    if (status === 401) response.set('WWW-Authenticate', 'Bearer')
    if (retryAfter) response.set('Retry-After', String(retryAfter))
    response.status(status).json({ error: 'refused' })
  }
}

const app = express()
app.get('/products', protect('products.read'), (request, response) => {
  response.json({ owner: request.apiKey.owner_id })
})
const server = app.listen(process.env.PORT ?? 4000, '127.0.0.1', () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`)
})
