// What all clients must agree about: client/testdata/cases.json is made from the server's
// own rules.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'

import { clientAddress, parseRange } from '../dist/address.js'
import { keyOf } from '../dist/credential.js'
import { RefusedError } from '../dist/errors.js'
import { limitHeaders } from '../dist/protect.js'

const cases = JSON.parse(readFileSync(new URL('../../testdata/cases.json', import.meta.url), 'utf8'))

test('refusals', () => {
  for (const c of cases.refusals) {
    const refusal = RefusedError.of({
      valid: false, code: c.code, key: c.held && { scopes: c.held }, rateLimit: { limit: c.limit }, quota: { limit: c.quota },
    }, c.scopes ?? [])
    assert.deepEqual([refusal.status, refusal.reason, refusal.message, refusal.challenge('api', c.scopes ?? []) ?? ''],
      [c.status, c.reason, c.message, c.challenge], c.code)
  }
})

test('a key that is valid and not valid is refused', () => {
  assert.equal(RefusedError.of({ valid: false, code: 'valid' }, []).status, 401)
  assert.equal(RefusedError.of({ valid: true, code: 'valid' }, []), undefined)
})

test('credentials', () => {
  for (const c of cases.credentials) {
    const lines = { 'authorization': c.authorization ?? [], 'x-api-key': c.x_api_key ?? [] }
    let key = ''
    let challenge = ''
    try {
      key = keyOf(['Authorization', 'X-API-Key'], (name) => lines[name])
    } catch (error) {
      challenge = error.challenge('api')
    }
    assert.deepEqual([key, challenge], [c.key, c.challenge], JSON.stringify(c))
  }
})

test('addresses', () => {
  const trusted = ['10.0.0.0/8', '2001:db8:1::/48'].map(parseRange)
  for (const c of cases.addresses) {
    assert.equal(clientAddress(c.peer === '' ? undefined : c.peer, c.forwarded_for ?? [], trusted) ?? '', c.address, JSON.stringify(c))
  }
  for (const range of ['', '10.0.0.0/33', '10.0.0.0/', '10/8', '::/129', 'x', '10.0.0.0/8/8', '010.0.0.0/8']) {
    assert.throws(() => parseRange(range), TypeError, range)
  }
})

test('limits', () => {
  const now = Date.UTC(2026, 10, 21)
  const at = (seconds) => (seconds < 0 ? null : new Date(now + seconds * 1000).toISOString().slice(0, 19).replace('T', ' '))
  for (const c of cases.limits) {
    const got = limitHeaders({
      key: { rate_limit: c.rate_limit && { window_seconds: c.window_seconds }, quota: c.quota && { refill: c.refill } },
      rateLimit: c.rate_limit && { limit: c.rate_limit.limit, remaining: c.rate_limit.remaining, reset_at: at(c.rate_limit.seconds) },
      quota: c.quota && { limit: c.quota.limit, remaining: c.quota.remaining, refill_at: at(c.quota.seconds) },
    }, now)
    assert.deepEqual(got, c.headers)
  }
})

// Whatever anybody sends, nothing is read that the request does not hold, and nothing
// but a refusal is thrown.
test('random headers', () => {
  const alphabet = ['Bearer ', 'bearer', ' ', ',', ':', '10.0.0.1', '::1', '[', ']', '%', 'secret-token:', '\t', 'ÿ', 'a', '0', '.', '/', '\u2028', '"']
  let seed = 1
  const random = (n) => {
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed % n
  }
  const trusted = [parseRange('10.0.0.0/8')]
  for (let i = 0; i < 20_000; i++) {
    const text = () => Array.from({ length: random(8) }, () => alphabet[random(alphabet.length)]).join('')
    const [a, b, forwarded] = [text(), text(), text()]
    try {
      const key = keyOf(['Authorization', 'X-API-Key'], (name) => [name === 'authorization' ? a : b])
      assert.ok(key !== '' && (a.includes(key) || b.includes(key)))
    } catch (error) {
      assert.ok(error instanceof RefusedError, error)
      assert.doesNotMatch(error.challenge('api') ?? '', /[\n\r\u2028]/)
    }
    assert.equal(clientAddress('192.0.2.1', [forwarded], trusted), '192.0.2.1')
    clientAddress('10.0.0.1', [forwarded, a], trusted)
  }
})
