//! Starting qemu, showing what the machine says, and ending it in time.
//!
//! Everything that the machine gets is a directory over 9p and what `scripts/prepare-vm` made.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{cache, command, say, step};

/// Until the first suite begins: 15 seconds on two idle cores.
const BOOT: Duration = Duration::from_secs(240);
/// `panic=-1` with `-no-reboot` ends qemu when the kernel does. It says no more than that: each sandbox
/// that ends would be a line in the middle of others.
const KERNEL: &str = "console=ttyS0 quiet loglevel=1 oops=panic panic=-1";

/// The disk is a file with holes, which takes as much of the host as is written: 3 GB.
const DISK_BYTES: u64 = 8 << 30;

/// Runs the machine on `directory` until it turns itself off; its kernel gets these parameters, too.
///
/// # Errors
/// If it cannot be started, or is not off after `most` and the time to boot; it is ended then.
pub(super) fn boot(
    directory: &Path,
    parameters: &str,
    shares: &[(PathBuf, PathBuf)],
    most: Duration,
) -> Result<()> {
    let disk = make_disk(directory)?;
    let mut qemu = qemu(directory, &disk, shares)?;
    qemu.arg("-append").arg(format!("{KERNEL} {parameters}"));
    let mut child = qemu
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start qemu-system-x86_64; scripts/prepare-vm says what is missing")?;
    let ended = watch(&mut child, &directory.join("console.log"), Instant::now() + BOOT + most);
    if ended.is_err() {
        // It may have ended by itself just now.
        child.kill().ok();
    }
    child.wait().context("wait for qemu")?;
    fs::remove_file(disk).context("remove the disk")?;
    ended
}

/// An empty disk with a file system.
fn make_disk(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("disk");
    let file = File::create(&path).and_then(|file| file.set_len(DISK_BYTES));
    file.context("make the file of the disk")?;
    step("make the disk", command("mkfs.ext4")?.args(["-q", "-F"]).arg(&path))?;
    Ok(path)
}

fn qemu(directory: &Path, disk: &Path, shares: &[(PathBuf, PathBuf)]) -> Result<Command> {
    let vm = cache()?.join("vm");
    let mut qemu = command("qemu-system-x86_64")?;
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "4096"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(vm.join("vmlinuz"))
        .arg("-initrd")
        .arg(vm.join("initrd"))
        .arg("-drive")
        .arg(format!("file={},format=raw,if=virtio,cache=unsafe", super::path(disk)?));
    share(&mut qemu, "vm", directory, "")?;
    let mut list = String::new();
    for (number, (from, to)) in shares.iter().enumerate() {
        let tag = format!("share{number}");
        share(&mut qemu, &tag, from, ",readonly=on,multidevs=remap")?;
        list.push_str(&format!("{tag} {}\n", super::path(to)?));
    }
    fs::create_dir_all(directory.join("etc"))?;
    fs::write(directory.join("shares"), list)?;
    Ok(qemu)
}

fn share(qemu: &mut Command, tag: &str, from: &Path, options: &str) -> Result<()> {
    let from = super::path(from)?;
    qemu.arg("-fsdev").arg(format!("local,id={tag},path={from},security_model=none{options}"));
    qemu.arg("-device").arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
    Ok(())
}

/// Shows and keeps what the machine says, until it says no more.
fn watch(child: &mut Child, log: &Path, until: Instant) -> Result<()> {
    let output = child.stdout.take().context("qemu has no output")?;
    let mut log = File::create(log).context("make the log")?;
    let (lines, said) = channel();
    thread::spawn(move || {
        let lost = |line: &Vec<u8>| lines.send(String::from_utf8_lossy(line).into_owned()).is_err();
        // Nobody listens any more when it took too long.
        BufReader::new(output).split(b'\n').map_while(Result::ok).take_while(|it| !lost(it)).count()
    });
    loop {
        match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(log, "{line}").context("write the log")?;
                say(line.trim_end());
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => bail!("the virtual machine was not done in time"),
        }
    }
}
