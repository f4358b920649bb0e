//! The way out: what a sandbox reaches of servers behind the host, and what it does not.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lacewing_sandbox::{Launcher, LauncherOptions, Network, NetworkOptions, Policy, Sandbox, Spec};

use crate::support::{
    PROBE, eventually, finish, launcher_with, options, probe, ready, run, shell, start,
};
use crate::world::{self, HOST, World, ip};

const PUBLIC: [&str; 3] = ["203.0.113.10", "198.51.100.7", "2001:db8:2::10"];
const PRIVATE: [&str; 5] = ["10.9.9.9", "172.20.0.1", "100.64.1.1", "fd12::9", "64:ff9b::a09:909"];
/// Not reached even when all is allowed.
const NEVER: [&str; 10] = [
    "169.254.169.254",
    "fd00:ec2::254",
    "198.18.200.1",
    "192.0.0.8",
    "2002:a09:909::1",
    "::ffff:169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "ff02::1",
];

fn egress(change: impl FnOnce(&mut NetworkOptions)) -> LauncherOptions {
    let mut network = NetworkOptions::egress();
    change(&mut network);
    LauncherOptions { network, ..options() }
}

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Policy { allow: rules(allow), deny: rules(deny) }
}

/// A launcher whose sandboxes get out.
fn open(options: &LauncherOptions) -> Option<Launcher> {
    let launcher = launcher_with(options)?;
    let found = launcher.report().features.iter().find(|it| it.name == "egress").unwrap();
    assert!(found.in_force && found.detail.starts_with("IPv4 and IPv6"), "{found:?}");
    Some(launcher)
}

fn outward(arguments: &[&str]) -> Spec {
    Spec { network: Network::Egress, ..probe(arguments) }
}

/// One answer for each address, of one sandbox.
fn tell(launcher: &Launcher, spec: &Spec) -> Vec<String> {
    let ran = run(launcher, spec);
    assert_eq!(ran.code(), Some(0), "{ran:?}");
    ran.output.split('|').map(str::to_owned).collect()
}

fn dial(launcher: &Launcher, kind: &str, addresses: &[String]) -> Vec<String> {
    let mut arguments = vec![kind];
    arguments.extend(addresses.iter().map(String::as_str));
    tell(launcher, &outward(&arguments))
}

fn with_port(addresses: &[&str], port: u16) -> Vec<String> {
    let one = |address: &&str| match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    };
    addresses.iter().map(one).collect()
}

fn all_refused(answers: &[String], addresses: &[String]) {
    assert_eq!(answers.len(), addresses.len(), "{answers:?}");
    for (answer, address) in answers.iter().zip(addresses) {
        assert!(answer.starts_with("err"), "{address}: {answer}");
    }
}

#[test]
fn public_servers_are_reached_under_the_hosts_own_address() {
    let Some(world) = World::new() else { return };
    let tcp = world.serve(&world.internet);
    let udp = world.serve_datagrams(&world.internet, &PUBLIC);
    let Some(launcher) = open(&egress(|_| {})) else { return };
    let names = ["you are 203.0.113.2", "you are 203.0.113.2", "you are 2001:db8:1::2"];
    assert_eq!(dial(&launcher, "dial", &with_port(&PUBLIC, tcp)), names);
    assert_eq!(dial(&launcher, "datagram", &with_port(&PUBLIC, udp)), names);
    // Without the wish there is no way out.
    let arguments = with_port(&PUBLIC, tcp);
    let mut inward = vec!["dial"];
    inward.extend(arguments.iter().map(String::as_str));
    all_refused(&tell(&launcher, &probe(&inward)), &arguments);
}

