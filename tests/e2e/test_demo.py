"""`lacewing demo`: its table and its document, what it says of a missing language, and that nothing stays."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

from harness import SLOWNESS, binary, node_runtime
from test_cli import lacewing

COLUMNS = ["FUNCTION", "RUNTIME", "START", "LATENCY", "INIT", "DURATION", "BILLED", "MEMORY"]
TIME = r"\d+\.\d\d ms"
# Runs a program where these files are no programs, in a mount namespace of its own.
HIDE = 'hidden=$1; shift; for file in $hidden; do mount --bind /dev/null "$file" || exit 9; done; exec "$@"'


def demo(place: pathlib.Path, *arguments: str, hidden: list[str] | None = None) -> subprocess.CompletedProcess:
    """Runs it in an environment that leads to no interpreter of a user, and sees that it cleans up."""
    command = [str(binary()), "demo", *arguments]
    if hidden is not None:
        command = ["unshare", "--mount", "sh", "-c", HIDE, "sh", " ".join(hidden), *command]
    temporary = place / "temporary"
    temporary.mkdir()
    environment = {"PATH": os.environ["PATH"] if hidden is None else "/usr/bin:/bin", "HOME": str(place)}
    answer = subprocess.run(
        command, env={**environment, "TMPDIR": str(temporary)}, capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 0, answer.stderr
    assert list(temporary.iterdir()) == []
    return answer


@pytest.mark.parametrize("delay", [0, 0.2])
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_leaves_nothing(tmp_path, sign, delay):
    running = subprocess.Popen(
        [str(binary()), "demo"], env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60 * SLOWNESS
    while not list(tmp_path.iterdir()) and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(delay)
    running.send_signal(sign)
    _, said = running.communicate(timeout=120 * SLOWNESS)
    assert (running.returncode, list(tmp_path.iterdir())) == (1, []), said
    assert "interrupted" in said


def table(text: str) -> tuple[list[list[str]], list[str]]:
    """The rows of the table, and the lines below it."""
    head, *lines = text.splitlines()
    assert head.split() == COLUMNS
    end = lines.index("")
    return [re.split(r"\s{2,}", line.strip()) for line in lines[:end]], lines[end:]


def is_row(row: list[str], function: str, start: str, measured: bool) -> None:
    assert (len(row), row[0], row[2]) == (len(COLUMNS), function, start), row
    assert re.fullmatch(TIME, row[3]) and re.fullmatch(TIME, row[5]), row
    assert re.fullmatch(TIME, row[4]) if start == "cold" else row[4] == "-", row
    assert re.fullmatch(r"\d+ ms", row[6]), row
    assert re.fullmatch(r"\d+ MB", row[7]) if measured else row[7] == "-", row


def isolation(server) -> str:
    """What the ready line of another server on this host says of it."""
    return re.search(r"isolation (.*?), network", server.ready_line).group(1)


def test_the_demo_prints_a_cold_and_a_warm_row_for_each_function(server, tmp_path, lacking):
    rows, below = table(demo(tmp_path).stdout)
    functions = ["hello-python", *(["hello-node"] if node_runtime() else []), "hello-compiled"]
    assert [row[0] for row in rows] == [name for name in functions for _ in range(2)]
    measured = not {"cgroup", "cgroup-memory"} & lacking
    for index, row in enumerate(rows):
        is_row(row, functions[index // 2], ["cold", "warm"][index % 2], measured)
    for name in functions:
        assert any(re.fullmatch(rf"{name}: .*Lambda.*", line) for line in below), below
    assert below[-1] == "isolation: " + isolation(server)


def test_the_demo_says_the_same_as_a_document(server, tmp_path):
    document = json.loads(demo(tmp_path, "--output", "json").stdout)
    assert document["isolation_is_full"] == (isolation(server) == "full")
    assert document["skipped"] == [] or node_runtime() is None
    for row in document["functions"]:
        assert {"function", "runtime", "cold", "warm", "answer"} <= row.keys()
        for start in ("cold", "warm"):
            assert row[start]["latency_us"] > 0
            assert re.fullmatch(TIME, row[start]["report"]["duration"])
        assert row["cold"]["report"]["init"] and row["warm"]["report"]["init"] is None
        assert "Lambda" in row["answer"]


@pytest.mark.skipif(os.geteuid() != 0, reason="skipped: hiding a program needs root")
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_missing_language_is_told_and_skipped(server, tmp_path, form):
    offered = json.loads(lacewing(server, "runtimes", "--output", "json").stdout)
    found = [one["path"] for one in offered if one["runtime"].startswith("nodejs")]
    usual = [path for path in ("/usr/bin/node", "/usr/local/bin/node") if os.path.exists(path)]
    hidden = sorted({os.path.realpath(path) for path in [*found, *usual]})
    answer = demo(tmp_path, "--output", form, hidden=hidden)
    assert "skipped hello-node: no Node 18 or newer was found" in answer.stderr
    if form == "json":
        document = json.loads(answer.stdout)
        assert [row["function"] for row in document["functions"]] == ["hello-python", "hello-compiled"]
        assert document["skipped"] == [{"function": "hello-node", "reason": "no Node 18 or newer was found"}]
    else:
        rows, _ = table(answer.stdout)
        assert [row[0] for row in rows] == ["hello-python"] * 2 + ["hello-compiled"] * 2
