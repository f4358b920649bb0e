'use strict';
// Runs the handler of one Lambda function under Node.js 18 or later.
//
// Started as `node /var/runtime/bootstrap.cjs` with the socket to the server as file descriptor 3.
// With the argument `blank` it first waits for a function; with `origin` it stands before that, and goes on in
// copies of itself. It loads the handler that `_HANDLER` names, says so, and then answers one invocation after another
// until the socket ends. What a handler can observe (module lookup, context object, error documents,
// console, when an invocation is over) is as Lambda's own runtime has it; the yardstick is the npm
// package `aws-lambda-ric`.
//
// Where several invocations are served at a time, `crowd.cjs` takes over once the handler is loaded.
//
// It waits for the next invocation in a blocking read: between invocations no timer fires and no
// callback runs, as in Lambda, where the whole environment is frozen then. It never talks to a
// network, never needs a package, and never itself runs two invocations at a time.
//
// The frames on the socket, and why things are as they are: docs/design/003-bootstraps.md.

const fs = require('fs');
const path = require('path');
const util = require('util');

const SOCKET = 3;
const INVOKE = 1, BECOME = 2, RESTORE = 3;
const READY = 1, INIT_ERROR = 2, RESPONSE = 3, ERROR = 4, STREAM = 5, PIECE = 6, END = 7;
const MOST_IN_A_PIECE = 65536;
const MOST_IN_A_FRAME = 0xffff0000;

// --- Frames ---------------------------------------------------------------------------------------

const incoming = Buffer.allocUnsafeSlow(65536);
const outgoing = Buffer.allocUnsafeSlow(65536);

let frame = incoming;

/** Reads a frame, its length included, into `frame`; gives its end, or 0 when the server has gone. */
function receive() {
  let have = 0;
  while (have < 4) {
    const read = fs.readSync(SOCKET, incoming, have, incoming.length - have, null);
    if (read === 0) return 0;
    have += read;
  }
  const size = 4 + incoming.readUInt32LE(0);
  if (size < have) throw new Error('two frames at once: this is not our server');
  frame = incoming;
  if (size > incoming.length) {
    frame = Buffer.allocUnsafeSlow(size);
    incoming.copy(frame, 0, 0, have);
  }
  while (have < size) {
    const read = fs.readSync(SOCKET, frame, have, size - have, null);
    if (read === 0) return 0;
    have += read;
  }
  return size;
}

function writeAll(fd, data, length = data.length) {
  for (let at = 0; at < length;) at += fs.writeSync(fd, data, at, length - at, null);
}

/** Sends a frame whose body is, for errors, the type as a string, and then the text. */
function send(kind, text, errorType) {
  const head = errorType === undefined ? '' : errorType;
  let at = 5;
  if ((text.length + head.length) * 3 + 9 <= outgoing.length) {
    if (errorType !== undefined) {
      const length = outgoing.write(head, at + 4);
      outgoing.writeUInt32LE(length, at);
      at += 4 + length;
    }
    at += outgoing.write(text, at);
    outgoing.writeUInt32LE(at - 4, 0);
    outgoing[4] = kind;
    writeAll(SOCKET, outgoing, at);
    return;
  }
  const type = Buffer.from(head);
  const body = Buffer.from(text).subarray(0, MOST_IN_A_FRAME - type.length);
  const prefix = Buffer.allocUnsafe(errorType === undefined ? 5 : 9);
  const typeBytes = prefix.length === 9 ? 4 + type.length : 0;
  prefix.writeUInt32LE(1 + typeBytes + body.length, 0);
  prefix[4] = kind;
  if (typeBytes > 0) prefix.writeUInt32LE(type.length, 5);
  writeAll(SOCKET, Buffer.concat([prefix, type]));
  writeAll(SOCKET, body);
}

// --- Waiting for a function -----------------------------------------------------------------------
// Started with the argument `blank` there is no function yet. All that is needed without one is
// loaded and, where Node.js does something for the first time, done once; the environment comes later,
// before anything below looks at it.

