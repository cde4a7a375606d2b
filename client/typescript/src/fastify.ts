import type { Client } from './client.js'
import { nodeExchange, Protector, remember, verified, type NodeRequest, type ProtectOptions } from './protect.js'

export { verified }

/** What is used of a request of Fastify. */
export interface FastifyLikeRequest {
  raw: NodeRequest
}

/** What is used of a reply of Fastify. */
export interface FastifyLikeReply {
  code(status: number): unknown
  header(name: string, value: string): unknown
  send(body: string): unknown
}

/** A hook of Fastify, for onRequest: before anything of the body is read. */
export type FastifyHook = (request: FastifyLikeRequest, reply: FastifyLikeReply) => Promise<unknown>

/**
 * Returns a function that makes hooks of scopes: a request passes where its key holds all
 * of them, and verified(request) tells of the key.
 */
export function protect<R extends FastifyLikeRequest = FastifyLikeRequest>(client: Client, options: ProtectOptions<R> = {}): (...scopes: string[]) => FastifyHook {
  const protector = new Protector<R>(client, options)
  return (...scopes) => async (request, reply) => {
    const decision = await protector.decide(request as R, scopes, nodeExchange(request.raw))
    for (const [name, value] of Object.entries(decision.headers)) reply.header(name, value)
    if (decision.verified) {
      remember(request, decision.verified)
      return undefined
    }
    reply.code(decision.status)
    return reply.send(decision.body)
  }
}
