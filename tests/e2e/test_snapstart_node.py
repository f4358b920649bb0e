"""SnapStart for Node.js: as for Python, threads included. Each version of Node.js that the tests have is tried."""

import concurrent.futures
import os
import re

import botocore.exceptions
import pytest

from harness import Functions, Server, logs, node_runtime, zip_of
from test_runtimes import NODES, fetched_node

pytestmark = [
    pytest.mark.skipif(
        os.geteuid() != 0 or os.uname().machine != "x86_64", reason="snapshots need root and an x86-64 processor"
    ),
    pytest.mark.skipif(node_runtime() is None, reason="skipped: there is no Node from 18 on here"),
]
SOURCE = """
const crypto = require('crypto'), dns = require('dns'), fs = require('fs');
const { Worker } = require('worker_threads');
const made = [process.hrtime.bigint().toString(), Math.random(), crypto.randomUUID(), crypto.randomInt(2 ** 40), process.pid];
const many = Array.from({ length: 50000 }, (_, i) => ({ i, text: 'x' + i }));
const hooks = [];
awslambda.registerBeforeSnapshot((text) => hooks.push(text), 'before 1');
awslambda.registerBeforeSnapshot(async () => {
  await fs.promises.stat('/'); // has threads of libuv started
  hooks.push('before 2');
});
awslambda.registerAfterRestore(() => hooks.push('after 1'));
awslambda.registerAfterRestore(async () => {
  await new Promise((resolve) => setTimeout(resolve, 5));
  hooks.push('after 2');
});
console.log('initialised');
const drawn = () => new Promise((resolve) =>
  new Worker("require('worker_threads').parentPort.postMessage(Math.random())", { eval: true }).on('message', resolve));
exports.handler = async (event) => {
  const timed = Date.now();
  await new Promise((resolve) => setTimeout(resolve, 1000 * (event?.sleep ?? 0)));
  const own = await fs.promises.readFile('/proc/self/status', 'utf8');
  const worker = await new Promise((resolve) =>
    new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true }).on('message', resolve));
  const sum = many.reduce((all, one) => all + one.i, 0);
  const hash = await new Promise((resolve) => crypto.pbkdf2('a', 'b', 1000, 8, 'sha256', (_, key) => resolve(key.toString('hex'))));
  return {
    made, hooks, worker, sum, hash, slept: Date.now() - timed, stream: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    type: process.env.AWS_LAMBDA_INITIALIZATION_TYPE, telemetry: '_LAMBDA_TELEMETRY_LOG_FD' in process.env,
    pid: process.pid === Number(/^Pid:\\t(\\d+)/m.exec(own)[1]), cwd: process.cwd(),
    unique: [Math.random(), crypto.randomUUID(), crypto.randomInt(2 ** 47), crypto.randomBytes(8).toString('hex'),
      await drawn(), fs.mkdtempSync('/tmp/x'), crypto.generateKeyPairSync('ed25519').publicKey
        .export({ type: 'spki', format: 'der' }).toString('hex')],
  };
};
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    place = tmp_path_factory.mktemp("snapstart-node")
    config = place / "lacewing.toml"
    found = [major for major in NODES if fetched_node(major) is not None]
    config.write_text("[runtimes]\n" + "".join(f'"nodejs{major}.x" = "{fetched_node(major)}"\n' for major in found))
    running = Server(place / "data", "--config", str(config)).start()
    yield Functions(running)
    assert running.is_running(), running.log.read_text()
    running.stop()


def published(own, source: str, runtime: str | None = None) -> str:
    """A function with SnapStart and its first version."""
    name = own.create(
        zip_of({"index.js": source}), Runtime=runtime or node_runtime(), Handler="index.handler", Timeout=30,
        MemorySize=256, SnapStart={"ApplyOn": "PublishedVersions"},
    )  # fmt: skip
    own.client.publish_version(FunctionName=name)
    return name


def call(own, name: str, event=None):
    return Functions(own.server).invoke(name, event, Qualifier="1", LogType="Tail")


def status(own, name: str) -> str:
    answer = own.client.get_function_configuration(FunctionName=name, Qualifier="1")
    return answer["SnapStart"]["OptimizationStatus"]


@pytest.mark.parametrize("major", [None, *NODES])
def test_many_instances_go_on_from_one_initialisation(own, major):
    if major is not None and fetched_node(major) is None:
        pytest.skip("skipped: scripts/prepare-tests fetched no such Node")
    name = published(own, SOURCE, major and f"nodejs{major}.x")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: call(own, name, {"sleep": 1}), range(8)))
    assert all(answer.error is None for answer in answers), [answer.payload for answer in answers]
    payloads = [answer.payload for answer in answers]
    assert len({payload["stream"] for payload in payloads}) > 3, "several Instances"
    assert len({tuple(payload["made"]) for payload in payloads}) == 1
    for payload in payloads:
        assert payload["type"] == "snap-start" and not payload["telemetry"] and payload["cwd"] == "/var/task"
        assert payload["hooks"] == ["before 2", "before 1", "after 1", "after 2"]
        assert payload["pid"] and (payload["worker"], payload["sum"]) == (42, 50000 * 49999 // 2)
        assert payload["hash"] == payloads[0]["hash"] and 990 <= payload["slept"] < 3000
    first = [answer for answer in answers if "Restore Duration" in answer.log]
    assert first and all("Init Duration" not in answer.log for answer in answers)
    kept = "".join(logs(own.server, name))
    assert kept.count("initialised") == 1 and kept.count("INIT_START") == 1
    assert kept.count("RESTORE_START") >= 4 and status(own, name) == "On"
    unique = {payload["stream"]: payload["unique"] for payload in payloads}
    for column, values in enumerate(zip(*unique.values(), strict=True)):
        assert len(set(values)) == len(unique), f"column {column}: {values}"
    for payload in payloads:
        assert not set(map(str, payload["made"])) & set(map(str, payload["unique"]))
    own.client.delete_function(FunctionName=name)


def test_nothing_is_drawn_twice(own):
    """Every call ends its Instance, so each is answered by another copy of the same memory."""
    source = SOURCE.replace("  return {", "  setTimeout(() => process.exit(0), 50);\n  return {", 1)
    name = published(own, source)
    seen, streams = [], set()
    while len(streams) < 50:
        answer = call(own, name)
        if answer.error is None:
            seen.append(answer.payload["unique"])
            streams.add(answer.payload["stream"])
    for number, column in enumerate(zip(*seen, strict=True)):
        assert len(set(column)) == len(column), (number, sorted(column))


SPINNING = """
const { Worker } = require('worker_threads');
const worker = new Worker("require('worker_threads').parentPort.postMessage(1); for (;;);", { eval: true });
awslambda.registerBeforeSnapshot(() => new Promise((resolve) => worker.on('message', resolve)));
"""


@pytest.mark.parametrize(
    "init, reason",
    [
        ("require('net').createServer().listen(8080, '127.0.0.1');", "connections"),
        ("require('fs').writeFileSync('/tmp/kept', 'x');", "files in /tmp"),
        ("require('child_process').spawn('sleep', ['999'], { stdio: 'ignore' });", "processes"),
        (SPINNING, "does not wait"),
    ],
)
def test_what_a_copy_would_break_starts_as_ever_and_says_why(own, init, reason):
    source = init + "\nexports.handler = async () => process.env.AWS_LAMBDA_INITIALIZATION_TYPE;\n"
    name = published(own, source)
    assert call(own, name).payload == "on-demand"
    assert status(own, name) == "Off"
    warning = [line for line in logs(own.server, name) if "SnapStart is off for this version" in line]
    assert warning and reason in warning[0], warning
    own.client.delete_function(FunctionName=name)


def test_a_hook_that_fails_is_told_and_not_the_handlers(own):
    source = "awslambda.registerAfterRestore(async () => { throw new RangeError('not today'); });\n"
    name = published(own, source + "exports.handler = async () => 1;\n")
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(own, name)
    assert caught.value.response["Error"]["Code"] == "SnapStartException"
    kept = "".join(logs(own.server, name))
    assert "not today" in kept and re.search(r"RESTORE_REPORT Restore Duration: .*Status: error\tError Type: RangeError", kept)
