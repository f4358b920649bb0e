"""Real functions with third-party packages in their zip, as their authors would write them."""

import os
import platform
import time

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
    "cryptography": (
        ["cryptography"],
        "from cryptography.fernet import Fernet\n"
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "from cryptography.hazmat.primitives.hashes import SHA256\n"
        "def handler(event, c):\n"
        "    key = ec.generate_private_key(ec.SECP256R1())\n"
        "    signature = key.sign(event.encode(), ec.ECDSA(SHA256()))\n"
        "    key.public_key().verify(signature, event.encode(), ec.ECDSA(SHA256()))\n"
        "    box = Fernet(Fernet.generate_key())\n"
        "    return box.decrypt(box.encrypt(event.encode())).decode()\n",
        "secret",
        "secret",
    ),
    "orjson": (
        ["orjson"],
        "import orjson, datetime\ndef handler(event, c):\n"
        "    return orjson.loads(orjson.dumps({'at': datetime.date(2026, 1, 2), 'event': event}))\n",
        [1.5, "ä"],
        {"at": "2026-01-02", "event": [1.5, "ä"]},
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
    "sharp": (
        ["sharp"],
        "const sharp = require('sharp');\n"
        "exports.handler = async ({ width }) => {\n"
        "  const red = { create: { width: 640, height: 480, channels: 3, background: 'red' } };\n"
        "  const small = await sharp(await sharp(red).png().toBuffer()).resize(width).toBuffer({ resolveWithObject: true });\n"
        "  return [small.info.format, small.info.width, small.info.height];\n"
        "};\n",
        {"width": 64},
        lambda payload: payload == ["png", 64, 48],
    ),
    "built-in modules": (
        [],
        """
const { Worker } = require('worker_threads'), { execFileSync } = require('child_process');
const crypto = require('crypto'), dns = require('dns').promises, http = require('http'), zlib = require('zlib');
// (module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))
const ADD = Buffer.from('AGFzbQEAAAABBwFgAn9/AX8DAgEABwcBA2FkZAAACgkBBwAgACABags=', 'base64');
exports.handler = async ({ text }) => {
  const worker = new Worker('require("worker_threads").parentPort.postMessage(6 * 7)', { eval: true });
  const answer = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const { instance } = await WebAssembly.instantiate(ADD);
  const server = http.createServer((request, response) => response.end(request.url)).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const url = `http://127.0.0.1:${server.address().port}/path`;
  const body = await new Promise((resolve) => http.get(url, { agent: false }, (response) => {
    let all = '';
    response.on('data', (part) => { all += part; }).on('end', () => resolve(all));
  }));
  server.close();
  const zipped = await new Promise((resolve, reject) =>
    zlib.gzip(text, (error, data) => (error ? reject(error) : resolve(data))));
  return [answer, instance.exports.add(2, 3), body, zlib.gunzipSync(zipped).toString(),
    (await dns.lookup('localhost', { family: 4 })).address, execFileSync('/bin/echo', ['child']).toString(),
    crypto.createHash('sha256').update(text).digest('hex').slice(0, 8)];
};
""",
        {"text": "abc"},
        lambda payload: payload == [42, 5, "/path", "abc", "127.0.0.1", "child\n", "ba7816bf"],
    ),
}


# Each is called in Instances of both kinds: started by exec, and copied from an origin, which this tells.
PYTHON_OUTER = """
import app
COPIED = open("/proc/self/cmdline").read().endswith("origin\\0")
def handler(event, context):
    return [COPIED, app.handler(event, context)]
"""
NODE_OUTER = """
const { handler } = require('./index.js');
const copied = require('fs').readFileSync('/proc/self/cmdline', 'latin1').endsWith('origin\\0');
exports.handler = async (event, context) => [copied, await handler(event, context)];
"""


def copies(server) -> bool:
    """Whether this host copies interpreters."""
    return os.getuid() == 0 and platform.machine() == "x86_64"


def in_both_kinds(functions, name, event):
    """The answers of an Instance that was started and of one that was copied."""
    seen = {}
    for attempt in range(20):
        answer = functions.invoke(name, event)
        assert answer.error is None, answer.raw
        copied, payload = answer.payload
        seen.setdefault(copied, payload)
        if copied or not copies(functions.server):
            break
        time.sleep(0.25)
        functions.client.update_function_configuration(FunctionName=name, Description=str(attempt))
        functions.client.get_waiter("function_updated_v2").wait(FunctionName=name)
    assert True in seen or not copies(functions.server), "no Instance was copied"
    variables = {"LANG": "C.UTF-8"}  # with which a blank one does not suit
    functions.client.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
    functions.client.get_waiter("function_updated_v2").wait(FunctionName=name)
    answer = functions.invoke(name, event)
    assert answer.error is None and answer.payload[0] is False, answer.raw
    return [*seen.values(), answer.payload[1]]


def bundles(names):
    return [cache() / "workloads" / name for name in names]


@pytest.mark.parametrize("workload", PYTHON_WORKLOADS)
def test_a_python_function_with_packages_answers(functions, workload):
    names, source, event, expected = PYTHON_WORKLOADS[workload]
    content = zip_directories(*bundles(names), extra={"app.py": source, "outer.py": PYTHON_OUTER})
    name = functions.create(content, Runtime=PYTHON, Handler="outer.handler", MemorySize=512, Timeout=30)
    assert all(payload == expected for payload in in_both_kinds(functions, name, event))
    functions.client.delete_function(FunctionName=name)


def answers_on_node(functions, workload, runtime):
    """A function with these packages works on that version of Node."""
    names, source, event, holds = NODE_WORKLOADS[workload]
    content = zip_directories(*bundles(names), extra={"index.js": source, "outer.js": NODE_OUTER})
    name = functions.create(content, Runtime=runtime, Handler="outer.handler", MemorySize=512, Timeout=30)
    for payload in in_both_kinds(functions, name, event):
        assert holds(payload), payload
    functions.client.delete_function(FunctionName=name)


@pytest.mark.skipif(node_runtime() is None, reason="skipped: there is no Node from 18 on here")
@pytest.mark.parametrize("workload", NODE_WORKLOADS)
def test_a_node_function_with_packages_answers(functions, workload):
    answers_on_node(functions, workload, node_runtime())


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
