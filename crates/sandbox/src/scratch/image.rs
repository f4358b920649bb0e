//! What an empty `/tmp` of a certain size is on disk: made once by mkfs.ext4, then written as often
//! as one is wanted.
//!
//! Without a journal, since none of them outlives its sandbox. The wanted bytes are free, and a
//! hair more for the maps of fragmented files: what the format leaves over is reserved in the
//! superblock, for a user that no sandbox has.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{
    AtFlags, MemfdFlags, Mode, OFlags, SeekFrom as Whence, fchmod, fstatvfs, memfd_create, openat,
    seek, unlinkat,
};

use crate::TmpFs;
use crate::step::{Failure, Step};

use super::device;

/// Where a minimal PATH would look.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];
const BLOCK: u64 = 4096;
/// Named one by one, so that every version of the tool makes the same.
const FEATURES: &str = "none,dir_index,dir_nlink,extent,extra_isize,filetype,flex_bg,huge_file,\
                        large_file,sparse_super,uninit_bg";
/// The first inodes belong to the format itself.
const OWN_INODES: u64 = 10;
const INODE_BYTES: u64 = 256;
/// Where ext4 keeps the number of reserved blocks: see "ext4 Data Structures" of the kernel.
const RESERVED_AT: u64 = 1024 + 8;

/// An empty file system, as the parts of its image that are not zero.
#[derive(Debug, Default)]
pub(crate) struct Image {
    bytes: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Image {
    /// Formats one with room for exactly this.
    pub(crate) fn format(wanted: TmpFs) -> Result<Self, Failure> {
        let bytes = image_bytes(wanted);
        let image = memfd_create("tmp", MemfdFlags::CLOEXEC).step("make a memory file")?;
        let image = File::from(image);
        image.set_len(bytes).step("size an image")?;
        make_file_system(&image, wanted.inodes)?;
        let free = furnish(&image)?;
        let over = free.checked_sub(wanted.bytes.div_ceil(BLOCK) + map_blocks(wanted.bytes));
        let over = over.ok_or_else(|| Failure("mkfs.ext4 took more room than known".to_owned()))?;
        let over = u32::try_from(over).step("reserve what is left over")?;
        image.write_all_at(&over.to_le_bytes(), RESERVED_AT).step("write the superblock")?;
        let parts = parts(image).step("read an image")?;
        Ok(Self { bytes, parts })
    }

    /// Writes it to an empty file, which stays sparse.
    pub(crate) fn write_to(&self, file: &File) -> io::Result<()> {
        file.set_len(self.bytes)?;
        self.parts.iter().try_for_each(|(at, part)| file.write_all_at(part, *at))
    }
}

/// Finds the tool that formats.
pub(crate) fn tool() -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join("mkfs.ext4")).find(|path| path.exists())
}

/// The size that surely has room: inodes, what ext4 holds back for itself (a fiftieth, 16 MiB at
/// most), and 3 blocks of each 32,768 for its tables.
fn image_bytes(wanted: TmpFs) -> u64 {
    let tables = (wanted.inodes + OWN_INODES) * INODE_BYTES + wanted.bytes / 4096 + (2 << 20);
    let held_back = (wanted.bytes / 32).min(17 << 20);
    (wanted.bytes + tables + held_back).next_multiple_of(BLOCK)
}

/// One for each 32 MiB. One holds the places of 340 pieces of a file; the first 4 need none.
fn map_blocks(bytes: u64) -> u64 {
    bytes / (32 << 20)
}

fn make_file_system(image: &File, inodes: u64) -> Result<(), Failure> {
    let tool = tool().ok_or_else(|| Failure("there is no mkfs.ext4".to_owned()))?;
    let input = image.try_clone().step("dup")?;
    let made = Command::new(tool)
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-U", "clear", "-O", FEATURES])
        .args(["-I", &INODE_BYTES.to_string(), "-N", &(inodes + OWN_INODES).to_string()])
        .args(["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", "/proc/self/fd/0"])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(input)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .step("run mkfs.ext4")?;
    if made.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&made.stderr).trim().replace('\n', "; ");
    Err(Failure(format!("mkfs.ext4: {}, {why}", made.status)))
}

/// Makes the root as `/tmp` shall be; tells how many blocks are free to ordinary users.
fn furnish(image: &File) -> Result<u64, Failure> {
    let mount = device::mount(image.as_fd())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(&mount, ".", flags, Mode::empty()).step("open a new file system")?;
    unlinkat(&root, "lost+found", AtFlags::REMOVEDIR).step("remove lost+found")?;
    fchmod(&root, Mode::from_raw_mode(0o1777)).step("chmod")?;
    let free = fstatvfs(&root).step("statvfs")?.f_bavail;
    rustix::fs::syncfs(&root).step("write a new file system")?;
    Ok(free)
}

/// Reads what is not a hole.
fn parts(mut image: File) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Ok(start) = seek(&image, Whence::Data(at)) {
        at = seek(&image, Whence::Hole(start))?;
        image.seek(SeekFrom::Start(start))?;
        let mut part = Vec::new();
        Read::by_ref(&mut image).take(at - start).read_to_end(&mut part)?;
        parts.push((start, part));
    }
    Ok(parts)
}
