"""The AWS CLI, unmodified, with nothing but the environment that `lacewing env` prints."""

import base64
import hashlib
import json
import subprocess
import urllib.request

from harness import PYTHON, ROLE, binary, cache, zip_of


def aws(server, *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [str(cache() / "venv/bin/aws"), *arguments]
    return subprocess.run(
        command, env=server.environment(), capture_output=True, text=True, timeout=60, **options
    )


def document(server, *arguments: str) -> dict:
    answer = aws(server, *arguments)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_a_function_is_deployed_and_invoked(server, tmp_path):
    archive = tmp_path / "function.zip"
    archive.write_bytes(zip_of({"app.py": "def handler(event, context): return event['a'] + 1"}))
    created = aws(
        server, "lambda", "create-function", "--function-name", "by-cli", "--runtime", PYTHON,
        "--handler", "app.handler", "--role", ROLE, "--zip-file", f"fileb://{archive}",
    )  # fmt: skip
    assert created.returncode == 0, created.stderr
    waited = aws(server, "lambda", "wait", "function-active-v2", "--function-name", "by-cli")
    assert waited.returncode == 0, waited.stderr
    answer = tmp_path / "answer.json"
    invoked = aws(
        server, "lambda", "invoke", "--function-name", "by-cli", "--payload", '{"a": 41}',
        "--log-type", "Tail", str(answer),
    )  # fmt: skip
    assert invoked.returncode == 0, invoked.stderr
    assert json.loads(answer.read_text()) == 42
    assert json.loads(invoked.stdout)["LogResult"]
    listed = aws(server, "lambda", "list-functions")
    assert "by-cli" in [f["FunctionName"] for f in json.loads(listed.stdout)["Functions"]]
    assert aws(server, "lambda", "delete-function", "--function-name", "by-cli").returncode == 0


def test_a_function_is_changed_and_shown(server, functions, tmp_path):
    name = functions.python("def handler(event, context): return 1")
    archive = tmp_path / "function.zip"
    archive.write_bytes(zip_of({"new.py": "import os\ndef handler(event, context): return os.environ['COLOUR']"}))
    digest = base64.b64encode(hashlib.sha256(archive.read_bytes()).digest()).decode()

    def updated() -> None:
        waited = aws(server, "lambda", "wait", "function-updated-v2", "--function-name", name)
        assert waited.returncode == 0, waited.stderr

    changed = document(
        server, "lambda", "update-function-code", "--function-name", name, "--zip-file", f"fileb://{archive}"
    )
    assert (changed["CodeSha256"], changed["LastUpdateStatus"]) == (digest, "InProgress")
    updated()
    changed = document(
        server, "lambda", "update-function-configuration", "--function-name", name, "--handler", "new.handler",
        "--memory-size", "192", "--timeout", "9", "--environment", "Variables={COLOUR=green}",
    )  # fmt: skip
    assert (changed["MemorySize"], changed["Timeout"]) == (192, 9)
    updated()
    assert functions.invoke(name).payload == "green"

    shown = document(server, "lambda", "get-function", "--function-name", name)
    configuration = shown["Configuration"]
    assert (configuration["Handler"], configuration["State"]) == ("new.handler", "Active")
    assert configuration["LastUpdateStatus"] == "Successful"
    assert configuration["Environment"] == {"Variables": {"COLOUR": "green"}}
    with urllib.request.urlopen(shown["Code"]["Location"], timeout=30) as answer:
        assert answer.read() == archive.read_bytes()


def test_the_accounts_settings_are_shown(server, functions):
    before = document(server, "lambda", "get-account-settings")["AccountUsage"]
    code = zip_of({"app.py": "def handler(event, context): return 1"})
    functions.create(code)
    settings = document(server, "lambda", "get-account-settings")
    assert settings["AccountLimit"]["CodeSizeZipped"] == 52_428_800
    assert settings["AccountLimit"]["CodeSizeUnzipped"] == 262_144_000
    usage = settings["AccountUsage"]
    assert usage["FunctionCount"] == before["FunctionCount"] + 1
    assert usage["TotalCodeSize"] == before["TotalCodeSize"] + len(code)


def test_a_missing_function_is_a_clear_error(server):
    answer = aws(server, "lambda", "get-function", "--function-name", "nobody")
    assert answer.returncode == 255  # what version 1 of the CLI gives for any refusal
    assert "ResourceNotFoundException" in answer.stderr


def test_the_exports_of_lacewing_env_are_enough(server):
    command = (
        f'eval "$({binary()} env --data-dir {server.data_dir} --endpoint {server.endpoint})" && '
        f"{cache()}/venv/bin/aws sts get-caller-identity"
    )
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["Account"] == "000000000000"
