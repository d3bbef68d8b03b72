// A kafkajs client for the tests: `node main.js produce|consume-group '{"bootstrap":…,"topic":…}'` with records as JSON
// lines, one record a line: {"key":"k"|null,"value":"v"|null,"headers":[["name","value"],…]}. Produce reads them,
// consume-group prints them.
const { readFileSync } = require('node:fs')
const { CompressionTypes, Kafka, logLevel } = require('kafkajs')

const COMPRESSION = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }

/** kafkajs takes a repeated header as one name with an array of values. */
function headersOf (pairs) {
  const headers = {}
  for (const [name, value] of pairs) {
    headers[name] = headers[name] === undefined ? value : [headers[name], value].flat()
  }
  return headers
}

function pairsOf (headers) {
  return Object.entries(headers ?? {}).flatMap(([name, values]) => [values].flat().map(value => [name, String(value)]))
}

/** TLS, and a user where there is one; a user of OAUTHBEARER is in its token. */
function securityOf ({ ca, certificate, mechanism, user, password }) {
  const pem = certificate && readFileSync(certificate)
  const ssl = { ca: [readFileSync(ca)], ...(pem && { cert: pem, key: pem }) }
  // what is refused at the door is refused for good
  const retry = { retries: 2 }
  if (!mechanism) return { ssl, retry }
  const login = mechanism === 'OAUTHBEARER'
    ? { oauthBearerProvider: async () => ({ value: password }) }
    : { username: user, password }
  return { ssl, retry, sasl: { mechanism: mechanism.toLowerCase(), ...login } }
}

async function produce (kafka, { topic, compression, idempotent }) {
  const messages = readFileSync(0, 'utf8').split('\n').filter(line => line !== '').map(line => {
    const { key, value, headers } = JSON.parse(line)
    return { key, value, headers: headersOf(headers), partition: 0 }
  })
  const producer = kafka.producer({ allowAutoTopicCreation: false, idempotent })
  await producer.connect()
  await producer.send({ topic, messages, acks: -1, compression: COMPRESSION[compression] })
  await producer.disconnect()
}

async function consumeGroup (kafka, { topic, group, count }) {
  const consumer = kafka.consumer({ groupId: group, allowAutoTopicCreation: false, maxWaitTimeInMs: 200 })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const lines = []
  let lastOffset
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, event => reject(event.payload.error))
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ message }) => {
        if (lines.length === count) return
        const key = message.key === null ? null : message.key.toString()
        const value = message.value === null ? null : message.value.toString()
        lines.push(JSON.stringify({ key, value, headers: pairsOf(message.headers) }))
        lastOffset = BigInt(message.offset)
        if (lines.length === count) resolve()
      }
    }).catch(reject)
  })
  await consumer.commitOffsets([{ topic, partition: 0, offset: String(lastOffset + 1n) }])
  await consumer.disconnect()
  process.stdout.write(lines.map(line => line + '\n').join(''))
}

async function main () {
  const verbs = { produce, 'consume-group': consumeGroup }
  const settings = JSON.parse(process.argv[3])
  const security = settings.security ? securityOf(settings.security) : {}
  const brokers = settings.bootstrap.split(',')
  const kafka = new Kafka({ clientId: 'interop', brokers, logLevel: logLevel.ERROR, ...security })
  await verbs[process.argv[2]](kafka, settings)
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
  // a crashed consumer keeps its timers; nothing is left to wait for
  setTimeout(() => process.exit(1), 100)
})
