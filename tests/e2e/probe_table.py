"""What a function may not do: one row for each attempt, with what must stop it and how that shows.

Data only. A row's calls are system calls by name; the last one is the attempt, those before it get
there and must succeed. `stops` names, for each errno (or signal) that is right, the layer that gives
it; where a host lacks a layer (`lacewing doctor` tells), its errno is no longer right. Paths may hold `{data}`
(the server's data directory on the host), `{server}` and `{launcher}` (process ids there), `{port}`
(the server's on the host's loopback), `{service}` (of a service on all addresses of the host), `{host}` (one of
them that is no loopback), `{victim}` (that of another Instance, with a Runtime API), `{abstract}` (the name of
a socket of the host), `{run}` and `{tmp}` (directories of the host with a socket in each).
"""

import dataclasses
import errno
import itertools
import signal
import struct

# System calls of x86-64.
NUMBERS = {
    "write": 1, "open": 2, "mmap": 9, "ioctl": 16, "shmget": 29, "getpid": 39, "socket": 41, "connect": 42,
    "sendto": 44, "bind": 49, "listen": 50, "socketpair": 53, "setsockopt": 54, "clone": 56, "kill": 62,
    "fcntl": 72, "rename": 82, "mkdir": 83, "creat": 85, "link": 86, "unlink": 87, "symlink": 88,
    "chmod": 90, "chown": 92, "ptrace": 101, "syslog": 103, "setuid": 105, "setgid": 106, "setgroups": 116,
    "capset": 126, "utime": 132, "mknod": 133, "uselib": 134, "personality": 135, "ustat": 136,
    "setpriority": 141, "sched_setscheduler": 144, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155,
    "prctl": 157, "adjtimex": 159, "setrlimit": 160, "chroot": 161, "sync": 162, "acct": 163,
    "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169, "sethostname": 170,
    "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179,
    "setxattr": 188, "lookup_dcookie": 212, "io_setup": 206, "io_submit": 209, "clock_settime": 227,
    "mbind": 237, "set_mempolicy": 238, "mq_open": 240, "kexec_load": 246, "add_key": 248,
    "request_key": 249, "keyctl": 250, "ioprio_set": 251, "migrate_pages": 256, "openat": 257,
    "unshare": 272, "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300, "prlimit64": 302,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305, "syncfs": 306, "setns": 308,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "sched_setattr": 314,
    "kexec_file_load": 320, "bpf": 321, "execveat": 322, "userfaultfd": 323, "uretprobe": 335,
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "quotactl_fd": 443, "memfd_secret": 447, "process_mrelease": 448, "cachestat": 451,
    "map_shadow_stack": 453, "statmount": 457, "listmount": 458, "lsm_set_self_attr": 460,
    "open_tree_attr": 467,
    # Not names of the kernel's: the same call by another interface of the processor.
    "x32 getpid": 0x40000000 + 39, "i386 getpid": "x20", "i386 mount": "x21",
}  # fmt: skip

