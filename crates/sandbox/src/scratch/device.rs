//! From a file to a mounted file system: a loop device between them, held by the mount alone.
//!
//! The mount is attached nowhere: whoever gets its descriptor puts it into place. When nobody has it
//! any more the kernel frees the device, then the file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::step::{Failure, Step};
use crate::sys;

pub(super) const CONTROL: &str = "/dev/loop-control";
const BLOCK: u32 = 4096;
/// How often another user of loop devices may be quicker.
const ATTEMPTS: usize = 64;

/// Mounts the ext4 file system in an image.
pub(crate) fn mount(image: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let (path, device) = attach(image)?;
    let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).step("fsopen ext4")?;
    let made = configure(&context, &path).step_of("mount", &path);
    // From here on only the mount holds the device.
    drop(device);
    made?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).step("fsmount ext4")
}

fn configure(context: &OwnedFd, device: &str) -> io::Result<()> {
    let context = context.as_fd();
    fsconfig_set_string(context, "source", device)?;
    // It is new and sparse, so its inode tables are zero already.
    fsconfig_set_flag(context, "noinit_itable")?;
    // Nothing in it outlives a crash, so no function may make the host's disk flush.
    fsconfig_set_flag(context, "nobarrier")?;
    fsconfig_set_string(context, "errors", "continue")?;
    Ok(fsconfig_create(context)?)
}

fn attach(image: BorrowedFd<'_>) -> Result<(String, OwnedFd), Failure> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let control = open(CONTROL, flags, Mode::empty()).step_of("open", CONTROL)?;
    for _ in 0..ATTEMPTS {
        let number = sys::disk::free_loop(control.as_fd()).step("find a free loop device")?;
        let path = format!("/dev/loop{number}");
        let device = open(path.as_str(), flags, Mode::empty()).step_of("open", &path)?;
        match sys::disk::attach_loop(device.as_fd(), image, BLOCK) {
            Ok(()) => return Ok((path, device)),
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
            Err(error) => return Err(error).step_of("attach", &path),
        }
    }
    Err(Failure("others take every loop device".to_owned()))
}
