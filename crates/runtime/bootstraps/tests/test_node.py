"""What a handler and its caller observe of the Node bootstrap."""

import json
import re
import socket
import struct
import threading
import time

import pytest
from driver import ARN, REQUEST_ID, invocation

ECHO = "exports.handler = async (event) => event;\n"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def returning(expression):
    return "exports.handler = async (event, context) => %s;\n" % expression


# --- invocations ---


def test_the_handler_of_the_readme_answers(start_node):
    source = """
exports.handler = async (event) => {
  let responseMessage = "Hello, " + event.name;
  return { statusCode: 200, body: JSON.stringify({ message: responseMessage }) };
};
"""
    answer = start_node(source).ready().invoke({"name": "Ada"})
    assert answer.json == {"statusCode": 200, "body": '{"message":"Hello, Ada"}'}


def test_an_event_goes_in_and_comes_out(start_node):
    bootstrap = start_node(ECHO).ready()
    for event in ({"a": [1, 2.5, None, "é😀"]}, "text", 7, None, [], {}):
        answer = bootstrap.invoke(event)
        assert (answer.kind, answer.json) == ("response", event)


def test_an_empty_payload_is_an_empty_object(start_node):
    assert start_node(ECHO).ready().invoke(b"").body == b"{}"


def test_payloads_of_six_megabytes_pass_both_ways(start_node):
    bootstrap = start_node(ECHO).ready()
    event = "é" * (3 * 1024 * 1024 - 1)
    for _ in range(2):
        assert bootstrap.invoke(json.dumps(event, ensure_ascii=False).encode()).json == event


def test_frames_that_come_byte_by_byte_are_put_together(start_node):
    bootstrap = start_node(ECHO).ready()
    for byte in invocation({"slow": True}):
        bootstrap.send(bytes([byte]))
        time.sleep(0.0002)
    assert bootstrap.frame().json == {"slow": True}


def test_the_context_has_everything_that_is_documented(start_node):
    source = """
exports.handler = async (event, context) => ({
  ...context,
  left: context.getRemainingTimeInMillis(),
  functions: Object.keys(context).filter((key) => typeof context[key] === 'function').sort(),
});
"""
    answer = start_node(source).ready().invoke(
        {},
        deadline_ms=int(time.time() * 1000) + 5000,
        client_context='{"custom": {"k": 1}}',
        identity='{"cognitoIdentityId": "id"}',
        tenant_id="tenant",
    ).json
    assert 3000 < answer.pop("left") <= 5000
    assert answer == {
        "callbackWaitsForEmptyEventLoop": True,
        "functions": ["done", "fail", "getRemainingTimeInMillis", "succeed"],
        "functionVersion": "$LATEST",
        "functionName": "hello",
        "memoryLimitInMB": "128",
        "logGroupName": "/aws/lambda/hello",
        "logStreamName": "2026/01/01/[$LATEST]00",
        "clientContext": {"custom": {"k": 1}},
        "identity": {"cognitoIdentityId": "id"},
        "invokedFunctionArn": ARN,
        "awsRequestId": REQUEST_ID,
        "tenantId": "tenant",
    }


def test_the_trace_id_is_that_of_the_invocation(start_node):
    bootstrap = start_node(returning("process.env._X_AMZN_TRACE_ID ?? 'none'")).ready()
    for trace in ("Root=1-a", "", "Root=1-b"):
        assert bootstrap.invoke({}, trace_id=trace).json == (trace or "none")


@pytest.mark.parametrize(
    "body, expected",
    [
        ("async () => undefined", b"null"),
        ("async () => (() => 1)", b"null"),
        ("async () => Buffer.from('a')", b'{"type":"Buffer","data":[97]}'),
        ("() => ({ then(resolve) { resolve(5); } })", b"5"),
        ("(event, context, callback) => callback(null, 'now')", b'"now"'),
        ("(event, context, callback) => { setTimeout(() => callback(null, 1), 20); }", b"1"),
        ("(event, context) => context.succeed('legacy')", b'"legacy"'),
        ("(event, context) => context.done(null, 'done')", b'"done"'),
        ("() => {}", b"null"),
        ("async (event, context, callback) => { callback(null, 'first'); return 'second'; }", b'"first"'),
    ],
)
def test_handlers_answer_in_every_way_that_lambda_has(start_node, body, expected):
    bootstrap = start_node("exports.handler = %s;" % body).ready()
    for _ in range(2):
        answer = bootstrap.invoke({})
        assert (answer.kind, answer.body) == ("response", expected)


