// node -r ./loopback.cjs PROGRAM: what lets nobody choose an address listens on the loopback only.
const { Server } = require("node:net");
const { listen } = Server.prototype;

Server.prototype.listen = function (first, ...rest) {
  const port = typeof first === "object" || first === undefined ? NaN : Number(first);
  return Number.isNaN(port)
    ? listen.call(this, first, ...rest)
    : listen.call(this, { port, host: "127.0.0.1" }, ...rest);
};
