"""Events left with us: durable before the 202, run at least once, also over a crash."""

import time

import pytest

from harness import Functions, logs

NOTE = """
def handler(event, context):
    print("handled", event["n"])
"""


def handled(server, name: str, at_least: int, within: float = 60) -> list[int]:
    """The numbers that the function's log says it handled."""
    deadline = time.monotonic() + within
    while True:
        events = logs(server, name)
        numbers = [int(line.split()[1]) for line in events if line.startswith("handled ")]
        if len(set(numbers)) >= at_least or time.monotonic() > deadline:
            return numbers
        time.sleep(0.2)


def test_an_event_is_accepted_and_run_once(server, functions):
    name = functions.python(NOTE)
    answer = functions.invoke(name, {"n": 7}, InvocationType="Event")
    assert (answer.status, answer.raw) == (202, b"")
    assert handled(server, name, 1) == [7]


def test_an_event_for_nobody_is_refused(functions):
    with pytest.raises(functions.client.exceptions.ResourceNotFoundException):
        functions.invoke("nobody", {}, InvocationType="Event")


def test_accepted_events_survive_a_kill(own_server):
    server = own_server()
    own = Functions(server)
    name = own.python(NOTE)
    for number in range(40):
        assert own.invoke(name, {"n": number}, InvocationType="Event").status == 202
    server.kill()
    again = own_server()
    assert set(handled(again, name, 40)) == set(range(40))
