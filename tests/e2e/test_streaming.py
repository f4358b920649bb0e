"""Response streaming: what clients of `InvokeWithResponseStream` get, and when; and runtimes and clients
that do it wrong."""

import base64
import json
import socket
import subprocess
import threading
import time

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import pytest

from harness import REGION, Functions, binary, cache, logs, node_runtime, resident_mb, target, zip_directories
from test_custom_runtimes import merge

needs_node = pytest.mark.skipif(node_runtime() is None, reason="skipped: there is no Node from 18 on here")
MOST = 200 * 1024 * 1024

# A custom runtime on bare sockets: `event` decides what it sends. `api` is its host and port.
CUSTOM = """#!/usr/bin/env python3
import base64, http.client, json, os, socket, sys, time
api = os.environ["AWS_LAMBDA_RUNTIME_API"]
base = "/2018-06-01/runtime/invocation/"
def post(path, body=b"1"):
    connection = http.client.HTTPConnection(api)
    connection.request("POST", base + path, body)
    return connection.getresponse().status
class Stream:
    def __init__(self, identity, *headers, mode="streaming"):
        host, port = api.split(":")
        self.socket = socket.create_connection((host, int(port)))
        lines = [f"POST {base}{identity}/response HTTP/1.1", f"Host: {api}", "Transfer-Encoding: chunked",
                 f"Lambda-Runtime-Function-Response-Mode: {mode}", *headers]
        self.raw("\\r\\n".join(lines) + "\\r\\n\\r\\n")
    def raw(self, text):
        self.socket.sendall(text.encode() if isinstance(text, str) else text)
    def chunk(self, data):
        self.raw(b"%x\\r\\n%s\\r\\n" % (len(data), data))
    def end(self, trailers=""):
        self.raw("0\\r\\n" + trailers + "\\r\\n")
        return self.status()
    def status(self):
        return int(self.socket.recv(65536).split(b" ")[1])
while True:
    connection = http.client.HTTPConnection(api)
    connection.request("GET", base + "next")
    answer = connection.getresponse()
    event = json.loads(answer.read() or b"{}")
    identity = answer.headers["Lambda-Runtime-Aws-Request-Id"]
    exec(event["do"])
"""


class Stream:
    """An answer of `InvokeWithResponseStream`; its events are taken when they are asked for."""

    def __init__(self, functions, name: str, event=None, **options):
        payload = b"" if event is None else json.dumps(event).encode()
        self.began = time.monotonic()
        self.response = functions.client.invoke_with_response_stream(
            FunctionName=name, Payload=payload, **options
        )
        self.headers = self.response["ResponseMetadata"]["HTTPHeaders"]
        self.request_id = self.response["ResponseMetadata"]["RequestId"]
        self.chunks: list[bytes] = []
        self.times: list[float] = []
        self.complete: dict | None = None
        self.events = iter(self.response["EventStream"])

    def next(self) -> bytes:
        return next(self.events)["PayloadChunk"]["Payload"]

    def read(self) -> "Stream":
        for event in self.events:
            assert self.complete is None, "something came after the end"
            self.times.append(time.monotonic() - self.began)
            if "PayloadChunk" in event:
                self.chunks.append(event["PayloadChunk"]["Payload"])
            else:
                self.complete = event["InvokeComplete"]
        assert self.complete is not None, "the stream has no end"
        return self

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def error(self) -> tuple:
        """The code and the details, which are a JSON document."""
        details = self.complete.get("ErrorDetails")
        return self.complete.get("ErrorCode"), details and json.loads(details)

    @property
    def log(self) -> str:
        return base64.b64decode(self.complete["LogResult"]).decode()


def streaming(functions, body: str, **options) -> str:
    """A Node function that streams; `out` is the stream."""
    options = {"MemorySize": 256, **options}
    return functions.node(
        "const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));\n"
        "exports.handler = awslambda.streamifyResponse(async (event, out, context) => {" + body + "});",
        **options,
    )


