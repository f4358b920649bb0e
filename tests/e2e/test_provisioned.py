"""Provisioned concurrency through boto3: Instances that are kept ready, what may be set, and what stays of it."""

import json
import os
import signal

import botocore.exceptions
import pytest

from harness import Functions, logs, records
from test_concurrency import left
from test_serve import wait_until

SOURCE = """
import os, time
time.sleep(0.2)
def handler(event, context):
    if event == "exit": os._exit(3)
    return [os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], context.function_version, context.log_stream_name]
"""
BROKEN = "import no_such_module\ndef handler(event, context): return 1"
SLOW = "import os, time\nif os.environ['AWS_LAMBDA_INITIALIZATION_TYPE'] != 'on-demand': time.sleep(12)\ndef handler(event, context): return 1"


def status(client, name: str, qualifier: str) -> dict:
    answer = client.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def put(client, name: str, qualifier: str, count: int) -> dict:
    return client.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=count
    )


def reaches(client, name: str, qualifier: str, wanted: str, within: float = 60) -> dict:
    assert wait_until(lambda: status(client, name, qualifier)["Status"] == wanted, within), status(client, name, qualifier)
    return status(client, name, qualifier)


def refused(work) -> tuple[str, int, str]:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        work()
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


def test_instances_are_kept_ready_and_replaced_and_survive_a_restart(own_server):
    server = own_server()
    functions = Functions(server)
    client = functions.client
    name = functions.python(SOURCE, LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "DEBUG"})
    version = client.publish_version(FunctionName=name)["Version"]
    # One that was started by a caller is not counted.
    assert functions.invoke(name, {}, Qualifier=version).payload[0] == "on-demand"
    answer = put(client, name, version, 2)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert (answer["Status"], answer["RequestedProvisionedConcurrentExecutions"]) == ("IN_PROGRESS", 2)
    assert answer["AllocatedProvisionedConcurrentExecutions"] < 2
    ready = reaches(client, name, version, "READY")
    assert ready["AvailableProvisionedConcurrentExecutions"] == ready["AllocatedProvisionedConcurrentExecutions"] == 2
    assert ready["LastModified"].endswith("+0000") and "StatusReason" not in ready
    kind, served, stream = functions.invoke(name, {}, Qualifier=version).payload
    assert (kind, served) == ("provisioned-concurrency", version)
    last = records(server)[-1]
    assert last["timeline"]["cold_start"] == "provisioned" and last["timeline"]["init_us"] == 0 and last["init_us"] >= 200_000
    starts = [json.loads(line) for line in logs(server, name) if "platform.initStart" in line]
    kinds = sorted(start["record"]["initializationType"] for start in starts)
    assert kinds == ["on-demand", "provisioned-concurrency", "provisioned-concurrency"]

    # What is spent is replaced.
    assert functions.invoke(name, "exit", Qualifier=version).error
    assert reaches(client, name, version, "READY")["AvailableProvisionedConcurrentExecutions"] == 2
    assert functions.invoke(name, {}, Qualifier=version).payload[0] == "provisioned-concurrency"

    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(30)
    server.start()
    functions = Functions(server)
    client = functions.client
    assert reaches(client, name, version, "READY")["RequestedProvisionedConcurrentExecutions"] == 2
    assert functions.invoke(name, {}, Qualifier=version).payload[0] == "provisioned-concurrency"

    listed = client.list_provisioned_concurrency_configs(FunctionName=name)["ProvisionedConcurrencyConfigs"]
    assert [config["FunctionArn"].rsplit(":", 1)[1] for config in listed] == [version]
    assert listed[0]["Status"] == "READY" and listed[0]["RequestedProvisionedConcurrentExecutions"] == 2
    answer = client.delete_provisioned_concurrency_config(FunctionName=name, Qualifier=version)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    client.delete_provisioned_concurrency_config(FunctionName=name, Qualifier=version)
    missing = refused(lambda: status(client, name, version))
    assert missing[:2] == ("ProvisionedConcurrencyConfigNotFoundException", 404)
    assert client.list_provisioned_concurrency_configs(FunctionName=name)["ProvisionedConcurrencyConfigs"] == []


