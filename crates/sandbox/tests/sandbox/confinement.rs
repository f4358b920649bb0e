//! What a program sees and what it is refused.

use std::path::PathBuf;

use lacewing_sandbox::Mount;

use crate::support::{
    MIB, UID_BASE, eventually, experiment, launcher, probe, processes_of, ready, root, run, shell,
    start,
};

#[test]
fn the_root_holds_only_what_was_put_there() {
    let Some(launcher) = launcher() else { return };
    let names = experiment(&launcher, &["list", "/"]);
    for name in names.split('|') {
        let known = [
            "bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "sbin", "tmp",
            "usr", "var",
        ];
        assert!(known.contains(&name), "{name} in {names}");
    }
    let devices = experiment(&launcher, &["list", "/dev"]);
    assert_eq!(devices, "fd|full|null|random|shm|stderr|stdin|stdout|urandom|zero");
    for path in
        ["/root", "/home", "/etc/shadow", "/var/lib", "/run", "/sys", "/boot", "/srv", "/mnt"]
    {
        assert_eq!(experiment(&launcher, &["list", path]), "errno 2", "{path}");
    }
    assert_eq!(experiment(&launcher, &["list", "/proc/1/root"]), "errno 13");
}

#[test]
fn nothing_can_be_written_but_temporary_files() {
    let Some(launcher) = launcher() else { return };
    for path in ["/x", "/usr/x", "/etc/x", "/opt/x", "/var/task/x", "/var/lang/x", "/dev/x"] {
        let got = experiment(&launcher, &["write", path]);
        assert!(["errno 30", "errno 13"].contains(&got.as_str()), "{path}: {got}");
    }
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/1/oom_score_adj",
    ] {
        let got = experiment(&launcher, &["write", path]);
        // Not every kernel has each of them.
        assert!(["errno 30", "errno 13", "errno 2"].contains(&got.as_str()), "{path}: {got}");
    }
    assert_eq!(experiment(&launcher, &["write", "/tmp/x"]), "written");
    assert_eq!(experiment(&launcher, &["write", "/dev/shm/x"]), "written");
    assert_eq!(experiment(&launcher, &["write", "/dev/null"]), "written");
}

#[test]
fn the_temporary_directory_is_bounded_and_private() {
    let Some(launcher) = launcher() else { return };
    let filled = experiment(&launcher, &["fill", "/tmp/big"]);
    let (bytes, errno) = filled.split_once(" then errno ").unwrap();
    let bytes: u64 = bytes.parse().unwrap();
    assert!(bytes == 4 * MIB && errno == "28", "{filled}");
    let created = experiment(&launcher, &["create", "/tmp"]);
    let (files, errno) = created.split_once(" then errno ").unwrap();
    // A file system on disk rounds the number up to whole blocks of inodes.
    assert!((60..=80).contains(&files.parse::<u64>().unwrap()) && errno == "28", "{created}");
    assert_eq!(experiment(&launcher, &["list", "/tmp"]), "");
    assert_eq!(run(&launcher, &shell("stat -c %a /tmp")).output, "1777");
}

#[test]
fn a_program_of_a_mount_without_exec_cannot_be_run() {
    let Some(launcher) = launcher() else { return };
    let mut wanted = probe(&["arguments"]);
    if let Some(Mount::Bind { exec, .. }) = wanted.mounts.first_mut() {
        *exec = false;
    }
    let ran = run(&launcher, &wanted);
    assert!(ran.failure().is_some_and(|why| why.contains("os error 13")), "{ran:?}");
}