const WARM = ['async_hooks', 'child_process', 'crypto', 'dns', 'events', 'fs/promises', 'http', 'https',
  'net', 'os', 'stream', 'timers', 'tls', 'url', 'zlib'];

/** A module as a function's is, looked for, compiled and run. */
function loadFirst() {
  const Module = require('module');
  const missing = path.resolve(__dirname, './first');
  if (fs.existsSync(missing)) return;
  try {
    require(missing);
  } catch {} // it is not there
  const first = new Module(missing);
  first._compile('exports.handler = async (event) => ({ ...event, text: `${event.n}` });', missing);
  first.exports.handler(JSON.parse('{"n": [1, "two", null]}')).then((value) => JSON.stringify(value));
}

/** What was needed once goes now, and not, as rubbish, in the midst of the first invocation. */
function collect() {
  const v8 = require('v8');
  v8.setFlagsFromString('--expose-gc');
  const gc = require('vm').runInNewContext('gc');
  v8.setFlagsFromString('--no-expose-gc');
  gc({ type: 'minor' });
}

/** Says that all is ready and waits for a frame of this kind; gives its end. */
function frameWhenReady(kind) {
  send(READY, '');
  const end = receive();
  if (end === 0) process.exit(0);
  if (frame[4] !== kind) process.exit(1);
  return end;
}

/** Stands for good, and returns in each copy, with the end of its function's environment: docs/design/017-origins.md. */
function standAsOrigin() {
  const end = frameWhenReady(RESTORE);
  makeUnique(false);
  return end;
}

/** Draws anew what was drawn for all copies, and says what is different in each. */
function makeUnique(drewAhead) {
  const { randomInt, randomUUID } = require('crypto');
  // They draw ahead, so many at a time.
  if (drewAhead) {
    for (let left = 128; left > 0; left--) randomUUID();
    for (let left = 1024; left > 0; left--) randomInt(2);
  }
  if (process.moduleLoadList?.includes('NativeModule dns')) {
    const dns = require('dns');
    dns.setServers(dns.getServers()); // asks with numbers of its own
  }
  const [pid] = /\d+/.exec(fs.readlinkSync('/proc/self'));
  Object.defineProperty(process, 'pid', { ...Object.getOwnPropertyDescriptor(process, 'pid'), value: Number(pid) });
  // There was no /proc that would have told it.
  process.execPath = process.argv[0] = fs.readlinkSync('/proc/self/exe');
  // V8 keeps the state of its own in the heap, which all copies have. Workers have heaps of their own.
  let [a, b, c, d] = require('crypto').randomFillSync(new Uint32Array(4));
  // xoshiro128+ by David Blackman and Sebastiano Vigna, https://prng.di.unimi.it/xoshiro128plus.c
  const next = () => {
    const sum = (a + d) >>> 0, shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return sum;
  };
  const random = (() => ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000).bind();
  Object.defineProperty(random, 'name', { value: 'random', configurable: true });
  Math.random = random;
  Object.defineProperty(Math, 'random', { enumerable: false });
}

function become(isOrigin) {
  for (const name of WARM) {
    // Whoever asks resolvers has drawn numbers for that already.
    if (!isOrigin || name !== 'dns') require(name);
  }
  loadFirst();
  collect();
  let end = isOrigin ? standAsOrigin() : 5;
  if (end === 5) {
    // Whose it is will be told.
    if (isOrigin) loadFirst(); // touches, and thereby copies, what an invocation would touch
    end = frameWhenReady(BECOME);
  }
  setEnvironment(end);
  process.chdir(process.env.LAMBDA_TASK_ROOT);
}

function setEnvironment(end) {
  const { ...before } = process.env; // to look is cheap, to change is not
  const names = new Set();
  for (const pair of frame.toString('utf8', 5, end).split('\0')) {
    const at = pair.indexOf('=');
    const name = pair.slice(0, at), value = pair.slice(at + 1);
    names.add(name);
    if (before[name] !== value) process.env[name] = value;
  }
  for (const name of Object.keys(before)) if (!names.has(name)) delete process.env[name];
}

