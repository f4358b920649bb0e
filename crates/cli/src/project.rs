//! What is to be deployed: a directory, a zip archive or a single file, made into an archive and
//! settings.
//!
//! ```text
//! flags > lacewing.toml > what the files look like
//! ```
//!
//! Nothing here talks to a server.

mod detect;
mod files;
mod manifest;

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lacewing_archive::Caps;
use lacewing_model::limits;

use crate::error::{Error, Result};
use crate::output::Output;
use crate::scratch::Scratch;

pub(crate) use detect::{Detected, Language};
pub(crate) use manifest::Manifest;

/// A tree of files, and what is known of it so far.
#[derive(Debug)]
pub(crate) struct Project {
    /// A name for the function, made of the file's or directory's.
    pub(crate) name: String,
    /// What `lacewing.toml` says.
    pub(crate) manifest: Manifest,
    /// What the files look like, or why that is not clear.
    pub(crate) detected: Result<Detected, String>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Files below a directory.
    Files { dir: PathBuf, files: Vec<PathBuf>, _scratch: Option<Scratch> },
    /// A finished archive.
    Archive(Vec<u8>),
}

impl Project {
    /// Looks at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(|error| {
            Error::user(format!("cannot read {}", path.display()))
                .caused_by(&error)
                .hint("deploy takes a directory, a zip archive or a single file")
        })?;
        if path.is_dir() {
            return Self::directory(path);
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("zip") => Self::archive(&path),
            _ => Self::single(&path),
        }
    }

    fn directory(dir: PathBuf) -> Result<Self> {
        let manifest = Manifest::load(&dir)?;
        let files = files::list(&dir)?;
        if files.is_empty() {
            return Err(Error::user(format!("{} has no files to deploy", dir.display()))
                .hint("name the directory of the code; .lacewingignore says what is left out"));
        }
        let detected = detect::detect(&dir, &files);
        let name = function_name(&dir);
        let source = Source::Files { dir, files, _scratch: None };
        Ok(Self { name, manifest, detected, source })
    }

    fn archive(path: &Path) -> Result<Self> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::user(format!("cannot use {}", path.display()))
                .caused_by(error)
                .hint("a directory is packed as it has to be: `lacewing deploy DIRECTORY`")
        };
        let bytes = fs::read(path).map_err(|error| failed(&error))?;
        let scratch = scratch()?;
        let summary = lacewing_archive::extract(Cursor::new(&bytes), scratch.path(), &caps())
            .map_err(|error| failed(&error))?;
        let files: Vec<PathBuf> = summary.names.iter().map(PathBuf::from).collect();
        let detected = detect::detect(scratch.path(), &files);
        let source = Source::Archive(bytes);
        Ok(Self { name: function_name(path), manifest: Manifest::default(), detected, source })
    }

    fn single(path: &Path) -> Result<Self> {
        let (dir, file) = path.parent().zip(path.file_name()).ok_or_else(|| {
            Error::user(format!("{} is no file that can be deployed", path.display()))
        })?;
        let mut files = vec![PathBuf::from(file)];
        let (mut dir, mut kept) = (dir.to_path_buf(), None);
        if Language::of(path).is_none() && is_executable(path) {
            let scratch = scratch()?;
            fs::copy(path, scratch.path().join("bootstrap")).map_err(|error| {
                Error::user(format!("cannot copy {}", path.display())).caused_by(&error)
            })?;
            files = vec!["bootstrap".into()];
            dir = scratch.path().to_path_buf();
            kept = Some(scratch);
        }
        let detected = detect::detect(&dir, &files);
        let source = Source::Files { dir, files, _scratch: kept };
        Ok(Self { name: function_name(path), manifest: Manifest::default(), detected, source })
    }

    /// The zip archive to upload.
    pub(crate) fn pack(self, output: Output) -> Result<Vec<u8>> {
        let bytes = match self.source {
            Source::Archive(bytes) => bytes,
            Source::Files { dir, files, _scratch } => pack(&dir, &files, output)?,
        };
        let most = limits::ZIP_DIRECT;
        if bytes.len() as u64 > most.as_bytes() {
            let mib = bytes.len() >> 20;
            return Err(Error::user(format!("the archive has {mib} MB; {most} can be uploaded"))
                .hint("leave files out by naming them in .lacewingignore"));
        }
        Ok(bytes)
    }
}

fn pack(dir: &Path, files: &[PathBuf], output: Output) -> Result<Vec<u8>> {
    let total = files.iter().filter_map(|file| fs::symlink_metadata(dir.join(file)).ok());
    let bar = output.bytes_bar("packing", total.map(|about| about.len()).sum());
    let mut bytes = Cursor::new(Vec::new());
    lacewing_archive::pack(dir, files, &mut bytes, &mut |done| bar.set_position(done))
        .map_err(|error| Error::user(format!("cannot pack {}", dir.display())).caused_by(&error))?;
    bar.finish_and_clear();
    Ok(bytes.into_inner())
}

fn scratch() -> Result<Scratch> {
    Scratch::new("deploy")
        .map_err(|error| Error::user("cannot make a temporary directory").caused_by(&error))
}

/// The server's own bounds: what breaks them here would be refused there.
fn caps() -> Caps {
    Caps {
        packed: limits::ZIP_DIRECT.as_bytes(),
        unpacked: limits::UNZIPPED.as_bytes(),
        entries: limits::ZIP_ENTRIES,
        depth: 64,
        ratio: 1_000,
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

/// A valid function name as like the path's last part as can be.
fn function_name(path: &Path) -> String {
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let stem = stem.map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = stem.chars().map(allowed).take(limits::FUNCTION_NAME).collect();
    match name.trim_matches('-') {
        "" => "function".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
