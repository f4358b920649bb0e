"""Turns rows of `probe_table` into programs that a function can run, and what it answers into errnos.

The same programs are run by `tests/functions/probe` (compiled), by a handler in Python through
ctypes, and by one in Node, which does what it can by itself and has the compiled probe do the rest.
"""

import errno
import os
import pathlib
import signal
import socket
import struct
import subprocess
import urllib.parse

from harness import REPOSITORY, zip_of
from probe_table import NUMBERS, Probe, Result, Zeros

PYTHON_HANDLER = '''
"""Runs programs of system calls, each in a process of its own."""
import ctypes, mmap, os, urllib.parse
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
# xchg ebx, edi (with its high half); mov eax, esi; int 0x80; xchg back; ret
CODE = bytes.fromhex("4887df 89f0 cd80 4887df c3")

def call32(number, first):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(CODE)
    at = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_long, ctypes.c_long)(at)(first, number)

def argument(word, results, kept):
    if word[0] == "'":
        kept.append(ctypes.create_string_buffer(urllib.parse.unquote_to_bytes(word[1:])))
    elif word[0] == "=":
        content = bytes.fromhex(word[1:])
        kept.append(ctypes.create_string_buffer(content, max(len(content), 1)))
    elif word[0] == "#":
        kept.append(ctypes.create_string_buffer(int(word[1:])))
    elif word[0] == "$":
        return results[int(word[1:])]
    else:
        return int(word)
    return ctypes.addressof(kept[-1])

def run(program):
    results, kept = [], []
    for step in program.split(";"):
        name, *words = step.split(" ")
        arguments = [argument(word, results, kept) for word in words]
        if name[0] == "x":
            results.append(call32(int(name[1:]), *(arguments or [0])[:1]))
            continue
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(int(name)), *map(ctypes.c_long, arguments))
        if name in ("56", "57", "435") and result == 0:
            os._exit(0)
        results.append(-ctypes.get_errno() if result == -1 else result)
    return ",".join(map(str, results))

def one(program):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, run(program).encode())
        except BaseException as error:
            os.write(writer, f"failed: {error!r}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as end:
        answer = end.read().decode()
    _, status = os.waitpid(pid, 0)
    return answer if status == 0 else f"signal {status & 127}"

def handler(event, context):
    return "|".join(one(program) for program in event.split(" ", 1)[1].split("|"))
'''

# Node reaches files, signals and connections by itself; where a program is of these calls only, it
# does so, and what it cannot say is done by the compiled probe as its child.
NODE_HANDLER = """
// Runs programs of system calls: by Node's own means where it has them, else by the compiled probe.
const fs = require("fs"), os = require("os"), child = require("child_process");
const text = (word) => decodeURIComponent(word.slice(1));
const own = {
  2: ([path, flags, mode]) => fs.openSync(text(path), +flags, +(mode ?? 0)),
  257: ([, path, flags, mode]) => fs.openSync(text(path), +flags, +(mode ?? 0)),
  82: ([from, to]) => fs.renameSync(text(from), text(to)),
  83: ([path, mode]) => fs.mkdirSync(text(path), +mode),
  86: ([from, to]) => fs.linkSync(text(from), text(to)),
  87: ([path]) => fs.unlinkSync(text(path)),
  88: ([target, path]) => { fs.rmSync(text(path), { force: true }); fs.symlinkSync(text(target), text(path)); },
  90: ([path, mode]) => fs.chmodSync(text(path), +mode),
  92: ([path, uid, gid]) => fs.chownSync(text(path), +uid, +gid),
  62: ([pid, signal]) => process.kill(+pid, +signal),
  105: ([uid]) => process.setuid(+uid),
  106: ([gid]) => process.setgid(+gid),
};
function run(program) {
  const steps = program.split(";").map((step) => step.split(" "));
  if (!steps.every(([number, ...words]) => number in own && !words.some((word) => word[0] === "$"))) return null;
  const results = [];
  for (const [number, ...words] of steps) {
    try {
      results.push(own[number](words) ?? 0);
    } catch (error) {
      const number = error.errno ?? os.constants.errno[error.code];
      results.push(number ? -Math.abs(number) : `failed: ${error}`);
    }
  }
  return results.join(",");
}
exports.handler = async (event) => {
  const programs = event.slice(event.indexOf(" ") + 1).split("|");
  const answers = programs.map(run);
  const rest = programs.filter((_, at) => answers[at] === null);
  const done = child.execFileSync("/var/task/probe", ["run", rest.join("|")], { encoding: "utf8" }).split("|");
  return answers.map((answer) => (answer === null ? done.shift() : answer + ",by node")).join("|");
};
"""


