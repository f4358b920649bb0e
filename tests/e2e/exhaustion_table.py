"""What a function may try to use up: one row for each thing, with the limit that must stop it.

Data only. A row's body is that of a Python handler behind `test_attacks.PRELUDE`; `count(act)` repeats
an act until the kernel refuses it and gives how often it worked and the errno. Some rows are done in other languages
too: `compiled` is what `tests/functions/probe` calls it, `node` the body of a handler in Node. `end` is how the
attempt must end: an errno's name; `Sandbox.Timedout`; `OutOfMemory` (the kernel killed it and the log
says so); or `fine`, where nothing is refused because nothing is used up; two with `|` between them where
it is a race which of them is first.
"""

import dataclasses

HELPERS = """
import errno, resource
kept = []
def count(act, most=10**7):
    for done in range(most):
        try: act(done)
        except OSError as error: return [done, errno.errorcode[error.errno]]
        except RuntimeError: return [done, "EAGAIN"]  # what the threading module makes of it
    return [most, "fine"]
def check(result):
    if result == -1: raise OSError(ctypes.get_errno(), "refused")
    return result
def child(work):
    pid = os.fork()
    if pid == 0:
        try: work()
        finally: os._exit(0)
"""


NODE_HELPERS = """
const fs = require("fs"), net = require("net"), { spawn } = require("child_process"), { Worker } = require("worker_threads");
const kept = [];
async function count(act, most = 1e7) {
  for (let done = 0; done < most; done++) {
    try { await act(done); } catch (error) { return [done, error.code]; }
  }
  return [most, "fine"];
}
const once = (emitter, good) => new Promise((resolve, reject) => emitter.once(good, resolve).once("error", reject));
"""


@dataclasses.dataclass(frozen=True)
class Exhaustion:
    name: str
    limit: str
    end: str
    body: str
    least: int = 0  # so much must be allowed
    most: int = 10**9
    options: dict = dataclasses.field(default_factory=dict)
    compiled: str = ""
    node: str = ""


