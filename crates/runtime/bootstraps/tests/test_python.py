"""What a handler and its caller observe of the Python bootstrap, on every interpreter there is."""

import json
import re
import struct
import subprocess
import time

import pytest
from driver import ARN, BOOTSTRAPS, REQUEST_ID, Bootstrap, becoming, invocation, write_files

ECHO = "def handler(event, context):\n    return event\n"


def returning(expression, before=""):
    return "%s\ndef handler(event, context):\n    return %s\n" % (before, expression)


# --- invocations ---


def test_an_event_goes_in_and_comes_out(start_python):
    bootstrap = start_python(ECHO).ready()
    for event in ({"a": [1, 2.5, None, "é"]}, "text", 7, None, [], {}):
        answer = bootstrap.invoke(event)
        assert (answer.kind, answer.json) == ("response", event)


def test_an_empty_payload_is_an_empty_object(start_python):
    assert start_python(ECHO).ready().invoke(b"").body == b"{}"


def test_blanks_around_the_event_do_not_matter(start_python):
    assert start_python(ECHO).ready().invoke(b' \n{"a": 1}\t ').json == {"a": 1}


def test_payloads_of_six_megabytes_pass_both_ways(start_python):
    bootstrap = start_python(ECHO).ready()
    event = "x" * (6 * 1024 * 1024 - 2)
    for _ in range(2):
        assert bootstrap.invoke(event).json == event


def test_frames_that_come_byte_by_byte_are_put_together(start_python):
    bootstrap = start_python(ECHO).ready()
    for byte in invocation({"slow": True}):
        bootstrap.send(bytes([byte]))
        time.sleep(0.0002)
    assert bootstrap.frame().json == {"slow": True}


def test_the_context_has_everything_that_is_documented(start_python):
    source = """
def handler(event, context):
    names = ["function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb",
             "aws_request_id", "log_group_name", "log_stream_name", "tenant_id"]
    first = context.get_remaining_time_in_millis()
    client = context.client_context
    return {**{name: getattr(context, name) for name in names},
            "remaining": first, "type": type(first).__name__,
            "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
            "client": [client.custom, client.env, client.client.app_title, client.client.installation_id],
            "shown": repr(context)}
"""
    client = {"custom": {"k": "v"}, "env": {"e": 1}, "client": {"app_title": "app"}}
    identity = {"cognitoIdentityId": "id", "cognitoIdentityPoolId": "pool"}
    answer = start_python(source).ready().invoke(
        {},
        deadline_ms=int(time.time() * 1000) + 5000,
        client_context=json.dumps(client),
        identity=json.dumps(identity),
        tenant_id="tenant",
    ).json
    assert 3000 < answer.pop("remaining") <= 5000
    assert answer.pop("shown").startswith("LambdaContext([aws_request_id=" + REQUEST_ID)
    assert answer == {
        "function_name": "hello",
        "function_version": "$LATEST",
        "invoked_function_arn": ARN,
        "memory_limit_in_mb": "128",
        "aws_request_id": REQUEST_ID,
        "log_group_name": "/aws/lambda/hello",
        "log_stream_name": "2026/01/01/[$LATEST]00",
        "tenant_id": "tenant",
        "type": "int",
        "identity": ["id", "pool"],
        "client": [{"k": "v"}, {"e": 1}, "app", None],
    }


def test_a_context_without_client_has_none_and_no_time_below_zero(start_python):
    source = returning("[context.client_context, context.identity.cognito_identity_id,"
                       " context.tenant_id, context.get_remaining_time_in_millis()]")
    assert start_python(source).ready().invoke({}, deadline_ms=1).json == [None, None, None, 0]


def test_the_type_of_the_context_can_be_imported(start_python):
    source = """
from awslambdaric.lambda_context import LambdaContext
def handler(event, context: LambdaContext):
    return isinstance(context, LambdaContext)
"""
    assert start_python(source).ready().invoke({}).json is True


def test_the_trace_id_is_that_of_the_invocation(start_python):
    source = returning("os.environ.get('_X_AMZN_TRACE_ID')", "import os")
    bootstrap = start_python(source).ready()
    assert bootstrap.invoke({}, trace_id="Root=1-a").json == "Root=1-a"
    assert bootstrap.invoke({}).json is None
    assert bootstrap.invoke({}, trace_id="Root=1-b").json == "Root=1-b"


