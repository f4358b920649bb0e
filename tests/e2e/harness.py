"""Starts and stops the real `lacewing serve`, and makes the clients and zips that tests use.

It knows nothing of what is tested, and never talks to anything but the server it started.
"""

import configparser
import io
import json
import math
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
REGION = "us-east-1"
ROLE = "arn:aws:iam::000000000000:role/lambda"
PYTHON = f"python3.{sys.version_info.minor}"
READY_WITHIN = 240
# How many times slower than a real processor this host is: what a test bounds in time may take so much longer.
SLOWNESS = float(os.environ.get("LACEWING_SLOWNESS", "1"))
# What packing leaves out: caches, and the C sources that aws-lambda-ric was built from.
LEFT_OUT = {"__pycache__", "deps", "build"}


def slowly(seconds: int) -> int:
    """So many seconds, or as many more as this host is slower, for what is not to be reached."""
    return math.ceil(seconds * SLOWNESS)


def cache() -> pathlib.Path:
    default = pathlib.Path.home() / ".cache/lacewing"
    return pathlib.Path(os.environ.get("LACEWING_CACHE", default))


def target() -> pathlib.Path:
    return pathlib.Path(os.environ.get("LACEWING_TARGET", cache() / "target"))


def binary() -> pathlib.Path:
    """The program under test: LACEWING_BIN, else the development build."""
    return pathlib.Path(os.environ.get("LACEWING_BIN", target() / "debug/lacewing"))


def node_runtime() -> str | None:
    """The identifier of the Node on this machine's PATH, if there is one that is supported."""
    if shutil.which("node") is None:
        return None
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    major = int(version.stdout.strip().lstrip("v").split(".")[0])
    return f"nodejs{major}.x" if major >= 18 else None


def fetched_node(major: int) -> pathlib.Path | None:
    """A Node that scripts/prepare-tests fetched."""
    return next(cache().glob(f"workloads/node{major}/node_modules/*/bin/node"), None)


def zip_of(files: dict[str, str | bytes], modes: dict[str, int] | None = None) -> bytes:
    """A zip archive in memory; `modes` gives Unix permissions other than 0644."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100000 | (modes or {}).get(name, 0o644)) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def zip_directories(*directories: pathlib.Path, extra: dict[str, str] | None = None, level: int = 1) -> bytes:
    """A zip archive of whole directories, with their permissions, and some more files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for directory in directories:
            for path in sorted(directory.rglob("*")):
                if path.is_file() and not LEFT_OUT & set(path.relative_to(directory).parts):
                    archive.write(path, path.relative_to(directory))
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Server:
    """One `lacewing serve` on a free port of 127.0.0.1."""

    def __init__(
        self,
        data_dir: pathlib.Path,
        *arguments: str,
        listen: str = "127.0.0.1:0",
        program: pathlib.Path | None = None,
        **process,
    ):
        """`process` is passed on to `subprocess.Popen`, for a server of another user."""
        self.data_dir = data_dir
        self.arguments = arguments
        self.listen = listen
        self.program = program or binary()
        self.options = process
        self.process: subprocess.Popen | None = None
        self.endpoint = ""
        self.ready_line = ""
        self.log = data_dir.parent / f"{data_dir.name}.log"

    def start(self) -> "Server":
        command = [str(self.program), "serve", "--listen", self.listen, "--data-dir", str(self.data_dir)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments], stdout=subprocess.PIPE, stderr=log, text=True, **self.options
            )
        readable, _, _ = select.select([self.process.stdout], [], [], READY_WITHIN)
        self.ready_line = self.process.stdout.readline() if readable else ""
        found = re.search(r"http://127\.0\.0\.1:\d+", self.ready_line)
        if found is None:
            self.kill()
            raise RuntimeError(f"no ready line but {self.ready_line!r}; log:\n{self.log.read_text()}")
        self.endpoint = found.group(0)
        return self

    def stop(self, within: float = 40) -> int:
        """Asks the server to stop and gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(within * SLOWNESS)
        self.process.stdout.close()
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def credentials(self) -> tuple[str, str]:
        file = configparser.ConfigParser()
        file.read(self.data_dir / "credentials")
        profile = file["default"]
        return profile["aws_access_key_id"], profile["aws_secret_access_key"]

    def client(self, service: str = "lambda", credentials: list[str] | None = None, **config):
        """A client of the root key, or of (key, secret, token)."""
        key, secret, *token = credentials or self.credentials()
        settings = {"retries": {"total_max_attempts": 1}, "read_timeout": slowly(120), **config}
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token[0] if token else None,
            config=botocore.config.Config(**settings),
        )

    def environment(self) -> dict[str, str]:
        """What a process needs to use this server with AWS's tools or with ours."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.data_dir.parent),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_SHARED_CREDENTIALS_FILE": str(self.data_dir / "credentials"),
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
        }

    def health(self) -> int:
        with urllib.request.urlopen(f"{self.endpoint}/health", timeout=30) as answer:
            return answer.status