#[test]
fn private_servers_are_refused_unless_they_are_allowed() {
    let Some(world) = World::new() else { return };
    let tcp = world.serve(&world.internet);
    let udp = world.serve_datagrams(&world.internet, &PRIVATE);
    let Some(launcher) = open(&egress(|_| {})) else { return };
    for (kind, port) in [("dial", tcp), ("datagram", udp)] {
        let addresses = with_port(&[&PRIVATE[..], &NEVER[..]].concat(), port);
        all_refused(&dial(&launcher, kind, &addresses), &addresses);
    }
    launcher.stop();
    let opened = policy(
        &["0.0.0.0/0", "::/0", "10.0.0.0/8", "172.16.0.0/12", "100.64.0.0/10", "fc00::/7", "::/3"],
        &[],
    );
    let Some(launcher) = open(&egress(|it| it.policy = opened)) else { return };
    let answers = dial(&launcher, "dial", &with_port(&PRIVATE[..4], tcp));
    assert!(answers.iter().all(|answer| answer.starts_with("you are")), "{answers:?}");
    let never = with_port(&NEVER, tcp);
    all_refused(&dial(&launcher, "dial", &never), &never);
}

#[test]
fn rules_know_ports_and_the_most_specific_decides() {
    let Some(world) = World::new() else { return };
    let (one, other) = (world.serve(&world.internet), world.serve(&world.internet));
    let allow = [format!("10.9.9.9:{one}"), format!("[fd12::/16]:{one}")];
    let allow: Vec<&str> = allow.iter().map(String::as_str).collect();
    let chosen = policy(&allow, &["203.0.113.0/24", "[2001:db8:2::/48]:1-65535"]);
    let Some(launcher) = open(&egress(|it| it.policy = chosen)) else { return };
    let open = with_port(&["10.9.9.9", "fd12::9", "198.51.100.7"], one);
    let answers = dial(&launcher, "dial", &open);
    assert!(answers.iter().all(|answer| answer.starts_with("you are")), "{answers:?}");
    let mut shut = with_port(&["10.9.9.9", "fd12::9"], other);
    shut.extend(with_port(&["203.0.113.10", "2001:db8:2::10"], one));
    all_refused(&dial(&launcher, "dial", &shut), &shut);
}

#[test]
fn nothing_of_the_host_and_of_other_sandboxes_is_reached() {
    let Some(world) = World::new() else { return };
    let tcp = world.serve(&world.host);
    // Even what is allowed by name.
    let opened = policy(&["192.168.0.0/16", "fd00::/8", "203.0.113.2", "198.18.0.0/15"], &[]);
    let Some(launcher) = open(&egress(|it| it.policy = opened)) else { return };
    let shown = world::run("ip", &["-o", "address", "show"]);
    let own = shown.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next());
    let own: Vec<&str> = own.filter(|address| !address.starts_with("fe80")).collect();
    assert!(HOST.iter().all(|address| own.contains(address)) && own.len() > HOST.len());
    let udp = world.serve_datagrams(&world.host, &own);
    for (kind, port) in [("dial", tcp), ("datagram", udp)] {
        let addresses = with_port(&own, port);
        all_refused(&dial(&launcher, kind, &addresses), &addresses);
    }
    // An address that the host gets later is one of its own at once.
    ip("address add 203.0.113.77/32 dev lan");
    let late = with_port(&["203.0.113.77"], tcp);
    all_refused(&dial(&launcher, "dial", &late), &late);
    // Another sandbox, though it listens and is reached from where it is.
    let victim = Victim::start(&launcher, tcp);
    victim.answers(&world);
    let mut others = victim.addresses(tcp);
    others.extend(with_port(&["198.19.0.1", "fd6c:6163:6577::100"], tcp));
    all_refused(&dial(&launcher, "dial", &others), &others);
    victim.answers(&world);
}

/// A sandbox that listens on all of its addresses.
struct Victim {
    port: u16,
    /// Those on its way out, of both families.
    own: Vec<String>,
    namespace: File,
    /// It goes with these.
    _running: (Sandbox, File),
}