def test_the_trace_id_is_gone_when_a_handler_has_removed_it(start_python):
    source = """
import os
def handler(event, context):
    return [os.environ.pop("_X_AMZN_TRACE_ID"), os.getenv("_X_AMZN_TRACE_ID")]
"""
    bootstrap = start_python(source).ready()
    assert bootstrap.invoke({}, trace_id="Root=1-a").json == ["Root=1-a", None]
    assert bootstrap.invoke({}, trace_id="Root=1-b").json == ["Root=1-b", None]


def test_invocations_leave_no_memory_behind(start_python):
    source = returning("int(open('/proc/self/statm').read().split()[1]) * 4096")
    bootstrap = start_python(source).ready()

    def after(invocations):
        for number in range(invocations):
            size = bootstrap.invoke({}, trace_id="Root=1-%s-%09d" % ("a" * 200, number)).json
        return size

    # One trace header kept for each of them would be 2 MB.
    assert after(500) > after(8_000) - 1_000_000


# --- what a response may be ---


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("None", b"null"),
        ("'text'", b'"text"'),
        ("b'\\x00raw'", b"\x00raw"),
        ("{'a': (1, True)}", b'{"a": [1, true]}'),
        ("{1: 2, None: 3, True: 4, 1.5: 5}", b'{"1": 4, "null": 3, "1.5": 5}'),
        ("[Decimal('1.10'), Decimal('NaN'), Decimal('1E+5')]", b"[1.10, NaN, 1E+5]"),
        ("[float('nan'), float('-inf')]", b"[NaN, -Infinity]"),
        ("Point(1, 2)", b'{"x": 1, "y": 2}'),
        ("{'deep': [Color.RED, b'bytes', OrderedDict(a=1)]}", b'{"deep": [3, "bytes", {"a": 1}]}'),
        ("{}", b"{}"),
        ("[[], Point([], {})]", b'[[], {"x": [], "y": {}}]'),
    ],
)
def test_responses_are_written_as_lambda_writes_them(start_python, expression, expected):
    before = """
from collections import OrderedDict, namedtuple
from decimal import Decimal
from enum import IntEnum
Point = namedtuple("Point", "x y")
class Color(IntEnum):
    RED = 3
"""
    answer = start_python(returning(expression, before)).ready().invoke({})
    assert (answer.kind, answer.body) == ("response", expected)


@pytest.mark.parametrize("minor, expected", [(11, b'"\\u00e9"'), (12, '"é"'.encode())])
def test_letters_are_escaped_up_to_3_11(start_python, minor, expected):
    env = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.%d" % minor}
    assert start_python(returning("'é'"), env=env).ready().invoke({}).body == expected


@pytest.mark.parametrize(
    "expression, reason",
    [
        ("{1, 2}", "Object of type set is not JSON serializable"),
        ("[datetime.date(2020, 1, 1)]", "Object of type date is not JSON serializable"),
        ("{(1, 2): 3}", "keys must be str, int, float, bool or None, not tuple"),
        ("circle", "Circular reference detected"),
        ("coroutine()", "Object of type coroutine is not JSON serializable"),
    ],
)
def test_what_is_no_json_is_a_marshal_error(start_python, expression, reason):
    before = "import datetime\ncircle = []\ncircle.append(circle)\nasync def coroutine(): pass"
    answer = start_python(returning(expression, before)).ready().invoke({})
    assert (answer.kind, answer.error_type) == ("error", "Runtime.MarshalError")
    assert answer.json == {
        "errorMessage": "Unable to marshal response: " + reason,
        "errorType": "Runtime.MarshalError",
        "requestId": REQUEST_ID,
        "stackTrace": [],
    }


def test_an_async_handler_fails_as_in_lambda(start_python):
    answer = start_python("async def handler(event, context):\n    return 1\n").ready().invoke({})
    assert answer.json["errorMessage"].endswith("Object of type coroutine is not JSON serializable")


def test_lone_surrogates_cannot_leave_as_utf8_but_do_no_harm(start_python):
    env = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.12"}
    bootstrap = start_python(ECHO, env=env).ready()
    assert bootstrap.invoke(b'"\\ud800"').error_type == "Runtime.MarshalError"
    assert bootstrap.invoke(b"1").json == 1


