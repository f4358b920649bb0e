//! A corpus of hostile archives, and honest ones beside them.

mod forge;

use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use self::forge::{Entry, forge};
use super::*;

const CAPS: Caps = Caps { packed: 1 << 24, unpacked: 1 << 22, entries: 100, depth: 20, ratio: 100 };

fn extracted(bytes: &[u8]) -> (Result<Summary, ArchiveError>, tempfile::TempDir) {
    let outer = tempfile::tempdir().expect("a directory");
    let into = outer.path().join("into");
    fs::create_dir(&into).expect("made");
    let result = extract(Cursor::new(bytes), &into, &CAPS);
    let escaped = fs::read_dir(outer.path()).expect("readable").count() != 1;
    assert!(!escaped, "something was written outside");
    (result, outer)
}

/// Refused by both ways in, with the same error.
fn refused(bytes: &[u8]) -> ArchiveError {
    let inspected = inspect(Cursor::new(bytes), &CAPS).expect_err("hostile");
    let (result, _outer) = extracted(bytes);
    let error = result.expect_err("hostile");
    assert_eq!(inspected.to_string(), error.to_string());
    assert!(error.is_archives_fault(), "{error}");
    error
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("exists").permissions().mode() & 0o7777
}

#[test]
fn an_honest_archive_is_unpacked_with_plain_modes() {
    let bytes = forge(&[
        Entry::file("app.py", b"x = 1\n").mode(0o100_600),
        Entry::file("bin/run", b"#!/bin/sh\n").mode(0o104_710),
        Entry::file("./plain//no-mode", b"").mode(0),
        Entry::directory("empty/"),
        Entry::directory("empty/"),
        Entry::link("bin/app", "../app.py"),
    ]);
    let (result, outer) = extracted(&bytes);
    let summary = result.expect("honest");
    assert_eq!(summary.entries, 6);
    assert_eq!(summary.unpacked, 16);
    assert_eq!(summary.names, ["app.py", "bin/app", "bin/run", "plain/no-mode"]);
    let into = outer.path().join("into");
    assert_eq!(mode_of(&into.join("app.py")), 0o644);
    assert_eq!(mode_of(&into.join("bin/run")), 0o755, "the x bit stays, set-id goes");
    assert_eq!(mode_of(&into.join("plain/no-mode")), 0o644);
    assert_eq!(mode_of(&into.join("empty")), 0o755);
    assert_eq!(fs::read(into.join("bin/app")).expect("a link to a file"), b"x = 1\n");
    assert_eq!(inspect(Cursor::new(&bytes), &CAPS).expect("honest"), summary);
}

#[test]
fn strangers_and_empty_archives_are_told_apart() {
    for bytes in [&b""[..], b"hello", &[0; 4096]] {
        assert!(matches!(refused(bytes), ArchiveError::NotAnArchive));
    }
    assert!(matches!(refused(&forge(&[])), ArchiveError::Empty));
}

#[test]
fn truncated_and_damaged_archives_are_broken() {
    let whole = forge(&[Entry::file("a", &[7; 500]), Entry::file("b", b"text")]);
    for length in [5, 30, 400, whole.len() - 1, whole.len() - 21] {
        let error = refused(&whole[..length]);
        assert!(matches!(error, ArchiveError::Broken { .. }), "{length}: {error}");
    }
    let mut damaged = whole;
    damaged[40] ^= 0xff; // Contents of "a": its checksum no longer holds.
    assert!(matches!(refused(&damaged), ArchiveError::Broken { .. }));
}

#[test]
fn names_that_leave_the_tree_are_refused() {
    let long_part = "x".repeat(256);
    let long_path = "xxxxxxx/".repeat(600);
    let deep = "d/".repeat(21);
    let names = [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "..\\x",
        "a\\b",
        "C:\\x",
        "a\0b",
        "..",
        &long_part,
        &long_path,
        &deep,
    ];
    for name in names {
        let error = refused(&forge(&[Entry::file(name, b"x").mode(0o100_644)]));
        assert!(matches!(error, ArchiveError::UnsafePath { .. }), "{name:?}: {error}");
    }
}

