"""The way out of functions: names, TLS, a database, and what is refused. The server and the test are in a
network namespace that stands for the host; the servers are in another one behind it. The real host's
network is not touched."""

import contextlib
import ctypes
import json
import os
import shutil
import socket
import sqlite3
import ssl
import struct
import subprocess
import threading

import botocore.exceptions
import pytest

from harness import Functions, Server, zip_of

CLONE_NEWNET = 0x40000000
PUBLIC, OTHER, PRIVATE, RESOLVER = "203.0.113.10", "2001:db8:2::10", "10.9.9.9", "203.0.113.53"
MOVING = ["203.0.113.99", "2001:db8:2::99"]
HOST = ["203.0.113.2", "2001:db8:1::2"]
NAMES = {"db.example": PUBLIC, "inside.example": PRIVATE, "meta.example": "169.254.169.254"}
libc = ctypes.CDLL(None, use_errno=True)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="namespaces need root and the program ip"
)

PROBE = """
import errno, os, socket, ssl, urllib.request
def attempt(work):
    try:
        return work()
    except socket.gaierror as error:
        return "no name"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
def ask(host, port, question=b"SELECT 1"):
    with socket.create_connection((host, port), 3) as client:
        client.sendall(question)
        return client.recv(100).decode()
def secure(host, port):
    context = ssl.create_default_context(cafile="/var/task/ca.pem")
    with socket.create_connection((host, port), 3) as plain:
        with context.wrap_socket(plain, server_hostname=host) as client:
            client.sendall(b"hello")
            return client.recv(100).decode()
def resolve(name):
    return sorted({found[4][0] for found in socket.getaddrinfo(name, 1)})
def many(host, port, count):
    kept = []
    try:
        for _ in range(count):
            kept.append(socket.create_connection((host, port), 3))
    finally:
        return len(kept)
def own_addresses():
    found = []
    for family, outside in ((socket.AF_INET, "203.0.113.10"), (socket.AF_INET6, "2001:db8:2::10")):
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.connect((outside, 9))
            found.append(client.getsockname()[0])
    return found
def listen(port):
    global listener
    listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return own_addresses()
def handler(event, context):
    return [attempt(lambda: globals()[name](*arguments)) for name, *arguments in event]
"""


def ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True)


def usage(server: Server, name: str) -> list[dict]:
    """The usage records of a function, of a server that has stopped."""
    with contextlib.closing(sqlite3.connect(server.data_dir / "store.db")) as store:
        kept = [value for (value,) in store.execute("SELECT value FROM entries") if b'"network_in"' in value]
    return [record for record in map(json.loads, kept) if record["function"] == name]


