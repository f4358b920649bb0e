'use strict';
// Serves several invocations at a time under Node.js, as the function's owner said: so many loops ask
// the Lambda Runtime API for events, each over a connection of its own, and the handler's promises run
// side by side. `bootstrap.cjs` loads it, lends it the handler and all it knows of errors and logs, and
// stays the only one that knows the frames.
//
// An invocation is over when its promise is settled or its callback called: the event loop, which has
// others to serve, never gets empty for one of them. Whose turn it is the console knows from the
// asynchronous context.

// Taken before the function can put something in their place.
const { Agent, request: requestOf } = require('http');
const { AsyncLocalStorage } = require('async_hooks');

const MOST = Number(process.env.AWS_LAMBDA_MAX_CONCURRENCY);
const [HOST, PORT] = (process.env.AWS_LAMBDA_RUNTIME_API ?? '').split(':');
const ERROR_TYPE = 'Lambda-Runtime-Function-Error-Type', ERROR_BODY = 'Lambda-Runtime-Function-Error-Body';

const current = new AsyncLocalStorage();
for (const name of ['requestId', 'tenantId']) {
  const get = () => current.getStore()?.[name];
  const set = () => {}; // what a handler puts there is not for the others
  Object.defineProperty(globalThis, Symbol.for(`aws.lambda.runtime.${name}`), { get, set, configurable: true });
}

/** Its connections may fail when no request is theirs any more: after an early response. */
class Connections extends Agent {
  createConnection(...how) {
    return super.createConnection(...how).on('error', () => {});
  }
}

function begin(agent, method, path, headers) {
  return requestOf({ agent, host: HOST, port: PORT, method, path: `/2018-06-01/runtime/${path}`, headers });
}

/** Sends the rest of a request, and gives the answer whole. */
function finish(request, body) {
  return new Promise((resolve, reject) => {
    request.on('error', reject).once('response', (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part)).on('error', reject)
        .once('end', () => resolve({ headers: response.headers, text: Buffer.concat(parts).toString() }));
    });
    request.end(body);
  });
}

function ask(agent, method, path, headers = {}, body = undefined) {
  const length = body === undefined ? {} : { 'Content-Length': Buffer.byteLength(body) };
  return finish(begin(agent, method, path, { ...headers, ...length }), body);
}

function tell(agent, path, [text, errorType]) {
  return ask(agent, 'POST', path, { 'Content-Type': 'application/json', [ERROR_TYPE]: headerOf(errorType) }, text);
}

/** What a header may hold of it. */
const headerOf = (text) => text.slice(0, 256).replace(/[^\x20-\x7e]/g, '?');

/** A content type that no header can hold is none, as it is by frames. */
const typeOf = (text) => (/^[\x20-\x7e]*$/.test(text) ? text : '');

/** The text of a header of the server's: Node.js takes each of its bytes for a character. */
const utf8 = (header) => Buffer.from(header ?? '', 'latin1').toString();

/** An error as trailers can hold it: the server reads 16 KiB of them. */
function trailersOf([text, errorType]) {
  if (Buffer.byteLength(text) > 8192) {
    const { errorType: type, errorMessage: message } = JSON.parse(text);
    const [errorType, errorMessage] = [String(type).slice(0, 256), String(message).slice(0, 1024)];
    text = JSON.stringify({ errorType, errorMessage, trace: [] });
  }
  return { [ERROR_TYPE]: headerOf(errorType), [ERROR_BODY]: Buffer.from(text).toString('base64') };
}

/** Ends the process: at once, or once it is told why it could not begin. */
function die(error, code) {
  if (error === undefined) process.exit(code);
  const exit = () => process.exit(code);
  tell(undefined, 'init/error', error).then(exit, exit);
}

function contextOf(lent, headers) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  return {
    ...lent.ofFunction,
    callbackWaitsForEmptyEventLoop: false,
    clientContext: lent.parsed(utf8(headers['lambda-runtime-client-context']), 'ClientContext'),
    identity: lent.parsed(utf8(headers['lambda-runtime-cognito-identity']), 'CognitoIdentity'),
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
}

/** What the handler answers, by whatever way. */
function answerOf({ handler, answersPlainly }, event, context) {
  return new Promise((resolve, reject) => {
    const done = (error, result) => (error === undefined || error === null ? resolve(result) : reject(error));
    Object.assign(context, { succeed: resolve, fail: (error) => reject(error ?? 'handled'), done });
    const result = handler(event, context, done);
    if (typeof result?.then === 'function') result.then(resolve, reject);
    else if (answersPlainly) resolve(result);
  });
}

/** One invocation whose answer goes out whole. */
async function invoke(lent, agent, { headers, text }) {
  const path = `invocation/${headers['lambda-runtime-aws-request-id']}`;
  let answer;
  try {
    const event = text === '' ? {} : JSON.parse(text);
    answer = lent.responseText(await answerOf(lent, event, contextOf(lent, headers)));
  } catch (error) {
    lent.logError('Invoke Error', error ?? 'handled');
    await tell(agent, `${path}/error`, lent.errorText(error ?? 'handled'));
    return;
  }
  await ask(agent, 'POST', `${path}/response`, { 'Content-Type': 'application/json' }, answer);
}

/** One invocation whose answer goes out as it comes; an error once it has begun is in the trailers. */
async function stream(lent, agent, { headers, text }) {
  const path = `invocation/${headers['lambda-runtime-aws-request-id']}`;
  let request, over;
  const response = new lent.Stream(lent.highWaterMark, {
    begin(contentType) {
      request = begin(agent, 'POST', `${path}/response`, {
        'Content-Type': typeOf(contentType), 'Transfer-Encoding': 'chunked', Trailer: `${ERROR_TYPE}, ${ERROR_BODY}`,
        'Lambda-Runtime-Function-Response-Mode': 'streaming',
      });
      // A caller who has gone ends the connection before the response: that is its end, too.
      over = new Promise((resolve) => {
        request.on('error', resolve).once('response', (answer) => answer.resume().once('close', resolve));
      });
      request.flushHeaders();
    },
    write: (chunk, done) => { request.write(chunk, done); },
  });
  let failure;
  try {
    await lent.streamInto(response, text, () => contextOf(lent, headers));
  } catch (error) {
    failure = lent.errorText(error ?? 'handled');
    lent.logError('Invoke Error', error ?? 'handled');
  }
  await new Promise((resolve) => response[lent.close](resolve));
  if (failure !== undefined) request.addTrailers(trailersOf(failure));
  request.end();
  await over;
}

/**
 * One invocation after the other, each in a context of its own. An answer that is not taken, as one
 * that is too large, is an affair of its caller; that the server has gone is heard of by the next question.
 */
async function loop(lent) {
  const agent = new Connections({ keepAlive: true, maxSockets: 1 });
  const one = lent.Stream === undefined ? invoke : stream;
  for (;;) {
    const event = await ask(agent, 'GET', 'invocation/next');
    const requestId = event.headers['lambda-runtime-aws-request-id'];
    const tenantId = event.headers['lambda-runtime-aws-tenant-id'];
    const told = (error) => lent.logError('Invoke Error', error);
    await current.run({ requestId, tenantId }, () => one(lent, agent, event).catch(told));
  }
}

function serve(lent) {
  // Without its server it has nothing to do.
  for (let count = 0; count < MOST; count++) loop(lent).catch(() => process.exit(1));
}

module.exports = { die, serve };
