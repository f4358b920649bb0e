"""Custom runtimes: a `bootstrap` of any kind, and the official runtime clients, unmodified."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from harness import REPOSITORY, cache, logs, target, zip_directories, zip_of

SHELL = """#!/bin/sh
set -eu
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while :; do
  headers=$(mktemp)
  event=$(curl -sS -D "$headers" "$api/next")
  id=$(sed -n 's/^lambda-runtime-aws-request-id: *\\([0-9a-f-]*\\).*/\\1/Ip' "$headers")
  echo "shell got $event"
  curl -sS -o /dev/null -d "{\\"echo\\": $event}" "$api/$id/response"
done
"""

PYTHON_SCRIPT = """#!/usr/bin/env python3
import json, os, urllib.request
api = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
while True:
    with urllib.request.urlopen(f"{api}/next") as answer:
        identity = answer.headers["Lambda-Runtime-Aws-Request-Id"]
        headers = dict(answer.headers)
        event = json.load(answer)
    body = json.dumps({"event": event, "headers": headers, "env": dict(os.environ)}).encode()
    if event.get("wrong_id"):
        try:
            urllib.request.urlopen(f"{api}/no-such-id/response", data=b"1")
        except urllib.error.HTTPError as error:
            body = json.dumps({"status": error.code, "body": json.load(error)}).encode()
    kind = "error" if event.get("fail") else "response"
    request = urllib.request.Request(f"{api}/{identity}/{kind}", data=body)
    if event.get("fail"):
        request.add_header("Lambda-Runtime-Function-Error-Type", "My.Error")
    urllib.request.urlopen(request).read()
    if event.get("twice"):
        try:
            urllib.request.urlopen(f"{api}/{identity}/response", data=b"2")
        except urllib.error.HTTPError as error:
            print("second answer:", error.code, flush=True)
"""


def test_a_shell_script_is_a_runtime(functions):
    name = functions.custom(SHELL)
    answer = functions.invoke(name, {"a": 1}, LogType="Tail")
    assert answer.payload == {"echo": {"a": 1}}
    assert 'shell got {"a": 1}' in answer.log
    assert functions.invoke(name, {"b": 2}).payload == {"echo": {"b": 2}}


@pytest.fixture(scope="module")
def script(functions):
    return functions.custom(PYTHON_SCRIPT, MemorySize=256)


def test_the_runtime_api_gives_every_header(functions, script):
    answer = functions.invoke(script, {"x": 1})
    headers = {name.lower(): value for name, value in answer.payload["headers"].items()}
    assert headers["lambda-runtime-aws-request-id"] == answer.request_id
    assert headers["lambda-runtime-invoked-function-arn"].endswith(f":function:{script}")
    assert int(headers["lambda-runtime-deadline-ms"]) > 1_600_000_000_000
    assert headers["lambda-runtime-trace-id"].startswith("Root=")
    assert headers["content-type"] == "application/json"


def test_a_custom_runtime_has_lambdas_environment(functions, script):
    environment = functions.invoke(script, {}).payload["env"]
    assert environment["LAMBDA_TASK_ROOT"] == "/var/task"
    assert environment["_HANDLER"] == "any"
    assert environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert environment["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert "AWS_EXECUTION_ENV" not in environment


def test_an_error_of_the_runtime_is_passed_on_unchanged(functions, script):
    answer = functions.invoke(script, {"fail": True})
    assert answer.error == "Unhandled"
    assert answer.payload["event"] == {"fail": True}


def test_an_answer_for_a_stranger_is_refused(functions, script):
    refusal = functions.invoke(script, {"wrong_id": True}).payload
    assert refusal["status"] == 400
    assert refusal["body"]["errorType"] == "InvalidRequestID"


def test_a_second_answer_is_refused(server, functions, script):
    assert functions.invoke(script, {"twice": True}).error is None
    assert functions.invoke(script, {}).error is None
    refusals = [line for line in logs(server, script) if line.startswith("second answer: ")]
    assert refusals in (["second answer: 400"], ["second answer: 403"])


def test_a_package_without_bootstrap_is_refused_by_name(functions):
    name = functions.create(zip_of({"x": "y"}), Runtime="provided.al2023", Handler="any")
    answer = functions.invoke(name, {})
    assert answer.error == "Unhandled"
    assert answer.payload["errorType"] == "Runtime.InvalidEntrypoint"


def test_a_static_binary_is_a_runtime(functions, tmp_path):
    source = REPOSITORY / "tests/functions/static/bootstrap.rs"
    binary = tmp_path / "bootstrap"
    subprocess.run(
        ["rustc", "--edition=2021", "-O", "-Ctarget-feature=+crt-static", "-Cstrip=symbols",
         str(source), "-o", str(binary)], check=True,
    )  # fmt: skip
    name = functions.custom(binary.read_bytes(), Runtime="provided.al2")
    assert functions.invoke(name, {"a": [1]}).payload == {"a": [1]}


def test_the_official_rust_client_works(functions):
    program = target() / "debug/lacewing-test-rust-runtime"
    stripped = subprocess.run(["strip", "-o", "/dev/stdout", str(program)], capture_output=True)
    name = functions.custom(stripped.stdout or program.read_bytes())
    answer = functions.invoke(name, {"a": 1})
    assert answer.payload == {"echo": {"a": 1}, "id": answer.request_id}
    failed = functions.invoke(name, {"fail": True})
    assert failed.error == "Unhandled"
    assert failed.payload["errorMessage"] == "asked to fail"


def test_the_official_python_client_works(functions):
    packages = cache() / "workloads/awslambdaric"
    extra = {"app.py": "def handler(event, context):\n    print('in python')\n    return [event, context.aws_request_id]\n"}
    bootstrap = "#!/bin/sh\nexec python3 -m awslambdaric app.handler\n"
    name = functions.create(
        merge(zip_directories(packages, extra=extra), bootstrap), Runtime="provided.al2023", MemorySize=256,
    )  # fmt: skip
    answer = functions.invoke(name, {"a": 1}, LogType="Tail")
    assert answer.error is None, answer.raw
    assert answer.payload == [{"a": 1}, answer.request_id]
    assert "in python" in answer.log


@pytest.mark.skipif(shutil.which("node") is None, reason="skipped: there is no Node from 18 on here")
def test_the_official_node_client_works(functions):
    packages = cache() / "workloads/aws-lambda-ric"
    extra = {"app.js": "exports.handler = async (event, context) => [event, context.awsRequestId];"}
    bootstrap = "#!/bin/sh\nexec node node_modules/aws-lambda-ric/bin/index.mjs app.handler\n"
    name = functions.create(
        merge(zip_directories(packages, extra=extra), bootstrap), Runtime="provided.al2023", MemorySize=512,
    )  # fmt: skip
    answer = functions.invoke(name, {"a": 1})
    assert answer.error is None, answer.raw
    assert answer.payload == [{"a": 1}, answer.request_id]


def merge(content: bytes, bootstrap: str) -> bytes:
    """Adds an executable `bootstrap` to an archive."""
    import io
    import zipfile

    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        entry = zipfile.ZipInfo("bootstrap")
        entry.external_attr = 0o100755 << 16
        archive.writestr(entry, bootstrap)
    return buffer.getvalue()
