// An Express API that lets nobody in without a good API key.

import { Client } from '@apikeys-dev/client'
import { protect, verified } from '@apikeys-dev/client/express'
import express from 'express'

const keys = new Client({ url: process.env.APIKEYS_URL ?? 'http://127.0.0.1:8080', token: process.env.APIKEYS_KEY })
const requires = protect(keys)

const app = express()
app.get('/products', requires('products.read'), (request, response) => {
  response.json({ owner: verified(request).key.owner_id })
})

const server = app.listen(process.env.PORT ?? 4000, '127.0.0.1', () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`)
})