class Functions:
    """Creates functions and invokes them, through boto3."""

    def __init__(self, server: Server):
        self.server = server
        self.client = server.client()
        self.count = 0

    def create(self, zip_file: bytes, name: str | None = None, **options) -> str:
        self.count += 1
        name = name or f"test-{os.getpid()}-{self.count}-{time.monotonic_ns() % 10**9}"
        settings = {"Runtime": PYTHON, "Handler": "app.handler", "Role": ROLE, "Timeout": slowly(10), **options}
        self.client.create_function(FunctionName=name, Code={"ZipFile": zip_file}, **settings)
        self.client.get_waiter("function_active_v2").wait(
            FunctionName=name, WaiterConfig={"Delay": 0.05, "MaxAttempts": 1200}
        )
        return name

    def python(self, source: str, **options) -> str:
        return self.create(zip_of({"app.py": source}), **options)

    def node(self, source: str, **options) -> str:
        files = zip_of({"index.js": source})
        return self.create(files, Runtime=node_runtime(), **{"Handler": "index.handler", **options})

    def custom(self, bootstrap: str | bytes, files: dict[str, str | bytes] | None = None, **options) -> str:
        content = zip_of({"bootstrap": bootstrap, **(files or {})}, {"bootstrap": 0o755})
        return self.create(content, **{"Runtime": "provided.al2023", "Handler": "any", **options})

    def invoke(self, name: str, event=None, **options) -> "Answer":
        payload = b"" if event is None else json.dumps(event).encode()
        return Answer(self.client.invoke(FunctionName=name, Payload=payload, **options))


class Answer:
    """What `Invoke` answered, read to its end."""

    def __init__(self, response: dict):
        self.status = response["StatusCode"]
        self.error = response.get("FunctionError")
        self.version = response.get("ExecutedVersion")
        self.log_result = response.get("LogResult")
        self.raw = response["Payload"].read()
        self.headers = response["ResponseMetadata"]["HTTPHeaders"]
        self.request_id = response["ResponseMetadata"]["RequestId"]

    @property
    def payload(self):
        return json.loads(self.raw)

    @property
    def log(self) -> str:
        import base64

        return base64.b64decode(self.log_result).decode()


def resident_mb(*pids: int) -> float:
    """Resident memory of the processes, without the pages of files, which come and go as the machine likes."""
    statuses = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(status.split("RssAnon:")[1].split()[0]) for status in statuses) / 1024


def descendants(pid: int) -> set[int]:
    """All processes below a process, from /proc."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text(errors="replace").rsplit(") ", 1)[1].split()[1])
            except OSError:
                continue
    found = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found - {pid}
        found |= more


def info(server: Server) -> dict:
    """What the server tells of itself."""
    credentials = botocore.credentials.Credentials(*server.credentials())
    request = botocore.awsrequest.AWSRequest(method="GET", url=f"{server.endpoint}/_lacewing/v1/info")
    botocore.auth.SigV4Auth(credentials, "lacewing", REGION).add_auth(request)
    prepared = request.prepare()
    plain = urllib.request.Request(prepared.url, headers=dict(prepared.headers))
    with urllib.request.urlopen(plain, timeout=60) as answer:
        return json.load(answer)


def steady(read, seconds: float = 5, within: float = 120):
    """What `read` gives, once it has given the same for so long."""
    until, value, since = time.monotonic() + within * SLOWNESS, read(), time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < until, f"never the same for {seconds} s: {value}"
        time.sleep(0.1)
        if (now := read()) != value:
            value, since = now, time.monotonic()
    return value


def settle(server: Server) -> None:
    """Waits until no Instance without a function is being made."""
    steady(lambda: (info(server)["instances"]["blank"], len(descendants(server.process.pid))), 2)


def logs(server: Server, name: str) -> list[str]:
    """What `lacewing logs` shows of a function, record by record."""
    answer = subprocess.run(
        [str(binary()), "logs", name, "--output", "json"],
        env=server.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line)["text"].rstrip("\n") for line in answer.stdout.splitlines()]


def usage(server: Server, *arguments: str) -> str:
    """What `lacewing usage` prints."""
    answer = subprocess.run(
        [str(binary()), "usage", *arguments],
        env=server.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def records(server: Server, *arguments: str) -> list[dict]:
    """The usage records of all invocations that were answered."""
    return [json.loads(line) for line in usage(server, "--records", "--output", "json", *arguments).splitlines()]
