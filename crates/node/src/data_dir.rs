//! Where the data directory is, and the small files in it that belong to the node itself.
//!
//! `owner` names the directory for good: names of cgroups carry it, so that what a dead server
//! left is known from what another server owns. `address` says where the server of this directory
//! listens, so that the command line finds it. Everything else in there belongs to the crates below.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::geteuid;
use uuid::Uuid;

/// Name of the file that holds the owner id.
const OWNER: &str = "owner";
/// Letters of an owner id.
const OWNER_LENGTH: usize = 12;

/// The data directory when none was named: `LACEWING_DATA_DIR`, else `$XDG_DATA_HOME/lacewing`,
/// else `/var/lib/lacewing` for root and `~/.local/share/lacewing` for others.
pub fn default() -> Option<PathBuf> {
    choose(|name| std::env::var_os(name), crate::config::is_root())
}

fn choose(variable: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Option<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("LACEWING_DATA_DIR")
        .or_else(|| path("XDG_DATA_HOME").map(|dir| dir.join("lacewing")))
        .or_else(|| is_root.then(|| PathBuf::from("/var/lib/lacewing")))
        .or_else(|| path("HOME").map(|dir| dir.join(".local/share/lacewing")))
}

/// The credentials file that a server keeps in its data directory.
pub fn credentials_file(data_dir: &Path) -> PathBuf {
    data_dir.join("credentials")
}

/// Where the server of this data directory listens or last listened, if it ever did.
pub fn address(data_dir: &Path) -> Option<SocketAddr> {
    fs::read_to_string(data_dir.join("address")).ok()?.trim().parse().ok()
}

/// Makes the directory, for this user alone. One that is there is made private, with what the server
/// keeps in it; if it holds the files of somebody else it is refused.
pub(crate) fn make_private(data_dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
    let about = fs::metadata(data_dir)?;
    if about.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!(
            "it belongs to user {}, and the server keeps no power over the files of others; run it \
             as that user, or give the directory and all in it to this one with chown -R",
            about.uid()
        )));
    }
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let entries: Vec<fs::DirEntry> = fs::read_dir(data_dir)?.collect::<io::Result<_>>()?;
    if !entries.is_empty() && !data_dir.join(OWNER).exists() {
        return Err(io::Error::other(
            "other users may enter it, and it holds files that no server made; name another, or \
             make it private with chmod 700",
        ));
    }
    fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700))?;
    for entry in entries {
        let about = entry.metadata()?;
        if !about.is_symlink() {
            let private = fs::Permissions::from_mode(about.permissions().mode() & 0o700);
            fs::set_permissions(entry.path(), private)?;
        }
    }
    let data_dir = data_dir.display().to_string();
    tracing::warn!(
        data_dir,
        mode = format!("{mode:04o}"),
        "Other users could enter the data directory; it has mode 0700 now."
    );
    Ok(())
}

/// Whether the directory can still be reached now that no privilege is left.
pub(crate) fn check_access(data_dir: &Path) -> io::Result<()> {
    let whole = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, data_dir, whole, AtFlags::EACCESS).map_err(|error| {
        io::Error::other(format!(
            "without the power to pass through directories of other users it cannot be reached \
             ({error}); put it elsewhere"
        ))
    })
}

/// Notes where the server listens.
pub(crate) fn write_address(data_dir: &Path, address: SocketAddr) -> io::Result<()> {
    replace(&data_dir.join("address"), format!("{address}\n").as_bytes())
}

/// The id of this data directory; made when there is none yet. Call it with the lock held.
pub(crate) fn owner(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join(OWNER);
    match fs::read_to_string(&path) {
        Ok(text) if is_owner(text.trim()) => Ok(text.trim().to_owned()),
        Ok(_) => Err(io::Error::new(ErrorKind::InvalidData, "the owner file is damaged")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let owner = new_owner();
            replace(&path, format!("{owner}\n").as_bytes())?;
            Ok(owner)
        }
        Err(error) => Err(error),
    }
}

/// A fresh owner id.
pub(crate) fn new_owner() -> String {
    let mut id = Uuid::new_v4().simple().to_string();
    id.truncate(OWNER_LENGTH);
    id
}

fn is_owner(text: &str) -> bool {
    text.len() == OWNER_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes a small file so that a crash leaves the old content or the new.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], is_root: bool) -> Option<PathBuf> {
        let lookup = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        choose(lookup, is_root)
    }

    #[test]
    fn the_first_place_that_is_named_wins() {
        let all = [("LACEWING_DATA_DIR", "/a"), ("XDG_DATA_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(chosen(&all, true), Some("/a".into()));
        assert_eq!(chosen(&all[1..], true), Some("/b/lacewing".into()));
        assert_eq!(chosen(&all[2..], true), Some("/var/lib/lacewing".into()));
        assert_eq!(chosen(&all[2..], false), Some("/c/.local/share/lacewing".into()));
        assert_eq!(chosen(&[("LACEWING_DATA_DIR", "")], false), None);
    }

    #[test]
    fn the_owner_of_a_directory_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let first = owner(dir.path()).unwrap();
        assert_eq!(owner(dir.path()).unwrap(), first);
        assert!(is_owner(&first));
        fs::write(dir.path().join("owner"), "../../etc").unwrap();
        assert!(owner(dir.path()).is_err());
    }

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_directory_that_others_can_enter_becomes_private() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        make_private(&dir).unwrap();
        assert_eq!(mode_of(&dir), 0o700);
        owner(&dir).unwrap();
        fs::create_dir(dir.join("journal")).unwrap();
        for (path, mode) in [("", 0o755), ("owner", 0o644), ("journal", 0o755)] {
            fs::set_permissions(dir.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        make_private(&dir).unwrap();
        for (path, mode) in [("", 0o700), ("owner", 0o600), ("journal", 0o700)] {
            assert_eq!(mode_of(&dir.join(path)), mode, "{path}");
        }
    }

    #[test]
    fn the_directory_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter"), "").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(make_private(dir.path()).unwrap_err().to_string().contains("chmod 700"));
        assert_eq!(mode_of(dir.path()), 0o755);
    }

    #[test]
    fn the_address_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(address(dir.path()), None);
        let listening: SocketAddr = "127.0.0.1:4711".parse().unwrap();
        write_address(dir.path(), listening).unwrap();
        assert_eq!(address(dir.path()), Some(listening));
    }
}
