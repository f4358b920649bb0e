"""The way out of an ordinary user's functions: the same promises as for root's, kept with the program pasta.

The small internet is that of the tests for root; the server is another user's, in a mount namespace where
that user may open the tun device, as users may on most hosts.
"""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from harness import Functions, Server, binary, zip_of
from test_network import (
    HOST,
    MOVING,
    OTHER,
    PRIVATE,
    PROBE,
    PUBLIC,
    RESOLVER,
    certificate,
    configured,
    ip,
    pytestmark as needs_namespaces,
    world,
)
from test_ordinary_user import UID, User, needs_python, system_python
from test_serve import descendants, wait_until

TUN = pathlib.Path("/dev/net/tun")
TOOLS = ["pasta", "setpriv", "unshare", "mount", "mknod"]

pytestmark = [
    needs_namespaces,
    needs_python,
    pytest.mark.skipif(
        not TUN.exists() or any(shutil.which(tool) is None for tool in TOOLS),
        reason=f"skipped: {TUN} and {', '.join(TOOLS)} are needed",
    ),
]

# What the kernel makes of the router's answer depends on protocol and family.
REFUSED = {"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EACCES"}

USABLE_TUN = "mount -t tmpfs -o mode=755 none /dev/net && mknod -m 666 /dev/net/tun c 10 200"
NO_TUN = "mount -t tmpfs -o mode=755 none /dev/net"
NO_PASTA = f"{USABLE_TUN} && mount --bind /dev/null $(command -v pasta)"

UDP = """
def datagram(host, port, source=0):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.bind(("", source))
        client.connect((host, port))
        client.send(b"?")
        return client.recv(100).decode()
def hear(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.sendto(b"?", (host, port))
        answer, sender = client.recvfrom(100)
        return [sender[0], answer.decode().split()[0]]
"""
SOURCE = PROBE + UDP


class Ordinary(User):
    """An ordinary user to whom the host is what these commands of root make of it."""

    def __init__(self, folder: pathlib.Path, commands: str = USABLE_TUN):
        folder.chmod(0o755)
        home = folder / "home"
        home.mkdir(mode=0o700)
        shutil.copy(binary(), folder)
        os.chown(home, UID, UID)
        super().__init__(home)
        wrapper = folder / "as-user"
        wrapper.write_text(
            "#!/bin/sh\n"
            f"exec {shutil.which('unshare')} -m /bin/sh -c 'mount --make-rprivate / && {commands} &&"
            f' exec setpriv --reuid {UID} --regid {UID} --clear-groups {self.program} "$@"\' sh "$@"\n'
        )
        wrapper.chmod(0o755)
        self.program, self.switch = wrapper, {}

    def configured(self, name: str, text: str) -> Server:
        file = self.home / f"{name}.toml"
        file.write_text(text)
        os.chown(file, UID, UID)
        return Server(self.home / name, "--config", str(file), program=self.program, env=self.environment)


@pytest.fixture(scope="module")
def ordinary(world, tmp_path_factory):
    # Other users do not reach what pytest keeps for this one.
    folder = pathlib.Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    yield Ordinary(folder)
    shutil.rmtree(folder)


@pytest.fixture
def open_folder():
    folder = pathlib.Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def outside(ordinary):
    running = ordinary.configured(
        "data", f"[network]\nmode = 'egress'\ndns = ['{RESOLVER}']\nconnections = 50\n"
    ).start()
    yield running, Functions(running)
    processes = descendants(running.process.pid)
    assert running.stop() == 0, running.log.read_text()
    assert wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in processes))


@pytest.fixture(scope="module")
def files(certificate):
    return {"app.py": SOURCE, "ca.pem": certificate[1].read_text()}


def probe_of(made: Functions, files: dict, **options) -> str:
    return made.create(zip_of(files), Runtime=system_python(), Timeout=60, **options)


@pytest.fixture(scope="module")
def probe(outside, files):
    return probe_of(outside[1], files)


def asked(made: Functions, name: str, *questions):
    answer = made.invoke(name, list(questions))
    assert answer.error is None, answer.raw
    return answer.payload


def pasta_of(running: Server) -> list[int]:
    def name(pid: int) -> str:
        try:
            return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            return ""  # it has ended meanwhile

    return [pid for pid in descendants(running.process.pid) if name(pid).startswith("pas")]


def parent(pid: int) -> int:
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])


def test_it_is_named(outside, ordinary):
    assert "network egress by pasta" in outside[0].ready_line
    answer = ordinary.run("doctor", "--here")
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"egress +yes +by pasta, IPv4 and IPv6", answer.stdout), answer.stdout