impl Victim {
    /// Starts it: the only sandbox of its launcher.
    fn start(launcher: &Launcher, port: u16) -> Self {
        let spec = outward(&["echo", &port.to_string()]);
        let (sandbox, mut output) = start(launcher, &spec);
        ready(&sandbox);
        let mut said = [0; 256];
        let length = output.read(&mut said).unwrap();
        let said = String::from_utf8_lossy(&said[..length]).into_owned();
        let own: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
        assert!(own.len() == 2 && own[0].starts_with("198.19.") && own[1].contains(':'), "{said}");
        Self { port, own, namespace: network_of(launcher), _running: (sandbox, output) }
    }

    fn addresses(&self, port: u16) -> Vec<String> {
        with_port(&self.own.iter().map(String::as_str).collect::<Vec<_>>(), port)
    }

    /// What refuses others is not that nobody listens.
    fn answers(&self, world: &World) {
        for address in self.addresses(self.port) {
            let heard = world.inside(&self.namespace, || {
                let mut heard = [0; 4];
                TcpStream::connect(&address).unwrap().read_exact(&mut heard).map(|()| heard)
            });
            assert_eq!(heard.unwrap(), *b"here", "{address}");
        }
    }
}

/// The network namespace of the only sandbox that a launcher has.
fn network_of(launcher: &Launcher) -> File {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", launcher.pid()));
    let has_link = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/net/dev")).is_ok_and(|text| text.contains("eth0:"))
    };
    let children = children.unwrap();
    let init = children.split_whitespace().find(has_link).unwrap();
    File::open(format!("/proc/{init}/ns/net")).unwrap()
}

#[test]
fn the_host_and_its_neighbours_do_not_reach_a_sandbox() {
    let Some(world) = World::new() else { return };
    let Some(launcher) = open(&egress(|_| {})) else { return };
    let victim = Victim::start(&launcher, 7000);
    victim.answers(&world);
    world.inside(&world.internet, || {
        ip("route add 198.19.0.0/16 via 203.0.113.2");
        ip(&format!("route add {}/128 via 2001:db8:1::2", victim.own[1]));
    });
    for address in victim.addresses(7000) {
        let address = address.parse().unwrap();
        let attempt = || TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_err();
        assert!(attempt() && world.inside(&world.internet, attempt), "{address}");
    }
    victim.answers(&world);
}

#[test]
fn one_sandbox_cannot_have_all_connections() {
    let Some(world) = World::new() else { return };
    let port = world.serve(&world.internet);
    let Some(launcher) = open(&egress(|it| it.connections = 40)) else { return };
    let flooded = tell(&launcher, &outward(&["flood", &format!("203.0.113.10:{port}"), "100"]));
    assert_eq!(flooded, ["40 then errno 111"]);
    // Another one has its own.
    let free = with_port(&["203.0.113.10"], port);
    assert_eq!(dial(&launcher, "dial", &free), ["you are 203.0.113.2"]);
}

#[test]
fn bytes_are_counted() {
    let Some(world) = World::new() else { return };
    let port = world.serve(&world.internet);
    let Some(launcher) = open(&egress(|_| {})) else { return };
    let spec = outward(&["dial", &format!("203.0.113.10:{port}")]);
    let (sandbox, _output) = start(&launcher, &spec);
    finish(&sandbox);
    let traffic = sandbox.traffic().unwrap();
    assert!((200..4_000).contains(&traffic.sent), "{traffic:?}");
    assert!((200..4_000).contains(&traffic.received), "{traffic:?}");
    let ran = run(&launcher, &shell("exit 0"));
    assert_eq!(ran.code(), Some(0), "{ran:?}");
    let (quiet, _output) = start(&launcher, &shell("exit 0"));
    finish(&quiet);
    assert!(quiet.traffic().is_err());
}

