//! What a sandbox sees and may use: composes the [`Spec`] of one Instance.
//!
//! Source of the layout: "Lambda runtimes" and "Creating layers",
//! <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html>. The code is at
//! `/var/task`, the interpreter at `/var/lang`, the bootstraps at `/var/runtime`; `/tmp` is the
//! only place that can be written. All that Instances share is made once, by [`Layout::prepare`].

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lacewing_model::{Family, Network, RuntimeId, limits};
use lacewing_sandbox::{
    CpuQuota, Furnishing, Identity, Limits, Mount, OriginProgram, Role, Spec, TmpFs,
};

use crate::environment::{EXEC_WRAPPER, RUNTIME_API_PORT, RUNTIME_DIR, TASK_ROOT};
use crate::etc;
use crate::process::TELEMETRY_FD;
use crate::runtimes::{Interpreter, Runtimes};

/// Name of our Python bootstrap inside `/var/runtime`.
const PYTHON_BOOTSTRAP: &str = "bootstrap.py";
/// Name of our Node bootstrap inside `/var/runtime`.
const NODE_BOOTSTRAP: &str = "bootstrap.cjs";
/// What serves several invocations at a time under Node, beside it.
const NODE_CROWD: &str = "crowd.cjs";
/// The bootstraps, as they are put there.
const BOOTSTRAPS: &[(&str, &str)] = &[
    (PYTHON_BOOTSTRAP, include_str!("../bootstraps/python/bootstrap.py")),
    ("rehearsal.py", include_str!("../bootstraps/python/rehearsal.py")),
    (NODE_BOOTSTRAP, include_str!("../bootstraps/node/bootstrap.cjs")),
    (NODE_CROWD, include_str!("../bootstraps/node/crowd.cjs")),
];
/// The argument of a bootstrap that has no function yet.
const BLANK: &str = "blank";
/// That of one that never gets one, and is forked.
const ORIGIN: &str = "origin";
/// Where the interpreter is inside.
const LANGUAGE: &str = "/var/lang";
/// What the host's own packages install; visible inside at the same place.
const SYSTEM: &str = "/usr";
/// Where programs of the host's own packages are found by name, below [`SYSTEM`].
const SYSTEM_PROGRAMS: &[&str] = &["bin", "local/bin"];
/// One inode of `/tmp` for so many bytes, as the usual Linux file systems have.
const BYTES_PER_INODE: u64 = 16 * 1024;
/// What has one processor's share.
const USUAL_WEIGHT: u32 = 100;
/// Length of a period of the hard processor bound.
const PERIOD_US: u64 = 100_000;
/// Files and directories below the run directory that are shared by all sandboxes.
const SHARED: &str = "shared";

/// The shared part of all sandboxes' file systems.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Holds all of the below.
    directory: PathBuf,
    etc: PathBuf,
    bootstraps: PathBuf,
    /// Names of the Python bootstrap in the form that one interpreter has compiled.
    compiled: BTreeMap<RuntimeId, String>,
    /// Directories of links to interpreters below `/usr`.
    links: HashMap<RuntimeId, PathBuf>,
    /// What gives custom runtimes the interpreters that `/usr` lacks.
    stand_ins: Vec<Mount>,
    endpoint_port: u16,
}

