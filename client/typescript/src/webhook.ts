// Verifies the deliveries of webhooks, by the signature of Standard Webhooks.

/** Says why a request is no delivery that was signed with the secret about now. */
export class WebhookError extends Error {
  override name = 'WebhookError'
}

/** How many seconds the clocks of sender and receiver may be apart. */
const toleranceSeconds = 300

type HeaderSource = Headers | Record<string, string | readonly string[] | undefined>

function header(headers: HeaderSource, name: string): string {
  if (headers instanceof Headers) return headers.get(name) ?? ''
  const entry = Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1]
  return typeof entry === 'string' ? entry : (entry?.[0] ?? '')
}

function decode(base64: string): Uint8Array<ArrayBuffer> | undefined {
  if (base64.length > 1024 || !/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(base64)) return undefined
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
}

/**
 * Verifies that a request is a delivery that was signed with secret, the text that begins
 * with whsec_, within five minutes of now, and returns what its body holds. body is what
 * was received, byte for byte. It throws a WebhookError for anything else.
 *
 * A delivery can come more than once, always with the same webhook-id. A receiver for
 * which that matters remembers those ids.
 */
export async function verifyWebhook<T = unknown>(
  secret: string, headers: HeaderSource, body: string | Uint8Array, now: Date = new Date(),
): Promise<T> {
  const key = secret.startsWith('whsec_') ? decode(secret.slice('whsec_'.length)) : undefined
  if (!key || key.length < 24 || key.length > 64) throw new WebhookError('the secret is not whsec_ and the base64 of 24 to 64 bytes')
  const id = header(headers, 'webhook-id')
  const timestamp = header(headers, 'webhook-timestamp')
  const signatures = header(headers, 'webhook-signature')
  if (id === '' || timestamp === '' || signatures === '') {
    throw new WebhookError('the request lacks webhook-id, webhook-timestamp or webhook-signature')
  }
  const seconds = /^(0|[1-9][0-9]{0,14})$/.test(timestamp) ? Number(timestamp) : NaN
  if (!(Math.abs(now.getTime() / 1000 - seconds) <= toleranceSeconds)) {
    throw new WebhookError('webhook-timestamp is not a time within five minutes of now')
  }
  const encoder = new TextEncoder()
  const raw = typeof body === 'string' ? encoder.encode(body) : body
  const start = encoder.encode(`${id}.${timestamp}.`)
  const signed = new Uint8Array(start.length + raw.length)
  signed.set(start)
  signed.set(raw, start.length)
  const hmac = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['verify'])
  for (const signature of signatures.split(' ').slice(0, 16)) {
    const bytes = signature.startsWith('v1,') ? decode(signature.slice('v1,'.length)) : undefined
    // It compares in constant time.
    if (bytes && (await crypto.subtle.verify('HMAC', hmac, bytes, signed))) {
      return JSON.parse(new TextDecoder().decode(raw)) as T
    }
  }
  throw new WebhookError('no signature fits the body and the secret')
}
