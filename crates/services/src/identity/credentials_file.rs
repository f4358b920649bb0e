//! The credentials file in the data directory, in the format that AWS tools share.
//!
//! Source: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>. The profile `default`
//! is made to name the root key and the server's region; what the file's owner added stays.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use lacewing_model::{Credentials, Region};

/// The file's name within the data directory.
pub(super) const NAME: &str = "credentials";

/// Makes sure that the file holds the key and the region, and that nobody else can read it.
pub(super) fn ensure(path: &Path, root: &Credentials, region: &Region) -> io::Result<()> {
    let found = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let settings = [
        ("aws_access_key_id", root.access_key_id.as_str()),
        ("aws_secret_access_key", root.secret_access_key.expose()),
        ("region", region.as_str()),
    ];
    let text = with_default(&found, &settings);
    if text == found {
        return fs::set_permissions(path, Permissions::from_mode(0o600));
    }
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

/// `text` with these settings at the head of its profile `default`, and all other lines as they are.
fn with_default(text: &str, settings: &[(&str, &str)]) -> String {
    const HEADER: &str = "[default]";
    let section: String =
        settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let section = format!("{HEADER}\n{section}");
    let is_ours = |line: &str| {
        line.split_once('=').is_some_and(|(key, _)| {
            settings.iter().any(|one| key.trim().eq_ignore_ascii_case(one.0))
        })
    };
    let (mut changed, mut is_written, mut is_inside) = (String::new(), false, false);
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            is_inside = line.trim() == HEADER;
            if is_inside && !is_written {
                changed.push_str(&section);
                is_written = true;
                continue;
            }
        }
        if !(is_inside && is_ours(line)) {
            changed.push_str(line);
        }
    }
    if is_written { changed } else { section + &changed }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: [(&str, &str); 2] = [("aws_access_key_id", "AKIA2"), ("region", "eu-west-3")];
    const OURS: &str = "[default]\naws_access_key_id = AKIA2\nregion = eu-west-3\n";

    #[test]
    fn only_the_servers_own_settings_change() {
        let others = "output = json\n\n[mine]\nregion = us-west-1\n# no line end";
        for (found, wanted) in [
            (String::new(), OURS.to_owned()),
            (OURS.to_owned(), OURS.to_owned()),
            (others.to_owned(), format!("{OURS}{others}")),
            (format!("{OURS}{others}"), format!("{OURS}{others}")),
            (
                format!("# mine\n [default]\nregion=us-east-1\naws_access_key_id = A\n{others}"),
                format!("# mine\n{OURS}{others}"),
            ),
            (format!("{OURS}\n[default]\nregion = a\n"), format!("{OURS}\n[default]\n")),
        ] {
            assert_eq!(with_default(&found, &SETTINGS), wanted, "{found}");
            assert_eq!(with_default(&wanted, &SETTINGS), wanted, "a second time");
        }
    }
}
