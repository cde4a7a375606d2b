import { createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'

function verify(secret, headers, body) {
  const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures } = headers
  if (!id || !signatures || !/^\d{1,12}$/.test(timestamp)) return false
  if (Math.abs(Date.now() / 1000 - timestamp) > 300) return false
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64')
  const mac = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body)
  const want = Buffer.from('v1,' + mac.digest('base64'))
  return signatures.split(' ').some((text) => {
    const got = Buffer.from(text)
    return got.length === want.length && timingSafeEqual(got, want)
  })
}

const server = createServer(async (request, response) => {
  try {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    if (!verify(process.env.WEBHOOK_SECRET, request.headers, Buffer.concat(chunks))) {
      return response.writeHead(401).end()
    }
  } catch {
    return response.writeHead(400).end()
  }
  console.log('received', request.headers['webhook-id'], request.headers['x-webhook-event'])
  response.writeHead(204).end()
})
server.listen(process.env.PORT ?? 3000, '127.0.0.1', () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`)
})
