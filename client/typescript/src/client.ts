import createClient, { type Client as FetchClient } from 'openapi-fetch'

import { bareKey, maxKeyLength } from './credential.js'
import { RefusedError, UnverifiedError } from './errors.js'
import type { components, paths } from './openapi.js'
import { watch, type Message, type WatchOptions } from './watch.js'

/** How a server is called. */
export interface ClientOptions {
  /** The address of the server's REST API, such as https://keys.example.com. */
  url: string
  /**
   * What the calls are made with. To verify, an API key with the scope api_keys.verify
   * and nothing else is best: whoever steals it can ask about keys, and make or change none.
   */
  token: string
  /** The organization to act in, for tokens of operators; * stands for all. */
  organization?: string
  /** How long a verification may take, with all of its attempts. Default: 2000. */
  timeoutMs?: number
  /** How often a verification is tried while the server cannot answer. Default: 3. */
  attempts?: number
  /** Sends the token over http:// to another machine than this one. Default: false. */
  allowInsecure?: boolean
  /** What makes the calls. Default: the global fetch. */
  fetch?: typeof globalThis.fetch
}

/** What a verification is about: a key, and what it is to be good for. */
export interface VerifyRequest {
  /** The secret as the caller of your service sent it. */
  key: string
  /** What the key must hold, all of them. */
  scopes?: readonly string[]
  /** The client's address; without one every key that has an ip_allow_list is refused. */
  address?: string | undefined
  /** What the request costs of the key's limits. Default: 1. With 0 nothing is spent or counted. */
  cost?: number | undefined
  /** The client's program, its header User-Agent. It decides nothing. */
  userAgent?: string | undefined
}

/** What the server says of a key. */
export interface Verification {
  valid: boolean
  code: string
  /** The key, with its secret masked; undefined where it is unknown. */
  key: components['schemas']['ApiKey'] | undefined
  rateLimit: components['schemas']['RateLimitStatus'] | undefined
  quota: components['schemas']['QuotaStatus'] | undefined
  /** The secret is the one before the last rotation: its holder still has to take the new one. */
  previousSecret: boolean
  retryAfter: number | undefined
}

/** What is known of a key that is good. */
export type GoodKey = Verification & { key: components['schemas']['ApiKey'] }

/** The longest name of a program that is sent. */
const maxUserAgent = 1024
const halfPair = /\p{Surrogate}/u
const halfPairs = /\p{Surrogate}/gu

/** Calls one server. */
export class Client {
  /** Makes typed calls of every path of the API, with the client's token. */
  readonly api: FetchClient<paths>
  readonly #options: Required<Omit<ClientOptions, 'organization'>> & { organization: string | undefined }

  constructor(options: ClientOptions) {
    const url = parseUrl(options.url, options.allowInsecure ?? false)
    const token = typeof options.token === 'string' ? options.token.trim() : ''
    if (token === '') throw new TypeError('token is empty; give the secret of an API key with the scope api_keys.verify')
    if (!/^[!-~]+$/.test(token)) throw new TypeError('token must be one word of printable ASCII')
    const { organization, timeoutMs = 2000, attempts = 3, allowInsecure = false } = options
    if (organization !== undefined && !/^[!-~]+$/.test(organization)) throw new TypeError('organization must be one word of printable ASCII')
    if (!(timeoutMs > 0 && timeoutMs <= 600_000)) throw new TypeError('timeoutMs must be 1 to 600000')
    if (!(Number.isInteger(attempts) && attempts >= 1 && attempts <= 10)) throw new TypeError('attempts must be 1 to 10')
    const fetch = options.fetch ?? ((...args: Parameters<typeof globalThis.fetch>) => globalThis.fetch(...args))
    this.#options = { url, token, organization, timeoutMs, attempts, allowInsecure, fetch }
    this.api = createClient<paths>({
      baseUrl: url,
      fetch: (request) => fetch(request),
      headers: this.#headers(),
      redirect: 'error', // The token goes to nobody else.
    })
  }

  #headers(): Record<string, string> {
    const headers: Record<string, string> = { authorization: `Bearer ${this.#options.token}` }
    if (this.#options.organization !== undefined) headers['x-organization-id'] = this.#options.organization
    return headers
  }

