//! What a sandbox sees and may use: composes the [`Spec`] of one Instance.
//!
//! Source of the layout: "Lambda runtimes" and "Creating layers",
//! <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html>. The code is at
//! `/var/task`, the interpreter at `/var/lang`, the bootstraps at `/var/runtime`; `/tmp` is the
//! only place that can be written. All that Instances share is made once, by [`Layout::prepare`].

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lacewing_model::{Family, FunctionConfig, RuntimeId, limits};
use lacewing_sandbox::{CpuQuota, Identity, Limits, Mount, Spec, TmpFs};

use crate::environment::{EXEC_WRAPPER, RUNTIME_API_PORT, TASK_ROOT};
use crate::etc;
use crate::runtimes::{Interpreter, Runtimes};

/// Name of our Python bootstrap inside `/var/runtime`.
const PYTHON_BOOTSTRAP: &str = "bootstrap.py";
/// Name of our Node bootstrap inside `/var/runtime`.
const NODE_BOOTSTRAP: &str = "bootstrap.cjs";
/// The bootstraps, as they are put there.
const BOOTSTRAPS: &[(&str, &str)] = &[
    (PYTHON_BOOTSTRAP, include_str!("../bootstraps/python/bootstrap.py")),
    (NODE_BOOTSTRAP, include_str!("../bootstraps/node/bootstrap.cjs")),
];
/// Where the interpreter is inside.
const LANGUAGE: &str = "/var/lang";
/// What the host's own packages install; visible inside at the same place.
const SYSTEM: &str = "/usr";
/// `RLIMIT_NPROC` as measured on Lambda.
const USER_PROCESSES: u64 = 742;
/// One inode of `/tmp` for so many bytes, as the usual Linux file systems have.
const BYTES_PER_INODE: u64 = 16 * 1024;
/// Length of a period of the hard processor bound.
const PERIOD_US: u64 = 100_000;
/// Files and directories below the run directory that are shared by all sandboxes.
const SHARED: &str = "shared";

/// The shared part of all sandboxes' file systems.
#[derive(Debug)]
pub(crate) struct Layout {
    etc: PathBuf,
    bootstraps: PathBuf,
    /// Directories of links to interpreters below `/usr`.
    links: HashMap<RuntimeId, PathBuf>,
    endpoint_port: u16,
}

/// What one sandbox is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) name: String,
    pub(crate) config: &'a FunctionConfig,
    /// None for `provided.*`.
    pub(crate) interpreter: Option<&'a Interpreter>,
    pub(crate) code: &'a Path,
    pub(crate) environment: Vec<(String, String)>,
}

// === Layout ===

impl Layout {
    /// Makes the shared files below `run_dir`, anew.
    pub(crate) fn prepare(
        run_dir: &Path,
        runtimes: &Runtimes,
        endpoint_port: u16,
    ) -> io::Result<Self> {
        let shared = run_dir.join(SHARED);
        if shared.exists() {
            fs::remove_dir_all(&shared)?;
        }
        let etc = shared.join("etc");
        etc::make(Path::new("/etc"), &etc)?;
        let bootstraps = shared.join("runtime");
        fs::create_dir_all(&bootstraps)?;
        for (name, text) in BOOTSTRAPS {
            fs::write(bootstraps.join(name), text)?;
        }
        let mut links = HashMap::new();
        for interpreter in runtimes.list().iter().filter(|one| is_of_system(one)) {
            let directory = shared.join("lang").join(interpreter.runtime.to_string());
            link_interpreter(interpreter, &directory.join("bin"))?;
            links.insert(interpreter.runtime, directory);
        }
        make_readable(&shared)?;
        Ok(Self { etc, bootstraps, links, endpoint_port })
    }

