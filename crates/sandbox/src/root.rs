//! The file system that a sandbox sees.
//!
//! The launcher prepares a *template* once: a mount namespace with nothing in it but a tmpfs with the
//! mount points, the host's programs bound read-only and five device nodes. It steps into it to clone
//! a sandbox, which gets a copy of these mounts and has never seen another: nothing of the host has
//! to be let go of, which would make it wait for the kernel's processors. The copies inherit the
//! flags locked, so nobody inside can loosen them. The sandbox adds its temporary directories and
//! `/proc`; what a program brings is opened by the launcher and mounted last.
//!
//! A process whose user is not mapped cannot create files in a tmpfs of its user namespace
//! (EOVERFLOW), therefore the skeleton is made by the launcher. In a user namespace `/proc` may be
//! mounted only beside a whole one: the template has that of a process namespace that ended, in which
//! nobody is, and each sandbox covers it with its own. See mount_namespaces(7).

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_reconfigure, fsconfig_set_string,
    fsmount, fsopen, fspick, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::sources::Sources;
use crate::spec::Kind;
use crate::step::{Failure, Step};
use crate::timing::Stopwatch;
use crate::{Identity, Limits, Mount, Part, sys};

/// A directory that every Linux has and that no `Spec` has a reason to name.
const TEMPLATE: &str = "/sys/kernel";
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const EMPTY: [&str; 12] = [
    "dev",
    "dev/shm",
    "etc",
    "opt",
    "proc",
    "tmp",
    "var",
    "var/lang",
    "var/runtime",
    "var/task",
    // A blank sandbox has no function yet, and the dynamic loader remembers for good which of the
    // directories in `LD_LIBRARY_PATH` do not exist.
    "var/task/lib",
    "var/tmp",
];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const SHARED_MEMORY: &str = "/dev/shm";
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];

const READ_ONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
const NO_SUID: u64 = MountAttrFlags::MOUNT_ATTR_NOSUID.bits() as u64;
const NO_DEV: u64 = MountAttrFlags::MOUNT_ATTR_NODEV.bits() as u64;
const NO_EXEC: u64 = MountAttrFlags::MOUNT_ATTR_NOEXEC.bits() as u64;

/// How much `/dev/shm` may hold.
pub(crate) fn shm_bytes(limits: &Limits) -> u64 {
    limits.memory_bytes / 2
}

/// The template, and the way back from it.
#[derive(Debug)]
pub(crate) struct Template {
    namespace: OwnedFd,
    home: OwnedFd,
}

impl Template {
    /// Prepares it; the caller is in a mount namespace of its own.
    pub(crate) fn prepare(system: Option<&Path>) -> Result<Self, Failure> {
        build(system)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = open("/proc/thread-self/ns", flags, Mode::empty()).step("open /proc")?;
        let current = || openat(&own, "mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let home = current().step("open the mount namespace")?;
        sys::unshare(UnshareFlags::NEWNS).step("unshare mounts")?;
        let entered = enter_template();
        let template = Self { namespace: current().step("open the mount namespace")?, home };
        template.leave();
        entered?;
        unmount(TEMPLATE, UnmountFlags::DETACH).step("take the template away")?;
        Ok(template)
    }

    /// Moves this process into it, for a moment.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        step_into(&self.namespace).step("enter the template")
    }

    /// Brings this process home. Without that it could not do anything.
    pub(crate) fn leave(&self) {
        if step_into(&self.home).is_err() {
            sys::exit_now(1);
        }
    }
}

fn step_into(namespace: &OwnedFd) -> rustix::io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
}