#[test]
fn the_user_is_another_one_on_the_host_and_has_no_capability() {
    let Some(launcher) = launcher() else { return };
    let lines = experiment(
        &launcher,
        &["status", "Uid,Gid,Groups,CapInh,CapPrm,CapEff,CapBnd,CapAmb,NoNewPrivs,Seccomp"],
    );
    let none = "0000000000000000";
    assert_eq!(
        lines,
        format!(
            "Uid: 993 993 993 993|Gid: 990 990 990 990|Groups:  |CapInh: {none}|CapPrm: {none}|\
             CapEff: {none}|CapBnd: {none}|CapAmb: {none}|NoNewPrivs: 1|Seccomp: 2"
        )
    );
    if !root() {
        println!("skipped: an ordinary user has no other users to give");
        return;
    }
    let (sandbox, _output) = start(&launcher, &shell("sleep 60"));
    ready(&sandbox);
    let range = UID_BASE..UID_BASE + 100;
    eventually("init, the shell and its child have a uid of the range", || {
        range.clone().any(|uid| processes_of(uid).len() >= 2)
    });
    let used: Vec<u32> = range.filter(|uid| !processes_of(*uid).is_empty()).collect();
    assert!(!used.is_empty());
}

#[test]
fn two_sandboxes_have_different_host_users() {
    if !root() {
        println!("skipped: an ordinary user has no other users to give");
        return;
    }
    let Some(launcher) = launcher() else { return };
    let mut second = shell("sleep 61");
    second.name = "second".to_owned();
    let (one, _output) = start(&launcher, &shell("sleep 61"));
    let (two, _output) = start(&launcher, &second);
    ready(&one);
    ready(&two);
    let owners = || {
        let parent = launcher.pid().to_string();
        let mut uids: Vec<u32> = Vec::new();
        for uid in UID_BASE..UID_BASE + 100 {
            let of_ours = processes_of(uid).into_iter().any(|pid| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit(") ").next().and_then(|it| it.split(' ').nth(1)) == Some(&parent)
            });
            if of_ours {
                uids.push(uid);
            }
        }
        uids
    };
    eventually("two users", || owners().len() == 2);
}

#[test]
fn forbidden_system_calls_fail_with_their_errno() {
    let Some(launcher) = launcher() else { return };
    let (eperm, enosys, eafnosupport) = (1, 38, 97);
    let newuser = 0x1000_0000 | 17;
    let calls: Vec<(String, i32)> = [
        (libc::SYS_unshare, vec![0x1000_0000], eperm),
        (libc::SYS_unshare, vec![0x0002_0000], eperm),
        (libc::SYS_setns, vec![0, 0], eperm),
        (libc::SYS_mount, vec![0, 0, 0, 0, 0], eperm),
        (libc::SYS_umount2, vec![0, 2], eperm),
        (libc::SYS_pivot_root, vec![0, 0], eperm),
        (libc::SYS_chroot, vec![0], eperm),
        (libc::SYS_ptrace, vec![0, 0, 0, 0], eperm),
        (libc::SYS_process_vm_readv, vec![1, 0, 0, 0, 0, 0], eperm),
        (libc::SYS_bpf, vec![0, 0, 0], eperm),
        (libc::SYS_perf_event_open, vec![0, 0, 0, 0, 0], eperm),
        (libc::SYS_userfaultfd, vec![0], eperm),
        (libc::SYS_io_uring_setup, vec![1, 0], eperm),
        (libc::SYS_keyctl, vec![0, 0], eperm),
        (libc::SYS_add_key, vec![0, 0, 0, 0, 0], eperm),
        (libc::SYS_open_tree, vec![-100, 0, 0], eperm),
        (libc::SYS_fsopen, vec![0, 0], eperm),
        (libc::SYS_init_module, vec![0, 0, 0], eperm),
        (libc::SYS_kexec_load, vec![0, 0, 0, 0], eperm),
        (libc::SYS_clone, vec![newuser, 0, 0, 0, 0], eperm),
        (libc::SYS_clone3, vec![0, 0], enosys),
        (463, vec![], enosys),
        (libc::SYS_socket, vec![16, 3, 0], eafnosupport),
        (libc::SYS_socket, vec![17, 3, 0], eafnosupport),
        (libc::SYS_socket, vec![38, 5, 0], eafnosupport),
        (libc::SYS_socket, vec![40, 1, 0], eafnosupport),
        (libc::SYS_socket, vec![2, 3, 1], eperm),
        (libc::SYS_ioctl, vec![0, 0x5412, 0], eperm),
        (libc::SYS_socket, vec![2, 1, 0], 0),
        (libc::SYS_socket, vec![1, 1, 0], 0),
        (libc::SYS_getpid, vec![], 0),
    ]
    .into_iter()
    .map(|(number, arguments, errno): (i64, Vec<i64>, i32)| {
        let all: Vec<String> = [number].iter().chain(&arguments).map(i64::to_string).collect();
        (all.join(","), errno)
    })
    .collect();
    let mut arguments = vec!["syscall"];
    arguments.extend(calls.iter().map(|(call, _)| call.as_str()));
    let output = experiment(&launcher, &arguments);
    for ((call, expected), got) in calls.iter().zip(output.split('|')) {
        assert_eq!(got, expected.to_string(), "call {call}");
    }
    assert_eq!(output.split('|').count(), calls.len());
}

