"""The server as an ordinary user of this host: what holds without root, and that every lack is named.

As root the tests switch to a user id of nobody's. That user has the system's interpreters only, and a
copy of the program in a place that it can read.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

from harness import Functions, Server, binary, logs, zip_of
from test_serve import descendants, wait_until

UID = 54321 if os.geteuid() == 0 else os.geteuid()
SYSTEM_PATH = "/usr/bin:/bin"


def system_python() -> str | None:
    """The identifier of the system's own Python, if it has one that is a runtime."""
    if not os.access("/usr/bin/python3", os.X_OK):
        return None
    ask = "import sys; print('python3.%d' % sys.version_info[1])"
    return subprocess.run(
        ["/usr/bin/python3", "-c", ask], capture_output=True, text=True, check=True
    ).stdout.strip()


needs_python = pytest.mark.skipif(system_python() is None, reason="skipped: no /usr/bin/python3 here")


class User:
    """An ordinary user with a home and a copy of the program."""

    def __init__(self, home: pathlib.Path):
        self.home = home
        self.program = home.parent / "lacewing"
        self.environment = {"PATH": SYSTEM_PATH, "HOME": str(home)}
        if runtime := os.environ.get("XDG_RUNTIME_DIR"):
            self.environment["XDG_RUNTIME_DIR"] = runtime
        self.switch = {"user": UID, "group": UID, "extra_groups": []} if os.geteuid() == 0 else {}

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(self.program), *arguments], env=self.environment, cwd=self.home,
            capture_output=True, text=True, timeout=300, **self.switch,
        )  # fmt: skip

    def server(self, name: str, *arguments: str) -> Server:
        return Server(self.home / name, *arguments, program=self.program, env=self.environment, **self.switch)


@pytest.fixture(scope="module")
def user():
    with tempfile.TemporaryDirectory(prefix="lacewing-user-") as folder:
        os.chmod(folder, 0o755)
        home = pathlib.Path(folder) / "home"
        home.mkdir(mode=0o700)
        shutil.copy(binary(), folder)
        if os.geteuid() == 0:
            os.chown(home, UID, UID)
        yield User(home)


@pytest.fixture(scope="module")
def running(user):
    server = user.server("data").start()
    yield server
    assert server.is_running(), server.log.read_text()
    assert server.stop() == 0, server.log.read_text()


@pytest.fixture(scope="module")
def functions(running):
    return Functions(running)


def python(functions, source: str, **options) -> str:
    return functions.create(zip_of({"app.py": source}), Runtime=system_python(), **options)


def test_every_lack_is_named_with_its_remedy(user, running):
    answer = user.run("doctor", "--here", "--output", "json")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    features = {feature["name"]: feature for feature in document["report"]["features"]}
    lacks = [name for name, it in features.items() if it["required"] and not it["in_force"]]
    assert document["lacks"] == lacks and "uid-range" in lacks and not document["full"]
    for feature in features.values():
        assert feature["in_force"] or (feature["detail"] and feature["remedy"].endswith(".")), feature
    without = [name for name, it in features.items() if not (it["required"] or it["in_force"] or name == "egress")]
    assert document["without"] == without and "tmp-disk" in without
    said = re.search(r"isolation partial \(lacks ([^;)]*); without ([^)]*)\)", running.ready_line)
    assert said is not None, running.ready_line
    assert [names.split(", ") for names in said.groups()] == [lacks, without], running.ready_line


def test_full_isolation_as_a_condition_is_refused(user):
    answer = user.run("serve", "--listen", "127.0.0.1:0", "--isolation", "required", "--data-dir", "no")
    assert answer.returncode != 0 and answer.stdout == ""
    assert "full isolation is required" in answer.stderr
    assert "ordinary user" in answer.stderr and "uid-range" in answer.stderr


def test_the_demo_runs(user):
    answer = user.run("demo")
    assert answer.returncode == 0, answer.stderr
    assert "hello-compiled" in answer.stdout and "partial" in answer.stdout


LOOK = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def attempt(action):
    try:
        return action()
    except OSError as error:
        return f"errno {error.errno}"

def call(number, *arguments):
    return 0 if libc.syscall(number, *arguments) >= 0 else ctypes.get_errno()