/// Makes the template the root of this mount namespace and lets go of all else.
fn enter_template() -> Result<(), Failure> {
    rustix::process::chdir(TEMPLATE).step("enter the template")?;
    // The old root ends up on top of the new one, where the next call takes it off.
    rustix::process::pivot_root(".", ".").step("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).step("let go of the host's root")?;
    rustix::process::chdir("/").step("enter the root")
}

/// Covers a directory, for this mount namespace, with a copy of what is in it now, and opens that: who may
/// write to what is around the directory can put another in its place, and its path means that then.
pub(crate) fn preserve(directory: &Path) -> Result<OwnedFd, Failure> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("make mounts private")?;
    let copied = tmpfs(64 << 20, 1 << 16, 0o755, None).and_then(|tmpfs| {
        let place = format!("/proc/self/fd/{}", tmpfs.as_raw_fd());
        copy_all(directory, Path::new(&place))?;
        sys::mount_setattr(tmpfs.as_fd(), READ_ONLY | NO_SUID | NO_DEV, false)?;
        attach(&tmpfs, directory).map(|()| tmpfs)
    });
    copied.step_of("copy", directory.display())
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let found = entry.metadata()?;
        if found.is_dir() {
            fs::create_dir(&target)?;
            copy_all(&source, &target)?;
            fs::set_permissions(&target, found.permissions())?;
        } else if found.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Puts a `/proc` without processes at a place: that of a namespace that ends with its maker.
fn proc_of_nobody(target: &Path) -> Result<(), Failure> {
    match sys::clone_into(libc::CLONE_NEWPID, None).step("clone for /proc")? {
        sys::Forked::Child => {
            let mounted = proc().and_then(|proc| attach(&proc, target));
            let errno = mounted.err().map(|error| error.raw_os_error().unwrap_or(libc::EIO));
            sys::exit_now(errno.unwrap_or(0))
        }
        sys::Forked::Parent { pid, .. } => {
            let ended = waitpid(Some(pid), WaitOptions::empty()).step("wait for /proc")?;
            match ended.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO)))
                    .step_of("mount", target.display()),
            }
        }
    }
}

/// Builds the template below this mount namespace's own root.
fn build(system: Option<&Path>) -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("make mounts private")?;
    let tmpfs = tmpfs(1 << 20, 256, 0o755, None).step("make the template")?;
    attach(&tmpfs, Path::new(TEMPLATE)).step_of("mount the template on", TEMPLATE)?;
    let root = Path::new(TEMPLATE);
    let from = system.unwrap_or_else(|| Path::new("/"));
    for name in SYSTEM {
        system_entry(&from.join(name), &root.join(name)).step_of("prepare", name)?;
    }
    for name in EMPTY {
        DirBuilder::new().mode(0o755).create(root.join(name)).step_of("prepare", name)?;
    }
    for name in DEVICES {
        let point = root.join("dev").join(name);
        File::create(&point).step_of("prepare", point.display())?;
        bind(&Path::new("/dev").join(name), &point, NO_SUID | NO_EXEC).step_of("bind", name)?;
    }
    for (target, link) in LINKS {
        symlink(target, root.join(link)).step_of("prepare", link)?;
    }
    proc_of_nobody(&root.join("proc"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let top = open_tree(CWD, TEMPLATE, flags).step("open the template")?;
    sys::mount_setattr(top.as_fd(), READ_ONLY | NO_SUID | NO_DEV, false)
        .step("make the template read-only")
}

/// Opens what is to be bound into a sandbox, as a mount that is nowhere yet.
fn bound(sources: &Sources, source: &Path, exec: bool) -> Result<OwnedFd, Failure> {
    let no_exec = if exec { 0 } else { NO_EXEC };
    let set = READ_ONLY | NO_SUID | NO_DEV | no_exec;
    let bound = sources.open(source).and_then(|fd| limited_copy(fd, Path::new(""), set));
    bound.step_of("bind", source.display())
}

/// Opens all that a program brings, in its order.
pub(crate) fn bounds(sources: &Sources, mounts: &[Mount]) -> Result<Vec<OwnedFd>, Failure> {
    let bind = |mount: &Mount| match mount {
        Mount::Bind { source, exec, .. } => Some(bound(sources, source, *exec)),
        Mount::Tmpfs { .. } => None,
    };
    mounts.iter().filter_map(bind).collect()
}

/// Adds to the root that this process has already; each [`Mount::Bind`] takes one of `bounds`.
pub(crate) fn furnish(mounts: &[Mount], bounds: Vec<OwnedFd>, kind: &Kind) -> Result<(), Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let root = open_tree(CWD, "/", flags).step("open the root")?;
    let mut bounds = bounds.into_iter();
    for mount in mounts {
        let (opened, target) = match mount {
            Mount::Bind { target, .. } => {
                (bounds.next().ok_or_else(|| io::ErrorKind::NotFound.into()), target)
            }
            Mount::Tmpfs { target, bytes, mode } => {
                (tmpfs(*bytes, kind.tmp.inodes, *mode, Some(kind.identity)), target)
            }
        };
        let mounted = opened.and_then(|mount| attach_inside(&mount, &root, target));
        mounted.step_of("mount", target.display())?;
    }
    Ok(())
}