#[test]
fn links_that_leave_the_tree_are_refused() {
    let far = "a/".repeat(2100);
    for target in ["/etc/passwd", "../x", "a/../../x", "", "a\0b", &far] {
        let error = refused(&forge(&[Entry::link("l", target)]));
        assert!(matches!(error, ArchiveError::UnsafeLink { .. }), "{target:?}: {error}");
    }
    let through = [Entry::link("x/y/up", "../.."), Entry::link("m", "x/y/up/..")];
    assert!(matches!(refused(&forge(&through)), ArchiveError::UnsafeLink { .. }));
}

#[test]
fn writing_through_a_link_is_refused() {
    let bytes = forge(&[Entry::link("d", "sub"), Entry::file("d/f", b"x")]);
    assert!(matches!(refused(&bytes), ArchiveError::UnsafePath { .. }));
}

#[test]
fn a_link_that_was_there_before_is_not_followed() {
    let outer = tempfile::tempdir().expect("a directory");
    let (into, victim) = (outer.path().join("into"), outer.path().join("victim"));
    fs::create_dir(&into).expect("made");
    fs::create_dir(&victim).expect("made");
    symlink(&victim, into.join("d")).expect("made");
    let bytes = forge(&[Entry::file("d/f", b"x")]);
    let error = extract(Cursor::new(&bytes), &into, &CAPS).expect_err("beneath only");
    assert!(matches!(error, ArchiveError::Io { .. }), "{error}");
    assert_eq!(fs::read_dir(&victim).expect("readable").count(), 0);
}

#[test]
fn devices_pipes_and_sockets_are_refused() {
    for mode in [0o010_644, 0o020_644, 0o060_644, 0o140_644] {
        let error = refused(&forge(&[Entry::file("x", b"").mode(mode)]));
        assert!(matches!(error, ArchiveError::SpecialFile { .. }), "{mode:o}: {error}");
    }
}

#[test]
fn declared_and_undeclared_bombs_are_refused() {
    let zeros = vec![0; 5 << 20];
    let honest = forge(&[Entry::deflated("zeros", &zeros)]);
    assert!(matches!(refused(&honest), ArchiveError::TooLarge { .. }));
    let lying = forge(&[Entry::deflated("zeros", &zeros).claims(10)]);
    assert!(matches!(refused(&lying), ArchiveError::Broken { .. }));
    let modest = forge(&[Entry::deflated("zeros", &vec![0; 3 << 20])]);
    assert!(matches!(refused(&modest), ArchiveError::RatioTooHigh { .. }));
    let padded = forge(&[Entry::file("short", b"abc").claims(2000)]);
    assert!(matches!(refused(&padded), ArchiveError::Broken { .. }));
}

#[test]
fn many_files_together_are_bounded() {
    let part = vec![1; 1 << 20];
    let names: Vec<String> = (0..5).map(|number| format!("f{number}")).collect();
    let entries: Vec<Entry<'_>> = names.iter().map(|name| Entry::file(name, &part)).collect();
    assert!(matches!(refused(&forge(&entries)), ArchiveError::TooLarge { .. }));
}

#[test]
fn entries_that_share_bytes_are_refused() {
    let bytes = forge(&[Entry::file("a", b"contents"), Entry::file("b", b"contents").reuses(0)]);
    assert!(matches!(refused(&bytes), ArchiveError::Overlapping));
}

#[test]
fn too_many_entries_are_refused_before_they_are_read() {
    let names: Vec<String> = (0..101).map(|number| format!("f{number}")).collect();
    let entries: Vec<Entry<'_>> = names.iter().map(|name| Entry::file(name, b"")).collect();
    let error = refused(&forge(&entries));
    assert!(matches!(error, ArchiveError::TooManyEntries { found: 101, cap: 100 }), "{error}");
}

