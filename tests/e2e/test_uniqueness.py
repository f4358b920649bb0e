"""Nothing that ought to be unique is the same in two Instances, whatever their interpreters waited for or
were copied from.

LACEWING_SOAK=1 compares 200 Instances instead of 60.
"""

import concurrent.futures
import os

import pytest

from harness import PYTHON, Functions, cache, node_runtime, zip_directories, zip_of

INSTANCES, WAVE = 200 if os.environ.get("LACEWING_SOAK") else 60, 20
# The first of a TLS client's bytes that others see: version, random, session id.
PYTHON_SOURCE = """
import os, random, secrets, ssl, tempfile, time, uuid
import numpy
FIRST = [random.random(), float(numpy.random.rand()), str(uuid.uuid4())]
def hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="example.com")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()[11:43].hex()
def handler(event, context):
    time.sleep(event)
    return FIRST + [random.random(), random.SystemRandom().random(), float(numpy.random.default_rng().random()),
        float(numpy.random.rand()), str(uuid.uuid1()), str(uuid.uuid4()), secrets.token_hex(8), os.urandom(8).hex(),
        os.path.basename(tempfile.mktemp()), hello(), context.log_stream_name, os.environ["AWS_SESSION_TOKEN"]]
"""
NODE_SOURCE = """
const crypto = require('crypto'), net = require('net'), tls = require('tls');
const first = [Math.random(), crypto.randomUUID()];
const hello = () => new Promise((resolve) => {
  const server = net.createServer((socket) => socket.once('data', (data) => {
    socket.destroy();
    server.close();
    resolve(data.subarray(11, 43).toString('hex'));
  })).listen(0, '127.0.0.1', () => tls.connect(server.address().port, '127.0.0.1').on('error', () => {}));
});
exports.handler = async (seconds, context) => {
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  return [...first, Math.random(), crypto.randomUUID(), crypto.randomBytes(8).toString('hex'),
    crypto.webcrypto.getRandomValues(new Uint32Array(2)).join(), crypto.generateKeyPairSync('ed25519').publicKey
      .export({ type: 'spki', format: 'der' }).toString('hex'), await hello(), context.logStreamName,
    process.env.AWS_SESSION_TOKEN];
};
"""


def python_function(own: Functions) -> str:
    content = zip_directories(cache() / "workloads" / "numpy", extra={"app.py": PYTHON_SOURCE})
    return own.create(content, Runtime=PYTHON, MemorySize=256, Timeout=60)


def node_function(own: Functions) -> str:
    return own.create(zip_of({"index.js": NODE_SOURCE}), Runtime=node_runtime(), Handler="index.handler", Timeout=60)


@pytest.mark.parametrize("language", ["python", "node"])
def test_no_two_instances_show_an_equal_value(own_server, language):
    if language == "node" and node_runtime() is None:
        pytest.skip("skipped: there is no Node from 18 on here")
    server = own_server()
    own = Functions(server)
    name = (python_function if language == "python" else node_function)(own)
    answers = []
    while len(answers) < INSTANCES:
        # All of a wave are busy at the same time, and a new state of the function ends them.
        with concurrent.futures.ThreadPoolExecutor(WAVE) as pool:
            calls = [pool.submit(Functions(server).invoke, name, 1.5) for _ in range(WAVE)]
            wave = [call.result() for call in calls]
        assert all(answer.error is None for answer in wave), [answer.raw for answer in wave]
        # On a busy machine one may have served twice; then what it was born with is not counted again.
        streams = {answer.payload[-2]: answer.payload for answer in wave}
        answers.extend(streams.values())
        own.client.update_function_configuration(FunctionName=name, Description=str(len(answers)))
        own.client.get_waiter("function_updated_v2").wait(FunctionName=name)
    for column, values in enumerate(zip(*answers, strict=True)):
        assert len(set(values)) == len(answers), f"column {column}: {sorted(values)}"
