//! The uplink of an ordinary user: an interface of the router behind which pasta(1) opens every
//! connection anew, as a program of this user on the host.
//!
//! ```text
//!  sandbox eth0 --veth-- sN  router namespace  up --tap-- pasta, in the host's namespace --> out
//!                            rules, DNS address             sockets of the server's user
//! ```
//!
//! The rules are the router's, as for root. Nothing of the host is changed; what is the host's own is
//! refused by address ([`Locals`]), as a program on the host would reach it. If that cannot be known
//! any more, the program is ended.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::step::{Failure, Step};

use super::addresses::{TAP, TAP_PREFIX};
use super::keeper::{Keeper, Word};
use super::local::Locals;
use super::namespace::Namespace;
use super::netlink::{Batch, Socket};
use super::nft::{IPV4, IPV6};
use super::{Lack, route, ruleset};

/// Where distributions install it. Others are not looked for: it gets the rights of the launcher.
const PROGRAMS: [&str; 2] = ["/usr/bin/pasta", "/usr/local/bin/pasta"];
const TUN: &str = "/dev/net/tun";

/// It takes some tens of milliseconds.
const ATTEMPTS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// What must be begun while this process is in the host's namespace.
#[derive(Debug)]
pub(crate) struct Begun {
    program: &'static str,
    locals: Locals,
    keeper: Keeper,
}

/// The running uplink.
#[derive(Debug)]
pub(super) struct Pasta {
    locals: Locals,
    /// Speaks of the router's rules.
    filter: Socket,
    keeper: Keeper,
    has_v4: bool,
    lacks_v6: Option<String>,
}

impl Begun {
    /// Looks for what is needed, and starts what has to stay in the host's namespace.
    pub(crate) fn new() -> Result<Self, Lack> {
        let Some(program) = PROGRAMS.into_iter().find(|program| is_program(program)) else {
            let why = "an ordinary user needs the program pasta for the way out";
            let remedy = "Install pasta (in Debian and Ubuntu the package `passt`), or run the \
                          server as root.";
            return Err(Lack::new(why, remedy));
        };
        if let Err(error) = File::options().read(true).write(true).open(TUN) {
            let why = format!("pasta needs {TUN}: {error}");
            let remedy = "Load the module and let users open the device: `modprobe tun; chmod 666 \
                          /dev/net/tun`, or run the server as root.";
            return Err(Lack::new(why, remedy));
        }
        let locals = Locals::open().step("listen to changes of the host's addresses")?;
        let keeper = Keeper::start().step("start the keeper of pasta")?;
        Ok(Self { program, locals, keeper })
    }

    /// Runs the program behind this router, of which the sockets speak, and waits until it serves.
    pub(super) fn connect(
        self,
        router: &Namespace,
        inside: &Socket,
        filter: Socket,
        kernel_has_v6: bool,
    ) -> Result<Pasta, Lack> {
        let Self { program, locals, keeper } = self;
        refuse_local(&locals, &filter)?;
        let wants_v6 = kernel_has_v6 && locals.has_default(IPV6);
        let wanted = [(IPV4, locals.has_default(IPV4)), (IPV6, wants_v6)];
        let wanted = wanted.into_iter().filter_map(|(family, wanted)| wanted.then_some(family));
        let wanted: Vec<u8> = wanted.collect();
        if wanted.is_empty() {
            let remedy = "Connect the host to a network, then restart the server.";
            return Err(Lack::new("the host has no default route", remedy));
        }
        keeper.run(arguments(program, &wanted), router.as_fd()).step("run pasta")?;
        wait(&keeper, inside, &wanted)?;
        let has_v4 = wanted.contains(&IPV4);
        let lacks_v6 = match (kernel_has_v6, wants_v6) {
            (true, true) => None,
            (true, false) => Some("the host has no default route for it".to_owned()),
            (false, _) => Some("this kernel has none".to_owned()),
        };
        Ok(Pasta { locals, filter, keeper, has_v4, lacks_v6 })
    }
}

