//! Where interpreters may be: a list of paths in order of precedence. Nothing is run here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use lacewing_model::{Family, RuntimeId};

/// A file that may be an interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) family: Family,
    /// What its name, or the configuration, says it is.
    pub(super) promises: Option<RuntimeId>,
    pub(super) origin: &'static str,
}

/// The origin of what the operator configured.
const CONFIGURATION: &str = "configuration";

/// Where a version manager keeps what it installs.
struct Manager {
    origin: &'static str,
    /// The variable that names its directory.
    variable: &'static str,
    /// That directory below the user's home, when the variable is not set.
    home: &'static str,
    /// The directory in it that holds one directory for each installed version.
    versions: &'static str,
    /// The path from there to the executables.
    bin: &'static str,
}

const MANAGERS: &[Manager] = &[
    manager("pyenv", "PYENV_ROOT", ".pyenv", "versions", "bin"),
    manager("asdf", "ASDF_DATA_DIR", ".asdf", "installs/python", "bin"),
    manager("asdf", "ASDF_DATA_DIR", ".asdf", "installs/nodejs", "bin"),
    manager("mise", "MISE_DATA_DIR", ".local/share/mise", "installs/python", "bin"),
    manager("mise", "MISE_DATA_DIR", ".local/share/mise", "installs/node", "bin"),
    manager("nvm", "NVM_DIR", ".nvm", "versions/node", "bin"),
    manager("fnm", "FNM_DIR", ".local/share/fnm", "node-versions", "installation/bin"),
    manager("fnm", "FNM_DIR", ".fnm", "node-versions", "installation/bin"),
    manager("n", "N_PREFIX", "n", "n/versions/node", "bin"),
    manager("nodenv", "NODENV_ROOT", ".nodenv", "versions", "bin"),
    manager("volta", "VOLTA_HOME", ".volta", "tools/image/node", "bin"),
    manager("uv", "UV_PYTHON_INSTALL_DIR", ".local/share/uv/python", "", "bin"),
];

const fn manager(
    origin: &'static str,
    variable: &'static str,
    home: &'static str,
    versions: &'static str,
    bin: &'static str,
) -> Manager {
    Manager { origin, variable, home, versions, bin }
}

impl Candidate {
    /// What the operator configured for `runtime`.
    pub(super) const fn configured(runtime: RuntimeId, path: PathBuf) -> Self {
        Self { path, family: runtime.family, promises: Some(runtime), origin: CONFIGURATION }
    }

    /// Whether the operator asked for it by name.
    pub(super) fn is_configured(&self) -> bool {
        self.origin == CONFIGURATION
    }
}

/// The variables that tell version managers where they keep things.
pub(super) fn variables() -> impl Iterator<Item = &'static str> {
    MANAGERS.iter().map(|manager| manager.variable)
}

/// What the system's directories and the version managers of the user hold; `variable` gives the
/// value of an environment variable.
pub(super) fn of_machine(
    home: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<PathBuf>,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    in_directory(Path::new("/usr/bin"), "/usr", &mut found);
    in_directory(Path::new("/usr/local/bin"), "/usr/local", &mut found);
    in_versions(Path::new("/opt"), "bin", "/opt", &mut found);
    in_versions(Path::new("/usr/local/n/versions/node"), "bin", "n", &mut found);
    for manager in MANAGERS {
        let set = variable(manager.variable).filter(|path| path.is_absolute());
        if let Some(root) = set.or_else(|| Some(home?.join(manager.home))) {
            let versions = root.join(manager.versions);
            in_versions(&versions, manager.bin, manager.origin, &mut found);
        }
    }
    found
}

/// What the directories of `PATH` hold, shims among it.
pub(super) fn of_path(path: Option<&OsStr>) -> Vec<Candidate> {
    let mut found = Vec::new();
    for directory in path.into_iter().flat_map(std::env::split_paths) {
        in_directory(&directory, "PATH", &mut found);
    }
    found
}

/// Newest versions first, so that of two with the same identifier the newer serves.
fn in_versions(versions: &Path, bin: &str, origin: &'static str, found: &mut Vec<Candidate>) {
    let mut directories = entries(versions);
    directories.sort_by_key(|path| std::cmp::Reverse(version_key(path)));
    for directory in directories {
        in_directory(&directory.join(bin), origin, found);
    }
}