SPIN = "    for _ in range(8): child(lambda: spin())\n    spin()\n"
MEMORY = "memory of the cgroup"
EXHAUSTIONS = [
    Exhaustion("processes", "processes of the user", "EAGAIN",
               "    return count(lambda _: child(lambda: time.sleep(60)))", 500, 1024, {"MemorySize": 2048}, compiled="processes",
               node='return count(async () => { const one = spawn("/bin/sleep", ["60"], { stdio: "ignore" }); await once(one, "spawn"); });'),
    Exhaustion("processes that make processes", "processes of the user", "Sandbox.Timedout",
               "    while True:\n        try: os.fork()\n        except OSError: pass", options={"MemorySize": 2048}),
    Exhaustion("zombies", "processes of the user", "EAGAIN", "    return count(lambda _: child(lambda: None))", 500, 1024, {"MemorySize": 2048}),
    Exhaustion("threads", "processes of the user", "EAGAIN",
               "    threading.stack_size(1 << 16)\n"
               "    return count(lambda _: threading.Thread(target=time.sleep, args=(60,), daemon=True).start())", 500, 1024, compiled="threads"),
    Exhaustion("processor time", "weight of the cgroup, timeout", "Sandbox.Timedout",
               "    def spin():\n        while True: pass\n" + SPIN, compiled="processor",
               node='for (let at = 0; at < 3; at++) kept.push(new Worker("for (;;);", { eval: true }));\n    for (;;);'),
    Exhaustion("wake-ups", "weight of the cgroup, timeout", "Sandbox.Timedout",
               "    def spin():\n        while True: os.sched_yield()\n" + SPIN),
    Exhaustion("memory", MEMORY, "OutOfMemory", "    return count(lambda _: kept.append(bytearray(b'x' * (1 << 24))))", compiled="memory",
               node='return count(() => kept.push(Buffer.alloc(1 << 24, 1)));'),
    Exhaustion("memory of many processes", MEMORY, "OutOfMemory|Sandbox.Timedout",
               "    for _ in range(40): child(lambda: (kept.append(bytearray(b'x' * (1 << 24))), time.sleep(60)))\n"
               "    return count(lambda _: kept.append(bytearray(b'x' * (1 << 24))))"),
    Exhaustion("nameless files", MEMORY, "OutOfMemory",
               "    return count(lambda _: (kept.append(os.memfd_create('x')), os.write(kept[-1], bytes(1 << 24))))"),
    Exhaustion("shared memory", MEMORY, "OutOfMemory",
               "    def act(_):\n        at = libc.shmat(check(libc.shmget(0, 1 << 24, 0o1600)), None, 0)\n"
               "        ctypes.memset(at, 1, 1 << 24)\n    return count(act)"),
    Exhaustion("/dev/shm", "size of the file system", "ENOSPC",
               "    file = open('/dev/shm/x', 'wb', 0)\n    return count(lambda _: file.write(bytes(1 << 20)) == 1 << 20 or file.write(b'x'))", 100, 130, {"MemorySize": 256}),
    Exhaustion("buffers of sockets", "open files", "EMFILE",
               "    def act(_):\n        pair = socket.socketpair(); kept.append(pair); pair[0].setblocking(False)\n"
               "        try: write_for_ever(pair[0].fileno(), bytes(65536))\n        except BlockingIOError: pass\n"
               "    return count(act)"),
    Exhaustion("page cache", MEMORY, "fine",
               "    read = 0\n    for root, _, names in os.walk('/usr'):\n        for name in names:\n"
               "            try: read += len(open(f'{root}/{name}', 'rb').read(1 << 25))\n            except OSError: pass\n"
               "            if read > 1 << 28 or time.time() - began > 3: return [read >> 20, 'fine']\n"
               "    return [read >> 20, 'fine']"),
    Exhaustion("names that are not there", MEMORY, "fine",
               "    for number in range(200_000):\n        if os.path.exists(f'/usr/{number}') or time.time() - began > 15: break\n"
               "    return [number, 'fine']", 1000),
    Exhaustion("bytes of /tmp", "size of the file system", "ENOSPC",
               "    file = open('/tmp/x', 'wb', 0)\n"
               "    return count(lambda _: file.write(bytes(1 << 20)) == 1 << 20 or file.write(b'x'))",
               500, 512, {"MemorySize": 1024}, compiled="tmp",
               node='const file = fs.openSync("/tmp/x", "w"), block = Buffer.alloc(1 << 20);\n    return count(() => fs.writeSync(file, block) === 1 << 20 || fs.writeSync(file, "x"));'),
    Exhaustion("bytes of /tmp with little memory", "size of the file system", "ENOSPC",
               "    file = open('/tmp/x', 'wb', 0)\n"
               "    return count(lambda _: file.write(bytes(1 << 20)) == 1 << 20 or file.write(b'x'))",
               500, 512),
    Exhaustion("files of /tmp", "inodes of the file system", "ENOSPC",
               "    return count(lambda n: open(f'/tmp/{n}', 'w').close())", 30_000, 40_000, {"MemorySize": 512}),
    Exhaustion("open files", "open files", "EMFILE", "    return count(lambda _: kept.append(open('/dev/null')))", 900, 1024, compiled="files",
               node='return count(() => kept.push(fs.openSync("/dev/null")));'),
    Exhaustion("pipes", "open files", "EMFILE",
               "    def act(_):\n        reader, writer = os.pipe(); kept.append(reader); os.set_blocking(writer, False)\n"
               "        try: write_for_ever(writer, bytes(4096))\n        except BlockingIOError: pass\n"
               "    return count(act)", 450, 512, {"MemorySize": 256}, compiled="pipes"),
    Exhaustion("sockets", "open files", "EMFILE", "    return count(lambda _: kept.append(socket.socket()))", 900, 1024, compiled="sockets",
               node='return count(() => { const one = net.createServer(); kept.push(one); return once(one.listen(0, "127.0.0.1"), "listening"); });'),
    Exhaustion("connections to the platform", "open files", "EMFILE",
               "    host, port = os.environ['AWS_ENDPOINT_URL'].removeprefix('http://').split(':')\n"
               "    def act(_):\n        one = socket.socket(); one.setblocking(False); kept.append(one)\n"
               "        one.connect_ex((host, int(port)))\n    return count(act)", 900, 1024),
    Exhaustion("timers", "pending signals", "EAGAIN",
               "    timer = ctypes.c_void_p()\n"
               "    return count(lambda _: check(libc.timer_create(1, None, ctypes.byref(timer))))", 1000, options={"MemorySize": 512}),
    Exhaustion("timers by descriptor", "open files", "EMFILE",
               "    def act(_):\n        fd = check(libc.timerfd_create(1, 0))\n"
               "        libc.timerfd_settime(fd, 0, (ctypes.c_long * 4)(0, 100_000, 0, 100_000), None)\n    return count(act)", 900, 1024),
    Exhaustion("queued signals", "pending signals", "EAGAIN",
               "    signal.pthread_sigmask(signal.SIG_BLOCK, [40])\n"
               "    info = ctypes.create_string_buffer(struct.pack('<iii', 40, 0, -1), 128)\n"
               "    return count(lambda _: check(libc.syscall(129, os.getpid(), 40, info)))", 1000, options={"MemorySize": 512}),
    Exhaustion("inotify instances", "inotify instances of the user", "EMFILE",
               "    return count(lambda _: check(libc.inotify_init()))", 100, 1024),
    Exhaustion("locked memory", "locked memory", "ENOMEM",
               "    at = ctypes.create_string_buffer(1 << 20)\n    return count(lambda n: check(libc.mlock(at, (n + 1) << 12)))", 10, 16),
    Exhaustion("stack", "stack", "Runtime.ExitError",
               "    import sys; sys.setrecursionlimit(10**9)\n    deeper = ctypes.CFUNCTYPE(None)(lambda: deeper())\n    deeper()"),
    Exhaustion("lines of the log", "rate of the log", "Sandbox.Timedout",
               "    for _ in range(4): child(lambda: write_for_ever(1, b'a line of the log\\n' * 4096))\n    time.sleep(60)", compiled="output",
               node='const block = "a line of the log\\n".repeat(4096);\n    for (;;) try { fs.writeSync(1, block); } catch (error) { if (error.code !== "EAGAIN") throw error; }'),
    Exhaustion("an endless answer", "size of an answer, timeout", "Function.ResponseSizeTooLarge|Sandbox.Timedout",
               "    os.write(3, struct.pack('<I', 0xffffffff))\n    write_for_ever(3, bytes(65536))"),
    Exhaustion("an answer that never ends", "timeout", "Sandbox.Timedout",
               "    os.write(3, struct.pack('<IB', 1 << 20, 3))\n    while True: os.write(3, b'x'); time.sleep(0.01)"),
    Exhaustion("killing its own init", "pid namespace", "fine",
               "    for number in range(1, 65):\n        try: os.kill(1, number)\n        except OSError: pass\n    return [0, 'fine']"),
]  # fmt: skip
