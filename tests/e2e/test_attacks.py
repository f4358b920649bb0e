"""Hostile functions and hostile clients: what they try fails, and neither the server nor a neighbour
feels it. What a sandbox shows and hides is in test_environment, what a signature must hold in
test_signatures."""

import concurrent.futures
import contextlib
import os
import pathlib
import socket
import statistics
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import botocore.exceptions
import pytest

from harness import PYTHON, ROLE, SLOWNESS, Functions, resident_mb, settle, slowly, zip_of
from test_asynchronous import NOTE, handled
from test_serve import cgroups, descendants, wait_until

ECHO = "def handler(event, context): return event\n"
# What every hostile Python function may use.
PRELUDE = """
import ctypes, os, signal, socket, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
def frame(kind, body=b""):
    return struct.pack("<IB", len(body) + 1, kind) + body
def fork_each(count, work):
    for _ in range(count):
        if os.fork() == 0:
            try:
                work()
            finally:
                os._exit(0)
def write_for_ever(fd, content):
    while True:
        os.write(fd, content)
"""


@pytest.fixture
def hostile(functions):
    """A function that makes a hostile function and removes it, and what it left running, in the end."""
    names = []

    def make(body: str, **options) -> str:
        names.append(functions.python(PRELUDE + body, **{"Timeout": slowly(5), **options}))
        return names[-1]

    yield make
    for name in names:
        functions.client.delete_function(FunctionName=name)


@pytest.fixture
def neighbour(functions):
    name = functions.python(ECHO)
    functions.invoke(name, 0)
    return name


# How often a neighbour's latency is looked at, until it is good once.
TRIES = 3


class Latency:
    """How long a neighbour's warm calls take while something else goes on. One that fails, or that is
    answered wrongly, fails the test; of what is over at once there are still `LEAST` calls."""

    LEAST = 5

    def __init__(self, functions, name: str):
        self.functions, self.name = functions, name
        self.times: list[float] = []
        self.over = threading.Event()

    def __enter__(self) -> "Latency":
        own = Functions(self.functions.server)
        own.invoke(self.name, 1)
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.calls = self.pool.submit(self.run, own)
        return self

    def run(self, own: Functions) -> None:
        while not self.over.wait(0.02) or len(self.times) < self.LEAST:
            began = time.monotonic()
            answer = own.invoke(self.name, 1)
            assert answer.raw == b"1", answer.raw
            self.times.append(time.monotonic() - began)

    def __exit__(self, *_) -> None:
        self.over.set()
        with self.pool:
            self.calls.result()

    def assert_goes_on(self) -> None:
        """Far above what a busy machine needs; what one call takes is judged by the soak of `test_exhaustion`."""
        assert len(self.times) >= self.LEAST, self.times
        assert statistics.median(self.times) < 0.5 * SLOWNESS, self.times

    def is_usable(self) -> bool:
        """Far above what a busy machine needs, far below a thread that is kept from everybody."""
        return statistics.median(self.times) < 0.5 * SLOWNESS and max(self.times) < 1.5 * SLOWNESS


def assert_it_slows_nobody(functions, neighbour: str, attack) -> None:
    """What else the machine does makes a latency worse and never better: the best of some tries counts."""
    seen = []
    for _ in range(TRIES):
        with Latency(functions, neighbour) as latency:
            attack()
        if latency.is_usable():
            return
        seen.append(latency.times)
    pytest.fail(f"a neighbour waited: {seen}")


def invoke_at_once(functions, name: str, count: int) -> list:
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(Functions(functions.server).invoke, name, 1) for _ in range(count)]
        return [call.result(slowly(60)) for call in calls]


# From inside: the channel to the server.


@pytest.mark.parametrize(
    "forged",
    [
        "frame(3, b'\"forged\"') * 3",
        "frame(1) * 3",
        "frame(2, bytes(8))",
        "frame(99, b'x')",
        "bytes(4)",
        "frame(4, struct.pack('<I', 2**31) + b'x')",
        "os.urandom(7)",
    ],
    ids=["answers", "ready", "init-error", "unknown", "empty", "long-string", "garbage"],
)
def test_forged_frames_end_at_the_invocation_that_sent_them(functions, neighbour, hostile, forged):
    name = hostile(
        "def handler(event, context):\n"
        f"    if event == 'forge': os.write(3, {forged})\n"
        "    return event\n",
        Timeout=slowly(3),
    )
    functions.invoke(name, "forge")
    # Whatever was left over is told as broken, never as the answer to somebody else's event.
    second = functions.invoke(name, "second")
    assert second.payload == "second" or second.payload["errorType"] == "Runtime.Unknown"
    assert functions.invoke(name, "third").payload == "third"
    assert functions.invoke(neighbour, 2).payload == 2


