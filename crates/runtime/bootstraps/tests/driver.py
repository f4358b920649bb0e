"""Speaks the server's side of the frames to a bootstrap in a plain process.

No sandbox: what is tested here is the bootstraps alone. Everything has a bound in time.
"""

import json
import os
import socket
import struct
import subprocess
import threading
import time

BOOTSTRAPS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REQUEST_ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
ARN = "arn:aws:lambda:us-east-1:123456789012:function:hello"
KINDS = {1: "ready", 2: "init_error", 3: "response", 4: "error", 5: "stream", 6: "piece", 7: "end"}
WAIT = 20.0


class Frame:
    """What the bootstrap said."""

    def __init__(self, kind, body):
        self.kind = KINDS[kind]
        self.error_type = None
        if kind in (2, 4):
            length = struct.unpack_from("<I", body)[0]
            self.error_type = body[4 : 4 + length].decode()
            body = body[4 + length :]
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "Frame(%s, %s, %r)" % (self.kind, self.error_type, self.body[:500])


class Record:
    """One framed log record."""

    def __init__(self, kind, micros, message):
        self.kind, self.micros, self.message = kind, micros, message.decode()

    def __repr__(self):
        return "Record(%#x, %r)" % (self.kind, self.message)


class Bootstrap:
    """One running bootstrap with pipes for its log and its output. With `blank` as its argument it gets its
    function, which is to say its environment, when it has started. An `origin` is told before that that it
    was forked; a `copy` is one that is told at once for which function."""

    def __init__(self, argv, task_root, handler, env=None, telemetry=True, blank=None):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(WAIT)
        telemetry_out, telemetry_in = os.pipe()
        output_out, output_in = os.pipe()
        self._telemetry, self._output = _Drain(telemetry_out), _Drain(output_out)
        environment = {
            "PATH": os.environ["PATH"],
            "TZ": ":UTC",
            "LANG": "en_US.UTF-8",
            "LAMBDA_TASK_ROOT": str(task_root),
            "_HANDLER": handler,
            "AWS_LAMBDA_FUNCTION_NAME": "hello",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/hello",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]00",
            **({"_LAMBDA_TELEMETRY_LOG_FD": "4"} if telemetry else {}),
            **(env or {}),
        }
        first = environment
        if blank:
            argv = [*argv, "origin" if blank == "copy" else blank]
            first = {name: environment[name] for name in ("PATH", "TZ", "LANG")}
        # A shell moves the descriptors to their numbers, wherever they are in this process.
        numbers = (theirs.fileno(), telemetry_in, output_in)
        for number in numbers:
            os.set_inheritable(number, True)
        script = 'exec "$@" 3<&%d- 4>&%d- 1>&%d- 2>&1' % numbers
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *argv],
            cwd="/" if blank else str(task_root),
            env=first,
            stdin=subprocess.DEVNULL,
            pass_fds=numbers,
        )
        theirs.close()
        os.close(telemetry_in)
        os.close(output_in)
        if blank == "origin":
            self.ready()
            self.send(becoming({}, kind=b"\3"))
        if blank:
            self.ready()
            self.send(becoming(environment, kind=b"\3" if blank == "copy" else b"\2"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self._telemetry.close()
        self._output.close()

    # --- frames ---

    def send(self, data):
        self.socket.sendall(data)

    def frame(self):
        """The next frame; fails when the bootstrap ends instead."""
        head = self._exactly(4)
        body = self._exactly(struct.unpack("<I", head)[0])
        return Frame(body[0], body[1:])

    def _exactly(self, size):
        data = bytearray()
        while len(data) < size:
            piece = self.socket.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise EOFError("the bootstrap ended: " + self.output())
            data += piece
        return bytes(data)

    def ready(self):
        frame = self.frame()
        assert frame.kind == "ready", frame
        return self

    def invoke(self, event=b"", deadline_ms=None, **strings):
        """One invocation with JSON or with bytes; gives the answer."""
        self.send(invocation(event, deadline_ms, **strings))
        return self.frame()

    def exit_code(self):
        return self.process.wait(WAIT)

    # --- logs ---

    def output(self, containing=""):
        """What has been printed, once it contains this."""
        return self._output.wait(lambda data: containing.encode() in data).decode()

    def records(self, count=1):
        """The framed records, once there are so many."""
        data = self._telemetry.wait(lambda data: len(split_records(data)) >= count)
        return split_records(data)

    def telemetry_bytes(self):
        return bytes(self._telemetry.data)


class _Drain:
    """Reads a pipe to its end on a thread, so that nobody blocks on writing."""

    def __init__(self, fd):
        self.fd, self.data, self.changed = fd, bytearray(), threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            piece = os.read(self.fd, 65536)
            with self.changed:
                self.data += piece
                self.changed.notify_all()
            if not piece:
                return

    def wait(self, enough):
        with self.changed:
            self.changed.wait_for(lambda: enough(bytes(self.data)), 5)
            return bytes(self.data)

    def close(self):
        self.thread.join(1)
        if not self.thread.is_alive():
            os.close(self.fd)


def invocation(event=b"", deadline_ms=None, **strings):
    """The bytes of an INVOKE frame."""
    payload = event if isinstance(event, bytes) else json.dumps(event).encode()
    if deadline_ms is None:
        deadline_ms = int(time.time() * 1000) + 3000
    values = {"request_id": REQUEST_ID, "arn": ARN, **strings}
    names = ("request_id", "arn", "trace_id", "client_context", "identity", "tenant_id")
    text = "\0".join(values.get(name, "") for name in names).encode()
    body = struct.pack("<BQI", 1, deadline_ms, len(text)) + text
    return struct.pack("<I", len(body) + len(payload)) + body + payload


def becoming(environment, kind=b"\2"):
    """The bytes of a BECOME frame, or of another with an environment."""
    body = kind + "\0".join("%s=%s" % pair for pair in environment.items()).encode()
    return struct.pack("<I", len(body)) + body


def split_records(data):
    records = []
    while len(data) >= 16:
        kind, length, micros = struct.unpack_from(">IIQ", data)
        if len(data) < 16 + length:
            break
        records.append(Record(kind, micros, data[16 : 16 + length]))
        data = data[16 + length :]
    return records


def write_files(root, files):
    """Writes `{path: text}` under a directory."""
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return root