if (process.argv[2] === 'blank' || process.argv[2] === 'origin') become(process.argv.splice(2)[0] === 'origin');

const taskRoot = process.env.LAMBDA_TASK_ROOT ?? '/var/task';
const nodeVersion = Number(/nodejs(\d+)/.exec(process.env.AWS_EXECUTION_ENV ?? '')?.[1] ??
  process.versions.node.split('.')[0]);

// --- Errors ---------------------------------------------------------------------------------------

/** An error whose name is one of Lambda's. The name comes first: the stack begins with it. */
function runtimeError(name, message) {
  const Kind = { [name]: class extends Error {} }[name];
  Kind.prototype.name = `Runtime.${name}`;
  const error = new Kind(message);
  Error.captureStackTrace(error, runtimeError);
  return error;
}

const escaped = (text) => text?.replace(/\x7F/g, '%7F');

function looksLikeError(value) {
  return util.types.isNativeError(value) ||
    ['name', 'message', 'stack'].every((key) => typeof value?.[key] === 'string' && value[key] !== '');
}

/** What the caller is told of an error. */
function errorDocument(error) {
  try {
    if (!looksLikeError(error)) {
      return { errorType: typeof error, errorMessage: error.toString(), trace: [] };
    }
    return {
      errorType: escaped(error.name),
      errorMessage: escaped(error.message),
      trace: escaped(error.stack).split('\n'),
    };
  } catch {
    return {
      errorType: 'handled',
      errorMessage: 'the error given by the handler has a message, name or stack that cannot be read',
    };
  }
}

/** The error as the caller is told of it, and its type. */
function errorText(error) {
  const document = errorDocument(error);
  try {
    return [JSON.stringify(document), String(document.errorType ?? '')];
  } catch {
    return ['{"errorType":"handled","errorMessage":"the error given by the handler cannot be written"}', 'handled'];
  }
}

function sendError(kind, error) {
  const [text, errorType] = errorText(error);
  send(kind, text, errorType);
}

// --- Logs -----------------------------------------------------------------------------------------

const LEVELS = { TRACE: 1, DEBUG: 2, INFO: 3, WARN: 4, ERROR: 5, FATAL: 6 };
const TEXT_RECORD = 0xa55a0003, JSON_RECORD = 0xa55a0002;
const REQUEST_ID = Symbol.for('aws.lambda.runtime.requestId');
const TENANT_ID = Symbol.for('aws.lambda.runtime.tenantId');
const logIsJson = process.env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === 'JSON';

const describedError = (error) => ({
  errorType: error.constructor?.name ?? 'UnknownError',
  errorMessage: error.message,
  stackTrace: typeof error.stack === 'string' ? error.stack.split('\n') : error.stack,
});

function jsonRecord(time, level, parameters) {
  const record = { timestamp: time, level, requestId: globalThis[REQUEST_ID] };
  if (globalThis[TENANT_ID] != null) record.tenantId = globalThis[TENANT_ID];
  if (parameters.length === 1) {
    record.message = parameters[0];
    const replaceErrors = (_, value) =>
      value instanceof Error ? Object.assign(describedError(value), value) : value;
    try {
      return JSON.stringify(record, replaceErrors);
    } catch {
      record.message = util.format(record.message);
      return JSON.stringify(record);
    }
  }
  record.message = util.format(...parameters);
  const error = parameters.find((parameter) => parameter instanceof Error);
  if (error !== undefined) Object.assign(record, describedError(error));
  return JSON.stringify(record);
}

/** One record as u32 type, u32 length, u64 microseconds, message: it stays whole, line ends and all. */
function writeFramed(fd, level, date, text) {
  const message = Buffer.from(logIsJson ? text : text + '\n');
  const head = Buffer.allocUnsafe(16);
  head.writeUInt32BE(((logIsJson ? JSON_RECORD : TEXT_RECORD) | (LEVELS[level] << 2)) >>> 0, 0);
  head.writeUInt32BE(message.length, 4);
  head.writeBigUInt64BE(BigInt(date.valueOf()) * 1000n, 8);
  try {
    writeAll(fd, Buffer.concat([head, message]));
  } catch {
    // The handler has closed it: its records are lost, its invocations are not.
  }
}

