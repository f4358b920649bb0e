"""SnapStart for custom runtimes: by `/restore/next`, and without that for whoever just waits for an event; their
connections and threads are made anew in each copy."""

import concurrent.futures
import os
import shutil
import subprocess

import botocore.exceptions
import pytest

from harness import Functions, cache, logs, target, zip_directories, zip_of
from test_custom_runtimes import merge

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or os.uname().machine != "x86_64", reason="snapshots need root and an x86-64 processor"
)
SOURCE = """#!/usr/bin/env python3
import http.client, json, os, random, sys, threading, time
host, made, beats = os.environ["AWS_LAMBDA_RUNTIME_API"], random.random(), []
def beat():
    while True:
        time.sleep(0.02)
        beats.append(time.monotonic())
threading.Thread(target=beat, daemon=True).start()
def ask(connection, method, path, body=None, **headers):
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()
kept, other = http.client.HTTPConnection(host), http.client.HTTPConnection(host)
early = ask(other, "GET", "/2018-06-01/ping")[2].decode()
print("initialised", flush=True)
status = ask(kept, "GET", "/2018-06-01/runtime/restore/next")[0]
begun, again = len(beats), ask(other, "GET", "/2018-06-01/ping")[2].decode()
if os.environ.get("FAIL"):
    body = json.dumps({"errorType": "Mine", "errorMessage": "not today"})
    ask(other, "POST", "/2018-06-01/runtime/restore/error", body)
    sys.exit(1)
while True:
    _, headers, event = ask(kept, "GET", "/2018-06-01/runtime/invocation/next")
    event, id = json.loads(event), headers["Lambda-Runtime-Aws-Request-Id"]
    time.sleep(event.get("sleep", 0.1))
    place = "/" + os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"].split("/", 3)[3]
    word = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    given = ask(other, "GET", place, Authorization=word)
    answer = dict(made=made, status=status, early=early, again=again, beats=len(beats) - begun, env=dict(os.environ),
                  pid=os.getpid(), own=sorted(os.listdir("/proc/self/task")), credentials=json.loads(given[2]),
                  refused=ask(other, "GET", place, Authorization=word[1:])[0], tmp=os.listdir("/tmp"),
                  late=ask(other, "GET", "/2018-06-01/runtime/restore/next")[0])
    open("/tmp/mark", "w").close()
    ask(other, "POST", f"/2018-06-01/runtime/invocation/{id}/response", json.dumps(answer))
"""


def published(own, content: bytes, **options) -> str:
    """A function with SnapStart and its first version."""
    options = {"MemorySize": 256, "Timeout": 30, "Runtime": "provided.al2023", "Handler": "app.handler", **options}
    name = own.create(content, SnapStart={"ApplyOn": "PublishedVersions"}, **options)
    own.client.publish_version(FunctionName=name)
    return name


def call(own, name: str, event=None, version: str = "1"):
    return Functions(own.server).invoke(name, event, Qualifier=version, LogType="Tail")


def at_once(own, name: str, count: int, event) -> list:
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: call(own, name, event), range(count)))
    assert all(answer.error is None for answer in answers), [answer.raw for answer in answers]
    return answers


def status(own, name: str) -> str:
    answer = own.client.get_function_configuration(FunctionName=name, Qualifier="1")
    return answer["SnapStart"]["OptimizationStatus"]


def is_copied(own, name: str, *, least: int = 2) -> bool:
    """Whether all of its Instances, as many at least, come from one initialisation."""
    kept = "".join(logs(own.server, name))
    return kept.count("INIT_START") == 1 and kept.count("RESTORE_START") >= least and status(own, name) == "On"


def script(text: str) -> bytes:
    return merge(zip_of({}), text)