@pytest.mark.parametrize("count", [1, 4])
def test_a_flood_on_the_channel_is_timed_out_and_slows_nobody(functions, neighbour, hostile, count):
    name = hostile(
        "def handler(event, context):\n"
        "    os.write(3, struct.pack('<I', 0xffffffff))\n"
        "    fork_each(30, lambda: write_for_ever(3, bytes(65536)))\n"
        "    time.sleep(60)\n",
        Timeout=2,
    )

    def attack() -> None:
        began = time.monotonic()
        answers = invoke_at_once(functions, name, count)
        assert {answer.payload["errorType"] for answer in answers} <= {
            "Sandbox.Timedout", "Function.ResponseSizeTooLarge",
        }  # fmt: skip
        assert time.monotonic() - began < 30 * SLOWNESS

    assert_it_slows_nobody(functions, neighbour, attack)


@pytest.mark.parametrize("content", [b"\n" * 65536, b"x" * 65536], ids=["empty-lines", "no-line-end"])
def test_endless_output_slows_nobody_and_fills_no_memory(functions, server, neighbour, hostile, content):
    before = resident_mb(server.process.pid)
    name = hostile(
        "def handler(event, context):\n"
        f"    fork_each(20, lambda: write_for_ever(1, {content[:1]!r} * {len(content)}))\n"
        "    time.sleep(60)\n",
        Timeout=2,
    )

    def attack() -> None:
        began = time.monotonic()
        answers = invoke_at_once(functions, name, 2)
        assert time.monotonic() - began < 30 * SLOWNESS
        assert resident_mb(server.process.pid) - before < 512
        assert [answer.payload["errorType"] for answer in answers] == ["Sandbox.Timedout"] * 2

    assert_it_slows_nobody(functions, neighbour, attack)


@pytest.mark.parametrize(
    "content",
    [
        "struct.pack('>IIQ', 0xa55a0003, 0, 0) * 4096",
        "struct.pack('>IIQ', 0xa55a0003, 2**32 - 1, 0) * 4096",
        "bytes(65536)",
    ],
    ids=["empty", "huge", "garbage"],
)
def test_a_flood_of_log_records_is_timed_out(functions, neighbour, hostile, content):
    name = hostile(
        f"def handler(event, context):\n    write_for_ever(4, {content})\n",
        Timeout=1,
    )
    assert functions.invoke(name).payload["errorType"] == "Sandbox.Timedout"
    assert functions.invoke(neighbour, 3).payload == 3


RUNTIME = '''#!/usr/bin/env python3
import json, os, socket, time
HOST, PORT = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
PATH = b"/2018-06-01/runtime/invocation/"
def ask(head, body=b""):
    with socket.create_connection((HOST, int(PORT)), 30) as client:
        head += b" HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
        client.sendall(head + b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
        answer = b""
        while part := client.recv(65536):
            answer += part
    return answer
def following():
    head = ask(b"GET " + PATH + b"next")
    found = [line for line in head.split(b"\\r\\n") if line.lower().startswith(b"lambda-runtime-aws-request-id")]
    return found[0].split(b": ")[1]
def answer(request, body):
    return int(ask(b"POST " + PATH + request + b"/response", body)[9:12])
'''


def test_a_custom_runtime_answers_only_the_event_it_has_and_only_once(functions):
    name = functions.custom(
        RUNTIME
        + "first = following()\n"
        + "ids = [b'6bc28136-ec24-4b1e-9d30-0b1bd5a7bf92', b'..%2fnext', b'%00']\n"
        + "seen = [answer(id, b'1') for id in ids]\n"
        + "answer(first, json.dumps(seen).encode())\n"
        + "again = answer(first, b'\"again\"')\n"
        + "second = following()\n"
        + "old = answer(first, b'\"old\"')\n"
        + "answer(second, json.dumps([again, old]).encode())\n"
        + "following()\n"
    )
    assert functions.invoke(name).payload == [400, 400, 400]
    assert functions.invoke(name).payload == [403, 400]
    functions.client.delete_function(FunctionName=name)


