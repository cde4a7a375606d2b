import type { Client } from './client.js'
import { nodeExchange, Protector, remember, verified, type NodeRequest, type ProtectOptions } from './protect.js'

export { verified }

/** What is used of a response of Express. */
export interface ExpressResponse {
  status(code: number): unknown
  setHeader(name: string, value: string): unknown
  end(body: string): unknown
}

/** A middleware of Express. */
export type ExpressHandler = (request: NodeRequest, response: ExpressResponse, next: (error?: unknown) => void) => void

/**
 * Returns a function that makes middleware of scopes: a request passes where its key
 * holds all of them, and verified(request) tells of the key.
 */
export function protect<R extends NodeRequest = NodeRequest>(client: Client, options: ProtectOptions<R> = {}): (...scopes: string[]) => ExpressHandler {
  const protector = new Protector<R>(client, options)
  return (...scopes) => (request, response, next) => {
    protector.decide(request as R, scopes, nodeExchange(request)).then((decision) => {
      for (const [name, value] of Object.entries(decision.headers)) response.setHeader(name, value)
      if (decision.verified) {
        remember(request, decision.verified)
        next()
        return
      }
      response.status(decision.status)
      response.end(decision.body)
    }).catch(next)
  }
}
