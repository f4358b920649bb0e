//! The maker: a process beside the launcher that makes file systems and hands them out.
//!
//! It ends when the launcher does. It reads nothing that comes from inside a sandbox.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, fstatfs, openat};
use rustix::net::{RecvFlags, SendFlags};

use crate::step::{Failure, Step};
use crate::wire::{receive, send};
use crate::{ScratchOptions, TmpFs, sys};

use super::breaker::Breaker;
use super::image::Image;
use super::stock::Stock;
use super::{MESSAGE, Made, Order, device};

/// None is made ahead while orders come faster than this, unless few are left.
const QUIET: Duration = Duration::from_millis(2);

/// `RAMFS_MAGIC` of `linux/magic.h`.
const RAMFS: libc::__fsword_t = 0x8584_58f6;

/// Serves until the launcher is gone.
pub(super) fn run(control: &OwnedFd, options: &ScratchOptions) -> ! {
    sys::close_all_but(&[control.as_raw_fd()]).ok();
    match Bench::open(control, options) {
        Ok(mut bench) => {
            bench.prove();
            bench.serve().ok();
            bench.end();
        }
        Err(Failure(why)) => tell(control, Some(why)),
    }
    sys::exit_now(0)
}

struct Bench<'a> {
    control: &'a OwnedFd,
    options: &'a ScratchOptions,
    dir: OwnedFd,
    breaker: Breaker,
    stock: Stock,
    /// Whether making ahead failed, and shall rest until somebody asks.
    resting: bool,
}

impl<'a> Bench<'a> {
    fn open(control: &'a OwnedFd, options: &'a ScratchOptions) -> Result<Self, Failure> {
        let dir = open_disk(&options.dir)?;
        let breaker = Breaker::start(options.most_bytes).step("start the breaker of /tmp")?;
        Ok(Self { control, options, dir, breaker, stock: Stock::default(), resting: false })
    }

    /// Makes the first one, and says whether that went well.
    fn prove(&mut self) {
        let expected = self.options.expected;
        let failure = match self.take(expected) {
            Ok(mount) => {
                self.stock.put(expected, mount);
                None
            }
            Err(Failure(why)) => Some(why),
        };
        tell(self.control, failure);
    }

    /// Serves orders; makes one ahead when nobody has asked for a while.
    fn serve(&mut self) -> io::Result<()> {
        let mut buffer = [0; MESSAGE];
        loop {
            let ahead = self.stock.wanted().filter(|_| !self.resting);
            let quiet = if self.stock.is_low() { Duration::ZERO } else { QUIET };
            let quiet = ahead.and_then(|_| Timespec::try_from(quiet).ok());
            let mut asked = [PollFd::new(self.control, PollFlags::IN)];
            match (poll(&mut asked, quiet.as_ref()), ahead) {
                (Ok(0), Some(tmp)) => match self.make(tmp) {
                    Ok(mount) => self.stock.put(tmp, mount),
                    Err(_) => self.resting = true,
                },
                (Ok(_), _) => match receive(self.control.as_fd(), &mut buffer, RecvFlags::DONTWAIT)
                {
                    Ok(Some((order, fds))) => self.fill(&order, fds),
                    Ok(None) => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                },
                (Err(rustix::io::Errno::INTR), _) => {}
                (Err(error), _) => return Err(error.into()),
            }
        }
    }

    /// Hands one out; the sandbox hears of a failure.
    fn fill(&mut self, order: &Order, fds: Vec<OwnedFd>) {
        self.resting = false;
        let Some(socket) = fds.into_iter().next() else { return };
        let made = self.take(order.tmp).and_then(|mount| Ok((own(&mount, order.owner)?, mount)));
        let (failure, mount) = match &made {
            Ok((_, mount)) => (None, Some(mount.as_fd())),
            Err(Failure(why)) => (Some(why.clone()), None),
        };
        // The sandbox may be gone already, which the end of its socket tells next.
        send(socket.as_fd(), &Made { failure }, mount.as_slice(), SendFlags::DONTWAIT).ok();
        if let Ok((root, _)) = made {
            // Without it the kernel does the same, only slower.
            self.breaker.hold(&socket, &root).ok();
        }
    }

    fn take(&mut self, tmp: TmpFs) -> Result<OwnedFd, Failure> {
        if !self.stock.knows(tmp) {
            self.stock.learn(tmp, Image::format(tmp)?);
        }
        self.stock.take(tmp).map_or_else(|| self.make(tmp), Ok)
    }

    fn make(&self, tmp: TmpFs) -> Result<OwnedFd, Failure> {
        let dir = &self.options.dir;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(&self.dir, ".", flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.step_of("make a file without a name in", dir.display())?);
        let image = self.stock.image(tmp).ok_or_else(|| Failure("an unknown size".to_owned()))?;
        image.write_to(&file).step_of("write a file system to", dir.display())?;
        device::mount(file.as_fd())
    }

    /// Throws away what is ready, and waits until all the rest is, too.
    fn end(self) {
        drop(self.stock);
        self.breaker.end();
    }
}

/// Opens a directory that is on a disk: in memory it would be charged to nobody.
fn open_disk(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(CWD, path, flags, Mode::empty()).step_of("open", path.display())?;
    let kind = fstatfs(&dir).step_of("statfs", path.display())?.f_type;
    if [libc::TMPFS_MAGIC, RAMFS].contains(&kind) {
        return Err(Failure(format!("{} is in memory itself", path.display())));
    }
    Ok(dir)
}

/// Tells the launcher how the first one came out.
fn tell(control: &OwnedFd, failure: Option<String>) {
    // If the launcher is gone the next read tells.
    send(control.as_fd(), &Made { failure }, &[], SendFlags::empty()).ok();
}

/// Gives a file system to the user of one sandbox; returns its root.
fn own(mount: &OwnedFd, owner: u32) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(mount, ".", flags, Mode::empty()).step("open a /tmp")?;
    fchown(&root, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner))).step("chown a /tmp")?;
    Ok(root)
}