def test_an_event_that_is_no_json_is_an_unmarshal_error(start_python):
    bootstrap = start_python(ECHO).ready()
    for event in (b"{", b"1 2", b"nope", b"\xff"):
        answer = bootstrap.invoke(event)
        assert answer.error_type == "Runtime.UnmarshalError"
        assert answer.json["errorMessage"].startswith("Unable to unmarshal input: ")
    assert bootstrap.invoke(b"{").json["errorMessage"].endswith(
        "enclosed in double quotes: line 1 column 2 (char 1)"
    )


# --- errors ---


def test_an_exception_is_told_with_the_frames_of_the_function(start_python, tmp_path):
    source = """
class Oops(Exception):
    pass
def inner():
    raise Oops("went wrong")
def handler(event, context):
    inner()
"""
    answer = start_python(source).ready().invoke({})
    path = tmp_path / "index.py"
    assert (answer.kind, answer.error_type) == ("error", "Oops")
    assert list(answer.json) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert answer.json == {
        "errorMessage": "went wrong",
        "errorType": "Oops",
        "requestId": REQUEST_ID,
        "stackTrace": [
            '  File "%s", line 7, in handler\n    inner()\n' % path,
            '  File "%s", line 5, in inner\n    raise Oops("went wrong")\n' % path,
        ],
    }


def test_an_error_is_one_record_with_no_break_spaces(start_python, tmp_path):
    source = "def handler(event, context):\n    raise ValueError('a\\nb')\n"
    bootstrap = start_python(source).ready()
    bootstrap.invoke({})
    (record,) = bootstrap.records()
    assert record.kind == 0xA55A0017
    assert record.message == (
        "[ERROR] ValueError: a\nb\nTraceback (most recent call last):\n"
        '\u00a0\u00a0File "%s", line 2, in handler\n'
        "\u00a0\u00a0\u00a0\u00a0raise ValueError('a\\nb')" % (tmp_path / "index.py")
    )
    assert abs(record.micros / 1e6 - time.time()) < 60


def test_without_a_telemetry_descriptor_the_record_goes_to_the_output(start_python):
    source = "def handler(event, context):\n    raise ValueError('x')\n"
    bootstrap = start_python(source, telemetry=False).ready()
    bootstrap.invoke({})
    output = bootstrap.output("raise")
    assert output.startswith("[ERROR] ValueError: x\rTraceback (most recent call last):\r\u00a0\u00a0File ")


def test_the_instance_goes_on_after_an_error(start_python):
    source = "def handler(event, context):\n    return 1 / event\n"
    bootstrap = start_python(source).ready()
    assert bootstrap.invoke(0).error_type == "ZeroDivisionError"
    assert bootstrap.invoke(2).json == 0.5


def test_an_exception_that_cannot_be_shown_is_still_told(start_python):
    source = """
class Mute(Exception):
    def __str__(self):
        raise RuntimeError
def handler(event, context):
    raise Mute
"""
    bootstrap = start_python(source).ready()
    assert bootstrap.invoke({}).error_type == "Mute"
    assert bootstrap.invoke({}).error_type == "Mute"


@pytest.mark.parametrize(
    "statement, code", [("sys.exit()", 0), ("sys.exit(3)", 3), ("os._exit(4)", 4), ("exit(5)", 5)]
)
def test_leaving_the_process_leaves_it(start_python, statement, code):
    source = "import os, sys\ndef handler(event, context):\n    %s\n" % statement
    bootstrap = start_python(source).ready()
    with pytest.raises(EOFError):
        bootstrap.invoke({})
    assert bootstrap.exit_code() == code


def test_an_exception_above_exception_ends_the_process(start_python):
    source = "class Stop(BaseException): pass\ndef handler(event, context):\n    raise Stop('now')\n"
    bootstrap = start_python(source).ready()
    with pytest.raises(EOFError):
        bootstrap.invoke({})
    assert bootstrap.exit_code() == 1
    assert "Stop: now" in bootstrap.output("Stop: now")


# --- loading the handler ---


