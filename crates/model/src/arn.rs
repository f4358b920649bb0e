//! Function ARNs, and the shorter forms in which a caller may name a function.
//!
//! Source: "Invoke", parameter `FunctionName`,
//! <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>: a name, a partial ARN
//! (`123456789012:function:name`) or a whole ARN, each with or without a qualifier. `PATTERN` is
//! what counts: it lets any part before the name be left out.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{AccountId, Error, FunctionName, Kind, Qualifier, Region, Result, Version};

/// The pattern of a function's name in the public API model.
const PATTERN: &str = r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-gov)?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?";

/// Which function, across all tenants and regions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionKey {
    /// The tenant.
    pub account: AccountId,
    /// The region.
    pub region: Region,
    /// The name within the tenant and region.
    pub name: FunctionName,
}

impl FunctionKey {
    /// The ARN without a qualifier.
    pub fn arn(&self) -> FunctionArn {
        FunctionArn { key: self.clone(), qualifier: None }
    }

    /// The ARN with a qualifier, if there is one.
    pub fn qualified_arn(&self, qualifier: Option<Qualifier>) -> FunctionArn {
        FunctionArn { key: self.clone(), qualifier }
    }
}

/// Which version of which function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionKey {
    /// The function.
    pub function: FunctionKey,
    /// The version.
    pub version: Version,
}

impl VersionKey {
    /// The ARN; that of `$LATEST` has no qualifier.
    pub fn arn(&self) -> FunctionArn {
        match self.version {
            Version::Latest => self.function.arn(),
            version @ Version::Published(_) => self.function.qualified_arn(Some(version.into())),
        }
    }
}

impl From<FunctionKey> for VersionKey {
    fn from(function: FunctionKey) -> Self {
        Self { function, version: Version::Latest }
    }
}

/// `arn:aws:lambda:REGION:ACCOUNT:function:NAME[:QUALIFIER]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionArn {
    /// The function.
    pub key: FunctionKey,
    /// The version or alias, if the ARN names one.
    pub qualifier: Option<Qualifier>,
}

impl fmt::Display for FunctionArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FunctionKey { account, region, name } = &self.key;
        write!(f, "arn:aws:lambda:{region}:{account}:function:{name}")?;
        match &self.qualifier {
            Some(qualifier) => write!(f, ":{qualifier}"),
            None => Ok(()),
        }
    }
}

/// A function as a caller names it: what he left out comes from his own account and region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRef {
    /// The account, if it was named.
    pub account: Option<AccountId>,
    /// The region, if it was named.
    pub region: Option<Region>,
    /// The function's name.
    pub name: FunctionName,
    /// The qualifier, if it was named.
    pub qualifier: Option<Qualifier>,
}

impl FunctionRef {
    /// Fills in what the caller left out.
    pub fn key(&self, account: &AccountId, region: &Region) -> FunctionKey {
        FunctionKey {
            account: self.account.clone().unwrap_or_else(|| account.clone()),
            region: self.region.clone().unwrap_or_else(|| region.clone()),
            name: self.name.clone(),
        }
    }
}

impl FromStr for FunctionRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut rest = text;
        if let Some((partition, tail)) = partition(text) {
            if !matches!(partition, "" | "aws") {
                let message = format!(
                    "Functions from partition '{partition}' are not reachable in this partition \
                     ('aws')"
                );
                return Err(Error::new(Kind::NotFound, message));
            }
            rest = tail;
        }
        let region = take(&mut rest, is_region).map(Region::new).transpose()?;
        let account = take(&mut rest, |head, _| is_account(head));
        let account = account.map(AccountId::new).transpose()?;
        take(&mut rest, |head, _| head == "function");
        let (name, qualifier) = match rest.split_once(':') {
            None => (rest, None),
            Some((name, qualifier)) => (name, Some(qualifier)),
        };
        let is_qualifier = |text: &str| text == "$LATEST" || is_word(text);
        if !is_word(name) || !qualifier.is_none_or(is_qualifier) {
            return Err(malformed(text));
        }
        let name = FunctionName::new(name)?;
        Ok(Self { account, region, name, qualifier: qualifier.map(str::parse).transpose()? })
    }
}

/// The partition of a text that begins as an ARN of Lambda, and what follows.
fn partition(text: &str) -> Option<(&str, &str)> {
    let (partition, rest) = text.strip_prefix("arn:")?.split_once(':')?;
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'-';
    let is_partition = partition.is_empty()
        || partition.strip_prefix("aws").is_some_and(|tail| tail.bytes().all(is_letter));
    Some((partition, rest.strip_prefix("lambda:").filter(|_| is_partition)?))
}

/// Takes the first part off `rest` if it is what `wanted` says of it and of what follows, and if a
/// name can follow: a pattern's optional group gives way where the rest would not match.
fn take<'a>(rest: &mut &'a str, wanted: impl Fn(&str, &str) -> bool) -> Option<&'a str> {
    let (head, tail) = rest.split_once(':')?;
    if tail == "$LATEST" || !wanted(head, tail) {
        return None;
    }
    *rest = tail;
    Some(head)
}

/// Whether a part is a region as AWS names its own, or, before an account, one of another name.
fn is_region(head: &str, tail: &str) -> bool {
    let parts: Vec<&str> = head.split('-').collect();
    let is_lower = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase());
    let is_aws = match parts.as_slice() {
        [country, place, digit] | [country, "gov", place, digit] => {
            country.len() == 2
                && is_lower(country)
                && is_lower(place)
                && matches!(digit.as_bytes(), [b'0'..=b'9'])
        }
        _ => false,
    };
    let is_ours = || {
        let is_other_part = head == "function" || is_account(head);
        let account = tail.split_once(':').map(|(account, _)| account);
        !is_other_part && account.is_some_and(is_account) && Region::new(head).is_ok()
    };
    is_aws || is_ours()
}

fn is_account(text: &str) -> bool {
    AccountId::new(text).is_ok()
}

fn is_word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.bytes().all(allowed)
}

fn malformed(text: &str) -> Error {
    let message = format!(
        "1 validation error detected: Value '{text}' at 'functionName' failed to satisfy \
         constraint: Member must satisfy regular expression pattern: {PATTERN}"
    );
    Error::new(Kind::Constraint, message)
}

#[cfg(test)]
mod tests;
