"""Instances without a function: cold starts get them, one function at most each, and nothing of them stays."""

import concurrent.futures
import os
import pathlib
import platform

import pytest

from harness import SLOWNESS, Functions, info
from test_serve import cgroups, descendants, wait_until

NODE = "exports.handler = async () => require('crypto').randomUUID() + ' ' + Math.random() + ' ' + process.pid;\n"
UNIQUE = """
import os, random, secrets, tempfile, uuid
with open("/tmp/mark", "x") as file: file.write("mine")
def handler(event, context):
    return [random.random(), str(uuid.uuid4()), secrets.token_hex(8), os.urandom(8).hex(),
            os.environ["AWS_LAMBDA_FUNCTION_NAME"], os.listdir("/tmp"), os.uname().nodename, hash("text")]
"""


@pytest.fixture
def server_with(own_server, tmp_path):
    def start(count: int, interpreters: str = "forked"):
        file = tmp_path / "lacewing.toml"
        limits = f"[limits]\nblank_instances = {count}\nkeep_alive = '1s'\n"
        file.write_text(f"{limits}[sandbox]\ninterpreters = '{interpreters}'\n")
        return own_server("--config", str(file))

    return start


def counts(server) -> dict:
    return info(server)["instances"]


def is_blank(pid: int) -> bool:
    """Whether this is an interpreter that was started without a function, or is a copy of one."""
    try:
        if pathlib.Path(f"/proc/{pid}/ns/pid").samefile("/proc/self/ns/pid"):
            return False  # such as one that is only copied
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().endswith((b"\0blank\0", b"\0origin\0"))
    except OSError:
        return False


def blanks(server) -> list[int]:
    return [pid for pid in descendants(server.process.pid) if is_blank(pid)]


@pytest.mark.parametrize("interpreters", ["forked", "started"])
def test_each_cold_start_gets_one_of_its_own(server_with, interpreters):
    server = server_with(8, interpreters)
    own = Functions(server)
    names = [own.python(UNIQUE) for _ in range(12)]
    assert wait_until(lambda: counts(server)["blank"] == 4), "half are of the kind in use"
    answers = []
    for name in names:
        answer = own.invoke(name, LogType="Tail")
        assert answer.error is None and "Init Duration" in answer.log, answer.payload
        answers.append(answer.payload)
        assert wait_until(lambda: counts(server)["blank"] == 4)
    assert counts(server)["blank_used"] == len(names)
    assert [answer[4] for answer in answers] == names
    assert all(answer[5] == ["mark"] for answer in answers), "each has a /tmp of its own"
    # Copies of one interpreter have its seed of hashes.
    for column in [0, 1, 2, 3] + [7] * (interpreters == "started"):
        assert len({answer[column] for answer in answers}) == len(names), column
    assert server.stop() == 0


def test_more_at_once_than_there_are_start_all_the_same(server_with):
    server = server_with(2)
    own = Functions(server)
    # A caller waits for 30 seconds at most, whatever the host: a slow one does not start eight in that time.
    many = 8 if SLOWNESS == 1 else 4
    names = [own.python(UNIQUE) for _ in range(many)]
    assert wait_until(lambda: counts(server)["blank"] == 1)
    with concurrent.futures.ThreadPoolExecutor(many) as pool:
        answers = list(pool.map(lambda name: Functions(server).invoke(name).payload, names))
    assert [answer[4] for answer in answers] == names
    assert 1 <= counts(server)["blank_used"] <= len(names)
    assert server.stop() == 0


def test_each_kind_has_some_and_all_are_gone_at_the_end(server_with):
    server = server_with(8)
    own = Functions(server)
    own.python(UNIQUE)
    node = own.node(NODE)
    assert wait_until(lambda: counts(server)["blank"] == 6), "four for Python, which came first, two for Node.js"
    assert own.invoke(node).error is None and counts(server)["blank_used"] == 1
    assert wait_until(lambda: counts(server)["blank"] == 8), "four for each, as there is room"
    waiting = blanks(server)
    assert len(waiting) >= 6
    assert server.stop() == 0
    assert not cgroups(server)
    assert wait_until(lambda: not any(is_blank(pid) for pid in waiting))


@pytest.mark.parametrize("interpreters", ["forked", "started"])
def test_none_are_made_where_none_are_wanted(server_with, interpreters):
    server = server_with(0, interpreters)
    own = Functions(server)
    name = own.python("def handler(event, context): return open('/proc/self/cmdline').read()")
    can_fork = interpreters == "forked" and os.geteuid() == 0 and platform.machine() == "x86_64"
    assert wait_until(lambda: counts(server)["origins"] == can_fork)
    assert own.invoke(name).payload.endswith("origin\0") == can_fork, "forks are another matter"
    assert (counts(server)["blank"], counts(server)["blank_used"]) == (0, 0)
    assert server.stop() == 0


def test_one_that_was_killed_is_not_given_to_a_function(server_with):
    server = server_with(2)
    own = Functions(server)
    name = own.python(UNIQUE)
    assert wait_until(lambda: counts(server)["blank"] == 1)
    killed = blanks(server)
    for pid in killed:
        os.kill(pid, 9)
    assert wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in killed))
    assert own.invoke(name).error is None
    assert counts(server)["blank_used"] == 0
    assert wait_until(lambda: counts(server)["blank"] == 1), "another is made"
    assert server.stop() == 0


def test_after_a_restart_there_are_some_before_the_first_call(server_with):
    server = server_with(4)
    own = Functions(server)
    name = own.python(UNIQUE)
    assert server.stop() == 0
    server.start()
    assert wait_until(lambda: counts(server)["blank"] == 2)
    assert Functions(server).invoke(name).error is None
    assert counts(server)["blank_used"] == 1
    assert server.stop() == 0
