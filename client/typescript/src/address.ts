// Where a request comes from. The addresses of IP lists decide who is let in, so they are
// read by one strict rule, the same as the server's, on every runtime.

/** An address as its 16 bytes; IPv4 as ::ffff:a.b.c.d. */
type Bytes = Uint8Array

function parseV4(text: string): number[] | undefined {
  const parts = text.split('.')
  if (parts.length !== 4) return undefined
  const bytes = parts.map((part) => (/^(0|[1-9][0-9]{0,2})$/.test(part) ? Number(part) : 256))
  return bytes.every((byte) => byte < 256) ? bytes : undefined
}

function parseV6(text: string): number[] | undefined {
  if (text.length > 45) return undefined
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const read = (half: string, last: boolean): number[] | undefined => {
    if (half === '') return []
    const groups = half.split(':')
    const bytes: number[] = []
    for (const [i, group] of groups.entries()) {
      if (last && i === groups.length - 1 && group.includes('.')) {
        const v4 = parseV4(group)
        if (!v4) return undefined
        bytes.push(...v4)
      } else if (/^[0-9A-Fa-f]{1,4}$/.test(group)) {
        const value = parseInt(group, 16)
        bytes.push(value >> 8, value & 255)
      } else {
        return undefined
      }
    }
    return bytes
  }
  const head = read(halves[0]!, halves.length === 1)
  const tail = halves.length === 2 ? read(halves[1]!, true) : []
  if (!head || !tail) return undefined
  const missing = 16 - head.length - tail.length
  if (halves.length === 1 ? missing !== 0 : missing < 2) return undefined
  return [...head, ...new Array<number>(missing).fill(0), ...tail]
}

/** Returns the address that text is, without a zone; undefined for none. */
export function parseAddress(text: string): Bytes | undefined {
  if (text.includes(':')) {
    const bytes = parseV6(text)
    return bytes && Uint8Array.from(bytes)
  }
  const bytes = parseV4(text)
  return bytes && Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, ...bytes])
}

function isV4(bytes: Bytes): boolean {
  return bytes.every((byte, i) => i > 11 || byte === (i < 10 ? 0 : 255))
}

/** Returns an address as text in its one form (RFC 5952), IPv4 where it is one. */
export function formatAddress(bytes: Bytes): string {
  if (isV4(bytes)) return bytes.slice(12).join('.')
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16))
  let start = -1
  let length = 1
  for (let i = 0; i < 8; i++) {
    let n = 0
    while (i + n < 8 && groups[i + n] === '0') n++
    if (n > length) [start, length] = [i, n]
  }
  if (start < 0) return groups.join(':')
  return `${groups.slice(0, start).join(':')}::${groups.slice(start + length).join(':')}`
}

/** A range of addresses. */
export interface Range {
  bytes: Bytes
  bits: number
}

/** Returns the range that an address or a CIDR is. */
export function parseRange(text: string): Range {
  const [address = '', bits, ...more] = text.split('/')
  const bytes = parseAddress(address)
  const shift = address.includes(':') ? 0 : 96
  if (bytes && more.length === 0) {
    if (bits === undefined) return { bytes, bits: 128 }
    if (/^(0|[1-9][0-9]{0,2})$/.test(bits) && Number(bits) <= 128 - shift) return { bytes, bits: Number(bits) + shift }
  }
  throw new TypeError(`trustedProxies: ${JSON.stringify(text.slice(0, 64))} must be an address or a range such as 10.0.0.0/8`)
}

function contains(ranges: readonly Range[], address: Bytes): boolean {
  return ranges.some(({ bytes, bits }) => {
    for (let i = 0; i < 16 && bits > 8 * i; i++) {
      const mask = bits >= 8 * i + 8 ? 255 : 255 << (8 * i + 8 - bits)
      if ((bytes[i]! & mask) !== (address[i]! & mask)) return false
    }
    return true
  })
}

function forwarded(entry: string): Bytes | undefined {
  const plain = parseAddress(entry)
  if (plain) return plain
  const match = /^(?:\[([^\]]+)\]|([^:]+)):([0-9]{1,5})$/.exec(entry)
  if (!match || Number(match[3]) > 65535) return undefined
  const host = match[1] ?? match[2]!
  if ((match[1] !== undefined) !== host.includes(':')) return undefined
  return parseAddress(host)
}

/**
 * Returns the address of the client that a request comes from: peer, the other end of the
 * connection, or, where that is a trusted proxy, the right-most entry of X-Forwarded-For
 * that is not one. Entries further left are what the client itself may have written. One
 * that does not parse where it is needed makes the address unknown, which is undefined
 * and which every ip_allow_list refuses.
 */
export function clientAddress(peer: string | undefined, forwardedFor: readonly string[], trusted: readonly Range[]): string | undefined {
  let address = peer === undefined ? undefined : parseAddress(peer.split('%')[0]!)
  if (address && contains(trusted, address)) {
    for (const entry of forwardedFor.flatMap((line) => line.split(',')).reverse()) {
      const text = entry.replace(/^[ \t]+|[ \t]+$/g, '')
      if (text === '') continue
      address = forwarded(text)
      if (!address || !contains(trusted, address)) break
    }
  }
  return address && formatAddress(address)
}
