//! Tests of `connection`.

use std::fs;

use tempfile::TempDir;

use super::*;

const FILE: &str = "# ours\n[default]\naws_access_key_id = AKIADEFAULT\n\
                    aws_secret_access_key=one\nregion = eu-west-1\n\n[other]\n\
                    aws_access_key_id = AKIAOTHER\naws_secret_access_key = two\n\
                    aws_session_token = three\n";

fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("credentials"), FILE).unwrap();
    dir
}

fn find(remote: &Remote, variables: &[(&str, &str)]) -> Result<Connection> {
    let environment = |name: &str| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    Connection::find(remote, &environment)
}

#[test]
fn a_data_directory_has_key_region_and_address() {
    let dir = directory();
    fs::write(dir.path().join("address"), "0.0.0.0:4711\n").unwrap();
    let remote = Remote { data_dir: Some(dir.path().into()), ..Remote::default() };
    let found = find(&remote, &[]).unwrap();
    assert_eq!(found.endpoint, "http://127.0.0.1:4711");
    assert_eq!(found.region.as_str(), "eu-west-1");
    assert_eq!(found.credentials.access_key_id, "AKIADEFAULT");
}

#[test]
fn flags_win_over_variables() {
    let dir = directory();
    let variables = [
        ("AWS_ENDPOINT_URL", "http://other:1"),
        ("AWS_ACCESS_KEY_ID", "AKIAREAL"),
        ("AWS_SECRET_ACCESS_KEY", "real"),
        ("AWS_REGION", "us-west-2"),
    ];
    let remote = Remote {
        data_dir: Some(dir.path().into()),
        region: Some("eu-north-1".into()),
        endpoint: Some("http://mine:2".into()),
        ..Remote::default()
    };
    let found = find(&remote, &variables).unwrap();
    assert_eq!(found.endpoint, "http://mine:2");
    assert_eq!(found.region.as_str(), "eu-north-1");
    assert_eq!(found.credentials.access_key_id, "AKIADEFAULT");
}

#[test]
fn variables_are_used_as_the_aws_tools_use_them() {
    let dir = directory();
    let file = dir.path().join("credentials").display().to_string();
    let by_file = [
        ("AWS_SHARED_CREDENTIALS_FILE", file.as_str()),
        ("AWS_PROFILE", "other"),
        ("AWS_ENDPOINT_URL", "http://general:1"),
        ("AWS_ENDPOINT_URL_LAMBDA", "http://special:2"),
    ];
    let found = find(&Remote::default(), &by_file).unwrap();
    assert_eq!(found.credentials.access_key_id, "AKIAOTHER");
    assert!(found.credentials.session_token.is_some());
    assert_eq!(found.endpoint, "http://special:2");

    let by_key = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let found = find(&Remote::default(), &by_key).unwrap();
    assert_eq!(found.credentials.access_key_id, "AKIAENV");
    assert_eq!(found.origin.key, "AWS_ACCESS_KEY_ID");
}

#[test]
fn what_is_missing_is_named() {
    let dir = directory();
    let remote = Remote { data_dir: Some(dir.path().join("none")), ..Remote::default() };
    let error = find(&remote, &[]).unwrap_err();
    assert!(error.message.starts_with("no server has run on"), "{}", error.message);
    assert!(error.hints[0].contains("lacewing serve"));

    let remote = Remote { endpoint: Some("http://mine:2".into()), ..remote };
    let error = find(&remote, &[]).unwrap_err();
    assert!(error.message.contains("none/credentials"), "{}", error.message);
    assert!(error.hints[0].contains("lacewing serve"));

    let remote = Remote { data_dir: Some(dir.path().into()), profile: Some("x".into()), ..remote };
    assert!(find(&remote, &[]).unwrap_err().message.contains("no profile 'x'"));

    let half = [("AWS_ACCESS_KEY_ID", "AKIAENV")];
    let error = find(&Remote::default(), &half).unwrap_err();
    assert!(error.message.contains("AWS_SECRET_ACCESS_KEY"));
}
