"""`GET /metrics`: what a monitoring system gets, and who does not."""

import re
import urllib.error
import urllib.request

import botocore.exceptions
import pytest

from harness import Functions, records
from test_serve import wait_until

SOURCE = """
import os, time, urllib.error, urllib.request

def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
    except OSError as error:
        return [0, str(error)]

def handler(event, context):
    match event.get("do"):
        case "fail": raise ValueError("on purpose")
        case "sleep": time.sleep(30)
        case "fetch": return {path: fetch(os.environ["AWS_ENDPOINT_URL"] + path) for path in event["paths"]}
        case "dial": return [fetch(url) for url in event["urls"]]
    return event
"""


def fetch(server, **headers: str) -> str:
    request = urllib.request.Request(f"{server.endpoint}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        return answer.read().decode()


def values(server) -> dict[str, float]:
    text = fetch(server)
    assert text.endswith("# EOF\n")
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in found.items()}


def test_metrics_agree_with_the_usage_records(own_server):
    server = own_server()
    functions = Functions(server)
    name = functions.python(SOURCE, Timeout=2)
    for event in ({}, {}, {"do": "fail"}, {"do": "sleep"}, {}):
        functions.invoke(name, event)
    functions.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    with pytest.raises(botocore.exceptions.ClientError):
        functions.invoke(name, {})

    labels = f'account="000000000000",function="{name}"'
    count = f"lacewing_invocation_duration_seconds_count{{{labels}}}"
    assert wait_until(lambda: values(server).get(count) == 5, within=30), fetch(server)
    found = values(server)
    invocations = f"lacewing_invocations_total{{{labels},ending="
    assert found[f'{invocations}"returned"}}'] == 3
    assert found[f'{invocations}"handler_error"}}'] == found[f'{invocations}"timeout"}}'] == 1
    kept = records(server)
    total = sum(record["duration_us"] for record in kept) / 1e6
    assert found[f"lacewing_invocation_duration_seconds_sum{{{labels}}}"] == pytest.approx(total)
    assert found[f'lacewing_invocation_duration_seconds_bucket{{le="1.0",{labels}}}'] == 4
    assert found["lacewing_queue_duration_seconds_count"] == 5
    cold = [record["timeline"]["cold_start"] for record in kept if record["timeline"]["cold_start"]]
    assert sorted(cold) == ["first", "spent"]
    assert all(found[f'lacewing_cold_starts_total{{reason="{reason}"}}'] == 1 for reason in cold)
    assert found["lacewing_cold_start_duration_seconds_count"] == 2
    assert found['lacewing_throttles_total{reason="reserved_concurrency"}'] == 1
    assert found['lacewing_instances{state="idle"}'] == 1 and found["lacewing_waiting_invocations"] == 0
    assert all(re.match(r"lacewing_[a-z_]+(\{[^{}]*\})?$", name) for name in found)


def test_only_the_hosts_own_programs_get_them(own_server):
    server = own_server()
    functions = Functions(server)
    name = functions.python(SOURCE)
    fetch(server)
    for header in ("X-Forwarded-For", "Via"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(server, **{header: "203.0.113.9"})
        assert refused.value.code == 403
    # The API inside the sandbox knows of no such path; the host's own port is out of reach, also with network egress.
    inside = functions.invoke(name, {"do": "fetch", "paths": ["/health", "/metrics"]}).payload
    assert inside["/health"][0] == 200
    assert inside["/metrics"][0] == 403 and "lacewing_" not in inside["/metrics"][1]
    port = server.endpoint.rsplit(":", 1)[1]
    urls = [f"http://{host}:{port}/metrics" for host in ("127.0.0.1", "localhost", "[::1]")]
    for status, text in functions.invoke(name, {"do": "dial", "urls": urls}).payload:
        assert status == 0 and "lacewing_" not in text
