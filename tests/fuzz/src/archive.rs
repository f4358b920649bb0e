//! Zip archives: what is accepted stays within its bounds and beneath its directory, and looking at
//! an archive and unpacking it come to the same.

use std::fs;
use std::io::Cursor;
use std::path::{Component, Path};

use lacewing_archive::{ArchiveError, Caps, extract, inspect};

const CAPS: Caps = Caps { packed: 1 << 20, unpacked: 1 << 20, entries: 64, depth: 8, ratio: 1000 };

/// Inspects the bytes, and unpacks them if they are accepted.
pub fn run(data: &[u8]) {
    let Ok(summary) = inspect(Cursor::new(data), &CAPS) else { return };
    assert!(summary.unpacked <= CAPS.unpacked && summary.entries <= CAPS.entries);
    for name in &summary.names {
        let plain = |part| matches!(part, Component::Normal(_));
        assert!(Path::new(name).components().all(plain), "{name:?} leads elsewhere");
    }
    let above = tempfile::tempdir().expect("a directory");
    let target = above.path().join("code");
    fs::create_dir(&target).expect("a directory");
    match extract(Cursor::new(data), &target, &CAPS) {
        Ok(extracted) => assert_eq!(extracted, summary),
        // A name that no file system takes: seen when it is written.
        Err(ArchiveError::Io { .. }) => {}
        Err(error) => panic!("accepted and not unpacked: {error}"),
    }
    let beside = fs::read_dir(above.path()).expect("a directory").count();
    assert_eq!(beside, 1, "something was written outside");
    check(&target, &target);
}

/// Nothing that was unpacked leads outside or has more rights than it may.
fn check(directory: &Path, root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let found = fs::symlink_metadata(&path).expect("it is there");
        if found.is_symlink() {
            // One that leads nowhere is harmless; one that leads somewhere must stay inside.
            let end = fs::canonicalize(&path).ok();
            let root = fs::canonicalize(root).expect("a directory");
            assert!(end.is_none_or(|end| end.starts_with(root)), "{path:?} leads outside");
        } else {
            assert_eq!(found.permissions().mode() & 0o7022, 0, "{path:?}");
            assert!(found.is_dir() || found.is_file(), "{path:?}");
            if found.is_dir() {
                check(&path, root);
            }
        }
    }
}
