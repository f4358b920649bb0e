"""Several invocations in one Instance, as its function's owner says: of a custom runtime by the official Rust client,
and of Node."""

import base64
import concurrent.futures
import subprocess

import pytest

from harness import binary, logs, node_runtime, records, target
from test_custom_runtimes import SHELL
from test_serve import wait_until

VARIABLE = "LACEWING_CONCURRENCY_PER_INSTANCE"


@pytest.fixture(scope="module")
def program() -> bytes:
    built = target() / "debug/lacewing-test-rust-runtime"
    stripped = subprocess.run(["strip", "-o", "/dev/stdout", str(built)], capture_output=True)
    return stripped.stdout or built.read_bytes()


@pytest.fixture
def shared(functions, program):
    """Makes a function whose Instances serve so many invocations at a time."""

    def make(seats: int, bootstrap: str | bytes = program, **options) -> str:
        options.setdefault("Timeout", 60)
        return functions.custom(bootstrap, Environment={"Variables": {VARIABLE: str(seats)}}, **options)

    return make


@pytest.fixture
def threads():
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        yield pool


def stream_of(answer) -> str:
    assert answer.error is None, answer.payload
    return answer.payload["stream"]


def test_invocations_are_served_together_and_never_more_than_was_said(functions, shared, threads):
    name = shared(4)
    # Each waits in its handler until four are there.
    event = {"together": 4, "stay": True, "where": True}
    answers = list(threads.map(lambda _: functions.invoke(name, event), range(4)))
    assert len({stream_of(answer) for answer in answers}) == 1
    assert {answer.payload["concurrency"] for answer in answers} == {"4"}
    assert {answer.payload["id"] for answer in answers} == {answer.request_id for answer in answers}
    name = shared(3)
    event = {"sleep_ms": 20, "where": True}
    answers = list(threads.map(lambda number: functions.invoke(name, event | {"number": number}), range(200)))
    assert [answer.payload["echo"]["number"] for answer in answers] == list(range(200))
    assert max(answer.payload["inside"] for answer in answers) <= 3


def test_without_the_choice_there_is_one_at_a_time(functions, program, threads):
    name = functions.custom(program)
    answers = list(threads.map(lambda _: functions.invoke(name, {"sleep_ms": 20, "where": True}), range(40)))
    assert {answer.payload["inside"] for answer in answers} == {1}
    assert {answer.payload["concurrency"] for answer in answers} == {None}


def test_a_timeout_is_its_own_and_ends_the_instance_after_the_others(server, functions, shared, threads):
    name = shared(4, Timeout=10)
    first = stream_of(functions.invoke(name, {"where": True}))
    late = threads.submit(functions.invoke, name, {"print": True, "sleep_ms": 600_000})
    assert wait_until(lambda: any(line.startswith("printed") for line in logs(server, name)))
    # It ends after the late one has been given up, and before its own deadline.
    other = threads.submit(functions.invoke, name, {"sleep_ms": 9_000, "where": True})
    answer = late.result()
    assert answer.error == "Unhandled" and answer.payload["errorType"] == "Sandbox.Timedout"
    assert not other.done()
    assert stream_of(functions.invoke(name, {"where": True})) != first, "no new one comes to it"
    assert stream_of(other.result()) == first
    assert sum("Status: timeout" in line for line in logs(server, name)) == 1


def test_when_the_process_ends_all_its_invocations_do(server, functions, shared, threads):
    name = shared(4)
    beside = threads.submit(functions.invoke, name, {"print": True, "sleep_ms": 600_000})
    assert wait_until(lambda: any(line.startswith("printed") for line in logs(server, name)))
    answers = [functions.invoke(name, {"exit": True}), beside.result()]
    for answer in answers:
        assert answer.payload == {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {answer.request_id} Error: Runtime exited with error: exit status 3",
        }
    assert functions.invoke(name, {"a": 1}).error is None


