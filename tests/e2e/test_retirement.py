"""Thousands of Instances that start, misbehave and go, and nothing of them stays: processes, daemons,
mounts, cgroups, namespaces, links, members of the router's sets, disks, descriptors, files, memory. Of a runtime
of their own, which go by themselves, LACEWING_SOAK=1 runs 20,000; of the stock ones, made of blank ones and ended
by the platform, 600."""

import concurrent.futures
import contextlib
import gc
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import threading
import time

import pytest

from harness import Functions, info, node_runtime, resident_mb, settle, slowly, steady
from test_serve import cgroups, descendants, mounts, wait_until

STARTS = int(os.environ.get("LACEWING_STARTS", 20_000 if os.environ.get("LACEWING_SOAK") else 300))
ROUNDS = 10
CALLERS = 4
# Instances of the stock runtimes, so many in one wave.
STOCK, WAVE = max(STARTS // 33, 24), 8
# Of what is made ahead for them.
KINDS = 4
# What an Instance does before it goes, and how often among a hundred. `hang` is ended by its timeout.
BEHAVIOURS = {"leave": 80, "daemons 3": 8, "litter 20": 5, "exit": 3, "crash": 3, "hang": 1}
# Sandboxes that wait without anything in them, once there was a call; each is one process.
EMPTY = 3
KERNEL_OBJECTS = ("user_namespace", "pid_namespace", "net_namespace", "mnt_cache", "task_struct", "shmem_inode_cache")


class Host:
    """What a server holds of its host."""

    def __init__(self, server):
        self.server = server
        self.router = router_of(server)

    def counts(self) -> dict[str, int]:
        pid = self.server.process.pid
        below = descendants(pid)
        return {
            "processes": len(below),
            "mounts": len(self.mounts(below)),
            "cgroups": len(cgroups(self.server)),
            "namespaces": len(namespaces({pid, *below})),
            "links of the router": len(links(self.router)),
            "members of the router's sets": members(self.router),
            "disks": sum(self.is_own(file) for file in pathlib.Path("/sys/block").glob("loop*/loop/backing_file")),
            "descriptors of the launcher": sum(descriptors(child) for child in below if is_outside(child)),
            "files for sandboxes": sum(len(files) for _, _, files in os.walk(self.server.data_dir / "run")),
            "files of code": sum(len(files) for _, _, files in os.walk(self.server.data_dir / "code")),
        }

    def is_own(self, file: pathlib.Path) -> bool:
        with contextlib.suppress(OSError):  # it is free again
            return str(self.server.data_dir) in file.read_text()
        return False

    def mounts(self, below: set[int]) -> list[str]:
        """Those that only the launcher and its sandboxes see, and those of the host that are ours."""
        lines = mounts(self.server.data_dir)
        for pid in below:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                lines += pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        return lines

    def descriptors(self) -> int:
        return descriptors(self.server.process.pid)


def inside(namespace: str, *command: str) -> str:
    nsenter = ["nsenter", f"--net={namespace}", *command]
    return subprocess.run(nsenter, capture_output=True, text=True, check=True).stdout


def links(namespace: str | None) -> list[str]:
    """Those to sandboxes, which exist or wait."""
    found = re.findall(r"^\d+: (s\d+|up)@", inside(namespace, "ip", "-o", "link"), re.M) if namespace else []
    return [name for name in found if name != "up"] if "up" in found else []


def members(namespace: str | None) -> int:
    if namespace is None:
        return 0
    found = json.loads(inside(namespace, "nft", "--json", "list", "ruleset"))["nftables"]
    return sum(len(entry["set"].get("elem", [])) for entry in found if "set" in entry)


def router_of(server) -> str | None:
    """The router's network namespace, which the launcher has open, if there is one."""
    if "network egress" not in server.ready_line or not all(map(shutil.which, ["nsenter", "ip", "nft"])):
        return None
    pid = server.process.pid
    launcher = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
    open_ones = pathlib.Path(f"/proc/{launcher}/fd").iterdir()
    found = [str(file) for file in open_ones if os.readlink(file).startswith("net:")]
    return next(namespace for namespace in found if links(namespace))


def is_outside(pid: int) -> bool:
    """Whether it is no process of a sandbox: how many a blank one has open depends on its language."""
    with contextlib.suppress(OSError):  # it has ended meanwhile
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    return False


def descriptors(pid: int) -> int:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def namespaces(pids: set[int]) -> set[str]:
    found = set()
    for pid in pids:
        for name in os.listdir("/proc/self/ns"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found.add(os.readlink(f"/proc/{pid}/ns/{name}"))
    return found


def kernel_objects() -> dict[str, int]:
    """How many of each the kernel has, for all of the host: told, not judged."""
    try:
        lines = pathlib.Path("/proc/slabinfo").read_text().splitlines()
    except OSError:
        return {}
    return {line.split()[0]: int(line.split()[1]) for line in lines if line.startswith(KERNEL_OBJECTS)}


@pytest.fixture
def quick(own_server, tmp_path):
    """A server that keeps no idle Instance for long."""
    config = tmp_path / "lacewing.toml"
    config.write_text(f'[limits]\nkeep_alive = "1s"\nempty_sandboxes = {EMPTY}\n')
    return own_server("--config", str(config))


def behaviours(seed: int):
    names, weights = list(BEHAVIOURS), list(BEHAVIOURS.values())
    choose = random.Random(seed)
    while True:
        yield choose.choices(names, weights)[0]


class Round:
    """So many invocations, each of which is an Instance's last."""

    def __init__(self, server, names: list[str], calls: int, seed: int):
        self.server, self.names = server, itertools.cycle(names)
        self.behaviours = itertools.islice(behaviours(seed), calls)
        self.lock = threading.Lock()
        self.ended: dict[str, int] = {}

    def run(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
            for caller in [pool.submit(self.call) for _ in range(CALLERS)]:
                caller.result()

    def call(self) -> None:
        own = Functions(self.server)
        while True:
            with self.lock:
                name, behaviour = next(self.names), next(self.behaviours, None)
            if behaviour is None:
                return
            answer = own.invoke(name, behaviour)
            end = "answered" if answer.error is None else answer.payload["errorType"]
            with self.lock:
                self.ended[end] = self.ended.get(end, 0) + 1


def test_nothing_stays_of_instances_that_went(quick, compiled):
    host, own = Host(quick), Functions(quick)
    # The launcher, and what it keeps beside it.
    standing = host.counts()["processes"]
    names = [own.custom(compiled, Timeout=slowly(1)) for _ in range(CALLERS)]

    def idle() -> bool:
        return host.counts()["processes"] == standing + EMPTY

    Round(quick, names, 40, seed=0).run()
    assert wait_until(idle), host.counts()
    gc.collect()
    before, descriptors_before = steady(lambda: (host.counts(), host.descriptors()))
    memory_before = resident_mb(quick.process.pid)
    objects_before = kernel_objects()
    began = time.monotonic()
    ended: dict[str, int] = {}
    for number in range(1, ROUNDS + 1):
        one = Round(quick, names, STARTS // ROUNDS, seed=number)
        one.run()
        for end, count in one.ended.items():
            ended[end] = ended.get(end, 0) + count
        # A process that was killed while it was in the kernel's hands takes a moment.
        settled = wait_until(lambda: host.counts() == before)
        assert settled, f"before {before}, after {host.counts()}"
        print(
            f"{number * STARTS // ROUNDS:6} starts, {time.monotonic() - began:6.1f} s, {host.counts()},"
            f" {host.descriptors()} descriptors and {resident_mb(quick.process.pid):.0f} MB of the server",
            flush=True,
        )
    assert sum(ended.values()) == STARTS // ROUNDS * ROUNDS
    assert ended["answered"] > STARTS // 2, ended
    # It lets go of an Instance that ended by itself when that would have been used again, or not at all.
    assert wait_until(lambda: host.descriptors() <= descriptors_before), (descriptors_before, host.descriptors())
    assert resident_mb(quick.process.pid) < memory_before + 64, (memory_before, resident_mb(quick.process.pid))
    print(f"ends: {ended}; objects of the kernel: {objects_before} -> {kernel_objects()}")
    assert not re.search(r"panicked|ERROR", quick.log.read_text())


PYTHON = """
import os, socket, subprocess, threading, time
def handler(event, context):
    for number in range(20):
        open(f"/tmp/{event}-{number}", "wb").write(bytes(4096))
    # It is heard of nowhere, and is counted as a connection.
    client = socket.socket(); client.setblocking(False); client.connect_ex(("203.0.113.9", 80))
    if event % 2:
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
        subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; setsid sleep 3600 & sleep 3600"], start_new_session=True)
    return event
"""
NODE = """
const { spawn } = require("child_process"), fs = require("fs"), { Worker } = require("worker_threads");
exports.handler = async (event) => {
  for (let number = 0; number < 20; number++) fs.writeFileSync(`/tmp/${event}-${number}`, Buffer.alloc(4096));
  if (event % 2) {
    new Worker("setInterval(() => {}, 1000)", { eval: true });
    spawn("/bin/sh", ["-c", "trap '' TERM; sleep 3600"], { detached: true, stdio: "ignore" }).unref();
  }
  return event;
};
"""


def frozen(server) -> int:
    """How many groups of this server are."""
    count = 0
    for folder in cgroups(server):
        for name, value in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
            with contextlib.suppress(OSError):
                count += pathlib.Path(folder, name).read_text().strip() == value
    return count


def instances(server) -> int:
    counts = info(server)["instances"]
    return sum(counts[state] for state in ("starting", "idle", "busy", "retiring"))


class Wave:
    """Instances of the stock runtimes, made at once, which the platform ends in one of its ways."""

    def __init__(self, server):
        self.server, self.own = server, Functions(server)
        languages = [(self.own.python, PYTHON)] + [(self.own.node, NODE)] * bool(node_runtime())
        # Of four kinds: a half, a quarter and two eighths of the blank ones are all, so there are always as many.
        sizes = range(512, 512 + KINDS // len(languages))
        kinds = itertools.cycle(itertools.product(sizes, languages))
        self.make = (make(code, EphemeralStorage={"Size": size}) for size, (make, code) in kinds)
        self.names = [next(self.make) for _ in range(WAVE)]

    def run(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
            calls = [pool.submit(Functions(self.server).invoke, name, at) for at, name in enumerate(self.names)]
            assert [call.result().payload for call in calls] == list(range(WAVE))

    def evict(self) -> None:
        """Nobody calls them again."""

    def replace(self) -> None:
        for name in self.names:
            self.own.client.update_function_configuration(FunctionName=name, Description=str(time.monotonic()))

    def delete(self) -> None:
        for name in self.names:
            self.own.client.delete_function(FunctionName=name)
        self.names = [next(self.make) for _ in range(WAVE)]


def test_nothing_stays_of_instances_that_the_platform_ended(own_server, tmp_path):
    config = tmp_path / "lacewing.toml"
    # In other ways they are ended before their time.
    config.write_text('[limits]\nkeep_alive = "5s"\n')
    server = own_server("--config", str(config))
    host, wave = Host(server), Wave(server)
    used, ways = info(server)["instances"]["blank_used"], itertools.cycle([wave.evict, *[wave.replace, wave.delete] * 2])

    def settled() -> dict[str, int]:
        # Once it has learned how far apart the waves are, the pool keeps Instances up to 24 times as long as it is told.
        assert wait_until(lambda: instances(server) == 0, 150), info(server)["instances"]
        settle(server)
        return host.counts()

    for _ in range(3):
        wave.run()
        next(ways)()
    before, descriptors_before, memory_before = settled(), host.descriptors(), resident_mb(server.process.pid)
    print(f"standing: {before}")
    was_frozen = most = 0
    began = time.monotonic()
    for number in range(1, STOCK // WAVE + 1):
        wave.run()
        most = max(most, members(host.router))
        end = next(ways)
        # All that have an end of their own to come sleep by then, but for those that wrote after their answer.
        wait_until(lambda: frozen(server) >= WAVE, 2)
        was_frozen += frozen(server)
        end()
        assert wait_until(lambda: settled() == before, 180), f"{end.__name__}: before {before}, after {host.counts()}"
        if number % 10 == 0:
            print(f"{number * WAVE:6} ended, {time.monotonic() - began:6.1f} s", flush=True)
    print(f"{STOCK // WAVE * WAVE} ended, {was_frozen} of them frozen, {most} members of sets at most, {host.descriptors()} descriptors and"
          f" {resident_mb(server.process.pid):.0f} MB of the server: {host.counts()}")  # fmt: skip
    assert was_frozen > STOCK // 2, "they were to be frozen first"
    assert info(server)["instances"]["blank_used"] - used > STOCK // 2, "they were to be made of blank ones"
    assert wait_until(lambda: host.descriptors() <= descriptors_before, 30), (descriptors_before, host.descriptors())
    assert resident_mb(server.process.pid) < memory_before + 64
    assert not re.search(r"panicked|ERROR", server.log.read_text())
