"""Instances are frozen between invocations, and nobody notices but what runs in their background."""

import concurrent.futures
import time

from harness import Functions, logs
from test_serve import cgroups, descendants, wait_until

COUNTING = """
import threading, time
count = 0
def work():
    global count
    while True:
        count += 1
        time.sleep(0.001)
threading.Thread(target=work, daemon=True).start()
def handler(event, context):
    seen = count
    time.sleep(event.get("sleep", 0))
    return seen, count
"""
NODE = """
const { Worker } = require('worker_threads');
const shared = new Int32Array(new SharedArrayBuffer(4));
new Worker(`const { workerData } = require('worker_threads');
            setInterval(() => Atomics.add(workerData, 0, 1), 1);`, { eval: true, workerData: shared }).unref();
exports.handler = async () => Atomics.load(shared, 0);
"""
CHATTY = """
import os, threading, time
def late(): time.sleep(0.02); os.write(1, b"late line\\n"); time.sleep(30)
def handler(event, context):
    threading.Thread(target=late, daemon=True).start()
"""
PARENT = """
import os, subprocess, time
def handler(event, context):
    if event == "wait": time.sleep(3)
    if event == "start": subprocess.Popen(["/bin/sh", "-c", "for _ in $(seq 100); do sleep 0.01; done; touch /tmp/child"])
    return os.listdir("/tmp")
"""


def test_a_background_thread_makes_no_progress_between_invocations(functions):
    name = functions.python(COUNTING)
    _, before = functions.invoke(name, {"sleep": 1}).payload
    assert before > 50, "it works while the handler runs"
    time.sleep(2)
    after, _ = functions.invoke(name, {}).payload
    # A few milliseconds pass before it is frozen, more on a busy machine.
    assert after - before < 500, "in two seconds it would have counted to more than that"


def test_a_worker_of_node_is_frozen_too(functions):
    name = functions.node(NODE)
    assert wait_until(lambda: functions.invoke(name).payload > 0)
    before = functions.invoke(name).payload
    time.sleep(2)
    assert functions.invoke(name).payload - before < 500


def test_a_child_process_is_frozen_and_goes_on_later(functions):
    name = functions.python(PARENT)
    functions.invoke(name, "start")
    time.sleep(2.5)
    # It sleeps in many small steps: timers run on while it is frozen, so a freeze costs it one step at the least.
    assert functions.invoke(name, 0).payload == [], "it had a few milliseconds of its 1000"
    # While a handler runs it is not.
    assert wait_until(lambda: functions.invoke(name, "wait").payload == ["child"])


def test_frozen_time_counts_for_nothing(functions, server):
    name = functions.python("import time\ndef handler(event, context):\n"
                            "    time.sleep(0.01)\n    return context.get_remaining_time_in_millis()\n",
                            Timeout=2)  # fmt: skip
    for _ in range(3):
        assert 300 < functions.invoke(name).payload <= 2000
        time.sleep(2.2)
    reports = [line for line in logs(server, name) if line.startswith("REPORT")]
    billed = [int(line.split("Billed Duration: ")[1].split(" ms")[0]) for line in reports[1:]]
    assert all(10 <= duration < 2000 for duration in billed), billed


def test_what_it_wrote_late_is_in_the_log_all_the_same(functions, server):
    name = functions.python(CHATTY)
    functions.invoke(name, 0)
    # Frozen before or after: with the next invocation it is read.
    assert wait_until(lambda: functions.invoke(name, 0).error is None and "late line" in logs(server, name))


def test_many_callers_at_irregular_times_find_it_thawed(functions):
    name = functions.python("def handler(event, context): return event\n")

    def call(number: int) -> bool:
        time.sleep(number % 7 * 0.006)
        return functions.invoke(name, number).payload == number

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for begin in range(0, 300, 30):
            assert all(pool.map(call, range(begin, begin + 30)))
            time.sleep(0.03)


def test_a_server_that_is_killed_leaves_nothing_frozen_behind(own_server):
    server = own_server()
    name = Functions(server).python(COUNTING)
    Functions(server).invoke(name, {})
    time.sleep(0.5)
    processes = descendants(server.process.pid)
    server.kill()
    assert wait_until(lambda: not cgroups(server))
    server.start()
    assert Functions(server).invoke(name, {}).error is None
    assert not processes & descendants(server.process.pid)
    server.stop()
