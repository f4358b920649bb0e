//! Outbound network of sandboxes: what may be reached, and the way there. As root:
//!
//! ```text
//!  sandbox eth0 --veth-- sN  router namespace  up --veth-- lwHASH  host  --forward, masquerade--> out
//!                            rules, DNS address               table of our own
//! ```
//!
//! The launcher owns a *router* namespace that has no name: it is an open descriptor, and goes with
//! the launcher. Everything that decides what a sandbox may reach is in the router's rules; the
//! host gets one interface and one table that the kernel removes when the launcher ends. Sandboxes'
//! namespaces are made ahead ([`Pool`]), are used once, and belong to the launcher's user
//! namespace, so that nobody inside has a capability over them.
//!
//! An ordinary user has no place in the host's network: its router's uplink leads to the program
//! pasta(1), which opens the connections anew ([`pasta`]). Rules, pool and relay are the same.
//!
//! Nothing here touches a rule, route or interface that is not ours; forwarding, which is one
//! switch for the whole host, is changed only if that was not refused, and put back ([`forwarding`]).

mod addresses;
mod forwarding;
mod host;
mod keeper;
mod local;
mod namespace;
mod netlink;
mod nft;
mod pasta;
mod pool;
mod route;
mod router;
mod rules;
mod ruleset;
mod trial;

use serde::{Deserialize, Serialize};

use crate::step::Failure;

pub use addresses::NAMESERVER;
pub(crate) use namespace::Namespace;
pub(crate) use pasta::Begun;
pub(crate) use pool::{Pool, Pooled};
pub(crate) use router::{NameSockets, Router};
pub use rules::{Action, InvalidRule, Policy, Range, Rule};

/// What a sandbox may reach of the network.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Its own loopback only.
    #[default]
    None,
    /// What the [`Policy`] leaves, for connections that it opens.
    Egress,
}

/// How the network of sandboxes is set up, once for a launcher.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkOptions {
    /// The most that any sandbox gets; with `None` the host is left alone.
    pub mode: Network,
    /// What may be reached.
    pub policy: Policy,
    /// Connections (entries of the connection tracking) that one sandbox may have at a time.
    pub connections: u32,
    /// Most bytes a second in each direction of one sandbox; unbounded when absent.
    pub bytes_per_second: Option<u64>,
    /// Whether the host's switches for forwarding may be turned on.
    pub may_forward: bool,
}

impl NetworkOptions {
    /// Connections of one sandbox unless another number is chosen: as many as descriptors on Lambda.
    pub const CONNECTIONS: u32 = 1024;

    /// No network but each sandbox's own loopback.
    #[must_use]
    pub fn none() -> Self {
        Self { mode: Network::None, ..Self::egress() }
    }

    /// Everything public may be reached.
    #[must_use]
    pub fn egress() -> Self {
        Self {
            mode: Network::Egress,
            policy: Policy::default(),
            connections: Self::CONNECTIONS,
            bytes_per_second: None,
            may_forward: true,
        }
    }
}

/// Why there is no way out, and what the operator can do about it.
#[derive(Clone, Debug)]
pub(crate) struct Lack {
    pub(crate) why: String,
    pub(crate) remedy: String,
}

impl Lack {
    pub(crate) fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

impl From<Failure> for Lack {
    fn from(Failure(why): Failure) -> Self {
        let remedy = "Linux 5.12 or newer with nf_tables, veth and connection tracking is needed; \
                      inside a container also CAP_NET_ADMIN and a writable /proc/sys/net.";
        Self::new(why, remedy)
    }
}

/// Bytes that went in and out of one sandbox since it was made, its headers included.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Bytes that the sandbox received.
    pub received: u64,
    /// Bytes that the sandbox sent.
    pub sent: u64,
}
