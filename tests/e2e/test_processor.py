"""How functions share the processors: by weight always, by a quota with `--cpu hard`."""

import concurrent.futures
import os
import pathlib

from harness import SLOWNESS, Functions
from test_serve import cgroups

# Uses processor time while the module is loaded, which is the init phase, and as long as it is told to.
BUSY = """
import time

def burn(seconds):
    start, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - start < seconds:
        pass
    return time.process_time() - cpu

burn(1)

def handler(event, context):
    return burn(event)
"""
# MB of memory that AWS gives one whole processor for.
WHOLE = 1769


def throttled(server) -> int:
    """How many periods the functions of this server had to wait in."""
    files = [pathlib.Path(group) / "cpu.stat" for group in cgroups(server)]
    texts = [file.read_text() for file in files if file.exists()]
    found = [line.split() for text in texts for line in text.splitlines()]
    return sum(int(words[1]) for words in found if words[0] == "nr_throttled")


def test_a_hard_quota_holds_and_is_not_in_force_during_init(own_server):
    server = own_server("--cpu", "hard")
    functions = Functions(server)
    name = functions.python(BUSY, MemorySize=128, Timeout=30)
    functions.invoke(name, 0)
    # Init is longer than ten periods; what comes after it has the quota, and more of it on a slow host.
    before = throttled(server)
    assert before <= 2 * min(SLOWNESS, 4)
    used = functions.invoke(name, 3).payload
    assert throttled(server) > before + 5
    # One period and what a tick may run over are never saved up for.
    assert used <= 3 * 128 / WHOLE * 1.3 + 0.1


def test_weights_share_a_contended_processor_in_proportion_to_memory(own_server):
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        server = own_server()
    finally:
        os.sched_setaffinity(0, cpus)
    functions = Functions(server)
    small = functions.python(BUSY, MemorySize=512, Timeout=60)
    large = functions.python(BUSY, MemorySize=2048, Timeout=60)
    for name in (small, large):
        functions.invoke(name, 0)
    assert throttled(server) == 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(functions.invoke, name, 12) for name in (small, large)]
        used_small, used_large = (one.result().payload for one in both)
    assert 2.5 < used_large / used_small < 6
