"""The AWS CLI, unmodified, with nothing but the environment that `lacewing env` prints."""

import json
import subprocess

from harness import PYTHON, ROLE, binary, cache, zip_of


def aws(server, *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [str(cache() / "venv/bin/aws"), *arguments]
    return subprocess.run(
        command, env=server.environment(), capture_output=True, text=True, timeout=60, **options
    )


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