def test_a_plain_value_answers_from_node_24_on_unless_there_is_a_callback(start_node, node_major):
    source = "exports.handler = (event%s) => { if (event) return 'plain'; };"
    assert start_node(source % "").ready().invoke(1).body == (b'"plain"' if int(node_major) >= 24 else b"null")
    assert start_node(source % ", context, callback").ready().invoke(1).body == b"null"


def test_a_callback_waits_for_an_empty_event_loop_unless_told_not_to(start_node):
    source = """
let fired = 0;
exports.handler = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = event.wait;
  const before = fired;
  setTimeout(() => { fired += 1; }, 2000);
  callback(null, before);
};
"""
    bootstrap = start_node(source).ready()
    begin = time.monotonic()
    assert bootstrap.invoke({"wait": False}).json == 0
    assert time.monotonic() - begin < 1.5
    begin = time.monotonic()
    assert bootstrap.invoke({"wait": True}).json == 0
    assert time.monotonic() - begin >= 1.9
    assert bootstrap.invoke({"wait": False}).json == 2


def test_time_stands_still_between_invocations(start_node):
    source = """
let ticks = 0;
setInterval(() => { ticks += 1; }, 5);
exports.handler = async () => ticks;
"""
    bootstrap = start_node(source).ready()
    first = bootstrap.invoke({}).json
    spent = cpu_seconds(bootstrap.process.pid)
    time.sleep(1)
    assert cpu_seconds(bootstrap.process.pid) - spent <= 0.1
    assert bootstrap.invoke({}).json <= first + 20


def test_a_connection_that_was_closed_in_a_pause_is_not_used_again(start_node):
    source = """
const http = require('http');
const agent = new http.Agent({ keepAlive: true });
exports.handler = (event) => new Promise((resolve, reject) => {
  http.get({ port: event.port, agent }, (response) => {
    response.resume().on('end', () => resolve(response.statusCode));
  }).on('error', reject);
});
"""
    server = socket.create_server(("127.0.0.1", 0))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def serve():
        for _ in range(2):
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(answer)
            time.sleep(0.1)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    bootstrap = start_node(source).ready()
    event = {"port": server.getsockname()[1]}
    assert bootstrap.invoke(event).json == 200
    time.sleep(0.4)
    assert bootstrap.invoke(event).json == 200
    server.close()


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_promise_that_nobody_can_settle_ends_as_null(start_node):
    bootstrap = start_node("exports.handler = () => new Promise(() => {});").ready()
    assert bootstrap.invoke({}).body == b"null"
    assert bootstrap.invoke({}).body == b"null"


def test_a_late_callback_does_not_answer_the_next_invocation(start_node):
    source = """
let late;
exports.handler = async (event, context) => {
  if (late) { late.done(null, 'wrong'); late.fail(new Error('wrong')); }
  late = context;
  return event;
};
"""
    bootstrap = start_node(source).ready()
    assert [bootstrap.invoke(number).json for number in range(3)] == [0, 1, 2]


# --- errors ---


@pytest.mark.parametrize(
    "body, error_type, message, has_trace",
    [
        ("async () => { throw new TypeError('bad'); }", "TypeError", "bad", True),
        ("() => { throw new RangeError('sync'); }", "RangeError", "sync", True),
        ("(e, c, callback) => callback(new Error('cb'))", "Error", "cb", True),
        ("(e, c, callback) => callback('text')", "string", "text", False),
        ("async () => { throw 7; }", "number", "7", False),
        ("async () => { throw undefined; }", "string", "handled", False),
        ("(e, context) => context.fail(new Error('failed'))", "Error", "failed", True),
        ("async () => { const a = {}; a.a = a; return a; }", "Error",
         "Unable to stringify response body", True),
        ("async () => 10n", "Error", "Unable to stringify response body", True),
        ("async () => { const e = new Error('named'); e.name = 'Mine'; throw e; }", "Mine", "named", True),
    ],
)
def test_failures_are_told_as_lambda_tells_them(start_node, body, error_type, message, has_trace):
    bootstrap = start_node("exports.handler = %s;" % body).ready()
    answer = bootstrap.invoke({})
    assert (answer.kind, answer.error_type) == ("error", error_type)
    document = answer.json
    assert list(document) == ["errorType", "errorMessage", "trace"]
    assert (document["errorType"], document["errorMessage"]) == (error_type, message)
    assert bool(document["trace"]) == has_trace
    assert bootstrap.invoke({}).kind == "error"


