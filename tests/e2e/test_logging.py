"""LoggingConfig through boto3: the forms of a log, its levels, its group, and what is refused."""

import json

import botocore.exceptions
import pytest

from harness import logs, node_runtime, zip_of

PYTHON_SPEAKS = """
import logging, os, sys

def handler(event, context):
    log = logging.getLogger()
    if event.get("all"):
        log.setLevel(logging.DEBUG)
    log.debug("a debug")
    log.info("an info")
    log.warning("a warning")
    print("plain")
    print('{"level": "debug", "timestamp": "2026-11-02T16:51:31.587Z", "message": "printed debug"}')
    print('{"level": "error", "timestamp": "2026-11-02T16:51:31.587Z", "message": "printed error"}')
    sys.stdout.flush()
    if event.get("fail"):
        raise ValueError("on purpose")
    names = ["AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL", "AWS_LAMBDA_LOG_GROUP_NAME"]
    return {**{name: os.environ.get(name) for name in names}, "group": context.log_group_name,
            "stream": context.log_stream_name}
"""

NODE_SPEAKS = """
exports.handler = async (event) => {
  console.debug('a debug'); console.info('an info'); console.warn('a warning');
  if (event.fail) throw new RangeError('on purpose');
  return { format: process.env.AWS_LAMBDA_LOG_FORMAT, level: process.env.AWS_LAMBDA_LOG_LEVEL };
};
"""

DIES = "import os\ndef handler(event, context): os._exit(3)"


def configure(functions, name: str, **config) -> dict:
    answer = functions.client.update_function_configuration(FunctionName=name, LoggingConfig=config)
    functions.client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})
    return answer["LoggingConfig"]


def tail(functions, name: str, event: dict) -> list[str]:
    """What one invocation logged, record by record."""
    return functions.invoke(name, event, LogType="Tail").log.splitlines()


def records(lines: list[str]) -> list[dict]:
    return [json.loads(line) for line in lines if line.startswith("{")]


def messages(lines: list[str]) -> list[str]:
    """What the function's records say, an unhandled exception's included."""
    said = [record for record in records(lines) if "level" in record]
    return sorted(record.get("message") or record["errorMessage"] for record in said)


def types(lines: list[str]) -> list[str]:
    return [record["type"].removeprefix("platform.") for record in records(lines) if "type" in record]


def test_a_text_log_is_what_there_is_without_a_word(functions):
    name = functions.python(PYTHON_SPEAKS)
    shown = functions.client.get_function_configuration(FunctionName=name)["LoggingConfig"]
    assert shown == {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"}
    answer = functions.invoke(name, {"all": True}, LogType="Tail")
    assert answer.payload["AWS_LAMBDA_LOG_FORMAT"] is None
    assert answer.payload["AWS_LAMBDA_LOG_LEVEL"] is None
    lines = answer.log.splitlines()
    assert lines[0].startswith("START RequestId: ") and lines[-1].startswith("REPORT RequestId: ")
    assert [word in answer.log for word in ("a debug", "an info", "printed debug", "plain")] == [True] * 4


def test_a_json_log_of_python(functions):
    name = functions.python(PYTHON_SPEAKS, LoggingConfig={"LogFormat": "JSON"})
    shown = functions.client.get_function(FunctionName=name)["Configuration"]["LoggingConfig"]
    group = f"/aws/lambda/{name}"
    assert shown == {
        "LogFormat": "JSON", "ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO", "LogGroup": group,
    }  # fmt: skip
    answer = functions.invoke(name, {}, LogType="Tail")
    assert answer.payload["AWS_LAMBDA_LOG_FORMAT"] == "JSON"
    assert answer.payload["AWS_LAMBDA_LOG_LEVEL"] == "INFO"
    assert answer.payload["AWS_LAMBDA_LOG_GROUP_NAME"] == answer.payload["group"] == group
    lines = answer.log.splitlines()
    assert types(lines) == ["start", "report"]
    assert messages(lines) == ["a warning", "an info", "printed error"]
    assert [line for line in lines if not line.startswith("{")] == ["plain"]
    [said] = [record for record in records(lines) if record.get("message") == "an info"]
    assert said["level"] == "INFO" and said["requestId"] == answer.request_id
    start, report = (record for record in records(lines) if "type" in record)
    assert start["record"] == {"requestId": answer.request_id, "version": "$LATEST"}
    assert report["record"]["requestId"] == answer.request_id and report["record"]["status"] == "success"
    metrics = report["record"]["metrics"]
    assert metrics["memorySizeMB"] == 128 and 0 < metrics["maxMemoryUsedMB"] <= 128
    assert metrics["billedDurationMs"] >= metrics["durationMs"] > 0 and metrics["initDurationMs"] > 0
    whole = logs(functions.server, name)
    assert types(whole) == ["initStart", "start", "report"]
    # The platform keeps to the level even if the function does not.
    assert messages(tail(functions, name, {"all": True})) == ["a warning", "an info", "printed error"]


@pytest.mark.skipif(node_runtime() is None, reason="no node on PATH")
def test_a_json_log_of_node(functions):
    name = functions.node(NODE_SPEAKS, LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "WARN"})
    answer = functions.invoke(name, {}, LogType="Tail")
    assert answer.payload == {"format": "JSON", "level": "WARN"}
    assert messages(answer.log.splitlines()) == ["a warning"]
    configure(functions, name, ApplicationLogLevel="TRACE", SystemLogLevel="WARN")
    answer = functions.invoke(name, {"fail": True}, LogType="Tail")
    said = records(answer.log.splitlines())
    assert [record["level"] for record in said] == ["DEBUG", "INFO", "WARN", "ERROR"]
    assert said[-1]["message"]["errorType"] == "RangeError" and said[-1]["requestId"] == answer.request_id
    configure(functions, name, LogFormat="Text")
    answer = functions.invoke(name, {}, LogType="Tail")
    assert answer.payload == {} and "\tDEBUG\ta debug" in answer.log and "REPORT RequestId" in answer.log