/// What one sandbox is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) name: String,
    pub(crate) memory_mb: u32,
    pub(crate) ephemeral_mb: u32,
    /// None for `provided.*`.
    pub(crate) interpreter: Option<&'a Interpreter>,
    /// None where there is no function yet.
    pub(crate) code: Option<&'a Path>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) network: Network,
    pub(crate) role: Role,
    /// Whether its runtime speaks in frames, and not the Runtime API.
    pub(crate) is_framed: bool,
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
        let seen_as = format!("{RUNTIME_DIR}/{PYTHON_BOOTSTRAP}");
        let compiled = runtimes.compile(&bootstraps, PYTHON_BOOTSTRAP, &seen_as);
        let mut links = HashMap::new();
        for interpreter in runtimes.list().iter().filter(|one| is_of_system(one)) {
            let directory = shared.join("lang").join(interpreter.runtime.to_string());
            link_interpreter(interpreter.runtime, &interpreter.path, &directory.join("bin"))?;
            links.insert(interpreter.runtime, directory);
        }
        let stand_ins = stand_in(runtimes, Path::new(SYSTEM), &shared.join("stand-ins"))?;
        make_readable(&shared)?;
        let directory = shared;
        Ok(Self { directory, etc, bootstraps, compiled, links, stand_ins, endpoint_port })
    }

    /// The directory whose content is the same for all sandboxes.
    pub(crate) fn shared(&self) -> &Path {
        &self.directory
    }

    /// What runs in an origin of an interpreter; its number is the MB of Node's heap.
    pub(crate) fn origin(
        &self,
        interpreter: &Interpreter,
        environment: Vec<(String, String)>,
    ) -> OriginProgram {
        let Spec { argv, env, cwd, mounts, mut limits, .. } = self.spec(Parts {
            name: String::new(),
            memory_mb: limits::MEMORY_MB.0,
            ephemeral_mb: limits::EPHEMERAL_MB.0,
            interpreter: Some(interpreter),
            code: None,
            environment,
            network: Network::None,
            role: Role::Origin,
            is_framed: true,
        });
        // What is copied in it, one after the other, somebody may wait for.
        limits.cpu_weight = USUAL_WEIGHT;
        limits.cpu_quota = None;
        OriginProgram { argv, env, cwd, mounts, limits, silent: vec![1, 2, TELEMETRY_FD] }
    }

    /// The directories from which sandboxes get something, but for their code.
    pub(crate) fn sources(&self, runtimes: &Runtimes) -> Vec<PathBuf> {
        let of_own = runtimes.list().into_iter().filter(|one| !is_of_system(one));
        let mut sources = vec![self.directory.clone()];
        sources.extend(of_own.map(|one| one.prefix));
        sources
    }

    /// Composes the sandbox of one Instance.
    pub(crate) fn spec(&self, parts: Parts<'_>) -> Spec {
        let Parts { name, memory_mb, ephemeral_mb, interpreter, code, environment, .. } = parts;
        let Parts { network, role, is_framed, .. } = parts;
        let mut mounts =
            vec![bind(&self.etc, "/etc", false), bind(&self.bootstraps, RUNTIME_DIR, true)];
        mounts.extend(code.map(|code| bind(code, TASK_ROOT, true)));
        if let Some(interpreter) = interpreter {
            let linked = self.links.get(&interpreter.runtime);
            mounts.push(bind(linked.unwrap_or(&interpreter.prefix), LANGUAGE, true));
        } else {
            mounts.extend_from_slice(&self.stand_ins);
        }
        // Nobody calls from within an origin.
        let mut listeners = if role == Role::Origin { vec![] } else { vec![self.endpoint_port] };
        if !is_framed {
            listeners.push(RUNTIME_API_PORT);
        }
        let mut argv = arguments(memory_mb, interpreter, role, &self.compiled, &environment);
        let mut limits = limits_of(memory_mb);
        if code.is_none() {
            argv.push(if role == Role::Origin { ORIGIN } else { BLANK }.to_owned());
            // The limit can be lowered later, and not raised.
            limits.memory_bytes = u64::from(limits::MEMORY_MB.2) << 20;
        }
        Spec {
            name,
            hostname: "sandbox".to_owned(),
            argv,
            env: environment,
            cwd: TASK_ROOT.to_owned(),
            mounts,
            tmp: tmp_of(ephemeral_mb),
            identity: Identity::default(),
            limits,
            listeners,
            network: match network {
                Network::None => lacewing_sandbox::Network::None,
                Network::Egress => lacewing_sandbox::Network::Egress,
            },
            role,
        }
    }

    /// What makes a blank sandbox that of a function.
    pub(crate) fn furnishing(code: &Path, memory_mb: u32) -> Furnishing {
        Furnishing { mounts: vec![bind(code, TASK_ROOT, true)], limits: limits_of(memory_mb) }
    }
}