/// Changes how much `/dev/shm` may hold.
pub(crate) fn resize_shm(bytes: u64) -> Result<(), Failure> {
    let resize = || {
        let context = fspick(CWD, SHARED_MEMORY, FsPickFlags::FSPICK_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "size", bytes.to_string())?;
        fsconfig_reconfigure(context.as_fd())
    };
    resize().step_of("resize", SHARED_MEMORY)
}

/// Adds what is a sandbox's own to its copy of the template; `tmp` gives the mount of `/tmp` if it
/// is not in memory.
pub(crate) fn complete(
    kind: &Kind,
    shm_bytes: u64,
    watch: &mut Stopwatch,
    tmp: impl FnOnce() -> Result<Option<OwnedFd>, Failure>,
) -> Result<(), Failure> {
    let put = |what: io::Result<OwnedFd>, target: &str| -> Result<(), Failure> {
        let mounted = what.and_then(|fd| attach(&fd, Path::new(target)));
        mounted.step_of("mount", target)
    };
    let own = Some(kind.identity);
    put(tmpfs(shm_bytes, 1024, 0o1777, own), SHARED_MEMORY)?;
    put(proc(), "/proc")?;
    watch.lap(Part::Mounts);
    let in_memory = || tmpfs(kind.tmp.bytes, kind.tmp.inodes, 0o1777, own);
    put(tmp()?.map_or_else(in_memory, Ok), "/tmp")?;
    watch.lap(Part::Tmp);
    Ok(())
}

/// Repeats one entry of the host's root: a link stays a link, a directory is bound.
fn system_entry(source: &Path, target: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(source) else { return Ok(()) };
    if found.is_symlink() {
        return symlink(fs::read_link(source)?, target);
    }
    fs::create_dir(target)?;
    fs::set_permissions(target, Permissions::from_mode(0o755))?;
    bind(source, target, READ_ONLY | NO_SUID | NO_DEV)
}

fn bind(source: &Path, target: &Path, set: u64) -> io::Result<()> {
    attach(&limited_copy(CWD, source, set)?, target)
}

/// Copies a mount with all below it and sets flags on all of them.
fn limited_copy(at: impl AsFd, source: &Path, set: u64) -> io::Result<OwnedFd> {
    let tree = copy(at, source)?;
    sys::mount_setattr(tree.as_fd(), set, true)?;
    Ok(tree)
}

/// Copies the tree at `source`, or the one that `at` is when that is empty.
fn copy(at: impl AsFd, source: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(at, source, flags)?)
}

fn tmpfs(bytes: u64, inodes: u64, mode: u32, owner: Option<Identity>) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: String| fsconfig_set_string(context.as_fd(), key, value);
    set("size", bytes.to_string())?;
    set("nr_inodes", inodes.to_string())?;
    set("mode", format!("{mode:o}"))?;
    if let Some(owner) = owner {
        set("uid", owner.uid.to_string())?;
        set("gid", owner.gid.to_string())?;
    }
    finish(&context, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)
}

fn proc() -> io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    finish(&context, flags | MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

fn finish(context: &OwnedFd, flags: MountAttrFlags) -> io::Result<OwnedFd> {
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Mounts below the new root; a link in what a function brought must not lead out of it.
fn attach_inside(tree: &OwnedFd, root: &OwnedFd, target: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let point = openat2(root, target, flags, Mode::empty(), resolve)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", point, "", flags)?)
}
