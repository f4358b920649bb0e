//! The bound on what all file systems together may hold.
//!
//! Their files are sparse, so their sizes may add up to more than the disk has. When what they hold
//! reaches the bound, all of them are full: everything that is free in them is set aside by a number
//! that ext4 takes while it is mounted (`reserved_clusters` of `/sys/fs/ext4`), and programs get
//! ENOSPC. It is looked at four times a second, so it can be passed by what is written meanwhile.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{fstat, fstatvfs, major, minor};

/// How often to look.
pub(super) const ROUND: Duration = Duration::from_millis(250);

/// The file through which one file system is made full and is opened again.
#[derive(Debug)]
pub(super) struct Valve {
    path: PathBuf,
    /// What the kernel set aside itself.
    usual: String,
}

impl Valve {
    /// Finds the file for a file system by its root.
    pub(super) fn of(root: BorrowedFd<'_>) -> io::Result<Self> {
        let device = fstat(root)?.st_dev;
        let link = format!("/sys/dev/block/{}:{}", major(device), minor(device));
        let device = fs::read_link(link)?;
        let name = device.file_name().ok_or(io::ErrorKind::NotFound)?;
        let path = PathBuf::from("/sys/fs/ext4").join(name).join("reserved_clusters");
        Ok(Self { usual: fs::read_to_string(&path)?, path })
    }

    /// Lets nothing more in.
    pub(super) fn shut(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        // The kernel takes less than all.
        let all = fstatvfs(root)?.f_blocks.saturating_sub(1);
        fs::write(&self.path, all.to_string())
    }

    /// Lets in what has room.
    pub(super) fn open(&self) -> io::Result<()> {
        fs::write(&self.path, &self.usual)
    }
}

/// What a file system holds, and what is promised to be written to it, in bytes.
pub(super) fn held(root: impl AsFd) -> u64 {
    // It was open a moment ago; one that cannot be asked is not counted.
    let all = fstatvfs(root).map(|it| (it.f_blocks.saturating_sub(it.f_bfree)) * it.f_frsize);
    all.unwrap_or(0)
}
