// The least a Node function can do: read a frame, parse it, answer it, over one socketpair.
// The bench measures this round trip beside the platform's own. It knows nothing of Lambda.
'use strict';

const net = require('net');

const socket = new net.Socket({ fd: 0 });
let pending = Buffer.alloc(0);
socket.on('data', (chunk) => {
  pending = pending.length ? Buffer.concat([pending, chunk]) : chunk;
  while (pending.length >= 4 && pending.length >= 4 + pending.readUInt32LE(0)) {
    const length = pending.readUInt32LE(0);
    const event = JSON.parse(pending.toString('utf8', 4, 4 + length));
    pending = pending.subarray(4 + length);
    const answer = Buffer.from(JSON.stringify({ statusCode: 200, body: 'hello ' + event.name }));
    const head = Buffer.alloc(4);
    head.writeUInt32LE(answer.length);
    socket.write(Buffer.concat([head, answer]));
  }
});
