//! Tests of `seccomp`.

use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// Runs a program as the kernel would, for one call; tells the result and the number of steps.
fn run(program: &Program, number: u32, arguments: [u32; 2]) -> (u32, usize) {
    let mut data =
        vec![number, if cfg!(target_arch = "x86_64") { 0xC000_003E } else { 0xC000_00B7 }];
    data.extend([0, 0]);
    data.extend(arguments.iter().flat_map(|argument| [*argument, 0]));
    let (mut at, mut value, mut steps) = (0, 0, 0);
    loop {
        let op = program[at];
        steps += 1;
        at += 1;
        let truth = match op.code {
            0x20 => {
                value = data[op.k as usize / 4];
                continue;
            }
            0x06 => return (op.k, steps),
            0x05 => {
                at += op.k as usize;
                continue;
            }
            0x15 => value == op.k,
            0x35 => value >= op.k,
            0x45 => value & op.k != 0,
            other => panic!("unknown instruction {other:#x}"),
        };
        at += usize::from(if truth { op.jt } else { op.jf });
    }
}

fn call(name: &str, arguments: [u32; 2]) -> u32 {
    run(&default_program().unwrap(), numbers::number(name).unwrap(), arguments).0
}

fn refused(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

#[test]
fn every_named_call_gets_its_rule_and_no_other_call_passes() {
    let policy: Policy = serde_json::from_str(DEFAULT).unwrap();
    let program = default_program().unwrap();
    let allowed: Vec<u32> =
        policy.allow.values().flatten().filter_map(|name| numbers::number(name)).collect();
    let special: Vec<u32> =
        policy.conditions.iter().filter_map(|rule| numbers::number(&rule.call)).collect();
    for number in (0..2000).filter(|number| !special.contains(number)) {
        let (result, _) = run(&program, number, [0, 0]);
        assert_eq!(result == ALLOW, allowed.contains(&number), "call {number}");
    }
}

#[test]
fn dangerous_calls_are_refused_with_eperm() {
    let program = default_program().unwrap();
    for number in [
        libc::SYS_ptrace,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_io_uring_setup,
        libc::SYS_kexec_load,
        libc::SYS_pivot_root,
        libc::SYS_open_tree,
        libc::SYS_pidfd_getfd,
        libc::SYS_name_to_handle_at,
        libc::SYS_open_by_handle_at,
        libc::SYS_reboot,
    ] {
        let (result, _) = run(&program, u32::try_from(number).unwrap(), [0, 0]);
        assert_eq!(result, refused(libc::EPERM), "call {number}");
    }
}

#[test]
fn newer_and_foreign_calls_do_not_exist() {
    let program = default_program().unwrap();
    for number in [463, 500, 0x4000_0000, 0x4000_0001, u32::MAX] {
        assert_eq!(run(&program, number, [0, 0]).0, refused(libc::ENOSYS));
    }
    assert_eq!(call("clone3", [0, 0]), refused(libc::ENOSYS));
}

#[test]
fn arguments_decide() {
    let thread = 0x003d_0f00;
    assert_eq!(call("clone", [thread, 0]), ALLOW);
    assert_eq!(call("clone", [17, 0]), ALLOW);
    for bit in [17, 25, 26, 27, 28, 29, 30] {
        assert_eq!(call("clone", [(1 << bit) | 17, 0]), refused(libc::EPERM));
    }
    for family in [1, 2, 10] {
        assert_eq!(call("socket", [family, 0]), ALLOW);
    }
    for family in [0, 16, 17, 38, 40] {
        assert_eq!(call("socket", [family, 0]), refused(libc::EAFNOSUPPORT));
    }
    assert_eq!(call("ioctl", [0, 0x5412]), refused(libc::EPERM));
    assert_eq!(call("ioctl", [0, 0x5401]), ALLOW);
}

#[test]
fn the_server_may_do_less_than_a_sandbox() {
    let program = server_program().unwrap();
    let call = |name: &str, arguments| run(&program, numbers::number(name).unwrap(), arguments).0;
    for name in ["execve", "execveat"] {
        assert_eq!(call(name, [0, 0]), refused(libc::EPERM), "{name}");
    }
    for family in [0, 1, 16, 17, 40] {
        assert_eq!(call("socket", [family, 0]), refused(libc::EAFNOSUPPORT), "{family}");
    }
    for (name, arguments) in [("socket", [2, 0]), ("socket", [10, 0]), ("socketpair", [1, 0])] {
        assert_eq!(call(name, arguments), ALLOW, "{name}");
    }
    assert_eq!(call("clone", [0x1000_0000 | 17, 0]), refused(libc::EPERM));
    assert_eq!(
        (call("prlimit64", [0, 0]), call("prlimit64", [1, 0])),
        (ALLOW, refused(libc::EPERM))
    );
    let (default, mut differ) = (default_program().unwrap(), Vec::new());
    for number in 0..500 {
        if run(&program, number, [1, 0]).0 != run(&default, number, [1, 0]).0 {
            differ.push(number);
        }
    }
    let mut expected = [
        "execve",
        "execveat",
        "ioprio_set",
        "prlimit64",
        "sched_setaffinity",
        "sched_setattr",
        "sched_setparam",
        "sched_setscheduler",
        "setpriority",
        "socket",
    ]
    .map(|name| numbers::number(name).unwrap());
    expected.sort_unstable();
    assert_eq!(differ, expected);
}

#[test]
fn another_architecture_is_killed() {
    let program = default_program().unwrap();
    assert_eq!(program[2].k, libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!((program[1].jt, program[1].jf), (1, 0));
}

#[test]
fn a_call_costs_few_steps() {
    let program = default_program().unwrap();
    let worst = (0..500).map(|number| run(&program, number, [0, 0]).1).max().unwrap();
    assert!(worst <= 32, "{worst} steps");
    assert!(program.len() < 400, "{} instructions", program.len());
}

#[test]
fn a_policy_with_an_unknown_or_repeated_name_is_refused() {
    let policy = |names: &str| {
        format!(r#"{{"about":"","allow":{{"x":[{names}]}},"refuse":{{}},"conditions":[]}}"#)
    };
    assert!(rules(&policy(r#""read""#)).is_ok());
    assert!(rules(&policy(r#""read","read""#)).is_err());
    if cfg!(target_arch = "x86_64") {
        assert!(rules(&policy(r#""no_such_call""#)).is_err());
    }
}
