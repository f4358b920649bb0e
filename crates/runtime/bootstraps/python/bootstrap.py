"""Runs the handler of one Lambda function under CPython 3.9 or later.

Started as `python3.X -I -S -B /var/runtime/bootstrap.py` with the socket to the server as file
descriptor 3. With the argument `blank` it first waits for a function; with `origin` it stands before
that, and goes on in copies of itself. As a snapshot (SnapStart) it stands after its init phase. It loads the handler that `_HANDLER` names, says so, and then answers one invocation
after another until the socket ends. What a handler can observe (search path, context object, error
documents, log format, JSON) is as Lambda's own runtime has it; the yardstick is `awslambdaric`.

It never talks to a network, never needs anything but the standard library, and never runs two
invocations at a time. Modules that start slowly (json, logging, traceback) are only loaded when
they are needed: most of a cold start is the import of modules.

The frames on the socket, and why things are as they are: docs/design/003-bootstraps.md.
"""

import _json
import builtins
import marshal
import os
import sys
import time

SOCKET = 3
INVOKE, BECOME, RESTORE = 1, 2, 3
READY, INIT_ERROR, RESPONSE, ERROR = 1, 2, 3, 4
MOST_IN_A_FRAME = 0xFFFF0000


class Fault(Exception):
    """A failure that Lambda has a name for."""

    def __init__(self, error_type, message, trace=()):
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.trace = list(trace)


# --- The search path -----------------------------------------------------------------------------

STANDARD_LIBRARY = list(sys.path)

# Lambda's runtime has loaded these before any code of the function, so a file of the same name in
# the function's package does not replace them there.
PLATFORM_FIRST = frozenset(
    """
    _collections_abc _colorize _compression _datetime _decimal _json _pydatetime _pydecimal _strptime
    _weakrefset abc ast base64 binascii bisect calendar codecs collections contextlib copyreg
    datetime decimal email encodings enum functools genericpath heapq http importlib io ipaddress
    json keyword linecache locale logging math numbers opcode operator os posixpath quopri random re
    reprlib select selectors socket sre_compile sre_constants sre_parse ssl stat string struct
    textwrap threading token tokenize traceback types urllib warnings weakref
    """.split()
)


class PlatformFirst:
    """Finds the modules above in the standard library, and sets up `logging` when it is loaded."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is not None or name not in PLATFORM_FIRST:
            return None
        spec = sys.modules["_frozen_importlib_external"].PathFinder.find_spec(name, STANDARD_LIBRARY)
        if name == "logging" and spec is not None:
            load = spec.loader.exec_module

            def load_and_set_up(module):
                load(module)
                set_up_logging(module)

            spec.loader.exec_module = load_and_set_up
        return spec


def set_up_search_path():
    set_search_path()
    if "logging" in sys.modules:
        set_up_logging(sys.modules["logging"])


def set_search_path():
    version = "python%d.%d" % sys.version_info[:2]
    own = [os.environ.get("PYTHONPATH", ""), "/var/runtime"]
    wanted = [
        os.environ.get("LAMBDA_TASK_ROOT", "/var/task"),
        "/opt/python/lib/" + version + "/site-packages",
        "/opt/python",
        *":".join(own).split(":"),
        *STANDARD_LIBRARY,
    ]
    sys.path[:] = dict.fromkeys(entry for entry in wanted if entry)
    sys.meta_path.insert(0, PlatformFirst)


def add_site_builtins():
    """What `site` would have added, had it been allowed to look at the host's packages."""
    import _sitebuiltins

    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    builtins.help = _sitebuiltins._Helper()


# --- JSON ----------------------------------------------------------------------------------------
# Lambda's client encodes with simplejson, which differs from json in three ways: a Decimal is
# written digit by digit, a named tuple becomes an object, and bytes become text.


def wants_ascii():
    """Lambda escapes what is not ASCII up to Python 3.11."""
    minor = os.environ.get("AWS_EXECUTION_ENV", "").partition("python3.")[2]
    return (int(minor) if minor.isdecimal() else sys.version_info[1]) < 12