impl Pasta {
    /// Why there is no IPv6, if there is none.
    pub(super) fn lacks_v6(&self) -> Option<&str> {
        self.lacks_v6.as_deref()
    }

    /// Says what goes through it.
    pub(super) fn detail(&self) -> String {
        match (self.has_v4, &self.lacks_v6) {
            (true, None) => "by pasta, IPv4 and IPv6".to_owned(),
            (_, Some(why)) => format!("by pasta, IPv4 (no IPv6: {why})"),
            (false, None) => {
                "by pasta, IPv6 (no IPv4: the host has no default route for it)".to_owned()
            }
        }
    }

    /// Can be read when the host's addresses may have changed.
    pub(super) fn watched(&self) -> BorrowedFd<'_> {
        self.locals.as_fd()
    }

    /// Refuses the addresses that the host has now; without knowing them there is no way out.
    pub(super) fn host_changed(&mut self) {
        if self.locals.has_changed() && refuse_local(&self.locals, &self.filter).is_err() {
            self.keeper.end();
        }
    }

    /// Ends the program.
    pub(super) fn close(mut self) {
        self.keeper.end();
    }
}

fn is_program(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

fn refuse_local(locals: &Locals, filter: &Socket) -> Result<(), Failure> {
    let found = locals.list().step("list the host's addresses")?;
    filter.ask(&ruleset::local(&found)).step("refuse the host's addresses")?;
    Ok(())
}

/// What it is told: to join the router, which is its standard input, to open connections for it, and
/// to open, forward and answer nothing else.
fn arguments(program: &str, families: &[u8]) -> Vec<String> {
    let mut words: Vec<String> = [
        program,
        // It would leave its keeper, or end by a mistake of its own when it watches a descriptor.
        "--foreground",
        "--no-netns-quit",
        "--quiet",
        "--netns",
        "/proc/self/fd/0",
        "--ns-ifname",
        ruleset::UPLINK,
        "--config-net",
        "--tcp-ports=none",
        "--udp-ports=none",
        "--tcp-ns=none",
        "--udp-ns=none",
        // Its other end would be the host itself.
        "--no-map-gw",
        // Not --no-icmp: old ones then answer no neighbour either. The router lets no echo through.
        "--no-dhcp",
        "--no-dhcpv6",
        "--no-ra",
    ]
    .map(str::to_owned)
    .into();
    let mut both = |address: String, gateway: String| {
        words.extend(["--address".to_owned(), address, "--gateway".to_owned(), gateway]);
    };
    if families.contains(&IPV4) {
        both(TAP.ours.v4.to_string(), TAP.host.v4.to_string());
    }
    if let (true, Some(ours), Some(host)) = (families.contains(&IPV6), TAP.ours.v6, TAP.host.v6) {
        both(ours.to_string(), host.to_string());
    }
    match families {
        [IPV4] => words.push("--ipv4-only".to_owned()),
        [IPV6] => words.push("--ipv6-only".to_owned()),
        _ => {}
    }
    if families.contains(&IPV4) {
        words.extend(["--netmask".to_owned(), TAP_PREFIX.to_string()]);
    }
    words
}

/// Waits until the interface has its routes, or the program has ended.
fn wait(keeper: &Keeper, inside: &Socket, wanted: &[u8]) -> Result<(), Lack> {
    let has = |family: &u8| -> io::Result<bool> {
        inside.ask(Batch::default().routes(*family, 0)).map(|it| route::has_default(&it))
    };
    let remedy = "Run it by hand to see more (`pasta --config-net ip route`), or run the server as \
                  root.";
    for _ in 0..ATTEMPTS {
        let found: io::Result<Vec<bool>> = wanted.iter().map(has).collect();
        if found.step("look for routes")?.into_iter().all(|found| found) {
            return Ok(());
        }
        match keeper.hear(PAUSE).step("wait for pasta")? {
            None => {}
            Some(Word::Ended(why)) => return Err(Lack::new(format!("pasta: {why}"), remedy)),
        }
    }
    Err(Lack::new("pasta made no interface with a default route", remedy))
}
