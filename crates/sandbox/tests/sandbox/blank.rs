//! Sandboxes that are furnished after their program has started.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use lacewing_sandbox::{Error, Event, Furnishing, Launcher, Mount, Role, Sandbox, Spec};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::support::{MIB, finish, groups, launcher_with, next, options, ready, shell};

/// Shows the rights of the program and of init, waits for a line, then runs the rest.
const RIGHTS: &str = "for pid in self 1; do \
    while read name value rest; do case $name in CapEff:|Seccomp:) echo $value;; esac; \
    done < /proc/$pid/status; done; ";
const NOTHING: &str = "0000000000000000";
const SYS_ADMIN: &str = "0000000000200000";

/// A blank sandbox with a shell in it.
struct Blank {
    sandbox: Sandbox,
    input: std::fs::File,
    output: BufReader<std::fs::File>,
}

impl Blank {
    fn start(launcher: &Launcher, script: &str) -> Self {
        let mut wanted = shell(script);
        wanted.role = Role::Blank;
        wanted.limits.memory_bytes = 1024 * MIB;
        let (stdin, input) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (output, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let errors = stdout.try_clone().unwrap();
        let fds = vec![(stdin, 0), (stdout, 1), (errors, 2)];
        let sandbox = launcher.spawn(&wanted, fds).unwrap();
        ready(&sandbox);
        Self { sandbox, input: input.into(), output: BufReader::new(std::fs::File::from(output)) }
    }

    fn lines(&mut self, count: usize) -> Vec<String> {
        (&mut self.output).lines().take(count).map(Result::unwrap).collect()
    }

    fn go_on(&mut self) {
        self.input.write_all(b"go\n").unwrap();
    }
}

fn furnishing(source: &Path, target: &str) -> Furnishing {
    let Spec { limits, .. } = shell("");
    let source = source.to_owned();
    Furnishing { mounts: vec![Mount::Bind { source, target: target.into(), exec: true }], limits }
}

#[test]
fn a_blank_sandbox_gets_its_files_and_its_limits() {
    let options = options();
    let Some(launcher) = launcher_with(&options) else { return };
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("file"), "the code\n").unwrap();
    let script = "ls /var/task; read go; cat /var/task/file; echo > /var/task/more; \
                  stat -f -c '%b %S' /dev/shm; cat /var/task/file; echo > /tmp/own && echo wrote";
    let mut blank = Blank::start(&launcher, script);
    assert_eq!(blank.lines(1), ["lib"], "nothing but where the loader looks for libraries");
    blank.sandbox.furnish(furnishing(code.path(), "/var/task")).unwrap();
    assert!(matches!(next(&blank.sandbox), Event::Furnished));
    for group in groups(&options.owner) {
        let group = group.join("memory.limit_in_bytes");
        if let Ok(limit) = std::fs::read_to_string(&group)
            && group.to_string_lossy().contains(blank.sandbox.name())
        {
            assert_eq!(limit.trim(), (64 * MIB).to_string());
        }
    }
    blank.go_on();
    let told = blank.lines(5);
    assert_eq!(told[0], "the code");
    assert!(told[1].contains("Read-only file system"), "{told:?}");
    let (blocks, size) = told[2].split_once(' ').unwrap();
    let bytes = blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap();
    assert_eq!(bytes, 32 * MIB, "half of what it may have");
    assert_eq!(told[3..], ["the code", "wrote"]);
    let (events, _) = finish(&blank.sandbox);
    assert!(matches!(events[..], [Event::Exited { code: 0 }]), "{events:?}");
}

#[test]
fn its_program_never_has_a_right_and_its_init_has_one_until_it_is_furnished() {
    let Some(launcher) = launcher_with(&options()) else { return };
    let code = tempfile::tempdir().unwrap();
    let mut blank = Blank::start(&launcher, &format!("{RIGHTS} read go; {RIGHTS}"));
    assert_eq!(blank.lines(4), [NOTHING, "2", SYS_ADMIN, "0"]);
    blank.sandbox.furnish(furnishing(code.path(), "/var/task")).unwrap();
    assert!(matches!(next(&blank.sandbox), Event::Furnished));
    blank.go_on();
    assert_eq!(blank.lines(4), [NOTHING, "2", NOTHING, "2"]);
}