def test_a_trace_leads_to_the_line(start_node, tmp_path):
    answer = start_node("exports.handler = async () => {\n  throw new Error('x');\n};").ready().invoke({})
    assert answer.json["trace"][0] == "Error: x"
    assert "%s/index.js:2:9" % tmp_path in answer.json["trace"][1]


def test_an_event_that_is_no_json_is_a_syntax_error(start_node):
    bootstrap = start_node(ECHO).ready()
    assert bootstrap.invoke(b"{").error_type == "SyntaxError"
    assert bootstrap.invoke(b"1").json == 1


def test_an_error_is_logged_as_one_record(start_node):
    bootstrap = start_node("exports.handler = async () => { throw new Error('a\\nb'); };").ready()
    bootstrap.invoke({})
    (record,) = bootstrap.records()
    assert record.kind == 0xA55A0017
    prefix = r"%s\t%s\tERROR\tInvoke Error \t" % (TIME, REQUEST_ID)
    assert re.match(prefix, record.message)
    document = json.loads(re.sub(prefix, "", record.message))
    assert (document["errorType"], document["errorMessage"]) == ("Error", "a\nb")
    assert document["stack"][0] == "Error: a"


@pytest.mark.parametrize(
    "body, error_type, code",
    [
        ("setTimeout(() => { throw new Error('stray'); }, 5)", "Error", 129),
        ("Promise.reject(new Error('stray'))", "Runtime.UnhandledPromiseRejection", 128),
    ],
)
def test_stray_errors_answer_and_end_the_process(start_node, body, error_type, code):
    source = "exports.handler = async () => { %s; await new Promise((r) => setTimeout(r, 2000)); };"
    bootstrap = start_node(source % body).ready()
    answer = bootstrap.invoke({})
    assert (answer.kind, answer.error_type) == ("error", error_type)
    assert answer.json["errorMessage"].endswith("stray")
    assert bootstrap.exit_code() == code


@pytest.mark.parametrize("code", [0, 3])
def test_leaving_the_process_leaves_it(start_node, code):
    bootstrap = start_node("exports.handler = async () => process.exit(%d);" % code).ready()
    with pytest.raises(EOFError):
        bootstrap.invoke({})
    assert bootstrap.exit_code() == code


# --- loading the handler ---

MODULE = "export const handler = async (event) => event;\n"


@pytest.mark.parametrize(
    "files, handler",
    [
        ({"index.js": ECHO}, "index.handler"),
        ({"index.cjs": ECHO}, "index.handler"),
        ({"index.mjs": MODULE}, "index.handler"),
        ({"index": ECHO}, "index.handler"),
        ({"index/index.js": ECHO}, "index.handler"),
        ({"package.json": '{"type": "module"}', "index.js": MODULE}, "index.handler"),
        ({"package.json": '{"type": "module"}', "index.cjs": ECHO}, "index.handler"),
        ({"src/app.js": "exports.a = { b: async (event) => event };"}, "src/app.a.b"),
        ({"src/app.mjs": "export default { handler: async (event) => event };"}, "src/app.default.handler"),
        ({"index.mjs": "const f = await Promise.resolve((e) => Promise.resolve(e));\n"
                       "export { f as handler };"}, "index.handler"),
        ({"node_modules/pkg/index.js": ECHO}, "pkg.handler"),
        ({"index.js": "const x = require('lib'); exports.handler = x;",
          "node_modules/lib.js": "module.exports = async (e) => e;"}, "index.handler"),
    ],
)
def test_handlers_are_found(start_node, files, handler):
    assert start_node(files, handler).ready().invoke({"a": 1}).json == {"a": 1}


@pytest.mark.parametrize("blank", [None], indirect=True)  # it would not suit
def test_layers_are_found_by_node_path(start_node, tmp_path):
    files = {"layer/lib/index.js": "module.exports = 5;",
             "task/index.js": "const x = require('lib'); exports.handler = async () => x;"}
    env = {"NODE_PATH": str(tmp_path / "layer"), "LAMBDA_TASK_ROOT": str(tmp_path / "task")}
    assert start_node(files, env=env).ready().invoke({}).json == 5