#[test]
fn one_path_twice_is_refused() {
    for second in ["a/b", "./a//b", "a/b/"] {
        let bytes = forge(&[Entry::file("a/b", b"1"), Entry::file(second, b"")]);
        assert!(matches!(refused(&bytes), ArchiveError::Duplicate { .. }), "{second}");
    }
}

#[test]
fn encrypted_entries_are_refused() {
    let bytes = forge(&[Entry::file("a", b"secret").flags(1)]);
    assert!(matches!(refused(&bytes), ArchiveError::Encrypted { .. }));
}

#[test]
fn other_compressions_are_refused_by_name() {
    let bytes = forge(&[Entry::file("a", b"x").method(12)]);
    assert!(matches!(refused(&bytes), ArchiveError::Unsupported { .. }));
}

#[test]
fn a_large_archive_is_refused_unread() {
    let caps = Caps { packed: 10, ..CAPS };
    let error = inspect(Cursor::new(forge(&[Entry::file("a", b"x")])), &caps).expect_err("large");
    assert!(matches!(error, ArchiveError::PackedTooLarge { cap: 10 }));
}

fn packed(dir: &Path, files: &[&str]) -> Vec<u8> {
    let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
    let mut bytes = Cursor::new(Vec::new());
    let mut heard = 0;
    let summary = pack(dir, &files, &mut bytes, &mut |done| heard = done).expect("packed");
    assert_eq!(summary.unpacked, heard);
    bytes.into_inner()
}

#[test]
fn packing_depends_on_the_files_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("sub")).expect("made");
    fs::write(dir.path().join("sub/run"), "#!/bin/sh\n").expect("written");
    fs::set_permissions(dir.path().join("sub/run"), fs::Permissions::from_mode(0o700))
        .expect("set");
    fs::write(dir.path().join("app.py"), "x = 1\n").expect("written");
    symlink("app.py", dir.path().join("link")).expect("made");
    let first = packed(dir.path(), &["sub/run", "app.py", "link"]);
    fs::write(dir.path().join("app.py"), "x = 1\n").expect("written later");
    let second = packed(dir.path(), &["link", "app.py", "./sub/run", "app.py"]);
    assert_eq!(first, second);
    let (result, outer) = extracted(&first);
    assert_eq!(result.expect("honest").names, ["app.py", "link", "sub/run"]);
    let into = outer.path().join("into");
    assert_eq!(mode_of(&into.join("sub/run")), 0o755);
    assert_eq!(mode_of(&into.join("app.py")), 0o644);
    assert_eq!(fs::read_link(into.join("link")).expect("a link"), Path::new("app.py"));
}

#[test]
fn packing_outside_the_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = [PathBuf::from("../x")];
    let error =
        pack(dir.path(), &files, Cursor::new(Vec::new()), &mut |_| {}).expect_err("outside");
    assert!(matches!(error, ArchiveError::UnsafePath { .. }));
}

/// An archive as an ordinary library writes it, as the start of mutations.
fn ordinary() -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for name in ["a.py", "dir/b.py", "dir/c"] {
        zip.start_file(name, options).expect("started");
        zip.write_all(name.repeat(50).as_bytes()).expect("written");
    }
    zip.add_symlink("l", "dir/c", options).expect("added");
    zip.finish().expect("finished").into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn mutated_archives_never_panic_nor_escape(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        forged: bool,
    ) {
        let mut bytes = if forged {
            forge(&[Entry::file("a", b"some text"), Entry::link("l", "a"), Entry::directory("d/")])
        } else {
            ordinary()
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let inspected = inspect(Cursor::new(&bytes), &CAPS);
        let (result, _outer) = extracted(&bytes);
        prop_assert_eq!(inspected.is_ok(), result.is_ok(), "{:?} {:?}", inspected, result);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(inspect(Cursor::new(bytes), &CAPS).is_err());
    }

    #[test]
    fn what_is_packed_is_unpacked_the_same(contents in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("f"), &contents).expect("written");
        let (result, outer) = extracted(&packed(dir.path(), &["f"]));
        prop_assert!(result.is_ok());
        prop_assert_eq!(fs::read(outer.path().join("into/f")).expect("there"), contents);
    }
}