def handler(event, context):
    return {
        "uid": os.getuid(),
        "pids": sorted(int(pid) for pid in os.listdir("/proc") if pid.isdigit())[:1],
        "foreign": [pid for pid in event["pids"] if os.path.exists(f"/proc/{pid}/cmdline")
                    and b"serve" in open(f"/proc/{pid}/cmdline", "rb").read()],
        "files": [path for path in event["files"] if os.path.lexists(path)],
        "kill": attempt(lambda: os.kill(-1, 0)),
        "init": attempt(lambda: open("/proc/1/environ").read()),
        "network": attempt(lambda: socket.create_connection(("127.0.0.1", event["port"]), 2)),
        "unshare": call(272, 0x10000000),
        "mount": call(165, 0, 0, 0, 0, 0),
        "ptrace": call(101, 16, 1, 0, 0),
        "usr": attempt(lambda: open("/usr/x", "w")),
        "caps": sorted({line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")}),
        "seccomp": [line.split()[1] for line in open("/proc/self/status") if line.startswith("Seccomp:")],
        "task": attempt(lambda: open("/var/task/x", "w")),
    }
"""


@needs_python
def test_a_function_sees_and_may_nothing_of_its_host(user, running, functions):
    name = python(functions, LOOK)
    files = [str(running.data_dir), str(user.home), str(user.program), "/etc/shadow", "/home", "/run", "/sys"]
    pids = [running.process.pid, *descendants(running.process.pid)]
    port = int(running.endpoint.rsplit(":", 1)[1])
    answer = functions.invoke(name, {"files": files, "pids": pids, "port": port})
    assert answer.error is None, answer.raw
    seen = answer.payload
    assert (seen["uid"], seen["pids"], seen["foreign"], seen["files"]) == (993, [1], [], [])
    assert seen["init"] == "errno 13" and seen["network"] == "errno 111"
    assert (seen["unshare"], seen["mount"], seen["ptrace"]) == (1, 1, 1)
    assert seen["usr"] == "errno 30" and seen["task"] == "errno 30"
    assert seen["caps"] == ["0" * 16] and seen["seccomp"] == ["2"]


@needs_python
def test_signals_to_everybody_reach_nobody_else(running, functions):
    victim = python(functions, "import os\ndef handler(e, c): return os.getpid(), id(os)\n")
    first = functions.invoke(victim, 0).payload
    killer = python(functions, "import os, signal\ndef handler(e, c): os.kill(-1, signal.SIGKILL); return 1\n")
    functions.invoke(killer, 0)
    assert running.is_running() and running.health() == 200
    # The same process as before: nothing of it was hit.
    assert functions.invoke(victim, 0).payload == first


BOMB = """
import os, time
def handler(event, context):
    children = 0
    try:
        while children < event:
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
            children += 1
    except OSError as error:
        return [children, error.errno]
    return [children, 0]
"""


@needs_python
def test_a_fork_bomb_is_bounded_and_its_neighbours_start(running, functions):
    bomb = python(functions, BOMB, Timeout=60, MemorySize=1024)
    children, errno = functions.invoke(bomb, 5000).payload
    assert errno == 11 and children < 1100, (children, errno)
    echo = python(functions, "def handler(e, c): return e\n")
    assert functions.invoke(echo, 7).payload == 7


@needs_python
def test_a_custom_runtime_and_the_platforms_api_work(running, functions):
    bootstrap = (
        "#!/bin/sh\n"
        "while :; do\n"
        "  head=$(mktemp)\n"
        "  body=$(curl -sS -D $head http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next)\n"
        "  id=$(grep -i lambda-runtime-aws-request-id $head | tr -d '\\r' | cut -d' ' -f2)\n"
        "  curl -sS -d \"[$body]\" http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$id/response\n"
        "done\n"
    )
    name = functions.custom(bootstrap)
    assert functions.invoke(name, "x").payload == ["x"]


def test_nothing_is_left_of_a_server_that_was_killed(user):
    server = user.server("killed").start()
    processes = descendants(server.process.pid)
    assert processes
    server.kill()
    assert wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in processes))


@needs_python
def test_a_version_with_snapstart_starts_as_ever_and_says_why(user):
    server = user.server("snapstart", "--substitute-runtimes").start()
    own = Functions(server)
    source = "import os\ndef handler(event, context): return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']\n"
    name = own.python(source, Runtime="python3.12", SnapStart={"ApplyOn": "PublishedVersions"})
    own.client.publish_version(FunctionName=name)
    assert own.invoke(name, Qualifier="1").payload == "on-demand"
    version = own.client.get_function_configuration(FunctionName=name, Qualifier="1")
    assert version["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}
    wanted = "SnapStart is off for this version: the server was not started as root."
    assert any(wanted in line for line in logs(server, name))
    assert server.stop() == 0, server.log.read_text()
