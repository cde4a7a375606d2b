import type { Client } from './client.js'
import { nodeExchange, Protector, remember, verified, type Exchange, type NodeRequest, type ProtectOptions } from './protect.js'

export { verified }

/** What is used of a context of Hono. */
export interface HonoLikeContext {
  req: { raw: Request }
  env: unknown
  header(name: string, value: string): void
}

/** A middleware of Hono. */
export type HonoHandler = (context: HonoLikeContext, next: () => Promise<void>) => Promise<Response | void>

// On Node.js the request of node:http tells more than that of the web: lines that are
// joined there, and the other end of the connection. Elsewhere set clientAddress.
function exchange(context: HonoLikeContext): Exchange {
  const incoming = (context.env as { incoming?: NodeRequest } | null | undefined)?.incoming
  if (incoming?.headersDistinct) return nodeExchange(incoming)
  const { headers } = context.req.raw
  return {
    lines: (name) => {
      const line = headers.get(name)
      return line === null ? [] : [line]
    },
    peer: undefined,
  }
}

/**
 * Returns a function that makes middleware of scopes: a request passes where its key
 * holds all of them, and verified(context) tells of the key.
 */
export function protect<C extends HonoLikeContext = HonoLikeContext>(client: Client, options: ProtectOptions<C> = {}): (...scopes: string[]) => HonoHandler {
  const protector = new Protector<C>(client, options)
  return (...scopes) => async (context, next) => {
    const decision = await protector.decide(context as C, scopes, exchange(context))
    if (!decision.verified) return new Response(decision.body, { status: decision.status, headers: decision.headers })
    for (const [name, value] of Object.entries(decision.headers)) context.header(name, value)
    remember(context, decision.verified)
    return await next()
  }
}
