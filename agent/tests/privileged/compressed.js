// Connections of Node's `ws` that offer compression in every way it can, to an echo server. Usage: node compressed.js PORT
// Each speaks and pauses in its own rhythm and checks every echo. Prints as JSON: `connections`, and `kept`, those on which
// both sides may refer to earlier messages.
'use strict';
const { once } = require('events');
const WebSocket = require('ws');

const MESSAGES = 25;
const pause = (time) => new Promise((done) => setTimeout(done, time));

function message(seed, number) {
  const words = [0, 1, 10, 200, 5000][(seed + number) % 5];
  const text = Array.from({ length: words }, (_, at) => `word-${(at * at + number) % 50}`).join(' ');
  return number % 3 ? text : Buffer.from(text);
}

async function talk(seed, perMessageDeflate) {
  const options = { perMessageDeflate: { threshold: 0, ...perMessageDeflate } };
  const connection = new WebSocket(`ws://127.0.0.1:${process.argv[2]}/echo`, options);
  const [[{ headers }]] = await Promise.all([once(connection, 'upgrade'), once(connection, 'open')]);
  const agreed = headers['sec-websocket-extensions'] ?? '';
  if (!agreed.startsWith('permessage-deflate')) throw new Error(`agreed: ${agreed}`);
  for (let number = 0; number < MESSAGES; number += 1) {
    const said = message(seed, number);
    connection.send(said);
    const [echo, isBinary] = await once(connection, 'message');
    if (isBinary !== Buffer.isBuffer(said) || !echo.equals(Buffer.from(said))) throw new Error('not what was said');
    await pause([0, 0, 4, 10, 30, 100][(seed * 7 + number) % 6]);
  }
  connection.close();
  const [code] = await once(connection, 'close');
  if (code !== 1005) throw new Error(`closed with ${code}`);
  return !agreed.includes('no_context_takeover');
}

const ways = [];
for (const serverNoContextTakeover of [undefined, true]) {
  for (const clientNoContextTakeover of [undefined, true]) {
    for (const serverMaxWindowBits of [undefined, 9, 12, 15]) {
      for (const clientMaxWindowBits of [undefined, true, 9, 12, 15]) {
        ways.push({ serverNoContextTakeover, clientNoContextTakeover, serverMaxWindowBits, clientMaxWindowBits });
      }
    }
  }
}
Promise.all(ways.map((way, seed) => talk(seed, way))).then((kept) => {
  console.log(JSON.stringify({ connections: kept.length, kept: kept.filter(Boolean).length }));
});
process.on('unhandledRejection', (error) => {
  console.error(error);
  process.exit(1);
});
