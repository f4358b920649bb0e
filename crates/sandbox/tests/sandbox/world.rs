//! A small internet for one test: a namespace that stands for the host, in which the test and its
//! launcher are, and one behind it with servers. Nothing of the real host's network is touched.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// The host's own addresses; `wan` leads to the servers, `lan` is another of its networks.
pub(crate) const HOST: [&str; 4] = ["203.0.113.2", "192.168.77.1", "2001:db8:1::2", "fd77::1"];

/// The namespaces; the test's thread stays in `host`.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) host: File,
    pub(crate) internet: File,
}

impl World {
    /// Makes it around this thread, or says why this host cannot have it.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || Command::new("ip").arg("-V").output().is_err() {
            println!("skipped: namespaces for servers need root and the program ip");
            return None;
        }
        let internet = leave();
        ip("link set lo up");
        let host = leave();
        // A new namespace has what the real host has.
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{switch}"), "0").unwrap();
        }
        let internet_path = format!("/proc/{}/fd/{}", std::process::id(), internet.as_raw_fd());
        ip("link set lo up");
        ip(&format!("link add wan type veth peer name isp netns {internet_path}"));
        ip("link add lan type veth peer name lan-peer");
        for line in [
            "address add 203.0.113.2/24 dev wan",
            "address add 2001:db8:1::2/64 dev wan nodad",
            "address add 192.168.77.1/24 dev lan",
            "address add fd77::1/64 dev lan nodad",
            "link set wan up",
            "link set lan up",
            "link set lan-peer up",
            "route add default via 203.0.113.1",
            "route add default via 2001:db8:1::1",
        ] {
            ip(line);
        }
        let world = Self { host, internet };
        world.inside(&world.internet, || {
            for address in [
                "203.0.113.1/24",
                "203.0.113.10/32",
                "198.51.100.7/32",
                "10.9.9.9/32",
                "172.20.0.1/32",
                "100.64.1.1/32",
                "169.254.169.254/32",
                "198.18.200.1/32",
                "192.0.0.8/32",
            ] {
                ip(&format!("address add {address} dev isp"));
            }
            for address in [
                "2001:db8:1::1/64",
                "2001:db8:2::10/128",
                "fd12::9/128",
                "fd00:ec2::254/128",
                "64:ff9b::a09:909/128",
                "2002:a09:909::1/128",
            ] {
                ip(&format!("address add {address} dev isp nodad"));
            }
            ip("link set isp up");
        });
        Some(world)
    }

    /// Does something in a namespace.
    pub(crate) fn inside<T>(&self, namespace: &File, work: impl FnOnce() -> T) -> T {
        enter(namespace);
        let done = work();
        enter(&self.host);
        done
    }

    /// Serves TCP on all addresses of a namespace: tells whoever says something who it seems to be.
    pub(crate) fn serve(&self, namespace: &File) -> u16 {
        let listener = self.inside(namespace, || TcpListener::bind("[::]:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        detach(std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                detach(std::thread::spawn(move || {
                    // A client that only connects is one, too.
                    let Ok(1..) = stream.read(&mut [0; 64]) else { return };
                    let peer = stream.peer_addr().unwrap().ip().to_canonical();
                    stream.write_all(format!("you are {peer}").as_bytes()).ok();
                }));
            }
        }));
        port
    }

    /// The same with datagrams, each address by a socket of its own, which answers from it.
    pub(crate) fn serve_datagrams(&self, namespace: &File, addresses: &[&str]) -> u16 {
        let mut port = 0;
        for address in addresses {
            let address: IpAddr = address.parse().unwrap();
            let socket = self.inside(namespace, || UdpSocket::bind((address, port)).unwrap());
            port = socket.local_addr().unwrap().port();
            detach(std::thread::spawn(move || {
                while let Ok((_, peer)) = socket.recv_from(&mut [0; 64]) {
                    let text = format!("you are {}", peer.ip());
                    socket.send_to(text.as_bytes(), peer).ok();
                }
            }));
        }
        port
    }
}

/// It runs until the test's process ends.
fn detach(thread: JoinHandle<()>) {
    drop(thread);
}

/// Runs `ip` in the namespace of this thread.
pub(crate) fn ip(line: &str) {
    run("ip", &line.split_whitespace().collect::<Vec<_>>());
}

/// Runs a program in the namespace of this thread; returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Moves this thread into a namespace of its own.
#[expect(deprecated, reason = "its successor is unsafe for flags that are not used here")]
pub(crate) fn leave() -> File {
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}