AT_FDCWD = -100
# The link to the root of a process.
ROOT_LINK = "/proc/{}/root"
O_WRONLY, O_RDWR, O_CREAT, O_DIRECTORY, O_PATH = 1, 2, 0o100, 0o200000, 0o10000000
TMPFILE = 0o20200000
S_IFCHR, S_IFBLK = 0o020000, 0o060000
NEW = {
    "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000,
    "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip
FAMILIES = {
    "netlink": 16, "packet": 17, "vsock": 40, "alg": 38, "key": 15, "xdp": 44, "bluetooth": 31, "can": 29,
    "tipc": 30, "rds": 21, "smc": 43, "qipcrtr": 42, "pppox": 24, "llc": 26, "nfc": 39, "kcm": 41,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Zeros:
    """A pointer to so many zero bytes."""

    length: int


@dataclasses.dataclass(frozen=True)
class Result:
    """What an earlier call gave."""

    index: int


@dataclasses.dataclass(frozen=True)
class Probe:
    area: str
    name: str
    calls: tuple
    stops: dict  # name of an errno or signal -> layer
    languages: tuple = ("compiled", "python", "node")
    # What stops it where the function has a way out, if that is another layer; `{}`: nothing has to.
    egress: dict | None = None
    # Whether the kernel shows it by whose the network namespace is: that of a restored Instance is its own.
    by_owner: bool = False

    @property
    def id(self) -> str:
        return f"{self.area}: {self.name}"

    @property
    def outward(self) -> dict:
        """What must stop it in a function with a way out; of the other areas that makes no difference."""
        same = self.stops if self.area in ("sockets", "network") else {}
        return same if self.egress is None else self.egress


def call(name: str, *arguments) -> tuple:
    return (name, *arguments)


def address(host: str, port: int | str) -> tuple:
    """A `sockaddr_in`; both may be placeholders."""
    return ("sockaddr_in", host, port)


def connects(host: str, port: int | str) -> tuple:
    return call("socket", 2, 1, 0), call("connect", Result(0), address(host, port), 16)


def opens(path: str, flags: int = 0) -> tuple:
    return call("openat", AT_FDCWD, path, flags, 0o600)


SECCOMP = {"EPERM": "seccomp"}
ABSENT = {"ENOENT": "mounts"}
# Which of the two speaks first depends on the call: the mount is read-only, and Landlock says no.
READ_ONLY = {"EROFS": "mounts", "EACCES": "landlock"}
OWNER = {"EACCES": "file permissions"}
UNDUMPABLE = {"EACCES": "undumpable init"}
PIDS = {"ESRCH": "pid namespace"}
POWERLESS = {"EPERM": "no capabilities"}


def rows(area: str, stops: dict, attempts: dict, **options):
    """Many attempts of one area that the same thing must stop."""
    for name, calls in attempts.items():
        calls = calls if isinstance(calls[0], tuple) else (calls,)
        yield Probe(area, name, calls, stops, **options)


def host_files():
    hidden = [
        "/root", "/home", "/etc/shadow", "/etc/ssh", "/etc/machine-id", "/var/lib", "/var/log", "/run", "/boot",
        "/srv", "/mnt", "/media", "/lost+found", "/sys", "/sys/fs/cgroup", "/sys/kernel/security", "/dev/pts",
    ]  # fmt: skip
    yield from rows("files of the host", ABSENT, {f"open {path}": opens(path) for path in hidden})
    yield from rows("data directory", ABSENT, {
        "open it": opens("{data}"),
        "open the master key": opens("{data}/master.key"),
        "open the root credentials": opens("{data}/credentials"),
        "open what the server made for sandboxes": opens("{data}/run"),
        "open other functions' code": opens("{data}/code"),
        "make a file in it": opens("{data}/x", O_WRONLY | O_CREAT),
    })  # fmt: skip
    yield from rows("files of the host", ABSENT, {
        "climb above the root": opens("/../../../../etc/shadow"),
        "climb above the root by /proc/self/root": opens(f"{ROOT_LINK.format('self')}/../../etc/shadow"),
        "climb above the working directory": opens("/proc/self/cwd/../../../../etc/shadow"),
        "follow a link out of /tmp": (call("symlink", "/etc/shadow", "/tmp/l1"), opens("/tmp/l1")),
        "follow a link above the root": (call("symlink", "../../../../etc/shadow", "/tmp/l2"), opens("/tmp/l2")),
    })  # fmt: skip
    yield from rows("files of the host", UNDUMPABLE, {
        "follow a link to init's root": (call("symlink", ROOT_LINK.format(1), "/tmp/l3"), opens("/tmp/l3/etc/shadow")),
        "follow a link to init's directory": (call("symlink", "/proc/1/cwd", "/tmp/l4"), opens("/tmp/l4/x")),
    })  # fmt: skip
    yield from rows("files of the host", SECCOMP, {
        "open a file by its handle": call("open_by_handle_at", AT_FDCWD, Zeros(64), 0),
        "get the handle of a file": call("name_to_handle_at", AT_FDCWD, "/usr", Zeros(64), Zeros(8), 0),
        "chroot": call("chroot", "/tmp"),
        "pivot_root": call("pivot_root", "/tmp", "/tmp"),
        "flush all disks": call("sync"),
        "flush a disk": (opens("/var/task"), call("syncfs", Result(0))),
        "look at quotas": call("quotactl", 0x80000700, "/dev/sda", 0, Zeros(64)),
        "look at a file system": call("ustat", 1, Zeros(64)),
    })  # fmt: skip
    writes = ["/x", "/usr/x", "/usr/bin/x", "/etc/x", "/opt/x", "/var/task/x", "/var/runtime/x", "/var/x", "/dev/x"]
    yield from rows("read-only root", READ_ONLY, {
        **{f"make {path}": opens(path, O_WRONLY | O_CREAT) for path in writes},
        "make a directory in /usr": call("mkdir", "/usr/d", 0o755),
        "remove /usr/bin/env": call("unlink", "/usr/bin/env"),
        "rename /usr/bin/env": call("rename", "/usr/bin/env", "/usr/bin/vne"),
        "make a link in /etc": call("symlink", "/tmp", "/etc/l"),
        "make a nameless file in /usr": opens("/usr", TMPFILE | O_RDWR),
    })  # fmt: skip
    # Whose they are is asked before how they are mounted.
    yield from rows("read-only root", {"EACCES": "file permissions", "EROFS": "mounts"}, {
        "write to /etc/passwd": opens("/etc/passwd", O_WRONLY),
        "write to its own code": opens("/var/task/marker", O_WRONLY),
    })  # fmt: skip
    yield from rows("read-only root", {"EROFS": "mounts", "EPERM": "no capabilities"}, {
        "make /usr/bin/env set-user-id": call("chmod", "/usr/bin/env", 0o4755),
        "take /usr/bin/env over": call("chown", "/usr/bin/env", 993, 990),
        "set a file capability": call("setxattr", "/usr/bin/env", "security.capability", "x", 1, 0),
        "set the time of /usr/bin/env": call("utime", "/usr/bin/env", Zeros(16)),
    })  # fmt: skip
    yield from rows("read-only root", {"EXDEV": "mounts", "EACCES": "landlock", "EPERM": "protected links"}, {
        "link /usr/bin/env into /tmp": call("link", "/usr/bin/env", "/tmp/hard"),
        "link /etc/passwd into /tmp": call("link", "/etc/passwd", "/tmp/hard2"),
        "link a descriptor's file into /tmp": call("link", "/proc/self/environ", "/tmp/hard3"),
        "move its own code": call("rename", "/var/task/marker", "/tmp/marker"),
    })  # fmt: skip


def processes():
    yield from rows("processes of the host", PIDS, {
        "signal the server": call("kill", "{server}", 0),
        "signal the launcher": call("kill", "{launcher}", 0),
        "hold the server by descriptor": call("pidfd_open", "{server}", 0),
        "slow the server down": call("setpriority", 0, "{server}", 19),
        "limit the server": call("prlimit64", "{server}", 0, Zeros(16), 0),
        "schedule the server": call("sched_setscheduler", "{server}", 5, Zeros(8)),
    })  # fmt: skip
    yield from rows("processes of the host", ABSENT, {
        "read the server's environment": opens("/proc/{server}/environ"),
        "read the server's memory": opens("/proc/{server}/mem"),
        "list the launcher's descriptors": opens("/proc/{launcher}/fd"),
    })  # fmt: skip
    yield from rows("init of the sandbox", UNDUMPABLE, {
        "read its memory": opens("/proc/1/mem"),
        "write its memory": opens("/proc/1/mem", O_RDWR),
        "read its environment": opens("/proc/1/environ"),
        "read its memory map": opens("/proc/1/maps"),
        "read its auxiliary vector": opens("/proc/1/auxv"),
        "list its descriptors": opens("/proc/1/fd", O_DIRECTORY),
        "open its status socket": opens("/proc/1/fd/3"),
        "open its root": opens(f"{ROOT_LINK.format(1)}/"),
        "open its network namespace": opens("/proc/1/ns/net"),
        "change its score for the out-of-memory killer": opens("/proc/1/oom_score_adj", O_WRONLY),
    })  # fmt: skip
    yield from rows("other processes", SECCOMP, {
        "trace init": call("ptrace", 16, 1, 0, 0),
        "seize init": call("ptrace", 0x4206, 1, 0, 0),
        "be traced": call("ptrace", 0, 0, 0, 0),
        "read init's memory": call("process_vm_readv", 1, Zeros(16), 1, Zeros(16), 1, 0),
        "write init's memory": call("process_vm_writev", 1, Zeros(16), 1, Zeros(16), 1, 0),
        "take init's descriptor": (call("pidfd_open", 1, 0), call("pidfd_getfd", Result(0), 3, 0)),
        "compare descriptors with init": call("kcmp", 1, 1, 0, 0, 0),
        "advise on init's memory": (call("pidfd_open", 1, 0), call("process_madvise", Result(0), Zeros(16), 1, 20, 0)),
        "move init's pages": call("migrate_pages", 1, 8, Zeros(8), Zeros(8)),
        "find init's pages": call("move_pages", 1, 1, Zeros(8), 0, Zeros(8), 0),
    })  # fmt: skip
    yield from rows("other processes", {"EINVAL": "kernel"}, {
        "reap the memory of living init": (call("pidfd_open", 1, 0), call("process_mrelease", Result(0), 0)),
    })  # fmt: skip


def namespaces():
    for name, flag in NEW.items():
        yield Probe("namespaces", f"unshare {name}", (call("unshare", flag),), SECCOMP)
        yield Probe("namespaces", f"clone with a new {name}", (call("clone", flag | 17, 0, 0, 0, 0),), SECCOMP)
    args = struct.pack("<11Q", NEW["user"], 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    yield Probe("namespaces", "clone3 with a new user", (call("clone3", args, len(args)),), {"ENOSYS": "seccomp"})
    yield Probe("namespaces", "clone3", (call("clone3", bytes(88), 88),), {"ENOSYS": "seccomp"})
    yield from rows("namespaces", SECCOMP, {
        "unshare files and a new user": call("unshare", NEW["user"] | NEW["mount"]),
        "unshare time": call("unshare", 0x80),
        "enter its own network": (opens("/proc/self/ns/net"), call("setns", Result(0), NEW["net"])),
        "enter its own user namespace": (opens("/proc/self/ns/user"), call("setns", Result(0), NEW["user"])),
        "enter all namespaces of init": (call("pidfd_open", 1, 0), call("setns", Result(0), NEW["mount"])),
        "mount a tmpfs": call("mount", "x", "/tmp", "tmpfs", 0, 0),
        "mount proc": call("mount", "x", "/tmp", "proc", 0, 0),
        "bind /": call("mount", "/", "/tmp", 0, 0x5000, 0),
        "remount /usr writable": call("mount", 0, "/usr", 0, 0x1020, 0),
        "move a mount": call("mount", "/tmp", "/opt", 0, 0x2000, 0),
        "make mounts shared": call("mount", 0, "/", 0, 0x100000, 0),
        "unmount /etc": call("umount2", "/etc", 2),
        "unmount /": call("umount2", "/", 2),
        "open_tree": call("open_tree", AT_FDCWD, "/", 1),
        "move_mount": call("move_mount", AT_FDCWD, "/tmp", AT_FDCWD, "/opt", 0),
        "fsopen": call("fsopen", "tmpfs", 0),
        "fsconfig": call("fsconfig", 0, 6, 0, 0, 0),
        "fsmount": call("fsmount", 0, 0, 0),
        "fspick": call("fspick", AT_FDCWD, "/tmp", 0),
        "mount_setattr": call("mount_setattr", AT_FDCWD, "/usr", 0, Zeros(32), 32),
    })  # fmt: skip
    yield from rows("namespaces", {"ENOSYS": "seccomp", "EPERM": "seccomp"}, {
        "statmount": call("statmount", Zeros(32), Zeros(256), 256, 0),
        "listmount": call("listmount", Zeros(32), Zeros(256), 32, 0),
        "open_tree_attr": call("open_tree_attr", AT_FDCWD, "/", 1, Zeros(32), 32),
    })  # fmt: skip
    yield from rows("namespaces", {"EPERM": "no capabilities", "EACCES": "file permissions"}, {
        "map another user": (opens("/proc/self/uid_map", O_WRONLY), call("write", Result(0), "0 0 1", 5)),
        "map another group": (opens("/proc/self/gid_map", O_WRONLY), call("write", Result(0), "0 0 1", 5)),
        "allow setgroups": opens("/proc/self/setgroups", O_WRONLY),
        "choose the next process id": (opens("/proc/sys/kernel/ns_last_pid", O_WRONLY), call("write", Result(0), "9", 1)),
    })  # fmt: skip


def kernel():
    yield from rows("kernel", SECCOMP, {
        "load a BPF program": call("bpf", 5, Zeros(128), 128),
        "make a BPF map": call("bpf", 0, Zeros(128), 128),
        "watch performance events": call("perf_event_open", Zeros(128), 0, -1, -1, 0),
        "handle page faults": call("userfaultfd", 1),
        "make an io_uring": call("io_uring_setup", 8, Zeros(120)),
        "enter an io_uring": call("io_uring_enter", 0, 1, 0, 0, 0, 0),
        "register with an io_uring": call("io_uring_register", 0, 0, 0, 0),
        "make asynchronous IO": call("io_setup", 8, Zeros(8)),
        "add a key": call("add_key", "user", "x", "x", 1, -3),
        "request a key": call("request_key", "user", "x", 0, -3),
        "join a session keyring": call("keyctl", 1, 0),
        "read a keyring": call("keyctl", 11, -4, 0, 0),
        "load a module": call("init_module", 0, 0, ""),
        "load a module from a file": (opens("/usr/bin/env"), call("finit_module", Result(0), "", 0)),
        "remove a module": call("delete_module", "x", 0),
        "load another kernel": call("kexec_load", 0, 0, 0, 0),
        "load another kernel from a file": call("kexec_file_load", 0, 0, 0, "", 0),
        "restart the machine": call("reboot", 0xFEE1DEAD - (1 << 32), 672274793, 0x1234567, 0),
        "read the kernel's log": call("syslog", 3, Zeros(64), 64),
        "clear the kernel's log": call("syslog", 5, 0, 0),
        "account processes": call("acct", "/tmp/acct"),
        "swap to a file": call("swapon", "/tmp/swap", 0),
        "name the machine": call("sethostname", "x", 1),
        "set the clock": call("settimeofday", Zeros(16), 0),
        "set a clock": call("clock_settime", 0, Zeros(16)),
        "adjust the clock": call("adjtimex", Zeros(256)),
        "adjust a clock": call("clock_adjtime", 0, Zeros(256)),
        "raise the IO privilege": call("iopl", 3),
        "reach IO ports": call("ioperm", 0, 8, 1),
        "change the descriptor table": call("modify_ldt", 1, Zeros(16), 16),
        "hang up the terminal": call("vhangup"),
        "watch all files": call("fanotify_init", 0, 0),
        "bind memory": call("mbind", 0, 0, 0, 0, 0, 0),
        "set the memory policy": call("set_mempolicy", 0, 0, 0),
        "use an old library": call("uselib", "/tmp/x"),
        "personality with executable data": call("personality", 0x0400000),
        "personality of another system": call("personality", 1),
        "profile by cookie": call("lookup_dcookie", 0, Zeros(64), 64),
    })  # fmt: skip
    yield from rows("kernel", {"ENOSYS": "seccomp", "EPERM": "seccomp"}, {
        "look into the page cache": (opens("/usr/bin/env"), call("cachestat", Result(0), Zeros(16), Zeros(40), 0)),
        "map a shadow stack": call("map_shadow_stack", 0, 4096, 0),
        "set its own LSM": call("lsm_set_self_attr", 100, Zeros(32), 32, 0),
        "the 64-bit interface with 32-bit pointers": call("x32 getpid"),
    })  # fmt: skip
    yield from rows("kernel", {"SIGILL": "kernel", "EPERM": "seccomp", "ENOSYS": "kernel"}, {
        "return from a probe that is not there": call("uretprobe"),
    })  # fmt: skip
    yield from rows("kernel", {"SIGSYS": "seccomp", "SIGSEGV": "kernel"}, {
        "the 32-bit interface": call("i386 getpid"),
        "mount by the 32-bit interface": call("i386 mount", 0),
    })  # fmt: skip
    yield from rows("kernel", SECCOMP, {
        "type into a terminal (TIOCSTI)": call("ioctl", 0, 0x5412, "x"),
        "type into a terminal (TIOCSTI, high bits set)": call("ioctl", 0, 0x5412 | 1 << 32, "x"),
        "paste into a terminal (TIOCLINUX)": call("ioctl", 0, 0x541C, "x"),
    })  # fmt: skip


def powers():
    yield from rows("user and powers", {"EINVAL": "user namespace"}, {
        "become root": call("setuid", 0),
        "become another user": call("setuid", 1000),
        "join the group of root": call("setgid", 0),
    })  # fmt: skip
    yield from rows("user and powers", POWERLESS, {
        "have more groups": call("setgroups", 1, Zeros(4)),
        "take capabilities": call("capset", struct.pack("<II", 0x20080522, 0), b"\xff" * 24),
        "run in real time": call("sched_setscheduler", 0, 1, struct.pack("<I", 1)),
        "have a deadline": call("sched_setattr", 0, struct.pack("<IIQiIQQQ", 48, 6, 0, 0, 0, 10**6, 10**7, 10**7), 0),
        "have disks at once": call("ioprio_set", 1, 0, 1 << 13),
        "raise its limit of files": call("setrlimit", 7, struct.pack("<QQ", 1 << 20, 1 << 20)),
        "raise its limit of processes": call("setrlimit", 6, b"\xff" * 16),
        "lock memory without limit": call("setrlimit", 8, b"\xff" * 16),
        "add to its bounding set": call("prctl", 24, 64 - 64, 0, 0, 0),
        "move its heap": call("prctl", 35, 6, 0, 0, 0),
        "raise an ambient capability": call("prctl", 47, 2, 0, 0, 0),
    })  # fmt: skip
    yield from rows("user and powers", {"EACCES": "rlimit"}, {"go before all others": call("setpriority", 0, 0, -20)})
    yield from rows("user and powers", {"EINVAL": "kernel"}, {"allow new powers again": call("prctl", 38, 0, 0, 0, 0)})
    yield from rows("user and powers", {"EACCES": "file permissions"}, {
        "be spared by the out-of-memory killer": (
            opens("/proc/self/oom_score_adj", O_WRONLY), call("write", Result(0), "-1000", 5),
        ),
    })  # fmt: skip
    yield from rows("devices", POWERLESS, {
        "make a device for memory": call("mknod", "/tmp/mem", S_IFCHR | 0o666, 0x101),
        "make a device for a disk": call("mknod", "/tmp/disk", S_IFBLK | 0o666, 0x800),
        "make a terminal": call("mknod", "/tmp/tty", S_IFCHR | 0o666, 0x500),
    })  # fmt: skip
    names = ["mem", "kmsg", "kvm", "fuse", "net/tun", "ptmx", "tty", "console", "sda", "loop-control", "vhost-net",
             "mapper/control", "snd", "input", "rtc", "cpu_dma_latency", "mqueue", "hugepages"]  # fmt: skip
    yield from rows("devices", ABSENT, {f"open /dev/{name}": opens(f"/dev/{name}", O_RDWR) for name in names})


def settings():
    files = ["kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "kernel/sysrq",
             "kernel/randomize_va_space", "kernel/shmmax", "vm/drop_caches", "vm/overcommit_memory", "fs/file-max",
             "fs/mqueue/msg_max", "fs/inotify/max_user_instances", "net/ipv4/ip_forward",
             "net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range",
             "user/max_user_namespaces", "user/max_inotify_instances"]  # fmt: skip
    # Not every kernel has each of them, nor shows each of them in a namespace.
    denied = {"EACCES": "file permissions", "ENOENT": "kernel"}
    yield from rows("settings of the kernel", denied, {
        f"write /proc/sys/{name}": opens(f"/proc/sys/{name}", O_WRONLY) for name in files
    })  # fmt: skip
    yield from rows("settings of the kernel", denied, {
        "write /proc/sys/net/core/somaxconn": opens("/proc/sys/net/core/somaxconn", O_WRONLY),
    }, by_owner=True)  # fmt: skip
    yield from rows("settings of the kernel", denied, {
        "write /proc/sysrq-trigger": opens("/proc/sysrq-trigger", O_WRONLY),
        "write /proc/irq/default_smp_affinity": opens("/proc/irq/default_smp_affinity", O_WRONLY),
        "write /proc/mtrr": opens("/proc/mtrr", O_WRONLY),
        "read /proc/kcore": opens("/proc/kcore"),
        "read /proc/slabinfo": opens("/proc/slabinfo"),
        "read /proc/vmallocinfo": opens("/proc/vmallocinfo"),
        "read /proc/iomem for writing": opens("/proc/iomem", O_RDWR),
    })  # fmt: skip
    yield from rows("settings of the kernel", {"EPERM": "no capabilities", "EACCES": "file permissions"}, {
        "read /proc/kmsg": opens("/proc/kmsg"),
    })  # fmt: skip


def network():
    for name, family in FAMILIES.items():
        for kind in (1, 2, 3):
            calls = (call("socket", family, kind, 0),)
            yield Probe("sockets", f"{name} socket of type {kind}", calls, {"EAFNOSUPPORT": "seccomp"})
    yield from rows("sockets", {"EAFNOSUPPORT": "seccomp"}, {
        "netlink socket with high bits set": call("socket", 16 | 1 << 32, 3, 0),
        "pair of netlink sockets": call("socketpair", 16, 3, 0, Zeros(8)),
    })  # fmt: skip
    yield from rows("sockets", POWERLESS, {
        "raw socket": call("socket", 2, 3, 1),
        "raw socket of IPv6": call("socket", 10, 3, 58),
        "raw socket for all": call("socket", 2, 3, 255),
    })  # fmt: skip
    yield from rows("sockets", {"EACCES": "network namespace"}, {"socket for pings": call("socket", 2, 2, 1)})
    tcp = call("socket", 2, 1, 0)
    option = lambda level, number: (tcp, call("setsockopt", Result(0), level, number, struct.pack("<I", 1), 4))  # noqa: E731
    yield from rows("sockets", POWERLESS, {
        "mark packets": option(1, 36),
        "overdraw the send buffer": option(1, 32),
        "overdraw the receive buffer": option(1, 33),
        "be a transparent proxy": option(0, 19),
        "repair a connection": option(6, 19),
        "replace the packet filter": option(0, 64),
        "bring an interface down": (
            tcp, call("ioctl", Result(0), 0x8914, b"lo".ljust(16, b"\0") + bytes(24)),
        ),
        "give an interface an address": (
            tcp, call("ioctl", Result(0), 0x8916, b"lo".ljust(16, b"\0") + b"\2\0\0\0\12\0\0\1" + bytes(16)),
        ),
        "add a route": (tcp, call("ioctl", Result(0), 0x890B, Zeros(120))),
    })  # fmt: skip
    yield from rows("sockets", {"EACCES": "no capabilities"}, {"have packets traced": option(1, 1)})
    yield from rows("sockets", {"EACCES": "network namespace"}, {
        "listen on a low port": (tcp, call("bind", Result(0), address("127.0.0.1", 80), 16)),
    })  # fmt: skip
    yield from rows("network", {"ECONNREFUSED": "network namespace"}, {
        "reach the server on the host's loopback": connects("127.0.0.1", "{port}"),
        "reach a service on the host's loopback": connects("127.0.0.1", "{service}"),
        "reach a service on another loopback address": connects("127.0.0.53", "{service}"),
        "reach a service on the host's loopback of IPv6": (
            call("socket", 10, 1, 0), call("connect", Result(0), ("sockaddr_in6", "::1", "{service}"), 28),
        ),
        "reach a service of the host that listens on a name": (
            call("socket", 1, 1, 0), call("connect", Result(0), ("sockaddr_un", "{abstract}"), ("length", "{abstract}")),
        ),
    })  # fmt: skip
    # A function with a runtime of its own has its own there.
    yield from rows("network", {"ECONNREFUSED": "network namespace"}, {
        "reach a Runtime API without having one": connects("127.0.0.1", 9001),
    }, languages=("python", "node"))  # fmt: skip
    yield from rows("network", {"ENETUNREACH": "network namespace"}, {
        "reach another Instance's Runtime API": connects("{victim}", 9001),
        "reach a service on an address of the host": connects("{host}", "{service}"),
        "reach the router": connects("198.18.0.1", "{service}"),
        "reach the metadata service": connects("169.254.169.254", 80),
        "reach a private address": connects("10.0.0.1", 80),
        "reach the next network": connects("192.168.0.1", 80),
    }, egress={"ECONNREFUSED": "router"})  # fmt: skip
    yield from rows("network", {"ENETUNREACH": "network namespace"}, {
        "send a datagram out": (
            call("socket", 2, 2, 0), call("sendto", Result(0), "x", 1, 0, address("192.0.2.1", 53), 16),
        ),
        "reach an address of IPv6": (
            call("socket", 10, 1, 0), call("connect", Result(0), ("sockaddr_in6", "2001:db8::", 80), 28),
        ),
    }, egress={})  # fmt: skip
    yield from rows("network", ABSENT, {
        f"reach a socket in {where}": (call("socket", 1, 1, 0), call("connect", Result(0), ("sockaddr_un", path), 110))
        for where, path in (
            ("the host's /run", "{run}/socket"),
            ("the host's /tmp", "{tmp}/socket"),
            ("the data directory", "{data}/probe.socket"),
        )
    })  # fmt: skip


PROBES = list(
    itertools.chain(host_files(), processes(), namespaces(), kernel(), powers(), settings(), network())
)  # fmt: skip
assert len({probe.id for probe in PROBES}) == len(PROBES)
KNOWN = {*errno.errorcode.values(), *signal.Signals.__members__}
assert all(name in KNOWN for probe in PROBES for name in probe.stops)
# Where more than one errno is right, which of them it was on hosts that were tried, by the words of `probes.host`:
# the rows for which it was not the first one.
TOLD = {
    "6.18.44-fc-v857, root": {
        "EPERM": ["statmount", "listmount", "look into the page cache", "map a shadow stack", "set its own LSM"],
        "EACCES": ["allow setgroups", "read /proc/kmsg"],
        "ENOENT": ["write /proc/sys/kernel/modprobe", "write /proc/sys/kernel/sysrq", "write /proc/sysrq-trigger",
                   "read /proc/kcore"],
    },
    "6.1.0-57-amd64, root": {
        "EPERM": ["statmount", "listmount", "look into the page cache", "map a shadow stack", "set its own LSM",
                  "return from a probe that is not there"],
        "EACCES": ["allow setgroups", "read /proc/kmsg"],
    },
    "6.1.0-57-amd64, a user": {
        "EPERM": ["statmount", "listmount", "look into the page cache", "map a shadow stack", "set its own LSM",
                  "return from a probe that is not there"],
        "EACCES": ["allow setgroups", "read /proc/kmsg"],
        "ENOENT": ["write /proc/sys/net/core/somaxconn"],
        "EROFS": ["write to /etc/passwd", "write to its own code"],
    },
}  # fmt: skip
assert {name for rows in TOLD.values() for names in rows.values() for name in names} <= {probe.name for probe in PROBES}


def told(probe: Probe, host: str) -> str:
    """What a row was told on a host of `TOLD`."""
    others = [errno for errno, names in TOLD[host].items() if probe.name in names]
    return others[0] if others else next(iter(probe.stops))