    /// Composes the sandbox of one Instance.
    pub(crate) fn spec(&self, parts: Parts<'_>) -> Spec {
        let Parts { name, config, interpreter, code, environment } = parts;
        let mut mounts = vec![
            bind(&self.etc, "/etc", false),
            bind(&self.bootstraps, "/var/runtime", true),
            bind(code, TASK_ROOT, true),
        ];
        if let Some(interpreter) = interpreter {
            let linked = self.links.get(&interpreter.runtime);
            mounts.push(bind(linked.unwrap_or(&interpreter.prefix), LANGUAGE, true));
        }
        let mut listeners = vec![self.endpoint_port];
        if interpreter.is_none() {
            listeners.push(RUNTIME_API_PORT);
        }
        let bytes = u64::from(config.ephemeral_mb) << 20;
        Spec {
            name,
            hostname: "sandbox".to_owned(),
            argv: arguments(config, interpreter, &environment),
            env: environment,
            cwd: TASK_ROOT.to_owned(),
            mounts,
            tmp: TmpFs { bytes, inodes: bytes / BYTES_PER_INODE },
            identity: Identity::default(),
            limits: limits_of(config),
            listeners,
        }
    }
}

/// Whether an interpreter is visible inside at its own path.
fn is_of_system(interpreter: &Interpreter) -> bool {
    interpreter.prefix.starts_with(SYSTEM)
}

/// Makes the names under which programs look for an interpreter.
fn link_interpreter(interpreter: &Interpreter, bin: &Path) -> io::Result<()> {
    fs::create_dir_all(bin)?;
    let names = match interpreter.runtime.family {
        Family::Python => {
            let minor = interpreter.runtime.version.1;
            vec!["python".to_owned(), "python3".to_owned(), format!("python3.{minor}")]
        }
        Family::Node | Family::Provided => vec!["node".to_owned()],
    };
    names.into_iter().try_for_each(|name| symlink(&interpreter.path, bin.join(name)))
}

/// Sandboxes run as other users than the server: they may read all of it, and write nothing.
fn make_readable(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            make_readable(&entry.path())?;
        } else if kind.is_file() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

fn bind(source: &Path, target: &str, exec: bool) -> Mount {
    Mount::Bind { source: source.to_owned(), target: target.into(), exec }
}

/// The command line: the interpreter with our bootstrap, behind the function's wrapper if it has
/// one, or the function's own `bootstrap`.
fn arguments(
    config: &FunctionConfig,
    interpreter: Option<&Interpreter>,
    environment: &[(String, String)],
) -> Vec<String> {
    let Some(interpreter) = interpreter else {
        return vec![format!("{TASK_ROOT}/bootstrap")];
    };
    let wrapper = environment.iter().find(|(key, _)| key == EXEC_WRAPPER);
    let mut arguments: Vec<String> = wrapper.map(|(_, path)| path.clone()).into_iter().collect();
    arguments.push(program(interpreter));
    match interpreter.runtime.family {
        Family::Python => {
            arguments.extend(["-I", "-S", "-B"].map(str::to_owned));
            arguments.push(format!("/var/runtime/{PYTHON_BOOTSTRAP}"));
        }
        // V8 sizes its heap by the machine's memory unless it is told the function's.
        Family::Node | Family::Provided => {
            let old = config.memory_mb * 9 / 10;
            arguments.push(format!("--max-old-space-size={old}"));
            arguments.push(format!("/var/runtime/{NODE_BOOTSTRAP}"));
        }
    }
    arguments
}

/// The interpreter's path inside.
fn program(interpreter: &Interpreter) -> String {
    if is_of_system(interpreter) {
        let (major, minor) = interpreter.runtime.version;
        return match interpreter.runtime.family {
            Family::Python => format!("{LANGUAGE}/bin/python{major}.{minor}"),
            Family::Node | Family::Provided => format!("{LANGUAGE}/bin/node"),
        };
    }
    let inside = interpreter.path.strip_prefix(&interpreter.prefix);
    let inside = inside.expect("discovery refuses an interpreter outside its prefix");
    Path::new(LANGUAGE).join(inside).to_string_lossy().into_owned()
}

