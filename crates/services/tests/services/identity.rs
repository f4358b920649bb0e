//! Keys, sessions and decisions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lacewing_model::principal::Identity as Who;
use lacewing_model::{AccountId, Kind, Principal, Region};
use lacewing_services::LookupError;

use super::bench::{Bench, ROLE, Side, account, any_runtime, key, new};

#[tokio::test(flavor = "multi_thread")]
async fn the_root_key_is_written_for_its_owner_only() {
    let bench = Bench::new(Side::Memory).await;
    let root = bench.services.identity.root();
    let path = bench.dir.path().join("credentials");
    let mode = fs::metadata(&path).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let expected = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\nregion = us-east-1\n",
        root.access_key_id,
        root.secret_access_key.expose()
    );
    assert_eq!(fs::read_to_string(&path).expect("readable"), expected);
    assert!(root.access_key_id.starts_with("AKIA") && root.access_key_id.len() == 20);
    assert_eq!(root.secret_access_key.expose().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_file_is_repaired_but_not_overwritten() {
    let bench = Bench::new(Side::Embedded).await;
    let path = bench.dir.path().join("credentials");
    let written = fs::read_to_string(&path).expect("readable");
    let extended = format!("{written}\n[mine]\nregion = eu-west-1\n");
    fs::write(&path, &extended).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    let bench = bench.reopen(any_runtime()).await;
    assert_eq!(fs::read_to_string(&path).expect("readable"), extended);
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    fs::remove_file(&path).expect("removed");
    let _bench = bench.reopen(any_runtime()).await;
    assert_eq!(fs::read_to_string(&path).expect("readable"), written);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_file_follows_a_change_of_the_region() {
    let bench = Bench::new(Side::Embedded).await;
    let path = bench.dir.path().join("credentials");
    let written = fs::read_to_string(&path).expect("readable");
    let elsewhere = Region::new("eu-west-3").expect("valid");
    let _bench = bench.reopen_with(|options| options.region = elsewhere, any_runtime()).await;
    let changed = fs::read_to_string(&path).expect("readable");
    assert_eq!(changed, written.replace("us-east-1", "eu-west-3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_looked_up() {
    let bench = Bench::new(Side::Memory).await;
    let identity = &bench.services.identity;
    let root = identity.root();
    let found = identity.lookup(&root.access_key_id, None).expect("the root key");
    assert_eq!(found.secret, root.secret_access_key);
    assert_eq!(found.principal.arn(), "arn:aws:iam::000000000000:root");
    for unknown in ["", "AKIAAAAAAAAAAAAAAAAA", &root.access_key_id[..19]] {
        assert_eq!(identity.lookup(unknown, None).expect_err("unknown"), LookupError::Unknown);
    }
    let with_token = identity.lookup(&root.access_key_id, Some("x")).expect_err("no session");
    assert_eq!(with_token, LookupError::BadToken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_its_functions_for_twelve_hours() {
    let bench = Bench::new(Side::Memory).await;
    let function = bench.create("f").await;
    let identity = &bench.services.identity;
    let session = identity.session(&function).expect("started");
    assert!(session.access_key_id.starts_with("ASIA") && session.access_key_id.len() == 20);
    let token = session.session_token.as_ref().expect("one").expose().as_str();
    let found = identity.lookup(&session.access_key_id, Some(token)).expect("valid");
    assert_eq!(found.secret, session.secret_access_key);
    assert_eq!(found.principal.arn(), "arn:aws:sts::000000000000:assumed-role/lambda/f");

    let bad = |id: &str, token: &str| identity.lookup(id, Some(token)).expect_err("bad");
    let other = identity.session(&function).expect("started");
    assert_eq!(bad(&other.access_key_id, token), LookupError::BadToken);
    for place in [0, token.len() / 2, token.len() - 5] {
        let mut changed = token.to_owned().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        assert_eq!(bad(&session.access_key_id, &changed), LookupError::BadToken);
    }
    assert_eq!(bad(&session.access_key_id, &"A".repeat(100_000)), LookupError::BadToken);
    let without = identity.lookup(&session.access_key_id, None).expect_err("no token");
    assert_eq!(without, LookupError::Unknown);

    bench.clock.advance(Duration::from_secs(12 * 3_600 - 1));
    assert!(identity.lookup(&session.access_key_id, Some(token)).is_ok());
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bad(&session.access_key_id, token), LookupError::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_the_accounts_own_unless_lenient() {
    let strict = Bench::new(Side::Memory).await;
    let strict = &strict.services.identity;
    strict.check_role(&account(), ROLE).expect("every account has it");
    for role in ["arn:aws:iam::000000000000:role/other", "arn:aws:iam::111111111111:role/lambda"] {
        let refused = strict.check_role(&account(), role).expect_err("no such role");
        assert_eq!(refused.kind(), Kind::Invalid);
        let message = "The role defined for the function cannot be assumed by Lambda.";
        assert_eq!(refused.public(), message);
    }
    assert_eq!(strict.check_role(&account(), "x").expect_err("no ARN").kind(), Kind::Constraint);

    let lenient = Bench::with(Side::Memory, |options| options.lenient_roles = true, any_runtime());
    let lenient = lenient.await;
    let identity = &lenient.services.identity;
    identity.check_role(&account(), "arn:aws:iam::111111111111:role/x").expect("any");
    assert!(identity.check_role(&account(), "x").is_err());
    let mut foreign = new("f");
    foreign.config.role = "arn:aws:iam::111111111111:role/x".to_owned();
    let function = lenient.services.functions.create(&key("f"), foreign).await.expect("created");
    let session = identity.session(&function).expect("started");
    let token = session.session_token.expect("one");
    let found = identity.lookup(&session.access_key_id, Some(token.expose())).expect("valid");
    let own = "arn:aws:lambda:us-east-1:000000000000:function:g";
    identity.authorize(&found.principal, "lambda:InvokeFunction", own).expect("as `lambda`");
}

#[tokio::test(flavor = "multi_thread")]
async fn principals_stay_in_their_account() {
    let bench = Bench::new(Side::Memory).await;
    let identity = &bench.services.identity;
    let session = |role: &str| {
        let (role, session) = (role.to_owned(), "f".to_owned());
        Principal { account: account(), identity: Who::RoleSession { role, session } }
    };
    let root = Principal { account: account(), identity: Who::Root };
    let own = "arn:aws:lambda:us-east-1:000000000000:function:f";
    let foreign = "arn:aws:lambda:us-east-1:111111111111:function:f";
    for principal in [&root, &session("lambda")] {
        for resource in [own, "*"] {
            identity.authorize(principal, "lambda:InvokeFunction", resource).expect("its own");
        }
        let refused = identity.authorize(principal, "lambda:InvokeFunction", foreign);
        assert_eq!(refused.expect_err("foreign").kind(), Kind::Forbidden);
    }
    let refused = identity.authorize(&session("other"), "lambda:InvokeFunction", own);
    assert_eq!(
        refused.expect_err("another role").public(),
        format!(
            "User: arn:aws:sts::000000000000:assumed-role/other/f is not authorized to perform: \
             lambda:InvokeFunction on resource: {own}"
        )
    );
    for action in ["lacewing:GetInfo", "lambda:GetFunction", "lambda:DeleteFunction"] {
        identity.authorize(&root, action, own).expect("the root key may");
        let refused = identity.authorize(&session("lambda"), action, own);
        assert_eq!(refused.expect_err("a function may not").kind(), Kind::Forbidden);
    }
    let stranger = AccountId::new("222222222222").expect("valid");
    let stranger = Principal { account: stranger, identity: Who::Root };
    assert!(identity.authorize(&stranger, "lambda:GetFunction", own).is_err());
}
