//! Names of entries as safe relative paths.
//!
//! A name is refused, never repaired, but for empty and `.` components, which mean nothing.

use crate::error::{ArchiveError, shorten};

/// Longest path, as Linux bounds it (`PATH_MAX`, limits.h(0p)).
pub(crate) const PATH_BYTES: usize = 4096;
/// Longest component of a path, as Linux bounds it (`NAME_MAX`).
const NAME_BYTES: usize = 255;

/// Checks `name` and gives it in its one normal form; the tree's root itself is the empty string.
pub(crate) fn normal(name: &str, depth: usize) -> Result<String, ArchiveError> {
    let refuse = |reason| Err(ArchiveError::UnsafePath { name: shorten(name), reason });
    if name.len() > PATH_BYTES {
        return refuse("it is longer than 4096 bytes");
    }
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.starts_with('/') {
        return refuse("it is absolute");
    }
    if name.contains('\\') {
        return refuse("it contains a backslash");
    }
    if name.contains('\0') {
        return refuse("it contains a NUL");
    }
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return refuse("it contains '..'"),
            part if part.len() > NAME_BYTES => return refuse("a part is longer than 255 bytes"),
            part => parts.push(part),
        }
    }
    if parts.len() > depth {
        return refuse("it is too deep");
    }
    Ok(parts.join("/"))
}

/// All proper prefixes of a normal path, shortest first.
pub(crate) fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn harmless_components_are_dropped() {
        assert_eq!(normal("./a//b/", 9).expect("safe"), "a/b");
        assert_eq!(normal("./", 9).expect("safe"), "");
        assert_eq!(normal("..a/b..", 9).expect("safe"), "..a/b..");
    }

    #[test]
    fn hostile_names_are_refused() {
        let long_part = "x".repeat(256);
        let long_path = "x/".repeat(2049);
        let names = [
            "",
            "/etc",
            "..",
            "../x",
            "a/../../x",
            "a\\b",
            "..\\x",
            "a\0b",
            "C:\\x",
            &long_part,
            &long_path,
        ];
        for name in names {
            let refused = normal(name, 5000);
            assert!(matches!(refused, Err(ArchiveError::UnsafePath { .. })), "{name:?}");
        }
        assert!(normal("a/b/c", 2).is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_inside(name in "([a./\\\\]|\\PC){0,40}") {
            if let Ok(path) = normal(&name, 64) {
                prop_assert!(!path.starts_with('/') && !path.ends_with('/'));
                prop_assert!(path.split('/').all(|part| part != ".." && part != "."));
                prop_assert_eq!(normal(&format!("./{path}"), 64).expect("normal"), path);
            }
        }
    }
}
