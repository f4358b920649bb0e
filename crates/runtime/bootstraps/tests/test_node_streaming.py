"""What a handler that streams its response, and its caller, observe of the Node bootstrap."""

import pytest
from driver import invocation


def streaming(body, options=""):
    """A handler that streams; `out` is the stream."""
    return "exports.handler = awslambda.streamifyResponse(async (event, out, context) => {%s}%s);\n" % (body, options)


class Response:
    """A streamed response, read to its end."""

    def __init__(self, bootstrap, event=None):
        bootstrap.send(invocation({} if event is None else event))
        first = bootstrap.frame()
        assert first.kind == "stream", first
        self.content_type = first.body.decode()
        self.pieces = []
        while (frame := bootstrap.frame()).kind == "piece":
            self.pieces.append(frame.body)
        self.last = frame

    @property
    def body(self):
        return b"".join(self.pieces)


def test_what_is_written_goes_out_in_order_and_ends(start_node):
    source = streaming("out.write('a'); out.write(Buffer.from('b')); out.write({ c: 1 }); out.end('d');")
    bootstrap = start_node(source).ready()
    for _ in range(3):
        response = Response(bootstrap)
        assert (response.body, response.last.kind) == (b'ab{"c":1}d', "end")
        assert response.content_type == "application/octet-stream"


def test_a_piece_goes_out_before_the_handler_goes_on(start_node):
    source = streaming("out.write('first'); while (!require('fs').existsSync(event)) await new Promise((r) => setTimeout(r, 5)); out.end('last');")
    bootstrap = start_node(source).ready()
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        mark = os.path.join(directory, "go")
        bootstrap.send(invocation(mark))
        assert bootstrap.frame().kind == "stream"
        assert bootstrap.frame().body == b"first"
        open(mark, "w").close()
        assert [bootstrap.frame().body, bootstrap.frame().kind] == [b"last", "end"]


def test_large_writes_are_cut_into_pieces(start_node):
    response = Response(start_node(streaming("out.end(Buffer.alloc(1000000, 120));")).ready())
    assert response.body == b"x" * 1_000_000
    assert max(map(len, response.pieces)) == 65536


def test_a_stream_that_is_not_read_stops_the_writer_but_no_timer(start_node):
    source = streaming(
        """
    let ticks = 0;
    const timer = setInterval(() => { if (++ticks === 20) console.log('ticked'); }, 5);
    const block = Buffer.alloc(65536, 120);
    let written = 0;
    while (written < 300) {
      if (!out.write(block)) await new Promise((resolve) => out.once('drain', resolve));
      written++;
      if (ticks < 20) console.log(`written ${written}`);
    }
    clearInterval(timer);
    out.end();
"""
    )
    bootstrap = start_node(source).ready()
    bootstrap.send(invocation({}))
    assert bootstrap.frame().kind == "stream"
    for _ in range(200):
        records = bootstrap.records(1)
        if any("ticked" in record.message for record in records):
            break
        import time

        time.sleep(0.1)
    assert any("ticked" in record.message for record in records), "the event loop stood still"
    assert not any("written 20\n" in record.message for record in records), "nobody took so much"
    size = 0
    while (frame := bootstrap.frame()).kind == "piece":
        size += len(frame.body)
    assert (size, frame.kind) == (300 * 65536, "end")


def test_an_http_response_stream_begins_with_its_prelude(start_node):
    source = streaming(
        """
    out = awslambda.HttpResponseStream.from(out, { statusCode: 201, headers: { a: 'b' } });
    out.write('body'); out.end();
"""
    )
    response = Response(start_node(source).ready())
    assert response.content_type == "application/vnd.awslambda.http-integration-response"
    assert response.body == b'{"statusCode":201,"headers":{"a":"b"}}' + bytes(8) + b"body"


def test_a_pipeline_streams_and_sets_the_type(start_node):
    source = """
const { pipeline } = require('stream/promises'), { Readable } = require('stream'), zlib = require('zlib');
exports.handler = awslambda.streamifyResponse(async (event, out) => {
  out.setContentType('application/gzip');
  await pipeline(Readable.from(['some ', 'text']), zlib.createGzip(), out);
});
"""
    import gzip

    response = Response(start_node(source).ready())
    assert (response.content_type, gzip.decompress(response.body)) == ("application/gzip", b"some text")


