"""The server as a process: one ready line, health, an orderly stop, and what a crash leaves."""

import base64
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

import botocore.exceptions
import pytest

from harness import SLOWNESS, Functions, Server, binary, descendants, info, logs

SLOW = "import time\ndef handler(event, c):\n    time.sleep(event)\n    return 'done'\n"


def cgroups(server: Server) -> set[str]:
    """The control groups of this server and of no other: their names carry its data's id."""
    own = f"lacewing-{(server.data_dir / 'owner').read_text().strip()}"
    return {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if f"/{own}" in folder}


def mounts(directory: pathlib.Path) -> list[str]:
    """Those of ours in the directory and elsewhere; others mount and unmount as they like."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(line for line in lines if str(directory) in line or "lacewing" in line)


def namespaces(pids) -> set[str]:
    """What these processes live in, those that are gone by now left out."""
    found = set()
    for pid in pids:
        try:
            found |= {os.readlink(link) for link in pathlib.Path(f"/proc/{pid}/ns").iterdir()}
        except OSError:
            continue
    return found


def wait_until(holds, within: float = 60) -> bool:
    deadline = time.monotonic() + within * SLOWNESS
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


def test_the_ready_line_and_health_answer(server):
    assert server.endpoint in server.ready_line
    assert server.ready_line.count("\n") == 1
    assert server.health() == 200


def test_a_stop_lets_a_running_invocation_finish(own_server):
    server = own_server()
    own = Functions(server)
    name = own.python(SLOW)
    own.invoke(name, 0)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(own.invoke(name, 4).payload))
    caller.start()
    assert wait_until(lambda: info(server)["instances"]["busy"] == 1)
    assert server.stop() == 0
    caller.join()
    assert answers == ["done"]
    lines = logs(own_server(), name)
    assert sum(line.startswith("REPORT ") for line in lines) == 2, lines


def test_a_stop_waits_no_longer_than_it_may(own_server, tmp_path):
    config = tmp_path / "lacewing.toml"
    config.write_text('drain = "1s"\n')
    server = own_server("--config", str(config))
    own = Functions(server)
    name = own.python(SLOW, Timeout=900)
    own.invoke(name, 0)
    failures = []

    def call() -> None:
        try:
            own.invoke(name, 600)
        except botocore.exceptions.HTTPClientError as error:
            failures.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert wait_until(lambda: info(server)["instances"]["busy"] == 1)
    below = descendants(server.process.pid)
    assert server.stop(within=120) == 0
    caller.join()
    assert len(failures) == 1
    assert wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in below))
    assert not cgroups(server)


def test_a_second_server_on_the_same_data_is_refused(own_server):
    server = own_server()
    second = subprocess.run(
        [str(binary()), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(server.data_dir)],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert second.returncode != 0
    assert str(server.data_dir) in second.stderr
    assert server.health() == 200


@pytest.mark.parametrize("found", [None, bytes(32)], ids=["missing", "another"])
def test_a_store_without_its_master_key_is_refused_and_left_alone(own_server, tmp_path, found):
    server = own_server()
    server.stop()
    key = server.data_dir / "master.key"
    key.rename(tmp_path / "kept")
    if found:
        key.write_bytes(found)
        key.chmod(0o600)
    refused = subprocess.run(
        [str(binary()), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(server.data_dir)],
        capture_output=True, text=True, timeout=30 * SLOWNESS,
    )  # fmt: skip
    assert refused.returncode == 3
    assert str(key) in refused.stderr and "hint: put back the file" in refused.stderr
    assert key.exists() == bool(found)
    (tmp_path / "kept").rename(key)
    assert server.start().health() == 200


def test_lost_code_is_a_fault_of_the_servers(own_server):
    server = own_server()
    own = Functions(server)
    name = own.python("def handler(e, c): return 1")
    server.stop()
    shutil.rmtree(server.data_dir / "blobs")
    server.start()
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        Functions(server).invoke(name)
    assert caught.value.response["Error"]["Code"] == "ServiceException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    digest = server.client().get_function_configuration(FunctionName=name)["CodeSha256"]
    assert f"The code {base64.b64decode(digest).hex()} of account" in server.log.read_text()
    said = subprocess.run(
        [str(binary()), "invoke", name], env=server.environment(), capture_output=True, timeout=60 * SLOWNESS
    )
    assert said.returncode == 3, said.stderr


def at_rest(server) -> set[int]:
    """The processes of a server that makes nothing ahead any more."""
    seen = [descendants(server.process.pid)]

    def is_quiet() -> bool:
        time.sleep(1)
        seen.append(descendants(server.process.pid))
        return seen[-1] == seen[-2] and info(server)["instances"]["starting"] == 0

    assert wait_until(is_quiet), seen
    return set(seen[-1])


def test_a_server_on_a_copy_of_the_data_is_told_so_at_once(own_server, tmp_path):
    server = own_server()
    if not cgroups(server):
        pytest.skip("skipped: no cgroup, which is what tells servers of the same data apart")
    own = Functions(server)
    name = own.python("def handler(e, c): return 1")
    assert own.invoke(name).payload == 1
    below = at_rest(server)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", server.data_dir, copy], check=False)  # what the server removes meanwhile is no matter
    command = [str(binary()), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(copy)]
    begun = time.monotonic()
    for more in ([], ["--isolation", "best-effort"]):
        refused = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60 * SLOWNESS)
        assert refused.returncode == 3
        assert f"another server is running on a data directory of which {copy} is a copy" in refused.stderr
        assert f"remove {copy}/owner" in refused.stderr
    assert time.monotonic() - begun < 2 * 9 * SLOWNESS
    assert below <= descendants(server.process.pid), "nothing of the first one was ended"
    assert own.invoke(name).payload == 1
    (copy / "owner").unlink()
    assert Functions(own_server(name="copy")).invoke(name).payload == 1


def test_a_kill_leaves_nothing_and_loses_nothing(own_server, tmp_path):
    mounts_before = mounts(tmp_path)
    server = own_server()
    own = Functions(server)
    name = own.python(SLOW, MemorySize=256)
    own.invoke(name, 0)
    below = descendants(server.process.pid)
    spaces = namespaces(below) - namespaces([os.getpid(), server.process.pid])
    groups = cgroups(server)
    instances = {group for group in groups if os.path.dirname(group) in groups}
    assert len(below) >= 2 and instances
    assert {space.split(":")[0] for space in spaces} >= {"mnt", "pid", "ipc", "uts", "net", "user"}
    # What is started later may get the number of a namespace that has gone.
    older = [int(entry.name) for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit()]
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(60)
    assert wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in below))
    assert wait_until(lambda: not spaces & namespaces(older))
    assert wait_until(lambda: mounts(tmp_path) == mounts_before), mounts(tmp_path)

    again = own_server()
    assert not instances & cgroups(again)
    assert Functions(again).invoke(name, 0).payload == "done"
    configuration = again.client().get_function_configuration(FunctionName=name)
    assert configuration["MemorySize"] == 256
    assert again.stop() == 0
    assert not cgroups(again)


def test_another_server_is_left_alone(own_server):
    first = own_server(name="first")
    own = Functions(first)
    name = own.python("count = 0\ndef handler(e, c):\n    global count\n    count += 1\n    return count\n")
    assert own.invoke(name).payload == 1
    second = own_server(name="second")
    second.kill()
    own_server(name="second")
    assert own.invoke(name).payload == 2


def test_a_newer_data_format_is_refused_by_name(own_server, tmp_path):
    server = own_server(name="old")
    assert server.stop() == 0
    (server.data_dir / "format").write_text("999\n")
    refused = subprocess.run(
        [str(binary()), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(server.data_dir)],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "999" in refused.stderr


def test_an_unknown_setting_is_refused_by_name(tmp_path):
    config = tmp_path / "lacewing.toml"
    config.write_text("no_such_setting = 1\n")
    refused = subprocess.run(
        [str(binary()), "serve", "--config", str(config), "--data-dir", str(tmp_path / "d")],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "no_such_setting" in refused.stderr


def test_secrets_are_not_in_the_data_directory_in_the_clear(own_server):
    server = own_server()
    own = Functions(server)
    own.python(SLOW, Environment={"Variables": {"TOKEN": "clear-text-canary"}})
    assert server.stop() == 0
    for private in (server.data_dir, server.data_dir / "credentials", server.data_dir / "master.key"):
        assert private.stat().st_mode & 0o077 == 0, private
    _, secret = server.credentials()
    for path in server.data_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"clear-text-canary" not in content, path
            assert path.name == "credentials" or secret.encode() not in content, path


def test_huge_pages_are_the_functions_and_not_the_servers(server, functions):
    """The server's small heap would only be larger for them."""
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    if "THP_enabled:" not in status:
        pytest.skip("this kernel does not say whether a process has huge pages")
    assert "THP_enabled:\t0" in status
    own = pathlib.Path("/proc/self/status").read_text()
    name = functions.python("def handler(e, c): return open('/proc/self/status').read()")
    line = next(line for line in own.splitlines() if line.startswith("THP_enabled:"))
    assert line in functions.invoke(name).payload


def test_lenient_roles_take_any_role(own_server):
    server = own_server("--lenient-roles")
    own = Functions(server)
    role = "arn:aws:iam::123456789012:role/service-role/whatever"
    name = own.python("def handler(e, c): return 1", Role=role)
    assert own.invoke(name).payload == 1
    assert server.client().get_function_configuration(FunctionName=name)["Role"] == role


def test_a_missing_runtime_is_substituted_when_asked_to(own_server):
    server = own_server("--substitute-runtimes")
    own = Functions(server)
    name = own.python("import sys\ndef handler(e, c): return sys.version_info.minor", Runtime="python3.99")
    answer = own.invoke(name, LogType="Tail")
    assert isinstance(answer.payload, int)
    reason = server.client().get_function_configuration(FunctionName=name).get("StateReason", "")
    assert "python3.99" in reason
