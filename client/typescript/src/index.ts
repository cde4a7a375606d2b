// Asks an apikeys server about API keys. Nothing is cached: a revocation that the server
// has answered is in force for the next request. No error holds a key or a token.

export { Client, type ClientOptions, type Verification, type VerifyRequest } from './client.js'
export { RefusedError, UnverifiedError, type Reason } from './errors.js'
export { watch, StreamError, type Message, type WatchOptions } from './watch.js'
export { verifyWebhook, WebhookError } from './webhook.js'
export { clientAddress } from './address.js'
export type { ProtectOptions } from './protect.js'
export type { components, operations, paths } from './openapi.js'

import type { components } from './openapi.js'

/** A key as it may be seen: its secret is masked. */
export type ApiKey = components['schemas']['ApiKey']
/** What happened to a key or a webhook. */
export type Event = components['schemas']['Event']