function patchConsole() {
  const fd = process.env._LAMBDA_TELEMETRY_LOG_FD;
  delete process.env._LAMBDA_TELEMETRY_LOG_FD;
  const write = fd === undefined
    ? (_level, _date, text) => process.stdout.write(text.replace(/\n/g, '\r') + '\n')
    : writeFramed.bind(undefined, Number(fd));
  const log = (level, parameters) => {
    const date = new Date();
    const time = date.toISOString();
    const text = logIsJson
      ? jsonRecord(time, level, parameters)
      : `${time}\t${globalThis[REQUEST_ID]}\t${level}\t${util.format(...parameters)}`;
    write(level, date, text);
  };
  const least = LEVELS[process.env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase()] ?? LEVELS.TRACE;
  for (const level of Object.keys(LEVELS)) {
    const isOn = level === 'FATAL' || LEVELS[level] >= least;
    // A call without arguments logs `undefined`, as a missing message does.
    console[level.toLowerCase()] = isOn
      ? (message, ...rest) => log(level, [message, ...rest])
      : () => {};
  }
  console.log = console.info;
}

/** Logs an error, whatever was thrown: a symbol, for one, cannot be made an `Error`. */
function logError(what, error) {
  try {
    logAsError(what, error);
  } catch {
    console.error(what, `\t${errorText(error)[0]}`);
  }
}

function logAsError(what, error) {
  const asError = error instanceof Error ? error : new Error(error);
  if (logIsJson) {
    console.error(asError);
    return;
  }
  const withMembers = (_, value) => {
    if (!(value instanceof Error)) return value;
    const members = { errorType: value.name, errorMessage: value.message, code: value.code, ...value };
    if (typeof value.stack === 'string') members.stack = value.stack.split('\n');
    return members;
  };
  let text;
  try {
    text = JSON.stringify(asError, withMembers);
  } catch {
    text = JSON.stringify(errorDocument(asError));
  }
  console.error(what, `\t${text}`);
}

// --- The handler ----------------------------------------------------------------------------------

function isOfModulePackage(file) {
  for (let folder = path.dirname(file); !folder.endsWith('/node_modules'); folder = path.dirname(folder)) {
    const description = path.join(folder, 'package.json');
    if (fs.existsSync(description)) {
      try {
        return JSON.parse(fs.readFileSync(description, 'utf8'))?.type === 'module';
      } catch (error) {
        console.warn(`${description} cannot be read; it does not make its files ES modules.`, error);
        return false;
      }
    }
    if (folder === '/') break;
  }
  return false;
}

async function loadModule(root, name) {
  const file = path.resolve(taskRoot, root, name);
  if (fs.existsSync(file)) return require(file);
  if (fs.existsSync(`${file}.js`)) {
    return isOfModulePackage(`${file}.js`) ? import(`${file}.js`) : require(`${file}.js`);
  }
  if (fs.existsSync(`${file}.mjs`)) return import(`${file}.mjs`);
  if (fs.existsSync(`${file}.cjs`)) return require(`${file}.cjs`);
  return require(require.resolve(name, { paths: [taskRoot, root] }));
}

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const PRELUDE_TYPE = 'application/vnd.awslambda.http-integration-response';

/** What Lambda gives a handler's module to mark a handler that streams its response. */
function defineAwsLambda() {
  if (['1', 'true'].includes(process.env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA)) return;
  globalThis.awslambda = {
    registerBeforeSnapshot: (hook, ...values) => beforeSnapshot.push(() => hook(...values)),
    registerAfterRestore: (hook, ...values) => afterRestore.push(() => hook(...values)),
    streamifyResponse(handler, options) {
      handler[STREAMING] = 'response';
      if (typeof options?.highWaterMark === 'number') handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
      return handler;
    },
    HttpResponseStream: class HttpResponseStream {
      /** The stream itself, which then begins with `prelude` as JSON and eight zero bytes. */
      static from(stream, prelude) {
        stream.setContentType(PRELUDE_TYPE);
        const text = JSON.stringify(prelude);
        stream._onBeforeFirstWrite = (write) => {
          write(text);
          write(new Uint8Array(8));
        };
        return stream;
      }
    },
  };
}

