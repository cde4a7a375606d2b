// Where a request carries its key. Two that differ are refused, whichever is good.

import { RefusedError } from './errors.js'

/** The longest text that is looked at as a key. */
export const maxKeyLength = 512

const trim = (text: string): string => text.trim()

/** Returns a key without the scheme of its URI form (RFC 8959). */
export function bareKey(text: string): string {
  return /^secret-token:/i.test(text) ? text.slice('secret-token:'.length) : text
}

/** Returns the lines of a header of a request, by its name in lower case. */
export type HeaderLines = (name: string) => readonly string[]

/** Returns the one key that the named headers hold, or throws what the holder is told. */
export function keyOf(names: readonly string[], lines: HeaderLines): string {
  let key = ''
  for (const name of names) {
    for (const line of lines(name.toLowerCase())) {
      let text = trim(line)
      if (name.toLowerCase() === 'authorization') {
        const match = /^bearer (.*)$/is.exec(text)
        if (match) text = trim(match[1]!)
      }
      text = bareKey(text)
      if (text === '' || text === key) continue
      if (key !== '') throw RefusedError.conflicting()
      key = text
    }
  }
  if (key === '') throw RefusedError.missing()
  if (key.length > maxKeyLength) throw RefusedError.invalid('malformed')
  return key
}
