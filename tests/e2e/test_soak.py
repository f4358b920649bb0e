"""Healthy functions beside such that crash, leak, hang and fork without end: no call of a healthy one fails,
and when all are deleted nothing of any of them stays. LACEWING_SOAK=1 goes on for 30 minutes and tells each minute
how it goes, LACEWING_SOAK_SECONDS for another time; else it is 20 seconds."""

import collections
import concurrent.futures
import gc
import itertools
import os
import re
import threading
import time

from harness import SLOWNESS, Functions, node_runtime, resident_mb, settle, slowly
from test_asynchronous import handled
from test_retirement import Host, instances
from test_serve import wait_until

SECONDS = float(os.environ.get("LACEWING_SOAK_SECONDS", 1800 if os.environ.get("LACEWING_SOAK") else 20))
# Of the load before the first count, which fills the server's caches.
WARM_UP = min(SECONDS / 2, 60)
MINUTE = 60
# How long a load may go on beyond its time until every end of every function was seen.
PATIENCE = 240
# What the server may have grown by.
MEMORY_MB = 64
# What the function that leaks may have, and how much of it a call takes.
MEMORY_SIZE, LEAKED_MB = 128, 24

ECHO = "def handler(event, context):\n    return event\n"
NOTE = "def handler(event, context):\n    print('handled', event)\n"
NODE = "exports.handler = async (event) => event;\n"
STREAM = """
exports.handler = awslambda.streamifyResponse(async (event, out) => {
  for (let piece = 0; piece < 4; piece++) { out.write(JSON.stringify(event)); await new Promise((next) => setTimeout(next, 5)); }
  out.end();
});
"""
# Each is called with 0, 1, 2, ...
CRASH = """
import os, signal
def handler(event, context):
    if event % 3 == 0: os._exit(3)
    if event % 3 == 1: os.kill(os.getpid(), signal.SIGSEGV)
    raise RuntimeError("as ever")
"""
LEAK = f"MB = {LEAKED_MB}" + """
kept = []
def handler(event, context):
    kept.append(b"x" * (MB << 20))
    open(f"/tmp/{event}", "wb").write(bytes(1 << 20))
    return len(kept)
"""
HANG = """
import subprocess, time
def handler(event, context):
    subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; setsid sleep 3600 & sleep 3600"], start_new_session=True)
    time.sleep(3600)
"""
# Every other one ends its Instance with all that it has started in it.
FORK_BOMB = """
import errno, os, time
def handler(event, context):
    for count in range(10**6):
        try:
            pid = os.fork()
        except OSError as error:
            refused = errno.errorcode[error.errno]
            break
        if pid == 0:
            time.sleep(3600)
            os._exit(0)
    if event % 2: os._exit(4)
    return [count, refused]
"""


class Function:
    """One that is called again and again, with 0, 1, 2, ..."""

    def __init__(self, kind: str, name: str, pause: float, call, ends: set[str]):
        # How its calls may end, as `call` says; `ended` counts how they did.
        self.kind, self.name, self.pause, self.call, self.ends = kind, name, pause, call, ends
        self.ended: collections.Counter[str] = collections.Counter()

    def keep_calling(self, server, over: threading.Event) -> None:
        own = Functions(server)
        for number in itertools.count():
            if over.is_set():
                return
            end = self.call(own, self.name, number)
            self.ended[end] += 1
            assert end in self.ends, f"{self.kind}: call {number} ended with {end}"
            over.wait(self.pause)


def invoke(own: Functions, name: str, number: int) -> str:
    answer = own.invoke(name, number)
    if answer.error is None:
        return "echoed" if answer.payload == number else "answered"
    return answer.payload["errorType"]


def leak(own: Functions, name: str, number: int) -> str:
    """The same, of a function that says how often it has leaked, which it never does beyond its memory."""
    answer = own.invoke(name, number, LogType="Tail")
    if "Error Type: Runtime.OutOfMemory" in answer.log:
        return "OutOfMemory"
    return "leaked" if answer.error is None and answer.payload * LEAKED_MB <= MEMORY_SIZE else str(answer.raw)


def echo(own: Functions, name: str, number: int) -> str:
    """The same of the compiled function."""
    answer = own.invoke(name, f"echo {number}")
    return "echoed" if answer.payload == str(number) else str(answer.raw)


def stream(own: Functions, name: str, number: int) -> str:
    events = list(own.client.invoke_with_response_stream(FunctionName=name, Payload=str(number))["EventStream"])
    body = b"".join(event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event)
    return "echoed" if body == str(number).encode() * 4 else str(events[-1])


def send(own: Functions, name: str, number: int) -> str:
    return "sent" if own.invoke(name, number, InvocationType="Event").status == 202 else "not sent"


