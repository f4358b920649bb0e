"""How functions fail: payloads, headers and log lines as Lambda's callers know them."""

import re

import pytest

from harness import node_runtime, zip_of

needs_node = pytest.mark.skipif(node_runtime() is None, reason="skipped: there is no Node from 18 on here")


def test_a_python_exception_is_answered_with_its_stack(functions):
    name = functions.python("def handler(event, context):\n    raise ValueError('no luck')\n")
    answer = functions.invoke(name, {}, LogType="Tail")
    assert (answer.status, answer.error) == (200, "Unhandled")
    assert answer.payload["errorMessage"] == "no luck"
    assert answer.payload["errorType"] == "ValueError"
    assert answer.payload["requestId"] == answer.request_id
    assert answer.payload["stackTrace"] == [
        '  File "/var/task/app.py", line 2, in handler\n    raise ValueError(\'no luck\')\n'
    ]
    assert "[ERROR] ValueError: no luck" in answer.log


@needs_node
def test_a_node_error_is_answered_with_its_trace(functions):
    name = functions.node("exports.handler = async () => { throw new TypeError('no luck'); };")
    answer = functions.invoke(name, {})
    assert answer.error == "Unhandled"
    assert answer.payload["errorType"] == "TypeError"
    assert answer.payload["errorMessage"] == "no luck"
    assert answer.payload["trace"][0] == "TypeError: no luck"
    assert "index.js" in answer.payload["trace"][1]


def test_the_environment_survives_a_handler_error(functions):
    name = functions.python(
        "count = 0\ndef handler(event, c):\n    global count\n    count += 1\n"
        "    if event: raise RuntimeError(count)\n    return count\n"
    )
    assert functions.invoke(name).payload == 1
    assert functions.invoke(name, {"fail": True}).error == "Unhandled"
    assert functions.invoke(name).payload == 3


def test_a_timeout_is_named_and_the_environment_replaced(functions):
    name = functions.python(
        "import time\ncount = 0\ndef handler(event, c):\n    global count\n    count += 1\n"
        "    if event: time.sleep(30)\n    return count\n",
        Timeout=1,
    )
    assert functions.invoke(name).payload == 1
    answer = functions.invoke(name, {"sleep": True}, LogType="Tail")
    assert answer.error == "Unhandled"
    assert answer.payload == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {answer.request_id} Error: Task timed out after 1.00 seconds",
    }
    assert re.search(rf"Z {answer.request_id} Task timed out after 1\.00 seconds", answer.log)
    assert "\tStatus: timeout" in answer.log
    assert functions.invoke(name).payload == 1


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("os._exit(0)", "Runtime exited without providing a reason"),
        ("os._exit(7)", "Runtime exited with error: exit status 7"),
        ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed"),
        ("os.abort()", "Runtime exited with error: signal: aborted"),
    ],
)
def test_an_exit_of_the_runtime_is_named(functions, statement, reason):
    name = functions.python(f"import os\ndef handler(event, c):\n    {statement}\n")
    answer = functions.invoke(name, {}, LogType="Tail")
    assert answer.payload == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {answer.request_id} Error: {reason}",
    }
    assert "\tStatus: error\tError Type: Runtime.ExitError" in answer.log


def test_out_of_memory_is_answered_and_reported(functions):
    name = functions.python(
        "def handler(event, c):\n    data = []\n    while True: data.append(bytearray(8 << 20))\n",
        MemorySize=128,
    )
    answer = functions.invoke(name, {}, LogType="Tail")
    assert answer.payload == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {answer.request_id} Error: Runtime exited with error: signal: killed",
    }
    assert "Memory Size: 128 MB\tMax Memory Used: 128 MB" in answer.log
    assert "\tStatus: error\tError Type: Runtime.OutOfMemory" in answer.log


def test_measured_memory_follows_use(functions):
    source = "def handler(event, c):\n    data = bytearray(event << 20)\n    return len(data)\n"
    name = functions.python(source, MemorySize=512)

    def used(megabytes: int) -> int:
        log = functions.invoke(name, megabytes, LogType="Tail").log
        return int(re.search(r"Max Memory Used: (\d+) MB", log).group(1))

    small, large = used(1), used(200)
    assert small < 100
    assert 190 <= large - small <= 220


@pytest.mark.parametrize(
    ("files", "handler", "error_type", "message"),
    [
        ({"app.py": "import nothing_like_this"}, "app.handler", "Runtime.ImportModuleError",
         "Unable to import module 'app': No module named 'nothing_like_this'"),
        ({"app.py": "x = 1"}, "app.handler", "Runtime.HandlerNotFound",
         "Handler 'handler' missing on module 'app'"),
        ({"app.py": "def handler(:"}, "app.handler", "Runtime.UserCodeSyntaxError",
         "Syntax error in module 'app'"),
        ({"other.py": ""}, "app.handler", "Runtime.ImportModuleError",
         "Unable to import module 'app': No module named 'app'"),
    ],
)  # fmt: skip
def test_a_failed_init_is_answered_by_the_first_invocation(functions, files, handler, error_type, message):
    name = functions.create(zip_of(files), Handler=handler)
    answer = functions.invoke(name, {}, LogType="Tail")
    assert (answer.status, answer.error) == (200, "Unhandled")
    assert answer.payload["errorType"] == error_type
    assert answer.payload["errorMessage"].startswith(message)
    assert functions.invoke(name, {}).payload["errorType"] == error_type


def test_an_exit_during_init_is_named(functions):
    name = functions.python("import os\nos._exit(3)\n")
    answer = functions.invoke(name, {})
    assert answer.payload == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {answer.request_id} Error: Runtime exited with error: exit status 3",
    }


@needs_node
@pytest.mark.parametrize(
    ("files", "error_type"),
    [
        ({"index.js": "require('nothing-like-this')"}, "Runtime.ImportModuleError"),
        ({"index.js": "exports.other = 1"}, "Runtime.HandlerNotFound"),
        ({"index.js": "exports.handler = ("}, "Runtime.UserCodeSyntaxError"),
        ({"other.js": ""}, "Runtime.ImportModuleError"),
    ],
)
def test_a_failed_node_init_is_named(functions, files, error_type):
    name = functions.create(zip_of(files), Runtime=node_runtime(), Handler="index.handler")
    assert functions.invoke(name, {}).payload["errorType"] == error_type


@needs_node
def test_an_unhandled_rejection_is_named(functions):
    name = functions.node(
        "exports.handler = async () => { Promise.reject(new Error('lost'));"
        " await new Promise((r) => setTimeout(r, 500)); return 1; };"
    )
    answer = functions.invoke(name, {})
    assert answer.error == "Unhandled"
    assert answer.payload["errorType"] == "Runtime.UnhandledPromiseRejection"


def test_a_result_that_is_no_json_is_named(functions):
    name = functions.python("def handler(event, c): return object()")
    answer = functions.invoke(name, {})
    assert answer.payload["errorType"] == "Runtime.MarshalError"
    assert answer.payload["errorMessage"].startswith("Unable to marshal response: ")


def test_a_response_over_six_megabytes_is_refused(functions):
    name = functions.python("def handler(size, c): return 'x' * size")
    assert len(functions.invoke(name, 6 * 1024 * 1024 - 2).payload) == 6 * 1024 * 1024 - 2
    answer = functions.invoke(name, 6 * 1024 * 1024 + 200)
    assert answer.error == "Unhandled"
    assert answer.payload == {
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "Function.ResponseSizeTooLarge",
    }
    assert functions.invoke(name, 3).payload == "xxx"
