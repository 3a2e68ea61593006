// The suite's requests over HTTP/2, which it does not speak itself: as much of `fetch` as it uses.

import http2 from 'node:http2'

// Fields that HTTP/2 has no place for (RFC 9113 §8.2.2).
const CONNECTION_SPECIFIC = new Set([
  'connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade', 'te'
])

/** A `fetch` over one HTTP/2 connection to `base`, with prior knowledge; `close` ends it. */
export function connect (base) {
  const session = http2.connect(base)
  // A request fails by itself when the connection does.
  session.on('error', () => {})
  return {
    fetch: (url, init) => exchange(session, new URL(url), init ?? {}),
    close: () => session.close()
  }
}

function exchange (session, url, init) {
  const fields = {
    ':method': init.method ?? 'GET',
    ':path': url.pathname + url.search,
    ':authority': url.host,
    ':scheme': 'http'
  }
  for (const [name, value] of init.headers ?? []) {
    const lower = name.toLowerCase()
    if (CONNECTION_SPECIFIC.has(lower)) continue
    // HTTP/1 ignores space around a value, HTTP/2 forbids it (RFC 9113 §8.2.1).
    const trimmed = String(value).trim()
    fields[lower] = lower in fields ? [].concat(fields[lower], trimmed) : trimmed
  }
  return new Promise((resolve, reject) => {
    const stream = session.request(fields, { endStream: init.body === undefined })
    stream.on('error', reject)
    stream.on('response', received => {
      const chunks = []
      stream.on('data', chunk => chunks.push(chunk))
      stream.on('end', () => resolve(response(received, Buffer.concat(chunks))))
    })
    stream.end(init.body)
  })
}

function response (received, body) {
  const fields = new Map()
  for (const [name, value] of Object.entries(received)) {
    if (!name.startsWith(':')) fields.set(name, [].concat(value).join(', '))
  }
  const headers = {
    get: name => fields.get(name.toLowerCase()) ?? null,
    has: name => fields.has(name.toLowerCase()),
    forEach: visit => fields.forEach(visit),
    [Symbol.iterator]: () => fields.entries()
  }
  return { status: received[':status'], statusText: '', headers, text: async () => body.toString() }
}
