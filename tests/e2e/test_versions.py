"""Versions and aliases through boto3: what is published stays, what points to it can be moved."""

import base64
import hashlib
import json
import time
import urllib.request
import uuid

import pytest

from harness import PYTHON, ROLE, Functions, logs, zip_of

SAYS = """
import os

def handler(event, context):
    return {{
        "says": "{}",
        "version": context.function_version,
        "variable": os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
        "arn": context.invoked_function_arn,
        "stream": context.log_stream_name,
    }}
"""
ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


def code(text: str) -> bytes:
    return zip_of({"app.py": SAYS.format(text)})


def settle(client, name: str, qualifier: str | None = None) -> None:
    named = {"FunctionName": name} | ({"Qualifier": qualifier} if qualifier else {})
    client.get_waiter("function_updated_v2").wait(**named, WaiterConfig={"Delay": 0.05})


def change(client, name: str, text: str, **options) -> dict:
    answer = client.update_function_code(FunctionName=name, ZipFile=code(text), **options)
    settle(client, name)
    return answer


@pytest.fixture
def says(functions):
    """A function that says "one", published as version 1."""
    name = functions.python(SAYS.format("one"))
    published = functions.client.publish_version(FunctionName=name, Description="the first")
    assert (published["Version"], published["Description"]) == ("1", "the first")
    assert published["FunctionArn"] == f"{ARN}{name}:1"
    assert published["State"] == "Active"
    return name


def test_a_published_version_stays_as_it_is(functions, says):
    client = functions.client
    change(client, says, "two")
    client.update_function_configuration(FunctionName=says, MemorySize=256)
    settle(client, says)
    for qualifier, text, version in [("1", "one", "1"), ("$LATEST", "two", "$LATEST")]:
        answer = functions.invoke(says, Qualifier=qualifier)
        assert answer.error is None
        assert (answer.payload["says"], answer.payload["version"]) == (text, version)
        assert answer.payload["variable"] == version
        assert answer.payload["arn"] == f"{ARN}{says}:{qualifier}"
        assert f"[{version}]" in answer.payload["stream"]
        assert answer.version == version
    answer = functions.invoke(f"{ARN}{says}:1")
    assert answer.payload["says"] == "one"
    assert client.get_function_configuration(FunctionName=says, Qualifier="1")["MemorySize"] == 128
    found = client.get_function(FunctionName=says, Qualifier="1")
    with urllib.request.urlopen(found["Code"]["Location"], timeout=10) as link:
        assert link.read() == code("one")
    assert found["Configuration"]["FunctionArn"] == f"{ARN}{says}:1"


def test_publishing_with_nothing_changed_gives_the_same_version(functions, says):
    client = functions.client
    again = client.publish_version(FunctionName=says)
    assert (again["Version"], again["Description"]) == ("1", "the first")
    change(client, says, "two")
    assert client.publish_version(FunctionName=says)["Version"] == "2"
    listed = client.list_versions_by_function(FunctionName=says)["Versions"]
    assert [one["Version"] for one in listed] == ["$LATEST", "1", "2"]
    assert [one["FunctionArn"] for one in listed] == [f"{ARN}{says}:{v}" for v in ("$LATEST", "1", "2")]


def test_a_request_can_publish_what_it_makes(functions):
    client = functions.client
    name = f"publishing-{uuid.uuid4().hex[:8]}"
    created = client.create_function(
        FunctionName=name,
        Runtime=PYTHON,
        Handler="app.handler",
        Role=ROLE,
        Code={"ZipFile": code("one")},
        Publish=True,
    )
    assert (created["Version"], created["FunctionArn"]) == ("1", f"{ARN}{name}:1")
    assert created["State"] == "Pending"
    client.get_waiter("published_version_active").wait(
        FunctionName=name, Qualifier="1", WaiterConfig={"Delay": 0.05}
    )
    settle(client, name)
    updated = change(client, name, "two", Publish=True)
    assert updated["Version"] == "2"
    client.get_waiter("published_version_active").wait(
        FunctionName=name, Qualifier="2", WaiterConfig={"Delay": 0.05}
    )
    assert functions.invoke(name, Qualifier="1").payload["says"] == "one"
    assert functions.invoke(name, Qualifier="2").payload["says"] == "two"


def test_guards_keep_what_the_caller_does_not_know_from_being_published(functions, says):
    client = functions.client
    digest = base64.b64encode(hashlib.sha256(code("two")).digest()).decode()
    with pytest.raises(client.exceptions.InvalidParameterValueException) as caught:
        client.publish_version(FunctionName=says, CodeSha256=digest)
    assert f"CodeSHA256 ({digest}) is different from current CodeSHA256 in $LATEST" in str(caught.value)
    with pytest.raises(client.exceptions.PreconditionFailedException):
        client.publish_version(FunctionName=says, RevisionId=str(uuid.uuid4()))
    change(client, says, "two")
    assert client.publish_version(FunctionName=says, CodeSha256=digest)["Version"] == "2"