def test_each_has_its_own_lines_and_record(server, functions, shared, threads):
    name = shared(4)
    event = {"together": 4, "stay": True, "print": True}
    answers = list(threads.map(lambda _: functions.invoke(name, event, LogType="Tail"), range(4)))
    # What is printed is handed over a second later, as nobody's invocation ends with it.
    assert wait_until(lambda: sum(line.startswith("printed") for line in logs(server, name)) == 4)
    kept = logs(server, name)
    for answer in answers:
        tail = answer.log.splitlines()
        assert [line.split(" ")[0] for line in tail] == ["START", "END", "REPORT"], tail
        assert all(f"RequestId: {answer.request_id}" in line for line in tail)
        assert all(line.rstrip("\n") in kept for line in tail)
        assert f"printed {answer.request_id}" in kept
    assert sum("Init Duration" in answer.log for answer in answers) == 1
    mine = [record for record in records(server) if record["function"] == name]
    assert sorted(record["request_id"] for record in mine) == sorted(answer.request_id for answer in answers)
    assert sum(record["init_us"] is not None for record in mine) == 1


def test_streams_go_side_by_side(functions, shared, threads):
    name = shared(4)

    def stream(parts: int) -> bytes:
        answer = functions.client.invoke_with_response_stream(
            FunctionName=name, Payload=b'{"stream": %d, "pause_ms": 10}' % parts
        )
        pieces = [event["PayloadChunk"]["Payload"] for event in answer["EventStream"] if "PayloadChunk" in event]
        # The client begins with a prelude, which ends so.
        return b"".join(pieces).split(bytes(8))[-1]

    for parts, got in enumerate(threads.map(stream, range(1, 9)), 1):
        assert got == b"".join(b"part %d\n" % number for number in range(1, parts + 1))


def test_a_runtime_that_asks_for_one_at_a_time_serves_one_after_the_other(functions, shared, threads):
    name = shared(4, SHELL)
    answers = list(threads.map(lambda number: functions.invoke(name, {"n": number}), range(12)))
    assert [answer.payload for answer in answers] == [{"echo": {"n": number}} for number in range(12)]


NODE = """
let inside = 0, waiting = [];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const together = (count) => new Promise((resolve) => {
  waiting.push(resolve);
  if (waiting.length === count) waiting.forEach((one) => one());
});
exports.handler = async (event, context) => {
  inside += 1;
  const seen = inside;
  try {
    if (event.print) console.log('printed');
    if (event.together) await together(event.together);
    if (event.sleep_ms) await sleep(event.sleep_ms);
    if (event.print) console.error('later');
    if (event.exit) process.exit(3);
    if (event.uncaught) setTimeout(() => { throw new Error('uncaught'); });
    if (event.uncaught) await sleep(60000);
    if (event.fail) throw new RangeError('no \u00fcber');
    return { number: event.number, seen, id: context.awsRequestId, stream: context.logStreamName,
      left: context.getRemainingTimeInMillis(), arn: context.invokedFunctionArn };
  } finally {
    inside -= 1;
  }
};
exports.byCallback = (event, context, done) => { setTimeout(() => done(event.error, event.result), 20); };
exports.streamed = awslambda.streamifyResponse(async (event, stream, context) => {
  stream.setContentType('text/plain');
  for (let part = 1; part <= event.parts; part++) {
    stream.write(`part ${part}\n`);
    await sleep(10);
  }
  if (event.fail) throw new RangeError('broken off');
  stream.end();
});
"""
needs_node = pytest.mark.skipif(node_runtime() is None, reason="skipped: there is no Node from 18 on here")


@pytest.fixture
def node(functions):
    """Makes a Node function whose Instances serve so many invocations at a time."""

    def make(seats: int, handler: str = "handler", source: str = NODE, **options) -> str:
        variables = {VARIABLE: str(seats)}
        options = {"Timeout": 60, "Handler": f"index.{handler}", "Environment": {"Variables": variables}, **options}
        return functions.node(source, **options)

    return make


