"""What a function finds around itself: variables, files, user, limits, and the lack of all else."""

import json

import pytest

from harness import PYTHON, Functions

PROBE = """
import json, os, pwd, resource, socket, subprocess, sys

def attempt(action):
    try:
        return action()
    except OSError as error:
        return f"errno {error.errno}"

def handler(event, context):
    return {
        "env": dict(os.environ),
        "uid": os.getuid(), "gid": os.getgid(), "user": pwd.getpwuid(os.getuid()).pw_name,
        "cwd": os.getcwd(),
        "root": sorted(os.listdir("/")),
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
        "pids": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
        "limits": {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name))
                   for name in ("NOFILE", "MEMLOCK", "NPROC", "STACK")},
        "path": sys.path,
        "write_task": attempt(lambda: open("/var/task/x", "w").close()),
        "write_tmp": attempt(lambda: open("/tmp/x", "w").close()),
        "home": attempt(lambda: os.listdir("/home")),
        "shadow": attempt(lambda: open("/etc/shadow").read()),
        "capabilities": [l for l in open("/proc/self/status") if l.startswith("Cap")],
        "metadata": attempt(lambda: socket.create_connection(("169.254.169.254", 80), 2)),
        "private": attempt(lambda: socket.create_connection(("10.0.0.1", 80), 2)),
        "host_loopback": attempt(lambda: socket.create_connection(("127.0.0.1", event["port"]), 2)),
    }
"""


@pytest.fixture(scope="module")
def seen(server, functions):
    name = functions.python(PROBE, MemorySize=256, Environment={"Variables": {"MINE": "yes", "TZ": ":Asia/Tokyo"}})
    answer = functions.invoke(name, {"port": int(server.endpoint.rsplit(":", 1)[1])})
    assert answer.error is None, answer.raw
    return name, answer.payload


def test_the_variables_are_lambdas(seen):
    name, payload = seen
    environment = payload["env"]
    expected = {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "_HANDLER": "app.handler",
        "LANG": "en_US.UTF-8",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{PYTHON}",
        "MINE": "yes",
        "TZ": ":Asia/Tokyo",
    }
    assert {key: environment.get(key) for key in expected} == expected
    assert environment["AWS_ACCESS_KEY_ID"].startswith("ASIA")
    assert environment["AWS_SESSION_TOKEN"]
    assert "[$LATEST]" in environment["AWS_LAMBDA_LOG_STREAM_NAME"]


def test_nothing_of_the_server_is_in_the_environment(seen):
    assert "LACEWING" not in json.dumps(seen[1]["env"])


def test_the_user_has_no_power(seen):
    payload = seen[1]
    assert payload["user"] == "sbx_user1051"
    assert payload["uid"] == 993
    assert all(line.split()[1] == "0" * 16 for line in payload["capabilities"])


def test_the_root_is_read_only_and_tmp_is_not(seen):
    payload = seen[1]
    assert payload["cwd"] == "/var/task"
    assert payload["write_task"] in ("errno 30", "errno 13")
    assert payload["write_tmp"] is None


def test_nothing_of_the_host_is_to_be_seen(seen):
    payload = seen[1]
    allowed = {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "sbin", "tmp", "usr", "var"}
    assert set(payload["root"]) <= allowed
    assert payload["home"] == "errno 2"
    assert payload["shadow"] in ("errno 2", "errno 13")
    assert len(payload["pids"]) <= 3


def test_the_network_reaches_neither_the_host_nor_what_is_private(seen):
    payload = seen[1]
    # Refused by the router, or without a way out unreachable.
    for name in ("metadata", "private"):
        assert payload[name] in ("errno 111", "errno 101")
    assert payload["host_loopback"] == "errno 111"


def test_the_limits_are_lambdas(seen):
    limits = seen[1]["limits"]
    assert limits["NOFILE"] == [1024, 1024]
    assert limits["NPROC"] == [742, 742]
    assert limits["MEMLOCK"] == [64 << 10, 64 << 10]
    assert limits["STACK"][0] == 8 << 20


