// A real server for tests, on free ports and with data of its own.

import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../..', import.meta.url))

function binary(dir) {
  if (process.env.APIKEYS_BINARY) return process.env.APIKEYS_BINARY
  const path = join(dir, 'apikeys')
  execFileSync('go', ['build', '-o', path, './cmd/apikeys'], { cwd: root, stdio: 'inherit' })
  return path
}

/** Starts a server. */
export async function startServer() {
  const dir = mkdtempSync(join(tmpdir(), 'apikeys-'))
  const program = binary(dir)
  const data = join(dir, 'data')
  const run = async (address) => {
    const child = spawn(program, ['serve', '--rest-addr', address, '--grpc-addr', '127.0.0.1:0', '--data-dir', data], { stdio: ['ignore', 'pipe', 'pipe'] })
    child.stdout.resume()
    const url = await new Promise((resolve, reject) => {
      let log = ''
      child.once('exit', (code) => reject(new Error(`the server ended with ${code}: ${log}`)))
      child.stderr.on('data', (chunk) => {
        log = (log + chunk).slice(-65536)
        const match = /msg=serving rest=(\S+)/.exec(log)
        if (match) resolve(`http://${match[1]}`)
      })
    })
    return { child, url }
  }
  let { child, url } = await run('127.0.0.1:0')
  const token = readFileSync(join(data, 'root-token'), 'utf8').trim()
  const end = () => new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.once('exit', resolve)
    child.kill('SIGTERM')
  })
  const call = async (path, body = {}) => {
    const response = await fetch(`${url}/developers/${path}`, {
      method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body: JSON.stringify(body),
    })
    const answer = await response.json()
    if (!response.ok) throw new Error(JSON.stringify(answer))
    return answer.data
  }
  return {
    get url() { return url },
    token,
    call,
    create: (key) => call('api_keys', key),
    /** Stops the server and starts it again at the same address. */
    async restart() {
      await end()
      ;({ child, url } = await run(new URL(url).host))
    },
    async close() {
      await end()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
