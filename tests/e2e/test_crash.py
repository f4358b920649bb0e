"""Load at 16 connections with the server killed in its middle: nothing acknowledged is lost, and
nothing is left over. LACEWING_SOAK=1 runs the long form."""

import concurrent.futures
import gc
import http.client
import itertools
import json
import os
import pathlib
import threading
import time
import urllib3

import botocore.exceptions

from harness import Functions, zip_of
from test_asynchronous import handled
from test_serve import cgroups, descendants, mounts, wait_until

TOTAL = 10_000 if os.environ.get("LACEWING_SOAK") else 2_000
CONNECTIONS = 16
EVENT_EVERY = 10
CREATE_EVERY = 200

SOURCE = "def handler(event, context):\n    print('handled', event['n'])\n    return event['n']\n"


class Load:
    """Sixteen callers that keep calling, whatever happens to the server."""

    def __init__(self, server, name: str):
        self.server, self.name = server, name
        self.numbers = itertools.count()
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
                if number == TOTAL // 2:
                    self.half.set()
            if number >= TOTAL:
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


def counts(server) -> dict:
    pid = server.process.pid
    return {
        "processes": len(descendants(pid)),
        "mounts": len(mounts()),
        "cgroups": len(cgroups(server)),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
    }


def no_more_than(before: dict, after: dict) -> bool:
    """Equal, but that the pools of idle connections and threads may have shrunk meanwhile."""
    shrinks = ("descriptors",)
    return all(after[what] == before[what] or (what in shrinks and after[what] < before[what]) for what in before)


def resident_mb(server) -> float:
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_a_kill_under_load_loses_nothing_acknowledged(own_server, tmp_path):
    config = tmp_path / "lacewing.toml"
    config.write_text('[limits]\nkeep_alive = "1s"\n')
    server = own_server("--config", str(config))
    own = Functions(server)
    name = own.python(SOURCE)
    own.invoke(name, {"n": -1})
    assert wait_until(lambda: len(descendants(server.process.pid)) == 1, 30), "idle Instances stay"
    before, memory_before = counts(server), resident_mb(server)

    load = Load(server, name)
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        callers = [pool.submit(load.run) for _ in range(CONNECTIONS)]
        assert load.half.wait(300)
        server.kill()
        server.listen = server.endpoint.removeprefix("http://")
        server.start()
        for caller in concurrent.futures.as_completed(callers, 600):
            caller.result()

    assert not load.wrong
    assert len(load.answered) + len(load.accepted) == TOTAL
    assert wait_until(lambda: load.accepted <= set(handled(server, name, 0)), 120), "lost events"
    listed = {
        function["FunctionName"]
        for page in server.client().get_paginator("list_functions").paginate()
        for function in page["Functions"]
    }
    assert load.created <= listed

    gc.collect()
    settled = wait_until(lambda: no_more_than(before, counts(server)), 30)
    assert settled, f"before {before}, after {counts(server)}"
    assert resident_mb(server) < memory_before + 64