class Scanner:
    """The settings of the C decoder behind `json.loads`."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {
        "NaN": float("nan"),
        "Infinity": float("inf"),
        "-Infinity": float("-inf"),
    }.__getitem__


decode_at = _json.make_scanner(Scanner)


def json_decoded(payload):
    try:
        text = str(payload, "utf-8").strip(" \t\r\n")
        value, end = decode_at(text, 0)
        if end == len(text):
            return value
    except (StopIteration, ValueError):
        pass
    import json

    return json.loads(bytes(payload))  # for the words of its error


def json_default(value):
    if type(value) is bytes:
        return str(value, "utf-8")
    raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)


containers_above = {}


def json_encoded(value):
    try:
        # Only exact built-in types can be marshalled. They are what the C encoder treats as
        # simplejson does.
        marshal.dumps(value, 2)
        return "".join(encode_exact(value, 0))
    except (TypeError, ValueError):
        containers_above.clear()
        pieces = []
        write_json(value, pieces.append, set())
        return "".join(pieces)


def write_json(value, write, above):
    """The same in Python, for any type."""
    if value is None or value is True or value is False:
        write("null" if value is None else "true" if value else "false")
    elif isinstance(value, str):
        write(quoted(value))
    elif isinstance(value, bytes):
        write(quoted(str(value, "utf-8")))
    elif isinstance(value, int):
        write(int.__repr__(value))
    elif isinstance(value, float):
        write(json_float(value))
    else:
        if id(value) in above:
            raise ValueError("Circular reference detected")
        above.add(id(value))
        write_json_compound(value, write, above)
        above.discard(id(value))


def write_json_compound(value, write, above):
    as_dict = getattr(value, "_asdict", None)
    if isinstance(value, dict) or (callable(as_dict) and not isinstance(value, list)):
        separator = "{"
        for key, item in (value if isinstance(value, dict) else as_dict()).items():
            write(separator + json_key(key) + ": ")
            write_json(item, write, above)
            separator = ", "
        write("{}" if separator == "{" else "}")
    elif isinstance(value, (list, tuple)):
        separator = "["
        for item in value:
            write(separator)
            write_json(item, write, above)
            separator = ", "
        write("[]" if separator == "[" else "]")
    elif "decimal" in sys.modules and isinstance(value, sys.modules["decimal"].Decimal):
        write("NaN" if value.is_nan() else str(value))
    else:
        json_default(value)


def json_key(key):
    if isinstance(key, bytes):
        key = str(key, "utf-8")
    if isinstance(key, str):
        return quoted(key)
    if key is None or isinstance(key, bool):
        return '"null"' if key is None else '"true"' if key else '"false"'
    if isinstance(key, int):
        return '"' + int.__repr__(key) + '"'
    if isinstance(key, float):
        return '"' + json_float(key) + '"'
    raise TypeError("keys must be str, int, float, bool or None, not " + type(key).__name__)


def json_float(value):
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return float.__repr__(value)


# --- Logs ----------------------------------------------------------------------------------------

# Types of framed records by Python's level; JSON records have one less.
TEXT_RECORD = 0xA55A0003
LEVEL_RECORD = {0: 0, 10: 8, 20: 12, 30: 16, 40: 20, 50: 24}
NO_BREAK_SPACE = "\u00a0"

current_request_id = None
current_tenant_id = None


class FramedLog:
    """Writes records that stay whole: u32 type, u32 length, u64 microseconds, message."""

    def __init__(self, fd):
        self.fd = fd

    def log(self, message, level=0, is_json=False):
        message = message.encode("utf-8", "backslashreplace")
        kind = TEXT_RECORD + LEVEL_RECORD.get(level, 0) - is_json
        head = kind.to_bytes(4, "big") + len(message).to_bytes(4, "big")
        data = memoryview(head + (time.time_ns() // 1000).to_bytes(8, "big") + message)
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError:
            pass  # the handler has closed it: its records are lost, its invocations are not

    def log_error(self, lines):
        self.log("\n".join(lines), 40, LOG_IS_JSON)


class PlainLog:
    """Writes records to the standard output when there is nothing better."""

    def log(self, message, level=0, is_json=False):
        sys.stdout.write(message)

    def log_error(self, lines):
        sys.stdout.write("\r".join(lines) + "\n")


def open_log():
    number = os.environ.pop("_LAMBDA_TELEMETRY_LOG_FD", "")
    try:
        os.set_inheritable(int(number), False)
        return FramedLog(int(number))
    except (ValueError, OSError):
        return PlainLog()


def level_of(record):
    return min(50, max(0, record.levelno)) // 10 * 10


def set_up_logging(logging):
    """Gives the root logger Lambda's handler; runs when the function first imports `logging`."""
    has_levels = LOG_IS_JSON or LOG_LEVEL

    class LambdaLoggerHandler(logging.Handler):
        def __init__(self):
            super().__init__()
            self.log_sink = log

        def emit(self, record):
            level = level_of(record) if has_levels else 0
            self.log_sink.log(self.format(record), level, LOG_IS_JSON)

    class LambdaLoggerFilter(logging.Filter):
        def filter(self, record):
            record.aws_request_id = current_request_id or ""
            record.tenant_id = current_tenant_id
            return True

    class JsonFormatter(logging.Formatter):
        def format(self, record):
            return json_record(logging, self, record)

    logging.Formatter.converter = time.gmtime
    handler = LambdaLoggerHandler()
    text = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
    handler.setFormatter(
        JsonFormatter(datefmt="%Y-%m-%dT%H:%M:%SZ")
        if LOG_IS_JSON
        else logging.Formatter(text, "%Y-%m-%dT%H:%M:%S")
    )
    handler.addFilter(LambdaLoggerFilter())
    if LOG_LEVEL in logging._nameToLevel:
        logging.root.setLevel(LOG_LEVEL)
    logging.root.addHandler(handler)


