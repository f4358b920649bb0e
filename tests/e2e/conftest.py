"""Fixtures: one server for all tests of a run, and a fresh one for those that stop or kill theirs."""

import json
import subprocess

import pytest

import probes
from harness import SLOWNESS, Functions, Server, binary


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """On a host so slow that a run may be cut off, why something failed is told at once, too."""
    report = yield
    if report.failed and SLOWNESS > 1:
        item.config.pluginmanager.getplugin("terminalreporter").write_line(report.longreprtext)
    return report


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("lacewing") / "data").start()
    yield running
    assert running.is_running(), f"the server died; log:\n{running.log.read_text()}"
    code = running.stop()
    assert code == 0, f"exit code {code}; log:\n{running.log.read_text()}"


@pytest.fixture(scope="session")
def functions(server):
    return Functions(server)


@pytest.fixture(scope="session")
def lacking() -> set[str]:
    """What `lacewing doctor` says that this host does not give."""
    answer = subprocess.run([str(binary()), "doctor", "--output", "json"], capture_output=True, text=True)
    features = json.loads(answer.stdout)["report"]["features"]
    return {feature["name"] for feature in features if not feature["in_force"]}


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> bytes:
    """The hostile function in one static program."""
    return probes.compiled(tmp_path_factory.mktemp("probe"))


@pytest.fixture
def own_server(tmp_path):
    """A function that starts servers on data directories of the test's own."""
    started = []

    def start(*arguments: str, name: str = "data", **options) -> Server:
        running = Server(tmp_path / name, *arguments, **options)
        started.append(running)
        return running.start()

    yield start
    for running in started:
        if running.is_running():
            running.kill()
