//! What may be bound into a sandbox: only what lies in the directories that the launcher was told of
//! at its start, before anything hostile could speak through the server.
//!
//! The server may be told to ask for anything, and it writes in most of these directories: a path is
//! compared by its names, without `..`, and then opened without following a single link, so that
//! what is opened is what was compared. It never looks at what it opens.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// The directories below which sources of bind mounts may lie.
#[derive(Debug)]
pub(crate) struct Sources(Vec<Place>);

#[derive(Debug)]
struct Place {
    /// As a `Spec` names it.
    named: PathBuf,
    /// The same without links, as it was at the start.
    real: PathBuf,
    /// What takes its place, wherever its path leads by now.
    copy: Option<OwnedFd>,
}

impl Sources {
    /// Resolves the directories, which must exist.
    pub(crate) fn resolve(named: &[PathBuf]) -> io::Result<Self> {
        let place = |named: &PathBuf| {
            Ok(Place { named: named.clone(), real: fs::canonicalize(named)?, copy: None })
        };
        named.iter().map(place).collect::<io::Result<_>>().map(Self)
    }

    /// Opens a source, by which it can be bound and not read.
    pub(crate) fn open(&self, source: &Path) -> io::Result<OwnedFd> {
        let (place, inside) = self.place(source).ok_or_else(|| {
            let why = "it is in none of the directories from which the launcher may bind";
            io::Error::new(io::ErrorKind::PermissionDenied, why)
        })?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        if let Some(copy) = &place.copy {
            let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
            let resolve = resolve | ResolveFlags::BENEATH;
            return Ok(openat2(copy, inside, flags, Mode::empty(), resolve)?);
        }
        let real = match inside.as_os_str().is_empty() {
            // Joined with nothing it would end in a slash, which a file does not bear.
            true => place.real.clone(),
            false => place.real.join(inside),
        };
        Ok(openat2(CWD, real, flags, Mode::empty(), resolve)?)
    }

    /// Has a copy take the place of one of the directories.
    pub(crate) fn keep(&mut self, named: &Path, copy: OwnedFd) {
        if let Some(place) = self.0.iter_mut().find(|place| place.named == named) {
            place.copy = Some(copy);
        }
    }

    fn place<'a>(&self, source: &'a Path) -> Option<(&Place, &'a Path)> {
        let found = self.0.iter().filter_map(|place| {
            let inside = source.strip_prefix(&place.named).ok()?;
            let is_plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
            is_plain.then_some((place, inside))
        });
        // One may lie in another; the innermost says what is there.
        found.min_by_key(|(_, inside)| inside.components().count())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn opens(sources: &Sources, path: &Path) -> Result<(), Option<i32>> {
        sources.open(path).map(|_| ()).map_err(|error| error.raw_os_error())
    }

    #[test]
    fn only_what_lies_inside_is_opened_and_no_link_is_followed() {
        let outer = tempfile::tempdir().unwrap();
        let code = outer.path().join("code");
        fs::create_dir_all(code.join("one/two")).unwrap();
        fs::write(outer.path().join("master.key"), "").unwrap();
        fs::write(code.join("file"), "").unwrap();
        symlink("/etc", code.join("link")).unwrap();
        symlink("..", code.join("up")).unwrap();
        let sources = Sources::resolve(std::slice::from_ref(&code)).unwrap();
        for good in ["", "one", "one/two", "one//two/", "one/./two", "file"] {
            assert_eq!(opens(&sources, &code.join(good)), Ok(()), "{good}");
        }
        for link in ["link", "link/passwd", "up/master.key"] {
            assert_eq!(opens(&sources, &code.join(link)), Err(Some(libc::ELOOP)), "{link}");
        }
        for outside in ["../master.key", "one/../../master.key", "/etc/shadow", "/"] {
            let error = sources.open(&code.join(outside)).unwrap_err();
            assert!(error.to_string().contains("may bind"), "{outside}: {error}");
        }
        assert_eq!(opens(&sources, &code.join("gone")), Err(Some(libc::ENOENT)));
        let beside = outer.path().join("code-of-another");
        fs::create_dir(&beside).unwrap();
        assert_eq!(opens(&sources, &beside), Err(None));
    }

    #[test]
    fn a_directory_that_is_a_link_is_resolved_once_at_the_start() {
        let outer = tempfile::tempdir().unwrap();
        let (real, named) = (outer.path().join("real"), outer.path().join("named"));
        fs::create_dir_all(real.join("one")).unwrap();
        symlink(&real, &named).unwrap();
        let sources = Sources::resolve(std::slice::from_ref(&named)).unwrap();
        fs::remove_file(&named).unwrap();
        symlink("/etc", &named).unwrap();
        assert_eq!(opens(&sources, &named.join("one")), Ok(()));
        assert_eq!(opens(&sources, &named.join("passwd")), Err(Some(libc::ENOENT)));
        assert!(Sources::resolve(&[outer.path().join("missing")]).is_err());
    }
}