def test_many_instances_go_on_from_one_initialisation(functions):
    name = published(functions, script(SOURCE))
    payloads = [answer.payload for answer in at_once(functions, name, 8, {"sleep": 1})]
    first = [payload for payload in payloads if payload["tmp"] == []]
    assert len(first) >= 3, "several Instances"
    assert len({payload["made"] for payload in payloads}) == 1
    for payload in payloads:
        assert (payload["status"], payload["early"], payload["again"]) == (200, "pong", "pong")
        assert (payload["refused"], payload["late"]) == (403, 403)
        assert payload["beats"] > 10 and len(payload["own"]) == 2, "its thread goes on"
        environment = payload["env"]
        assert environment["AWS_LAMBDA_INITIALIZATION_TYPE"] == "snap-start"
        assert not environment.keys() & {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
        assert set(payload["credentials"]) == {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
    keys = {payload["credentials"]["AccessKeyId"] for payload in first}
    assert len(keys) == len(first), "each Instance has its own"
    kept = "".join(logs(functions.server, name))
    assert kept.count("initialised") == 1 and is_copied(functions, name, least=3)
    own = functions.invoke(functions.custom(SOURCE.replace("status = ask", "status = 0 # ")), {}, LogType="Tail")
    assert own.error is not None, "there are no such credentials without SnapStart"


def test_without_snapstart_there_is_no_such_place(functions):
    source = SOURCE.split("if os.environ")[0].replace("status = ask", "print(ask").replace("next\")[0]", "next\")[0], flush=True)")
    answer = functions.invoke(functions.custom(source), {}, LogType="Tail")
    assert answer.error is not None and "\n404\n" in answer.log, answer.log


def test_who_cannot_go_on_says_why(functions):
    name = published(functions, script(SOURCE), Environment={"Variables": {"FAIL": "1"}})
    for _ in range(2):
        with pytest.raises(botocore.exceptions.ClientError, match="afterRestore") as caught:
            functions.client.invoke(FunctionName=name, Qualifier="1")
        assert caught.value.response["Error"]["Code"] == "SnapStartException"


def test_credentials_work(functions):
    """As boto3 gets them, which looks for them by itself."""
    packages = cache() / "workloads/boto3"
    source = SOURCE.replace("time.sleep(event", "import boto3; who = boto3.client('sts').get_caller_identity()['Arn']; time.sleep(event")
    source = source.replace("dict(made=made", "dict(who=who, made=made")
    name = published(functions, merge(zip_directories(packages, extra={}), source), MemorySize=512)
    answer = call(functions, name, {})
    assert answer.error is None, answer.raw
    assert answer.payload["who"].startswith("arn:aws:sts::") and is_copied(functions, name, least=1)


def test_a_runtime_of_several_processes_starts_as_ever(functions):
    shell = "#!/bin/sh\npython3 bootstrap.py\n"
    source = SOURCE.split("kept, other")[0] + (
        'kept = http.client.HTTPConnection(host)\nprint("initialised", flush=True)\nwhile True:\n'
        '    _, headers, event = ask(kept, "GET", "/2018-06-01/runtime/invocation/next")\n'
        '    place = f"/2018-06-01/runtime/invocation/{headers[\'Lambda-Runtime-Aws-Request-Id\']}/response"\n'
        '    ask(kept, "POST", place, json.dumps(os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]))\n'
    )
    name = published(functions, merge(zip_of({"bootstrap.py": source}), shell))
    answer = call(functions, name, {})
    assert answer.payload == "on-demand", answer.raw
    assert status(functions, name) == "Off"
    assert "SnapStart is off for this version: it has started other processes" in "".join(logs(functions.server, name))


def test_the_official_python_client_has_its_hooks(functions):
    packages = cache() / "workloads/awslambdaric"
    app = (
        "import os, random\nfrom snapshot_restore_py import register_after_restore, register_before_snapshot\n"
        "made, hooks = random.random(), []\nregister_before_snapshot(hooks.append, 'before')\n"
        "register_after_restore(hooks.append, 'after')\n"
        "def handler(event, context):\n    import time; time.sleep(1)\n"
        "    return [made, hooks, os.environ['AWS_LAMBDA_INITIALIZATION_TYPE'], event, os.getpid()]\n"
    )
    bootstrap = "#!/bin/sh\nexec python3 -m awslambdaric app.handler\n"
    name = published(functions, merge(zip_directories(packages, extra={"app.py": app}), bootstrap))
    payloads = [answer.payload for answer in at_once(functions, name, 5, {"a": 1})]
    assert all(payload[1:4] == [["before", "after"], "snap-start", {"a": 1}] for payload in payloads), payloads
    assert len({payload[0] for payload in payloads}) == 1 and is_copied(functions, name)


def test_the_official_rust_client_is_copied_while_it_waits(functions):
    program = target() / "debug/lacewing-test-rust-runtime"
    stripped = subprocess.run(["strip", "-o", "/dev/stdout", str(program)], capture_output=True)
    name = published(functions, script(stripped.stdout or program.read_bytes()))
    for _ in range(2):
        payloads = [answer.payload for answer in at_once(functions, name, 6, {"a": 1})]
        assert all(payload["echo"] == {"a": 1} for payload in payloads)
    assert is_copied(functions, name, least=1)
    assert call(functions, name, {"fail": True}).payload["errorMessage"] == "asked to fail"


@pytest.mark.skipif(shutil.which("node") is None, reason="skipped: there is no Node from 18 on here")
def test_the_official_node_client_is_copied_while_it_waits(functions):
    packages = cache() / "workloads/aws-lambda-ric"
    app = (
        "const made = Math.random(), fs = require('fs');\n"
        "exports.handler = async (event) => { await new Promise((resolve) => setTimeout(resolve, 1000));\n"
        "  return [made, event, (await fs.promises.readFile('/proc/self/comm', 'utf8')).trim()]; };\n"
    )
    bootstrap = "#!/bin/sh\nexec node node_modules/aws-lambda-ric/bin/index.mjs app.handler\n"
    content = merge(zip_directories(packages, extra={"app.js": app}), bootstrap)
    name = published(functions, content, MemorySize=512)
    payloads = [answer.payload for answer in at_once(functions, name, 4, {"a": 1})]
    assert len({payload[0] for payload in payloads}) == 1, payloads
    assert all(payload[1] == {"a": 1} for payload in payloads)
    assert is_copied(functions, name)
