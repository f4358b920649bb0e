"""The main job through boto3: a function's life from its creation to its end."""

import base64
import hashlib
import io
import json
import urllib.error
import urllib.request
import zipfile

import botocore.exceptions
import pytest

from harness import PYTHON, ROLE, zip_of

HELLO = """
import os

def handler(event, context):
    return {"hello": event.get("name"), "function": context.function_name}
"""


def test_a_python_function_is_created_invoked_and_deleted(functions):
    client = functions.client
    code = zip_of({"app.py": HELLO})
    created = client.create_function(
        FunctionName="life", Runtime=PYTHON, Handler="app.handler", Role=ROLE, Code={"ZipFile": code}
    )
    assert created["State"] == "Pending"
    assert created["StateReasonCode"] == "Creating"
    assert created["CodeSha256"] == base64.b64encode(hashlib.sha256(code).digest()).decode()
    assert created["CodeSize"] == len(code)
    assert created["MemorySize"] == 128 and created["Timeout"] == 3
    assert created["Version"] == "$LATEST"
    client.get_waiter("function_active_v2").wait(FunctionName="life", WaiterConfig={"Delay": 0.05})

    answer = functions.invoke("life", {"name": "Ada"})
    assert (answer.status, answer.error) == (200, None)
    assert answer.payload == {"hello": "Ada", "function": "life"}
    assert answer.version == "$LATEST"

    assert "life" in [f["FunctionName"] for f in client.list_functions()["Functions"]]
    client.delete_function(FunctionName="life")
    with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
        client.get_function(FunctionName="life")
    assert "Function not found: arn:aws:lambda:us-east-1:000000000000:function:life" in str(caught.value)


def test_the_code_link_works_without_credentials(functions):
    name = functions.python(HELLO)
    location = functions.client.get_function(FunctionName=name)["Code"]["Location"]
    with urllib.request.urlopen(location, timeout=10) as answer:
        content = answer.read()
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["app.py"]
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(location.replace("X-Amz-Expires=600", "X-Amz-Expires=601"), timeout=10)
    assert caught.value.code == 403


def test_new_code_replaces_warm_environments(functions):
    name = functions.python("def handler(event, context): return 1")
    assert functions.invoke(name).payload == 1
    updated = functions.client.update_function_code(
        FunctionName=name, ZipFile=zip_of({"app.py": "def handler(event, context): return 2"})
    )
    assert updated["LastUpdateStatus"] == "InProgress"
    functions.client.get_waiter("function_updated_v2").wait(
        FunctionName=name, WaiterConfig={"Delay": 0.05}
    )
    assert functions.invoke(name).payload == 2


def test_new_configuration_replaces_warm_environments(functions):
    name = functions.python("import os\ndef handler(e, c): return os.environ.get('COLOUR')")
    assert functions.invoke(name).payload is None
    functions.client.update_function_configuration(
        FunctionName=name, Environment={"Variables": {"COLOUR": "green"}}
    )
    functions.client.get_waiter("function_updated_v2").wait(
        FunctionName=name, WaiterConfig={"Delay": 0.05}
    )
    assert functions.invoke(name).payload == "green"
    configuration = functions.client.get_function_configuration(FunctionName=name)
    assert configuration["Environment"] == {"Variables": {"COLOUR": "green"}}


def test_functions_are_listed_in_pages(functions):
    names = {functions.python(HELLO, name=f"paged-{i}") for i in range(5)}
    pages = functions.client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
    listed = []
    for page in pages:
        assert len(page["Functions"]) <= 2
        listed += [f["FunctionName"] for f in page["Functions"]]
    assert names <= set(listed)
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    "form",
    [
        "{name}",
        "{name}:$LATEST",
        "000000000000:function:{name}",
        "arn:aws:lambda:us-east-1:000000000000:function:{name}",
        "arn:aws:lambda:us-east-1:000000000000:function:{name}:$LATEST",
    ],
)
def test_every_form_of_a_name_reaches_the_function(functions, form):
    name = functions.python("def handler(e, context): return context.invoked_function_arn")
    arn = functions.invoke(form.format(name=name)).payload
    assert arn.endswith(f":function:{name}:$LATEST" if "$LATEST" in form else f":function:{name}")


@pytest.mark.parametrize(
    ("form", "options", "code", "status", "message"),
    [
        ("arn:aws:lambda:eu-west-1:000000000000:function:{name}", {}, "ResourceNotFoundException", 404,
         "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"),
        ("{name}:$LATEST", {"Qualifier": "other"}, "InvalidParameterValueException", 400,
         "The derived qualifier from the function name does not match the specified qualifier."),
    ],
    ids=["region", "qualifier"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_or_contradicts_is_refused(functions, form, options, code, status, message):
    name = functions.python("def handler(e, context): return 1")
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        functions.invoke(form.format(name=name), **options)
    response = caught.value.response
    assert (response["Error"]["Code"], response["Error"]["Message"]) == (code, message)
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_a_dry_run_runs_nothing(functions):
    name = functions.python("raise SystemExit(1)")
    answer = functions.invoke(name, {}, InvocationType="DryRun")
    assert answer.status == 204 and answer.raw == b""


def test_the_log_tail_is_answered_when_asked_for(functions):
    name = functions.python("def handler(e, c):\n    print('line one')\n    print('line two')\n    return 1")
    assert functions.invoke(name).log_result is None
    answer = functions.invoke(name, LogType="Tail")
    lines = answer.log.splitlines()
    assert lines[0] == f"START RequestId: {answer.request_id} Version: $LATEST"
    assert lines[1:3] == ["line one", "line two"]
    assert lines[3] == f"END RequestId: {answer.request_id}"
    assert lines[4].startswith(f"REPORT RequestId: {answer.request_id}\tDuration: ")


def test_the_client_context_reaches_the_handler(functions):
    name = functions.python("def handler(e, context): return context.client_context.custom")
    context = base64.b64encode(json.dumps({"custom": {"a": "b"}}).encode()).decode()
    assert functions.invoke(name, ClientContext=context).payload == {"a": "b"}


def test_account_settings_and_caller_identity_answer(server, functions):
    settings = functions.client.get_account_settings()
    assert settings["AccountLimit"]["ConcurrentExecutions"] == 1000
    assert settings["AccountUsage"]["FunctionCount"] >= 0
    identity = server.client("sts").get_caller_identity()
    assert identity["Account"] == "000000000000"
    assert identity["Arn"] == "arn:aws:iam::000000000000:root"