@needs_node
def test_node_serves_invocations_together_and_never_more_than_was_said(functions, node, threads):
    name = node(4)
    answers = list(threads.map(lambda _: functions.invoke(name, {"together": 4}), range(4)))
    assert len({stream_of(answer) for answer in answers}) == 1
    assert {answer.payload["id"] for answer in answers} == {answer.request_id for answer in answers}
    assert all(50_000 < answer.payload["left"] <= 60_000 for answer in answers)
    name = node(3)
    answers = list(threads.map(lambda number: functions.invoke(name, {"sleep_ms": 20, "number": number}), range(200)))
    assert [answer.payload["number"] for answer in answers] == list(range(200))
    assert 1 < max(answer.payload["seen"] for answer in answers) <= 3


@needs_node
def test_node_knows_whose_line_and_whose_error_it_is(server, functions, node, threads):
    name = node(4)
    answers = list(threads.map(lambda _: functions.invoke(name, {"print": True, "together": 4}), range(4)))
    ids = {answer.request_id for answer in answers}
    for text in ("INFO\tprinted", "ERROR\tlater"):
        assert wait_until(lambda text=text: sum(text in line for line in logs(server, name)) == 4)
        told = {line.split("\t")[1] for line in logs(server, name) if text in line}
        assert told == ids
    failed = functions.invoke(name, {"fail": True})
    assert failed.error == "Unhandled"
    assert (failed.payload["errorType"], failed.payload["errorMessage"]) == ("RangeError", "no \u00fcber")
    assert failed.payload["trace"][0].startswith("RangeError: no")
    assert functions.invoke(name, {"number": 5}).payload["number"] == 5


@needs_node
def test_node_answers_by_callback_too(functions, node, threads):
    name = node(3, "byCallback")
    answers = list(threads.map(lambda number: functions.invoke(name, {"result": number}), range(9)))
    assert [answer.payload for answer in answers] == list(range(9))
    assert functions.invoke(name, {"error": "wrong"}).payload["errorMessage"] == "wrong"


@needs_node
def test_node_streams_side_by_side(functions, node, threads):
    name = node(4, "streamed")

    def stream(event: str) -> tuple[bytes, str | None]:
        answer = functions.client.invoke_with_response_stream(FunctionName=name, Payload=event.encode())
        events = list(answer["EventStream"])
        pieces = [event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event]
        return b"".join(pieces), events[-1]["InvokeComplete"].get("ErrorCode")

    expected = [b"".join(b"part %d\n" % number for number in range(1, parts + 1)) for parts in range(1, 9)]
    got = list(threads.map(lambda parts: stream('{"parts": %d}' % parts), range(1, 9)))
    assert got == [(whole, None) for whole in expected]
    assert stream('{"parts": 2, "fail": true}') == (expected[1], "RangeError")


@needs_node
def test_when_node_ends_all_its_invocations_do(functions, node, threads):
    name = node(4)
    assert functions.invoke(name, {}).error is None
    for how, status in (("exit", 3), ("uncaught", 129)):
        beside = threads.submit(functions.invoke, name, {"sleep_ms": 50_000})
        assert wait_until(lambda: functions.invoke(name, {}).payload["seen"] == 2)
        for answer in (functions.invoke(name, {how: True}), beside.result()):
            assert answer.payload == {
                "errorType": "Runtime.ExitError",
                "errorMessage": f"RequestId: {answer.request_id} Error: Runtime exited with error: exit status {status}",
            }


ODD = """
const http = require('http');
http.request = () => { throw new Error('it is wrapped'); };
const thrown = {
  symbol: Symbol('x'), bare: Object.create(null), hostile: { toString() { throw new Error('no'); } },
  long: Object.assign(new Error('m'.repeat(20000)), { name: 'N'.repeat(70000) }),
};
exports.handler = async (event, context) => {
  if (event.stay) await new Promise((resolve) => setTimeout(resolve, event.stay));
  if (event.throws) throw thrown[event.throws];
  globalThis[Symbol.for('aws.lambda.runtime.requestId')] = 'mine';
  return event.large ? 'x'.repeat(event.large) : { stay: event.stay, client: context.clientContext };
};
exports.streamed = awslambda.streamifyResponse(async (event, stream) => {
  if (event.type) stream.setContentType(event.type);
  stream.write('begin');
  if (event.throws) throw thrown[event.throws];
  if (event.stay) await new Promise((resolve) => setTimeout(resolve, event.stay));
  stream.end();
});
"""