@pytest.mark.parametrize(
    "attack",
    [
        "c.sendall(b'Content-Length: 999999999999999\\r\\n\\r\\n')\nwhile True: c.sendall(bytes(65536))\n",
        "c.sendall(b'Content-Length: 10\\r\\n\\r\\n1')\ntime.sleep(60)\n",
        "c.sendall(b'Transfer-Encoding: chunked\\r\\n\\r\\n')\nwhile True: c.sendall(b'1\\r\\nx\\r\\n' * 10000)\n",
        "c.sendall(b'Transfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n')\n"
        "while True: c.sendall(b'a: ' + b'x' * 60000 + b'\\r\\n')\n",
    ],
    ids=["length", "slow", "chunks", "trailers"],
)
def test_an_endless_answer_of_a_custom_runtime_is_ended(functions, server, neighbour, attack):
    before = resident_mb(server.process.pid)
    name = functions.custom(
        RUNTIME
        + "c = socket.create_connection((HOST, int(PORT)))\n"
        + "c.sendall(b'POST ' + PATH + following() + b'/response HTTP/1.1\\r\\nHost: x\\r\\n')\n"
        + attack,
        Timeout=2,
    )

    def attack() -> None:
        began = time.monotonic()
        answer = functions.invoke(name)
        assert answer.error == "Unhandled" and time.monotonic() - began < 30 * SLOWNESS
        time.sleep(0.5)
        assert resident_mb(server.process.pid) < before + 128

    assert_it_slows_nobody(functions, neighbour, attack)
    functions.client.delete_function(FunctionName=name)


# From inside: what will not end. What can be used up is in test_exhaustion.


@pytest.mark.parametrize(
    "act",
    [
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
        "os.closerange(0, 64); time.sleep(60)",
        "fork_each(8, lambda: (os.setsid(), signal.signal(15, signal.SIG_IGN), time.sleep(60))); time.sleep(60)",
        "fork_each(8, lambda: (os.setsid(), os.kill(os.getpid(), signal.SIGSTOP))); time.sleep(60)",
    ],
    ids=["stopped", "deaf", "closed", "daemons", "stopped-daemons"],
)
def test_a_function_that_will_not_end_is_ended_with_all_it_began(functions, server, hostile, act):
    name = hostile(f"def handler(event, context):\n    {act}\n", Timeout=1)
    # One that is used in place of a blank one leaves as many as there were.
    settle(server)
    before, groups = len(descendants(server.process.pid)), len(cgroups(server))
    assert functions.invoke(name).payload["errorType"] == "Sandbox.Timedout"
    assert wait_until(lambda: len(descendants(server.process.pid)) <= before)
    assert wait_until(lambda: len(cgroups(server)) <= groups)


def test_the_first_process_of_a_sandbox_cannot_be_hurt(functions, hostile):
    name = hostile(
        "def handler(event, context):\n"
        "    for number in (1, 2, 3, 9, 17, 18, 19, 20):\n"
        "        try: os.kill(1, number)\n"
        "        except PermissionError: pass\n"
        "    refused = []\n"
        "    for path in ('mem', 'environ', 'oom_score_adj', 'root/etc'):\n"
        "        try: open(f'/proc/1/{path}', 'r+b').close()\n"
        "        except PermissionError: refused.append(path)\n"
        "    refused.append(libc.ptrace(16, 1, 0, 0))\n"
        "    return refused\n"
    )
    assert functions.invoke(name).payload == ["mem", "environ", "oom_score_adj", "root/etc", -1]
    assert functions.invoke(name).error is None


def test_a_killed_server_leaves_nothing_of_functions_that_will_not_end(own_server):
    server = own_server()
    own = Functions(server)
    stuck = "fork_each(20, lambda: (os.setsid(), signal.signal(15, signal.SIG_IGN), os.kill(os.getpid(), 19)))"
    name = own.python(f"{PRELUDE}def handler(event, context):\n    {stuck}\n    time.sleep(60)\n", Timeout=60)

    def call() -> None:
        with contextlib.suppress(botocore.exceptions.BotoCoreError):
            Functions(server).invoke(name)

    caller = threading.Thread(target=call)
    caller.start()
    assert wait_until(lambda: len(descendants(server.process.pid)) > 20)
    processes = descendants(server.process.pid)
    server.kill()
    caller.join(60)
    assert wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in processes))
    assert wait_until(lambda: not cgroups(server))


# From outside, without a key.

POST = b"POST /2015-03-31/functions HTTP/1.1\r\nHost: x\r\n"
MALFORMED = {
    "garbage": b"\x00\xff" * 100 + b"\r\n\r\n",
    "nul-in-path": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "two-lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "length-and-chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "negative-length": POST + b"Content-Length: -1\r\n\r\n",
    "length-overflow": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "chunk-overflow": POST + b"Transfer-Encoding: chunked\r\n\r\n1ffffffffffffffff\r\nabc",
    "folded-header": b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "space-before-colon": b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
    "many-headers": b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"".join(b"h%d: v\r\n" % n for n in range(200)) + b"\r\n",
    "long-header": b"GET /health HTTP/1.1\r\nHost: x\r\na: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "long-path": b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "http2-garbage": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
}  # fmt: skip


def address(server) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(server.endpoint)
    return parts.hostname, parts.port