@pytest.mark.parametrize(
    "files, handler, error_type, message",
    [
        ({"index.js": "1;"}, "index.handler", "Runtime.HandlerNotFound",
         "index.handler is undefined or not exported"),
        ({"index.js": "exports.handler = 5;"}, "index.handler", "Runtime.HandlerNotFound",
         "index.handler is not a function"),
        ({}, "index", "Runtime.MalformedHandlerName", "Bad handler"),
        ({}, "../index.handler", "Runtime.MalformedHandlerName", "'../index.handler' is not a valid"),
        ({}, "absent.handler", "Runtime.ImportModuleError", "Error: Cannot find module 'absent'\nRequire stack:"),
        ({"index.js": "require('nowhere');"}, "index.handler", "Runtime.ImportModuleError",
         "Error: Cannot find module 'nowhere'\nRequire stack:"),
        ({"index.js": "exports.handler = async (;"}, "index.handler", "Runtime.UserCodeSyntaxError",
         "SyntaxError: Unexpected token ';'"),
        ({"index.mjs": "export const handler = (;"}, "index.handler", "Runtime.UserCodeSyntaxError",
         "SyntaxError: Unexpected token ';'"),
        ({"index.js": "throw new RangeError('at init');"}, "index.handler", "RangeError", "at init"),
    ],
)
def test_a_handler_that_cannot_be_loaded_is_an_init_error(start_node, files, handler, error_type, message):
    bootstrap = start_node(files, handler)
    frame = bootstrap.frame()
    assert (frame.kind, frame.error_type) == ("init_error", error_type)
    assert frame.json["errorType"] == error_type
    assert frame.json["errorMessage"].startswith(message)
    assert frame.json["trace"][0].startswith(error_type + ": ")
    assert bootstrap.exit_code() == 129
    (record,) = bootstrap.records()
    assert re.match(r"%s\tundefined\tERROR\tUncaught Exception \t{" % TIME, record.message)


def test_a_stray_rejection_at_init_is_an_init_error(start_node):
    source = "Promise.reject(new Error('x')); setTimeout(() => {}, 1000);\n"
    source += "await new Promise((r) => setTimeout(r, 500));\nexport const handler = 1;"
    bootstrap = start_node({"index.mjs": source})
    frame = bootstrap.frame()
    assert (frame.kind, frame.error_type) == ("init_error", "Runtime.UnhandledPromiseRejection")
    assert bootstrap.exit_code() == 128


def test_a_module_that_never_loads_ends_the_process_with_13(start_node):
    bootstrap = start_node({"index.mjs": "await new Promise(() => {});"})
    assert bootstrap.exit_code() == 13


# --- logs ---


def test_the_console_has_lambdas_text_format(start_node):
    source = """
console.log('at init');
exports.handler = async () => {
  console.log('two\\nlines', { a: 1 });
  console.warn('%s!', 'warned'); console.error('e'); console.debug('d'); console.trace('t'); console.info();
};
"""
    bootstrap = start_node(source).ready()
    bootstrap.invoke({})
    records = bootstrap.records(7)
    assert re.fullmatch(r"%s\tundefined\tINFO\tat init\n" % TIME, records[0].message)
    texts = [record.message.split("\t", 1)[1] for record in records[1:]]
    expected = ["INFO\ttwo\nlines { a: 1 }", "WARN\twarned!", "ERROR\te", "DEBUG\td", "TRACE\tt",
                "INFO\tundefined"]
    assert texts == ["%s\t%s\n" % (REQUEST_ID, text) for text in expected]
    kinds = [record.kind & 0xFF for record in records]
    assert kinds == [0x0F, 0x0F, 0x13, 0x17, 0x0B, 0x07, 0x0F]
    assert abs(records[0].micros / 1e6 - time.time()) < 60


def test_without_a_telemetry_descriptor_the_console_prints_one_line(start_node):
    source = "exports.handler = async () => { console.log('a\\nb'); };"
    bootstrap = start_node(source, telemetry=False).ready()
    bootstrap.invoke({})
    assert re.fullmatch(r"%s\t%s\tINFO\ta\rb\n" % (TIME, REQUEST_ID), bootstrap.output("b\n"))