fn in_directory(directory: &Path, origin: &'static str, found: &mut Vec<Candidate>) {
    let mut paths = entries(directory);
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if let Some((family, promises)) = meaning(name) {
            found.push(Candidate { path, family, promises, origin });
        }
    }
}

/// What a file name promises: `python3.12` a version, `python3`, `node` and `nodejs` a language.
fn meaning(name: &str) -> Option<(Family, Option<RuntimeId>)> {
    match name {
        "python3" => Some((Family::Python, None)),
        "node" | "nodejs" => Some((Family::Node, None)),
        _ => {
            let minor = name.strip_prefix("python3.")?.parse().ok()?;
            let runtime = RuntimeId::python(3, minor);
            (runtime.version >= super::LEAST_PYTHON).then_some((Family::Python, Some(runtime)))
        }
    }
}

/// The numbers in a directory's name: `v20.11.1` before `v20.9.0`, as numbers and not as text.
fn version_key(path: &Path) -> Vec<u32> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let numbers = name.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    numbers.map(|part| part.parse().unwrap_or(0)).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, file: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(path, "").expect("a file");
    }

    #[test]
    fn version_managers_are_searched_newest_first() {
        let home = tempfile::tempdir().expect("a directory");
        for file in [
            ".nvm/versions/node/v18.9.0/bin/node",
            ".nvm/versions/node/v18.19.1/bin/node",
            ".pyenv/versions/3.12.1/bin/python3.12",
            ".pyenv/versions/3.8.18/bin/python3.8",
            ".pyenv/versions/3.12.1/bin/python3-config",
            ".local/share/uv/python/cpython-3.13.1-linux/bin/python3.13",
        ] {
            touch(home.path(), file);
        }
        let found = of_machine(Some(home.path()), &|_| None);
        let own: Vec<_> = found
            .iter()
            .filter_map(|candidate| {
                let path = candidate.path.strip_prefix(home.path()).ok()?;
                Some((candidate.origin, path.to_str().expect("UTF-8")))
            })
            .collect();
        assert_eq!(
            own,
            [
                ("pyenv", ".pyenv/versions/3.12.1/bin/python3.12"),
                ("nvm", ".nvm/versions/node/v18.19.1/bin/node"),
                ("nvm", ".nvm/versions/node/v18.9.0/bin/node"),
                ("uv", ".local/share/uv/python/cpython-3.13.1-linux/bin/python3.13"),
            ]
        );
    }

    #[test]
    fn a_manager_is_searched_where_its_variable_says() {
        let root = tempfile::tempdir().expect("a directory");
        for (variable, file) in [
            ("PYENV_ROOT", "versions/3.12.1/bin/python3.12"),
            ("ASDF_DATA_DIR", "installs/nodejs/20.1.0/bin/node"),
            ("MISE_DATA_DIR", "installs/python/3.13.1/bin/python3.13"),
            ("NVM_DIR", "versions/node/v20.1.0/bin/node"),
            ("FNM_DIR", "node-versions/v20.1.0/installation/bin/node"),
            ("N_PREFIX", "n/versions/node/20.1.0/bin/node"),
            ("NODENV_ROOT", "versions/20.1.0/bin/node"),
            ("VOLTA_HOME", "tools/image/node/20.1.0/bin/node"),
            ("UV_PYTHON_INSTALL_DIR", "cpython-3.13.1-linux/bin/python3.13"),
        ] {
            let directory = root.path().join(variable);
            touch(&directory, file);
            let value = |name: &str| (name == variable).then(|| directory.clone());
            let found = of_machine(None, &value);
            let path = directory.join(file);
            assert!(found.iter().any(|candidate| candidate.path == path), "{variable}: {found:?}");
        }
    }

    #[test]
    fn names_promise_what_they_say() {
        assert_eq!(meaning("python3.12"), Some((Family::Python, Some(RuntimeId::python(3, 12)))));
        assert_eq!(meaning("python3"), Some((Family::Python, None)));
        assert_eq!(meaning("node"), Some((Family::Node, None)));
        for name in ["python", "python2.7", "python3.8", "python3-config", "python3.x", "npm"] {
            assert_eq!(meaning(name), None, "{name}");
        }
    }
}
