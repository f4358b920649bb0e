"""Usage records through `lacewing usage`: one for each invocation, also after a crash of the server."""

import collections
import json
import subprocess
import threading

from harness import Functions, binary, info, records, usage
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


PARTS = ("queued_us", "placed_us", "sandbox_us", "init_us", "handler_us", "response_us")


def invoke(server, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(binary()), "invoke", *arguments],
        env=server.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_timeline_says_where_the_time_went(own_server):
    server = own_server()
    name = Functions(server).python("import time\ntime.sleep(0.2)\ndef handler(event, context): return time.sleep(0.1)")
    # The first may meet an Instance that was made ahead of it.
    answer = json.loads(invoke(server, name, "--timeline", "--output", "json").stdout)
    (record,) = records(server)
    assert record["timeline"] == answer["timeline"] and set(record["timeline"]) == {*PARTS, "cold_start"}
    cold = record["timeline"]
    assert cold["cold_start"] == "first" and cold["init_us"] >= 200_000
    assert cold["placed_us"] > 0 and cold["sandbox_us"] > 0 and cold["queued_us"] < cold["init_us"]
    assert cold["handler_us"] == record["duration_us"] >= 100_000

    warm = invoke(server, name, "--timeline")
    assert warm.returncode == 0 and warm.stdout == "null\n"
    assert warm.stderr.startswith("warm: queued 0.000 ms, placed "), warm.stderr
    again = records(server)[1]["timeline"]
    assert (again["cold_start"], again["sandbox_us"], again["init_us"]) == (None, 0, 0)
    assert again["handler_us"] >= 100_000
    streamed = invoke(server, name, "--timeline", "--stream", "--output", "json")
    last = json.loads(streamed.stdout.splitlines()[-1])
    assert last["timeline"] == records(server)[2]["timeline"] and last["timeline"]["cold_start"] is None
    assert "timeline" not in invoke(server, name).stderr
    assert "warm after" not in usage(server, "--records") and "cold (first)" in usage(server, "--records")
    # To leave an event and to want its timeline is a contradiction.
    assert invoke(server, name, "--timeline", "--async").returncode == 2


def test_a_timeline_is_for_who_asks(own_server):
    server = own_server()
    functions = Functions(server)
    name = functions.python("def handler(event, context): return 1")
    client = server.client()

    def headers(value: str | None) -> dict:
        def add(params, **_):
            if value is not None:
                params["headers"]["X-Lacewing-Timeline"] = value

        client.meta.events.register("before-call.lambda.Invoke", add)
        try:
            return client.invoke(FunctionName=name)["ResponseMetadata"]["HTTPHeaders"]
        finally:
            client.meta.events.unregister("before-call.lambda.Invoke", add)

    assert "x-lacewing-timeline" not in headers(None)
    assert set(json.loads(headers("Whole")["x-lacewing-timeline"])) == {*PARTS, "cold_start"}
    try:
        headers("all")
    except client.exceptions.ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400 and "None, Whole" in str(error)
    else:
        raise AssertionError("an unknown value was taken")


def test_cold_starts_have_their_reason(own_server):
    server = own_server()
    functions = Functions(server)
    name = functions.python(SOURCE, Timeout=12)

    def reasons() -> dict[str, str | None]:
        return {record["request_id"]: record["timeline"]["cold_start"] for record in records(server)}

    first, warm = functions.invoke(name, {}).request_id, functions.invoke(name, {}).request_id
    assert reasons() == {first: "first", warm: None}
    functions.client.update_function_configuration(FunctionName=name, Timeout=11)
    functions.client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    changed = functions.invoke(name, {}).request_id
    assert reasons()[changed] == "changed"
    functions.invoke(name, {"do": "exit"})
    spent = functions.invoke(name, {}).request_id
    assert reasons()[spent] == "spent"
    sleeper = threading.Thread(target=functions.invoke, args=(name, {"do": "sleep"}))
    sleeper.start()
    assert wait_until(lambda: info(server)["instances"]["busy"] == 1, within=30)
    beside = functions.invoke(name, {}).request_id
    sleeper.join()
    assert reasons()[beside] == "all_busy"
