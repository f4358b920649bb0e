"""Every row of `probe_table`, tried inside real Instances in three languages: each is stopped, by the
layer that must stop it. With `-s` it prints what stopped what; `docs/attacks.md` is the table."""

import collections
import contextlib
import os
import pathlib
import platform
import socket
import tempfile

import pytest

import probes
from harness import REPOSITORY, node_runtime, slowly
from probe_table import PROBES, TOLD, told
from test_runtimes import offered

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="skipped: the table has the system calls of x86-64"
)
DOCUMENT = REPOSITORY / "docs/attacks.md"


# An Instance that goes on from a snapshot is tried as if it were a language.
LANGUAGES = ["compiled", "python", "node", "restored"]
LACKING = "skipped: there is no Node from 18 on here, or no root or Python 3.12 for a snapshot"


@pytest.fixture(scope="module")
def deploy(server, functions, compiled):
    """Makes the hostile function in each language, by name of the language."""
    made = []

    def each(network: str) -> dict[str, str]:
        options = {"Timeout": slowly(60), "MemorySize": 512, "Environment": {"Variables": {"LACEWING_NETWORK": network}}}
        names = {
            "compiled": functions.custom(compiled, probes.MARKER, **options),
            "python": functions.create(probes.python_zip(), **options),
        }
        if node_runtime():
            content = probes.node_zip(compiled)
            names["node"] = functions.create(content, Runtime=node_runtime(), Handler="index.handler", **options)
        if os.geteuid() == 0 and any(one["runtime"] == "python3.12" for one in offered(server)):
            options |= {"Runtime": "python3.12", "SnapStart": {"ApplyOn": "PublishedVersions"}}
            name = functions.create(probes.python_zip(), **options)
            names["restored"] = name + ":" + functions.client.publish_version(FunctionName=name)["Version"]
        made.extend(names.values())
        return names

    yield each
    for name in made:
        functions.client.delete_function(FunctionName=name.split(":")[0])


def has_egress(server) -> bool:
    return "network egress" in server.ready_line


# Stands for the host's where it has a loopback only: refused as well.
NOWHERE = "198.18.0.1"


def address_of_host() -> str:
    """An address of the host that is no loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
        client.connect(("203.0.113.10", 9))
        return client.getsockname()[0]
    return NOWHERE


@pytest.fixture(scope="module")
def services(server):
    """Listeners of the host that must not be reached: for each what it is to a client, and placeholders."""
    with contextlib.ExitStack() as stack:
        directory = tempfile.TemporaryDirectory
        run = stack.enter_context(directory(dir="/run" if os.access("/run", os.W_OK) else None))
        tmp = stack.enter_context(directory(dir="/tmp"))
        inet = stack.enter_context(socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        abstract = f"\0lacewing-attack-{os.getpid()}"
        names = [abstract, f"{run}/socket", f"{tmp}/socket", str(server.data_dir / "probe.socket")]
        for name in names:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.bind(name)
            listener.listen()
        stack.callback(os.unlink, names[-1])
        places = {
            "port": server.endpoint.rsplit(":", 1)[1],
            "service": str(inet.getsockname()[1]),
            "host": address_of_host(),
            "abstract": abstract,
            "run": run,
            "tmp": tmp,
        }
        yield names, places


# Where the function of a runtime of its own is asked: by that its Runtime API answers.
VICTIM = """#!/usr/bin/env python3
import json, os, socket, urllib.request
API = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    try:
        client.connect(("203.0.113.10", 9))
        own = client.getsockname()[0]
    except OSError:
        own = None
while True:
    id = urllib.request.urlopen(API + "next").headers["Lambda-Runtime-Aws-Request-Id"]
    answer = json.dumps({"own": own, "api": os.environ["AWS_LAMBDA_RUNTIME_API"]}).encode()
    urllib.request.urlopen(API + id + "/response", answer)
