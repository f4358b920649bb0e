"""Stock runtimes: every version that the server offers serves, those of `[runtimes]` too, and one that is
not there is refused or, where that is asked for, substituted."""

import concurrent.futures
import json
import subprocess
import time

import botocore.exceptions
import pytest

from harness import PYTHON, ROLE, SLOWNESS, Functions, Server, cache, fetched_node, logs, records, zip_directories, zip_of
from test_cli import lacewing
from test_custom_runtimes import merge
from test_workloads import NODE_WORKLOADS, answers_on_node

PYTHON_SMOKE = """
import json, ssl, sqlite3, sys
print("loading")
def handler(event, context):
    if event["n"] < 0:
        raise ValueError("negative")
    return {"version": "python%d.%d" % sys.version_info[:2], "twice": event["n"] * 2, "id": context.aws_request_id}
"""
NODE_SMOKE = """
console.log("loading");
export const handler = async (event, context) => {
  if (event.n < 0) throw new RangeError("negative");
  return { version: `nodejs${parseInt(process.versions.node)}.x`, twice: event.n * 2, id: context.awsRequestId };
};
"""
# Nobody is answered until three are there.
TOGETHER = """
const waiting = [];
exports.handler = async (event, context) => {
  await new Promise((resolve) => { if (waiting.push(resolve) === 3) waiting.forEach((one) => one()); });
  return context.awsRequestId;
};
"""
NODES = [22, 24, 26]
needs_nodes = pytest.mark.skipif(
    any(fetched_node(major) is None for major in NODES), reason="skipped: scripts/prepare-tests fetched no Node"
)


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """A server whose configuration names Nodes that it would not find."""
    place = tmp_path_factory.mktemp("configured")
    config = place / "lacewing.toml"
    entries = [f'"nodejs{major}.x" = "{fetched_node(major)}"\n' for major in NODES]
    config.write_text("[runtimes]\n" + "".join(entries))
    running = Server(place / "data", "--config", str(config)).start()
    yield running
    assert running.stop() == 0


def offered(server) -> list[dict]:
    return json.loads(lacewing(server, "runtimes", "--output", "json").stdout)


def serves(server, functions: Functions, runtime: str) -> None:
    """A function of that runtime answers cold and warm, fails as it should, and its log names the version."""
    if runtime.startswith("python"):
        name = functions.python(PYTHON_SMOKE, Runtime=runtime, MemorySize=256)
        error, begin = "ValueError", f"python:{runtime.removeprefix('python')}.v"
    else:
        files = zip_of({"index.mjs": NODE_SMOKE})
        name = functions.create(files, Runtime=runtime, Handler="index.handler", MemorySize=256)
        error, begin = "RangeError", f"nodejs:{runtime.removeprefix('nodejs').removesuffix('.x')}.v"
    for number in (1, 2):
        answer = functions.invoke(name, {"n": number})
        assert answer.error is None, (runtime, answer.raw)
        assert answer.payload == {"version": runtime, "twice": 2 * number, "id": answer.request_id}
    failed = functions.invoke(name, {"n": -1})
    assert (failed.error, failed.payload["errorType"]) == ("Unhandled", error)
    lines = logs(server, name)
    assert lines[0].startswith(f"INIT_START Runtime Version: {begin}"), lines
    assert any(line.endswith("loading") for line in lines), lines
    functions.client.delete_function(FunctionName=name)


def test_every_version_that_is_offered_serves(server, functions):
    runtimes = [one["runtime"] for one in offered(server)]
    assert any(runtime.startswith("python") for runtime in runtimes), runtimes
    for runtime in runtimes:
        serves(server, functions, runtime)


@needs_nodes
@pytest.mark.parametrize("major", NODES)
def test_a_configured_version_is_offered_and_serves(configured, major):
    runtime = f"nodejs{major}.x"
    found = next(one for one in offered(configured) if one["runtime"] == runtime)
    assert (found["origin"], found["path"]) == ("configuration", str(fetched_node(major).resolve()))
    serves(configured, Functions(configured), runtime)


@needs_nodes
@pytest.mark.parametrize("workload", NODE_WORKLOADS)
@pytest.mark.parametrize("major", NODES)
def test_packages_work_on_a_configured_version(configured, major, workload):
    answers_on_node(Functions(configured), workload, f"nodejs{major}.x")


@needs_nodes
@pytest.mark.parametrize("major", NODES)
def test_a_configured_version_serves_several_invocations_in_an_instance(configured, major):
    functions = Functions(configured)
    name = functions.create(
        zip_of({"index.js": TOGETHER}), Runtime=f"nodejs{major}.x", Handler="index.handler", Timeout=60,
        Environment={"Variables": {"LACEWING_CONCURRENCY_PER_INSTANCE": "3"}},
    )  # fmt: skip
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: Functions(configured).invoke(name, {}), range(3)))
    assert [answer.payload for answer in answers] == [answer.request_id for answer in answers]


