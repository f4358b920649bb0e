"""What a function finds that it could misuse, and what misuse comes to: descriptors, mounts, programs
with powers, credentials, its own init, and what the kernel counts for a user. The attempts that one
system call can make are rows of `probe_table`."""

import ctypes
import os
import pathlib
import re

import botocore.exceptions
import pytest

from harness import ROLE, node_runtime, settle, zip_of
from test_attacks import hostile  # noqa: F401 (a fixture)
from test_serve import wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="skipped: every sandbox is the server's own user")

DESCRIPTORS = """
def handler(event, context):
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try: found[name] = os.readlink(f"/proc/self/fd/{name}").split(":")[0]
        except FileNotFoundError: pass
    return found
"""
DESCRIPTORS_OF_NODE = """
const fs = require("fs");
exports.handler = async () => {
  const found = {};
  for (const name of fs.readdirSync("/proc/self/fd")) {
    try { found[name] = fs.readlinkSync(`/proc/self/fd/${name}`).split(":")[0]; } catch {}
  }
  return found;
};
"""
# Standard input, output and error, the channel to the server, the pipe for log records.
OURS = {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket", "4": "pipe"}


def test_python_inherits_no_descriptor_but_its_own(functions, hostile):  # noqa: F811
    assert functions.invoke(hostile(DESCRIPTORS)).payload == OURS


@pytest.mark.skipif(node_runtime() is None, reason="skipped: there is no Node from 18 on here")
def test_node_inherits_no_descriptor_but_its_own(functions):
    name = functions.node(DESCRIPTORS_OF_NODE)
    found = functions.invoke(name).payload
    of_node = {"anon_inode", "pipe", "/dev/null"}  # its event loop
    assert found.items() >= OURS.items()
    rest = {target for number, target in found.items() if number not in OURS}
    assert rest <= of_node, found
    functions.client.delete_function(FunctionName=name)


def test_a_compiled_runtime_inherits_no_descriptor_but_its_own(functions, compiled):
    name = functions.custom(compiled)
    found = dict(word.split("=") for word in functions.invoke(name, "descriptors").payload.split())
    # Beside ours: its connection to the Runtime API, and the directory that it is reading.
    own = {target for number, target in found.items() if number not in OURS or target != OURS[number]}
    assert found.items() >= {number: OURS[number] for number in ("0", "1", "2")}.items(), found
    assert all(target == "socket" or target.startswith("/proc/") for target in own), found
    functions.client.delete_function(FunctionName=name)


def test_every_mount_lacks_set_user_id_and_all_but_temporary_ones_are_read_only(functions, hostile):  # noqa: F811
    name = hostile("def handler(event, context): return open('/proc/self/mountinfo').read()")
    for line in functions.invoke(name).payload.splitlines():
        point, options = line.split()[4:6]
        options = set(options.split(","))
        assert "nosuid" in options, line
        # The five harmless devices are bound from the host's, so they must be devices.
        assert "nodev" in options or point.startswith("/dev/"), line
        assert "ro" in options or point in ("/tmp", "/dev/shm", "/proc") or point.startswith("/dev/"), line


def test_the_ready_line_says_whether_the_kernel_has_landlock(server):
    listed = pathlib.Path("/sys/kernel/security/lsm")
    if not listed.exists():
        pytest.skip("skipped: securityfs is not mounted here")
    without = re.search(r"isolation \w+ \((?:lacks [^;)]*; )?without ([^)]*)\)", server.ready_line)
    said = "landlock" in (without.group(1).split(", ") if without else [])
    assert said != ("landlock" in listed.read_text().strip().split(",")), server.ready_line


POWERS = """
import glob, stat, subprocess, shutil
def handler(event, context):
    shutil.copy("/usr/bin/sleep", "/tmp/sleep"); os.chmod("/tmp/sleep", 0o6755)
    paths = ["/tmp/sleep"]
    for pattern in ("/usr/bin/*", "/usr/sbin/*", "/usr/lib/*/*"):
        paths += [p for p in glob.glob(pattern) if os.path.isfile(p) and os.stat(p).st_mode & 0o6000]
    found = {}
    for path in set(paths):
        try: child = subprocess.Popen([path, "5"], stdin=subprocess.PIPE, stdout=-3, stderr=-3)
        except PermissionError: continue  # for a group of the host only
        time.sleep(0.02)
        lines = open(f"/proc/{child.pid}/status").read().splitlines()
        found[path] = [l.split()[1:] for l in lines if l.startswith(("Uid:", "Gid:", "CapEff:"))]
        child.kill(); child.wait()
    return found
"""


def test_set_user_id_programs_of_the_host_give_no_power(functions, hostile):  # noqa: F811
    found = functions.invoke(hostile(POWERS, Timeout=30)).payload
    assert "/tmp/sleep" in found
    # One that has ended is a zombie without capabilities, with the same user.
    assert all(lines == [["993"] * 4, ["990"] * 4, ["0" * 16]] for lines in found.values()), found
    print(f"{len(found)} programs with set-user-id or set-group-id gave nothing")


def test_a_function_cannot_see_the_code_or_tmp_of_another(functions, hostile):  # noqa: F811
    secret = "the-secret-of-another-function"
    one = hostile(f"# {secret}\ndef handler(event, context):\n    return open('/tmp/{secret}', 'w').write('x')\n")
    search = (
        "import subprocess\n"
        "def handler(event, context):\n"
        "    seen = []\n"
        "    for root, folders, files in os.walk('/', onerror=lambda e: None):\n"
        "        if root.startswith(('/usr', '/proc', '/lib')): folders.clear(); continue\n"
        "        for name in files + folders:\n"
        f"            if name == event: seen.append(root + '/' + name)\n"
        "            path = root + '/' + name\n"
        "            if name.endswith('.py') and event in open(path).read(): seen.append(path)\n"
        "    return seen\n"
    )
    assert functions.invoke(one).payload == 1
    assert functions.invoke(hostile(search, Timeout=30), secret).payload == []


def test_a_session_of_a_function_may_neither_read_nor_change_functions(server, functions):
    name = functions.python("import os\ndef handler(event, context): return dict(os.environ)", Timeout=5)
    environment = functions.invoke(name).payload
    client = server.client(
        credentials=[environment[f"AWS_{key}"] for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")]
    )
    assert client.invoke(FunctionName=name)["StatusCode"] == 200
    attempts = {
        "get_function": {"FunctionName": name},
        "get_function_configuration": {"FunctionName": name},
        "list_functions": {},
        "delete_function": {"FunctionName": name},
        "update_function_code": {"FunctionName": name, "ZipFile": zip_of({"app.py": ""})},
        "update_function_configuration": {"FunctionName": name, "Timeout": 9},
        "create_function": {
            "FunctionName": "made-by-a-function", "Role": ROLE, "Runtime": "provided.al2023", "Handler": "x",
            "Code": {"ZipFile": zip_of({"bootstrap": ""})},
        },
    }  # fmt: skip
    for operation, arguments in attempts.items():
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            getattr(client, operation)(**arguments)
        assert caught.value.response["Error"]["Code"] == "AccessDeniedException", operation
    functions.client.delete_function(FunctionName=name)


PASSING = """
import array
def handler(event, context):
    if event != "attack":
        return event
    channel = socket.socket(fileno=os.dup(3))
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
    for _ in range(4):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        channel.sendmsg([frame(1)], rights, socket.MSG_DONTWAIT)
    channel.send(b"x", socket.MSG_OOB)
    return event
"""


def test_descriptors_that_are_sent_to_the_server_do_not_stay_there(functions, server, hostile):  # noqa: F811
    def held():
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    name = hostile(PASSING)
    functions.invoke(name, "warm")
    settle(server)
    before = held()
    for _ in range(3):
        functions.invoke(name, "attack")
    assert wait_until(lambda: held() <= before + 16), (before, held())
    assert functions.invoke(name, "after").payload == "after"


HURT = """
def handler(event, context):
    if event == "hurt":
        limit = (ctypes.c_ulong * 2)(0, 0)
        for resource in range(16):
            libc.syscall(302, 1, resource, limit, None)
        libc.sched_setscheduler(1, 5, ctypes.byref(ctypes.c_int(0)))
        os.setpriority(os.PRIO_PROCESS, 1, 19)
        for pid in range(2, 100):
            try: os.kill(pid, signal.SIGCONT)
            except OSError: pass
    return event
"""


def test_limits_put_on_init_hurt_nobody_else(functions, server, hostile):  # noqa: F811
    name, other = hostile(HURT), hostile("def handler(event, context): return event")
    functions.invoke(name, "hurt")
    assert functions.invoke(other, "other").payload == "other"
    assert functions.invoke(name, "again").payload == "again"
    assert server.health() == 200


# What the kernel counts for each user, and for the owner of the user's namespace: used up.
COUNTED = """
def handler(event, context):
    instances = 0
    while libc.inotify_init() >= 0: instances += 1
    signal.pthread_sigmask(signal.SIG_BLOCK, [40])
    info, queued = ctypes.create_string_buffer(struct.pack("<iii", 40, 0, -1), 128), 0
    while libc.syscall(129, os.getpid(), 40, info) == 0 and queued < 1_000_000: queued += 1
    timers, timer = 0, ctypes.c_void_p()
    while libc.timer_create(1, None, ctypes.byref(timer)) == 0 and timers < 1_000_000: timers += 1
    return [instances, queued, timers]
"""


@as_root
def test_what_the_kernel_counts_for_a_user_is_not_used_up_for_others(functions, hostile):  # noqa: F811
    libc = ctypes.CDLL(None, use_errno=True)
    one, two = (hostile(COUNTED, MemorySize=512, Timeout=60) for _ in range(2))
    used = functions.invoke(one).payload
    assert min(used[:2]) > 0, used
    timer = ctypes.c_void_p()
    notify = libc.inotify_init()
    assert notify >= 0, "a function has used up the inotify instances of root"
    os.close(notify)
    assert libc.timer_create(1, None, ctypes.byref(timer)) == 0, "a function has used up the signals of root"
    libc.timer_delete(timer)
    assert functions.invoke(two).payload[0] == used[0], "a function has used up those of another"


def test_a_crash_leaves_no_core_and_starts_no_program_of_the_host(functions, hostile):  # noqa: F811
    name = hostile(
        "import resource\n"
        "def handler(event, context):\n"
        "    os.chdir('/tmp')\n"
        "    pid = os.fork()\n"
        "    if pid == 0: os.abort()\n"
        "    _, status = os.waitpid(pid, 0)\n"
        "    return [resource.getrlimit(resource.RLIMIT_CORE), os.WCOREDUMP(status), os.listdir('/tmp')]\n"
    )
    # 1 and not 0: by that the kernel leaves out a core pattern's program too (core(5)).
    assert functions.invoke(name).payload == [[1, 1], False, []]
