//! `[network]`, checked.

use std::net::{IpAddr, SocketAddr};

use lacewing_model::{AccountId, Network, NetworkBounds};
use lacewing_sandbox::{NetworkOptions, Policy, Rule};

use super::settings::{SettingsError, named, refuse};
use super::{Forwarding, Network as Section, NetworkMode};

const LEAST_CONNECTIONS: u32 = 16;
const BYTES_PER_MEGABIT: u64 = 125_000;
const DNS: u16 = 53;

/// How functions get out.
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    /// The most that functions get.
    pub bounds: NetworkBounds,
    /// Whether the server is to start only where functions get out.
    pub is_required: bool,
    /// Resolvers to ask; the host's own if there are none.
    pub resolvers: Vec<SocketAddr>,
    /// What the launcher is told.
    pub options: NetworkOptions,
}

impl NetworkSettings {
    /// The ports at which resolvers may be asked.
    pub(crate) fn resolver_ports(&self) -> impl Iterator<Item = u16> {
        self.resolvers.iter().map(SocketAddr::port).chain([DNS])
    }
}

/// Checks the section and fills in the defaults.
pub(super) fn check(section: &Section) -> Result<NetworkSettings, SettingsError> {
    let mut bounds = NetworkBounds { server: mode(section.mode), ..NetworkBounds::default() };
    for (account, most) in &section.accounts {
        let account = named("network.accounts", AccountId::new(account))?;
        bounds.accounts.insert(account, mode(Some(*most)));
    }
    let policy = Policy {
        allow: rules("network.allow", &section.allow)?,
        deny: rules("network.deny", &section.deny)?,
    };
    if let Some(rule) = policy.futile() {
        let reason =
            format!("{rule} is never reached: it is the host's, a metadata address or such");
        return Err(refuse("network.allow", reason));
    }
    let mut options = match bounds.server {
        Network::None => NetworkOptions::none(),
        Network::Egress => NetworkOptions::egress(),
    };
    options.policy = policy;
    options.may_forward = section.forwarding != Some(Forwarding::Leave);
    options.connections = match section.connections {
        None => NetworkOptions::CONNECTIONS,
        Some(most) if most >= LEAST_CONNECTIONS => most,
        Some(_) => {
            let reason = format!("must be at least {LEAST_CONNECTIONS}");
            return Err(refuse("network.connections", reason));
        }
    };
    options.bytes_per_second = match section.bandwidth_mbit {
        None => None,
        Some(0) => return Err(refuse("network.bandwidth_mbit", "must be at least 1")),
        Some(most) => Some(u64::from(most) * BYTES_PER_MEGABIT),
    };
    let resolvers = section.dns.iter().map(|text| resolver(text)).collect::<Result<_, _>>()?;
    let is_required = section.mode == Some(NetworkMode::Egress);
    Ok(NetworkSettings { bounds, is_required, resolvers, options })
}

fn mode(chosen: Option<NetworkMode>) -> Network {
    match chosen {
        Some(NetworkMode::None) => Network::None,
        Some(NetworkMode::Egress) | None => Network::Egress,
    }
}

fn rules(option: &'static str, texts: &[String]) -> Result<Vec<Rule>, SettingsError> {
    let parse = |text: &String| text.parse().map_err(|error| refuse(option, format!("{error}")));
    texts.iter().map(parse).collect()
}

fn resolver(text: &str) -> Result<SocketAddr, SettingsError> {
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS));
    address.or_else(|_| text.parse()).map_err(|_| {
        refuse("network.dns", format!("'{text}' is no address such as 10.0.0.2 or 10.0.0.2:5353"))
    })
}