/// The `/tmp` of a function with so many MB of ephemeral storage.
#[must_use]
pub fn tmp_of(ephemeral_mb: u32) -> TmpFs {
    let bytes = u64::from(ephemeral_mb) << 20;
    TmpFs { bytes, inodes: bytes / BYTES_PER_INODE }
}

/// Whether an interpreter is visible inside at its own path.
fn is_of_system(interpreter: &Interpreter) -> bool {
    interpreter.prefix.starts_with(SYSTEM)
}

/// Makes the names under which programs look for an interpreter.
fn link_interpreter(runtime: RuntimeId, target: &Path, bin: &Path) -> io::Result<()> {
    fs::create_dir_all(bin)?;
    let names = match runtime.family {
        Family::Python => {
            let minor = runtime.version.1;
            vec!["python".to_owned(), "python3".to_owned(), format!("python3.{minor}")]
        }
        Family::Node | Family::Provided => vec!["node".to_owned()],
    };
    names.into_iter().try_for_each(|name| symlink(target, bin.join(name)))
}

/// Custom runtimes may be scripts for `python3` or `node`. Where `system` has no program of that
/// name, the newest that was found stands in: makes its names in `directory`, and says what is to
/// be mounted, nothing if nothing is lacking.
fn stand_in(runtimes: &Runtimes, system: &Path, directory: &Path) -> io::Result<Vec<Mount>> {
    let found = runtimes.list();
    let mut mounts = Vec::new();
    for (family, name) in [(Family::Python, "python3"), (Family::Node, "node")] {
        if SYSTEM_PROGRAMS.iter().any(|bin| system.join(bin).join(name).exists()) {
            continue;
        }
        // The list is in order of versions.
        let newest = found.iter().rfind(|one| one.runtime.family == family && !is_of_system(one));
        let Some(newest) = newest else { continue };
        if mounts.is_empty() {
            mounts.push(bind(directory, LANGUAGE, true));
        }
        let prefix = format!("{LANGUAGE}/{name}");
        fs::create_dir_all(directory.join(name))?;
        let target = program(newest, Path::new(&prefix));
        link_interpreter(newest.runtime, &target, &directory.join("bin"))?;
        link_libraries(newest, Path::new(&prefix), &directory.join("lib"))?;
        mounts.push(bind(&newest.prefix, &prefix, true));
    }
    Ok(mounts)
}

/// An interpreter may be mostly a library, which it looks for where it was installed: makes links
/// to it, and to nothing else of its prefix, in a directory of `LD_LIBRARY_PATH`.
fn link_libraries(interpreter: &Interpreter, prefix: &Path, lib: &Path) -> io::Result<()> {
    fs::create_dir_all(lib)?;
    let Ok(entries) = fs::read_dir(interpreter.prefix.join("lib")) else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if ["libpython", "libnode"].iter().any(|own| text.starts_with(own)) {
            symlink(prefix.join("lib").join(&name), lib.join(&name))?;
        }
    }
    Ok(())
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
    memory_mb: u32,
    interpreter: Option<&Interpreter>,
    role: Role,
    compiled: &BTreeMap<RuntimeId, String>,
    environment: &[(String, String)],
) -> Vec<String> {
    let Some(interpreter) = interpreter else {
        return vec![format!("{TASK_ROOT}/bootstrap")];
    };
    let wrapper = environment.iter().find(|(key, _)| key == EXEC_WRAPPER);
    let mut arguments: Vec<String> = wrapper.map(|(_, path)| path.clone()).into_iter().collect();
    arguments.push(serving_program(interpreter).to_string_lossy().into_owned());
    match interpreter.runtime.family {
        Family::Python => {
            arguments.extend(["-I", "-S", "-B"].map(str::to_owned));
            let bootstrap = compiled.get(&interpreter.runtime).map(String::as_str);
            arguments.push(format!("{RUNTIME_DIR}/{}", bootstrap.unwrap_or(PYTHON_BOOTSTRAP)));
        }
        // V8 sizes its heap by the machine's memory unless it is told the function's.
        Family::Node | Family::Provided => {
            let mut old = old_space_mb(memory_mb).to_string();
            if role == Role::Origin {
                "{}".clone_into(&mut old);
            }
            arguments.push(format!("--max-old-space-size={old}"));
            arguments.push(format!("{RUNTIME_DIR}/{NODE_BOOTSTRAP}"));
        }
    }
    arguments
}

