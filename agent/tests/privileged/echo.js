// An echo server on Node's `ws`. Usage: node echo.js none|deflate|takeover
// `deflate` compresses long messages and forgets; `takeover` compresses all and keeps its contexts.
// Prints `listening PORT`. Pings each connection three times: the last ping is answered long before anybody closes.
'use strict';
const { WebSocketServer } = require('ws');

const deflate = {
  none: false,
  deflate: { threshold: 1000, serverMaxWindowBits: 11, serverNoContextTakeover: true },
  takeover: { threshold: 0 },
}[process.argv[2]];
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: deflate });

server.on('listening', () => console.log(`listening ${server.address().port}`));
server.on('connection', (connection) => {
  connection.on('message', (data, isBinary) => connection.send(data, { binary: isBinary }));
  for (const number of [1, 2, 3]) {
    setTimeout(() => connection.ping('p'.repeat(number)), 500 * number);
  }
});
