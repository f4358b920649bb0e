"""Thousands of Instances that start, misbehave and go, and nothing of them stays: processes, daemons,
mounts, cgroups, namespaces, descriptors, files, memory. LACEWING_SOAK=1 runs 20,000 of them."""

import concurrent.futures
import contextlib
import gc
import itertools
import os
import pathlib
import random
import re
import threading
import time

import pytest

from harness import Functions, resident_mb, steady
from test_serve import cgroups, descendants, mounts, wait_until

STARTS = int(os.environ.get("LACEWING_STARTS", 20_000 if os.environ.get("LACEWING_SOAK") else 300))
ROUNDS = 10
CALLERS = 4
# What an Instance does before it goes, and how often among a hundred. `hang` is ended by its timeout.
BEHAVIOURS = {"leave": 80, "daemons 3": 8, "litter 20": 5, "exit": 3, "crash": 3, "hang": 1}
KERNEL_OBJECTS = ("user_namespace", "pid_namespace", "net_namespace", "mnt_cache", "task_struct", "shmem_inode_cache")


class Host:
    """What a server holds of its host."""

    def __init__(self, server):
        self.server = server

    def counts(self) -> dict[str, int]:
        pid = self.server.process.pid
        below = descendants(pid)
        return {
            "processes": len(below),
            "mounts": len(self.mounts(below)),
            "cgroups": len(cgroups(self.server)),
            "namespaces": len(namespaces({pid, *below})),
            "descriptors of the launcher": sum(descriptors(child) for child in below),
            "files for sandboxes": sum(len(files) for _, _, files in os.walk(self.server.data_dir / "run")),
            "files of code": sum(len(files) for _, _, files in os.walk(self.server.data_dir / "code")),
        }

    def mounts(self, below: set[int]) -> list[str]:
        """Those that only the launcher and its sandboxes see, and those of the host that are ours."""
        lines = mounts(self.server.data_dir)
        for pid in below:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                lines += pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        return lines

    def descriptors(self) -> int:
        return descriptors(self.server.process.pid)


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
    config.write_text('[limits]\nkeep_alive = "1s"\n')
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
    names = [own.custom(compiled, Timeout=1) for _ in range(CALLERS)]

    def idle() -> bool:
        return host.counts()["processes"] == standing

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
            f" {host.descriptors()} descriptors and {resident_mb(quick.process.pid):.0f} MB of the server"
        )
    assert sum(ended.values()) == STARTS // ROUNDS * ROUNDS
    assert ended["answered"] > STARTS // 2, ended
    # It lets go of an Instance that ended by itself when that would have been used again, or not at all.
    assert wait_until(lambda: host.descriptors() <= descriptors_before), (descriptors_before, host.descriptors())
    assert resident_mb(quick.process.pid) < memory_before + 64, (memory_before, resident_mb(quick.process.pid))
    print(f"ends: {ended}; objects of the kernel: {objects_before} -> {kernel_objects()}")
    assert not re.search(r"panicked|ERROR", quick.log.read_text())
