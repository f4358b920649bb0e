"""A host that lacks something, made around one server as root: what is lacking is named by the ready line and
by `doctor`, and `--isolation required` refuses what is less than full. What an ordinary user lacks is in
test_ordinary_user."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import probes
from harness import Functions, Server, binary, slowly
from probe_table import PROBES
from test_probes import attempts, wrong
from test_probes import pytestmark as needs_the_calls_of_x86

pytestmark = [
    needs_the_calls_of_x86,
    pytest.mark.skipif(os.geteuid() != 0, reason="skipped: another host is made by root only"),
]

# Has `landlock_create_ruleset` answer ENOSYS, as a kernel without it does, to itself and all that it starts.
NO_LANDLOCK = f"""#!{sys.executable}
import ctypes, os, struct, sys
program = b"".join(struct.pack("<HBBI", *line) for line in [
    (0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7FFF0000)])
code = ctypes.create_string_buffer(program)
filter = struct.pack("<HxxxxxxQ", 4, ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, ctypes.create_string_buffer(filter), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv({str(binary())!r}, ["lacewing", *sys.argv[1:]])
"""
NO_CGROUPS = f"""#!/bin/sh
exec {shutil.which("unshare")} -m /bin/sh -c \
    'mount --make-rprivate / && mount -t tmpfs none /sys/fs/cgroup && exec {binary()} "$@"' sh "$@"
"""


@pytest.fixture
def other_host(tmp_path):
    """The program on a host that a script makes of this one."""

    def make(script: str) -> pathlib.Path:
        program = tmp_path / "lacewing"
        program.write_text(script)
        program.chmod(0o755)
        return program

    return make


def doctor(program: pathlib.Path) -> str:
    answer = subprocess.run([program, "doctor", "--here"], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_without_landlock_isolation_is_full_and_says_without_what(other_host, tmp_path, compiled):
    program = other_host(NO_LANDLOCK)
    told = doctor(program)
    assert "isolation: full, without landlock" in told, told
    assert "  landlock: Use a kernel with CONFIG_SECURITY_LANDLOCK and `landlock` in its lsm= list." in told
    assert "  server-landlock: Use Linux 5.19 or newer with `landlock` in its lsm= list." in told
    server = Server(tmp_path / "data", "--isolation", "required", program=program).start()
    try:
        assert "isolation full (without landlock" in server.ready_line, server.ready_line
        # Nothing is stopped by it alone.
        functions = Functions(server)
        name = functions.custom(compiled, probes.MARKER, Timeout=slowly(60), MemorySize=512)
        tried = [probe for probe in PROBES if "landlock" in probe.stops.values()]
        assert len(tried) > 10
        found = attempts(functions, {"compiled": name}, {}, lambda probe: probe in tried)
        failed = wrong(found["compiled"], {"landlock"}, lambda probe: probe.stops)
        assert not failed, "\n".join(failed)
    finally:
        assert server.stop() == 0


def test_without_limits_isolation_is_partial_and_refused_where_it_must_be_full(other_host, tmp_path):
    program = other_host(NO_CGROUPS)
    told = doctor(program)
    assert "isolation: partial: it lacks cgroup-memory, cgroup-pids, cgroup-cpu" in told, told
    with pytest.raises(RuntimeError, match="(?s)full isolation is required and this host lacks: cgroup-memory"):
        Server(tmp_path / "refused", "--isolation", "required", program=program).start()
    server = Server(tmp_path / "data", "--isolation", "best-effort", program=program).start()
    try:
        assert "isolation partial (lacks cgroup-memory, cgroup-pids, cgroup-cpu" in server.ready_line
        functions = Functions(server)
        assert functions.invoke(functions.python("def handler(e, c): return e\n"), 7).payload == 7
    finally:
        assert server.stop() == 0