def unshare() -> int:
    """Moves this thread into a network namespace of its own; gives its descriptor."""
    assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    ip("link set lo up")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(namespace: int) -> None:
    assert libc.setns(namespace, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def listen(address: str, kind=socket.SOCK_STREAM, port: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    if kind == socket.SOCK_STREAM:
        listener.listen(600)
    return listener


def serve(listener: socket.socket, work) -> int:
    """Serves each connection on a thread of its own."""

    def one(client):
        with client, contextlib.suppress(OSError):
            work(client)

    def run():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=one, args=(client,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()
    return listener.getsockname()[1]


def database(client):
    peer = client.getpeername()[0]
    while client.recv(100):
        client.sendall(f"one row for {peer}".encode())


def mirror(client):
    client.sendall(b"".join(iter(lambda: client.recv(1 << 16), b"")))


def echo(*addresses: str) -> int:
    """Tells each sender of a datagram who it is, on one port of all these addresses; another port of
    them is quicker, and was not asked."""

    def run(listener, address):
        stranger = listen(address, socket.SOCK_DGRAM)
        while True:
            _, peer = listener.recvfrom(100)
            stranger.sendto(b"not asked", peer)
            listener.sendto(f"{peer[0]} {peer[1]}".encode(), peer)

    port = 0
    for address in addresses:
        listener = listen(address, socket.SOCK_DGRAM, port)
        port = listener.getsockname()[1]
        threading.Thread(target=run, args=(listener, address), daemon=True).start()
    return port


def resolver(listener: socket.socket):
    """Answers A queries from NAMES, others with no data or no name."""

    def run():
        while True:
            query, peer = listener.recvfrom(512)
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
                at += 1 + query[at]
            question, kind = query[12 : at + 5], query[at + 1 : at + 3]
            address = NAMES.get(".".join(labels))
            found = address is not None and kind == b"\x00\x01"
            code = 0x8180 if address else 0x8183
            answer = query[:2] + struct.pack(">5H", code, 1, int(found), 0, 0) + question
            if found:
                answer += b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
            listener.sendto(answer, peer)

    threading.Thread(target=run, daemon=True).start()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=db.example",
         "-addext", "subjectAltName=DNS:db.example"],
        check=True, capture_output=True,
    )
    return key, cert


@pytest.fixture(scope="module")
def world(certificate):
    """Ports of the servers; the test's thread is on the host meanwhile."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    internet = unshare()
    host = unshare()
    ip(f"link add wan type veth peer name isp netns /proc/{os.getpid()}/fd/{internet}")
    for line in (f"address add {HOST[0]}/24 dev wan", f"address add {HOST[1]}/64 dev wan nodad",
                 "link set wan up", "route add default via 203.0.113.1",
                 "route add default via 2001:db8:1::1"):
        ip(line)
    own, own_echo = serve(listen("::"), database), echo(*HOST)
    enter(internet)
    for address in ("203.0.113.1/24", f"{PUBLIC}/32", f"{MOVING[0]}/32", f"{PRIVATE}/32", f"{RESOLVER}/32",
                    "169.254.169.254/32"):
        ip(f"address add {address} dev isp")
    for address in ("2001:db8:1::1/64", f"{OTHER}/128", f"{MOVING[1]}/128", "fd00:ec2::254/128"):
        ip(f"address add {address} dev isp nodad")
    ip("link set isp up")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])

    def secure(client):
        with context.wrap_socket(client, server_side=True) as wrapped:
            wrapped.sendall(b"secretly " + wrapped.recv(100))

    ports = {"database": serve(listen("::"), database), "tls": serve(listen("::"), secure), "host": own,
             "mirror": serve(listen("::"), mirror),
             "echo": echo(PUBLIC, OTHER), "host_echo": own_echo}
    resolver(listen(RESOLVER, socket.SOCK_DGRAM, 53))
    enter(host)
    yield ports
    enter(before)


def configured(directory, text: str) -> list[str]:
    file = directory / "lacewing-server.toml"
    file.write_text(text)
    return ["--config", str(file)]


@pytest.fixture(scope="module")
def outside(world, certificate, tmp_path_factory):
    """A server that lets functions out, and the probe as two functions, one of them without network."""
    directory = tmp_path_factory.mktemp("network")
    options = configured(directory, f"[network]\nmode = 'egress'\ndns = ['{RESOLVER}']\nconnections = 50\n")
    running = Server(directory / "data", *options).start()
    made = Functions(running)
    files = {"app.py": PROBE, "ca.pem": certificate[1].read_text()}
    yield running, made, files
    assert running.stop() == 0, running.log.read_text()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert ": lw" not in links


@pytest.fixture(scope="module")
def probe(outside):
    _, made, files = outside
    return made.create(zip_of(files), Timeout=60)


def asked(outside, name, *questions):
    answer = outside[1].invoke(name, list(questions))
    assert answer.error is None, answer.raw
    return answer.payload


def test_the_ready_line_says_so(outside):
    assert "network egress" in outside[0].ready_line


def test_a_database_and_tls_are_reached_by_name(outside, world, probe):
    found = asked(
        outside, probe,
        ["resolve", "db.example"],
        ["ask", "db.example", world["database"]],
        ["ask", OTHER, world["database"]],
        ["secure", "db.example", world["tls"]],
        ["resolve", "nobody.example"],
    )
    assert found == [[PUBLIC], f"one row for ::ffff:{HOST[0]}", f"one row for {HOST[1]}",
                     "secretly hello", "no name"]


def test_names_do_not_lead_to_private_addresses(outside, probe):
    assert asked(outside, probe, ["resolve", "inside.example"], ["resolve", "meta.example"]) == ["no name"] * 2


def test_private_servers_metadata_and_the_host_are_refused(outside, world, probe):
    port = world["database"]
    found = asked(
        outside, probe,
        ["ask", PRIVATE, port], ["ask", "169.254.169.254", port], ["ask", "fd00:ec2::254", port],
        *[["ask", address, world["host"]] for address in HOST],
        ["ask", "198.18.0.1", world["host"]], ["ask", "198.19.0.1", 80],
        ["ask", HOST[0], int(outside[0].endpoint.rsplit(":", 1)[1])],
    )
    assert found == ["ECONNREFUSED"] * len(found), found


def test_another_function_is_refused(world, certificate, tmp_path):
    # Even where one of its addresses is allowed; the other cannot be.
    text = "[network]\nmode = 'egress'\nallow = ['fd00::/8']\n"
    running = Server(tmp_path / "data", *configured(tmp_path, text)).start()
    try:
        made = Functions(running)
        victim, attacker = (made.python(PROBE, Timeout=60) for _ in range(2))
        addresses = made.invoke(victim, [["listen", 8080]]).payload[0]
        assert addresses[0].startswith("198.19.") and ":" in addresses[1]
        tried = [["many", address, 8080, 1] for address in addresses]
        attempts = [["ask", address, 8080] for address in addresses]
        own, *found = made.invoke(attacker, [["own_addresses"], *attempts]).payload
        assert not set(own) & set(addresses) and found == ["ECONNREFUSED"] * 2, (own, found)
        # It does listen, on both.
        assert made.invoke(victim, tried).payload == [1, 1]
    finally:
        assert running.stop() == 0


def test_a_function_may_ask_for_no_network(outside, world, probe):
    _, made, files = outside
    variables = {"Variables": {"LACEWING_NETWORK": "none"}}
    name = made.create(zip_of(files), Environment=variables)
    question = ["ask", PUBLIC, world["database"]]
    assert asked(outside, name, question, ["resolve", "db.example"]) == ["ENETUNREACH", "no name"]
    # It is a setting like others: a change is felt by the next invocation.
    made.client.update_function_configuration(
        FunctionName=name, Environment={"Variables": {"LACEWING_NETWORK": "egress"}}
    )
    made.client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})
    assert asked(outside, name, question) == [f"one row for ::ffff:{HOST[0]}"]
    with pytest.raises(botocore.exceptions.ClientError, match="LACEWING_NETWORK must be none or egress"):
        made.client.update_function_configuration(
            FunctionName=name, Environment={"Variables": {"LACEWING_NETWORK": "host"}}
        )


def test_one_function_cannot_have_all_connections(outside, world, probe):
    flooding = outside[1].create(zip_of(outside[2]), Timeout=60)
    assert asked(outside, flooding, ["many", PUBLIC, world["database"], 200])[0] <= 50
    assert asked(outside, probe, ["ask", PUBLIC, world["database"]]) == [f"one row for ::ffff:{HOST[0]}"]


def test_a_private_server_is_reached_where_it_is_allowed(world, certificate, tmp_path):
    text = f"[network]\nmode = 'egress'\nallow = ['{PRIVATE}:{world['database']}']\n"
    running = Server(tmp_path / "data", *configured(tmp_path, text)).start()
    try:
        made = Functions(running)
        name = made.python(PROBE)
        both = [["ask", PRIVATE, world["database"]], ["ask", PRIVATE, world["tls"]]]
        answer = made.invoke(name, both).payload
        assert answer == [f"one row for ::ffff:{HOST[0]}", "ECONNREFUSED"]
    finally:
        assert running.stop() == 0


def test_the_servers_bound_holds_for_all(world, tmp_path):
    running = Server(tmp_path / "data", *configured(tmp_path, "[network]\nmode = 'none'\n")).start()
    try:
        assert "network none" in running.ready_line
        made = Functions(running)
        name = made.python(PROBE)
        assert made.invoke(name, [["ask", PUBLIC, world["database"]]]).payload == ["ENETUNREACH"]
        with pytest.raises(botocore.exceptions.ClientError, match="allows this account none"):
            made.python(PROBE, Environment={"Variables": {"LACEWING_NETWORK": "egress"}})
    finally:
        assert running.stop() == 0


SEND = """
import os, socket
def handler(event, context):
    host, port, size = event
    with socket.create_connection((host, port), 10) as client:
        client.sendall(os.urandom(size))
        client.shutdown(socket.SHUT_WR)
        got = 0
        while part := client.recv(1 << 16):
            got += len(part)
        return got
"""


def test_what_goes_in_and_out_is_in_the_usage_record_of_who_sent_it(world, tmp_path):
    running = Server(tmp_path / "data", *configured(tmp_path, "[network]\nmode = 'egress'\n")).start()
    sizes, sent = [1 << 10, 1 << 20], {}
    try:
        made = Functions(running)
        for size in sizes:
            sent[size] = made.python(SEND, Timeout=30)
            assert made.invoke(sent[size], [PUBLIC, world["mirror"], size]).payload == size
        quiet = made.python("def handler(event, context): return 1\n")
        assert made.invoke(quiet).payload == 1
    finally:
        assert running.stop() == 0
    for size, name in sent.items():
        (record,) = usage(running, name)
        # What it sent and got, and the heads of packets around it.
        for way in ("network_in", "network_out"):
            assert size <= record[way] < size * 1.2 + 4096, (size, record)
    (record,) = usage(running, quiet)
    assert record["network_in"] + record["network_out"] < 1024, record


def test_the_bound_of_an_account_holds_for_it(world, tmp_path):
    text = "[network]\nmode = 'egress'\n[network.accounts]\n'%s' = 'none'\n"
    mine = Server(tmp_path / "mine", *configured(tmp_path, text % "000000000000")).start()
    try:
        # Others would get out.
        assert "network egress" in mine.ready_line
        made = Functions(mine)
        name = made.python(PROBE)
        assert made.invoke(name, [["ask", PUBLIC, world["database"]]]).payload == ["ENETUNREACH"]
        with pytest.raises(botocore.exceptions.ClientError, match="allows this account none"):
            made.python(PROBE, Environment={"Variables": {"LACEWING_NETWORK": "egress"}})
    finally:
        assert mine.stop() == 0
    theirs = Server(tmp_path / "theirs", *configured(tmp_path, text % "111122223333")).start()
    try:
        made = Functions(theirs)
        name = made.python(PROBE)
        found = made.invoke(name, [["ask", PUBLIC, world["database"]]]).payload
        assert found == [f"one row for ::ffff:{HOST[0]}"]
    finally:
        assert theirs.stop() == 0