#[test]
fn only_the_own_processes_are_seen() {
    let Some(launcher) = launcher() else { return };
    let names = experiment(&launcher, &["list", "/proc"]);
    let pids: Vec<&str> = names.split('|').filter(|name| name.parse::<u32>().is_ok()).collect();
    assert_eq!(pids, ["1", "2"]);
    assert_eq!(experiment(&launcher, &["read", "/proc/1/environ"]), "errno 13");
    assert_eq!(experiment(&launcher, &["read", "/proc/1/mem"]), "errno 13");
    assert_eq!(experiment(&launcher, &["list", "/proc/1/fd"]), "errno 13");
}

#[test]
fn neither_init_nor_anything_outside_can_be_killed_from_inside() {
    let Some(launcher) = launcher() else { return };
    let ran = run(&launcher, &shell("kill -KILL 1; kill -STOP 1; kill -KILL -1; exit 5"));
    assert_eq!((ran.code(), ran.signal()), (Some(5), None), "{ran:?}");
}

#[test]
fn the_network_is_a_loopback_of_its_own() {
    let Some(launcher) = launcher() else { return };
    let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = outside.local_addr().unwrap().to_string();
    assert_eq!(experiment(&launcher, &["talk", &address]), "errno 111");
    assert_eq!(experiment(&launcher, &["talk", "169.254.169.254:80"]), "errno 101");
    assert_eq!(experiment(&launcher, &["talk", "1.1.1.1:53"]), "errno 101");
    let ran = run(&launcher, &shell("cat /proc/net/dev | grep -c :"));
    assert_eq!(ran.output, "1", "{ran:?}");
}

#[test]
fn a_private_directory_can_be_added() {
    let Some(launcher) = launcher() else { return };
    let mut wanted =
        shell("echo x > /opt/file && stat -c '%a %u %g' /opt && df -B1 --output=size /opt");
    let target = PathBuf::from("/opt");
    wanted.mounts.push(Mount::Tmpfs { target, bytes: MIB, mode: 0o700 });
    let ran = run(&launcher, &wanted);
    let lines: Vec<&str> = ran.output.lines().map(str::trim).collect();
    assert_eq!((lines.first(), lines.last()), (Some(&"700 993 990"), Some(&"1048576")), "{ran:?}");
}

#[test]
fn the_host_name_is_the_given_one() {
    let Some(launcher) = launcher() else { return };
    assert_eq!(run(&launcher, &shell("uname -n")).output, "sandbox");
}

#[test]
fn shared_libraries_and_threads_work() {
    let Some(launcher) = launcher() else { return };
    let script = "perl -e 'print \"perl \"'; echo sed | sed s/e/e/ | cat";
    assert_eq!(run(&launcher, &shell(script)).output, "perl sed");
}