# Attributes of a log record that are no members of the JSON record by themselves.
OF_THE_RECORD = frozenset(
    """
    name msg args levelname levelno pathname filename module exc_info exc_text stack_info lineno
    funcName created msecs relativeCreated thread threadName processName process taskName
    aws_request_id tenant_id
    """.split()
) - ({"taskName"} if sys.version_info < (3, 12) else set())


def json_record(logging, formatter, record):
    import json

    record.levelno = level_of(record)
    record.levelname = logging.getLevelName(record.levelno)
    keeps_message = isinstance(record.msg, dict) and not record.args
    members = {
        "timestamp": formatter.formatTime(record, formatter.datefmt),
        "level": record.levelname,
        "message": record.msg if keeps_message else record.getMessage(),
        "logger": record.name,
    }
    if record.exc_info:
        import traceback

        error_type, error, tb = record.exc_info
        members["stackTrace"] = traceback.format_tb(tb)
        members["errorType"] = getattr(error_type, "__name__", None)
        members["errorMessage"] = str(error)
    members["requestId"] = record.aws_request_id
    if record.exc_info:
        members["location"] = "%s:%s:%s" % (record.pathname, record.funcName, record.lineno)
    members["tenantId"] = record.tenant_id
    for name, value in record.__dict__.items():
        if name not in OF_THE_RECORD:
            members.setdefault(name, value)
    members = {name: value for name, value in members.items() if value is not None}
    return json.dumps(members, ensure_ascii=False, default=str) + "\n"


def log_error(document):
    """Writes an error document into the function's log as one record."""
    if LOG_IS_JSON:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        log.log_error([json_encoded({"timestamp": now, "level": "ERROR", **document})])
        return
    parts = [document["errorType"], document["errorMessage"]]
    lines = [" ".join(["[ERROR]", ": ".join(part for part in parts if part)]).rstrip(" ")]
    lines.append("Traceback (most recent call last):")
    for entry in document["stackTrace"]:
        for line in entry.splitlines() or [""]:
            text = line.lstrip(" ")
            lines.append(NO_BREAK_SPACE * (len(line) - len(text)) + text)
    log.log_error(lines)


# --- Errors --------------------------------------------------------------------------------------


