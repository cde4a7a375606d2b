// Follows the events of a server: newline-delimited JSON, resumed after a cursor.

import { causeOf, secondsOf } from './client.js'
import type { components } from './openapi.js'

/** Which events to follow. */
export interface WatchOptions {
  /** Begins after this cursor, or with `start` at the oldest event kept. Default: from now on. */
  after?: string
  /** Only events of these types. */
  types?: readonly string[]
  /** Only events about these resources. */
  resourceIds?: readonly string[]
  /** How many seconds without an event a heartbeat waits, 1 to 300. Default: 15. */
  heartbeatSeconds?: number
  /** Ends the loop. */
  signal?: AbortSignal
  /** Is told why a connection ended, once until the next message comes. */
  onLost?: (error: Error) => void
  /** Is told of the first message after that. */
  onFound?: () => void
}

/**
 * A message of the stream. Without an event it is a heartbeat; its cursor is as good as
 * an event's. A program that must not miss an event stores the cursor together with what
 * it makes of the event, and begins after it when it starts again.
 */
export interface Message {
  cursor: string
  event?: components['schemas']['Event']
}

/** Says that the server ended the stream for good: connecting again would not help. */
export class StreamError extends Error {
  override name = 'StreamError'
  constructor(
    message: string,
    /** The HTTP status. */
    readonly status: number,
    /** The server's name of the failure, such as CURSOR_EXPIRED. */
    readonly reason: string | undefined,
    /** After which cursor everything that is still kept follows, of a cursor that expired. */
    readonly oldest: string | undefined,
  ) {
    super(message)
  }
}

interface Server {
  url: string
  headers: Record<string, string>
  fetch: typeof globalThis.fetch
}

const shortestDelayMs = 200
const longestDelayMs = 10_000
/** The longest line that is read: many times what an event can be. */
const longestLine = 16 << 20

/** Follows the events of a server. */
export async function* watch(server: Server, options: WatchOptions): AsyncGenerator<Message, void, undefined> {
  const { signal } = options
  const heartbeat = options.heartbeatSeconds ?? 15
  let cursor = options.after
  let delays = 0
  let lost = false
  while (!signal?.aborted) {
    const began = Date.now()
    let failure: Lost
    const connection = new AbortController()
    const stop = (): void => connection.abort()
    signal?.addEventListener('abort', stop, { once: true })
    try {
      for await (const message of connect(server, options, cursor, heartbeat, connection)) {
        if (lost) options.onFound?.()
        lost = false
        yield message
        cursor = message.cursor // Only now is the loop done with it.
      }
      failure = new Lost('the server ended the stream')
    } catch (error) {
      if (!(error instanceof Lost)) throw error
      failure = error
    } finally {
      signal?.removeEventListener('abort', stop)
      connection.abort()
    }
    if (signal?.aborted) return
    if (Date.now() - began >= longestDelayMs) delays = 0
    const delay = Math.min(shortestDelayMs * 2 ** Math.min(delays++, 30), longestDelayMs)
    if (!lost) options.onLost?.(failure)
    lost = true
    await pause(Math.max(delay / 2 + Math.random() * (delay / 2), (failure.retryAfter ?? 0) * 1000), signal)
  }
}

/** Is why a connection ended that can be made again. */
class Lost extends Error {
  constructor(message: string, readonly retryAfter?: number) {
    super(message)
  }
}

async function* connect(
  server: Server, options: WatchOptions, cursor: string | undefined, heartbeat: number, connection: AbortController,
): AsyncGenerator<Message, void, undefined> {
  const query = new URLSearchParams()
  if (cursor !== undefined && cursor !== '') query.set('after', cursor)
  for (const type of options.types ?? []) query.append('types', type)
  for (const id of options.resourceIds ?? []) query.append('resource_ids', id)
  query.set('heartbeat_seconds', String(heartbeat))
  // A server that has gone without a word is found out when its heartbeats stay away.
  const idle = (): ReturnType<typeof setTimeout> => setTimeout(() => connection.abort(), heartbeat * 2000 + 10_000)
  let timer = idle()
  try {
    let response
    try {
      response = await server.fetch(`${server.url}/developers/events/watch?${query}`, {
        headers: { ...server.headers, accept: 'application/x-ndjson' }, redirect: 'error', signal: connection.signal,
      })
    } catch (error) {
      throw new Lost(`the server at ${server.url} gave no answer: ${causeOf(error)}`)
    }
    if (response.status !== 200 || !response.body) throw failureOf(await textOf(response), response)
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    let rest = ''
    for (;;) {
      let chunk
      try {
        chunk = await reader.read()
      } catch (error) {
        throw new Lost(`the connection was lost: ${causeOf(error)}`)
      }
      if (chunk.done) return // A line that is not complete comes again.
      clearTimeout(timer)
      const lines = (rest + chunk.value).split('\n')
      rest = lines.pop()!
      if (rest.length > longestLine) throw new StreamError('the server sent a line that is too long', 200, undefined, undefined)
      for (const line of lines) {
        if (line !== '') yield messageOf(line, response)
      }
      timer = idle()
    }
  } finally {
    clearTimeout(timer)
  }
}

function messageOf(line: string, response: Response): Message {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    throw new Lost('the server sent a line that is not JSON')
  }
  const message = value as Message
  if (typeof message?.cursor === 'string') return message
  throw failureOf(line, response) // A stream that fails once begun ends with the envelope.
}

// What stays the same however often the call is made. Everything else may be a server
// that restarts, or a proxy in between.
const final = new Set([400, 401, 403, 404, 405, 406])

function failureOf(text: string, response: Response): Error {
  let failure: Partial<components['schemas']['Failure']> = {}
  try {
    failure = (JSON.parse(text) as Partial<components['schemas']['Failure']> | null) ?? {}
  } catch {
    // It is no answer of the API.
  }
  const status = typeof failure.status === 'number' ? failure.status : response.status
  const message = typeof failure.error === 'string' ? failure.error : `the server answered ${status}, which is no answer of the API`
  if (!final.has(status)) return new Lost(message, secondsOf(response.headers.get('retry-after')))
  const log = failure.log as { reason?: string; oldest?: string } | null | undefined
  return new StreamError(message, status, log?.reason, log?.oldest)
}

async function textOf(response: Response): Promise<string> {
  try {
    return await response.text()
  } catch (error) {
    throw new Lost(`the connection was lost: ${causeOf(error)}`)
  }
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal?.addEventListener('abort', done, { once: true })
  })
}
