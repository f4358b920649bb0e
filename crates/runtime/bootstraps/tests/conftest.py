"""Finds the interpreters to test and starts bootstraps; an absent interpreter is a skip that says so."""

import glob
import os
import re
import shutil
import subprocess

import pytest
from driver import BOOTSTRAPS, Bootstrap, write_files

PYTHONS = ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
# The one on PATH, and those that scripts/prepare-tests fetched.
NODES = ["PATH", "22", "24"]
CACHE = os.environ.get("LACEWING_CACHE", os.path.expanduser("~/.cache/lacewing"))


def python_path(version):
    """The interpreter of this version from pyenv or from PATH."""
    pattern = os.path.expanduser("~/.pyenv/versions/%s.*/bin/python%s" % (version, version))
    for path in sorted(glob.glob(pattern)) + [shutil.which("python" + version) or ""]:
        if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    return None


def pytest_generate_tests(metafunc):
    if "python" in metafunc.fixturenames:
        metafunc.parametrize("python", PYTHONS, indirect=True, scope="session")
    if "node" in metafunc.fixturenames:
        metafunc.parametrize("node", NODES, indirect=True, scope="session")
    own = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "blank" in metafunc.fixturenames and "blank" not in own:
        ways = [None, "blank", "origin", "copy"]
        metafunc.parametrize("blank", ways, indirect=True, ids=lambda way: way or "started")


@pytest.fixture(scope="session")
def python(request):
    path = python_path(request.param)
    if path is None:
        pytest.skip("python%s is not on this machine" % request.param)
    return path


@pytest.fixture
def blank(request):
    """How the bootstrap is started when there is no function yet, if so; it must not be seen afterwards."""
    return request.param


@pytest.fixture
def start_python(python, tmp_path, blank):
    """Starts the Python bootstrap over some files; the one named in the handler must be among them."""
    started = []

    def start(files, handler="index.handler", **options):
        if isinstance(files, str):
            files = {"index.py": files}
        argv = [python, "-I", "-S", "-B", BOOTSTRAPS + "/python/bootstrap.py"]
        minor = re.search(r"3\.(\d+)$", python).group(1)
        env = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3." + minor, **options.pop("env", {})}
        wrapper = options.pop("wrapper", [])
        root = write_files(tmp_path, files)
        started.append(Bootstrap(wrapper + argv, root, handler, env, blank=blank, **options))
        return started[-1]

    yield start
    for bootstrap in started:
        bootstrap.__exit__()


def node_path(version):
    if version == "PATH":
        return shutil.which("node")
    return next(iter(glob.glob(CACHE + "/workloads/node%s/node_modules/*/bin/node" % version)), None)


@pytest.fixture(scope="session")
def node(request):
    path = node_path(request.param)
    if path is None:
        pytest.skip("node (%s) is not on this machine" % request.param)
    return path


@pytest.fixture(scope="session")
def node_major(node):
    return subprocess.run([node, "-p", "parseInt(process.versions.node)"], capture_output=True, text=True).stdout.strip()


@pytest.fixture
def start_node(node, node_major, tmp_path, blank):
    """Starts the Node bootstrap over some files."""
    started = []

    def start(files, handler="index.handler", **options):
        if isinstance(files, str):
            files = {"index.js": files}
        argv = [node, BOOTSTRAPS + "/node/bootstrap.cjs"]
        env = {"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs%s.x" % node_major, **options.pop("env", {})}
        wrapper = options.pop("wrapper", [])
        root = write_files(tmp_path, files)
        started.append(Bootstrap(wrapper + argv, root, handler, env, blank=blank, **options))
        return started[-1]

    yield start
    for bootstrap in started:
        bootstrap.__exit__()
