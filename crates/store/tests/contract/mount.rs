//! Mounts a [`Disk`] with FUSE, so that the store and SQLite use it through the kernel like any
//! other. Pages are cached and written through: SQLite can map its shared memory, and every write
//! reaches the disk's bookkeeping at once.
//!
//! The disk lives in a process of its own, this program run again: a page fault that waits for a
//! file system of the same process would hold up the very threads that are to serve it. The two
//! talk in lines; the end of the input ends the disk.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::disk::{Disk, Node, ROOT, State};

const TTL: Duration = Duration::from_secs(60);
/// Begins each answer of the disk's process; the test harness prints lines of its own.
const ANSWER: &str = "disk: ";
const SERVE: &str = "LACEWING_TEST_DISK";
/// More than any order takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mounted disk; it is unmounted when this is dropped.
#[derive(Debug)]
pub struct Mounted {
    point: TempDir,
    server: Mutex<Server>,
}

#[derive(Debug)]
struct Server {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Mounted {
    /// Mounts an empty disk, or says why this machine cannot.
    pub fn new() -> Result<Self, String> {
        let point = tempfile::tempdir().map_err(|error| error.to_string())?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .args(["--exact", "mount::serve", "--ignored", "--nocapture"])
            .env(SERVE, point.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let orders = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (sender, answers) = sync_channel(1);
        std::thread::spawn(move || {
            let answer = |line: String| Some(line.split_once(ANSWER)?.1.trim_end().to_owned());
            let mut found = lines.map_while(Result::ok).filter_map(answer);
            found.try_for_each(|answer| sender.send(answer))
        });
        let mounted = Self { point, server: Mutex::new(Server { child, orders, answers }) };
        mounted.order("mount")?;
        Ok(mounted)
    }

    pub fn path(&self) -> &Path {
        self.point.path()
    }

    /// Has the power go after `changes` more changes.
    pub fn cut_after(&self, changes: usize, seed: Option<u64>) {
        self.order(&format!("cut {changes} {}", text(seed))).expect("ordered");
    }

    /// Mounts the disk as it is found when the power is back; nothing may be open on it.
    pub fn lose_power(&self, seed: Option<u64>) {
        self.order(&format!("lose {}", text(seed))).expect("ordered");
    }

    /// Leaves so many free bytes.
    pub fn set_free(&self, free: usize) {
        self.order(&format!("free {free}")).expect("ordered");
    }

    fn order(&self, order: &str) -> Result<(), String> {
        let mut server = self.server.lock();
        let Server { child, orders, answers } = &mut *server;
        let orders = orders.as_mut().ok_or("the disk has ended")?;
        writeln!(orders, "{order}").map_err(|error| error.to_string())?;
        match answers.recv_timeout(PATIENCE) {
            Ok(answer) if answer == "done" => Ok(()),
            Ok(answer) => Err(answer),
            Err(error) => {
                // Without its process the disk answers everything with an error at once.
                child.kill().ok();
                Err(format!("no answer of the disk to '{order}': {error}"))
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut server = self.server.lock();
        server.orders.take();
        let deadline = Instant::now() + PATIENCE;
        while server.child.try_wait().expect("it is our child").is_none() {
            if Instant::now() > deadline {
                server.child.kill().expect("it is our child");
                server.child.wait().expect("it was killed");
                assert!(std::thread::panicking(), "the disk's process did not end by itself");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // Only a test that failed with the store open leaves anything mounted.
        rustix::mount::unmount(self.point.path(), rustix::mount::UnmountFlags::DETACH).ok();
    }
}

fn text(seed: Option<u64>) -> String {
    seed.map_or_else(|| "-".to_owned(), |seed| seed.to_string())
}

/// The disk's process: no test, but the way to run this program as one.
#[test]
#[ignore = "serves the other tests, which start it themselves"]
fn serve() {
    let point = std::env::var_os(SERVE).expect("a test started it");
    let (mut disk, mut session) = (Arc::new(Disk::default()), None);
    for line in std::io::stdin().lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split(' ').collect();
        let seed = |text: &str| text.parse().ok();
        let done = match words.as_slice() {
            ["mount"] => mount(&disk, point.as_ref(), &mut session),
            ["cut", changes, seed_text] => {
                disk.cut_after(changes.parse().expect("a number"), seed(seed_text));
                Ok(())
            }
            ["lose", seed_text] => {
                let left = Arc::new(disk.after_power_loss(seed(seed_text)));
                unmount(session.take(), point.as_ref());
                disk = left;
                mount(&disk, point.as_ref(), &mut session)
            }
            ["free", free] => {
                disk.set_free(free.parse().expect("a number"));
                Ok(())
            }
            _ => Err(format!("no such order: {line}")),
        };
        println!("{ANSWER}{}", done.err().unwrap_or_else(|| "done".to_owned()));
    }
    unmount(session, point.as_ref());
}

fn mount(
    disk: &Arc<Disk>,
    point: &Path,
    session: &mut Option<BackgroundSession>,
) -> Result<(), String> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("forgetful".to_owned())];
    let mounted = fuser::spawn_mount(Forgetful(Arc::clone(disk)), point, &config)
        .map_err(|error| format!("a FUSE file system cannot be mounted here: {error}"))?;
    *session = Some(mounted);
    Ok(())
}

/// Unmounts without waiting for the session: it goes on for as long as any other process that
/// copied the mounts, as every sandbox does at its start, still has this one (mount_namespaces(7)).
/// What it serves then is of no interest to anybody, and it ends with this process.
fn unmount(session: Option<BackgroundSession>, point: &Path) {
    if let Some(session) = session {
        match rustix::mount::unmount(point, rustix::mount::UnmountFlags::empty()) {
            // Without privilege the session has its own way to do it.
            Ok(()) | Err(rustix::io::Errno::PERM) => drop(session),
            Err(error) => panic!("something is open on the disk: {error}"),
        }
    }
}

struct Forgetful(Arc<Disk>);

fn attributes(state: &State, node: u64) -> Result<FileAttr, Errno> {
    let (kind, perm, size) = match state.node(node)? {
        Node::File(file) => (FileType::RegularFile, 0o600, file.content.len()),
        Node::Directory(_) => (FileType::Directory, 0o700, 0),
    };
    Ok(FileAttr {
        ino: INodeNo(node),
        size: size as u64,
        blocks: size.div_ceil(512) as u64,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn done(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Forgetful {
    fn entry(&self, reply: ReplyEntry, node: Result<u64, Errno>) {
        let attributes = node.and_then(|node| self.0.read(|state| attributes(state, node)));
        match attributes {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }
}

impl Filesystem for Forgetful {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.0.read(|state| state.lookup(parent.0, name)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.read(|state| attributes(state, ino.0)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.map_or(Ok(()), |size| self.0.resize(ino.0, size as usize));
        match resized {
            Ok(()) => self.getattr(request, ino, handle, reply),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        self.entry(reply, self.0.change(|state| state.create(parent.0, name, true)));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self.0.change(|state| {
            let node = state.create(parent.0, name, false)?;
            attributes(state, node)
        });
        match made {
            Ok(made) => {
                reply.created(&TTL, &made, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.0.change(|state| state.link(ino.0, parent.0, name));
        self.entry(reply, linked.map(|()| ino.0));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.0.change(|state| state.unlink(parent.0, name)));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.0.change(|state| state.unlink(parent.0, name)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(reply, self.0.change(|state| state.rename((parent.0, name), (to.0, new))));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.0.read(|state| {
            let content = &state.file(ino.0)?.content;
            let start = content.len().min(offset as usize);
            let end = content.len().min(start + size as usize);
            Ok(content[start..end].to_vec())
        });
        match read {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(ino.0, offset as usize, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.0.change(|state| state.sync(ino.0)));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.0.change(|state| state.sync(ino.0)));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.0.read(|state| {
            let mut all = vec![(ino.0, FileType::Directory, ".".into())];
            all.push((ROOT, FileType::Directory, "..".into()));
            for (name, node) in &state.directory(ino.0)?.names {
                all.push((*node, attributes(state, *node)?.kind, name.clone()));
            }
            Ok(all)
        });
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => return reply.error(error),
        };
        for (at, (node, kind, name)) in listed.into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(node), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
