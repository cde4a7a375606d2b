// Asks apikeys whether a key is good: what express.mjs and fastify.mjs share.

const url = process.env.APIKEYS_URL ?? 'http://127.0.0.1:8080'
const verifier = process.env.APIKEYS_KEY // a key with the scope api_keys.verify and no other

const refusals = {
  ip_not_allowed: 403,
  insufficient_scope: 403,
  rate_limited: 429,
  quota_exceeded: 429,
}

// verify returns {status: 200, key} for a request that may pass, else the status to
// refuse it with. No answer is no permission.
export async function verify(headers, ip, scopes) {
  const secret = headers.authorization?.replace(/^Bearer /, '') ?? headers['x-api-key'] ?? ''
  try {
    const response = await fetch(`${url}/developers/api_keys/verify`, {
      method: 'POST',
      headers: { authorization: `Bearer ${verifier}`, 'content-type': 'application/json' },
      body: JSON.stringify({ key: secret, scopes, ip: ip.replace(/^::ffff:/, '') }),
      signal: AbortSignal.timeout(2000),
    })
    if (response.status !== 200) throw new Error(`verify: status ${response.status}`)
    const { data } = await response.json()
    if (data.valid) return { status: 200, key: data.api_key }
    return { status: refusals[data.code] ?? 401, retryAfter: data.retry_after_seconds }
  } catch (error) {
    console.error(error.message)
    return { status: 503 }
  }
}