def test_servers_are_reached_by_name_and_address(outside, world, probe):
    found = asked(
        outside[1], probe,
        ["resolve", "db.example"],
        ["ask", "db.example", world["database"]],
        ["ask", OTHER, world["database"]],
        ["secure", "db.example", world["tls"]],
        ["resolve", "nobody.example"],
    )  # fmt: skip
    assert found == [[PUBLIC], f"one row for ::ffff:{HOST[0]}", f"one row for {HOST[1]}",
                     "secretly hello", "no name"]  # fmt: skip


def test_datagrams_leave_from_a_port_that_the_function_cannot_choose(outside, world, probe):
    found = asked(
        outside[1], probe,
        ["datagram", PUBLIC, world["echo"], 5353], ["datagram", OTHER, world["echo"]],
    )  # fmt: skip
    for answer, host in zip(found, HOST, strict=True):
        address, port = answer.rsplit(" ", 1)
        assert address.removeprefix("::ffff:") == host and 49152 <= int(port) <= 53247, found


def test_names_do_not_lead_to_private_addresses(outside, probe):
    names = ["inside.example", "meta.example"]
    assert asked(outside[1], probe, *[["resolve", name] for name in names]) == ["no name"] * 2


def test_private_servers_metadata_and_the_host_are_refused(outside, world, probe):
    port = world["database"]
    addresses = [PRIVATE, "169.254.169.254", "fd00:ec2::254", "198.18.0.1", "fd6c:6163:6577:1::1"]
    questions = [["ask", address, port] for address in addresses]
    # The server's own port, and a service of the host on every address of it.
    own = int(outside[0].endpoint.rsplit(":", 1)[1])
    here = [*HOST, "127.0.0.1", "127.0.0.53", "0.0.0.0", "::1", f"::ffff:{HOST[0]}",
            "198.18.0.2", "198.19.0.1", "203.0.113.255"]  # fmt: skip
    questions += [["ask", address, there] for address in here for there in (world["host"], own)]
    found = asked(outside[1], probe, *questions)
    wrong = [pair for pair in zip(questions, found, strict=True) if pair[1] not in REFUSED]
    assert not wrong
    assert found[: len(addresses)] == ["ECONNREFUSED"] * len(addresses), found
    datagrams = [["datagram", address, world["host_echo"]] for address in HOST]
    assert set(asked(outside[1], probe, *datagrams)) <= REFUSED


@pytest.mark.parametrize("address", MOVING)
def test_an_address_is_refused_as_soon_and_as_long_as_it_is_the_hosts(outside, world, probe, address):
    question = ["ask", address, world["database"]]
    local = ["ask", address, world["host"]]
    reached = asked(outside[1], probe, question)[0]
    assert reached.startswith("one row for"), reached
    ip(f"address add {address} dev lo")
    try:
        assert wait_until(lambda: asked(outside[1], probe, local) == ["ECONNREFUSED"])
        assert asked(outside[1], probe, question) == ["ECONNREFUSED"]
    finally:
        ip(f"address del {address} dev lo")
    assert wait_until(lambda: asked(outside[1], probe, question) == [reached])
    # Not an address but a route that ends on the host.
    route = f"{'-6 ' if ':' in address else ''}route %s local {address} dev lo"
    ip(route % "add")
    try:
        assert wait_until(lambda: asked(outside[1], probe, question) == ["ECONNREFUSED"])
    finally:
        ip(route % "del")
    assert wait_until(lambda: asked(outside[1], probe, question) == [reached])


def test_another_function_is_refused(outside, probe, files):
    _, made = outside
    victim = probe_of(made, files)
    addresses = asked(made, victim, ["listen", 8080])[0]
    assert addresses[0].startswith("198.19.") and ":" in addresses[1]
    (own,) = asked(made, probe, ["own_addresses"])
    assert not set(own) & set(addresses)
    for address in addresses:
        found = asked(made, probe, ["ask", address, 8080], ["datagram", address, 8080])
        assert found[0] == "ECONNREFUSED" and found[1] in REFUSED, (address, found)
        # It does listen.
        assert asked(made, victim, ["many", address, 8080, 1]) == [1]


def test_a_function_may_ask_for_no_network(outside, world, files):
    name = probe_of(outside[1], files, Environment={"Variables": {"LACEWING_NETWORK": "none"}})
    questions = [["ask", PUBLIC, world["database"]], ["resolve", "db.example"]]
    assert asked(outside[1], name, *questions) == ["ENETUNREACH", "no name"]


def test_one_function_cannot_have_all_connections(outside, world, probe, files):
    _, made = outside
    flooding = probe_of(made, files)
    assert asked(made, flooding, ["many", PUBLIC, world["database"], 200])[0] <= 50
    assert asked(made, probe, ["ask", PUBLIC, world["database"]]) == [f"one row for ::ffff:{HOST[0]}"]