fn limits_of(config: &FunctionConfig) -> Limits {
    let share = u64::from(config.memory_mb);
    let whole = u64::from(limits::MEMORY_MB_PER_VCPU);
    let weight = (share * 100 / whole).clamp(1, 10_000);
    Limits {
        memory_bytes: share << 20,
        pids: limits::PROCESSES.into(),
        cpu_weight: u32::try_from(weight).expect("it was clamped"),
        cpu_quota: Some(CpuQuota { quota_us: share * PERIOD_US / whole, period_us: PERIOD_US }),
        open_files: limits::OPEN_FILES,
        memlock: 64 * 1024,
        stack: 8 << 20,
        core: 10 << 30,
        nproc: Some(USER_PROCESSES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn interpreter(runtime: RuntimeId, prefix: &str, path: &str) -> Interpreter {
        Interpreter {
            runtime,
            path: path.into(),
            prefix: prefix.into(),
            version: "1.2.3".to_owned(),
            origin: "/usr".to_owned(),
        }
    }

    fn argv(runtime: &str, interpreter: Option<&Interpreter>, wrapper: Option<&str>) -> String {
        let environment: Vec<_> =
            wrapper.map(|path| (EXEC_WRAPPER.to_owned(), path.to_owned())).into_iter().collect();
        arguments(&testing::function(runtime).config, interpreter, &environment).join(" ")
    }

    #[test]
    fn stock_runtimes_start_our_bootstrap() {
        let python = interpreter(RuntimeId::python(3, 11), "/usr", "/usr/bin/python3.11");
        assert_eq!(
            argv("python3.11", Some(&python), None),
            "/var/lang/bin/python3.11 -I -S -B /var/runtime/bootstrap.py"
        );
        let node = interpreter(RuntimeId::node(20), "/home/a/node", "/home/a/node/bin/node");
        assert_eq!(
            argv("nodejs20.x", Some(&node), None),
            "/var/lang/bin/node --max-old-space-size=115 /var/runtime/bootstrap.cjs"
        );
    }

    #[test]
    fn a_wrapper_gets_the_command_as_its_arguments() {
        let python = interpreter(RuntimeId::python(3, 12), "/x/py", "/x/py/bin/python3.12");
        assert_eq!(
            argv("python3.12", Some(&python), Some("/var/task/wrap")),
            "/var/task/wrap /var/lang/bin/python3.12 -I -S -B /var/runtime/bootstrap.py"
        );
        assert_eq!(argv("provided.al2023", None, Some("/var/task/wrap")), "/var/task/bootstrap");
    }

    #[test]
    fn processor_time_follows_memory() {
        let mut config = testing::function("python3.11").config;
        config.memory_mb = limits::MEMORY_MB_PER_VCPU;
        let whole = limits_of(&config);
        assert_eq!(whole.cpu_weight, 100);
        assert_eq!(whole.cpu_quota, Some(CpuQuota { quota_us: PERIOD_US, period_us: PERIOD_US }));
        config.memory_mb = 128;
        assert_eq!(limits_of(&config).cpu_weight, 7);
        assert_eq!(limits_of(&config).memory_bytes, 128 << 20);
    }

    #[test]
    fn shared_files_can_be_read_by_everybody() {
        let run = tempfile::tempdir().expect("a directory");
        let layout = Layout::prepare(run.path(), &Runtimes::default(), 9002).expect("prepared");
        for path in [layout.etc.join("passwd"), layout.bootstraps.join(PYTHON_BOOTSTRAP)] {
            let mode = fs::metadata(path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o644);
        }
        Layout::prepare(run.path(), &Runtimes::default(), 9002).expect("a second time");
    }

    #[test]
    fn an_interpreter_outside_usr_is_mounted_and_one_inside_is_linked() {
        let run = tempfile::tempdir().expect("a directory");
        let layout = Layout::prepare(run.path(), &Runtimes::default(), 9002).expect("prepared");
        let function = testing::function("python3.12");
        let python = interpreter(RuntimeId::python(3, 12), "/x/py", "/x/py/bin/python3.12");
        let spec = layout.spec(Parts {
            name: "one".to_owned(),
            config: &function.config,
            interpreter: Some(&python),
            code: Path::new("/code"),
            environment: Vec::new(),
        });
        assert!(spec.mounts.contains(&bind(Path::new("/x/py"), "/var/lang", true)));
        assert!(spec.mounts.contains(&bind(Path::new("/code"), "/var/task", true)));
        assert_eq!(spec.listeners, [9002]);
        let bin = run.path().join("bin");
        let system = interpreter(RuntimeId::python(3, 11), "/usr", "/usr/bin/python3.11");
        link_interpreter(&system, &bin).expect("links");
        for name in ["python", "python3", "python3.11"] {
            let target = fs::read_link(bin.join(name)).expect("a link");
            assert_eq!(target, Path::new("/usr/bin/python3.11"));
        }
    }
}
