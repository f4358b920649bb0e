"""Load at 16 connections with the server killed in its middle: nothing acknowledged is lost, and
nothing is left over. LACEWING_SOAK=1 runs the long form.

Like is compared with like: both counts are taken of an idle server that has served more than one
load, for the first fills its caches.
"""

import concurrent.futures
import contextlib
import gc
import http.client
import itertools
import json
import os
import threading
import time
import urllib3

import botocore.exceptions

from harness import Functions, info, resident_mb, steady, zip_of
from test_asynchronous import handled
from test_serve import cgroups, descendants, mounts, wait_until

TOTAL = 10_000 if os.environ.get("LACEWING_SOAK") else 2_000
CONNECTIONS = 16
EVENT_EVERY = 10
CREATE_EVERY = 200
# A heap of several threads keeps some free pages, more or fewer.
MEMORY_MB = 5

SOURCE = "def handler(event, context):\n    print('handled', event['n'])\n    return event['n']\n"


class Load:
    """Sixteen callers that keep calling, whatever happens to the server."""

    def __init__(self, server, name: str, first: int):
        self.server, self.name = server, name
        self.numbers = itertools.count(first)
        self.middle, self.end = first + TOTAL // 2, first + TOTAL
        self.lock = threading.Lock()
        self.answered: set[int] = set()
        self.accepted: set[int] = set()
        self.created: set[str] = set()
        self.wrong: list = []
        self.half = threading.Event()

    def run(self) -> None:
        client = self.server.client(max_pool_connections=1, read_timeout=30)
        while True:
            with self.lock:
                number = next(self.numbers)
                if number == self.middle:
                    self.half.set()
            if number >= self.end:
                return
            while not self.attempt(client, number):
                time.sleep(0.1)

    def attempt(self, client, number: int) -> bool:
        try:
            if number % CREATE_EVERY == 0:
                self.create(client, f"crash-{number}")
            if number % EVENT_EVERY == 0:
                client.invoke(FunctionName=self.name, InvocationType="Event", Payload=json.dumps({"n": number}))
                self.accepted.add(number)
                return True
            answer = client.invoke(FunctionName=self.name, Payload=json.dumps({"n": number}))
            payload = json.load(answer["Payload"])
        except (
            botocore.exceptions.ConnectionError,
            botocore.exceptions.HTTPClientError,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            ConnectionError,
        ):
            return False
        if payload == number:
            self.answered.add(number)
        else:
            self.wrong.append((number, payload))
        return True

    def create(self, client, name: str) -> None:
        try:
            client.create_function(
                FunctionName=name, Runtime="provided.al2023", Handler="x",
                Role="arn:aws:iam::000000000000:role/lambda",
                Code={"ZipFile": zip_of({"bootstrap": "#!/bin/sh\n"})},
            )  # fmt: skip
        except client.exceptions.ResourceConflictException:
            pass
        self.created.add(name)


def run(load: Load, at_half=lambda: None) -> None:
    """Runs a load to its end, and sees that all of it was answered and is kept."""
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        callers = [pool.submit(load.run) for _ in range(CONNECTIONS)]
        assert load.half.wait(300)
        at_half()
        for caller in concurrent.futures.as_completed(callers, 600):
            caller.result()
    assert not load.wrong
    assert len(load.answered) + len(load.accepted) == TOTAL
    assert wait_until(lambda: load.accepted <= set(handled(load.server, load.name, 0)), 120), "lost events"
    listed = {
        function["FunctionName"]
        for page in load.server.client().get_paginator("list_functions").paginate()
        for function in page["Functions"]
    }
    assert load.created <= listed
    gc.collect()


def counts(server) -> dict:
    pid = server.process.pid
    return {
        "processes": len(descendants(pid)),
        "mounts": len(mounts(server.data_dir)),
        "cgroups": len(cgroups(server)),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
    }


def is_as_before(before: dict, after: dict) -> bool:
    """Whether nothing more is there; a descriptor that was about to be closed may have been counted before."""
    fewer = min(before["descriptors"], after["descriptors"])
    return after == {**before, "descriptors": fewer}


def memory_mb(server) -> float:
    """Resident memory of the server, its launcher and what that keeps beside it, without sandboxes."""
    here, below = os.readlink("/proc/self/ns/pid"), []
    for pid in descendants(server.process.pid):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            below += [pid] * (os.readlink(f"/proc/{pid}/ns/pid") == here)
    return resident_mb(server.process.pid, *below)


def idle(server, helpers: int) -> bool:
    """Whether nothing is left but the server, its launcher and what that keeps beside it."""
    return len(descendants(server.process.pid)) == helpers


def crash(server, name: str, rest) -> None:
    """Two loads, and two more with a kill in the first of them; `rest` waits until nothing goes on."""

    def restart() -> None:
        server.kill()
        server.listen = server.endpoint.removeprefix("http://")
        server.start()

    run(Load(server, name, 0))
    run(Load(server, name, TOTAL))
    rest()
    before, memory_before = steady(lambda: counts(server)), memory_mb(server)

    run(Load(server, name, 2 * TOTAL), at_half=restart)
    run(Load(server, name, 3 * TOTAL))
    rest()
    settled = wait_until(lambda: is_as_before(before, counts(server)))
    assert settled, f"before {before}, after {counts(server)}"
    settled = wait_until(lambda: memory_mb(server) - memory_before <= MEMORY_MB)
    memory = f"memory before {memory_before:.1f} MB, after {memory_mb(server):.1f} MB"
    print(memory)
    assert settled, memory


def test_a_kill_under_load_loses_nothing_acknowledged(own_server, tmp_path):
    config = tmp_path / "lacewing.toml"
    config.write_text('[limits]\nkeep_alive = "1s"\nblank_instances = 0\nempty_sandboxes = 0\n'
                      '[sandbox]\ninterpreters = "started"\n')
    server = own_server("--config", str(config))
    helpers = len(descendants(server.process.pid))

    def rest() -> None:
        assert wait_until(lambda: idle(server, helpers), 30), "idle Instances stay"

    crash(server, Functions(server).python(SOURCE), rest)


def test_a_kill_under_load_loses_nothing_with_the_usual_settings(own_server):
    """Instances stay for long and blank ones wait for the next: the function goes, and then they are as many
    as at any rest."""
    server = own_server()
    name = Functions(server).python(SOURCE)

    def rest() -> None:
        server.client().delete_function(FunctionName=name)
        Functions(server).python(SOURCE, name=name)
        # Of eight blank Instances half are of the only kind that is in use.
        quiet = {"starting": 0, "idle": 0, "busy": 0, "retiring": 0, "blank": 4}
        assert wait_until(lambda: quiet.items() <= info(server)["instances"].items(), 60), info(server)

    crash(server, name, rest)
