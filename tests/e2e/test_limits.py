"""Bad and oversize input: each gets its own clear refusal, and nothing is left behind."""

import functools
import io
import struct
import zipfile

import botocore.exceptions
import pytest

from harness import PYTHON, ROLE, zip_of

HANDLER = "def handler(event, context): return event"


def refused(functions, **options):
    """Tries to create a function and gives the error's code, status and message."""
    settings = {
        "FunctionName": "refused", "Runtime": PYTHON, "Handler": "app.handler", "Role": ROLE,
        "Code": {"ZipFile": zip_of({"app.py": HANDLER})}, **options,
    }  # fmt: skip
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        functions.client.create_function(**settings)
    response = caught.value.response
    status = response["ResponseMetadata"]["HTTPStatusCode"]
    return response["Error"]["Code"], status, response["Error"]["Message"]


def stored_zip(name: str, content: bytes = b"x", mode: int = 0o100644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        entry.create_system = 3
        archive.writestr(entry, content)
    return buffer.getvalue()


def empty_zip() -> bytes:
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    return buffer.getvalue()


@functools.cache
def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(270 << 20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"this is no zip archive", "not a zip archive"),
        (empty_zip(), "empty"),
        (zip_of({"app.py": HANDLER * 50})[:-30], "broken"),
        (stored_zip("../outside.py"), "../outside.py"),
        (stored_zip("/etc/outside.py"), "/etc/outside.py"),
        (stored_zip("link", b"/etc/passwd", 0o120777), "/etc/passwd"),
        (stored_zip("link", b"../../outside", 0o120777), "../../outside"),
    ],
    ids=["no-zip", "empty", "truncated", "slip", "absolute", "absolute-link", "escaping-link"],
)
def test_a_bad_archive_is_refused_with_its_cause(functions, content, cause):
    code, status, message = refused(functions, Code={"ZipFile": content})
    assert (code, status) == ("InvalidParameterValueException", 400)
    assert message.startswith("Could not unzip uploaded file.")
    assert cause in message


def test_a_zip_bomb_is_refused_by_what_it_unpacks_to(functions):
    code, status, message = refused(functions, Code={"ZipFile": bomb()})
    assert (code, status) == ("InvalidParameterValueException", 400)
    assert "Unzipped size must be smaller than 262144000 bytes" in message


def test_a_zip_bomb_that_lies_in_its_headers_is_refused(functions):
    content = bytearray(bomb())
    central = content.rfind(b"PK\x01\x02")
    content[central + 24 : central + 28] = struct.pack("<I", 10)
    content[22:26] = struct.pack("<I", 10)
    code, status, _ = refused(functions, Code={"ZipFile": bytes(content)})
    assert (code, status) == ("InvalidParameterValueException", 400)


def test_an_oversize_archive_is_refused(functions):
    code, status, message = refused(functions, Code={"ZipFile": bytes((50 << 20) + 1)})
    assert (code, status) == ("RequestEntityTooLargeException", 413)
    assert "52428800" in message or "70167211" in message


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        ({"Runtime": "java21"}, "InvalidParameterValueException", "java21"),
        ({"Runtime": "python3.2"}, "InvalidParameterValueException", "python3.2"),
        ({"Timeout": 901}, "ValidationException", "timeout"),
        ({"MemorySize": 10241}, "ValidationException", "memorySize"),
        ({"EphemeralStorage": {"Size": 20000}}, "ValidationException", "ephemeralStorage"),
        ({"Role": "arn:aws:iam::000000000000:role/nobody"}, "InvalidParameterValueException",
         "cannot be assumed by Lambda"),
        ({"Environment": {"Variables": {"KEY": "x" * 4096}}}, "InvalidParameterValueException", "4KB limit"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "InvalidParameterValueException", "AWS_REGION"),
        ({"Layers": ["arn:aws:lambda:us-east-1:000000000000:layer:x:1"]}, None, "Layers"),
        ({"PackageType": "Image", "Code": {"ImageUri": "x"}}, None, "PackageType"),
        ({"FunctionName": "a" * 65}, "ValidationException", "functionName"),
    ],
)  # fmt: skip
def test_a_setting_out_of_bounds_is_refused_by_name(functions, options, code, part):
    got, status, message = refused(functions, **options)
    assert status == 400
    assert code is None or got == code
    assert part in message


def test_a_refused_function_does_not_exist(functions):
    names = [f["FunctionName"] for f in functions.client.list_functions()["Functions"]]
    assert "refused" not in names


def test_a_second_function_of_the_same_name_is_refused(functions):
    name = functions.python(HANDLER)
    with pytest.raises(functions.client.exceptions.ResourceConflictException) as caught:
        functions.python(HANDLER, name=name)
    assert f"Function already exist: {name}" in str(caught.value)


@pytest.mark.parametrize("payload", [b"{not json", b"\xff\xfe", b'{"a": 1} trailing', b"'single'"])
def test_a_payload_that_is_no_json_is_refused(functions, payload):
    name = functions.python(HANDLER)
    with pytest.raises(functions.client.exceptions.InvalidRequestContentException) as caught:
        functions.client.invoke(FunctionName=name, Payload=payload)
    assert "Could not parse request body into json" in str(caught.value)


def test_six_megabytes_go_in_and_out(functions):
    name = functions.python(HANDLER)
    event = "x" * (6 * 1024 * 1024 - 2)
    assert functions.invoke(name, event).payload == event


def test_a_request_over_six_megabytes_is_refused(functions):
    name = functions.python(HANDLER)
    with pytest.raises(functions.client.exceptions.RequestTooLargeException) as caught:
        functions.client.invoke(FunctionName=name, Payload=b'"' + b"x" * (6 * 1024 * 1024) + b'"')
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_an_asynchronous_request_over_one_megabyte_is_refused(functions):
    name = functions.python(HANDLER)
    with pytest.raises(functions.client.exceptions.RequestTooLargeException):
        functions.client.invoke(
            FunctionName=name, InvocationType="Event", Payload=b'"' + b"x" * (1024 * 1024) + b'"'
        )


def test_an_operation_that_is_not_built_names_itself(functions):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        functions.client.list_layers()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert "ListLayers" in str(caught.value)
