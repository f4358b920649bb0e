//! Function ARNs, and the shorter forms in which a caller may name a function.
//!
//! Source: "Invoke", parameter `FunctionName`,
//! <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>: a name, a name with a
//! qualifier, a partial ARN (`123456789012:function:name`) or a whole ARN, each of the last two
//! with or without a qualifier.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{AccountId, Error, FunctionName, Kind, Qualifier, Region, Result};

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
        let parts: Vec<&str> = text.splitn(9, ':').collect();
        let qualifier = |part: &&str| part.parse().map(Some);
        let (account, region, name, qualifier) = match parts.as_slice() {
            [name] => (None, None, name, None),
            [name, q] => (None, None, name, qualifier(q)?),
            [account, "function", name] => (Some(account), None, name, None),
            [account, "function", name, q] => (Some(account), None, name, qualifier(q)?),
            ["arn", "aws", "lambda", region, account, "function", name] => {
                (Some(account), Some(region), name, None)
            }
            ["arn", "aws", "lambda", region, account, "function", name, q] => {
                (Some(account), Some(region), name, qualifier(q)?)
            }
            _ => return Err(malformed(text)),
        };
        Ok(Self {
            account: account.map(|account| AccountId::new(account)).transpose()?,
            region: region.map(|region| Region::new(region)).transpose()?,
            name: FunctionName::new(name)?,
            qualifier,
        })
    }
}

fn malformed(text: &str) -> Error {
    let message = format!(
        "1 validation error detected: Value '{text}' at 'functionName' failed to satisfy \
         constraint: Member must satisfy regular expression pattern: \
         (arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{{2}}(-gov)?-[a-z]+-\\d{{1}}:)?(\\d{{12}}:)?(function:)?([a-zA-Z0-9-_]+)(:(\\$LATEST|[a-zA-Z0-9-_]+))?"
    );
    Error::new(Kind::Constraint, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> FunctionRef {
        text.parse().expect("a valid reference")
    }

    #[test]
    fn every_documented_form_is_read() {
        assert_eq!(parse("hello").name.as_str(), "hello");
        assert_eq!(parse("hello:live").qualifier, Some(Qualifier::Alias("live".into())));
        let partial = parse("123456789012:function:hello:3");
        assert_eq!(partial.account.as_ref().map(AccountId::as_str), Some("123456789012"));
        assert_eq!(partial.qualifier, Some(Qualifier::Version(3)));
        let whole = parse("arn:aws:lambda:eu-west-1:123456789012:function:hello:$LATEST");
        assert_eq!(whole.region.as_ref().map(Region::as_str), Some("eu-west-1"));
        assert_eq!(whole.qualifier, Some(Qualifier::Latest));
    }

    #[test]
    fn an_arn_survives_its_text_form() {
        let text = "arn:aws:lambda:eu-west-1:123456789012:function:hello:live";
        let reference = parse(text);
        let account = AccountId::new("000000000000").expect("valid");
        let key = reference.key(&account, &Region::new("us-east-1").expect("valid"));
        assert_eq!(key.qualified_arn(reference.qualifier).to_string(), text);
    }

    #[test]
    fn other_services_and_paths_are_refused() {
        for text in ["", "a:b:c", "arn:aws:s3:::bucket", "../x", "a/b", "1:function:x"] {
            assert!(text.parse::<FunctionRef>().is_err(), "{text} was accepted");
        }
    }

    proptest! {
        #[test]
        fn hostile_references_are_refused_without_a_panic(text in "\\PC{0,200}") {
            let _parsed = text.parse::<FunctionRef>().is_ok();
        }
    }
}
