"""SnapStart: a published version is initialised once, and each of its Instances goes on from there."""

import concurrent.futures
import os
import pathlib
import re
import subprocess

import boto3
import botocore.exceptions
import pytest

from harness import Functions, binary, logs
from test_serve import cgroups, descendants, wait_until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or os.uname().machine != "x86_64", reason="snapshots need root and an x86-64 processor"
)
RUNTIME = "python3.12"
SOURCE = """
import os, random, secrets, ssl, sys, tempfile, time, uuid
from snapshot_restore_py import register_before_snapshot, register_after_restore

made = [time.time_ns(), random.random(), os.getpid()]
hooks = []
register_before_snapshot(hooks.append, "before 1")
register_before_snapshot(hooks.append, "before 2")
register_after_restore(hooks.append, "after 1")
@register_after_restore
def second(): hooks.append("after 2")
os.register_at_fork(after_in_child=lambda: hooks.append("forked"))
print("initialised", made[0])

def handler(event, context):
    time.sleep(event.get("sleep", 0) if event else 0)
    return {
        "made": made, "hooks": hooks, "stream": os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
        "type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], "key": os.environ["AWS_ACCESS_KEY_ID"],
        "telemetry": "_LAMBDA_TELEMETRY_LOG_FD" in os.environ, "cwd": os.getcwd(),
        "token": os.environ["AWS_SESSION_TOKEN"][-20:],
        "unique": [
            random.random(), str(uuid.uuid4()), str(uuid.uuid1()), secrets.token_hex(8), os.urandom(8).hex(),
            ssl.RAND_bytes(8).hex(), tempfile.mktemp(), context.aws_request_id,
        ],
    }
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    from harness import Server

    running = Server(tmp_path_factory.mktemp("snapstart") / "data", "--substitute-runtimes").start()
    yield Functions(running)
    assert running.is_running(), running.log.read_text()
    running.stop()


def published(own, source: str, **options) -> tuple[str, dict]:
    """A function with SnapStart and its first version."""
    options.setdefault("Runtime", RUNTIME)
    name = own.python(source, SnapStart={"ApplyOn": "PublishedVersions"}, **options)
    return name, own.client.publish_version(FunctionName=name)


def status(own, name: str, version: str = "1") -> str:
    answer = own.client.get_function_configuration(FunctionName=name, Qualifier=version)
    return answer["SnapStart"]["OptimizationStatus"]


def call(own, name: str, event=None, version: str = "1"):
    return own.invoke(name, event, Qualifier=version, LogType="Tail")


def test_many_instances_go_on_from_one_initialisation(own):
    name, version = published(own, SOURCE)
    assert version["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}
    latest = own.client.get_function_configuration(FunctionName=name)
    assert latest["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: call(own, name, {"sleep": 1}), range(10)))
    assert all(answer.error is None for answer in answers), [answer.payload for answer in answers]
    payloads = [answer.payload for answer in answers]
    assert len({payload["stream"] for payload in payloads}) > 3, "several Instances"
    assert len({tuple(payload["made"]) for payload in payloads}) == 1
    for payload in payloads:
        assert payload["type"] == "snap-start" and not payload["telemetry"] and payload["cwd"] == "/var/task"
        assert payload["hooks"] == ["before 2", "before 1", "forked", "after 1", "after 2"]
    first = [answer for answer in answers if "Restore Duration" in answer.log]
    assert first and all("Init Duration" not in answer.log for answer in answers)
    assert re.search(r"\tRestore Duration: \d+\.\d\d ms\tBilled Restore Duration: \d+ ms\t", first[0].log)
    kept = "".join(logs(own.server, name))
    assert kept.count("initialised") == 1 and kept.count("INIT_START") == 1
    assert kept.count("RESTORE_START") == kept.count("RESTORE_REPORT Restore Duration") >= 4
    assert status(own, name) == "On"
    # What is not published starts as ever.
    answer = own.invoke(name, LogType="Tail")
    assert answer.payload["type"] == "on-demand" and answer.payload["hooks"] == []
    assert "Init Duration" in answer.log


def test_nothing_is_drawn_twice(own):
    """Every call ends its Instance, so each is answered by another copy of the same memory."""
    source = SOURCE.replace("    return {", "    import threading; threading.Timer(0.05, os._exit, [0]).start()\n    return {")
    name, _ = published(own, source)
    seen, streams = [], set()
    while len(streams) < 50:
        answer = call(own, name)
        if answer.error is None:
            seen.append(answer.payload["unique"])
            streams.add(answer.payload["stream"])
            assert answer.payload["hooks"][-1] == "after 2"
    columns = list(zip(*seen, strict=True))
    assert all(len(set(column)) == len(column) for column in columns), columns
    assert len({tuple(answer) for answer in seen}) >= 50


UNFIT = {
    "threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(999,), daemon=True).start()\n",
    "connections": "import socket\nkept = socket.socket()\n",
    "files in /tmp": "open('/tmp/kept', 'w').close()\n",
    "processes": "import subprocess\nkept = subprocess.Popen(['sleep', '999'])\n",
    "shared memory": "import mmap\nkept = mmap.mmap(-1, 4096)\n",
}


@pytest.mark.parametrize("reason", UNFIT)
def test_what_a_copy_would_break_starts_as_ever_and_says_why(own, reason):
    source = UNFIT[reason] + "import os\ndef handler(event, context): return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']\n"
    name, _ = published(own, source)
    answer = call(own, name)
    assert answer.payload == "on-demand", answer.payload
    assert "Init Duration" in answer.log
    assert status(own, name) == "Off"
    warning = [line for line in logs(own.server, name) if "SnapStart is off for this version" in line]
    assert warning and reason in warning[0], warning


def test_an_initialisation_may_take_longer_than_any_start_waits_for_it(own):
    source = """