def exchange(server, content: bytes, seconds: float = 1) -> bytes:
    """Sends bytes and gives what comes back until the server closes, or is silent for so long."""
    answer = b""
    with socket.create_connection(address(server), 30) as client, contextlib.suppress(OSError):
        client.settimeout(seconds)
        client.sendall(content)
        while part := client.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_malformed_http_is_refused(server, content):
    answer = exchange(server, content)
    assert b"HTTP/1.1 200" not in answer and b" 5" not in answer[8:11]
    assert server.health() == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    "path",
    ["info", "doctor", "runtimes", "functions/x/logs", "code/000000000000/x", "%69nfo", "../v1/info", ""],
)
def test_the_admin_api_says_nothing_without_a_signature(server, method, path):
    head = f"{method} /_lacewing/v1/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = exchange(server, head.encode(), 20)
    assert answer.startswith(b"HTTP/1.1 403 ")


def test_silent_and_slow_clients_keep_nobody_out(server, functions, neighbour):
    with contextlib.ExitStack() as stack:
        for number in range(300):
            client = stack.enter_context(socket.create_connection(address(server), 30))
            if number % 2:
                client.sendall(POST + b"Content-Length: 1000000\r\n\r\n{")
        assert server.health() == 200
        assert functions.invoke(neighbour, 4).payload == 4


# From outside, with a key or a link.


def fetch(url: str, method: str = "GET") -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_link_to_code_opens_that_code_only(functions, neighbour):
    other = functions.python(ECHO + "# another\n")
    link = functions.client.get_function(FunctionName=neighbour)["Code"]["Location"]
    path, query = link.split("?")
    assert fetch(link) == 200
    changed = [
        link.replace(neighbour, other),
        link.replace("/000000000000/", "/111111111111/"),
        link.replace("X-Amz-Expires=600", "X-Amz-Expires=604800"),
        f"{path}?X-Amz-Expires=604800&{query}",
        f"{link}&Qualifier=1",
        f"{path.rsplit('/code/', 1)[0]}/info?{query}",
        link.split("&X-Amz-Signature")[0],
    ]
    assert link not in changed
    assert {fetch(url) for url in changed} <= {400, 403}
    assert {fetch(link, method) for method in ("POST", "PUT", "DELETE")} == {403}


@pytest.mark.parametrize(
    "name",
    ["..", "../../etc", "a/b", "x\0y", "%2e%2e", "\u202ename", "😀", "a" * 5000,
     "arn:aws:lambda:us-east-1:111111111111:function:x", "arn:aws:lambda:eu-west-1:000000000000:function:x"],
)  # fmt: skip
def test_a_name_is_a_name_and_no_path(server, name):
    # The client's own checks would keep most of these from being sent.
    client = server.client(parameter_validation=False)
    for call in (client.get_function, client.invoke, client.delete_function):
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            call(FunctionName=name)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403, 404)


def test_deep_json_is_no_danger(functions, neighbour):
    deep = b"[" * 1_000_000
    with pytest.raises(functions.client.exceptions.InvalidRequestContentException):
        functions.client.invoke(FunctionName=neighbour, Payload=deep)
    functions.client.invoke(FunctionName=neighbour, Payload=deep[:100_000] + b"]" * 100_000)
    assert functions.server.health() == 200


# A full disk.


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing(own_server, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", disk], check=True)
    try:
        server = own_server(name="disk/data")
        own = Functions(server)
        name = own.python(NOTE)
        assert own.invoke(name, {"n": 0}, InvocationType="Event").status == 202
        assert wait_until(lambda: 0 in handled(server, name, 0))
        filler = disk / "filler"

        def fill() -> None:
            with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 12))

        fill()
        accepted = [0]
        for number in range(1, 6):
            with contextlib.suppress(own.client.exceptions.ServiceException, botocore.exceptions.ClientError):
                own.invoke(name, {"n": number}, InvocationType="Event")
                accepted.append(number)
        # The server may have made room meanwhile, by folding up what it wrote.
        fill()
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            own.client.create_function(
                FunctionName="no-room", Runtime=PYTHON, Handler="app.handler", Role=ROLE,
                Code={"ZipFile": zip_of({"app.py": ECHO, "more": os.urandom(100_000)})},
            )  # fmt: skip
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert server.health() == 200 and own.invoke(name, {"n": -1}).error is None

        server.kill()
        filler.unlink()
        server.start()
        again = Functions(server)
        assert [f["FunctionName"] for f in again.client.list_functions()["Functions"]] == [name]
        assert again.invoke(name, {"n": 100}).error is None
        # An event that was under way at the kill is taken up again some seconds later.
        assert wait_until(lambda: set(accepted) <= set(handled(server, name, 0)))
        server.stop()
    finally:
        if server.is_running():
            server.kill()
        wait_until(lambda: subprocess.run(["umount", disk], capture_output=True).returncode == 0, 20)