def compiled(directory: pathlib.Path) -> bytes:
    """The static probe: LACEWING_PROBE, else compiled here."""
    if ready := os.environ.get("LACEWING_PROBE"):
        return pathlib.Path(ready).read_bytes()
    program = directory / "probe"
    subprocess.run(
        ["rustc", "--edition=2021", "-O", "-Ctarget-feature=+crt-static", "-Cstrip=symbols",
         str(REPOSITORY / "tests/functions/probe/bootstrap.rs"), "-o", str(program)], check=True,
    )  # fmt: skip
    return program.read_bytes()


MARKER = {"marker": "the function's own file"}


def python_zip() -> bytes:
    return zip_of({"app.py": PYTHON_HANDLER, **MARKER})


def node_zip(probe: bytes) -> bytes:
    return zip_of({"index.js": NODE_HANDLER, "probe": probe, **MARKER}, {"probe": 0o755})


# === Programs ===


def program(probe: Probe, places: dict) -> str:
    """The text of a row; placeholders become what they are on this host."""
    return ";".join(step(calls, places) for calls in probe.calls)


def step(calls: tuple, places: dict) -> str:
    name, *arguments = calls
    return " ".join([str(NUMBERS[name]), *(word(argument, places) for argument in arguments)])


def word(argument, places: dict) -> str:
    match argument:
        case int():
            return str(argument)
        case bytes():
            return "=" + argument.hex()
        case Zeros(length):
            return f"#{length}"
        case Result(index):
            return f"${index}"
        case ("sockaddr_in", host, port):
            number = int(str(port).format_map(places))
            packed = struct.pack("<H", 2) + struct.pack(">H", number) + socket.inet_aton(host.format_map(places))
            return "=" + packed.ljust(16, b"\0").hex()
        case ("sockaddr_in6", host, port):
            number = int(str(port).format_map(places))
            packed = struct.pack("<H", 10) + struct.pack(">HI", number, 0) + socket.inet_pton(socket.AF_INET6, host)
            return "=" + packed.ljust(28, b"\0").hex()
        case ("sockaddr_un", path):
            return "=" + (struct.pack("<H", 1) + path.format_map(places).encode()).ljust(110, b"\0").hex()
        case ("length", path):
            return str(2 + len(path.format_map(places).encode()))
        case str():
            text = argument.format_map(places)
            # A process id is a number wherever it stands alone.
            return text if argument in ("{server}", "{launcher}") else "'" + urllib.parse.quote(text)
    raise TypeError(argument)


def outcome(answer: str) -> str:
    """What became of the attempt: an errno's or signal's name, `allowed`, or why it was not made."""
    if answer.startswith("signal "):
        return signal.Signals(int(answer.split()[1])).name
    results = answer.removesuffix(",by node").split(",")
    if not all(result.lstrip("-").isdigit() for result in results):
        return answer
    numbers = [int(result) for result in results]
    if any(number < 0 for number in numbers[:-1]):
        return f"not reached: {answer}"
    return "allowed" if numbers[-1] >= 0 else errno.errorcode.get(-numbers[-1], str(numbers[-1]))


def host(lacking: set[str]) -> str:
    """This host in the words of `probe_table.TOLD`: what decides between two errnos."""
    user = "root" if os.geteuid() == 0 else "a user"
    return f"{os.uname().release}, {user}" + ", no Landlock" * ("landlock" in lacking)