/** Whether the handler streams its response. */
function isStreaming(handler) {
  const mark = handler[STREAMING];
  if (mark === undefined || mark === null || mark === false) return false;
  if (mark === 'response') return true;
  throw runtimeError('MalformedStreamingHandler', 'Only response streaming is supported.');
}

async function loadHandler(fullName) {
  if (fullName.includes('..')) {
    throw runtimeError('MalformedHandlerName', `'${fullName}' is not a valid handler name. ` +
      'Use absolute paths when specifying root directories in handler names.');
  }
  const name = path.basename(fullName);
  const root = fullName.slice(0, fullName.indexOf(name));
  const parts = /^([^.]*)\.(.*)$/.exec(name);
  if (parts === null) throw runtimeError('MalformedHandlerName', 'Bad handler');
  let module;
  try {
    module = await loadModule(root, parts[1]);
  } catch (error) {
    if (error instanceof SyntaxError) throw runtimeError('UserCodeSyntaxError', error);
    if (error?.code === 'MODULE_NOT_FOUND') throw runtimeError('ImportModuleError', error);
    throw error;
  }
  const handler = parts[2].split('.').reduce((nested, key) => nested && nested[key], module);
  if (!handler) throw runtimeError('HandlerNotFound', `${fullName} is undefined or not exported`);
  if (typeof handler !== 'function') {
    throw runtimeError('HandlerNotFound', `${fullName} is not a function`);
  }
  return handler;
}

// --- Invocations ----------------------------------------------------------------------------------

const ofFunction = {
  functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
  functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
  memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
  logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
  logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
};

function nothing() {}

/** What to do when nothing is left for the event loop to do. */
let onEmptyLoop = nothing;
/** The invocation under way: whoever clears it must have answered it. */
let current;
let lastTrace = '';

function parsed(text, name) {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`Cannot parse ${name} as json: ${error}`);
  }
}

function responseText(result) {
  try {
    return JSON.stringify(result === undefined ? null : result) ?? 'null';
  } catch {
    throw new Error('Unable to stringify response body');
  }
}

/** One invocation: it is answered once, whatever the handler calls how often. */
class Invocation {
  #context;
  #isFinished = false;

  constructor(strings, deadline) {
    this.strings = strings;
    this.deadline = deadline;
  }

  /** The object the handler gets; throws when the caller's parts of it are no JSON. */
  context() {
    const invocation = this;
    const strings = this.strings;
    this.#context = {
      callbackWaitsForEmptyEventLoop: true,
      succeed: (result) => invocation.done(null, result),
      fail: (error) => invocation.done(error ?? 'handled'),
      done: (error, result) => invocation.done(error, result),
      functionVersion: ofFunction.functionVersion,
      functionName: ofFunction.functionName,
      memoryLimitInMB: ofFunction.memoryLimitInMB,
      logGroupName: ofFunction.logGroupName,
      logStreamName: ofFunction.logStreamName,
      clientContext: parsed(strings[3], 'ClientContext'),
      identity: parsed(strings[4], 'CognitoIdentity'),
      invokedFunctionArn: strings[1],
      awsRequestId: strings[0],
      tenantId: strings[5] === '' ? undefined : strings[5],
      getRemainingTimeInMillis: () => invocation.deadline - Date.now(),
    };
    return this.#context;
  }

  /** The third argument of the handler. Its result waits until the event loop is empty. */
  callback(error, result) {
    if (this.#isFinished) return;
    const waits = this.#context.callbackWaitsForEmptyEventLoop;
    if (error !== undefined && error !== null || !waits) {
      this.done(error, result);
      return;
    }
    this.#isFinished = true;
    onEmptyLoop = () => this.#respond(result);
  }

  done(error, result) {
    if (this.#isFinished) return;
    this.#isFinished = true;
    if (error !== undefined && error !== null) this.#fail(error);
    else this.#respond(result);
  }

  #respond(result) {
    let text;
    try {
      text = responseText(result);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.finish();
    send(RESPONSE, text);
  }

  #fail(error) {
    logError('Invoke Error', error);
    this.finish();
    sendError(ERROR, error);
  }

  /** The next read comes after one turn of the event loop. */
  finish() {
    current = undefined;
    onEmptyLoop = nothing;
    setImmediate(next);
  }
}