def test_no_packages_of_the_host_are_on_the_path(seen):
    path = seen[1]["path"]
    assert path[0] == "/var/task"
    assert not any("dist-packages" in entry for entry in path)
    assert not any("site-packages" in entry and not entry.startswith("/opt/python") for entry in path)


FILL = """
import os

def handler(event, context):
    block, total, errno = os.urandom(1 << 20), 0, 0
    with open("/tmp/fill", "wb", buffering=0) as file:
        while True:
            try:
                # After a write that was cut short the next begins where it ended.
                total += file.write(block[total % len(block):])
            except OSError as error:
                errno = error.errno
                break
    read, same = 0, True
    with open("/tmp/fill", "rb") as file:
        while part := file.read(len(block)):
            same = same and part == block[:len(part)]
            read += len(part)
    room = os.statvfs("/tmp").f_bavail
    os.unlink("/tmp/fill")
    return [total, errno, same and read == total, room]
"""


@pytest.mark.parametrize("megabytes", [512, 1500])
def test_tmp_is_as_large_as_configured_whatever_the_memory(server, lacking, megabytes):
    if "tmp-disk" in lacking:
        pytest.skip("skipped: /tmp is in memory on this host, see `lacewing doctor`")
    functions = Functions(server)
    functions.client = server.client(read_timeout=600)
    name = functions.python(FILL, MemorySize=128, Timeout=500, EphemeralStorage={"Size": megabytes})
    total, errno, same, room = functions.invoke(name, {}).payload
    # The map of a file's pieces takes a block now and then, for which there is room beside.
    exact = megabytes << 20
    assert exact <= total <= exact + exact // 8192
    assert (errno, same) == (28, True)
    assert room * 4096 <= exact // 8192


def test_tmp_in_memory_is_bounded_by_the_memory(own_server, tmp_path):
    config = tmp_path / "lacewing.toml"
    config.write_text("[sandbox]\ntmp = 'memory'\n")
    functions = Functions(own_server("--config", str(config)))
    name = functions.python(FILL, MemorySize=1024, Timeout=100)
    total, errno, same, _ = functions.invoke(name, {}).payload
    assert (total, errno, same) == (512 << 20, 28, True)
    small = functions.python(FILL, MemorySize=128, Timeout=100)
    answer = functions.invoke(small, {})
    assert answer.payload["errorType"] == "Runtime.ExitError"


def test_a_fork_bomb_is_stopped_by_the_process_limit(functions):
    name = functions.python(
        "import os, time, signal\ndef handler(event, c):\n    children = []\n    try:\n"
        "        for _ in range(3000):\n            pid = os.fork()\n"
        "            if pid == 0:\n                time.sleep(60)\n                os._exit(0)\n"
        "            children.append(pid)\n"
        "    except OSError as error:\n        return [len(children), error.errno]\n"
        "    finally:\n        for pid in children: os.kill(pid, signal.SIGKILL)\n",
        MemorySize=2048,
        Timeout=60,
    )
    started, errno = functions.invoke(name, {}).payload
    assert errno == 11
    assert 500 < started <= 1024


def test_an_exec_wrapper_wraps_the_runtime(functions):
    from harness import zip_of

    wrapper = "#!/bin/sh\nexport WRAPPED=\"$(basename \"$1\")\"\nexec \"$@\"\n"
    content = zip_of(
        {"app.py": "import os\ndef handler(e, c): return os.environ['WRAPPED']", "wrap": wrapper}, {"wrap": 0o755}
    )
    name = functions.create(
        content, Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrap"}}
    )
    answer = functions.invoke(name, {})
    assert answer.error is None, answer.raw
    assert answer.payload.startswith("python3")


def test_children_of_a_handler_are_reaped(functions):
    name = functions.python(
        "import subprocess, os\ndef handler(e, c):\n"
        "    subprocess.run(['sh', '-c', '(sleep 0.1 &) ; true'])\n"
        "    import time; time.sleep(0.4)\n"
        "    states = []\n"
        "    for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "        states.append(open(f'/proc/{pid}/stat').read().split(') ')[1][0])\n"
        "    return states\n"
    )
    assert "Z" not in functions.invoke(name, {}).payload