def test_the_type_cannot_change_once_it_is_sent(start_node):
    source = streaming("out.write('x'); await new Promise((r) => setTimeout(r, 20)); out.setContentType('a/b');")
    response = Response(start_node(source).ready())
    assert response.last.error_type == "Runtime.InvalidStreamingOperation"


@pytest.mark.parametrize(
    ("body", "pieces", "error_type", "message"),
    [
        ("throw new RangeError('at once');", b"", "RangeError", "at once"),
        ("out.write('half'); await new Promise((r) => setTimeout(r, 20)); throw new TypeError('midway');",
         b"half", "TypeError", "midway"),
        ("out.write('half');", b"half", "string", "Response stream is not finished."),
        ("out.destroy();", b"", "string", "Response stream is not finished."),
    ],
    ids=["at-once", "midway", "never-ended", "destroyed"],
)  # fmt: skip
def test_a_failure_ends_the_response_and_the_next_one_works(start_node, body, pieces, error_type, message):
    bootstrap = start_node(streaming("if (event === 1) { out.end('fine'); return; } " + body)).ready()
    response = Response(bootstrap)
    assert (response.body, response.last.kind, response.last.error_type) == (pieces, "error", error_type)
    assert response.last.json["errorMessage"] == message
    again = Response(bootstrap, 1)
    assert (again.body, again.last.kind) == (b"fine", "end")


def test_a_handler_that_is_not_async_is_refused(start_node):
    source = "exports.handler = awslambda.streamifyResponse((event, out) => { out.end('x'); });"
    response = Response(start_node(source).ready())
    assert response.last.json["errorMessage"] == "Streaming does not support non-async handlers."


def test_a_broken_event_is_an_error(start_node):
    assert Response(start_node(streaming("out.end();")).ready(), b"{").last.error_type == "SyntaxError"


def test_an_uncaught_error_midway_answers_and_ends_the_process(start_node):
    source = streaming(
        "setTimeout(() => { throw new Error('loose'); }, 20); out.write(Buffer.alloc(3000000)); await new Promise(() => {});"
    )
    bootstrap = start_node(source).ready()
    response = Response(bootstrap)
    assert (response.last.kind, response.last.json["errorMessage"]) == ("error", "loose")
    assert bootstrap.exit_code() == 129


def test_the_invocation_lasts_until_the_loop_is_empty_unless_told_otherwise(start_node):
    source = streaming(
        """
    context.callbackWaitsForEmptyEventLoop = event.waits;
    setTimeout(() => console.log('late'), 1000);
    out.end('x');
"""
    )
    bootstrap = start_node(source).ready()
    assert Response(bootstrap, {"waits": True}).last.kind == "end"
    assert ["late" in record.message for record in bootstrap.records(1)] == [True]
    assert Response(bootstrap, {"waits": False}).last.kind == "end"
    assert len(bootstrap.records(1)) == 1


def test_the_context_has_no_callbacks(start_node):
    source = streaming("out.end(JSON.stringify([Object.keys(context), context.getRemainingTimeInMillis() > 0]));")
    import json

    keys, has_time = json.loads(Response(start_node(source).ready()).body)
    assert has_time and "awsRequestId" in keys and "callbackWaitsForEmptyEventLoop" in keys
    assert not {"succeed", "fail", "done"} & set(keys)


def test_a_returned_value_is_ignored_with_a_warning(start_node):
    bootstrap = start_node(streaming("out.end('x'); return 5;")).ready()
    assert Response(bootstrap).body == b"x"
    assert "Streaming handlers ignore return values." in bootstrap.records(1)[0].message


def test_the_mark_decides_and_other_marks_are_refused(start_node):
    mark = "Symbol.for('aws.lambda.runtime.handler.streaming')"
    marked = "exports.handler = async (event, out) => { out.end('x'); }; exports.handler[%s] = '%s';\n"
    assert Response(start_node(marked % (mark, "response")).ready()).body == b"x"
    refused = start_node(marked % (mark, "request")).frame()
    assert (refused.kind, refused.error_type) == ("init_error", "Runtime.MalformedStreamingHandler")


def test_the_global_can_be_left_out(start_node):
    source = "exports.handler = async () => typeof awslambda;"
    assert start_node(source).ready().invoke({}).json == "object"
    hidden = start_node(source, env={"AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA": "1"})
    assert hidden.ready().invoke({}).json == "undefined"


def test_es_modules_stream(start_node):
    source = {"index.mjs": "export const handler = awslambda.streamifyResponse(async (e, out) => { out.end('m'); });"}
    assert Response(start_node(source).ready()).body == b"m"
