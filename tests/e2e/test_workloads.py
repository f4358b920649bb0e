"""Real functions with third-party packages in their zip, as their authors would write them."""

import pytest

from harness import PYTHON, cache, node_runtime, zip_directories

PYTHON_WORKLOADS = {
    "jinja2": (
        ["jinja2"],
        "import jinja2\ndef handler(event, c):\n"
        "    return jinja2.Template('Hello {{ name|upper }}').render(**event)\n",
        {"name": "Ada"},
        "Hello ADA",
    ),
    "pyaes": (
        ["pyaes"],
        "import pyaes\ndef handler(event, c):\n    key = bytes(range(32))\n"
        "    sealed = pyaes.AESModeOfOperationCTR(key).encrypt(event['text'])\n"
        "    return pyaes.AESModeOfOperationCTR(key).decrypt(sealed).decode()\n",
        {"text": "secret"},
        "secret",
    ),
    "pillow": (
        ["pillow"],
        "import io\nfrom PIL import Image\ndef handler(event, c):\n"
        "    out = io.BytesIO()\n    Image.new('RGB', (640, 480), 'red').save(out, 'PNG')\n"
        "    image = Image.open(io.BytesIO(out.getvalue()))\n    image.thumbnail((64, 64))\n"
        "    return [image.size, image.getpixel((1, 1))]\n",
        {},
        [[64, 48], [255, 0, 0]],
    ),
    "numpy": (
        ["numpy"],
        "import numpy\ndef handler(event, c):\n"
        "    a = numpy.arange(10000).reshape(100, 100)\n    return int((a @ a.T).trace())\n",
        {},
        333283335000,
    ),
    "pandas": (
        ["pandas"],
        "import io\nimport pandas\ndef handler(event, c):\n"
        "    frame = pandas.read_csv(io.StringIO(event['csv']))\n"
        "    return frame.groupby('k')['v'].sum().to_dict()\n",
        {"csv": "k,v\na,1\nb,2\na,3\n"},
        {"a": 4, "b": 2},
    ),
}

NODE_WORKLOADS = {
    "express": (
        ["express"],
        "const express = require('express'); const serverless = require('serverless-http');\n"
        "const app = express(); app.get('/hello/:name', (q, s) => s.json({ hello: q.params.name }));\n"
        "exports.handler = serverless(app);\n",
        {"httpMethod": "GET", "path": "/hello/Ada", "headers": {}, "requestContext": {}},
        lambda payload: (payload["statusCode"], payload["body"]) == (200, '{"hello":"Ada"}'),
    ),
    "lodash": (
        ["lodash"],
        "const _ = require('lodash'); exports.handler = async (e) => _.chunk(e, 2);\n",
        [1, 2, 3],
        lambda payload: payload == [[1, 2], [3]],
    ),
    "native addon": (
        ["addon"],
        "const { crc32 } = require('@node-rs/crc32'); exports.handler = async (e) => crc32(e);\n",
        "123456789",
        lambda payload: payload == 0xCBF43926,
    ),
}


def bundles(names):
    return [cache() / "workloads" / name for name in names]


@pytest.mark.parametrize("workload", PYTHON_WORKLOADS)
def test_a_python_function_with_packages_answers(functions, workload):
    names, source, event, expected = PYTHON_WORKLOADS[workload]
    content = zip_directories(*bundles(names), extra={"app.py": source})
    name = functions.create(content, Runtime=PYTHON, MemorySize=512, Timeout=30)
    answer = functions.invoke(name, event)
    assert answer.error is None, answer.raw
    assert answer.payload == expected


@pytest.mark.skipif(node_runtime() is None, reason="skipped: there is no Node from 18 on here")
@pytest.mark.parametrize("workload", NODE_WORKLOADS)
def test_a_node_function_with_packages_answers(functions, workload):
    names, source, event, holds = NODE_WORKLOADS[workload]
    content = zip_directories(*bundles(names), extra={"index.js": source})
    name = functions.create(
        content, Runtime=node_runtime(), Handler="index.handler", MemorySize=512, Timeout=30
    )
    answer = functions.invoke(name, event)
    assert answer.error is None, answer.raw
    assert holds(answer.payload), answer.raw


def test_boto3_inside_a_function_invokes_another_function(functions):
    callee = functions.python("def handler(event, c): return event['n'] * 2")
    caller = functions.create(
        zip_directories(
            *bundles(["boto3"]),
            extra={
                "app.py": "import json, boto3\ndef handler(event, c):\n"
                "    client = boto3.client('lambda')\n"
                "    answer = client.invoke(FunctionName=event['callee'], Payload=json.dumps(event))\n"
                "    who = boto3.client('sts').get_caller_identity()['Arn']\n"
                "    return [json.load(answer['Payload']), who]\n"
            },
        ),
        MemorySize=512,
        Timeout=30,
    )
    answer = functions.invoke(caller, {"callee": callee, "n": 21})
    assert answer.error is None, answer.raw
    doubled, identity = answer.payload
    assert doubled == 42
    assert identity == f"arn:aws:sts::000000000000:assumed-role/lambda/{caller}"
