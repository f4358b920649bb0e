//! The calls on loop devices and on file systems that have no safe wrapper; see loop(4).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check_int;

/// `LOOP_CTL_GET_FREE` and `LOOP_CONFIGURE` of `linux/loop.h`.
const GET_FREE: libc::Ioctl = 0x4c82;
const CONFIGURE: libc::Ioctl = 0x4c0a;
/// The device lets go of its file when its last user does.
const AUTOCLEAR: u32 = 4;
/// What is written goes past the page cache, where it would be kept, and counted, twice.
const DIRECT_IO: u32 = 16;
/// `FS_IOC_SHUTDOWN`, known as `EXT4_IOC_SHUTDOWN`: no more writing, nothing is flushed.
const SHUTDOWN: libc::Ioctl = 0x8004_587d;
static WITHOUT_FLUSH: u32 = 2;

/// `struct loop_config`, with `struct loop_info64` in it.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// Device, inode, rdevice, offset and size limit.
    numbers: [u64; 5],
    /// Number, encryption type, length of its key.
    more: [u32; 3],
    flags: u32,
    /// The file's name, the cipher's name and the key.
    names: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// Asks for the number of a loop device that nobody uses at this moment.
pub(crate) fn free_loop(control: BorrowedFd<'_>) -> io::Result<i32> {
    // JUSTIFICATION: rustix has no calls for loop devices.
    // SAFETY: the call takes no argument.
    check_int(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) })
}

/// Makes a loop device show a file; `ResourceBusy` when somebody else was quicker.
pub(crate) fn attach_loop(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    block_size: u32,
) -> io::Result<()> {
    let config = LoopConfig {
        fd: file.as_raw_fd().cast_unsigned(),
        block_size,
        numbers: [0; 5],
        more: [0; 3],
        flags: AUTOCLEAR | DIRECT_IO,
        names: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    // JUSTIFICATION: rustix has no calls for loop devices.
    // SAFETY: the kernel reads one `loop_config`, which is initialised and has the C layout.
    check_int(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw const config) }).map(|_| ())
}

/// Ends all writing to a file system: what has not reached its device never will.
pub(crate) fn shut_down(root: BorrowedFd<'_>) -> io::Result<()> {
    // JUSTIFICATION: rustix does not have this call.
    // SAFETY: the kernel reads one u32.
    check_int(unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const WITHOUT_FLUSH) })
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_the_size_that_the_kernel_reads() {
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
