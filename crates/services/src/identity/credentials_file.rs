//! The credentials file in the data directory, in the format that AWS tools share.
//!
//! Source: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>. It is written when it
//! does not hold the root key, so that what its owner added stays otherwise.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use lacewing_model::{Credentials, Region};

/// The file's name within the data directory.
pub(super) const NAME: &str = "credentials";

/// Makes sure that the file holds the key and that nobody else can read it.
pub(super) fn ensure(path: &Path, root: &Credentials, region: &Region) -> io::Result<()> {
    match fs::read_to_string(path) {
        Ok(text)
            if text.contains(&root.access_key_id)
                && text.contains(root.secret_access_key.expose()) =>
        {
            return fs::set_permissions(path, Permissions::from_mode(0o600));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\nregion = {region}\n",
        root.access_key_id,
        root.secret_access_key.expose(),
    );
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
