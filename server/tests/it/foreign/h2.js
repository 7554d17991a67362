// WebSockets over HTTP/2 by Node's own client: `node h2.js HOST:PORT [CERTIFICATE]`. Says "passed".
"use strict";
const http2 = require("node:http2");
const fs = require("node:fs");
const crypto = require("node:crypto");

const [authority, certificate] = process.argv.slice(2);
const session = certificate
  ? http2.connect(`https://${authority}`, { ca: fs.readFileSync(certificate) })
  : http2.connect(`http://${authority}`);
const fail = (why) => { console.log(`failed: ${why}`); process.exit(1); };
session.on("error", (error) => fail(error));
setTimeout(() => fail("timeout"), 15000);

function frame(opcode, payload) {
  const mask = crypto.randomBytes(4);
  let head = Buffer.from([0x80 | opcode, 0x80 | payload.length]);
  if (payload.length > 125) {
    head = Buffer.from([0x80 | opcode, 0x80 | 126, payload.length >> 8, payload.length & 255]);
  }
  return Buffer.concat([head, mask, payload.map((byte, at) => byte ^ mask[at % 4])]);
}

// Answers a promise of the next frame each time: [opcode, payload], or null at the end.
function frames(stream) {
  let received = Buffer.alloc(0), ended = false, waiting = null;
  const look = () => {
    if (!waiting) return;
    if (received.length >= 2) {
      let length = received[1], start = 2;
      if (length === 126 && received.length >= 4) { length = received.readUInt16BE(2); start = 4; }
      if (received[1] < 126 || start === 4) {
        if (received.length >= start + length) {
          const found = [received[0] & 15, received.subarray(start, start + length)];
          received = received.subarray(start + length);
          const done = waiting; waiting = null; done(found);
          return;
        }
      }
    }
    if (ended) { const done = waiting; waiting = null; done(null); }
  };
  stream.on("data", (data) => { received = Buffer.concat([received, data]); look(); });
  stream.on("end", () => { ended = true; look(); });
  return () => new Promise((done) => { waiting = done; look(); });
}

const ask = (fields, end) => new Promise((done, failed) => {
  const stream = session.request(fields, { endStream: end });
  stream.on("error", failed);
  stream.on("response", (answer) => done([answer, stream]));
});
const open = (path, protocol, version) => ask({
  ":method": "CONNECT", ":protocol": protocol, ":scheme": certificate ? "https" : "http", ":path": path,
  ":authority": authority, "sec-websocket-version": version,
}, false);
const equal = (found, wanted, what) => {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) fail(`${what}: ${JSON.stringify(found)}`);
};

session.on("remoteSettings", async (settings) => {
  if (!settings.enableConnectProtocol) return;
  try {
    for (let round = 0; round < 3; round++) {
      const [answer, stream] = await open("/echo", "websocket", "13");
      equal(answer[":status"], 200, "status");
      const next = frames(stream);
      for (const size of [0, 5, 200, 60000]) {
        const payload = crypto.randomBytes(size);
        stream.write(frame(2, payload));
        const [opcode, echoed] = await next();
        if (opcode !== 2 || !echoed.equals(payload)) fail(`echo of ${size}`);
        await new Promise((done) => setTimeout(done, round === 1 ? 150 : 0));
      }
      stream.write(frame(9, Buffer.from("ping")));
      const [opcode, pong] = await next();
      equal([opcode, pong.toString()], [10, "ping"], "pong");
      const [page, body] = await ask({ ":path": "/healthz" }, true);
      equal(page[":status"], 200, "healthz");
      body.resume();
      stream.write(frame(8, Buffer.from([3, 232])));
      const [close, code] = await next();
      equal([close, code.readUInt16BE(0)], [8, 1000], "close");
      equal(await next(), null, "the end");
      stream.end();
    }
    for (const [path, protocol, version, status] of [
      ["/nothing", "websocket", "13", 404], ["/", "websocket", "7", 400], ["/", "other", "13", 501],
    ]) {
      const [answer, stream] = await open(path, protocol, version);
      equal(answer[":status"], status, path + protocol);
      stream.resume();
      stream.end();
    }
    session.close(() => { console.log("passed"); process.exit(0); });
  } catch (error) { fail(error); }
});
