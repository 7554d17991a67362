// The same server as ../plain.rs in JavaScript, with ws: node-ws.js SECONDS, the ping interval.
'use strict';
const { WebSocketServer } = require('ws');

const period = Number(process.argv[2]) * 1000;
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, backlog: 4096, perMessageDeflate: false });
server.on('listening', () => console.log(`listening on ws://127.0.0.1:${server.address().port}`));
server.on('connection', (socket) => {
  socket.on('message', (data, binary) => socket.send(data, { binary }));
  // A peer that goes away is no matter for the others.
  socket.on('error', () => socket.terminate());
});
setInterval(() => server.clients.forEach((socket) => socket.ping()), period);
