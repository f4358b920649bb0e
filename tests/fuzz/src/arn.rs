//! Names as callers give them: what is accepted is well formed and comes back from its own text.

use lacewing_model::{AccountId, Digest, FunctionName, FunctionRef, Qualifier, Region, RuntimeId};
use lacewing_services::LogCursor;

/// Reads the bytes as each kind of name.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    reference(text);
    if let Ok(runtime) = text.parse::<RuntimeId>() {
        assert_eq!(runtime.to_string(), text);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text.to_lowercase());
    }
    if let Ok(cursor) = text.parse::<LogCursor>() {
        assert_eq!(cursor.to_string().parse::<LogCursor>().ok(), Some(cursor));
    }
    if let Ok(qualifier) = text.parse::<Qualifier>() {
        let plain = |text: &str| text.trim_start_matches('0').to_owned();
        assert_eq!(plain(&qualifier.to_string()), plain(text));
    }
}

fn reference(text: &str) {
    let Ok(found) = text.parse::<FunctionRef>() else { return };
    let (account, region) = (AccountId::new("000000000000"), Region::new("us-east-1"));
    let (Ok(account), Ok(region)) = (account, region) else { return };
    assert!(FunctionName::new(found.name.as_str()).is_ok());
    let key = found.key(&account, &region);
    let arn = key.qualified_arn(found.qualifier.clone()).to_string();
    let again: FunctionRef = arn.parse().unwrap_or_else(|_| panic!("{text:?} became {arn:?}"));
    assert_eq!(again.key(&account, &region), key, "{text:?} became {arn:?}");
    assert_eq!(again.qualifier, found.qualifier, "{text:?} became {arn:?}");
}
