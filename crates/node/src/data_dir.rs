//! Where the data directory is, and the small files in it that belong to the node itself.
//!
//! `owner` names the directory for good: names of cgroups carry it, so that what a dead server
//! left is known from what another server owns. `address` says where the server of this directory
//! listens, so that the command line finds it. Everything else in there belongs to the crates below.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

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

/// Notes where the server listens.
pub(crate) fn write_address(data_dir: &Path, address: SocketAddr) -> io::Result<()> {
    replace(&data_dir.join("address"), format!("{address}\n").as_bytes())
}

/// The id of this data directory; made when there is none yet. Call it with the lock held.
pub(crate) fn owner(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join("owner");
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
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
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

    #[test]
    fn the_address_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(address(dir.path()), None);
        let listening: SocketAddr = "127.0.0.1:4711".parse().unwrap();
        write_address(dir.path(), listening).unwrap();
        assert_eq!(address(dir.path()), Some(listening));
    }
}
