// Runs the public "Tests for HTTP caches" against the real program, over HTTP/1.1 and over HTTP/2, and
// compares with what `expected.txt` says. Any difference fails, for better or worse: the list is then
// brought up to date in the same commit.
//
//   node tests/conformance/run.mjs PROGRAM           all tests
//   node tests/conformance/run.mjs PROGRAM ID        one test, its messages shown
//   BLESS=1 node tests/conformance/run.mjs PROGRAM   writes the list anew; reasons stay

import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { fileURLToPath, pathToFileURL } from 'node:url'

import { connect } from './http2.mjs'

const HERE = path.dirname(fileURLToPath(import.meta.url))
const LIST = path.join(HERE, 'expected.txt')
const PROTOCOLS = ['http/1.1', 'http/2']
// How long a process may take to listen.
const PATIENCE = 20_000
// How often all is asked again before a difference counts: it has to be there each time.
const TRIES = 2

// The suite's signs, in words.
const WORDS = {
  '✅': 'pass', // what it asks for is so
  '⛔️': 'fail', // what it requires is not so
  '⚠️': 'suboptimal', // what it recommends is not so
  Y: 'yes', // a question without right and wrong
  N: 'no',
  '🔹': 'setup', // the test did not get as far as its question
  '↻': 'retry', // a request came twice
  '⚪️': 'depends', // a test that it builds on has no `pass`
  '⁉️': 'harness',
  '-': 'untested'
}
// Results that need no reason.
const WELL = new Set(['pass', 'yes', 'no'])

const [program, only] = process.argv.slice(2)
if (program === undefined) {
  console.error('usage: run.mjs PROGRAM [TEST]')
  process.exit(64)
}
const modules = process.env.CONFORMANCE_MODULES ?? path.join(HERE, '../../target/conformance/node_modules')
const suite = path.join(modules, 'http-cache-tests')
const load = file => import(pathToFileURL(path.join(suite, file)))
const nodeFetch = createRequire(path.join(suite, 'cli.mjs'))('node-fetch')

const processes = []
process.on('exit', () => processes.forEach(child => child.kill('SIGKILL')))

/** Starts a process and waits for the line that says where it listens: the URL's authority. */
function listening (command, args, options, pattern) {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
  processes.push(child)
  return new Promise((resolve, reject) => {
    const said = []
    const fail = why => reject(new Error([`${command} ${why}`, ...said].join('\n  ')))
    const late = setTimeout(() => fail('does not listen'), PATIENCE)
    child.on('error', error => fail(error.message))
    child.on('exit', code => fail(`ended with ${code}`))
    for (const stream of [child.stdout, child.stderr]) {
      readline.createInterface({ input: stream }).on('line', line => {
        if (only !== undefined) console.log(line)
        said.push(line)
        const found = pattern.exec(line)
        if (found === null) return
        clearTimeout(late)
        resolve(found[1])
      })
    }
  })
}

function startOrigin (folder) {
  const env = {
    ...process.env,
    npm_config_protocol: 'http',
    npm_config_port: '0',
    npm_config_pidfile: path.join(folder, 'origin.pid')
  }
  const options = { cwd: suite, env }
  return listening(process.execPath, ['server/server.mjs'], options, /^Listening on .*:(\d+)\/$/)
}

function startEdge (folder, port) {
  const env = {
    ...process.env,
    NO_COLOR: '1',
    ORIGIN: `127.0.0.1:${port}`,
    XDG_RUNTIME_DIR: folder,
    XDG_STATE_HOME: folder
  }
  const args = ['-c', path.join(HERE, 'edge.yaml')]
  return listening(path.resolve(program), args, { cwd: folder, env }, /listening on (http:\/\/[\d.:]+)/)
}

/** The suite's tests, as far as a reverse proxy can be asked. */
async function allTests () {
  const { default: tests } = await load('tests/index.mjs')
  const { default: surrogate } = await load('tests/surrogate-control.mjs')
  const suites = [...tests, surrogate]
  for (const group of suites) {
    group.tests = group.tests.filter(test => test.browser_only !== true)
  }
  return suites
}

function selected (suites) {
  if (only === undefined) return suites
  const chosen = suites.flatMap(group => group.tests.filter(test => test.id === only))
  if (chosen.length === 0) throw new Error(`no test is called ${only}`)
  chosen.forEach(test => { test.dump = true })
  return [{ name: only, id: only, tests: chosen }]
}

/** The result of every test, by its id, and what the suite says about it. */
async function run (protocol, base) {
  // The runner keeps its state in its modules: each protocol gets a process of its own.
  const { runTests, getResults } = await load('client/runner.mjs')
  const { determineTestResult } = await load('lib/display.mjs')
  const suites = await allTests()
  const client = protocol === 'http/2' ? connect(base) : { fetch: nodeFetch, close () {} }
  await runTests(selected(suites), client.fetch, false, base)
  client.close()
  const results = getResults()
  const told = {}
  for (const test of suites.flatMap(group => group.tests)) {
    if (!(test.id in results)) continue
    const sign = determineTestResult(suites, test.id, results, only === undefined)[2]
    const said = results[test.id] === true ? '' : results[test.id].join(': ')
    told[test.id] = { kind: test.kind ?? 'required', result: WORDS[sign] ?? sign, said }
  }
  return told
}