@pytest.mark.parametrize(
    "files, handler",
    [
        ({"index.py": ECHO}, "index.handler"),
        ({"a/__init__.py": "", "a/b.py": ECHO}, "a.b.handler"),
        ({"a/b.py": ECHO}, "a/b.handler"),
        ({"a/b.py": ECHO}, "a.b.handler"),
        ({"bootstrap.py": ECHO}, "bootstrap.handler"),
        ({"enum.py": "raise RuntimeError", "index.py": "import re, logging\n" + ECHO}, "index.handler"),
        ({"lib.py": "x = 1", "index.py": "import lib\n" + ECHO}, "index.handler"),
    ],
)
def test_handlers_are_found(start_python, files, handler):
    assert start_python(files, handler).ready().invoke({"a": 1}).json == {"a": 1}


@pytest.mark.parametrize(
    "files, handler, error_type, message",
    [
        ({}, "absent.handler", "Runtime.ImportModuleError",
         "Unable to import module 'absent': No module named 'absent'"),
        ({"index.py": "import nowhere"}, "index.handler", "Runtime.ImportModuleError",
         "Unable to import module 'index': No module named 'nowhere'"),
        ({}, "dir/absent.handler", "Runtime.ImportModuleError",
         "Unable to import module 'dir/absent': No module named 'dir'"),
        ({"index.py": "x = 1"}, "index.handler", "Runtime.HandlerNotFound",
         "Handler 'handler' missing on module 'index'"),
        ({"index.py": "x = 1"}, "index", "Runtime.MalformedHandlerName",
         "Bad handler 'index': not enough values to unpack (expected 2, got 1)"),
        ({}, "sys.exit", "Runtime.BuiltInModuleConflict",
         "Cannot use built-in module sys as a handler module"),
    ],
)
def test_a_handler_that_is_not_there_is_an_init_error(start_python, files, handler, error_type, message):
    bootstrap = start_python(files, handler)
    frame = bootstrap.frame()
    assert (frame.kind, frame.error_type) == ("init_error", error_type)
    assert frame.json == {
        "errorMessage": message, "errorType": error_type, "requestId": "", "stackTrace": [],
    }
    assert bootstrap.exit_code() == 1
    (record,) = bootstrap.records()
    assert record.message == "[ERROR] %s: %s\nTraceback (most recent call last):" % (error_type, message)


def test_a_syntax_error_tells_its_place(start_python, tmp_path):
    frame = start_python("def handler(:\n").frame()
    assert frame.error_type == "Runtime.UserCodeSyntaxError"
    assert frame.json["errorMessage"].startswith("Syntax error in module 'index': ")
    assert frame.json["stackTrace"] == [
        '  File "%s" Line 1\n    def handler(:\n' % (tmp_path / "index.py")
    ]


def test_an_exception_during_init_keeps_its_own_type(start_python, tmp_path):
    bootstrap = start_python("raise KeyError('table')\n")
    frame = bootstrap.frame()
    assert (frame.kind, frame.error_type) == ("init_error", "KeyError")
    assert frame.json["errorMessage"] == "'table'"
    last = '  File "%s", line 1, in <module>\n    raise KeyError(\'table\')\n'
    assert frame.json["stackTrace"][-1] == last % (tmp_path / "index.py")
    assert not any("bootstrap.py" in line for line in frame.json["stackTrace"])
    assert bootstrap.exit_code() == 1


def test_the_search_path_begins_with_the_function_and_its_layers(start_python, tmp_path):
    env = {"PYTHONPATH": "/var/runtime:/some/where"}
    path = start_python(returning("sys.path", "import sys"), env=env).ready().invoke({}).json
    version = re.search(r"/lib/(python3\.\d+)", " ".join(path)).group(1)
    layer = "/opt/python/lib/python3."
    assert path[0] == str(tmp_path)
    assert path[1].startswith(layer) and path[1].endswith("/site-packages")
    assert path[2:5] == ["/opt/python", "/var/runtime", "/some/where"]
    assert any(entry.endswith("/lib/" + version) for entry in path[5:])
    assert not any("site-packages" in entry for entry in path[2:])


# --- logs ---


def test_logging_has_lambdas_text_format(start_python):
    source = """
import logging
logging.getLogger().setLevel("INFO")
def handler(event, context):
    logging.getLogger("name").info("two\\nlines %s", 1)
    logging.debug("hidden")
"""
    bootstrap = start_python(source).ready()
    bootstrap.invoke({})
    (record,) = bootstrap.records()
    assert record.kind == 0xA55A0003
    time_form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(
        r"\[INFO\]\t%s\t%s\ttwo\nlines 1\n" % (time_form, REQUEST_ID), record.message
    )