import os, threading, time
time.sleep(12)
def handler(event, context):
    threading.Timer(0.05, os._exit, [0]).start()  # the next call has another Instance
    return os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
"""
    name, _ = published(own, source, Timeout=60)
    # An Instance of its own would need the init phase and, as that is too short, one within the invocation.
    assert wait_until(lambda: call(own, name).raw == b'"snap-start"', within=300)
    assert status(own, name) == "On"


UNRESTORED = {
    "raises": (
        "raise ValueError('not today')",
        "SnapStartException", 400, "The afterRestore() runtime hook encountered an error. For more information, "
        "check the Amazon CloudWatch logs.", r"ms\tStatus: error\tError Type: ValueError",
    ),
    "ends the process": (
        "import os; os._exit(3)",
        "SnapStartException", 400, "The afterRestore() runtime hook encountered an error. For more information, "
        "check the Amazon CloudWatch logs.", r"ms\tStatus: error\tError Type: Runtime.ExitError",
    ),
    "takes too long": (
        "import time; time.sleep(999)",
        "SnapStartTimeoutException", 408, "Lambda couldn't restore the snapshot within the timeout limit.",
        r"RESTORE_REPORT Restore Duration: 1\d{4}\.\d\d ms\tStatus: timeout",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNRESTORED)
def test_a_restore_that_fails_is_the_exception_that_lambda_has_for_it(own, case):
    body, code, http_status, message, line = UNRESTORED[case]
    source = f"""
from snapshot_restore_py import register_after_restore
@register_after_restore
def hook():
    print("hooked")
    {body}
