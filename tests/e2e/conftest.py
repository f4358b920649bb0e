"""Fixtures: one server for all tests of a run, and a fresh one for those that stop or kill theirs."""

import pytest

from harness import Functions, Server


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