@pytest.fixture(scope="module")
def custom(functions):
    return functions.custom(CUSTOM, MemorySize=256)


def usage(server, name: str) -> dict:
    """The REPORT line of the last invocation, in milliseconds."""
    report = [line for line in logs(server, name) if line.startswith("REPORT")][-1]
    fields = dict(field.split(": ", 1) for field in report.strip().split("\t") if ": " in field)
    return {key: float(value.split()[0]) for key, value in fields.items() if value.endswith(" ms")}


# --- what a client gets ---


@needs_node
def test_each_piece_reaches_boto3_when_it_is_written(functions):
    name = streaming(
        functions,
        "out.setContentType('text/plain'); for (const part of ['one', 'two', 'three']) { out.write(part);"
        " await pause(1000); } console.log('done'); out.end();",
    )
    stream = Stream(functions, name, LogType="Tail").read()
    assert stream.chunks == [b"one", b"two", b"three"]
    assert stream.times[0] + 0.2 < stream.times[2], "the first piece waited for the last"
    assert stream.response["StatusCode"] == 200 and stream.response["ExecutedVersion"] == "$LATEST"
    assert stream.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert stream.headers["x-amzn-remapped-content-type"] == "text/plain"
    assert stream.error == (None, None)
    assert f"START RequestId: {stream.request_id}" in stream.log and "\tINFO\tdone" in stream.log
    assert f"REPORT RequestId: {stream.request_id}" in stream.log


@needs_node
def test_what_is_billed_lasts_to_the_end_of_the_stream(server, functions):
    name = streaming(functions, "out.write('x'); await pause(600); out.end();")
    Stream(functions, name).read()
    Stream(functions, name).read()
    measured = usage(server, name)
    assert 600 <= measured["Duration"] <= measured["Billed Duration"] < 3000


@needs_node
def test_plain_invoke_collects_a_streamed_response(functions):
    name = streaming(functions, "if (event.fail) { out.write('x'); await pause(10); throw new TypeError('bad'); } out.write('{\"a\":'); out.end('1}');")
    answer = functions.invoke(name, {}, LogType="Tail")
    assert (answer.payload, answer.error) == ({"a": 1}, None)
    failed = functions.invoke(name, {"fail": True})
    assert (failed.error, failed.payload["errorType"], failed.payload["errorMessage"]) == ("Unhandled", "TypeError", "bad")
    assert functions.invoke(name, {}).payload == {"a": 1}


@needs_node
def test_plain_invoke_of_a_streamed_response_that_is_too_large(functions):
    name = streaming(functions, "let n = event; while (n-- > 0) if (!out.write(Buffer.alloc(1 << 20, 32))) await new Promise((r) => out.once('drain', r)); out.end('1');", Timeout=110)
    assert functions.invoke(name, 5).payload == 1
    refused = functions.invoke(name, 7)
    assert refused.payload["errorType"] == "Function.ResponseSizeTooLarge"
    assert "(6291556 bytes)" in refused.payload["errorMessage"]
    assert functions.invoke(name, 1).payload == 1


def test_a_response_that_is_not_streamed_is_one_piece(functions):
    name = functions.python("def handler(event, context):\n    if event == 'x': raise KeyError('y')\n    return event * 2\n")
    large = Stream(functions, name, "x" * 2_000_000).read()
    assert large.chunks == [json.dumps("x" * 4_000_000).encode()]
    assert large.headers["x-amzn-remapped-content-type"] == "application/json"
    failed = Stream(functions, name, "x", LogType="Tail").read()
    assert failed.chunks == [] and failed.error[0] == "Unhandled"
    assert failed.error[1]["errorType"] == "KeyError" and "[ERROR] KeyError" in failed.log