def handler(event, context): return 1
"""
    name, _ = published(own, source)
    refusals = []
    for invoke in (own.client.invoke, own.client.invoke_with_response_stream):
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            invoke(FunctionName=name, Qualifier="1")
        refusals.append(refused.value.response)
    for response in refusals:
        assert (response["Error"]["Code"], response["Error"]["Message"]) == (code, message)
        assert response["ResponseMetadata"]["HTTPStatusCode"] == http_status
    kept = logs(own.server, name)
    # Each call had one restore, which was not repeated.
    assert sum(line.startswith("RESTORE_START") for line in kept) == 2, kept
    assert sum(line.strip() == "hooked" for line in kept) == 2, kept
    assert any(re.search(line, text) for text in kept), kept
    if case == "raises":
        assert any("[ERROR] ValueError: not today" in text for text in kept), kept
    assert status(own, name) == "On"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"Runtime": "python3.11"}, "python3.11 is not supported for SnapStart enabled functions."),
        ({"Runtime": "nodejs18.x"}, "nodejs18.x is not supported for SnapStart enabled functions."),
        (
            {"Runtime": "nodejs22.x", "Environment": {"Variables": {"LACEWING_CONCURRENCY_PER_INSTANCE": "2"}}},
            "LACEWING_CONCURRENCY_PER_INSTANCE and SnapStart are not for one function in nodejs22.x.",
        ),
        ({"EphemeralStorage": {"Size": 513}}, "SnapStart does not support ephemeral storage greater than 512 MB."),
    ],
)
def test_what_cannot_have_it_is_refused_by_name(own, options, message):
    with pytest.raises(own.client.exceptions.InvalidParameterValueException) as refused:
        published(own, SOURCE, **options)
    assert refused.value.response["Error"]["Message"] == message


def test_it_can_be_turned_on_and_off_later(own):
    name = own.python("def handler(event, context): return 1\n", Runtime=RUNTIME)
    wait = own.client.get_waiter("function_updated_v2").wait
    for apply_on in ("PublishedVersions", "None"):
        answer = own.client.update_function_configuration(FunctionName=name, SnapStart={"ApplyOn": apply_on})
        assert answer["SnapStart"]["ApplyOn"] == apply_on
        wait(FunctionName=name)
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        own.client.update_function_configuration(FunctionName=name, SnapStart={"ApplyOn": "Always"})
    assert "snapStart.applyOn" in refused.value.response["Error"]["Message"]


def deploy(own, directory: pathlib.Path, source: str, *options: str) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "app.py").write_text(source)
    command = [str(binary()), "deploy", str(directory), "--name", "latest", "--runtime", RUNTIME, *options]
    answer = subprocess.run(command, env=own.server.environment(), capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return "latest"


def test_the_latest_has_it_if_its_owner_says_so(own, tmp_path):
    def together() -> list[dict]:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: own.invoke(name, {"sleep": 1}), range(4)))
        assert all(answer.error is None for answer in answers), [answer.payload for answer in answers]
        return [answer.payload for answer in answers]

    name = deploy(own, tmp_path / "code", SOURCE, "--snap-start", "latest")
    payloads = together()
    assert {payload["type"] for payload in payloads} == {"snap-start"}
    first = {tuple(payload["made"]) for payload in payloads}
    assert len(first) == 1 and len({payload["stream"] for payload in payloads}) > 1
    # To AWS's API it is as if it had none.
    answer = own.client.get_function_configuration(FunctionName=name)
    assert answer["SnapStart"] == {"ApplyOn": "None", "OptimizationStatus": "Off"}
    assert answer["Environment"]["Variables"] == {"LACEWING_SNAP_START": "latest"}
    # New code has a new snapshot; what was chosen stays.
    deploy(own, tmp_path / "code", SOURCE + "\n# changed\n")
    payloads = together()
    assert {payload["type"] for payload in payloads} == {"snap-start"}
    second = {tuple(payload["made"]) for payload in payloads}
    assert len(second) == 1 and second != first
    assert "".join(logs(own.server, name)).count("initialised") == 2
    # A version has its own choice.
    version = own.client.publish_version(FunctionName=name)
    assert version["SnapStart"] == {"ApplyOn": "None", "OptimizationStatus": "Off"}
    assert call(own, name, version=version["Version"]).payload["type"] == "on-demand"
    deploy(own, tmp_path / "code", SOURCE, "--snap-start", "none")
    assert own.invoke(name).payload["type"] == "on-demand"


@pytest.mark.parametrize(
    ("runtime", "value", "message"),
    [
        (RUNTIME, "always", "LACEWING_SNAP_START must be none or latest, not 'always'."),
        ("python3.11", "latest", "python3.11 is not supported for SnapStart enabled functions."),
        ("nodejs18.x", "latest", "nodejs18.x is not supported for SnapStart enabled functions."),
    ],
)
def test_what_cannot_have_it_for_the_latest_is_refused_by_name(own, runtime, value, message):
    with pytest.raises(own.client.exceptions.InvalidParameterValueException) as refused:
        own.python(SOURCE, Runtime=runtime, Environment={"Variables": {"LACEWING_SNAP_START": value}})
    assert refused.value.response["Error"]["Message"] == message


def test_nothing_of_snapshots_outlives_the_server(own_server):
    server = own_server("--substitute-runtimes")
    mine = Functions(server)
    name, _ = published(mine, SOURCE)
    assert call(mine, name).payload["type"] == "snap-start"
    pids = descendants(server.process.pid)
    assert pids and cgroups(server)
    server.kill()
    assert wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids))
    assert wait_until(lambda: not cgroups(server))


def test_a_version_with_a_snapshot_has_no_instances_that_are_kept_ready(own):
    name, version = published(own, SOURCE)
    with pytest.raises(own.client.exceptions.InvalidParameterValueException, match="SnapStart"):
        own.client.put_provisioned_concurrency_config(
            FunctionName=name, Qualifier=version["Version"], ProvisionedConcurrentExecutions=1
        )