"""


@pytest.fixture(scope="module")
def victim(functions):
    """An Instance with a Runtime API, and what it says of itself."""
    name = functions.custom(VICTIM, Timeout=slowly(30))
    yield lambda: functions.invoke(name).payload
    functions.client.delete_function(FunctionName=name)


@pytest.fixture(scope="module")
def places(server, services, victim) -> dict[str, str]:
    """What stands for the placeholders of the table."""
    children = pathlib.Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    for name in ("master.key", "credentials", "run", "code"):
        assert (server.data_dir / name).exists(), "what is not there is no secret"
    return {
        "data": str(server.data_dir),
        "server": str(server.process.pid),
        "launcher": children.split()[0],
        # Where nobody gets out it has no address that anybody could have.
        "victim": victim()["own"] or "198.19.1.0",
        **services[1],
    }


def attempts(functions, deployed, places, wanted) -> dict[str, dict[str, tuple[str, str]]]:
    """For each language and row, what became of it and the whole answer."""
    found = {}
    for language, name in deployed.items():
        written_in = "python" if language == "restored" else language
        rows = [probe for probe in PROBES if written_in in probe.languages and wanted(probe)]
        event = "probe " + "|".join(probes.program(probe, places) for probe in rows)
        answer = functions.invoke(name, event, LogType="Tail")
        assert answer.error is None, answer.raw
        assert ("Restore Duration" in answer.log) == (language == "restored"), answer.log
        answers = answer.payload.split("|")
        assert len(answers) == len(rows)
        found[language] = {
            probe.id: (probes.outcome(text), text) for probe, text in zip(rows, answers, strict=True)
        }
    return found


@pytest.fixture(scope="module")
def outcomes(functions, deploy, places) -> dict[str, dict[str, tuple[str, str]]]:
    found = attempts(functions, deploy("none"), places, lambda probe: True)
    report(found, lambda probe: probe.stops)
    return found


@pytest.fixture(scope="module")
def outward(functions, server, deploy, places) -> dict[str, dict[str, tuple[str, str]]]:
    """The same of functions with a way out, for the rows where that may make a difference."""
    if not has_egress(server):
        pytest.skip("skipped: nobody gets out here, see `lacewing doctor`")
    found = attempts(functions, deploy("egress"), places, lambda probe: probe.outward)
    report(found, lambda probe: probe.outward)
    return found


def report(found: dict, stops) -> None:
    tried = [probe for probe in PROBES if any(probe.id in rows for rows in found.values())]
    for probe in tried:
        told = {language: rows[probe.id][0] for language, rows in found.items() if probe.id in rows}
        layers = {stops(probe).get(outcome, "NOTHING") for outcome in told.values()}
        print(f"{probe.id:75} {'/'.join(sorted(set(told.values()))):16} {'/'.join(sorted(layers))}")
    by_node = sum(text.endswith(",by node") for _, text in found.get("node", {}).values())
    print(f"{len(tried)} rows in {', '.join(found)}; {by_node} of them by Node itself")
    ends = collections.Counter(outcome for rows in found.values() for outcome, _ in rows.values())
    told = ", ".join(f"{name} {count}" for name, count in ends.most_common())
    # `cargo xtask vm` repeats this line; `allowed` would be among the words.
    print(f"summary: {ends.total()} attempts by {len(tried)} rows in {len(found)} languages, stopped by: {told}")


def wrong(found: dict, lacking: set[str], stops) -> list[str]:
    """The rows that were not stopped by a layer that must stop them."""
    lines = []
    for probe in PROBES:
        outcome, text = found.get(probe.id, (None, ""))
        # `lacewing doctor` names these two; the other layers are wherever a sandbox can be built.
        right = {name for name, layer in stops(probe).items() if layer not in lacking & {"landlock", "seccomp"}}
        if len(right) > 1 and probes.host(lacking) in TOLD and not probe.by_owner:
            right = {told(probe, probes.host(lacking))}
        if outcome is not None and outcome not in right:
            lines.append(f"{probe.id}: {outcome} ({text}), not {' or '.join(sorted(right))}")
    return lines


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_attempt_is_stopped_by_the_layer_that_must_stop_it(outcomes, lacking, language):
    if language not in outcomes:
        pytest.skip(LACKING)
    failed = wrong(outcomes[language], lacking, lambda probe: probe.stops)
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("language", LANGUAGES)
def test_with_a_way_out_every_attempt_is_stopped_too(outward, lacking, language):
    if language not in outward:
        pytest.skip(LACKING)
    failed = wrong(outward[language], lacking, lambda probe: probe.outward)
    assert not failed, "\n".join(failed)


def test_all_languages_are_told_the_same(outcomes):
    for probe in PROBES:
        told = {language: rows[probe.id][0] for language, rows in outcomes.items() if probe.id in rows}
        if probe.by_owner:
            told.pop("restored", None)
        assert len(set(told.values())) == 1, (probe.id, told)


def test_what_must_not_be_reached_is_there_to_be_reached(server, services, places, victim, outcomes):
    """After the attempts: each service answers who may reach it."""
    names, _ = services
    for host in {"127.0.0.1", "127.0.0.53", "::1", places["host"]} - {NOWHERE}:
        socket.create_connection((host, int(places["service"])), 10).close()
    for name in names:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(name)
    assert server.health() == 200
    # It got this event over it, and is the same as before.
    assert victim() == {"own": places["victim"] if has_egress(server) else None, "api": "127.0.0.1:9001"}


def by(stops: dict) -> str:
    return " or ".join(f"{layer} (`{name}`)" for name, layer in stops.items())


def by_host() -> list[str]:
    """What decides between errnos, as lines of the page."""
    rows = [probe for probe in PROBES if any(told(probe, host) != next(iter(probe.stops)) for host in TOLD)]
    of_several = sum(len(probe.stops) > 1 for probe in PROBES)
    return [
        f"That is so for {of_several} rows. On these hosts, by kernel and user, each was told the first of its row but for:",
        "",
        f"| attempt | {' | '.join(TOLD)} |",
        "|---" * (len(TOLD) + 1) + "|",
        *(f"| {probe.name} | {' | '.join(f'`{told(probe, host)}`' for host in TOLD)} |" for probe in rows),
        "",
        "A restored Instance has a network namespace of its own user's, of which Linux 6.1 shows less:",
        *(f"`{probe.name}` may be told the other one there." for probe in PROBES if probe.by_owner),
    ]


def document() -> str:
    """The table as a page."""
    lines = [
        "# What a function may not do, and what stops it",
        "",
        "Every row is tried in each run of the tests, by a compiled program, by Python, by Node and by Python in an",
        "Instance that was restored from a snapshot, inside a function that was deployed as any other (`tests/e2e/test_probes.py`); `LACEWING_BLESS=1` writes this",
        "page from the table in `tests/e2e/probe_table.py`. Where two errnos are right the first layer that the",
        "call meets decides, which differs from kernel to kernel. Rows of sockets and of the network are tried",
        "without and with a way out.",
        "",
        f"{len(PROBES)} attempts; the layers are those of [SECURITY.md](../SECURITY.md).",
    ]
    areas = collections.defaultdict(list)
    for probe in PROBES:
        areas[probe.area].append(probe)
    for area, rows in areas.items():
        lines += ["", f"## {area[0].upper()}{area[1:]}", "", "| attempt | stopped by |", "|---|---|"]
        for probe in rows:
            stops = by(probe.stops)
            if probe.egress:
                stops += "; with a way out " + by(probe.egress)
            lines.append(f"| {probe.name} | {stops} |")
    lines += ["", "## Where more than one is right", "", *by_host()]
    return "\n".join(lines) + "\n"


def test_the_page_is_that_of_the_table():
    if os.environ.get("LACEWING_BLESS"):
        DOCUMENT.write_text(document())
    assert DOCUMENT.read_text() == document(), "run this test with LACEWING_BLESS=1 and commit docs/attacks.md"
