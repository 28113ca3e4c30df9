// hypercore.js serve DIR PORT COUNT         fill a core, print its key, replicate to whoever connects
// hypercore.js fetch DIR PORT COUNT KEY     download all of it, print {"seconds": …}
// hypercore.js live DIR PORT COUNT          append COUNT blocks one by one; seconds until a second process has each
const Hypercore = require('hypercore')
const child = require('child_process')
const crypto = require('crypto')
const net = require('net')

const [, , role, dir, port, count, key] = process.argv
const now = () => Number(process.hrtime.bigint()) / 1e9
const entry = () => crypto.randomBytes(1024)
const quiet = (stream) => stream.on('error', () => {})

function join (core, socket, initiator) {
  socket.setNoDelay(true)
  const stream = core.replicate(initiator, { live: true })
  quiet(socket)
  quiet(stream)
  socket.pipe(stream).pipe(socket)
}

async function fill (core, total) {
  for (let done = 0; done < total; done += 500) {
    await core.append(Array.from({ length: Math.min(500, total - done) }, entry))
  }
}

async function serve () {
  const core = new Hypercore(dir)
  await core.ready()
  await fill(core, +count)
  net.createServer((socket) => join(core, socket, false)).listen(+port, '127.0.0.1', () => {
    console.log(core.key.toString('hex'))
  })
}

async function fetchAll () {
  const core = new Hypercore(dir, Buffer.from(key, 'hex'))
  await core.ready()
  const start = now()
  join(core, net.connect(+port, '127.0.0.1'), true)
  while (core.length < +count) await core.update({ wait: true })
  await core.download({ start: 0, end: +count }).done()
  console.log(JSON.stringify({ seconds: now() - start }))
  process.exit(0)
}

async function follow () {
  const core = new Hypercore(dir, Buffer.from(key, 'hex'))
  await core.ready()
  core.on('download', (index) => process.send({ index }))
  core.download({ start: 0, end: -1 })
  net.createServer((socket) => join(core, socket, false)).listen(+port, '127.0.0.1', () => process.send('ready'))
}

async function live () {
  const core = new Hypercore(dir)
  await core.ready()
  await fill(core, 100)
  const other = child.fork(__filename, ['follow', dir + '-copy', port, count, core.key.toString('hex')])
  const waiting = new Map()
  await new Promise((resolve) => other.on('message', (message) => {
    if (message === 'ready') return resolve()
    const seen = waiting.get(message.index)
    if (seen) seen()
  }))
  join(core, net.connect(+port, '127.0.0.1'), true)
  await new Promise((resolve) => setTimeout(resolve, 2000))
  const seconds = []
  for (let place = 0; place < +count; place++) {
    const seen = new Promise((resolve) => waiting.set(core.length, resolve))
    const start = now()
    await core.append(entry())
    await seen
    seconds.push(now() - start)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  console.log(JSON.stringify({ seconds }))
  other.kill()
  process.exit(0)
}

const roles = { serve, fetch: fetchAll, follow, live }
roles[role]().catch((error) => { console.error(error); process.exit(1) })