#[test]
fn the_program_cannot_mount_before_or_after() {
    let Some(launcher) = launcher_with(&options()) else { return };
    let code = tempfile::tempdir().unwrap();
    let attempt = "mount -t tmpfs none /tmp 2>&1 | grep -c -e denied -e permitted -e superuser; \
                   nsenter -t 1 -m true 2>&1 | grep -c -e denied -e permitted;";
    let mut blank = Blank::start(&launcher, &format!("{attempt} read go; {attempt}"));
    assert_eq!(blank.lines(2), ["1", "1"]);
    blank.sandbox.furnish(furnishing(code.path(), "/var/task")).unwrap();
    assert!(matches!(next(&blank.sandbox), Event::Furnished));
    blank.go_on();
    assert_eq!(blank.lines(2), ["1", "1"]);
}

#[test]
fn what_cannot_be_had_ends_it_and_says_why() {
    let Some(launcher) = launcher_with(&options()) else { return };
    for (source, target, named) in [
        ("/etc", "/var/task", "/etc"),
        ("/usr/no/such", "/var/task", "/usr/no/such"),
        ("/usr", "/no/target", "/no/target"),
        ("/usr", "/proc/1/root", "/proc/1/root"),
    ] {
        let blank = Blank::start(&launcher, "read go");
        blank.sandbox.furnish(furnishing(Path::new(source), target)).unwrap();
        let (events, _) = finish(&blank.sandbox);
        let [Event::Failed { message }] = &events[..] else { panic!("{events:?}") };
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn a_furnishing_without_sense_is_refused_and_a_second_one_changes_nothing() {
    let Some(launcher) = launcher_with(&options()) else { return };
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("file"), "").unwrap();
    let mut blank = Blank::start(&launcher, "read go; ls /var/task");
    let mut senseless = furnishing(code.path(), "/var/task");
    senseless.mounts = vec![Mount::Tmpfs { target: "/opt".into(), bytes: MIB, mode: 0o777 }];
    assert!(matches!(blank.sandbox.furnish(senseless), Err(Error::Invalid(_))));
    blank.sandbox.furnish(furnishing(code.path(), "/var/task")).unwrap();
    assert!(matches!(next(&blank.sandbox), Event::Furnished));
    blank.sandbox.furnish(furnishing(Path::new("/usr"), "/var/task")).unwrap();
    blank.go_on();
    assert_eq!(blank.lines(1), ["file"]);
    // One that was never blank cannot be furnished either.
    let (stdin, mut input) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (_output, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let plain = launcher.spawn(&shell("read go"), vec![(stdin, 0), (stdout, 1)]).unwrap();
    ready(&plain);
    plain.furnish(furnishing(code.path(), "/var/task")).unwrap();
    rustix::io::write(&mut input, b"\n").unwrap();
    let (events, _) = finish(&plain);
    assert!(matches!(events[..], [Event::Exited { code: 0 }]), "{events:?}");
}

#[test]
fn a_signal_to_terminate_reaches_the_program_before_and_after() {
    let Some(launcher) = launcher_with(&options()) else { return };
    let code = tempfile::tempdir().unwrap();
    let mut blank =
        Blank::start(&launcher, "trap 'echo told' TERM; read go; echo; read go; read go; echo end");
    blank.go_on();
    assert_eq!(blank.lines(1), [""]);
    blank.sandbox.terminate();
    assert_eq!(blank.lines(1), ["told"]);
    blank.sandbox.furnish(furnishing(code.path(), "/var/task")).unwrap();
    assert!(matches!(next(&blank.sandbox), Event::Furnished));
    blank.sandbox.terminate();
    assert_eq!(blank.lines(1), ["told"]);
}

#[test]
fn a_blank_sandbox_ends_as_any_other() {
    let options = options();
    let Some(launcher) = launcher_with(&options) else { return };
    let blank = Blank::start(&launcher, "read go");
    blank.sandbox.kill();
    assert!(finish(&blank.sandbox).0.is_empty());
    let blank = Blank::start(&launcher, "exit 3");
    let (events, _) = finish(&blank.sandbox);
    assert!(matches!(events[..], [Event::Exited { code: 3 }]), "{events:?}");
    let blank = Blank::start(&launcher, "read go");
    launcher.stop();
    assert!(matches!(next(&blank.sandbox), Event::Gone));
    assert!(groups(&options.owner).is_empty());
}
