// What the holder of a key is told, by the code of the verification. The words are the
// server's; test/cases.test.mjs holds them against its rules.

import type { Verification } from './client.js'

/** The stable names of what a holder is told. */
export type Reason = 'UNAUTHENTICATED' | 'IP_NOT_ALLOWED' | 'INSUFFICIENT_SCOPE' | 'RATE_LIMITED' | 'QUOTA_EXCEEDED'

/** What WWW-Authenticate calls it. */
type Problem = 'missing' | 'invalid_request' | 'invalid_token' | 'insufficient_scope' | undefined

const badCredential = 'The credential is not valid.'

/** Says that a key may not do what was asked. */
export class RefusedError extends Error {
  override name = 'RefusedError'
  /**
   * The outcome of the verification, for your own log: the client learns less from the
   * reason, which is the same for every key that is not good.
   */
  readonly code: string
  /** The HTTP status: 401, 403 or 429. */
  readonly status: 401 | 403 | 429
  readonly reason: Reason
  /** After how many seconds the request can be sent again, where waiting helps. */
  readonly retryAfter: number | undefined
  /** The whole answer, where there was one. */
  readonly verification: Verification | undefined
  readonly #problem: Problem

  private constructor(
    code: string, status: 401 | 403 | 429, reason: Reason, message: string,
    problem: Problem, verification?: Verification, retryAfter?: number,
  ) {
    super(message)
    this.code = code
    this.status = status
    this.reason = reason
    this.#problem = problem
    this.verification = verification
    this.retryAfter = retryAfter
  }

  /** The request carries no key. */
  static missing(): RefusedError {
    return new RefusedError('malformed', 401, 'UNAUTHENTICATED', 'The request carries no API key; send one as Authorization: Bearer.', 'missing')
  }

  /** The request carries two keys. */
  static conflicting(): RefusedError {
    return new RefusedError('malformed', 401, 'UNAUTHENTICATED', 'The request carries two different credentials; send one.', 'invalid_request')
  }

  /** The key is not good; the words are the same whatever the cause is. */
  static invalid(code: string, verification?: Verification): RefusedError {
    return new RefusedError(code, 401, 'UNAUTHENTICATED', badCredential, 'invalid_token', verification)
  }

  /** The request costs more than the limits of the key ever allow. */
  static costTooHigh(): RefusedError {
    return new RefusedError('rate_limited', 429, 'RATE_LIMITED', 'The request costs more than the limits of the API key ever allow.', undefined)
  }

  /** Returns what is said of a verification for which scopes were asked, undefined where the key is good. */
  static of(v: Verification, scopes: readonly string[]): RefusedError | undefined {
    switch (v.code) {
      case 'valid':
        return v.valid ? undefined : RefusedError.invalid(v.code, v)
      case 'ip_not_allowed':
        return new RefusedError(v.code, 403, 'IP_NOT_ALLOWED', 'The credential may not be used from this address.', undefined, v)
      case 'insufficient_scope': {
        const lacking = scopes.filter((scope) => !holds(v.key?.scopes ?? [], scope))
        return new RefusedError(v.code, 403, 'INSUFFICIENT_SCOPE', `The credential lacks the scope ${lacking.join(', ')}.`, 'insufficient_scope', v)
      }
      case 'rate_limited':
        return new RefusedError(v.code, 429, 'RATE_LIMITED',
          `The API key is over its rate limit of ${v.rateLimit?.limit ?? 0} requests; wait before trying again.`, undefined, v, v.retryAfter)
      case 'quota_exceeded':
        return new RefusedError(v.code, 429, 'QUOTA_EXCEEDED', `The API key has used up its quota of ${v.quota?.limit ?? 0}.`, undefined, v, v.retryAfter)
      default:
        return RefusedError.invalid(v.code, v)
    }
  }

  /** Returns the value of WWW-Authenticate (RFC 6750, 3), undefined for none. */
  challenge(realm: string, scopes: readonly string[] = []): string | undefined {
    const start = `Bearer realm="${quotable(realm)}"`
    switch (this.#problem) {
      case 'missing':
        return start
      case 'invalid_request':
      case 'invalid_token':
        return `${start}, error="${this.#problem}", error_description="${quotable(this.message)}"`
      case 'insufficient_scope':
        return `${start}, error="insufficient_scope", error_description="The API key lacks a scope.", scope="${quotable(scopes.join(' '))}"`
      default:
        return undefined
    }
  }
}

/** Says that there was no answer about a key, so that nobody is let in. */
export class UnverifiedError extends Error {
  override name = 'UnverifiedError'
  /** The HTTP status of the server's answer; undefined where there was none. */
  readonly status: number | undefined
  /** The server's name of the failure. */
  readonly reason: string | undefined
  /** Under what the server's log has more. */
  readonly supportId: string | undefined
  /** How many seconds the server asks to wait. */
  readonly retryAfter: number | undefined

  constructor(message: string, facts: { status?: number | undefined; reason?: string | undefined; supportId?: string | undefined; retryAfter?: number | undefined } = {}) {
    super(message)
    this.status = facts.status
    this.reason = facts.reason
    this.supportId = facts.supportId
    this.retryAfter = facts.retryAfter
  }
}

// Scopes of operators are held by no key, whatever stands for all.
function holds(held: readonly string[], scope: string): boolean {
  return !scope.startsWith('operator_tokens.') && (held.includes(scope) || held.includes('*'))
}

/** Leaves out of text what may not stand between quotes (RFC 6750). */
function quotable(text: string): string {
  return text.replace(/[^ -~]|["\\]/g, '')
}
