"""Our own command line against the real server: deploy, invoke, list, follow, delete."""

import base64
import hashlib
import json
import subprocess
import time

import pytest

from harness import PYTHON, binary, logs, node_runtime, zip_of


def lacewing(server, *arguments: str, cwd=None, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(binary()), *arguments], env=server.environment(), capture_output=True, text=True,
        timeout=120, cwd=cwd, **options,
    )  # fmt: skip


@pytest.fixture
def python_project(tmp_path):
    project = tmp_path / "greeter"
    project.mkdir()
    (project / "lambda_function.py").write_text(
        "def lambda_handler(event, context):\n    print('greeting')\n"
        "    return 'Hello, ' + event.get('name', 'you')\n"
    )
    return project


def test_a_directory_is_deployed_by_looking_at_it(server, python_project):
    deployed = lacewing(server, "deploy", str(python_project), "--runtime", PYTHON)
    assert deployed.returncode == 0, deployed.stderr
    assert "greeter" in deployed.stdout
    answer = lacewing(server, "invoke", "greeter", "--payload", '{"name": "Ada"}', "--log")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == "Hello, Ada"
    assert "greeting" in answer.stderr

    (python_project / "lambda_function.py").write_text("def lambda_handler(e, c): return 2\n")
    again = lacewing(server, "deploy", str(python_project), "--runtime", PYTHON)
    assert again.returncode == 0, again.stderr
    assert lacewing(server, "invoke", "greeter").stdout.strip() == "2"

    listed = lacewing(server, "functions", "--output", "json")
    assert "greeter" in listed.stdout
    assert lacewing(server, "delete", "greeter").returncode == 0
    gone = lacewing(server, "invoke", "greeter")
    assert gone.returncode == 1
    assert "greeter" in gone.stderr


@pytest.mark.skipif(node_runtime() is None, reason="skipped: there is no Node from 18 on here")
def test_a_single_file_is_deployed(server, tmp_path):
    source = tmp_path / "single.js"
    source.write_text("exports.handler = async (event) => event.a * 2;\n")
    deployed = lacewing(server, "deploy", str(source), "--name", "single")
    assert deployed.returncode == 0, deployed.stderr
    assert lacewing(server, "invoke", "single", "--payload", '{"a": 21}').stdout.strip() == "42"


def test_lacewing_toml_overrides_what_was_found(server, python_project):
    (python_project / "lacewing.toml").write_text(
        f'name = "renamed"\nruntime = "{PYTHON}"\nmemory = 256\ntimeout = 7\n[environment]\nKEY = "b"\n'
    )
    assert lacewing(server, "deploy", str(python_project)).returncode == 0
    configuration = server.client().get_function_configuration(FunctionName="renamed")
    assert (configuration["MemorySize"], configuration["Timeout"]) == (256, 7)
    assert configuration["Environment"]["Variables"] == {"KEY": "b"}


def test_an_unknown_key_in_lacewing_toml_is_refused_by_name(server, python_project):
    (python_project / "lacewing.toml").write_text("colour = 1\n")
    refused = lacewing(server, "deploy", str(python_project))
    assert refused.returncode == 1
    assert "colour" in refused.stderr


def test_an_archive_is_deployed_as_it_is(server, functions, tmp_path):
    archive = tmp_path / "packed.zip"
    archive.write_bytes(zip_of({"app.py": "def handler(event, context): return ['packed', event]", "data/x": "y"}))
    deployed = lacewing(server, "deploy", str(archive), "--runtime", PYTHON, "--output", "json")
    assert deployed.returncode == 0, deployed.stderr
    configuration = json.loads(deployed.stdout)
    assert (configuration["FunctionName"], configuration["Handler"]) == ("packed", "app.handler")
    assert configuration["CodeSha256"] == base64.b64encode(hashlib.sha256(archive.read_bytes()).digest()).decode()
    assert functions.invoke("packed", 1).payload == ["packed", 1]
    assert lacewing(server, "delete", "packed").returncode == 0


def test_a_payload_comes_from_the_line_a_file_or_stdin(server, functions, tmp_path):
    name = functions.python("def handler(event, c): return event['from']")
    (tmp_path / "event.json").write_text('{"from": "file"}')
    for argument, stdin, expected in [
        ('{"from": "line"}', None, "line"),
        ("@event.json", None, "file"),
        ("-", '{"from": "stdin"}', "stdin"),
    ]:
        answer = lacewing(server, "invoke", name, "--payload", argument, cwd=tmp_path, input=stdin)
        assert (answer.returncode, answer.stdout) == (0, f'"{expected}"\n'), answer.stderr
    for argument, stdin in [("@absent.json", None), ("-", "{broken"), ("-", "")]:
        answer = lacewing(server, "invoke", name, "--payload", argument, cwd=tmp_path, input=stdin)
        assert (answer.returncode, answer.stdout) == (1, ""), argument
        assert answer.stderr.startswith("error: "), answer.stderr