def test_a_version_that_is_not_there_is_refused_with_what_is(server, functions):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        functions.client.create_function(
            FunctionName="of-tomorrow", Runtime="python3.99", Handler="app.handler", Role=ROLE,
            Code={"ZipFile": zip_of({"app.py": PYTHON_SMOKE})},
        )  # fmt: skip
    error = caught.value.response["Error"]
    assert error["Code"] == "InvalidParameterValueException"
    available = [one["runtime"] for one in offered(server)] + ["provided.al2023", "provided.al2"]
    assert error["Message"] == (
        "The runtime python3.99 is not available on this machine. Available runtimes: "
        + ", ".join(available) + "."
    )  # fmt: skip
    with pytest.raises(functions.client.exceptions.ResourceNotFoundException):
        functions.client.get_function(FunctionName="of-tomorrow")


def test_a_substitute_is_named_where_it_serves(own_server):
    server = own_server("--substitute-runtimes")
    functions = Functions(server)
    name = functions.python("def handler(e, c): return 1", Runtime="python3.99")
    assert functions.invoke(name).payload == 1
    newest = [one["runtime"] for one in offered(server) if one["runtime"].startswith("python")][-1]
    first = logs(server, name)[0]
    assert first.startswith(f"INIT_START Runtime Version: python:{newest.removeprefix('python')}.v"), first
    assert first.endswith("\tSubstitute for: python3.99"), first
    described = server.client().get_function_configuration(FunctionName=name)
    assert "python3.99" in described["StateReason"] and newest in described["StateReason"]
    assert f"Version ARN: {described['RuntimeVersionConfig']['RuntimeVersionArn']}\t" in first


def test_a_function_that_failed_is_deployed_over(own_server, tmp_path):
    server = own_server("--substitute-runtimes")
    name = Functions(server).python("def handler(e, c): return 1", Runtime="python3.99")
    server.stop()
    server = own_server()
    assert server.client().get_function_configuration(FunctionName=name)["State"] == "Failed"
    (tmp_path / "app.py").write_text("def handler(e, c): return 2")
    deployed = lacewing(server, "deploy", str(tmp_path / "app.py"), "--name", name, "--runtime", PYTHON)
    assert deployed.returncode == 0, deployed.stderr
    assert Functions(server).invoke(name).payload == 2


def test_a_function_whose_runtime_is_gone_says_so_and_waits_for_it(own_server):
    server = own_server("--substitute-runtimes")
    name = Functions(server).python("def handler(e, c): return 1", Runtime="python3.99")
    server.client().put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert Functions(server).invoke(name, {}, InvocationType="Event").status == 202
    server.stop()
    log = len(server.log.read_text())
    server = own_server()
    client = server.client()
    client.delete_function_concurrency(FunctionName=name)
    described = client.get_function_configuration(FunctionName=name)
    assert (described["State"], described["StateReasonCode"]) == ("Failed", "InvalidRuntime")
    assert "python3.99 is not available on this machine" in described["StateReason"]
    for how in ("RequestResponse", "Event"):
        with pytest.raises(client.exceptions.ResourceConflictException) as caught:
            client.invoke(FunctionName=name, InvocationType=how)
        assert described["StateReason"] in caught.value.response["Error"]["Message"]
    time.sleep(3)
    assert " ERROR " not in server.log.read_text()[log:]
    server.stop()
    server = own_server("--substitute-runtimes")
    assert server.client().get_function_configuration(FunctionName=name)["State"] == "Active"
    assert Functions(server).invoke(name).payload == 1
    until = time.monotonic() + 60 * SLOWNESS
    while len(records(server)) < 2 and time.monotonic() < until:
        time.sleep(0.2)
    assert len(records(server)) == 2, "the event from before ran, too"


@pytest.mark.skipif(fetched_node(22) is None, reason="skipped: scripts/prepare-tests fetched no Node")
def test_the_official_node_client_of_version_4_works_on_its_own_node(functions):
    """It wants Node 22, which the host need not have: the function brings its own."""
    packages = cache() / "workloads/aws-lambda-ric-4"
    extra = {"app.mjs": "export const handler = async (event, context) => [event, context.awsRequestId, process.version];"}
    content = zip_directories(packages, fetched_node(22).parent, extra=extra, level=4)  # within 50 MB
    bootstrap = "#!/bin/sh\nexec ./node node_modules/aws-lambda-ric/index.mjs app.handler\n"
    name = functions.create(merge(content, bootstrap), Runtime="provided.al2023", MemorySize=512, Timeout=30)
    answer = functions.invoke(name, {"a": 1})
    assert answer.error is None, answer.raw
    version = subprocess.run([fetched_node(22), "--version"], capture_output=True, text=True, check=True).stdout
    assert answer.payload == [{"a": 1}, answer.request_id, version.strip()]
