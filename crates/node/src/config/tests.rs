//! Tests of `config`.

use std::time::Duration;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

fn refused(text: &str) -> SettingsError {
    let mut config = parse(text).expect("well formed");
    config.data_dir = Some("/tmp/x".into());
    Settings::check(&config).expect_err("makes no sense")
}

#[test]
fn an_unknown_option_is_refused_by_name() {
    for (text, name) in [
        ("listne = '127.0.0.1:1'", "listne"),
        ("[limits]\nmemory = 3", "memory"),
        ("[sandbox]\nnetwork = 'host'", "network"),
        ("[logs]\nretention = 3", "retention"),
        ("[unknown]\na = 1", "unknown"),
    ] {
        let error = parse(text).expect_err("unknown");
        assert!(error.contains(&format!("unknown field `{name}`")), "{error}");
    }
}

#[test]
fn an_unknown_choice_is_refused_with_the_choices() {
    let error = parse("isolation = 'none'").expect_err("unknown");
    assert!(error.contains("required") && error.contains("best-effort"), "{error}");
}

#[test]
fn a_file_says_where_it_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lacewing.toml");
    std::fs::write(&path, "listen = '127.0.0.1:1'\nlistne = 3\n").unwrap();
    let error = Config::load(&path).expect_err("unknown option").to_string();
    assert!(error.contains("listne") && error.contains("line 2"), "{error}");
    let missing = Config::load(&dir.path().join("none")).expect_err("no file");
    assert!(matches!(missing, ConfigError::Read { .. }));
}

#[test]
fn runtimes_are_read_with_and_without_quotes() {
    let text = "[runtimes]\npython3.13 = '/a'\n'python3.12' = '/b'\nnodejs22.x = '/c'";
    let runtimes = parse(text).unwrap().runtimes;
    let pairs: Vec<(&str, &str)> =
        runtimes.iter().map(|(name, path)| (name.as_str(), path.to_str().unwrap())).collect();
    assert_eq!(pairs, [("nodejs22.x", "/c"), ("python3.12", "/b"), ("python3.13", "/a")]);
    assert!(parse("[runtimes]\npython3.13 = 7").unwrap_err().contains("runtimes.python3.13"));
}

#[test]
fn durations_carry_their_unit() {
    let config = parse("clock_skew = '90s'\ndrain = '2m'").unwrap();
    assert_eq!(config.clock_skew, Some(Duration::from_secs(90)));
    assert_eq!(config.drain, Some(Duration::from_secs(120)));
    for text in ["drain = '-5s'", "drain = '5'", "drain = 'soon'", "drain = 5"] {
        assert!(parse(text).is_err(), "{text} was accepted");
    }
}