  /**
   * Asks about a key, and returns only where the key is good. It throws a RefusedError
   * where the key is not, and an UnverifiedError where there was no answer in time.
   */
  async verify(request: VerifyRequest): Promise<GoodKey> {
    const key = bareKey(request.key.trim())
    const scopes = request.scopes ?? []
    if (key === '') throw RefusedError.missing()
    // JSON has no half of a surrogate pair, so that the server could not read such a key.
    if (key.length > maxKeyLength || halfPair.test(key)) throw RefusedError.invalid('malformed')
    const body: components['schemas']['VerifyApiKeyRequest'] = { key, scopes: [...scopes] }
    if (request.address !== undefined) body.ip = request.address
    if (request.cost !== undefined) body.cost = request.cost
    if (request.userAgent !== undefined) body.user_agent = request.userAgent.slice(0, maxUserAgent).replaceAll(halfPairs, '\uFFFD')
    const v = await this.#ask(body)
    const refusal = RefusedError.of(v, scopes)
    if (refusal) throw refusal
    if (!v.key) throw new UnverifiedError('the server says that the key is good and does not say which it is')
    return { ...v, key: v.key }
  }

  async #ask(body: components['schemas']['VerifyApiKeyRequest']): Promise<Verification> {
    const { timeoutMs, attempts } = this.#options
    const deadline = Date.now() + timeoutMs
    for (let attempt = 1, delay = 25; ; attempt++, delay *= 2) {
      const error = await this.#askOnce(body, AbortSignal.timeout(Math.max(1, deadline - Date.now())))
      if (!(error instanceof Error)) return error
      const again = error instanceof UnverifiedError && (error.status === undefined || error.status === 502 || error.status === 503)
      const pause = Math.max(delay / 2 + Math.random() * (delay / 2), (error instanceof UnverifiedError && error.retryAfter !== undefined ? error.retryAfter : 0) * 1000)
      if (!again || attempt >= attempts || Date.now() + pause >= deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, pause))
    }
  }

  // Returns what it would throw, so that only #ask decides about that.
  async #askOnce(body: components['schemas']['VerifyApiKeyRequest'], signal: AbortSignal): Promise<Verification | Error> {
    let result
    try {
      result = await this.api.POST('/developers/api_keys/verify', { body, signal })
    } catch (error) {
      return new UnverifiedError(`the server at ${this.#options.url} gave no answer: ${causeOf(error)}`)
    }
    const { data, error, response } = result
    const answer = data?.data
    if (response.status === 200 && answer && typeof answer === 'object' && typeof answer.code === 'string') {
      return {
        valid: answer.valid === true,
        code: answer.code,
        key: answer.api_key ?? undefined,
        rateLimit: answer.rate_limit ?? undefined,
        quota: answer.quota ?? undefined,
        previousSecret: answer.previous_secret === true,
        retryAfter: answer.retry_after_seconds ?? undefined,
      }
    }
    const failure = (typeof error === 'object' && error !== null ? error : {}) as Partial<components['schemas']['Failure']>
    if (response.status === 400 && failure.validator?.['cost'] !== undefined && typeof body.cost === 'number' && body.cost >= 0 && body.cost <= 1_000_000) {
      return RefusedError.costTooHigh()
    }
    return new UnverifiedError(
      typeof failure.error === 'string' ? failure.error : `the server at ${this.#options.url} answered ${response.status}, which is no answer of the API`,
      {
        status: response.status, reason: failure.log?.reason, supportId: failure.support_id ?? undefined,
        retryAfter: secondsOf(response.headers.get('retry-after')),
      },
    )
  }

  /**
   * Follows the events of the server over as many connections as that takes. It goes on
   * after the last message that the loop was done with: so there is no gap and, while the
   * program lives, no event twice.
   */
  watch(options: WatchOptions = {}): AsyncGenerator<Message, void, undefined> {
    return watch({ url: this.#options.url, headers: this.#headers(), fetch: this.#options.fetch }, options)
  }
}

function parseUrl(text: string, allowInsecure: boolean): string {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw new TypeError('url must be such as https://keys.example.com')
  }
  const local = url.hostname === 'localhost' || url.hostname === '[::1]' || /^127\.[0-9.]+$/.test(url.hostname)
  if (url.username !== '' || url.password !== '') throw new TypeError('url must not hold a credential; that is what token is for')
  if (!['https:', 'http:'].includes(url.protocol) || url.search !== '' || url.hash !== '') throw new TypeError('url must be such as https://keys.example.com')
  if (url.protocol === 'http:' && !local && !allowInsecure) {
    throw new TypeError(`url ${url.origin} would send the token unencrypted; use https://, or set allowInsecure if it may be read on its way`)
  }
  return url.origin + url.pathname.replace(/\/+$/, '')
}

/** Says what happened on the way, in words that hold no secret. */
export function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  if (error.name === 'TimeoutError' || error.name === 'AbortError') return 'it took too long'
  if (error instanceof SyntaxError) return 'it is not JSON'
  const cause = error.cause as { code?: unknown; message?: unknown } | undefined
  return typeof cause?.code === 'string' ? cause.code : error.message
}

/** Returns the seconds of a header Retry-After, undefined for none. */
export function secondsOf(text: string | null): number | undefined {
  return text !== null && /^[0-9]{1,6}$/.test(text) ? Number(text) : undefined
}
