"""Every row of `probe_table`, tried inside real Instances in three languages: each is stopped, by the
layer that must stop it. With `-s` it prints what stopped what; `docs/attacks.md` is the table."""

import collections
import os
import pathlib
import platform
import socket

import pytest

import probes
from harness import REPOSITORY, node_runtime
from probe_table import PROBES

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="skipped: the table has the system calls of x86-64"
)
DOCUMENT = REPOSITORY / "docs/attacks.md"


@pytest.fixture(scope="module")
def deployed(functions, compiled) -> dict[str, str]:
    # What is refused on the way out is in test_network.
    options = {"Timeout": 60, "MemorySize": 512, "Environment": {"Variables": {"LACEWING_NETWORK": "none"}}}
    names = {
        "compiled": functions.custom(compiled, probes.MARKER, **options),
        "python": functions.create(probes.python_zip(), **options),
    }
    if node_runtime():
        content = probes.node_zip(compiled)
        names["node"] = functions.create(content, Runtime=node_runtime(), Handler="index.handler", **options)
    yield names
    for name in names.values():
        functions.client.delete_function(FunctionName=name)


@pytest.fixture(scope="module")
def places(server) -> dict[str, str]:
    """What stands for the placeholders of the table, and a listener that must not be reached."""
    children = pathlib.Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    for name in ("master.key", "credentials", "run", "code"):
        assert (server.data_dir / name).exists(), "what is not there is no secret"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    abstract = f"\0lacewing-attack-{os.getpid()}"
    listener.bind(abstract)
    listener.listen()
    yield {
        "data": str(server.data_dir),
        "server": str(server.process.pid),
        "launcher": children.split()[0],
        "port": server.endpoint.rsplit(":", 1)[1],
        "abstract": abstract,
    }
    listener.close()


@pytest.fixture(scope="module")
def outcomes(functions, deployed, places) -> dict[str, dict[str, tuple[str, str]]]:
    """For each language and row, what became of it and the whole answer."""
    found = {}
    for language, name in deployed.items():
        rows = [probe for probe in PROBES if language in probe.languages]
        event = "probe " + "|".join(probes.program(probe, places) for probe in rows)
        answer = functions.invoke(name, event)
        assert answer.error is None, answer.raw
        answers = answer.payload.split("|")
        assert len(answers) == len(rows)
        found[language] = {
            probe.id: (probes.outcome(text), text) for probe, text in zip(rows, answers, strict=True)
        }
    report(found)
    return found


def report(found: dict) -> None:
    for probe in PROBES:
        told = {language: rows[probe.id][0] for language, rows in found.items() if probe.id in rows}
        layers = {probe.stops.get(outcome, "NOTHING") for outcome in told.values()}
        print(f"{probe.id:75} {'/'.join(sorted(set(told.values()))):16} {'/'.join(sorted(layers))}")
    by_node = sum(text.endswith(",by node") for _, text in found.get("node", {}).values())
    print(f"{len(PROBES)} rows in {', '.join(found)}; {by_node} of them by Node itself")
    ends = collections.Counter(outcome for rows in found.values() for outcome, _ in rows.values())
    told = ", ".join(f"{name} {count}" for name, count in ends.most_common())
    # `cargo xtask vm` repeats this line; `allowed` would be among the words.
    print(f"summary: {ends.total()} attempts by {len(PROBES)} rows in {len(found)} languages, stopped by: {told}")


@pytest.mark.parametrize("language", ["compiled", "python", "node"])
def test_every_attempt_is_stopped_by_the_layer_that_must_stop_it(outcomes, lacking, language):
    if language not in outcomes:
        pytest.skip("skipped: there is no Node here")
    wrong = []
    for probe in PROBES:
        if language not in probe.languages:
            continue
        outcome, text = outcomes[language][probe.id]
        # `lacewing doctor` names these two; the other layers are wherever a sandbox can be built.
        right = {name for name, layer in probe.stops.items() if layer not in lacking & {"landlock", "seccomp"}}
        if outcome not in right:
            wrong.append(f"{probe.id}: {outcome} ({text}), not {' or '.join(sorted(right))}")
    assert not wrong, "\n".join(wrong)


def test_all_languages_are_told_the_same(outcomes):
    for probe in PROBES:
        told = {language: rows[probe.id][0] for language, rows in outcomes.items() if probe.id in rows}
        assert len(set(told.values())) == 1, (probe.id, told)


def document() -> str:
    """The table as a page."""
    lines = [
        "# What a function may not do, and what stops it",
        "",
        "Every row is tried in each run of the tests, by a compiled program, by Python and by Node, inside a",
        "function that was deployed as any other (`tests/e2e/test_probes.py`); `LACEWING_BLESS=1` writes this",
        "page from the table in `tests/e2e/probe_table.py`. Where two errnos are right the first layer that the",
        "call meets decides, which differs from kernel to kernel.",
        "",
        f"{len(PROBES)} attempts; the layers are those of [SECURITY.md](../SECURITY.md).",
    ]
    areas = collections.defaultdict(list)
    for probe in PROBES:
        areas[probe.area].append(probe)
    for area, rows in areas.items():
        lines += ["", f"## {area[0].upper()}{area[1:]}", "", "| attempt | stopped by |", "|---|---|"]
        for probe in rows:
            stops = " or ".join(f"{layer} (`{name}`)" for name, layer in probe.stops.items())
            lines.append(f"| {probe.name} | {stops} |")
    return "\n".join(lines) + "\n"


def test_the_page_is_that_of_the_table():
    if os.environ.get("LACEWING_BLESS"):
        DOCUMENT.write_text(document())
    assert DOCUMENT.read_text() == document(), "run this test with LACEWING_BLESS=1 and commit docs/attacks.md"
