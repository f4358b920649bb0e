"""Concurrency that functions have for themselves, through boto3: a cap, a bound for all of them, a switch."""

import concurrent.futures
import contextlib

import botocore.exceptions
import pytest

from harness import Functions, info, logs, zip_of
from test_serve import wait_until

NAPS = """
import time

def handler(event, context):
    time.sleep(event)
    return context.function_version
"""
ALL = 1000


def left(client) -> int:
    limit = client.get_account_settings()["AccountLimit"]
    assert limit["ConcurrentExecutions"] == ALL
    return limit["UnreservedConcurrentExecutions"]


def reserve(client, name: str, count: int) -> None:
    answer = client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=count)
    assert answer["ReservedConcurrentExecutions"] == count
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200


def reserved(client, name: str) -> int | None:
    """What both operations that tell it say."""
    answer = client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
    concurrency = client.get_function(FunctionName=name).get("Concurrency")
    assert concurrency == (None if answer is None else {"ReservedConcurrentExecutions": answer})
    return answer


def assert_refused(functions, name: str, **options) -> None:
    with pytest.raises(functions.client.exceptions.TooManyRequestsException) as caught:
        functions.invoke(name, 0, **options)
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert int(response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) >= 1


@contextlib.contextmanager
def busy(server, name: str, count: int):
    """So many calls of the function that last for longer than the test; their end is not waited for."""

    def call() -> None:
        with contextlib.suppress(botocore.exceptions.ClientError, botocore.exceptions.HTTPClientError):
            Functions(server).invoke(name, 300)

    pool = concurrent.futures.ThreadPoolExecutor(count)
    try:
        for _ in range(count):
            pool.submit(call)
        assert wait_until(lambda: info(server)["instances"]["busy"] == count, 30)
        yield
    finally:
        server.kill()
        pool.shutdown()


def test_what_is_reserved_is_a_cap_that_versions_share(own_server):
    server = own_server()
    functions = Functions(server)
    client = functions.client
    name, other = functions.python(NAPS, Timeout=600), functions.python(NAPS)
    client.publish_version(FunctionName=name)
    reserve(client, name, 2)
    assert (reserved(client, name), reserved(client, other), left(client)) == (2, None, ALL - 2)
    assert reserved(client, f"arn:aws:lambda:us-east-1:000000000000:function:{name}") == 2
    with busy(server, name, 2):
        assert_refused(functions, name)
        assert_refused(functions, name, Qualifier="1")
        assert functions.invoke(other, 0).payload == "$LATEST"
        reserve(client, name, 3)
        assert functions.invoke(name, 0, Qualifier="1").payload == "1"
        reserve(client, name, 2)
        assert_refused(functions, name)
        # An event waits until there is room for it.
        event = functions.invoke(name, 0, InvocationType="Event").request_id
        client.delete_function_concurrency(FunctionName=name)
        assert functions.invoke(name, 0).payload == "$LATEST"
        assert wait_until(lambda: any(f"END RequestId: {event}" in line for line in logs(server, name)), 60)
        assert (reserved(client, name), left(client)) == (None, ALL)
        reserve(client, name, 2)
    server.start()
    functions = Functions(server)
    assert (reserved(functions.client, name), left(functions.client)) == (2, ALL - 2)
    with busy(server, name, 2):
        assert_refused(functions, name)
        assert functions.invoke(other, 0).payload == "$LATEST"


def test_zero_turns_a_function_off_until_it_is_deleted(functions):
    client = functions.client
    name, other = functions.python(NAPS), functions.python(NAPS)
    before = left(client)
    assert functions.invoke(name, 0).error is None
    reserve(client, name, 0)
    assert (reserved(client, name), left(client)) == (0, before)
    assert_refused(functions, name)
    assert functions.invoke(other, 0).error is None
    client.delete_function(FunctionName=name)
    functions.create(zip_of({"app.py": NAPS}), name)
    assert reserved(client, name) is None
    assert functions.invoke(name, 0).error is None


def test_what_is_reserved_goes_with_its_function(functions):
    client = functions.client
    name = functions.python(NAPS)
    before = left(client)
    reserve(client, name, 40)
    reserve(client, name, 30)
    assert left(client) == before - 30
    client.delete_function(FunctionName=name)
    assert left(client) == before
    for operation in [client.get_function_concurrency, client.delete_function_concurrency]:
        with pytest.raises(client.exceptions.ResourceNotFoundException, match=name):
            operation(FunctionName=name)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)


def test_a_hundred_are_left_to_others(functions):
    client = functions.client
    one, other = functions.python(NAPS), functions.python(NAPS)
    most = left(client) - 100
    reserve(client, one, most)
    for name, count in [(one, most + 1), (other, 1)]:
        with pytest.raises(client.exceptions.InvalidParameterValueException) as caught:
            client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=count)
        assert "UnreservedConcurrentExecution below its minimum value of [100]." in str(caught.value)
    assert (reserved(client, one), reserved(client, other)) == (most, None)
    reserve(client, other, 0)
    answer = client.delete_function_concurrency(FunctionName=one)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    client.delete_function_concurrency(FunctionName=one)
    reserve(client, other, 1)
    client.delete_function_concurrency(FunctionName=other)


def test_an_account_of_a_hundred_or_less_reserves_none(own_server, tmp_path):
    file = tmp_path / "lacewing.toml"
    file.write_text("[limits]\nconcurrency = 20\n")
    functions = Functions(own_server("--config", str(file)))
    client = functions.client
    name = functions.python(NAPS)
    assert client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 20
    with pytest.raises(client.exceptions.InvalidParameterValueException, match=r"minimum value of \[20\]"):
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    reserve(client, name, 0)
    assert_refused(functions, name)


def test_bad_requests_are_refused_with_what_is_wrong(server, functions):
    name = functions.python(NAPS)
    client = server.client(parameter_validation=False)
    for qualified in [f"{name}:1", f"{name}:$LATEST"]:
        for operation, more in [
            (client.put_function_concurrency, {"ReservedConcurrentExecutions": 1}),
            (client.get_function_concurrency, {}),
            (client.delete_function_concurrency, {}),
        ]:
            with pytest.raises(client.exceptions.InvalidParameterValueException, match="permitted on Lambda functions"):
                operation(FunctionName=qualified, **more)
    for value, words in [
        ({}, "'reservedConcurrentExecutions' failed to satisfy constraint: Member must not be null"),
        ({"ReservedConcurrentExecutions": -1}, "Member must have value greater than or equal to 0"),
    ]:
        with pytest.raises(botocore.exceptions.ClientError, match=words):
            client.put_function_concurrency(FunctionName=name, **value)
    assert reserved(client, name) is None