def test_a_number_is_never_used_twice(functions, says):
    client = functions.client
    client.delete_function(FunctionName=says, Qualifier="1")
    for call in (client.get_function, client.delete_function):
        with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
            call(FunctionName=says, Qualifier="1")
        assert f"Function not found: {ARN}{says}:1" in str(caught.value)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        functions.invoke(says, Qualifier="1")
    assert client.publish_version(FunctionName=says)["Version"] == "2"
    with pytest.raises(client.exceptions.InvalidParameterValueException) as caught:
        client.delete_function(FunctionName=says, Qualifier="$LATEST")
    assert "$LATEST version cannot be deleted without deleting the function." in str(caught.value)


def test_a_new_function_has_nothing_of_an_old_one_of_its_name(functions, says):
    client = functions.client
    client.create_alias(FunctionName=says, Name="live", FunctionVersion="1")
    assert functions.invoke(says, Qualifier="live").payload["says"] == "one"
    client.delete_function(FunctionName=says)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        functions.invoke(says, Qualifier="1")
    functions.create(code("new"), name=says)
    assert client.list_aliases(FunctionName=says)["Aliases"] == []
    for qualifier in ("1", "live"):
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            functions.invoke(says, Qualifier=qualifier)
    assert client.publish_version(FunctionName=says)["Version"] == "1"
    assert functions.invoke(says, Qualifier="1").payload["says"] == "new"


def test_an_alias_is_moved_and_guarded(functions, says):
    client = functions.client
    change(client, says, "two")
    client.publish_version(FunctionName=says)
    alias = client.create_alias(FunctionName=says, Name="live", FunctionVersion="1", Description="d")
    assert alias["AliasArn"] == f"{ARN}{says}:live"
    assert (alias["Name"], alias["FunctionVersion"], alias["Description"]) == ("live", "1", "d")
    assert "RoutingConfig" not in alias
    answer = functions.invoke(says, Qualifier="live")
    assert (answer.payload["says"], answer.version) == ("one", "1")
    assert answer.payload["arn"] == f"{ARN}{says}:live"

    moved = client.update_alias(
        FunctionName=says, Name="live", FunctionVersion="2", RevisionId=alias["RevisionId"]
    )
    assert (moved["FunctionVersion"], moved["Description"]) == ("2", "d")
    assert functions.invoke(f"{says}:live").payload["says"] == "two"
    with pytest.raises(client.exceptions.PreconditionFailedException):
        client.update_alias(FunctionName=says, Name="live", RevisionId=alias["RevisionId"])
    found = client.get_alias(FunctionName=says, Name="live")
    assert {key: found[key] for key in moved if key != "ResponseMetadata"} == {
        key: moved[key] for key in moved if key != "ResponseMetadata"
    }
    configuration = client.get_function_configuration(FunctionName=says, Qualifier="live")
    assert (configuration["Version"], configuration["FunctionArn"]) == ("2", f"{ARN}{says}:live")
    with pytest.raises(client.exceptions.ResourceConflictException):
        client.delete_function(FunctionName=says, Qualifier="2")

    client.create_alias(FunctionName=says, Name="old", FunctionVersion="1")
    client.create_alias(FunctionName=says, Name="head", FunctionVersion="$LATEST")
    names = [one["Name"] for one in client.list_aliases(FunctionName=says)["Aliases"]]
    assert names == ["head", "live", "old"]
    only = client.list_aliases(FunctionName=says, FunctionVersion="1")["Aliases"]
    assert [one["Name"] for one in only] == ["old"]
    for _ in range(2):
        client.delete_alias(FunctionName=says, Name="live")
    with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
        client.get_alias(FunctionName=says, Name="live")
    assert f"Cannot find alias arn: {ARN}{says}:live" in str(caught.value)


def test_an_alias_shares_calls_out_between_two_versions(functions, says):
    client = functions.client
    change(client, says, "two")
    client.publish_version(FunctionName=says)
    weights = {"AdditionalVersionWeights": {"2": 0.5}}
    alias = client.create_alias(
        FunctionName=says, Name="canary", FunctionVersion="1", RoutingConfig=weights
    )
    assert alias["RoutingConfig"] == weights
    answers = [functions.invoke(says, Qualifier="canary") for _ in range(40)]
    assert {answer.payload["says"] for answer in answers} == {"one", "two"}
    assert all(answer.payload["version"] == answer.version for answer in answers)
    alias = client.update_alias(
        FunctionName=says, Name="canary", RoutingConfig={"AdditionalVersionWeights": {}}
    )
    assert "RoutingConfig" not in alias
    answers = [functions.invoke(says, Qualifier="canary") for _ in range(20)]
    assert {answer.payload["says"] for answer in answers} == {"one"}


