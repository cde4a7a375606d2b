import { createServer } from 'node:http'
import { Webhook } from 'standardwebhooks'

const webhook = new Webhook(process.env.WEBHOOK_SECRET)

const server = createServer(async (request, response) => {
  try {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    webhook.verify(Buffer.concat(chunks), request.headers)
  } catch (error) {
    return response.writeHead(401).end(error.message)
  }
  console.log('received', request.headers['webhook-id'], request.headers['x-webhook-event'])
  response.writeHead(204).end()
})
server.listen(process.env.PORT ?? 3000, '127.0.0.1', () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`)
})
