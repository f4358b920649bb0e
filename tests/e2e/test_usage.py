"""Usage records through `lacewing usage`: one for each invocation, also after a crash of the server."""

import collections
import json
import subprocess

from harness import Functions, binary
from test_serve import wait_until

SOURCE = """
import os, time

def handler(event, context):
    match event.get("do"):
        case "fail": raise ValueError("on purpose")
        case "exit": os._exit(3)
        case "sleep": time.sleep(30)
        case "large": return "x" * (7 << 20)
    return event
"""


def usage(server, *arguments: str) -> str:
    answer = subprocess.run(
        [str(binary()), "usage", *arguments],
        env=server.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def records(server, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in usage(server, "--records", "--output", "json", *arguments).splitlines()]


def totals(server, *arguments: str) -> dict:
    return json.loads(usage(server, "--output", "json", *arguments))


def endings(found: list[dict]) -> dict[str, int]:
    return dict(collections.Counter(record["ending"] for record in found))


def test_each_invocation_has_one_record_that_survives_a_kill(own_server):
    server = own_server()
    functions = Functions(server)
    name = functions.python(SOURCE, Timeout=2, MemorySize=256)
    other = functions.python("def handler(event, context): return 1")
    asked = [
        functions.invoke(name, event).request_id
        for event in ({"n": 1}, {"n": 22}, {"do": "fail"}, {"do": "exit"}, {"do": "sleep"}, {"do": "large"})
    ]
    event = functions.invoke(name, {"n": 333}, InvocationType="Event")
    functions.invoke(name, {}, InvocationType="DryRun")
    streamed = server.client().invoke_with_response_stream(FunctionName=name, Payload=b'{"n":1}')
    assert any("InvokeComplete" in piece for piece in streamed["EventStream"])
    asked += [event.request_id, streamed["ResponseMetadata"]["RequestId"]]
    functions.invoke(other, {})
    assert wait_until(lambda: event.request_id in {it["request_id"] for it in records(server)}, within=60)

    mine = records(server, "--function", name)
    assert sorted(record["request_id"] for record in mine) == sorted(asked)
    expected = {"returned": 4, "handler_error": 1, "exited": 1, "timeout": 1, "response_too_large": 1}
    assert endings(mine) == expected
    by_id = {record["request_id"]: record for record in mine}
    first, second, timeout = (by_id[asked[place]] for place in (0, 1, 4))
    assert (first["function"], first["version"], first["trigger"]) == (name, "$LATEST", "sync")
    assert (first["memory_mb"], first["bytes_in"], first["bytes_out"]) == (256, len('{"n": 1}'), len('{"n": 1}'))
    assert first["init_us"] > 0 and second["init_us"] is None
    assert first["billed_ms"] * 1000 >= first["duration_us"] + first["init_us"]
    assert 0 < second["max_memory_mb"] <= 256
    assert timeout["duration_us"] == 2_000_000 and timeout["billed_ms"] >= 2_000
    assert by_id[event.request_id]["trigger"] == "async"
    assert [record["function"] for record in records(server, "--function", other)] == [other]
    assert records(server, "--since", "2100-01-01T00:00:00Z") == []
    assert len(records(server, "--since", "1h")) == 9

    before, summed = records(server), totals(server)
    assert summed[name]["invocations"] == 8 and summed[name]["errors"] == 4
    assert summed[name]["billed_ms"] == sum(record["billed_ms"] for record in mine)
    assert summed[name]["memory_mb_ms"] == 256 * summed[name]["billed_ms"]
    assert summed[other]["invocations"] == 1 and list(summed) == sorted([name, other])
    assert totals(server, "--function", other) == {other: summed[other]}

    # What is answered right before the kill has its record as well.
    last = functions.invoke(name, {"n": 4}).request_id
    server.kill()
    server.start()
    after = records(server)
    assert after[: len(before)] == before
    assert [record["request_id"] for record in after[len(before) :]] == [last]
    Functions(server).invoke(other, {})
    assert totals(server)[other]["invocations"] == 2
    assert len(records(server)) == len(before) + 2


def test_pages_and_text_show_the_same(own_server):
    server = own_server()
    functions = Functions(server)
    name = functions.python("def handler(event, context): return event")
    assert usage(server) == "" and totals(server) == {}
    for number in range(5):
        functions.invoke(name, number)
    found = records(server)
    lines = usage(server, "--records").splitlines()
    assert len(lines) == 5 and all(record["request_id"] in line for record, line in zip(found, lines))
    head, row = usage(server).splitlines()
    assert head.startswith("FUNCTION") and row.split()[:3] == [name, "5", "0"]
    functions.client.delete_function(FunctionName=name)
    assert len(records(server, "--function", name)) == 5
