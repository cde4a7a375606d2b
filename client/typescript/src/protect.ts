// What the middlewares of all frameworks do with a request.

import { clientAddress, parseRange, type Range } from './address.js'
import type { Client, GoodKey, Verification } from './client.js'
import { keyOf, type HeaderLines } from './credential.js'
import { RefusedError, UnverifiedError } from './errors.js'

/** How requests are protected. R is the framework's request. */
export interface ProtectOptions<R> {
  /**
   * The headers in which a request carries its key. In Authorization the key follows
   * Bearer or stands alone; in every other header it stands alone. Two keys that differ
   * are 401. Default: Authorization and X-API-Key. A key is never read from the URL,
   * which ends in logs.
   */
  headers?: readonly string[]
  /**
   * The addresses of your own proxies, such as 10.0.0.0/8. The client's address is the
   * connection's or, where that is one of these, the right-most entry of X-Forwarded-For
   * that is not one. Default: none.
   */
  trustedProxies?: readonly string[]
  /** Replaces trustedProxies. Undefined is unknown, and refused by every ip_allow_list. */
  clientAddress?: (request: R) => string | undefined
  /** What a request costs of the key's limits. Default: 1. */
  cost?: (request: R) => number
  /** Names the service in WWW-Authenticate. Default: api. */
  realm?: string
  /** Hears why a key could not be verified. Default: console.warn. */
  onError?: (error: unknown) => void
}

/** What a middleware tells of a request. */
export interface Exchange {
  /** The lines of a header, by its name in lower case. */
  lines: HeaderLines
  /** The other end of the connection. */
  peer: string | undefined
}

/** What a request is answered, or the key that it is let through with. */
export type Decision =
  | { verified: GoodKey; headers: Record<string, string> }
  | { verified?: undefined; status: number; headers: Record<string, string>; body: string }

const unavailable = 'The key could not be checked; try again.'

/** Returns what decides about requests that need all of scopes. */
export class Protector<R> {
  readonly #client: Client
  readonly #options: ProtectOptions<R>
  readonly #headers: readonly string[]
  readonly #trusted: readonly Range[]

  constructor(client: Client, options: ProtectOptions<R>) {
    this.#client = client
    this.#options = options
    this.#headers = options.headers?.length ? options.headers : ['authorization', 'x-api-key']
    this.#trusted = (options.trustedProxies ?? []).map(parseRange)
  }

  /** Decides about a request. It never throws: no answer is no permission. */
  async decide(request: R, scopes: readonly string[], exchange: Exchange): Promise<Decision> {
    try {
      const verified = await this.#client.verify({
        key: keyOf(this.#headers, exchange.lines),
        scopes,
        address: this.#options.clientAddress
          ? this.#options.clientAddress(request)
          : clientAddress(exchange.peer, exchange.lines('x-forwarded-for'), this.#trusted),
        cost: this.#options.cost?.(request),
        userAgent: exchange.lines('user-agent')[0],
      })
      return { verified, headers: limitHeaders(verified) }
    } catch (error) {
      return this.#refuse(error, scopes)
    }
  }

  #refuse(error: unknown, scopes: readonly string[]): Decision {
    const headers: Record<string, string> = { 'cache-control': 'no-store', 'content-type': 'application/json' }
    if (error instanceof RefusedError) {
      Object.assign(headers, error.verification && limitHeaders(error.verification))
      const challenge = error.challenge(this.#options.realm ?? 'api', scopes)
      if (challenge !== undefined) headers['www-authenticate'] = challenge
      if (error.retryAfter !== undefined && error.retryAfter > 0) headers['retry-after'] = String(error.retryAfter)
      return { status: error.status, headers, body: JSON.stringify({ status: error.status, error: error.message, reason: error.reason }) }
    }
    const tell = this.#options.onError ?? ((why: unknown) => console.warn('apikeys: a key could not be verified; the request is refused:', why instanceof Error ? why.message : why))
    try {
      tell(error)
    } catch {
      // Whoever cannot hear it changes nothing about the answer.
    }
    headers['retry-after'] = String(Math.max(1, (error instanceof UnverifiedError ? error.retryAfter : undefined) ?? 1))
    return { status: 503, headers, body: JSON.stringify({ status: 503, error: unavailable, reason: 'UNAVAILABLE' }) }
  }
}

/** Returns the headers that tell of the limits of a key; none for a key without any. */
export function limitHeaders(v: Verification, now: number = Date.now()): Record<string, string> {
  const { key, rateLimit, quota } = v
  if (!key || (!rateLimit && !quota)) return {}
  const until = (text: string): number => Math.max(0, Math.ceil((Date.parse(`${text.replace(' ', 'T')}Z`) - now) / 1000))
  const left: string[] = []
  const policy: string[] = []
  if (rateLimit) {
    left.push(`"rate";r=${rateLimit.remaining};t=${until(rateLimit.reset_at!)}`)
    policy.push(`"rate";q=${rateLimit.limit};w=${key.rate_limit?.window_seconds ?? 0}`)
  }
  if (quota) {
    left.push(`"quota";r=${quota.remaining}${quota.refill_at ? `;t=${until(quota.refill_at)}` : ''}`)
    policy.push(`"quota";q=${quota.limit}${key.quota?.refill === 'daily' ? ';w=86400' : ''}`)
  }
  const headers: Record<string, string> = {
    'ratelimit': left.join(', '),
    'ratelimit-policy': policy.join(', '),
    'x-ratelimit-limit': String(rateLimit ? rateLimit.limit : quota!.limit),
    'x-ratelimit-remaining': String(rateLimit ? rateLimit.remaining : quota!.remaining),
  }
  const reset = rateLimit ? rateLimit.reset_at : quota!.refill_at
  if (reset) headers['x-ratelimit-reset'] = String(until(reset))
  return headers
}

const verifications = new WeakMap<object, GoodKey>()

/** Remembers what a request was let through with. */
export function remember(request: object, verified: GoodKey): void {
  verifications.set(request, verified)
}

/** Returns what a request was let through with. It throws where no middleware has verified a key. */
export function verified(request: object): GoodKey {
  const found = verifications.get(request)
  if (!found) throw new Error('no middleware has verified the key of this request; protect the route')
  return found
}

/** What the middlewares read of a request of node:http. */
export interface NodeRequest {
  headersDistinct: Record<string, readonly string[] | undefined>
  socket: { remoteAddress?: string | undefined }
}

/** Returns what node:http tells of a request: each line of a header, also of those that it would join or drop. */
export function nodeExchange(request: NodeRequest): Exchange {
  return { lines: (name) => request.headersDistinct[name] ?? [], peer: request.socket.remoteAddress }
}