#[test]
fn bytes_take_as_long_as_the_bound_wants_in_each_direction() {
    const RATE: u64 = 2 << 20;
    const BYTES: u64 = 4 << 20;
    let Some(world) = World::new() else { return };
    let listen = || world.inside(&world.internet, || TcpListener::bind("[::]:0").unwrap());
    let Some(launcher) = open(&egress(|it| it.bytes_per_second = Some(RATE))) else { return };
    // All but the tenth of a second that may go at once. A busy host only makes it longer.
    let least = Duration::from_millis(1000 * (BYTES - RATE / 10) / RATE);
    for server in ["203.0.113.10", "[2001:db8:2::10]"] {
        let sink = listen();
        let address = format!("{server}:{}", sink.local_addr().unwrap().port());
        let (sandbox, _output) = start(&launcher, &outward(&["pour", &address]));
        let (stream, _) = sink.accept().unwrap();
        let began = Instant::now();
        assert_eq!(io::copy(&mut stream.take(BYTES), &mut io::sink()).unwrap(), BYTES);
        assert!(began.elapsed() >= least, "out in {:?}", began.elapsed());
        sandbox.kill();
        finish(&sandbox);
        let spring = listen();
        let address = format!("{server}:{}", spring.local_addr().unwrap().port());
        let pouring = thread::spawn(move || {
            let (mut stream, _) = spring.accept().unwrap();
            // Until the sandbox has had enough.
            while stream.write_all(&[7; 1 << 16]).is_ok() {}
        });
        let told = tell(&launcher, &outward(&["drink", &address, &BYTES.to_string()]));
        let took = Duration::from_millis(told[0].parse().unwrap());
        assert!(took >= least, "in in {took:?}");
        pouring.join().unwrap();
    }
}

#[test]
fn a_sandbox_has_no_power_over_its_interface() {
    let Some(_world) = World::new() else { return };
    let Some(launcher) = open(&egress(|_| {})) else { return };
    // socket(AF_PACKET), socket(AF_INET, SOCK_RAW), socket(AF_INET6, SOCK_RAW), socket(AF_NETLINK),
    // socket(AF_INET, SOCK_DGRAM, ICMP).
    let calls = ["41,17,3,3", "41,2,3,1", "41,10,3,58", "41,16,3,0", "41,2,2,1"];
    let mut arguments = vec!["syscall"];
    arguments.extend(calls);
    let refused = tell(&launcher, &outward(&arguments));
    assert!(refused.iter().all(|errno| errno != "0"), "{refused:?}");
    for path in ["ipv4/ip_forward", "ipv4/conf/eth0/rp_filter", "ipv4/ping_group_range"] {
        let answer = tell(&launcher, &outward(&["write", &format!("/proc/sys/net/{path}")]));
        assert!(["errno 30", "errno 13"].contains(&answer[0].as_str()), "{path}: {answer:?}");
    }
    // Nobody answers or believes an address resolution: there is none.
    let seen = tell(&launcher, &outward(&["read-text", "/proc/net/arp"]));
    assert!(seen[0].starts_with("IP address") && !seen[0].contains("198."), "{seen:?}");
}

#[test]
fn forged_sources_do_not_get_past_the_router() {
    let Some(world) = World::new() else { return };
    let port = world.serve_datagrams(&world.internet, &["203.0.113.10", "2001:db8:2::10"]);
    let Some(launcher) = open(&egress(|_| {})) else { return };
    let (sandbox, _output) = start(&launcher, &outward(&["sleep"]));
    ready(&sandbox);
    let namespace = network_of(&launcher);
    // With rights over the interface that nobody inside has.
    world.inside(&namespace, || {
        for forged in ["198.51.100.99", "198.19.200.200", "203.0.113.2", "2001:db8:9::9"] {
            let flag = if forged.contains(':') { "nodad" } else { "" };
            ip(&format!("address add {forged} dev eth0 {flag}"));
            let server = if forged.contains(':') { "2001:db8:2::10" } else { "203.0.113.10" };
            let answered = |from: &str, within_ms| {
                let socket = UdpSocket::bind((from, 0)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(within_ms))).unwrap();
                socket.send_to(b"ping", (server, port)).unwrap();
                socket.recv(&mut [0; 64]).is_ok()
            };
            assert!(!answered(forged, 300), "{forged}");
            ip(&format!("address delete {forged} dev eth0"));
            let any = if forged.contains(':') { "::" } else { "0.0.0.0" };
            assert!(answered(any, 5_000), "{forged}");
        }
    });
}