#[test]
fn every_option_arrives_in_the_settings() {
    let text = "
        listen = '127.0.0.1:0'
        data_dir = '/srv/lacewing'
        region = 'eu-west-1'
        account = '123456789012'
        isolation = 'best-effort'
        cpu = 'hard'
        lenient_roles = true
        substitute_runtimes = true
        clock_skew = '1m'
        drain = '7s'
        [runtimes]
        python3.13 = '/bin/sh'
        [sandbox]
        root = '/'
        uid_base = 500000
        uid_count = 100
        cgroup_parent = '/lacewing/x'
        [limits]
        memory_mb = 2048
        instances = 7
        concurrency = 5
        keep_alive = '3m'
        instance_age = '1h'
        [logs]
        retention_days = 2
        [usage]
        retention_days = 3
    ";
    let settings = Settings::check(&parse(text).unwrap()).unwrap();
    assert_eq!(settings.listen.port(), 0);
    assert_eq!(settings.data_dir, Path::new("/srv/lacewing"));
    assert_eq!(settings.services.region.as_str(), "eu-west-1");
    assert_eq!(settings.gateway.account.as_str(), "123456789012");
    assert_eq!(settings.isolation, Isolation::BestEffort);
    assert_eq!(settings.cpu, Cpu::Hard);
    assert!(settings.services.lenient_roles && settings.invoke.substitute);
    assert_eq!(settings.gateway.clock_skew, Duration::from_secs(60));
    assert_eq!(settings.drain, Duration::from_secs(7));
    assert_eq!(settings.runtimes.len(), 1);
    assert_eq!(settings.sandbox_root.as_deref(), Some(Path::new("/")));
    assert_eq!(settings.uid_range("0123456789ab"), (500_000, 100));
    assert_eq!(settings.cgroup_parent.as_deref(), Some(Path::new("/lacewing/x")));
    assert_eq!(settings.invoke.memory.as_bytes(), 2 << 30);
    assert_eq!((settings.invoke.max_instances, settings.invoke.account_concurrency), (7, 5));
    assert_eq!(settings.invoke.keep_alive, Duration::from_secs(180));
    assert_eq!(settings.invoke.max_instance_age, Duration::from_secs(3_600));
    assert_eq!(settings.services.log_retention, Duration::from_secs(2 * 86_400));
    assert_eq!(settings.services.usage_retention, Duration::from_secs(3 * 86_400));
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    for (text, option) in [
        ("listen = 'localhost'", "listen"),
        ("region = 'Mars'", "region"),
        ("account = '12'", "account"),
        ("[runtimes]\njava21 = '/bin/sh'", "runtimes"),
        ("[runtimes]\npython3.13 = 'python3'", "runtimes"),
        ("[sandbox]\nroot = '/proc'", "sandbox.root"),
        ("[sandbox]\nuid_base = 0", "sandbox.uid_base"),
        ("[sandbox]\nuid_base = 4294967295", "sandbox.uid_base"),
        ("[sandbox]\nuid_count = 5", "sandbox.uid_count"),
        ("[limits]\nmemory_mb = 64", "limits.memory_mb"),
        ("[limits]\ninstances = 0", "limits.instances"),
        ("[limits]\nconcurrency = 0", "limits.concurrency"),
        ("[limits]\ninstance_age = '12h'", "limits.instance_age"),
        ("[logs]\nretention_days = 0", "logs.retention_days"),
        ("[usage]\nretention_days = 0", "usage.retention_days"),
        ("[sandbox]\ncgroup_parent = 'lacewing'", "sandbox.cgroup_parent"),
    ] {
        assert_eq!(refused(text).option, option, "{text}");
    }
}

#[test]
fn two_data_directories_get_their_own_user_ids() {
    let config = Config { data_dir: Some("/tmp/x".into()), ..Config::default() };
    let settings = Settings::check(&config).unwrap();
    let (first, second) = (settings.uid_range("aaaaaaaaaaaa"), settings.uid_range("aaaaaaaaaaab"));
    assert_ne!(first.0, second.0);
    for (base, count) in [first, second] {
        assert!(base >= 0x7000_0000 && base + count < 0x8000_0000);
    }
}

/// The example in the documentation, which shows every option.
const DOCUMENTED: &str = include_str!("../../../../docs/configuration.md");

#[test]
fn the_documented_example_is_valid_and_shows_every_option() {
    let block = DOCUMENTED.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let config = parse(block.expect("an example in TOML")).unwrap();
    // Without `..`, so that a new option does not compile until it is documented.
    let Config {
        listen,
        data_dir,
        region,
        account,
        isolation,
        cpu,
        lenient_roles,
        substitute_runtimes,
        clock_skew,
        drain,
        runtimes,
        sandbox: Sandbox { root, uid_base, uid_count, cgroup_parent },
        limits: Limits { memory_mb, instances, concurrency, keep_alive, instance_age },
        logs: Logs { retention_days },
        usage: Usage { retention_days: usage_days },
    } = config;
    assert!(listen.is_some() && region.is_some() && account.is_some());
    assert!(data_dir.is_some() && root.is_some() && cgroup_parent.is_some());
    assert!(isolation.is_some() && cpu.is_some());
    assert!(lenient_roles.is_some() && substitute_runtimes.is_some());
    assert!(clock_skew.is_some() && drain.is_some());
    assert!(keep_alive.is_some() && instance_age.is_some());
    assert!(uid_base.is_some() && uid_count.is_some() && memory_mb.is_some());
    assert!(instances.is_some() && concurrency.is_some() && retention_days.is_some());
    assert!(usage_days.is_some());
    assert!(!runtimes.is_empty());
}
