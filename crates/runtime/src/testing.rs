//! Values that several tests of this crate share.

use uuid::Uuid;

use lacewing_model::function::{Code, State, UpdateStatus};
use lacewing_model::{
    AccountId, Digest, Function, FunctionConfig, FunctionKey, FunctionName, Region, Timestamp,
    Version,
};

/// An active function `hello` of `runtime` without an environment of its own.
pub(crate) fn function(runtime: &str) -> Function {
    Function {
        key: FunctionKey {
            account: AccountId::new("000000000000").expect("valid"),
            region: Region::new("us-east-1").expect("valid"),
            name: FunctionName::new("hello").expect("valid"),
        },
        version: Version::Latest,
        lineage: Uuid::nil(),
        config: FunctionConfig::new(
            runtime.parse().expect("known"),
            "app.handler",
            "arn:aws:iam::000000000000:role/lambda",
        ),
        code: Code { digest: Digest::new([7; 32]), size: 1 },
        state: State::Active,
        last_update: UpdateStatus::Successful,
        before: None,
        state_reason: None,
        revision_id: Uuid::nil(),
        last_modified: Timestamp::default(),
        generation: 1,
    }
}