def healthy(own: Functions, compiled: bytes) -> list[Function]:
    patient = {"Timeout": slowly(60)}
    found = [
        Function("python", own.python(ECHO, **patient), 0.02, invoke, {"echoed"}),
        Function("compiled", own.custom(compiled, **patient), 0.02, echo, {"echoed"}),
        Function("events", own.python(NOTE, **patient), 0.5, send, {"sent"}),
    ]
    if node_runtime():
        found.append(Function("node", own.node(NODE, **patient), 0.02, invoke, {"echoed"}))
        found.append(Function("stream", own.node(STREAM, **patient), 0.1, stream, {"echoed"}))
    return found


def hostile(own: Functions, lacking: set[str]) -> list[Function]:
    exit, late = "Runtime.ExitError", "Sandbox.Timedout"
    ends = {"crash": {exit, "RuntimeError"}, "hang": {late}, "fork bomb": {"answered", exit}}
    found = [
        Function("crash", own.python(CRASH, Timeout=slowly(20)), 0.3, invoke, ends["crash"]),
        Function("hang", own.python(HANG, Timeout=1), 0.3, invoke, ends["hang"]),
        Function("fork bomb", own.python(FORK_BOMB, Timeout=slowly(60), MemorySize=2048), 1, invoke, ends["fork bomb"]),
    ]
    if "cgroup-memory" not in lacking:
        name = own.python(LEAK, Timeout=slowly(20), MemorySize=MEMORY_SIZE)
        found.append(Function("leak", name, 0.2, leak, {"leaked", "OutOfMemory"}))
    return found


class Load:
    """All functions at once, for a while."""

    def __init__(self, server, compiled: bytes, lacking: set[str]):
        self.server, self.own = server, Functions(server)
        self.functions = healthy(self.own, compiled) + hostile(self.own, lacking)

    def is_seen(self) -> bool:
        return all(set(function.ended) == function.ends for function in self.functions)

    def run(self, seconds: float, tell=lambda load, elapsed: None) -> None:
        over, began = threading.Event(), time.monotonic()
        until, latest = began + seconds, began + seconds + PATIENCE * SLOWNESS
        with concurrent.futures.ThreadPoolExecutor(len(self.functions)) as pool:
            callers = [pool.submit(function.keep_calling, self.server, over) for function in self.functions]
            try:
                while (now := time.monotonic()) < until or (now < latest and not self.is_seen()):
                    left = min(max(until - now, 1), MINUTE)
                    done, _ = concurrent.futures.wait(callers, left, concurrent.futures.FIRST_COMPLETED)
                    for caller in done:
                        caller.result()
                    tell(self, time.monotonic() - began)
            finally:
                over.set()
        for caller in callers:
            caller.result()

    def ended(self) -> dict[str, dict[str, int]]:
        return {function.kind: dict(function.ended) for function in self.functions}

    def fill_the_stock(self) -> None:
        """How many blank Instances wait of a kind depends on which was wanted last, and before that: each is, in turn."""
        for kind in ("node", "python"):
            for function in self.functions:
                if function.kind == kind:
                    self.own.client.update_function_configuration(FunctionName=function.name, Description="another")
                    self.own.client.get_waiter("function_updated_v2").wait(FunctionName=function.name)
                    assert self.own.invoke(function.name, 0).error is None
                    settle(self.server)

    def finish(self) -> None:
        """Every kind of end was seen, every event was handled, and all functions are deleted."""
        assert self.is_seen(), self.ended()
        for function in self.functions:
            if function.call is send:
                sent = set(range(function.ended["sent"]))
                assert wait_until(lambda: sent <= set(handled(self.server, function.name, 0)), 120), "lost events"
        self.fill_the_stock()
        for function in self.functions:
            self.own.client.delete_function(FunctionName=function.name)
        assert wait_until(lambda: instances(self.server) == 0, 60)
        settle(self.server)
        gc.collect()


def test_no_healthy_call_fails_beside_hostile_functions_and_nothing_stays(own_server, compiled, lacking, capsys):
    server = own_server()
    host = Host(server)

    def tell(load: Load, elapsed: float) -> None:
        with capsys.disabled():
            print(f"\n{elapsed:6.0f} s, {resident_mb(server.process.pid):.0f} MB, {host.counts()}\n  {load.ended()}", flush=True)

    first = Load(server, compiled, lacking)
    first.run(WARM_UP)
    first.finish()
    before, descriptors, memory = host.counts(), host.descriptors(), resident_mb(server.process.pid)
    print(f"standing: {before}, {descriptors} descriptors and {memory:.0f} MB of the server")
    load = Load(server, compiled, lacking)
    load.run(SECONDS, tell)
    load.finish()
    assert wait_until(lambda: host.counts() == before, 120), f"before {before}, after {host.counts()}"
    assert wait_until(lambda: host.descriptors() <= descriptors), (descriptors, host.descriptors())
    assert resident_mb(server.process.pid) < memory + MEMORY_MB, (memory, resident_mb(server.process.pid))
    print(f"after {SECONDS:.0f} s {host.descriptors()} descriptors and {resident_mb(server.process.pid):.0f} MB: {load.ended()}")
    assert not re.search(r"panicked|ERROR", server.log.read_text())