async function inChild (protocol, base) {
  const args = [fileURLToPath(import.meta.url), program, ...(only === undefined ? [] : [only])]
  const env = { ...process.env, CONFORMANCE_PROTOCOL: protocol, CONFORMANCE_BASE: base }
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  processes.push(child)
  return new Promise((resolve, reject) => {
    child.on('message', resolve)
    child.on('exit', code => { if (code !== 0) reject(new Error(`the run over ${protocol} broke off`)) })
  })
}

/** `expected.txt`: result, kind, id and, where the result is not well, the reason. */
function readList () {
  const list = new Map()
  const text = fs.existsSync(LIST) ? fs.readFileSync(LIST, 'utf8') : ''
  for (const line of text.split('\n')) {
    const found = /^(\S+) +(\S+) +(\S+)(?: +# (.*))?$/.exec(line)
    if (line.startsWith('#') || found === null) continue
    const [, result, kind, id, reason] = found
    list.set(id, { result, kind, reason })
  }
  return list
}

const HEAD = `# What make conformance has to find: result, kind, test. Two results are those over HTTP/1.1 and HTTP/2.
# Whatever is neither "pass" nor the "yes" or "no" of a question says why.
`

function writeList (found, list) {
  const lines = [...found].map(([id, { result, kind }]) => {
    const reason = isWell(result) ? undefined : list.get(id)?.reason ?? 'to do'
    const start = `${result.padEnd(10)} ${kind.padEnd(8)} ${id}`
    return reason === undefined ? start : `${start.padEnd(64)} # ${reason}`
  })
  fs.writeFileSync(LIST, `${HEAD}${lines.join('\n')}\n`)
}

function isWell (result) {
  return result.split('|').every(word => WELL.has(word))
}

function combine (over) {
  const found = new Map()
  for (const id of Object.keys(over[0]).sort()) {
    const words = over.map(told => told[id]?.result ?? 'untested')
    const result = words.every(word => word === words[0]) ? words[0] : words.join('|')
    found.set(id, { result, kind: over[0][id].kind, said: over.map(told => told[id]?.said ?? '') })
  }
  return found
}

/** What is not as the list says, by test: lines to show. */
function compare (found, list) {
  const wrong = new Map()
  for (const [id, { result, kind, said }] of found) {
    const expected = list.get(id)
    if (expected?.result !== result || expected.kind !== kind) {
      const was = expected === undefined ? 'nothing' : `${expected.result} (${expected.kind})`
      const lines = said.filter(text => text !== '').map(text => `    ${text}`)
      wrong.set(id, [`${id}: ${result} (${kind}) where the list says ${was}`, ...lines])
    } else if (!isWell(result) && expected.reason === undefined) {
      wrong.set(id, [`${id}: the list does not say why it is "${result}"`])
    }
  }
  for (const id of list.keys()) {
    if (!found.has(id)) wrong.set(id, [`${id}: in the list, but not in the suite`])
  }
  return wrong
}

function show (wrong) {
  for (const lines of wrong.values()) lines.forEach(line => console.error(line))
}

function summarise (found) {
  for (const [at, protocol] of PROTOCOLS.entries()) {
    const counts = ['required', 'optimal'].map(kind => {
      const results = [...found.values()].filter(test => test.kind === kind)
        .map(test => test.result.split('|')).map(words => words[at] ?? words[0])
      return `${results.filter(word => word === 'pass').length} of ${results.length} ${kind}`
    })
    console.log(`${protocol}: ${counts.join(', ')}`)
  }
}

/** Both protocols at once, against an origin and a proxy of their own. */
async function ask () {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'edgeproxy-conformance-'))
  process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }))
  const base = await startEdge(folder, await startOrigin(folder))
  return combine(await Promise.all(PROTOCOLS.map(protocol => inChild(protocol, base))))
}

async function main () {
  let found = await ask()
  if (only !== undefined) {
    const { result, said } = found.get(only)
    console.log(`${only}: ${result}`, ...said)
    return 0
  }
  summarise(found)
  const list = readList()
  if (process.env.BLESS === '1') {
    writeList(found, list)
    return 0
  }
  let wrong = compare(found, list)
  for (let again = 0; wrong.size > 0 && again < TRIES; again++) {
    // The suite's lifetimes are a few seconds of the real clock, and a busy machine can outlast them:
    // what is really different is different in every run.
    show(wrong)
    console.error('Asked again, from the start:')
    found = await ask()
    summarise(found)
    const still = compare(found, list)
    wrong = new Map([...wrong.keys()].filter(id => still.has(id)).map(id => [id, still.get(id)]))
  }
  show(wrong)
  if (wrong.size > 0) {
    console.error('If this is as it should be: BLESS=1 make conformance, and say why in the list.')
  }
  return wrong.size > 0 ? 1 : 0
}

if (process.env.CONFORMANCE_PROTOCOL === undefined) {
  process.exit(await main())
} else {
  const told = await run(process.env.CONFORMANCE_PROTOCOL, process.env.CONFORMANCE_BASE)
  process.send(told, () => process.exit(0))
}