def test_qualifiers_and_errors_before_the_start_are_those_of_invoke(functions):
    name = functions.python("def handler(event, context): return context.function_version")
    functions.client.publish_version(FunctionName=name)
    functions.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    for qualifier, version in [("live", "1"), ("1", "1"), ("$LATEST", "$LATEST")]:
        stream = Stream(functions, name, Qualifier=qualifier).read()
        assert (json.loads(stream.body), stream.response["ExecutedVersion"]) == (version, version)
    dry = functions.client.invoke_with_response_stream(FunctionName=name, InvocationType="DryRun")
    assert dry["StatusCode"] == 204
    for options, code in [
        ({"FunctionName": "nobody"}, "ResourceNotFoundException"),
        ({"FunctionName": name, "Qualifier": "9"}, "ResourceNotFoundException"),
        ({"FunctionName": name, "InvocationType": "Event"}, "ValidationException"),
        ({"FunctionName": name, "Payload": b"no json"}, "InvalidRequestContentException"),
        ({"FunctionName": name, "Payload": b"1" * (6 << 20) + b"1"}, "RequestTooLargeException"),
        ({"FunctionName": name, "TenantId": "x"}, "InvalidParameterValueException"),
    ]:
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            functions.client.invoke_with_response_stream(**options)
        assert refused.value.response["Error"]["Code"] == code


def test_a_stranger_may_not(server):
    stranger = server.client(credentials=["AKIA0000000000000000", "x"])
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        stranger.invoke_with_response_stream(FunctionName="any")
    assert refused.value.response["Error"]["Code"] == "UnrecognizedClientException"


# --- what goes wrong midway ---


@needs_node
def test_an_error_midway_is_in_the_last_event(functions):
    name = streaming(functions, "out.write('half'); await pause(50); throw new RangeError('midway');")
    stream = Stream(functions, name, LogType="Tail").read()
    assert stream.body == b"half"
    assert stream.error[0] == "RangeError" and stream.error[1]["errorMessage"] == "midway"
    assert "Invoke Error" in stream.log
    report = [line for line in stream.log.splitlines() if line.startswith("REPORT")][0]
    assert "Status:" not in report


@needs_node
def test_a_timeout_midway_is_in_the_last_event(functions):
    name = streaming(functions, "out.write('half'); await pause(60000);", Timeout=1)
    stream = Stream(functions, name, LogType="Tail").read()
    assert stream.body == b"half"
    assert stream.error[0] == "Sandbox.Timedout"
    assert "Task timed out after 1.00 seconds" in stream.error[1]["errorMessage"]
    assert "Status: timeout" in stream.log and 0.9 < stream.times[-1] < 30


@needs_node
def test_a_crash_midway_is_in_the_last_event(functions):
    name = streaming(functions, "out.write('half'); await pause(50); process.exit(7);")
    stream = Stream(functions, name).read()
    assert stream.body == b"half"
    assert stream.error[0] == "Runtime.ExitError" and "exit status 7" in stream.error[1]["errorMessage"]
    assert Stream(functions, name).read().body == b"half"


@needs_node
def test_two_hundred_megabytes_pass_and_not_a_byte_more(server, functions):
    name = streaming(
        functions,
        "const block = Buffer.alloc(1 << 20, 120); let left = event; while (left > 0) {"
        " const part = block.subarray(0, Math.min(left, block.length)); left -= part.length;"
        " if (!out.write(part)) await new Promise((r) => out.once('drain', r)); } out.end();",
        Timeout=110,
    )
    before = resident_mb(server.process.pid)
    for size, error in [(MOST, None), (MOST + 1, "Function.ResponseSizeTooLarge")]:
        stream = Stream(functions, name, size)
        received = 0
        for event in stream.events:
            received += len(event.get("PayloadChunk", {}).get("Payload", b""))
            stream.complete = event.get("InvokeComplete")
        assert (received, stream.error[0]) == (MOST, error)
    assert "(209715200 bytes)" in stream.error[1]["errorMessage"]
    assert resident_mb(server.process.pid) - before < 40, "it was held in memory"
    assert Stream(functions, name, 3).read().body == b"xxx"


# --- clients that are slow, or go away ---


