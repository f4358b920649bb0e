"""Every request carries a valid signature; each way to get it wrong has its own exception."""

import datetime
import urllib.error
import urllib.request

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import pytest

from harness import REGION


def call(server, request) -> tuple[int, str, str]:
    """Sends a request as it is; gives status, exception name and body."""
    prepared = request.prepare()
    plain = urllib.request.Request(
        prepared.url, data=prepared.body, headers=dict(prepared.headers), method=prepared.method
    )
    try:
        with urllib.request.urlopen(plain, timeout=10) as answer:
            return answer.status, "", answer.read().decode()
    except urllib.error.HTTPError as error:
        kind = error.headers.get("x-amzn-ErrorType", "").split(":")[0]
        return error.code, kind, error.read().decode()


def keys(server, key=None, secret=None, token=None):
    own_key, own_secret = server.credentials()
    return botocore.credentials.Credentials(key or own_key, secret or own_secret, token)


def add_auth(signer, request, age=0):
    """Signs a request as if it were `age` seconds ago."""
    moment = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=age)

    # botocore reads the time itself; a request of another age is made by handing it that time.
    original = botocore.auth.get_current_datetime
    botocore.auth.get_current_datetime = lambda *a, **k: moment.replace(tzinfo=None)
    try:
        signer.add_auth(request)
    finally:
        botocore.auth.get_current_datetime = original


def signed(server, *, key=None, secret=None, token=None, service="lambda", age=0, body=b"", path=None):
    path = path or "/2015-03-31/functions/"
    request = botocore.awsrequest.AWSRequest(
        method="POST" if body else "GET", url=server.endpoint + path, data=body
    )
    add_auth(botocore.auth.SigV4Auth(keys(server, key, secret, token), service, REGION), request, age)
    return request


class UnsignedPayload(botocore.auth.SigV4Auth):
    """Signs a request and says of its body that it is not covered."""

    def payload(self, request):
        return "UNSIGNED-PAYLOAD"


def test_a_valid_signature_is_accepted(server):
    assert call(server, signed(server))[0] == 200


def test_no_signature_is_refused(server):
    request = botocore.awsrequest.AWSRequest("GET", server.endpoint + "/2015-03-31/functions/")
    status, kind, _ = call(server, request)
    assert (status, kind) == (403, "MissingAuthenticationTokenException")


def test_a_wrong_secret_is_refused(server):
    status, kind, body = call(server, signed(server, secret="x" * 40))
    assert (status, kind) == (403, "InvalidSignatureException")
    assert "The request signature we calculated does not match" in body


def test_an_unknown_key_is_refused(server):
    status, kind, _ = call(server, signed(server, key="AKIAIOSFODNN7EXAMPLE"))
    assert (status, kind) == (403, "UnrecognizedClientException")


@pytest.mark.parametrize("age", [400, -400])
def test_a_signature_out_of_time_is_refused(server, age):
    status, kind, body = call(server, signed(server, age=age))
    assert (status, kind) == (403, "InvalidSignatureException")
    assert "Signature" in body and ("expired" in body or "not yet current" in body)


def test_a_clock_that_is_a_little_off_is_accepted(server):
    assert call(server, signed(server, age=200))[0] == 200
    assert call(server, signed(server, age=-200))[0] == 200


def test_a_changed_body_is_refused(server, functions):
    name = functions.python("def handler(e, c): return e")
    request = signed(server, body=b'{"a": 1}', path=f"/2015-03-31/functions/{name}/invocations")
    request.data = b'{"a": 2}'
    status, kind, _ = call(server, request)
    assert (status, kind) == (403, "InvalidSignatureException")


def test_a_presigned_request_is_accepted_until_it_expires(server):
    for age, status in [(0, 200), (50, 200), (70, 403)]:
        signer = botocore.auth.SigV4QueryAuth(keys(server), "lambda", REGION, expires=60)
        request = botocore.awsrequest.AWSRequest("GET", server.endpoint + "/2015-03-31/functions/")
        add_auth(signer, request, age)
        assert "X-Amz-Signature=" in request.url and "Authorization" not in request.headers
        got, kind, body = call(server, request)
        assert got == status, body
        assert got == 200 or (kind == "InvalidSignatureException" and "expired" in body)


def test_a_body_that_is_not_signed_is_accepted(server, functions):
    name = functions.python("def handler(e, c): return e")
    functions.invoke(name, 0)
    request = botocore.awsrequest.AWSRequest(
        "POST",
        f"{server.endpoint}/2015-03-31/functions/{name}/invocations",
        data=b'{"a": 1}',
        headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"},
    )
    add_auth(UnsignedPayload(keys(server), "lambda", REGION), request)
    request.data = b'{"a": 2}'
    status, _, body = call(server, request)
    assert (status, body.replace(" ", "")) == (200, '{"a":2}')
    request.url = request.url.replace(name, name + "x")
    assert call(server, request)[:2] == (403, "InvalidSignatureException")


def test_a_replay_inside_the_window_is_accepted(server):
    request = signed(server)
    assert call(server, request)[0] == 200
    assert call(server, request)[0] == 200


def test_a_signature_for_another_service_is_refused(server):
    status, _, _ = call(server, signed(server, service="s3"))
    assert status in (403, 404)


def test_a_made_up_session_token_is_refused(server):
    status, kind, _ = call(server, signed(server, token="made-up"))
    assert status == 403
    assert kind in ("UnrecognizedClientException", "InvalidClientTokenId")


def test_an_incomplete_header_is_refused(server):
    request = botocore.awsrequest.AWSRequest(
        "GET",
        server.endpoint + "/2015-03-31/functions/",
        headers={"Authorization": "AWS4-HMAC-SHA256 Credential=x"},
    )
    status, kind, _ = call(server, request)
    assert (status, kind) == (400, "IncompleteSignatureException")


def test_boto3_raises_the_exception_by_name(server):
    client = server.client()
    client._request_signer._credentials = botocore.credentials.Credentials("AKIAUNKNOWN0000000", "x")
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.list_functions()
    assert caught.value.response["Error"]["Code"] == "UnrecognizedClientException"