def error_document(error, request_id):
    """What the caller is told of an exception."""
    if isinstance(error, Fault):
        error_type, message, trace = error.error_type, error.message, error.trace
    else:
        error_type, trace = type(error).__name__, stack_trace(error)
        try:
            message = str(error)
        except Exception:
            message = "<exception str() failed>"
    return {
        "errorMessage": message,
        "errorType": error_type,
        "requestId": request_id,
        "stackTrace": trace,
    }


OWN_FILE = error_document.__code__.co_filename


def stack_trace(error):
    """The frames of the function's own code; ours only if there are no others."""
    import traceback

    summary = traceback.extract_tb(error.__traceback__)
    frames = [(frame.filename, frame.lineno, frame.name, frame.line) for frame in summary]
    of_function = (at for at, frame in enumerate(frames) if frame[0] != OWN_FILE)
    return traceback.format_list(frames[next(of_function, 0) :])


def send_error(kind, document):
    log_error(document)
    error_type = document["errorType"].encode("utf-8", "backslashreplace")
    body = json_encoded(document).encode("utf-8", "backslashreplace")
    send(kind, len(error_type).to_bytes(4, "little") + error_type + body)


# --- The handler ---------------------------------------------------------------------------------


def load_handler(name):
    try:
        module_name, function_name = name.rsplit(".", 1)
    except ValueError as error:
        raise Fault("Runtime.MalformedHandlerName", "Bad handler '%s': %s" % (name, error))
    if module_name.split(".")[0] in sys.builtin_module_names:
        message = "Cannot use built-in module %s as a handler module" % module_name
        raise Fault("Runtime.BuiltInModuleConflict", message)
    import importlib

    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        message = "Unable to import module '%s': %s" % (module_name, error)
        raise Fault("Runtime.ImportModuleError", message)
    except SyntaxError as error:
        place = '  File "%s" Line %s\n    %s' % (error.filename, error.lineno, error.text)
        message = "Syntax error in module '%s': %s" % (module_name, error)
        raise Fault("Runtime.UserCodeSyntaxError", message, [place])
    try:
        return getattr(module, function_name)
    except AttributeError:
        message = "Handler '%s' missing on module '%s'" % (function_name, module_name)
        raise Fault("Runtime.HandlerNotFound", message)


# --- The context object --------------------------------------------------------------------------

class Fields:
    """A named set of attributes, all of them optional."""

    __slots__ = ()

    def __init__(self, values):
        for name in self.__slots__:
            setattr(self, name, values.get(name))

    def __repr__(self):
        return shown(self, self.__slots__)


class CognitoIdentity(Fields):
    __slots__ = ["cognito_identity_id", "cognito_identity_pool_id"]

    def __init__(self, values):
        self.cognito_identity_id = values.get("cognitoIdentityId")
        self.cognito_identity_pool_id = values.get("cognitoIdentityPoolId")


class Client(Fields):
    __slots__ = [
        "installation_id",
        "app_title",
        "app_version_name",
        "app_version_code",
        "app_package_name",
    ]


class ClientContext(Fields):
    __slots__ = ["custom", "env", "client"]


class LambdaContext:
    def __init__(self, request_id, arn, deadline_ms, client_context, identity, tenant_id):
        self.aws_request_id = request_id
        self.__dict__.update(OF_FUNCTION)
        self.invoked_function_arn = arn
        self.tenant_id = tenant_id
        self.client_context = None
        self._w3c_fields = {}
        if client_context is not None:
            self._set_client_context(client_context)
        self.identity = CognitoIdentity(identity or {})
        self._epoch_deadline_time_in_ms = deadline_ms

    def _set_client_context(self, values):
        w3c = values.pop("w3c", None)
        if isinstance(w3c, dict):
            names = ("traceparent", "tracestate", "baggage")
            self._w3c_fields = {name: w3c[name] for name in names if isinstance(w3c.get(name), str)}
        self.client_context = ClientContext(values)
        if self.client_context.client is not None:
            self.client_context.client = Client(self.client_context.client)

    def get_remaining_time_in_millis(self):
        return max(self._epoch_deadline_time_in_ms - int(time.time() * 1000), 0)

    def w3c(self):
        return dict(self._w3c_fields)

    def log(self, msg):
        log.log(str(msg))

    def __repr__(self):
        names = ["aws_request_id", *OF_FUNCTION, "invoked_function_arn", "client_context"]
        return shown(self, [*names, "identity", "tenant_id"])


