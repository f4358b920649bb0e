//! What a user sees of failures: which exit code, on which stream, with which hint.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as its test does")]

use assert_cmd::Command;
use assert_cmd::cargo::cargo_bin_cmd;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// `lacewing` with an environment of its own: nothing of the developer's leaks in.
fn lacewing(dir: &TempDir) -> Command {
    let mut command = cargo_bin_cmd!("lacewing");
    command.env_clear().env("HOME", dir.path()).env("LACEWING_DATA_DIR", dir.path());
    command.current_dir(dir.path());
    command
}

fn failure(dir: &TempDir, arguments: &[&str]) -> (i32, String) {
    let output = lacewing(dir).args(arguments).output().unwrap();
    assert!(output.stdout.is_empty(), "errors belong to stderr");
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text.replace(&dir.path().display().to_string(), "[dir]"))
}

fn with_key() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let key = "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = secret\n";
    std::fs::write(dir.path().join("credentials"), key).unwrap();
    dir
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["fly"][..],
        &["invoke"],
        &["serve", "--isolation", "none"],
        &["deploy", "--env", "A"],
        &["logs", "x", "--since", "yesterday"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--region", "Mars"],
        &["serve", "--config", "missing.toml"],
        &["serve", "--endpoint", "http://127.0.0.1:1"],
        &["serve", "--profile", "x"],
        &["demo", "--data-dir", "d"],
        &["demo", "--region", "us-east-1"],
        &["doctor", "--here", "--endpoint", "http://127.0.0.1:1"],
    ] {
        assert_eq!(failure(&dir, arguments).0, 2, "{arguments:?}");
    }
}

#[test]
fn a_missing_key_is_the_users_matter() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = failure(&dir, &["functions", "--endpoint", "http://127.0.0.1:1"]);
    assert_eq!(code, 1);
    insta::assert_snapshot!(text, @r"
    error: no key: cannot read [dir]/credentials
      caused by: No such file or directory (os error 2)
    hint: the server writes it at its first start: run `lacewing serve`, or name its directory with --data-dir
    ");
}

#[test]
fn a_server_that_never_ran_exits_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = failure(&dir, &["functions"]);
    assert_eq!(code, 3);
    insta::assert_snapshot!(text, @r"
    error: no server has run on [dir]
    hint: start one with `lacewing serve`, or name its directory with --data-dir
    ");
}

#[test]
fn a_server_that_cannot_start_exits_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let serve = ["serve", "--isolation", "best-effort", "--listen"];
    let start = |arguments: &[&str]| failure(&dir, &[&serve[..], arguments].concat());

    let (code, text) = start(&["127.0.0.1:0", "--data-dir", "/dev/null/x"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("cannot use the data directory /dev/null/x"), "{text}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = start(&[&address]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");

    let lock = std::fs::File::create(dir.path().join("lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let (code, text) = start(&["127.0.0.1:0"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("another server is running on the data directory [dir]"), "{text}");
}

#[test]
fn whatever_is_refused_says_what_to_do() {
    let dir = with_key();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    for project in ["empty", "broken"] {
        std::fs::create_dir(dir.path().join(project)).unwrap();
    }
    write("broken/lacewing.toml", "memory = ");
    write("bad.zip", "no archive");
    write("wrong.toml", "region = 3");
    for arguments in [
        &["serve", "--data-dir", "/proc/foo"][..],
        &["serve", "--config", "/nope"],
        &["serve", "--config", "wrong.toml"],
        &["serve", "--region", "Mars"],
        &["deploy", "nope"],
        &["deploy", "bad.zip"],
        &["deploy", "empty"],
        &["deploy", "broken"],
        &["invoke", "app", "-p", "@nofile"],
        &["invoke", "a b"],
        &["functions", "--profile", "nope"],
    ] {
        let (code, text) = failure(&dir, arguments);
        assert!((1..=3).contains(&code) && text.contains("\nhint: "), "{arguments:?}: {text}");
    }
    let (_, text) = failure(&dir, &["functions", "--profile", "nope"]);
    assert!(
        text.starts_with("error: no profile 'nope': cannot read [dir]/.aws/credentials"),
        "{text}"
    );
}

#[test]
fn a_server_that_does_not_answer_exits_with_3() {
    let dir = with_key();
    let (code, text) = failure(&dir, &["functions", "--endpoint", "http://127.0.0.1:1"]);
    assert_eq!(code, 3);
    assert!(text.starts_with("error: cannot reach a server at http://127.0.0.1:1"), "{text}");
    assert!(text.contains("hint: start one with `lacewing serve`"), "{text}");
}

#[test]
fn https_is_refused_with_a_way_out() {
    let dir = with_key();
    let (code, text) = failure(&dir, &["functions", "--endpoint", "https://127.0.0.1:9000"]);
    assert_eq!(code, 2);
    insta::assert_snapshot!(text, @r"
    error: endpoint 'https://127.0.0.1:9000': https is not supported
    hint: use http://, to this machine or through a tunnel such as `ssh -L`
    ");
}

#[test]
fn a_directory_without_a_handler_is_said_to_be_one() {
    let dir = with_key();
    std::fs::write(dir.path().join("lacewing.toml"), "memroy = 3").unwrap();
    let (code, text) = failure(&dir, &["deploy"]);
    assert_eq!(code, 1);
    assert!(text.contains("[dir]/lacewing.toml") && text.contains("memroy"), "{text}");
}

#[test]
fn an_unknown_option_of_the_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), "[limits]\nmemory = 3\n").unwrap();
    let (code, text) = failure(&dir, &["serve", "--config", "c.toml"]);
    assert_eq!(code, 2);
    assert!(text.contains("c.toml") && text.contains("unknown field `memory`"), "{text}");
}

#[test]
fn an_interpreter_that_is_none_is_an_error_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), "[runtimes]\npython3.13 = '/bin/false'\n").unwrap();
    let arguments = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        "d",
        "--isolation",
        "best-effort",
        "--config",
        "c.toml",
    ];
    let (code, text) = failure(&dir, &arguments);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("runtimes.python3.13 = /bin/false"), "{text}");
}

#[test]
fn env_prints_what_each_shell_understands() {
    let dir = with_key();
    std::fs::write(dir.path().join("address"), "127.0.0.1:4711\n").unwrap();
    let text = |arguments: &[&str]| {
        let mut command = lacewing(&dir);
        command.env("AWS_ACCESS_KEY_ID", "AKIAREAL").arg("env").args(arguments);
        command.env("AWS_ENDPOINT_URL_STS", "https://real").env("AWS_PROFILE", "real");
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.replace(&dir.path().display().to_string(), "[dir]")
    };
    insta::assert_snapshot!(text(&[]), @r"
    unset AWS_ACCESS_KEY_ID
    unset AWS_PROFILE
    unset AWS_ENDPOINT_URL_STS
    export AWS_SHARED_CREDENTIALS_FILE=[dir]/credentials
    export AWS_ENDPOINT_URL=http://127.0.0.1:4711
    export AWS_REGION=us-east-1
    export AWS_DEFAULT_REGION=us-east-1
    ");
    assert!(text(&["--shell", "fish"]).contains("set -gx AWS_REGION us-east-1"));
    let json: serde_json::Value = serde_json::from_str(&text(&["--output", "json"])).unwrap();
    assert_eq!(json["AWS_ENDPOINT_URL"], "http://127.0.0.1:4711");
}

#[test]
fn completions_are_made_for_the_usual_shells() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = lacewing(&dir).args(["completion", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains("substitute-runtimes"), "{shell}");
    }
}
