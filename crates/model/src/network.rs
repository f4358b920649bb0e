//! What functions may reach of the network, and who bounds it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{AccountId, Error, Kind, Result};

/// What a function may reach; more comes later in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The platform's own endpoint only.
    None,
    /// Also what the server's operator lets functions reach: by default everything public, as on
    /// Lambda.
    #[default]
    Egress,
}

impl Network {
    /// The environment variable by which a function's owner chooses, as Lambda has others that
    /// speak to the platform (`AWS_LAMBDA_EXEC_WRAPPER`): it belongs to a version, and every client
    /// can set it.
    pub const VARIABLE: &str = "LACEWING_NETWORK";
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "egress" => Ok(Self::Egress),
            _ => {
                let variable = Self::VARIABLE;
                let message = format!("{variable} must be none or egress, not '{text}'.");
                Err(Error::new(Kind::Invalid, message))
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Egress => "egress",
        })
    }
}

/// The most that functions get, whatever they ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkBounds {
    /// Of everybody.
    pub server: Network,
    /// Of some accounts.
    pub accounts: BTreeMap<AccountId, Network>,
}

impl NetworkBounds {
    /// The most that functions of an account get.
    #[must_use]
    pub fn of(&self, account: &AccountId) -> Network {
        self.accounts.get(account).copied().unwrap_or_default().min(self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_bound_holds() {
        let [open, shut] = ["111111111111", "222222222222"].map(|id| AccountId::new(id).unwrap());
        let accounts = BTreeMap::from([(shut.clone(), Network::None)]);
        let bounds = NetworkBounds { server: Network::Egress, accounts };
        assert_eq!((bounds.of(&open), bounds.of(&shut)), (Network::Egress, Network::None));
        let none = NetworkBounds { server: Network::None, ..bounds };
        assert_eq!(none.of(&open), Network::None);
        assert!("host".parse::<Network>().unwrap_err().public().contains("none or egress"));
    }
}