def test_an_invocation_is_a_document_when_asked_for(server, functions):
    name = functions.python("def handler(event, c):\n    print('seen')\n    return {'twice': event * 2}")
    answer = lacewing(server, "invoke", name, "--payload", "21", "--log", "--output", "json")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    log = document.pop("log")
    assert "seen" in log and f"END RequestId: {document.pop('requestId')}" in log
    assert document == {
        "statusCode": 200, "executedVersion": "$LATEST", "functionError": None, "payload": {"twice": 42},
    }  # fmt: skip
    failed = lacewing(server, "invoke", name, "--payload", "null", "--output", "json")
    assert failed.returncode == 4
    document = json.loads(failed.stdout)
    assert (document["functionError"], document["payload"]["errorType"]) == ("Unhandled", "TypeError")
    assert failed.stderr.startswith("error: the function failed (Unhandled)"), failed.stderr


def test_a_record_of_several_lines_stays_one(server, functions):
    name = functions.python(
        "import logging\ndef handler(e, c):\n    logging.getLogger().warning('first\\nsecond\\nthird')\n"
        "    raise ValueError('a\\nb')"
    )
    functions.invoke(name)
    records = logs(server, name)
    (warning,) = [record for record in records if "first" in record]
    assert warning.endswith("first\nsecond\nthird"), records
    (error,) = [record for record in records if record.startswith("[ERROR] ValueError: a")]
    assert "ValueError: a\nb" in error and "Traceback" in error and "raise ValueError" in error, records


def test_a_failing_function_gives_a_failing_exit_code(server, functions):
    name = functions.python("def handler(e, c): raise ValueError('no')")
    answer = lacewing(server, "invoke", name)
    assert answer.returncode != 0
    assert json.loads(answer.stdout)["errorType"] == "ValueError"


def test_logs_are_shown_and_followed(server, functions):
    name = functions.python("def handler(e, c): print('line', e)")
    functions.invoke(name, 1)
    with subprocess.Popen(
        [str(binary()), "logs", name, "--follow", "--since", "10m"], env=server.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as follower:  # fmt: skip
        time.sleep(1)
        functions.invoke(name, 2)
        seen = []
        deadline = time.monotonic() + 20
        for line in follower.stdout:
            seen.append(line)
            if "line 2" in line or time.monotonic() > deadline:
                break
        follower.kill()
    text = "".join(seen)
    assert "line 1" in text and "line 2" in text
    assert "REPORT RequestId" in text


def test_runtimes_and_doctor_say_what_is_there(server):
    runtimes = json.loads(lacewing(server, "runtimes", "--output", "json").stdout)
    assert PYTHON in json.dumps(runtimes)
    doctor = lacewing(server, "doctor")
    assert doctor.returncode == 0, doctor.stderr
    for part in ("seccomp", "cgroup", "namespaces"):
        assert part in doctor.stdout


def test_a_server_says_of_interpreters_what_doctor_sees_with_all_rights(server):
    asked = json.loads(lacewing(server, "doctor", "--output", "json").stdout)
    # In the environment that the server was started in, which says where interpreters are.
    here = subprocess.run([str(binary()), "doctor", "--here", "--output", "json"], capture_output=True, text=True)
    assert asked["interpreters"] == json.loads(here.stdout)["interpreters"] != []


def test_no_server_is_a_clear_error(tmp_path):
    answer = subprocess.run(
        [str(binary()), "functions", "--endpoint", "http://127.0.0.1:9"],
        env={"PATH": "/usr/bin", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert answer.returncode == 3
    assert "hint:" in answer.stderr


def test_logs_show_an_invocation_that_has_just_ended(server, functions):
    name = functions.python("def handler(e, c): print('just now')")
    functions.invoke(name)
    assert "just now" in lacewing(server, "logs", name).stdout


def test_a_log_outlives_its_function_and_what_never_was_is_not_found(server, functions):
    name = functions.python("def handler(event, context): print('last words')")
    functions.invoke(name, {})
    functions.client.delete_function(FunctionName=name)
    assert "last words" in logs(server, name)
    answer = subprocess.run(
        [str(binary()), "logs", "never-was", "--follow"],
        env=server.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert answer.returncode == 1 and "Function not found" in answer.stderr, answer
    quiet = functions.python("def handler(event, context): pass")
    assert logs(server, quiet) == []