def test_levels_filter_the_function_and_the_platform_apart(functions):
    name = functions.python(PYTHON_SPEAKS, LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "DEBUG"})
    functions.invoke(name, {})
    whole = logs(functions.server, name)
    assert types(whole) == ["initStart", "initRuntimeDone", "initReport", "start", "runtimeDone", "report"]
    assert records(whole)[2]["record"]["metrics"]["durationMs"] > 0
    configure(functions, name, ApplicationLogLevel="DEBUG", SystemLogLevel="WARN")
    lines = tail(functions, name, {})
    assert types(lines) == []
    assert messages(lines) == ["a debug", "a warning", "an info", "printed debug", "printed error"]
    configure(functions, name, ApplicationLogLevel="FATAL")
    assert tail(functions, name, {}) == ["plain"]
    configure(functions, name, ApplicationLogLevel="ERROR")
    assert messages(tail(functions, name, {"fail": True})) == ["on purpose", "printed error"]


def test_a_failure_is_told_at_every_system_level(functions):
    config = {"LogFormat": "JSON", "SystemLogLevel": "WARN"}
    name = functions.python(DIES, LoggingConfig=config)
    answer = functions.invoke(name, {}, LogType="Tail")
    assert answer.payload["errorType"] == "Runtime.ExitError"
    lines = answer.log.splitlines()
    assert types(lines) == ["runtimeDone", "report"]
    failed = ("error", "Runtime.ExitError")
    assert [(it["record"]["status"], it["record"]["errorType"]) for it in records(lines)] == [failed] * 2
    name = functions.python("import time\ndef handler(e, c): time.sleep(9)", LoggingConfig=config, Timeout=1)
    lines = tail(functions, name, {})
    assert [it["record"]["status"] for it in records(lines)] == ["timeout", "timeout"]


def test_a_log_group_of_another_name_is_kept_and_shown(functions):
    name = functions.python(PYTHON_SPEAKS, LoggingConfig={"LogGroup": "/shared/by.all"})
    assert configure(functions, name, LogFormat="Text")["LogGroup"] == "/shared/by.all"
    answer = functions.invoke(name, {})
    assert answer.payload["AWS_LAMBDA_LOG_GROUP_NAME"] == answer.payload["group"] == "/shared/by.all"
    assert f"/{name}[$LATEST]" in answer.payload["stream"]
    assert any("a warning" in line for line in logs(functions.server, name))
    listed = functions.client.get_paginator("list_functions").paginate().search("Functions[]")
    [shown] = [entry["LoggingConfig"] for entry in listed if entry["FunctionName"] == name]
    assert shown == {"LogFormat": "Text", "LogGroup": "/shared/by.all"}


def test_a_version_keeps_the_log_it_was_published_with(functions):
    name = functions.python(PYTHON_SPEAKS, LoggingConfig={"LogFormat": "JSON"})
    published = functions.client.publish_version(FunctionName=name)
    assert published["LoggingConfig"]["LogFormat"] == "JSON"
    configure(functions, name, LogFormat="Text")
    assert types(functions.invoke(name, {}, LogType="Tail", Qualifier="1").log.splitlines()) == ["start", "report"]
    assert functions.client.publish_version(FunctionName=name)["Version"] == "2"


def test_what_does_not_go_together_is_refused(functions):
    name = functions.python(PYTHON_SPEAKS)
    client = functions.client

    def refusal(**config) -> tuple[str, str]:
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            client.update_function_configuration(FunctionName=name, LoggingConfig=config)
        return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]

    text = 'LogLevel is not supported when LogFormat is set to "Text".'
    for config in ({"SystemLogLevel": "INFO"}, {"LogFormat": "Text", "ApplicationLogLevel": "INFO"}):
        code, message = refusal(**config)
        assert code == "InvalidParameterValueException" and message.startswith(text)
        with pytest.raises(client.exceptions.InvalidParameterValueException, match="LogLevel is not supported"):
            functions.create(zip_of({"app.py": DIES}), LoggingConfig=config)
    for path, config in (
        ("logFormat", {"LogFormat": "json"}),
        ("applicationLogLevel", {"LogFormat": "JSON", "ApplicationLogLevel": "LOUD"}),
        ("systemLogLevel", {"LogFormat": "JSON", "SystemLogLevel": "FATAL"}),
        ("logGroup", {"LogGroup": "with space"}),
        ("logGroup", {"LogGroup": "g" * 513}),
    ):
        code, message = refusal(**config)
        assert code == "ValidationException" and f"'loggingConfig.{path}'" in message, message
    shown = client.get_function_configuration(FunctionName=name)["LoggingConfig"]
    assert shown == {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"}