#[test]
fn nothing_stays_however_it_ends() {
    let Some(_world) = World::new() else { return };
    let of_us = || {
        let links = world::run("ip", &["-o", "link", "show"]);
        let tables = world::run("nft", &["list", "tables"]);
        (links.contains(": lw"), tables.contains("lacewing"))
    };
    let forwards = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim() == "1";
    let options = egress(|_| {});
    let Some(launcher) = open(&options) else { return };
    assert_eq!((of_us(), forwards()), ((true, true), true));
    launcher.stop();
    assert_eq!((of_us(), forwards()), ((false, false), false));
    // The server is killed: the launcher ends and takes all back.
    let mut server = serve(&options);
    eventually("the server has its network", || of_us() == (true, true));
    server.kill().unwrap();
    server.wait().unwrap();
    eventually("nothing is left", || of_us() == (false, false) && !forwards());
    // The launcher is killed: the kernel takes back all but the switch, the next one that too.
    let server = Server(serve(&options));
    eventually("the server has its network", || of_us() == (true, true));
    let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.0.id())).unwrap();
    let launcher = child.trim().parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(launcher, rustix::process::Signal::KILL).unwrap();
    drop(server);
    eventually("the kernel took it back", || of_us() == (false, false));
    assert!(forwards());
    // Also one of another server, whose own was not touched.
    let Some(launcher) = open(&egress(|_| {})) else { return };
    launcher.stop();
    assert_eq!((of_us(), forwards()), ((false, false), false));
}

/// Is killed at the end.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn rules_of_others_stay_and_those_that_stop_us_are_named() {
    let Some(_world) = World::new() else { return };
    let theirs =
        "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }";
    world::run("nft", &[theirs]);
    let before = world::run("nft", &["list", "ruleset"]);
    let options = egress(|_| {});
    let Some(launcher) = launcher_with(&options) else { return };
    let found = launcher.report().features.iter().find(|it| it.name == "egress").unwrap().clone();
    assert!(!found.in_force, "{found:?}");
    assert!(found.detail.contains("the chain FORWARD of table filter"), "{found:?}");
    let remedy = found.remedy.unwrap();
    assert!(remedy.contains("iptables -I DOCKER-USER -i lw"), "{remedy}");
    launcher.stop();
    assert_eq!(world::run("nft", &["list", "ruleset"]), before);
    // The remedy helps.
    let interface = remedy.split_whitespace().find(|word| word.starts_with("lw")).unwrap();
    for way in ["iifname", "oifname"] {
        world::run("nft", &[&format!("add rule ip filter FORWARD {way} {interface} accept")]);
    }
    let Some(launcher) = open(&options) else { return };
    launcher.stop();
}

#[test]
fn a_host_that_must_not_be_changed_is_not() {
    let Some(_world) = World::new() else { return };
    let Some(launcher) = launcher_with(&egress(|it| it.may_forward = false)) else { return };
    let found = launcher.report().features.iter().find(|it| it.name == "egress").unwrap();
    assert!(!found.in_force && found.detail.contains("ip_forward is 0"), "{found:?}");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "0");
}

/// A server with one sandbox, to be killed.
fn serve(options: &LauncherOptions) -> std::process::Child {
    let spec = outward(&["sleep"]);
    let arguments =
        [serde_json::to_string(options).unwrap(), serde_json::to_string(&spec).unwrap()];
    Command::new(PROBE).arg("__server").args(arguments).stdin(Stdio::null()).spawn().unwrap()
}