@needs_node
def test_what_one_handler_does_ends_none_beside_it(functions, node, threads):
    name = node(4, source=ODD, MemorySize=1024)
    functions.invoke(name, {})
    beside = threads.submit(functions.invoke, name, {"stay": 8000})
    for thrown in ("symbol", "bare", "hostile", "long"):
        assert functions.invoke(name, {"throws": thrown}).error == "Unhandled"
    answer = functions.invoke(name, {"large": 7 << 20})
    assert answer.payload["errorType"] == "Function.ResponseSizeTooLarge"
    context = base64.b64encode('{"custom":\n{"a": "ü€"}}'.encode()).decode()
    answer = functions.invoke(name, {}, ClientContext=context)
    assert answer.payload["client"] == {"custom": {"a": "ü€"}}
    assert not beside.done()
    assert beside.result().payload["stay"] == 8000


@needs_node
def test_whatever_is_thrown_by_a_handler_alone_in_its_instance_is_answered(functions, node):
    name = node(1, source=ODD)
    for thrown in ("symbol", "bare", "hostile", "long"):
        assert functions.invoke(name, {"throws": thrown}).payload["errorType"] != "Runtime.ExitError"
        assert functions.invoke(name, {}).error is None


@needs_node
def test_what_one_stream_does_ends_none_beside_it(functions, node, threads):
    name = node(8, "streamed", source=ODD)
    functions.invoke(name, {})
    slow = [threads.submit(functions.invoke, name, {"stay": 8000}) for _ in range(5)]
    for thrown in ("symbol", "long"):
        assert functions.invoke(name, {"throws": thrown}).error == "Unhandled"
    for content_type in ("text/€", "a\nb"):
        assert functions.invoke(name, {"type": content_type}).raw == b"begin"
    assert not any(one.done() for one in slow)
    assert [one.result().raw for one in slow] == [b"begin"] * 5


@needs_node
def test_a_node_handler_that_cannot_be_loaded_is_told_of(functions, node):
    answer = functions.invoke(node(2, source="throw new RangeError('at once');"))
    assert (answer.payload["errorType"], answer.payload["errorMessage"]) == ("RangeError", "at once")
    answer = functions.invoke(node(2, "nothing"))
    assert answer.payload["errorType"] == "Runtime.HandlerNotFound"


def test_it_is_refused_by_name_for_python(functions):
    runtime = "python3.13"
    with pytest.raises(functions.client.exceptions.InvalidParameterValueException) as refused:
        functions.custom(SHELL, Runtime=runtime, Handler="app.handler", Environment={"Variables": {VARIABLE: "2"}})
    message = f"{VARIABLE} is for custom runtimes and Node.js, not for {runtime}."
    assert refused.value.response["Error"]["Message"] == message


def test_the_command_line_sets_it_and_provisioned_concurrency_is_refused(server, functions, program, tmp_path):
    (tmp_path / "bootstrap").write_bytes(program)
    (tmp_path / "bootstrap").chmod(0o755)

    def deploy(*options: str) -> subprocess.CompletedProcess:
        command = [str(binary()), "deploy", str(tmp_path), "--name", "by-command-line", *options]
        return subprocess.run(command, env=server.environment(), capture_output=True, text=True, timeout=120)

    refused = deploy("--concurrency-per-instance", "65")
    assert refused.returncode != 0 and f"{VARIABLE} must be a number from 1 to 64, not '65'." in refused.stderr
    made = deploy("--concurrency-per-instance", "5")
    assert made.returncode == 0, made.stderr
    assert functions.invoke("by-command-line", {"where": True}).payload["concurrency"] == "5"
    version = functions.client.publish_version(FunctionName="by-command-line")["Version"]
    with pytest.raises(functions.client.exceptions.InvalidParameterValueException, match=VARIABLE):
        functions.client.put_provisioned_concurrency_config(
            FunctionName="by-command-line", Qualifier=version, ProvisionedConcurrentExecutions=1
        )