@pytest.mark.parametrize(
    "alias, error, text",
    [
        ({"Name": "123", "FunctionVersion": "1"}, "ValidationException", "(?!^[0-9]+$)"),
        ({"Name": "a b", "FunctionVersion": "1"}, "ValidationException", "at 'name'"),
        ({"Name": "x", "FunctionVersion": "9"}, "ResourceNotFoundException", ":9"),
        ({"Name": "x", "FunctionVersion": "one"}, "ValidationException", "'functionVersion'"),
        (
            {"Name": "x", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"1": 0.5}}},
            "InvalidParameterValueException",
            "already included",
        ),
        (
            {"Name": "x", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 1.5}}},
            "ValidationException",
            "less than or equal to 1.0",
        ),
        (
            {"Name": "x", "FunctionVersion": "$LATEST", "RoutingConfig": {"AdditionalVersionWeights": {"1": 0.5}}},
            "InvalidParameterValueException",
            "$LATEST is not supported for an alias pointing to more than 1 version",
        ),
        (
            {"Name": "x", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.1, "3": 0.1}}},
            "InvalidParameterValueException",
            "cannot be greater than 1",
        ),
    ],
)
def test_a_bad_alias_is_refused(functions, says, alias, error, text):
    client = functions.client
    with pytest.raises(client.exceptions.ClientError) as caught:
        client.create_alias(FunctionName=says, **alias)
    assert caught.value.response["Error"]["Code"] == error
    assert text in caught.value.response["Error"]["Message"]
    assert client.list_aliases(FunctionName=says)["Aliases"] == []


def test_an_alias_is_made_once(functions, says):
    client = functions.client
    client.create_alias(FunctionName=says, Name="live", FunctionVersion="1")
    with pytest.raises(client.exceptions.ResourceConflictException) as caught:
        client.create_alias(FunctionName=says, Name="live", FunctionVersion="1")
    assert f"Alias already exists: {ARN}{says}:live" in str(caught.value)


def test_lists_are_paged(functions, says):
    client = functions.client
    for text in ("two", "three"):
        change(client, says, text)
        client.publish_version(FunctionName=says)
    for name in ("a", "b", "c"):
        client.create_alias(FunctionName=says, Name=name, FunctionVersion="1")
    pages = client.get_paginator("list_versions_by_function").paginate(
        FunctionName=says, PaginationConfig={"PageSize": 2}
    )
    assert [[v["Version"] for v in page["Versions"]] for page in pages] == [["$LATEST", "1"], ["2", "3"]]
    pages = client.get_paginator("list_aliases").paginate(
        FunctionName=says, PaginationConfig={"PageSize": 2}
    )
    assert [[a["Name"] for a in page["Aliases"]] for page in pages] == [["a", "b"], ["c"]]
    pages = client.get_paginator("list_functions").paginate(
        FunctionVersion="ALL", PaginationConfig={"PageSize": 3}
    )
    everything = [f for page in pages for f in page["Functions"] if f["FunctionName"] == says]
    assert [f["FunctionArn"] for f in everything] == [f"{ARN}{says}:{v}" for v in ("$LATEST", "1", "2", "3")]
    plain = [f for page in client.get_paginator("list_functions").paginate() for f in page["Functions"]]
    assert [f["FunctionArn"] for f in plain if f["FunctionName"] == says] == [ARN + says]


def test_an_event_for_an_alias_is_served_by_its_version(functions, says, server):
    client = functions.client
    client.create_alias(FunctionName=says, Name="live", FunctionVersion="1")
    change(client, says, "two")
    answer = client.invoke(FunctionName=says, Qualifier="live", InvocationType="Event", Payload=json.dumps({}))
    assert answer["StatusCode"] == 202
    request = answer["ResponseMetadata"]["RequestId"]
    deadline = time.monotonic() + 20
    while not any(f"END RequestId: {request}" in line for line in logs(server, says)):
        assert time.monotonic() < deadline, "the event was not served"
        time.sleep(0.1)
    assert any(f"START RequestId: {request} Version: 1" in line for line in logs(server, says))


def test_versions_survive_a_restart(own_server):
    server = own_server()
    functions = Functions(server)
    name = functions.python(SAYS.format("one"))
    functions.client.publish_version(FunctionName=name)
    functions.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    change(functions.client, name, "two")
    server.kill()
    server = own_server()
    functions = Functions(server)
    assert functions.invoke(name, Qualifier="live").payload["says"] == "one"
    assert functions.client.publish_version(FunctionName=name)["Version"] == "2"