def test_logging_in_json_has_levels_and_extra_members(start_python):
    source = """
import logging
def handler(event, context):
    logging.info("hidden")
    logging.warning({"a": 1}, extra={"order": 7})
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("caught")
"""
    env = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "WARN"}
    bootstrap = start_python(source, env=env).ready()
    bootstrap.invoke({}, tenant_id="t")
    first, second = bootstrap.records(2)
    assert (first.kind, second.kind) == (0xA55A0012, 0xA55A0016)
    document = json.loads(first.message)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document.pop("timestamp"))
    document.pop("taskName", None)
    assert document == {
        "level": "WARNING", "message": {"a": 1}, "logger": "root", "requestId": REQUEST_ID,
        "tenantId": "t", "order": 7,
    }
    document = json.loads(second.message)
    assert document["errorType"] == "ZeroDivisionError"
    assert document["errorMessage"] == "division by zero"
    assert "line 7, in handler" in document["stackTrace"][0]
    assert document["location"].endswith("index.py:handler:9")


def test_an_error_in_json_is_one_json_record(start_python):
    env = {"AWS_LAMBDA_LOG_FORMAT": "JSON"}
    bootstrap = start_python("def handler(e, c):\n    raise ValueError('x')\n", env=env).ready()
    bootstrap.invoke({})
    (record,) = bootstrap.records()
    document = json.loads(record.message)
    assert (record.kind, document["level"]) == (0xA55A0016, "ERROR")
    assert (document["errorType"], document["requestId"]) == ("ValueError", REQUEST_ID)


def test_a_level_without_json_marks_the_records(start_python):
    source = "import logging\ndef handler(e, c):\n    logging.debug('seen')\n"
    bootstrap = start_python(source, env={"AWS_LAMBDA_LOG_LEVEL": "TRACE"}).ready()
    bootstrap.invoke({})
    assert bootstrap.records()[0].kind == 0xA55A000B


def test_what_is_printed_is_there_before_the_answer(start_python):
    source = "import sys\ndef handler(e, c):\n    print('out é', end='')\n    sys.stderr.write('err')\n"
    bootstrap = start_python(source).ready()
    bootstrap.invoke({})
    assert bootstrap.output("err") == "out éerr"


def test_context_log_and_large_records_stay_whole(start_python):
    source = "def handler(e, c):\n    c.log('x' * 200000)\n    c.log('y')\n"
    bootstrap = start_python(source).ready()
    bootstrap.invoke({})
    assert [len(record.message) for record in bootstrap.records(2)] == [200000, 1]


def test_the_telemetry_variable_is_gone(start_python):
    source = returning("'_LAMBDA_TELEMETRY_LOG_FD' in os.environ", "import os")
    assert start_python(source).ready().invoke({}).json is False


# --- the process ---


def test_it_ends_when_the_server_goes(start_python):
    bootstrap = start_python("import atexit\natexit.register(print, 'bye')\n" + ECHO).ready()
    bootstrap.socket.close()
    assert bootstrap.exit_code() == 0
    assert bootstrap.output() == ""


@pytest.mark.parametrize(
    "harm",
    ["os.close(3)", "os.dup2(os.open('/dev/null', os.O_RDONLY), 3)", "os.set_blocking(3, False)"],
)
def test_a_handler_that_breaks_the_socket_harms_only_its_own_process(start_python, harm):
    source = "import os\ndef handler(event, context):\n    %s\n" % harm
    bootstrap = start_python(source).ready()
    bootstrap.send(invocation({}))
    with pytest.raises(EOFError):
        bootstrap.frame()
        bootstrap.frame()
    assert isinstance(bootstrap.exit_code(), int)


def test_a_closed_telemetry_descriptor_loses_records_only(start_python):
    source = "import os\ndef handler(event, context):\n    os.close(4)\n    raise ValueError('x')\n"
    bootstrap = start_python(source).ready()
    assert bootstrap.invoke({}).error_type == "ValueError"
    assert bootstrap.invoke({}).error_type == "OSError"


