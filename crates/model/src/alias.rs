//! Aliases: names that point to a version of a function, or share calls out between two.

use std::sync::Arc;

use uuid::Uuid;

use crate::{FunctionArn, FunctionKey, Qualifier, RequestId, Version};

/// A name that stands for a version of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    /// The function.
    pub key: FunctionKey,
    /// The name: 1 to 128 letters, digits, `-` and `_`, not all digits.
    pub name: Arc<str>,
    /// The version that it stands for.
    pub version: Version,
    /// Another version, and the part of all calls that goes there, from 0 to 1.
    pub second: Option<(u64, f64)>,
    /// Free text.
    pub description: String,
    /// Changes with every change; the guard for optimistic locking.
    pub revision_id: Uuid,
    /// The function that it was made for, see [`crate::Function::lineage`].
    pub lineage: Uuid,
}

impl Alias {
    /// The ARN.
    pub fn arn(&self) -> FunctionArn {
        self.key.qualified_arn(Some(Qualifier::Alias(self.name.clone())))
    }

    /// The version that serves a request. The id of a request is random, so the versions get their
    /// parts of many requests, and a request that is tried again gets the same one.
    pub fn version_for(&self, request: RequestId) -> Version {
        match self.second {
            Some((second, part)) if fraction(request) < part => Version::Published(second),
            _ => self.version,
        }
    }
}

/// A number from 0 to below 1 out of the random bits of an id.
fn fraction(request: RequestId) -> f64 {
    let (_, low) = request.as_uuid().as_u64_pair();
    // The two highest bits of this half are the same in all ids.
    let bits = u32::try_from((low << 2) >> 32).unwrap_or(u32::MAX);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccountId, FunctionName, Region};

    fn alias(second: Option<(u64, f64)>) -> Alias {
        Alias {
            key: FunctionKey {
                account: AccountId::new("000000000000").expect("valid"),
                region: Region::new("us-east-1").expect("valid"),
                name: FunctionName::new("f").expect("valid"),
            },
            name: "live".into(),
            version: Version::Published(1),
            second,
            description: String::new(),
            revision_id: Uuid::nil(),
            lineage: Uuid::nil(),
        }
    }

    fn share_of_second(part: f64) -> usize {
        let alias = alias(Some((2, part)));
        let served = (0..4_000).map(|_| alias.version_for(RequestId::random()));
        served.filter(|version| *version == Version::Published(2)).count()
    }

    #[test]
    fn calls_are_shared_out_by_weight() {
        assert_eq!(share_of_second(0.0), 0);
        assert_eq!(share_of_second(1.0), 4_000);
        // Six standard deviations around 1,000.
        assert!((836..1_164).contains(&share_of_second(0.25)));
    }

    #[test]
    fn a_request_is_always_served_by_the_same_version() {
        let (alias, request) = (alias(Some((2, 0.5))), RequestId::random());
        let first = alias.version_for(request);
        assert!((0..100).all(|_| alias.version_for(request) == first));
    }

    #[test]
    fn its_arn_has_its_name() {
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:f:live";
        assert_eq!(alias(None).arn().to_string(), arn);
    }
}
