"""What the processes of a server may do: nothing but their work, and the launcher alone holds privilege."""

import contextlib
import os
import pathlib
import subprocess

import pytest

from harness import Functions, binary, slowly

NONE = "0000000000000000"
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")


def status(path: pathlib.Path) -> dict[str, str]:
    lines = (path / "status").read_text().splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


def threads(pid: int) -> dict[str, dict[str, str]]:
    """The status of each thread by its name and number; a thread may end meanwhile."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            found[f"{(task / 'comm').read_text().strip()} {task.name}"] = status(task)
        except OSError:
            continue
    return found


def launcher_of(pid: int) -> int:
    """The one child of a server."""
    children = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            children += (task / "children").read_text().split()
    (only,) = children
    assert b"__launcher" in pathlib.Path(f"/proc/{only}/cmdline").read_bytes()
    return int(only)


def assert_unprivileged(pid: int) -> None:
    found = threads(pid)
    assert len(found) > 3, found.keys()
    for name, about in found.items():
        held = {key: about[key] for key in (*SETS, "NoNewPrivs", "Seccomp")}
        assert held == dict.fromkeys(SETS, NONE) | {"NoNewPrivs": "1", "Seccomp": "2"}, name


@root_only
def test_no_thread_of_the_server_has_a_capability_and_the_launcher_has(server, functions):
    # Also those that work made.
    name = functions.python("def handler(e, c): return 1")
    assert functions.invoke(name).payload == 1
    assert_unprivileged(server.process.pid)
    launcher = status(pathlib.Path(f"/proc/{launcher_of(server.process.pid)}"))
    assert int(launcher["CapEff"], 16) & (1 << 21), "CAP_SYS_ADMIN"
    assert launcher["Seccomp"] == "0"


@root_only
def test_the_node_of_the_demo_gives_up_its_privileges_and_removes_its_directory(tmp_path):
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    demo = subprocess.Popen(
        [str(binary()), "demo", "--keep", "--output", "json"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        # The last line, which ends the report, says where it listens.
        is_there = any('"endpoint"' in line for line in demo.stdout)
        if is_there:
            assert_unprivileged(demo.pid)
            assert len(list(tmp_path.iterdir())) == 1
    finally:
        demo.terminate()
        _, errors = demo.communicate(timeout=slowly(60))
    assert is_there and demo.returncode == 0, errors
    assert list(tmp_path.iterdir()) == []


@root_only
def test_the_doctor_names_what_the_server_gave_up(server):
    answer = subprocess.run(
        [str(binary()), "doctor"], env=server.environment(), capture_output=True, text=True, timeout=slowly(60)
    )
    assert answer.returncode == 0, answer.stderr
    rows = {line.split()[0]: line.split()[1] for line in answer.stdout.splitlines() if line.startswith("server-")}
    assert rows.pop("server-landlock") in {"yes", "no"}
    assert rows == {"server-capabilities": "yes", "server-seccomp": "yes"}


@root_only
def test_a_port_below_1024_can_be_listened_on(own_server):
    for port in range(1023, 900, -1):
        try:
            server = own_server(listen=f"127.0.0.1:{port}")
        except RuntimeError as error:
            # Somebody else has it.
            assert "cannot listen on" in str(error), error
            continue
        assert server.endpoint.endswith(f":{port}")
        assert server.health() == 200
        return
    pytest.fail("no port below 1024 is free")


def everything_in(directory: pathlib.Path) -> list[pathlib.Path]:
    """Whatever is below it; what goes meanwhile may be missing."""
    return [pathlib.Path(folder) / name for folder, folders, files in os.walk(directory) for name in folders + files]


def test_what_the_server_keeps_is_its_users_alone(own_server):
    before = os.umask(0o022)
    try:
        server = own_server()
    finally:
        os.umask(before)
    own = Functions(server)
    name = own.python("import os\ndef handler(e, c): return oct(os.umask(0o22))", MemorySize=128)
    assert own.invoke(name).payload == "0o22"
    client = server.client()
    client.invoke(FunctionName=name, InvocationType="Event", Payload=b'"' + b"x" * 200_000 + b'"')
    for path in everything_in(server.data_dir):
        inside = path.relative_to(server.data_dir).parts
        # What sandboxes read, as other users, below directories that those cannot pass.
        is_shared = inside[0] == "code" and len(inside) > 1 or inside[:2] == ("run", "shared")
        if not is_shared and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                assert path.stat().st_mode & 0o077 == 0, path
    assert own.invoke(name).payload == "0o22"


def test_functions_run_whatever_the_umask_of_the_server(own_server):
    before = os.umask(0o077)
    try:
        server = own_server()
    finally:
        os.umask(before)
    own = Functions(server)
    name = own.python("import os\ndef handler(e, c): return oct(os.umask(0o22))")
    assert own.invoke(name).payload == "0o22"


@root_only
def test_a_data_directory_of_another_user_is_refused_with_what_to_do(tmp_path):
    theirs = tmp_path / "data"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 12345, 12345)
    assert "chown -R" in refused(theirs)
    assert list(theirs.iterdir()) == []


@root_only
def test_a_data_directory_behind_that_of_another_user_is_refused_with_what_to_do(tmp_path):
    theirs = tmp_path / "home"
    theirs.mkdir(mode=0o700)
    ours = theirs / "data"
    ours.mkdir(mode=0o700)
    os.chown(theirs, 12345, 12345)
    assert "put it elsewhere" in refused(ours)


def refused(data_dir: pathlib.Path) -> str:
    answer = subprocess.run(
        [str(binary()), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)],
        capture_output=True, text=True, timeout=slowly(30),
    )  # fmt: skip
    assert answer.returncode != 0
    assert str(data_dir) in answer.stderr
    return answer.stderr
