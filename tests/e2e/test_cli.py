"""Our own command line against the real server: deploy, invoke, list, follow, delete."""

import json
import subprocess
import time

import pytest

from harness import PYTHON, binary, node_runtime


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


@pytest.mark.skipif(node_runtime() is None, reason="skipped: there is no Node here")
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


def test_no_server_is_a_clear_error(tmp_path):
    answer = subprocess.run(
        [str(binary()), "functions", "--endpoint", "http://127.0.0.1:9"],
        env={"PATH": "/usr/bin", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert answer.returncode == 3
    assert "hint:" in answer.stderr


def test_the_demo_runs_and_removes_itself():
    answer = subprocess.run([str(binary()), "demo"], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    for word in ("python", "node", "compiled"):
        assert word in answer.stdout.lower()


def test_logs_show_an_invocation_that_has_just_ended(server, functions):
    name = functions.python("def handler(e, c): print('just now')")
    functions.invoke(name)
    assert "just now" in lacewing(server, "logs", name).stdout