// --- Streamed responses ---------------------------------------------------------------------------

let ResponseStream;
/** The method that ends a response; not for the handler. */
const CLOSE = Symbol('close');

/** Made when it is needed: most handlers do not stream. */
function responseStreamClass() {
  const { Writable } = require('stream');
  return class ResponseStream extends Writable {
    #contentType = 'application/octet-stream';
    #hasBegun = false;
    #isWriting = false;
    #onIdle;

    #way;

    /** `way` takes it out: its content type once, then one chunk after the other. */
    constructor(highWaterMark, way) {
      super({ highWaterMark: Number.isSafeInteger(highWaterMark) && highWaterMark > 0 ? highWaterMark : undefined });
      this.#way = way;
      // Who writes after the end is told so by a callback; it does not end the process.
      this.on('error', nothing);
    }

    setContentType(contentType) {
      if (this.#hasBegun) {
        throw runtimeError('InvalidStreamingOperation', 'Cannot set content-type, too late.');
      }
      this.#contentType = String(contentType);
    }

    write(chunk, encoding, callback) {
      const before = this._onBeforeFirstWrite;
      if (typeof before === 'function') {
        this._onBeforeFirstWrite = undefined;
        before((first) => super.write(first));
      }
      const isPlain = typeof chunk === 'string' || chunk?.constructor === Uint8Array || Buffer.isBuffer(chunk);
      return super.write(isPlain ? chunk : JSON.stringify(chunk), encoding, callback);
    }

    end(chunk, encoding, callback) {
      if (chunk === undefined || chunk === null || typeof chunk === 'function') return super.end(chunk);
      this.write(chunk, typeof encoding === 'function' ? undefined : encoding);
      return super.end(typeof encoding === 'function' ? encoding : callback);
    }

    _write(chunk, _encoding, callback) {
      this.#begin();
      this.#isWriting = true;
      this.#way.write(chunk, (error) => {
        this.#isWriting = false;
        // Not both: the callback may begin the next write at once.
        if (this.#onIdle) this.#onIdle();
        else callback(error);
      });
    }

    _writev(chunks, callback) {
      this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), undefined, callback);
    }

    _final(callback) {
      this.#begin();
      callback();
    }

    /** Ends the response once nothing is being written; what still waits is dropped. */
    [CLOSE](sendLast) {
      this.#onIdle = () => {
        this.#begin();
        this.destroy();
        sendLast();
      };
      if (!this.#isWriting) this.#onIdle();
    }

    /** Tells the server of the response; nothing else is being written then. */
    #begin() {
      if (this.#hasBegun) return;
      this.#hasBegun = true;
      this.#way.begin(this.#contentType);
    }
  };
}

/** A streamed response's way out by frames. */
const byFrames = {
  begin: (contentType) => send(STREAM, contentType),
  write: (chunk, done) => writePieces(chunk, 0, done),
};