def test_an_alias_takes_its_promise_along(functions):
    client = functions.client
    name = functions.python(SOURCE)
    first = client.publish_version(FunctionName=name)["Version"]
    client.update_function_configuration(FunctionName=name, Description="other")
    client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    second = client.publish_version(FunctionName=name)["Version"]
    client.create_alias(FunctionName=name, Name="live", FunctionVersion=first)
    put(client, name, "live", 1)
    reaches(client, name, "live", "READY")
    assert functions.invoke(name, {}, Qualifier="live").payload[:2] == ["provisioned-concurrency", first]
    code, _, message = refused(lambda: put(client, name, first, 1))
    assert (code, "alias" in message) == ("InvalidParameterValueException", True)
    client.create_alias(FunctionName=name, Name="twin", FunctionVersion=first)
    assert refused(lambda: put(client, name, "twin", 1))[0] == "InvalidParameterValueException"
    client.update_alias(FunctionName=name, Name="live", FunctionVersion=second)
    # The new version has none at first, and its own a moment later.
    assert wait_until(
        lambda: functions.invoke(name, {}, Qualifier="live").payload[:2] == ["provisioned-concurrency", second], 60
    )
    client.delete_alias(FunctionName=name, Name="live")
    client.create_alias(FunctionName=name, Name="live", FunctionVersion=second)
    assert refused(lambda: status(client, name, "live"))[0] == "ProvisionedConcurrencyConfigNotFoundException"


def test_what_cannot_be_set_is_refused_in_lambdas_words(functions):
    client = functions.client
    name = functions.python(SOURCE)
    version = client.publish_version(FunctionName=name)["Version"]
    invalid = "InvalidParameterValueException"
    code, http, message = refused(lambda: put(client, name, "$LATEST", 1))
    assert (code, http) == (invalid, 400) and "unpublished function versions" in message
    assert refused(lambda: put(client, name, "7", 1))[:2] == ("ResourceNotFoundException", 404)
    assert refused(lambda: put(client, name, "none", 1))[0] == "ResourceNotFoundException"
    assert refused(lambda: put(client, "no-such-function", "1", 1))[0] == "ResourceNotFoundException"
    assert refused(lambda: status(client, name, version))[0] == "ProvisionedConcurrencyConfigNotFoundException"
    before = left(client)
    code, _, message = refused(lambda: put(client, name, version, before - 99))
    assert code == invalid and "below its minimum value of [100]" in message
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    code, _, message = refused(lambda: put(client, name, version, 2))
    assert code == invalid and "reservedConcurrentExecution" in message
    put(client, name, version, 1)
    assert left(client) == before - 1, "what is provisioned counts within what is reserved"
    code, _, message = refused(
        lambda: client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    )
    assert code == invalid and "total provisioned concurrency [1]" in message
    client.delete_function_concurrency(FunctionName=name)
    assert left(client) == before - 1
    client.delete_function(FunctionName=name)
    assert left(client) == before


def test_an_init_that_fails_is_told_and_one_that_is_slow_is_waited_for(functions):
    client = functions.client
    broken, slow = functions.python(BROKEN), functions.python(SLOW)
    versions = {name: client.publish_version(FunctionName=name)["Version"] for name in (broken, slow)}
    for name in (broken, slow):
        put(client, name, versions[name], 1)
    failed = reaches(client, broken, versions[broken], "FAILED")
    assert failed["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
    assert failed["AvailableProvisionedConcurrentExecutions"] == 0
    # Longer than the 10 seconds of an init on demand; callers do not wait for it.
    assert status(client, slow, versions[slow])["Status"] == "IN_PROGRESS"
    assert functions.invoke(slow, {}, Qualifier=versions[slow]).payload == 1
    reaches(client, slow, versions[slow], "READY", within=120)