def test_it_runs_compiled(python, tmp_path):
    script = "import py_compile, sys; py_compile.compile(sys.argv[1], cfile=sys.argv[2], doraise=True)"
    compiled = tmp_path / "bootstrap.pyc"
    subprocess.run([python, "-c", script, BOOTSTRAPS + "/python/bootstrap.py", compiled], check=True)
    argv = [python, "-I", "-S", "-B", str(compiled)]
    with Bootstrap(argv, write_files(tmp_path, {"index.py": "def handler(e, c): 1 / 0"}), "index.handler") as it:
        answer = it.ready().invoke({})
    assert answer.error_type == "ZeroDivisionError" and len(answer.json["stackTrace"]) == 1


def test_children_of_the_handler_do_not_hold_the_descriptors(start_python):
    source = returning("subprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False,"
                       " capture_output=True, text=True).stdout", "import subprocess")
    listing = start_python(source).ready().invoke({}).json
    assert "/dev/null" in listing and "socket:" not in listing and " 4 -> " not in listing


@pytest.mark.parametrize("blank", [None], indirect=True)  # it would not suit
def test_a_wrapper_script_may_start_it(start_python, tmp_path):
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/bash\nexport FROM_WRAPPER=yes\nexec "$@"\n')
    wrapper.chmod(0o755)
    source = returning("os.environ['FROM_WRAPPER']", "import os")
    assert start_python(source, wrapper=[str(wrapper)]).ready().invoke({}).json == "yes"


SNAPSHOT = """
import logging, os, random, ssl, tempfile, threading, uuid
from snapshot_restore_py import register_after_restore, register_before_snapshot
random.seed(7)
hooks = []
register_before_snapshot(hooks.append, "before 1")
register_before_snapshot(lambda text, more: hooks.append(text + more), "before", more=" 2")
register_after_restore(hooks.append, "after 1")
@register_after_restore
def second():
    hooks.append(os.environ["AWS_ACCESS_KEY_ID"])
    if os.environ.get("FAIL"):
        raise ValueError("not today")
os.register_at_fork(after_in_child=lambda: hooks.append("forked"))
def handler(event, context):
    thread = threading.Thread(target=hooks.append, args=("thread",))
    thread.start()
    thread.join()
    logging.warning("logged")
    return hooks, random.random(), str(uuid.uuid1()), sorted(os.environ)
"""


@pytest.mark.parametrize("blank", [None], indirect=True)  # a snapshot is never made from one
def test_a_snapshot_stands_and_goes_on_as_another(start_python):
    drawn = []
    for _ in range(2):
        first = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start", "AWS_ACCESS_KEY_ID": "old", "OLD": "1"}
        bootstrap = start_python(SNAPSHOT, env=first).ready()
        restored = {"PATH": "/bin", "TZ": ":UTC", "AWS_ACCESS_KEY_ID": "new", "_LAMBDA_TELEMETRY_LOG_FD": "4"}
        bootstrap.send(becoming(restored, kind=b"\3"))
        hooks, random, uuid, names = bootstrap.ready().invoke({}).json
        assert hooks == ["before 2", "before 1", "forked", "after 1", "new", "thread"]
        assert set(names) - {"LC_CTYPE"} == {"PATH", "TZ", "AWS_ACCESS_KEY_ID"}
        assert "logged" in bootstrap.records()[0].message
        drawn.append((random, uuid.split("-", 3)[3]))
    assert len({random for random, _ in drawn}) == len({node for _, node in drawn}) == 2


@pytest.mark.parametrize("blank", [None], indirect=True)
def test_a_hook_that_fails_is_an_init_error(start_python):
    kind = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
    bootstrap = start_python(SNAPSHOT, env=kind).ready()
    bootstrap.send(becoming({"FAIL": "1", "AWS_ACCESS_KEY_ID": "new"}, kind=b"\3"))
    frame = bootstrap.frame()
    assert (frame.kind, frame.json["errorMessage"]) == ("init_error", "not today")
    assert bootstrap.exit_code() == 1


def test_frames_of_an_unknown_kind_end_it(start_python):
    bootstrap = start_python(ECHO).ready()
    bootstrap.send(struct.pack("<IB", 1, 99))
    assert bootstrap.exit_code() == 1