/** Writes one piece after the other, each in a thread: the descriptor blocks, the handler must not. */
function writePieces(chunk, from, done) {
  const length = Math.min(chunk.length - from, MOST_IN_A_PIECE);
  if (length <= 0) {
    done(null);
    return;
  }
  const piece = Buffer.allocUnsafe(5 + length);
  piece.writeUInt32LE(1 + length, 0);
  piece[4] = PIECE;
  chunk.copy(piece, 5, from, from + length);
  const step = (at) => fs.write(SOCKET, piece, at, piece.length - at, null, (error, written) => {
    if (error) done(error);
    else if (at + written < piece.length) step(at + written);
    else writePieces(chunk, from + length, done);
  });
  step(0);
}

/** Has the handler write its response; throws what is wrong with it. */
async function streamInto(stream, payload, contextOf) {
  const finished = new Promise((resolve) => stream.once('finish', resolve).once('close', resolve));
  const event = payload === '' ? {} : JSON.parse(payload);
  const result = handler(event, stream, contextOf());
  if (typeof result?.then !== 'function') throw 'Streaming does not support non-async handlers.';
  if (await result !== undefined) console.warn('Streaming handlers ignore return values.');
  await finished;
  if (!stream.writableFinished) throw 'Response stream is not finished.';
}

/** One invocation of a handler that streams: its response ends once, whole or with an error. */
class StreamingInvocation extends Invocation {
  #stream;
  #isOver = false;
  #waits = true;

  context() {
    const invocation = this;
    const { succeed, fail, done, ...context } = super.context();
    delete context.callbackWaitsForEmptyEventLoop;
    Object.defineProperty(context, 'callbackWaitsForEmptyEventLoop', {
      get: () => invocation.#waits,
      set: (value) => { invocation.#waits = Boolean(value); },
      enumerable: true,
    });
    return context;
  }

  async run(payload) {
    ResponseStream ??= responseStreamClass();
    this.#stream = new ResponseStream(handler[HIGH_WATER_MARK], byFrames);
    onEmptyLoop = () => this.fail('Response stream is not finished.');
    try {
      await streamInto(this.#stream, payload, () => this.context());
    } catch (error) {
      this.fail(error ?? 'handled');
      return;
    }
    // As Lambda's client does, it is over when nothing is left to do, unless the handler says otherwise.
    if (this.#waits) onEmptyLoop = () => this.#end();
    else this.#end();
  }

  #end() {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#stream[CLOSE](() => {
      this.finish();
      send(END, '');
    });
  }

  fail(error) {
    if (this.#isOver) return;
    logError('Invoke Error', error);
    this.#isOver = true;
    this.#stream[CLOSE](() => {
      this.finish();
      sendError(ERROR, error);
    });
  }

  /** An uncaught error: answers, and then ends the process. */
  die(error, code) {
    this.#isOver = true;
    this.#stream[CLOSE](() => {
      sendError(ERROR, error);
      process.exit(code);
    });
  }
}

// --- From one invocation to the next --------------------------------------------------------------

let handler;
let streams = false;

function next() {
  const before = Date.now();
  const end = receiveOrExit();
  const at = 17 + frame.readUInt32LE(13);
  const strings = frame.toString('utf8', 17, at).split('\0');
  const deadline = frame.readUInt32LE(5) + frame.readUInt32LE(9) * 0x100000000;
  const invocation = streams ? new StreamingInvocation(strings, deadline) : new Invocation(strings, deadline);
  current = invocation;
  globalThis[REQUEST_ID] = strings[0];
  globalThis[TENANT_ID] = strings[5] === '' ? undefined : strings[5];
  if (strings[2] !== lastTrace) {
    lastTrace = strings[2];
    if (lastTrace === '') delete process.env._X_AMZN_TRACE_ID;
    else process.env._X_AMZN_TRACE_ID = lastTrace;
  }
  onEmptyLoop = () => invocation.done(null, null);
  const payload = frame.toString('utf8', at, end);
  // After a pause the event loop turns once first: sockets that a peer has closed meanwhile must be
  // known before the handler uses them.
  if (Date.now() - before > 1) setImmediate(run, invocation, payload);
  else run(invocation, payload);
}

