"""Node functions: the handler styles, module systems and context that Lambda offers."""

import pytest

from harness import node_runtime, zip_of

pytestmark = pytest.mark.skipif(node_runtime() is None, reason="skipped: there is no Node from 18 on here")

SEED = """exports.handler = async (event) => { let responseMessage = "Hello, " + event.name; \
return { statusCode: 200, body: JSON.stringify({ message: responseMessage }) }; };"""


def test_the_seed_example_answers_as_written(functions):
    answer = functions.invoke(functions.node(SEED), {"name": "Ada"})
    assert answer.payload == {"statusCode": 200, "body": '{"message":"Hello, Ada"}'}


@pytest.mark.parametrize(
    ("files", "handler", "expected"),
    [
        ({"index.js": "exports.handler = (event, context, callback) => callback(null, 'callback');"},
         "index.handler", "callback"),
        ({"index.mjs": "export const handler = async () => 'module';"}, "index.handler", "module"),
        ({"index.js": "const x = await Promise.resolve('top'); export const handler = async () => x;",
          "package.json": '{"type": "module"}'}, "index.handler", "top"),
        ({"src/app.js": "exports.deep = { handler: async () => 'nested' };"}, "src/app.deep.handler", "nested"),
        ({"index.cjs": "exports.handler = async () => 'cjs';"}, "index.handler", "cjs"),
        ({"index.js": "exports.handler = async () => {};"}, "index.handler", None),
        ({"index.js": "exports.handler = (e, c, done) => { setInterval(() => {}, 1000);"
                      " c.callbackWaitsForEmptyEventLoop = false; done(null, 'early'); };"},
         "index.handler", "early"),
        ({"index.js": "exports.handler = (e, c, done) => { done(null, 'late');"
                      " setTimeout(() => {}, 200); };"}, "index.handler", "late"),
    ],
)  # fmt: skip
def test_each_style_of_handler_answers(functions, files, handler, expected):
    name = functions.create(zip_of(files), Runtime=node_runtime(), Handler=handler)
    answer = functions.invoke(name, {})
    assert answer.error is None, answer.raw
    assert answer.payload == expected


def test_the_context_has_what_lambda_documents(functions):
    name = functions.node(
        "exports.handler = async (event, context) => ({ ...context,"
        " left: context.getRemainingTimeInMillis() });",
        MemorySize=256,
    )
    answer = functions.invoke(name, {})
    context = answer.payload
    assert context["functionName"] == name
    assert context["functionVersion"] == "$LATEST"
    assert context["memoryLimitInMB"] == "256"
    assert context["awsRequestId"] == answer.request_id
    assert context["invokedFunctionArn"].endswith(f":function:{name}")
    assert context["logGroupName"] == f"/aws/lambda/{name}"
    assert 0 < context["left"] <= 10_000


def test_console_lines_carry_time_request_and_level(functions):
    name = functions.node(
        "exports.handler = async () => { console.log('one\\ntwo'); console.error('bad'); return 1; };"
    )
    answer = functions.invoke(name, {}, LogType="Tail")
    assert f"\t{answer.request_id}\tINFO\tone" in answer.log
    assert f"\t{answer.request_id}\tERROR\tbad" in answer.log


def test_the_environment_is_reused_while_warm(functions):
    name = functions.node("let n = 0; exports.handler = async () => ++n;")
    assert [functions.invoke(name, {}).payload for _ in range(3)] == [1, 2, 3]