def test_nobody_reaches_a_function(outside, world, probe):
    questions = [["hear", address, world["echo"]] for address in (PUBLIC, OTHER)]
    found = asked(outside[1], probe, ["listen", 8081], *questions)
    # What it listens on is no port of the host's, and a datagram of a third party to the port from
    # which it asked does not come in, though it comes before the answer.
    listening = subprocess.run(["ss", "-Hltun"], capture_output=True, text=True, check=True).stdout
    assert ":8081 " not in listening
    assert [sender for sender, _ in found[1:]] == [PUBLIC, OTHER]
    assert not any("not" in words for words in found[1:]), found


def test_a_dead_pasta_is_started_again_and_means_no_network_meanwhile(outside, world, probe):
    running, made = outside
    question = ["ask", PUBLIC, world["database"]]
    (pasta,) = pasta_of(running)
    os.kill(pasta, 9)
    found = asked(made, probe, question)[0]
    assert found.startswith("one row") or found in REFUSED | {"timed out", "ECONNRESET"}, found
    assert wait_until(lambda: asked(made, probe, question)[0].startswith("one row"))
    assert len(pasta_of(running)) == 1 and pasta_of(running) != [pasta]
    own = ["ask", HOST[0], world["host"]]
    assert asked(made, probe, own) == ["ECONNREFUSED"]


def test_without_its_keeper_there_is_no_way_out(ordinary, world, files):
    running = ordinary.configured("unkept", "[network]\nmode = 'egress'\n").start()
    try:
        made = Functions(running)
        name = probe_of(made, files)
        question = ["ask", PUBLIC, world["database"]]
        assert asked(made, name, question)[0].startswith("one row")
        (pasta,) = pasta_of(running)
        os.kill(parent(pasta), 9)
        assert wait_until(lambda: not pathlib.Path(f"/proc/{pasta}").exists())
        assert asked(made, name, question) == ["ENETUNREACH"]
        assert running.health() == 200
    finally:
        assert running.stop() == 0


def test_what_is_allowed_is_reached_and_bytes_are_counted(ordinary, world, files):
    text = f"[network]\nmode = 'egress'\nallow = ['{PRIVATE}:{world['database']}']\nbandwidth_mbit = 8\n"
    running = ordinary.configured("allowing", text).start()
    try:
        made = Functions(running)
        name = probe_of(made, files)
        both = [["ask", PRIVATE, world["database"]], ["ask", PRIVATE, world["tls"]]]
        assert asked(made, name, *both) == [f"one row for ::ffff:{HOST[0]}", "ECONNREFUSED"]
    finally:
        assert running.stop() == 0
    kept = b"".join(file.read_bytes() for file in running.data_dir.iterdir() if file.is_file())
    for way in (b"in", b"out"):
        assert re.search(rb'"network_%b":[1-9][0-9]{2,3}[,}]' % way, kept)


@pytest.mark.parametrize("killed", ["server", "launcher"])
def test_nothing_is_left_of_a_server_that_was_killed(ordinary, killed):
    running = ordinary.server(f"killed-{killed}").start()
    try:
        assert "network egress by pasta" in running.ready_line
        processes = descendants(running.process.pid)
        (pasta,) = pasta_of(running)
        if killed == "launcher":
            os.kill(parent(parent(pasta)), 9)
            # Without its launcher the server ends by itself.
            assert running.process.wait(60) != 0
    finally:
        running.kill()
    assert wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in processes))


@pytest.mark.parametrize(
    ("commands", "lack", "remedy"),
    [
        (NO_PASTA, "needs the program pasta", "Install pasta"),
        (NO_TUN, "pasta needs /dev/net/tun", "modprobe tun"),
    ],
)
def test_what_is_lacking_is_named_with_its_remedy(world, open_folder, commands, lack, remedy):
    lacking = Ordinary(open_folder, commands)
    answer = lacking.run("doctor", "--here")
    assert answer.returncode == 0 and lack in answer.stdout and remedy in answer.stdout, answer.stdout
    running = lacking.server("data").start()
    try:
        assert re.search(rf"network none \([^)]*{lack}", running.ready_line), running.ready_line
        made = Functions(running)
        name = made.python(PROBE, Runtime=system_python())
        assert asked(made, name, ["ask", PUBLIC, world["database"]]) == ["ENETUNREACH"]
    finally:
        assert running.stop() == 0
    strict = lacking.configured("strict", "[network]\nmode = 'egress'\n")
    with pytest.raises(RuntimeError, match=f"(?s)network.mode is egress.*{lack}.*{remedy}"):
        strict.start()