def shown(value, names):
    fields = ",".join("%s=%s" % (name, getattr(value, name)) for name in names)
    return "%s([%s])" % (type(value).__name__, fields)


def offer_client_module():
    """Functions import `awslambdaric.lambda_context.LambdaContext` for their annotations."""
    package, module = type(sys)("awslambdaric"), type(sys)("awslambdaric.lambda_context")
    package.__path__, package.lambda_context = [], module
    for kind in (LambdaContext, ClientContext, Client, CognitoIdentity):
        kind.__module__ = module.__name__
        setattr(module, kind.__name__, kind)
    sys.modules.update({package.__name__: package, module.__name__: module})


# --- Snapshots -----------------------------------------------------------------------------------
# A version with SnapStart is initialised once. It then stands in `receive`, where it is held and
# copied; a copy goes on with a frame that brings its environment.

before_snapshot, after_restore = [], []


def offer_hook_module():
    """What functions import from PyPI's `snapshot_restore_py`, which Lambda's runtime has, too."""
    module = type(sys)("snapshot_restore_py")

    def register_before_snapshot(func, *args, **kwargs):
        before_snapshot.append((func, args, kwargs))
        return func

    def register_after_restore(func, *args, **kwargs):
        after_restore.append((func, args, kwargs))
        return func

    for function in (register_before_snapshot, register_after_restore):
        function.__module__ = module.__name__
        setattr(module, function.__name__, function)
    module.get_before_snapshot = lambda: before_snapshot
    module.get_after_restore = lambda: after_restore
    sys.modules[module.__name__] = module


def python_api():
    """What the interpreter does around a fork; nothing where it was built without ctypes."""
    try:
        import ctypes

        return ctypes.pythonapi
    except ImportError:
        return None


def stand():
    """Stands as a snapshot; returns in each copy."""
    import gc

    while before_snapshot:
        func, args, kwargs = before_snapshot.pop()
        func(*args, **kwargs)
    api = python_api()
    gc.collect()
    gc.freeze()  # so that a collection does not touch, and thereby copy, what all have in common
    flush()
    if api:
        api.PyOS_BeforeFork()
    send(READY, b"")
    frame = receive()
    if api:
        api.PyOS_AfterFork_Child()
    if not frame:
        os._exit(0)
    if frame[4] != RESTORE:
        sys.exit(1)
    set_environment(frame)
    os.environ.pop("_LAMBDA_TELEMETRY_LOG_FD", None)
    OF_FUNCTION["log_stream_name"] = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
    make_unique()
    for func, args, kwargs in after_restore:
        func(*args, **kwargs)


def make_unique():
    """Draws anew what was drawn for all copies."""
    loaded = sys.modules.get
    if loaded("threading"):
        # What was remembered is of the snapshot, and so of the host.
        getattr(loaded("threading").main_thread(), "_set_native_id", int)()
    if loaded("random"):
        loaded("random").seed()
    if loaded("numpy.random"):
        loaded("numpy.random").seed()
    if loaded("ssl"):
        loaded("ssl").RAND_add(os.urandom(64), 64.0)
    if loaded("uuid"):
        uuid = loaded("uuid")
        uuid._last_timestamp = uuid._generate_time_safe = None
        uuid._node = int.from_bytes(os.urandom(6), "big") | 1 << 40  # no card has such an address
    if loaded("tempfile"):
        loaded("tempfile")._name_sequence = None


# --- Frames --------------------------------------------------------------------------------------


def receive():
    """The next frame, its length included, or nothing when the server has gone."""
    data = os.read(SOCKET, 65536)
    while 0 < len(data) < 4:
        data += os.read(SOCKET, 65536) or sys.exit(1)
    have, size = len(data), 4 + int.from_bytes(data[:4], "little")
    if have == size or have == 0:
        return data
    if have > size:
        sys.exit(1)  # two frames at once: this is not our server
    whole = memoryview(bytearray(size))
    whole[:have] = data
    while have < size:
        have += os.readv(SOCKET, [whole[have:]]) or sys.exit(1)
    return whole