def test_the_console_in_json_has_levels(start_node):
    source = """
exports.handler = async () => {
  console.log('hidden');
  console.warn({ a: 1 });
  console.error('with', new TypeError('x'));
  console.error(new RangeError('y'));
  console.fatal('f');
};
"""
    env = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "warn"}
    bootstrap = start_node(source, env=env).ready()
    bootstrap.invoke({}, tenant_id="t")
    records = bootstrap.records(4)
    assert [record.kind & 0xFF for record in records] == [0x12, 0x16, 0x16, 0x1A]
    first, second, third, _ = (json.loads(record.message) for record in records)
    assert re.fullmatch(TIME, first.pop("timestamp"))
    assert first == {"level": "WARN", "requestId": REQUEST_ID, "tenantId": "t", "message": {"a": 1}}
    assert (second["errorType"], second["errorMessage"]) == ("TypeError", "x")
    assert second["message"].startswith("with TypeError: x\n")
    assert third["message"]["errorType"] == "RangeError"


def test_what_is_printed_is_there_before_the_answer(start_node):
    source = "exports.handler = async () => { process.stdout.write('out'); process.stderr.write('err'); };"
    bootstrap = start_node(source).ready()
    bootstrap.invoke({})
    assert bootstrap.output("err") == "outerr"


def test_large_records_stay_whole(start_node):
    source = "exports.handler = async () => { console.log('x'.repeat(300000)); console.log('y'); };"
    bootstrap = start_node(source).ready()
    bootstrap.invoke({})
    assert [record.message[-2] for record in bootstrap.records(2)] == ["x", "y"]


# --- the process ---


def test_it_ends_when_the_server_goes(start_node):
    bootstrap = start_node("process.on('exit', () => console._stdout.write('bye'));\n" + ECHO).ready()
    bootstrap.socket.close()
    assert bootstrap.exit_code() == 0
    assert bootstrap.output() == ""


@pytest.mark.parametrize(
    "harm",
    [
        "fs.closeSync(3)",
        "new (require('net').Socket)({ fd: 3 }).resume()",
        "fs.writeSync(3, 'rubbish')",
    ],
)
def test_a_handler_that_breaks_the_socket_harms_only_its_own_process(start_node, harm):
    source = "const fs = require('fs');\nexports.handler = async () => { %s; };" % harm
    bootstrap = start_node(source).ready()
    bootstrap.send(invocation({}))
    bootstrap.socket.settimeout(5)
    received = b""
    try:
        while piece := bootstrap.socket.recv(65536):
            received += piece
    except TimeoutError:
        assert received.startswith(b"rubbish")  # the server's decoder refuses this
    else:
        assert isinstance(bootstrap.exit_code(), int)


def test_a_closed_telemetry_descriptor_loses_records_only(start_node):
    source = "exports.handler = async () => { require('fs').closeSync(4); console.log('x'); return 1; };"
    assert start_node(source).ready().invoke({}).json == 1


def test_children_of_the_handler_do_not_hold_the_descriptors(start_node):
    source = returning("require('child_process').execFileSync('ls', ['-l', '/proc/self/fd']).toString()")
    listing = start_node(source).ready().invoke({}).json
    ends = [line for line in listing.splitlines() if re.search(r" [34] -> (socket|pipe):", line)]
    assert "0 -> " in listing and ends == []


@pytest.mark.parametrize("blank", [None], indirect=True)  # it would not suit
def test_a_wrapper_script_may_start_it(start_node, tmp_path):
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/bash\nexport FROM_WRAPPER=yes\nexec "$@"\n')
    wrapper.chmod(0o755)
    source = returning("process.env.FROM_WRAPPER")
    assert start_node(source, wrapper=[str(wrapper)]).ready().invoke({}).json == "yes"


def test_frames_of_an_unknown_kind_end_it(start_node):
    bootstrap = start_node(ECHO).ready()
    bootstrap.send(struct.pack("<IB", 1, 99))
    assert bootstrap.exit_code() == 1


def test_the_telemetry_variable_is_gone(start_node):
    bootstrap = start_node(returning("process.env._LAMBDA_TELEMETRY_LOG_FD ?? 'gone'")).ready()
    assert bootstrap.invoke({}).json == "gone"
