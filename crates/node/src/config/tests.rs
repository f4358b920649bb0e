//! Tests of `config`.

use std::time::Duration;

use lacewing_invoke::pool::core::Share;
use lacewing_model::ByteSize;
use lacewing_sandbox::NetworkOptions;

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
fn the_network_is_open_unless_it_is_closed() {
    let network = |text: &str| {
        let mut config = parse(text).expect("well formed");
        config.data_dir = Some("/tmp/x".into());
        Settings::check(&config).expect("valid").network
    };
    let usual = network("");
    assert!(!usual.is_required && usual.options == NetworkOptions::egress());
    let shut = network("[network]\nmode = 'none'\nforwarding = 'leave'");
    assert_eq!(shut.options.mode, lacewing_sandbox::Network::None);
    assert!(!shut.options.may_forward);
    let own = network(
        "[network]\nmode = 'egress'\nallow = ['10.0.0.1:5432']\ndns = ['10.0.0.2', '[::1]:5353']\n\
         bandwidth_mbit = 8\naccounts = {'111122223333' = 'none'}",
    );
    assert!(own.is_required);
    assert_eq!(own.options.policy.allow[0].to_string(), "10.0.0.1/32:5432-5432");
    assert_eq!(own.resolvers, ["10.0.0.2:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]);
    assert_eq!(own.options.bytes_per_second, Some(1_000_000));
    let account = lacewing_model::AccountId::new("111122223333").unwrap();
    assert_eq!(own.bounds.of(&account), lacewing_model::Network::None);
}

#[test]
fn a_network_that_makes_no_sense_is_refused_by_name() {
    for (line, option) in [
        ("allow = ['169.254.169.254']", "network.allow"),
        ("allow = ['10.0.0.1/8']", "network.allow"),
        ("deny = ['x']", "network.deny"),
        ("dns = ['resolver.example']", "network.dns"),
        ("connections = 3", "network.connections"),
        ("bandwidth_mbit = 0", "network.bandwidth_mbit"),
        ("accounts = {'me' = 'none'}", "network.accounts"),
    ] {
        assert_eq!(refused(&format!("[network]\n{line}")).option, option, "{line}");
    }
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
        tmp = 'memory'
        [limits]
        memory_mb = 2048
        tmp_disk_mb = 4096
        instances = 7
        blank_instances = 2
        empty_sandboxes = 3
        concurrency = 5
        keep_alive = '3m'
        instance_age = '1h'
        function_memory_mb = 256
        function_instances = 3
        account_memory_mb = 512
        account_instances = 4
        [events]
        account_mb = 10
        account_events = 100
        [logs]
        retention_days = 2
        function_mb = 20
        account_mb = 40
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
    assert_eq!((settings.tmp, settings.tmp_disk.as_bytes()), (Tmp::Memory, 4 << 30));
    assert_eq!(settings.invoke.memory.as_bytes(), 2 << 30);
    assert_eq!((settings.blanks, settings.empty), (2, 3));
    assert_eq!((settings.invoke.max_instances, settings.invoke.account_concurrency), (7, 5));
    assert_eq!(settings.invoke.keep_alive, Duration::from_secs(180));
    assert_eq!(settings.invoke.max_instance_age, Duration::from_secs(3_600));
    assert_eq!(settings.services.log_retention, Duration::from_secs(2 * 86_400));
    let share = |instances, mb| Share { instances, memory: ByteSize::mebibytes(mb) };
    assert_eq!(settings.invoke.function_share, share(3, 256));
    assert_eq!(settings.invoke.account_share, share(4, 512));
    assert_eq!((settings.invoke.events.bytes, settings.invoke.events.messages), (10 << 20, 100));
    let bounds = settings.services.log_bounds;
    assert_eq!((bounds.function, bounds.account), (20 << 20, 40 << 20));
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
        ("[limits]\ntmp_disk_mb = 0", "limits.tmp_disk_mb"),
        ("[limits]\nblank_instances = 65", "limits.blank_instances"),
        ("[limits]\nempty_sandboxes = 65", "limits.empty_sandboxes"),
        ("[limits]\ninstances = 0", "limits.instances"),
        ("[limits]\nconcurrency = 0", "limits.concurrency"),
        ("[limits]\ninstance_age = '12h'", "limits.instance_age"),
        ("[limits]\nfunction_memory_mb = 64", "limits.function_memory_mb"),
        ("[limits]\nfunction_instances = 0", "limits.function_instances"),
        ("[limits]\naccount_memory_mb = 64", "limits.account_memory_mb"),
        ("[limits]\naccount_instances = 0", "limits.account_instances"),
        ("[events]\naccount_mb = 0", "events.account_mb"),
        ("[events]\naccount_events = 0", "events.account_events"),
        ("[logs]\nretention_days = 0", "logs.retention_days"),
        ("[logs]\nfunction_mb = 0", "logs.function_mb"),
        ("[logs]\naccount_mb = 0", "logs.account_mb"),
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
        sandbox: Sandbox { root, uid_base, uid_count, cgroup_parent, tmp, interpreters },
        network:
            Network { mode, accounts, allow, deny, dns, connections, bandwidth_mbit, forwarding },
        limits:
            Limits {
                memory_mb,
                tmp_disk_mb,
                blank_instances,
                empty_sandboxes,
                instances,
                function_memory_mb,
                function_instances,
                account_memory_mb,
                account_instances,
                concurrency,
                keep_alive,
                instance_age,
            },
        events: Events { account_mb: event_mb, account_events },
        logs: Logs { retention_days, function_mb, account_mb },
        usage: Usage { retention_days: usage_days },
    } = config;
    assert!(listen.is_some() && region.is_some() && account.is_some());
    assert!(data_dir.is_some() && root.is_some() && cgroup_parent.is_some());
    assert!(isolation.is_some() && cpu.is_some());
    assert!(tmp.is_some() && tmp_disk_mb.is_some() && blank_instances.is_some());
    assert!(empty_sandboxes.is_some() && interpreters.is_some());
    assert!(lenient_roles.is_some() && substitute_runtimes.is_some());
    assert!(clock_skew.is_some() && drain.is_some());
    assert!(keep_alive.is_some() && instance_age.is_some());
    assert!(uid_base.is_some() && uid_count.is_some() && memory_mb.is_some());
    assert!(instances.is_some() && concurrency.is_some() && retention_days.is_some());
    assert!(function_memory_mb.is_some() && function_instances.is_some());
    assert!(account_memory_mb.is_some() && account_instances.is_some());
    assert!(event_mb.is_some() && account_events.is_some());
    assert!(usage_days.is_some() && function_mb.is_some() && account_mb.is_some());
    assert!(!runtimes.is_empty());
    assert!(mode.is_some() && forwarding.is_some() && connections.is_some());
    assert!(bandwidth_mbit.is_some() && !accounts.is_empty());
    assert!(!allow.is_empty() && !deny.is_empty() && !dns.is_empty());
}