/// The heap of a Node that has so much memory.
pub(crate) fn old_space_mb(memory_mb: u32) -> u32 {
    memory_mb * 9 / 10
}

/// The path of the interpreter that serves, inside.
fn serving_program(interpreter: &Interpreter) -> PathBuf {
    let (major, minor) = interpreter.runtime.version;
    match interpreter.runtime.family {
        _ if !is_of_system(interpreter) => program(interpreter, Path::new(LANGUAGE)),
        Family::Python => format!("{LANGUAGE}/bin/python{major}.{minor}").into(),
        Family::Node | Family::Provided => format!("{LANGUAGE}/bin/node").into(),
    }
}

/// An interpreter's path when its prefix is mounted at `prefix`.
fn program(interpreter: &Interpreter, prefix: &Path) -> PathBuf {
    let inside = interpreter.path.strip_prefix(&interpreter.prefix);
    prefix.join(inside.expect("discovery refuses an interpreter outside its prefix"))
}

fn limits_of(memory_mb: u32) -> Limits {
    let share = u64::from(memory_mb);
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
        // Not 0: by exactly 1 the kernel starts no core pattern's program either, see core(5) and
        // fs/coredump.c. It would run as root of the host over a hostile process.
        core: 1,
        nproc: Some(limits::USER_PROCESSES),
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
        let compiled = BTreeMap::from([(RuntimeId::python(3, 13), "compiled.pyc".to_owned())]);
        let memory_mb = testing::function(runtime).config.memory_mb;
        arguments(memory_mb, interpreter, Role::Program, &compiled, &environment).join(" ")
    }

    #[test]
    fn stock_runtimes_start_our_bootstrap() {
        let python = interpreter(RuntimeId::python(3, 11), "/usr", "/usr/bin/python3.11");
        assert_eq!(
            argv("python3.11", Some(&python), None),
            "/var/lang/bin/python3.11 -I -S -B /var/runtime/bootstrap.py"
        );
        let python = interpreter(RuntimeId::python(3, 13), "/usr", "/usr/bin/python3.13");
        assert_eq!(
            argv("python3.13", Some(&python), None),
            "/var/lang/bin/python3.13 -I -S -B /var/runtime/compiled.pyc"
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
        let whole = limits_of(limits::MEMORY_MB_PER_VCPU);
        assert_eq!(whole.cpu_weight, 100);
        assert_eq!(whole.cpu_quota, Some(CpuQuota { quota_us: PERIOD_US, period_us: PERIOD_US }));
        assert_eq!(limits_of(128).cpu_weight, 7);
        assert_eq!(limits_of(128).memory_bytes, 128 << 20);
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
    fn custom_runtimes_get_the_newest_of_what_usr_lacks() {
        let root = tempfile::tempdir().expect("a directory");
        let (system, directory) = (root.path().join("usr"), root.path().join("stand-ins"));
        let python = root.path().join("13");
        fs::create_dir_all(python.join("lib")).expect("a directory");
        for library in ["libpython3.13.so.1.0", "libssl.so"] {
            fs::write(python.join("lib").join(library), "").expect("a file");
        }
        let prefix = python.to_str().expect("UTF-8");
        let runtimes = Runtimes::of([
            interpreter(RuntimeId::python(3, 9), "/x/9", "/x/9/bin/python3.9"),
            interpreter(RuntimeId::python(3, 13), prefix, &format!("{prefix}/bin/python3.13")),
            interpreter(RuntimeId::node(20), "/x/20", "/x/20/bin/node"),
            interpreter(RuntimeId::node(22), "/usr", "/usr/bin/other"),
        ]);
        fs::create_dir_all(system.join("local/bin")).expect("a directory");
        fs::write(system.join("local/bin/node"), "").expect("a file");
        let mounts = stand_in(&runtimes, &system, &directory).expect("made");
        let python = bind(&python, "/var/lang/python3", true);
        assert_eq!(mounts, [bind(&directory, "/var/lang", true), python]);
        let library = fs::read_link(directory.join("lib/libpython3.13.so.1.0")).expect("a link");
        assert_eq!(library, Path::new("/var/lang/python3/lib/libpython3.13.so.1.0"));
        assert!(fs::symlink_metadata(directory.join("lib/libssl.so")).is_err());
        let link = fs::read_link(directory.join("bin/python3")).expect("a link");
        assert_eq!(link, Path::new("/var/lang/python3/bin/python3.13"));
        fs::write(system.join("local/bin/python3"), "").expect("a file");
        let none = stand_in(&runtimes, &system, &root.path().join("none")).expect("made");
        assert!(none.is_empty() && !root.path().join("none").exists());
        fs::remove_file(system.join("local/bin/node")).expect("removed");
        let mounts = stand_in(&runtimes, &system, &root.path().join("node")).expect("made");
        assert!(mounts.contains(&bind(Path::new("/x/20"), "/var/lang/node", true)));
    }

    #[test]
    fn an_interpreter_outside_usr_is_mounted_and_one_inside_is_linked() {
        let run = tempfile::tempdir().expect("a directory");
        let layout = Layout::prepare(run.path(), &Runtimes::default(), 9002).expect("prepared");
        let python = interpreter(RuntimeId::python(3, 12), "/x/py", "/x/py/bin/python3.12");
        let parts = |code: Option<&'static Path>| Parts {
            name: "one".to_owned(),
            memory_mb: 128,
            ephemeral_mb: 512,
            interpreter: Some(&python),
            code,
            environment: Vec::new(),
            network: Network::Egress,
            role: if code.is_some() { Role::Program } else { Role::Blank },
            is_framed: true,
        };
        let spec = layout.spec(parts(Some(Path::new("/code"))));
        let blank = layout.spec(parts(None));
        assert_eq!(blank.argv.last().map(String::as_str), Some(BLANK));
        let origin = layout.spec(Parts { role: Role::Origin, ..parts(None) });
        assert_eq!(origin.argv.last().map(String::as_str), Some(ORIGIN));
        assert!(origin.listeners.is_empty());
        assert!(
            !blank.mounts.iter().any(|mount| *mount == bind(Path::new("/code"), TASK_ROOT, true))
        );
        assert!(spec.mounts.contains(&bind(Path::new("/x/py"), "/var/lang", true)));
        assert!(spec.mounts.contains(&bind(Path::new("/code"), "/var/task", true)));
        assert_eq!(spec.listeners, [9002]);
        let unframed = layout.spec(Parts { is_framed: false, ..parts(Some(Path::new("/code"))) });
        assert_eq!(unframed.listeners, [9002, RUNTIME_API_PORT]);
        let bin = run.path().join("bin");
        let system = interpreter(RuntimeId::python(3, 11), "/usr", "/usr/bin/python3.11");
        link_interpreter(system.runtime, &system.path, &bin).expect("links");
        for name in ["python", "python3", "python3.11"] {
            let target = fs::read_link(bin.join(name)).expect("a link");
            assert_eq!(target, Path::new("/usr/bin/python3.11"));
        }
    }
}