function run(invocation, payload) {
  if (streams) {
    invocation.run(payload);
    return;
  }
  try {
    const event = payload === '' ? {} : JSON.parse(payload);
    const callback = (error, result) => invocation.callback(error, result);
    const result = handler(event, invocation.context(), callback);
    settle(invocation, result);
  } catch (error) {
    invocation.done(error ?? 'handled');
  }
}

/** A promise answers; from Node.js 24 on a plain value does, too, unless there is a callback. */
function settle(invocation, result) {
  if (typeof result?.then === 'function') {
    result.then((value) => invocation.done(null, value), (error) => invocation.done(error ?? 'handled'));
  } else if (nodeVersion >= 24 && handler.length < 3) {
    invocation.done(null, result);
  }
}

function receiveOrExit() {
  let end;
  try {
    end = receive();
  } catch {
    process.exit(1); // the handler has done something to the descriptor
  }
  if (end === 0) {
    process.removeAllListeners('exit'); // as if frozen for good
    process.exit(0);
  }
  if (frame[4] !== INVOKE) process.exit(1);
  return end;
}

// --- Snapshots ------------------------------------------------------------------------------------
// A version with SnapStart is initialised once. It then stands, is held and copied; a copy goes on with a
// frame that brings its environment.

const beforeSnapshot = [], afterRestore = [];

/** Stands as a snapshot; goes on in each copy. */
async function standAsSnapshot() {
  while (beforeSnapshot.length > 0) await beforeSnapshot.pop()();
  // Who has not loaded it has drawn nothing.
  const drewAhead = process.moduleLoadList?.includes('NativeModule internal/crypto/random') ?? true;
  makeUnique(drewAhead); // what a copy does is loaded and compiled already
  collect();
  setEnvironment(frameWhenReady(RESTORE));
  makeUnique(drewAhead);
  delete process.env._LAMBDA_TELEMETRY_LOG_FD;
  ofFunction.logStreamName = process.env.AWS_LAMBDA_LOG_STREAM_NAME;
  for (const hook of afterRestore) await hook();
}

// --- Start ----------------------------------------------------------------------------------------

/** Who serves several invocations at a time, if that is wanted. */
let crowd;

function dieOf(what, error, code) {
  logError(what, error);
  if (crowd !== undefined) {
    crowd.die(handler === undefined ? errorText(error) : undefined, code);
    return;
  }
  if (handler === undefined) sendError(INIT_ERROR, error);
  else if (current instanceof StreamingInvocation) {
    current.die(error, code);
    return;
  } else if (current !== undefined) sendError(ERROR, error);
  process.exit(code);
}

async function main() {
  if (Number(process.env.AWS_LAMBDA_MAX_CONCURRENCY) > 1) crowd = require('./crowd.cjs');
  patchConsole();
  defineAwsLambda();
  process.on('beforeExit', () => onEmptyLoop());
  process.on('uncaughtException', (error) => dieOf('Uncaught Exception', error, 129));
  process.on('unhandledRejection', (reason, promise) => {
    const error = runtimeError('UnhandledPromiseRejection', String(reason));
    dieOf('Unhandled Promise Rejection', Object.assign(error, { reason, promise }), 128);
  });
  process.exitCode = 13; // should the loop run empty before the module is loaded, as Node has it
  try {
    const loaded = await loadHandler(process.env._HANDLER ?? '');
    streams = isStreaming(loaded);
    if (process.env.AWS_LAMBDA_INITIALIZATION_TYPE === 'snap-start') await standAsSnapshot();
    handler = loaded;
  } catch (error) {
    dieOf('Uncaught Exception', error, 129);
    return;
  }
  process.exitCode = undefined;
  if (crowd !== undefined) {
    const answersPlainly = nodeVersion >= 24 && handler.length < 3;
    const Stream = streams ? responseStreamClass() : undefined;
    const close = CLOSE, highWaterMark = handler[HIGH_WATER_MARK];
    crowd.serve({
      handler, answersPlainly, ofFunction, parsed, responseText, errorText, logError,
      Stream, streamInto, close, highWaterMark,
    });
    return;
  }
  send(READY, '');
  setImmediate(next);
}

main();