def send(kind, body):
    body = body[:MOST_IN_A_FRAME]
    head = (len(body) + 1).to_bytes(4, "little") + bytes((kind,))
    sent = os.writev(SOCKET, (head, body))
    if sent < len(head) + len(body):
        rest = memoryview(head + body)[sent:]
        while rest:
            rest = rest[os.write(SOCKET, rest) :]


# --- Invocations ---------------------------------------------------------------------------------


def parsed(frame):
    """Deadline, the six strings, and the payload of an invocation."""
    end = 17 + int.from_bytes(frame[13:17], "little")
    strings = str(frame[17:end], "utf-8").split("\0")
    return int.from_bytes(frame[5:13], "little"), strings, frame[end:]


def header_decoded(text, name):
    if not text:
        return None
    try:
        return json_decoded(text.encode())
    except Exception as error:
        message = "Unable to parse %s JSON: %s" % (name, error)
        raise Fault("Runtime.LambdaContextUnmarshalError", message)


def event_decoded(payload):
    try:
        return json_decoded(payload) if payload else {}
    except Exception as error:
        raise Fault("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % error)


def response_encoded(value):
    if isinstance(value, bytes):
        return value
    try:
        return json_encoded(value).encode()
    except Exception as error:
        raise Fault("Runtime.MarshalError", "Unable to marshal response: %s" % error)


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the handler has closed or replaced it


TRACE_ID = b"_X_AMZN_TRACE_ID"


def set_trace_id(trace_id):
    """In `os.environ` alone: the C library keeps every value that its setenv was ever given."""
    if trace_id:
        os.environ._data[TRACE_ID] = os.environ.encodevalue(trace_id)
    else:
        os.environ._data.pop(TRACE_ID, None)


def answer(handler, frame):
    global current_request_id, current_tenant_id
    deadline_ms, strings, payload = parsed(frame)
    request_id, arn, trace_id, client_context, identity, tenant_id = strings
    current_request_id, current_tenant_id = request_id, tenant_id or None
    set_trace_id(trace_id)
    try:
        context = LambdaContext(
            request_id,
            arn,
            deadline_ms,
            header_decoded(client_context, "Client Context"),
            header_decoded(identity, "Cognito Identity"),
            current_tenant_id,
        )
        response = response_encoded(handler(event_decoded(payload), context))
    except Exception as error:
        flush()
        send_error(ERROR, error_document(error, request_id))
        return
    flush()
    send(RESPONSE, response)


def main():
    set_up_search_path()
    try:
        handler = load_handler(os.environ.get("_HANDLER", ""))
        if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
            stand()
    except Exception as error:
        flush()
        send_error(INIT_ERROR, error_document(error, ""))
        sys.exit(1)
    flush()
    send(READY, b"")
    while True:
        frame = receive()
        if not frame:
            flush()
            os._exit(0)  # as if frozen for good: no exit handlers
        if frame[4] != INVOKE:
            sys.exit(1)
        answer(handler, frame)


# --- Waiting for a function ----------------------------------------------------------------------
# Started with the argument `blank` there is no function yet. All that is needed without one is
# loaded and, where the interpreter does something for the first time, done once; the environment
# comes later, before anything looks at it.

WARM = "importlib json logging traceback datetime decimal base64 urllib.parse http.client ssl"


def become(is_origin):
    for name in WARM.split():
        try:
            __import__(name)
        except ImportError:
            pass  # this interpreter was built without it
    rehearse()
    frame = stand_as_origin() if is_origin else b""
    if len(frame) <= 5:  # whose it is will be told
        if is_origin:
            rehearse()
        frame = frame_when_ready(BECOME)
    set_environment(frame)
    os.chdir(os.environ["LAMBDA_TASK_ROOT"])


def rehearse():
    """Does once what a first invocation does, with a function of our own, and leaves nothing of it.

    The parser alone takes a millisecond to read a first line. In a copy of an origin what is touched here
    is copied here, and not while somebody waits."""
    global log
    log = PlainLog()
    path, finders, known = list(sys.path), list(sys.meta_path), set(sys.path_importer_cache)
    set_environment(bytes(5) + "\0".join("%s=%s" % pair for pair in os.environ.items()).encode())
    read_environment()
    set_search_path()
    strings = "\0".join(("00000000-0000-0000-0000-000000000000", "arn:aws:lambda", "", "", "", ""))
    head = len(strings).to_bytes(4, "little") + strings.encode()
    frame = (len(head) + 19).to_bytes(4, "little") + bytes((INVOKE,)) + bytes(8) + head
    deadline_ms, strings, payload = parsed(frame + b'{"key": ["value", 1, 2.5, null]}')
    try:
        handler = load_handler("rehearsal.handler")
        context = LambdaContext(strings[0], strings[1], deadline_ms, None, None, None)
        response_encoded(handler(event_decoded(payload), context))
    except Fault:
        pass  # somebody has taken the file away
    flush()
    logging = sys.modules.get("logging")
    if logging:
        set_up_logging(logging)
        logging.root.handlers.clear()
    sys.modules.pop("rehearsal", None)
    sys.path[:], sys.meta_path[:] = path, finders
    for place in set(sys.path_importer_cache) - known:
        del sys.path_importer_cache[place]  # it may be another directory later


def frame_when_ready(kind):
    """Says that all is ready and waits for a frame of this kind."""
    os.write(SOCKET, b"\1\0\0\0" + bytes((READY,)))
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
        data += os.read(SOCKET, 65536) or os._exit(0)
    if data[4] != kind:
        os._exit(1)
    return data


def stand_as_origin():
    """Stands for good, and returns in each copy, with the environment of its function if it has one already. No
    function has run, so there is little to draw anew."""
    modules, places = set(sys.modules), set(sys.path_importer_cache)
    import gc

    api = python_api()
    for name in set(sys.modules) - modules:
        del sys.modules[name]  # the function has not loaded them
    for place in set(sys.path_importer_cache) - places:
        del sys.path_importer_cache[place]
    gc.collect()
    gc.freeze()  # as in `stand`
    if api:
        api.PyOS_BeforeFork()
    frame = frame_when_ready(RESTORE)
    if api:
        api.PyOS_AfterFork_Child()
    make_unique()
    return frame


def set_environment(frame):
    coerced = os.environ.get("LC_CTYPE")  # set by the interpreter itself, see PEP 538
    os.environ.clear()
    if coerced:
        os.environ["LC_CTYPE"] = coerced
    os.environ.update(pair.split("=", 1) for pair in str(frame[5:], "utf-8").split("\0"))
    time.tzset()


def prepare():
    os.set_inheritable(SOCKET, False)
    sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    add_site_builtins()
    offer_client_module()
    offer_hook_module()


def read_environment():
    """Sets what depends on it."""
    global quoted, encode_exact, LOG_IS_JSON, LOG_LEVEL, OF_FUNCTION
    environment = os.environ.get
    quoted = _json.encode_basestring_ascii if wants_ascii() else _json.encode_basestring
    encode_exact = _json.make_encoder(
        containers_above, json_default, quoted, None, ": ", ", ", False, False, True
    )
    LOG_IS_JSON = environment("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
    LOG_LEVEL = environment("AWS_LAMBDA_LOG_LEVEL", "").upper().replace("TRACE", "DEBUG")
    OF_FUNCTION = {
        "log_group_name": environment("AWS_LAMBDA_LOG_GROUP_NAME"),
        "log_stream_name": environment("AWS_LAMBDA_LOG_STREAM_NAME"),
        "function_name": environment("AWS_LAMBDA_FUNCTION_NAME"),
        "memory_limit_in_mb": environment("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
        "function_version": environment("AWS_LAMBDA_FUNCTION_VERSION"),
    }


if __name__ == "__main__":
    prepare()
    if sys.argv[1:] in (["blank"], ["origin"]):
        become(sys.argv.pop() == "origin")
    read_environment()
    log = open_log()
    main()