class Raw:
    """A signed request on a bare socket, whose answer nobody reads unless told to."""

    def __init__(self, server, name: str, event=None):
        host, port = server.endpoint.removeprefix("http://").split(":")
        body = json.dumps(event).encode()
        url = f"{server.endpoint}/2021-11-15/functions/{name}/response-streaming-invocations"
        request = botocore.awsrequest.AWSRequest("POST", url, data=body, headers={"Host": f"{host}:{port}"})
        credentials = botocore.credentials.Credentials(*server.credentials())
        botocore.auth.SigV4Auth(credentials, "lambda", REGION).add_auth(request)
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        path = url.removeprefix(server.endpoint)
        self.socket = socket.socket()
        # A small window, so that little is on its way.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        self.socket.connect((host, int(port)))
        self.socket.sendall(f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()


def wait_for_line(server, name: str, found, within: float = 120) -> list[str]:
    """The function's log once `found` says so of it."""
    end = time.monotonic() + within
    while not found(lines := logs(server, name)):
        assert time.monotonic() < end, lines
        time.sleep(0.1)
    return lines


ENDLESS = (
    "let n = 0; const block = Buffer.alloc(65536); while (n < 3000) { n++;"
    " if (!out.write(block)) await new Promise((r) => out.once('drain', r));"
    " if (n === 1 || n === 3000) console.log(`wrote ${n}`); } out.end();"
)


@needs_node
def test_a_client_that_does_not_read_stops_the_writer_until_its_timeout(server, functions):
    name = streaming(functions, ENDLESS, Timeout=3)
    before = resident_mb(server.process.pid)
    with Raw(server, name):
        lines = wait_for_line(server, name, lambda lines: any(line.startswith("REPORT") for line in lines))
        assert resident_mb(server.process.pid) - before < 40, "it was held in memory"
    assert any("wrote 1" in line for line in lines) and not any("wrote 3000" in line for line in lines)
    assert "Status: timeout" in [line for line in lines if line.startswith("REPORT")][0]


@needs_node
def test_a_client_that_goes_away_does_not_stop_the_function(server, functions):
    name = streaming(functions, ENDLESS, Timeout=110)
    with Raw(server, name) as raw:
        assert b"200 OK" in raw.socket.recv(1000)
        wait_for_line(server, name, lambda lines: any("wrote 1" in line for line in lines))
    lines = wait_for_line(server, name, lambda lines: any(line.startswith("REPORT") for line in lines))
    assert any("wrote 3000" in line for line in lines), "it was stopped"
    assert "Status:" not in [line for line in lines if line.startswith("REPORT")][0]


@needs_node
def test_slow_clients_do_not_keep_others_waiting(server, functions):
    slow = streaming(functions, ENDLESS, Timeout=40)
    quick = functions.python("def handler(event, context): return event")
    functions.invoke(quick, 0)
    clients = [Raw(server, slow) for _ in range(8)]
    wait_for_line(server, slow, lambda lines: sum("wrote 1" in line for line in lines) == len(clients))
    began = time.monotonic()
    for number in range(20):
        assert functions.invoke(quick, number).payload == number
    assert time.monotonic() - began < 25
    for client in clients:
        client.socket.close()


@needs_node
def test_many_streams_at_once_stay_apart(server, functions):
    name = streaming(functions, "for (let n = 0; n < 50; n++) { out.write(`${event}.`); await pause(2); } out.end();", Timeout=30)
    bodies: dict[int, bytes] = {}

    def read(number: int) -> None:
        bodies[number] = Stream(Functions(server), name, number).read().body

    threads = [threading.Thread(target=read, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert bodies == {number: f"{number}.".encode() * 50 for number in range(12)}


# --- custom runtimes ---


def test_a_custom_runtime_streams_with_its_type(functions, custom):
    do = (
        "s = Stream(identity, 'Content-Type: text/event-stream')\n"
        "for part in (b'data: 1', b'data: 2'): s.chunk(part); time.sleep(1)\n"
        "assert s.end() == 202"
    )
    stream = Stream(functions, custom, {"do": do}).read()
    assert stream.chunks == [b"data: 1", b"data: 2"] and stream.times[0] + 0.2 < stream.times[1]
    assert stream.headers["x-amzn-remapped-content-type"] == "text/event-stream"
    untyped = Stream(functions, custom, {"do": "s = Stream(identity); s.chunk(b'x'); s.end()"}).read()
    assert untyped.headers["x-amzn-remapped-content-type"] == "application/octet-stream"
    assert functions.invoke(custom, {"do": do}).raw == b"data: 1data: 2"


def test_an_error_in_the_trailers_of_a_custom_runtime(functions, custom):
    document = json.dumps({"errorType": "My.Kind", "errorMessage": "no", "deep": [1]})
    do = (
        "s = Stream(identity, 'Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body')\n"
        "s.chunk(b'half')\n"
        "s.end('Lambda-Runtime-Function-Error-Type: My.Kind\\r\\nLambda-Runtime-Function-Error-Body: "
        + base64.b64encode(document.encode()).decode() + "\\r\\n')"
    )  # fmt: skip
    stream = Stream(functions, custom, {"do": do}).read()
    assert (stream.body, stream.error) == (b"half", ("My.Kind", json.loads(document)))
    buffered = functions.invoke(custom, {"do": do})
    assert (buffered.error, buffered.payload) == ("Unhandled", json.loads(document))


def test_the_official_rust_client_streams(functions):
    program = target() / "debug/lacewing-test-rust-runtime"
    stripped = subprocess.run(["strip", "-o", "/dev/stdout", str(program)], capture_output=True)
    name = functions.custom(stripped.stdout or program.read_bytes())
    stream = Stream(functions, name, {"stream": 3, "pause_ms": 1000}).read()
    prelude, body = stream.body.split(bytes(8))
    assert (json.loads(prelude)["statusCode"], body) == (200, b"part 1\npart 2\npart 3\n")
    assert stream.headers["x-amzn-remapped-content-type"] == "application/vnd.awslambda.http-integration-response"
    assert stream.times[0] + 0.2 < stream.times[-1]
    assert functions.invoke(name, {"stream": 1}).raw.endswith(bytes(8) + b"part 1\n")


@needs_node
def test_the_official_node_client_streams(functions):
    packages = cache() / "workloads/aws-lambda-ric"
    extra = {
        "app.js": "exports.handler = awslambda.streamifyResponse(async (event, out) => {"
        " out = awslambda.HttpResponseStream.from(out, { statusCode: 200 }); out.write('a');"
        " await new Promise((r) => setTimeout(r, 1000)); if (event.fail) throw new TypeError('midway'); out.end('b'); });"
    }
    bootstrap = "#!/bin/sh\nexec node node_modules/aws-lambda-ric/bin/index.mjs app.handler\n"
    name = functions.create(
        merge(zip_directories(packages, extra=extra), bootstrap), Runtime="provided.al2023", MemorySize=512,
    )  # fmt: skip
    ours = functions.create(zip_directories(extra=extra), Runtime=node_runtime(), Handler="app.handler")
    for runtime in (name, ours):
        stream = Stream(functions, runtime, {}).read()
        assert stream.body == b'{"statusCode":200}' + bytes(8) + b"ab", runtime
        assert stream.times[0] + 0.2 < stream.times[-1]
        failed = Stream(functions, runtime, {"fail": True}).read()
        assert failed.body.endswith(b"a") and failed.error[0] == "TypeError"
        assert set(failed.error[1]) == {"errorType", "errorMessage", "trace"}


@pytest.mark.parametrize(
    ("do", "body", "code"),
    [
        ("s = Stream(identity)\ntry:\n  while True: s.chunk(b'x' * 65536)\nexcept OSError: time.sleep(60)",
         MOST, "Function.ResponseSizeTooLarge"),
        ("s = Stream(identity); s.chunk(b'half'); time.sleep(60)", b"half", "Sandbox.Timedout"),
        ("s = Stream(identity); s.chunk(b'half'); s.socket.close(); time.sleep(5)", b"half", "Runtime.TruncatedResponse"),
        ("s = Stream(identity); s.chunk(b'half'); s.raw('zz\\r\\n'); s.socket.recv(100)", b"half", "Runtime.TruncatedResponse"),
        ("s = Stream(identity); s.chunk(b'half'); s.raw('0\\r\\n' + 'a: b\\r\\n' * 10000 + '\\r\\n'); s.socket.recv(100)",
         b"half", "Runtime.TruncatedResponse"),
        ("s = Stream(identity); s.chunk(b'half')\n"
         "s.end('Lambda-Runtime-Function-Error-Type: \\xff\\r\\nLambda-Runtime-Function-Error-Body: ???\\r\\n')",
         b"half", "Runtime.Unknown"),
        ("s = Stream(identity); s.chunk(b'half'); os._exit(3)", b"half", "Runtime.ExitError"),
        ("a, b = Stream(identity), None; a.chunk(b'one'); time.sleep(1); b = Stream(identity)\n"
         "twice = b.status(); a.chunk(str(twice).encode()); a.end()", b"one403", None),
        ("s = Stream(identity); s.chunk(b'one'); time.sleep(1); s.chunk(str(post(identity + '/error')).encode()); s.end()",
         b"one403", None),
        ("s = Stream('00000000-0000-0000-0000-000000000000'); refused = s.status()\n"
         "s = Stream(identity); s.chunk(str(refused).encode()); s.end(); assert post(identity + '/response') == 403",
         b"400", None),
        ("s = Stream(identity, mode='sideways'); refused = s.status(); s = Stream(identity); s.chunk(str(refused).encode()); s.end()",
         b"400", None),
        ("post(identity + '/error', b'{\"errorType\": \"Early\"}')", b"", "Unhandled"),
    ],
    ids=["endless", "never-ends", "breaks-off", "no-chunk", "many-trailers", "bad-trailers", "exits", "twice", "error-after",
         "forged-id", "mode", "error-before"],
)  # fmt: skip
def test_what_hostile_runtimes_stream_ends_at_their_own_caller(functions, do, body, code):
    name = functions.custom(CUSTOM, MemorySize=256, Timeout=4 if code == "Sandbox.Timedout" else 110)
    stream = Stream(functions, name, {"do": do}).read()
    received = len(stream.body) if body == MOST else stream.body
    assert (received, stream.complete.get("ErrorCode")) == (body, code)
    again = Stream(functions, name, {"do": "s = Stream(identity); s.chunk(b'fine'); s.end()"}).read()
    assert (again.body, again.error) == (b"fine", (None, None))


FRAMES = """
import os, struct, time
def frame(kind, body=b""):
    return struct.pack("<IB", len(body) + 1, kind) + body
def handler(event, context):
    if event is None:
        return "fine"
    for part in eval(event):
        os.write(3, part)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("frames", "body", "code"),
    [
        ("[frame(5, b'a/b'), frame(6, b'x'), frame(7)]", b"x", None),
        ("[frame(5, b'a\\nb'), frame(6, b'x'), frame(5, b'again')]", b"x", "Runtime.Unknown"),
        ("[frame(6, b'x')]", b"", "Unhandled"),
        ("[frame(7)]", b"", "Unhandled"),
        ("[frame(5), frame(6, b'x' * 65537)]", b"", "Runtime.Unknown"),
        ("[frame(5), frame(6, b'x'), frame(3, b'1')]", b"x", "Runtime.Unknown"),
        ("[frame(5)] + [frame(6, b'x' * 65536)] * 4000", MOST, "Function.ResponseSizeTooLarge"),
        ("[frame(4, struct.pack('<I', 5) + b'Large' + bytes(6000000))]", b"", "Unhandled"),
        ("[frame(5), frame(4, struct.pack('<I', 6000000) + b'x' * 6000000)]", b"", "x" * 1024),
        ("[frame(5, b'\\xff' * 9000), frame(6)] + [frame(6, b'y')] * 3 + [frame(7)]", b"yyy", None),
    ],
    ids=["forged", "begun-twice", "no-begin", "only-end", "long-piece", "two-answers", "endless", "large-error", "large-code",
         "bad-type"],
)  # fmt: skip
def test_forged_frames_of_a_stream_end_at_their_own_caller(functions, frames, body, code):
    name = functions.python(FRAMES, Timeout=110)
    stream = Stream(functions, name, frames).read()
    received = len(stream.body) if body == MOST else stream.body
    assert (received, stream.complete.get("ErrorCode")) == (body, code)
    assert len(stream.complete.get("ErrorDetails", "")) <= 1 << 20


# --- the server stops ---


@needs_node
def test_a_stream_is_finished_before_the_server_stops(own_server):
    server = own_server()
    functions = Functions(server)
    name = streaming(functions, "out.write('one'); await pause(1500); out.end('two');")
    stream = Stream(functions, name)
    assert stream.next() == b"one"
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    stream.read()
    stopping.join(40)
    assert (stream.chunks, stream.error) == ([b"two"], (None, None))
    assert not server.is_running()


# --- other clients ---


@needs_node
def test_the_sdk_for_javascript_reads_the_stream(server, functions, tmp_path):
    packages = cache() / "workloads/aws-sdk-lambda"
    name = streaming(functions, "out.write('one'); await pause(300); if (event.fail) throw new TypeError('x'); out.end('two');")
    script = tmp_path / "client.mjs"
    script.write_text(
        """
import { createRequire } from 'node:module';
const { LambdaClient, InvokeWithResponseStreamCommand } = createRequire(process.argv[2] + '/')('@aws-sdk/client-lambda');
const client = new LambdaClient({});
const input = { FunctionName: process.argv[3], Payload: process.argv[4], LogType: 'Tail' };
const answer = await client.send(new InvokeWithResponseStreamCommand(input));
const chunks = [];
let complete;
for await (const event of answer.EventStream) {
  if (event.PayloadChunk) chunks.push(Buffer.from(event.PayloadChunk.Payload).toString());
  if (event.InvokeComplete) complete = event.InvokeComplete;
}
console.log(JSON.stringify({ chunks, complete, version: answer.ExecutedVersion }));
"""
    )

    def read(payload: str) -> dict:
        answer = subprocess.run(
            ["node", str(script), str(packages), name, payload],
            env=server.environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    whole = read("{}")
    assert (whole["chunks"], whole["version"]) == (["one", "two"], "$LATEST")
    assert "LogResult" in whole["complete"] and "ErrorCode" not in whole["complete"]
    failed = read('{"fail": true}')
    assert failed["chunks"] == ["one"] and failed["complete"]["ErrorCode"] == "TypeError"


@needs_node
def test_the_command_line_prints_pieces_as_they_come(server, functions):
    name = streaming(
        functions,
        "out.write('one\\n'); await pause(2000); if (event.fail) throw new TypeError('x'); console.log('said'); out.end('two');",
    )

    def start(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(binary()), "invoke", name, "--stream", *arguments],
            env=server.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    functions.invoke(name, {})
    running = start("--log")
    assert running.stdout.readline() == "one\n"
    assert running.poll() is None, "it printed only when all was there"
    out, errors = running.communicate(timeout=30)
    assert (out, running.returncode) == ("two\n", 0) and "\tINFO\tsaid" in errors
    raw, _ = start("--raw").communicate(timeout=30)
    assert raw == "one\ntwo"
    failed = start("--payload", '{"fail": true}')
    out, errors = failed.communicate(timeout=30)
    assert (out, failed.returncode) == ("one\n", 4) and "TypeError" in errors
    documents = [json.loads(line) for line in start("--output", "json").communicate(timeout=30)[0].splitlines()]
    assert [document["payload"] for document in documents[:-1]] == ["one\n", "two"]
    last = documents[-1]
    assert (last["statusCode"], last["functionError"], last["executedVersion"]) == (200, None, "$LATEST")
    assert last["contentType"] == "application/octet-stream"
