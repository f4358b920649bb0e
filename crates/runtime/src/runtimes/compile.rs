//! Compiles a Python file ahead, once for each interpreter, for each reads only what it wrote.
//!
//! It saves a part of each cold start and nothing depends on it: an interpreter that fails here
//! runs the source.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lacewing_model::{Family, RuntimeId};

use super::{Runtimes, ask};

/// Arguments: the source, the result, the source's path as tracebacks show it. The result is never
/// compared with the source, which functions cannot change.
const COMPILE: &[&str] = &[
    "-I",
    "-S",
    "-B",
    "-c",
    "import py_compile, sys
unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
py_compile.compile(*sys.argv[1:], doraise=True, invalidation_mode=unchecked)",
];

impl Runtimes {
    /// Compiles `name` in `directory`, which functions see as `seen_as`, with each Python, all at
    /// the same time; gives the names of the results, which are in `directory`, too.
    pub(crate) fn compile(
        &self,
        directory: &Path,
        name: &str,
        seen_as: &str,
    ) -> BTreeMap<RuntimeId, String> {
        let pythons = self.found.values().filter(|one| one.runtime.family == Family::Python);
        let children: Vec<_> = pythons
            .map(|python| {
                let result = format!("{name}.{}.pyc", python.runtime);
                let source = directory.join(name);
                let child = start(&python.path, &source, &directory.join(&result), seen_as);
                (python.runtime, result, child)
            })
            .collect();
        let mut results = BTreeMap::new();
        for (runtime, result, child) in children {
            match child.and_then(|mut child| ask::wait(&mut child)) {
                Ok(Some(true)) => {
                    results.insert(runtime, result);
                }
                ended => tracing::debug!(%runtime, ?ended, "A bootstrap was not compiled."),
            }
        }
        results
    }
}

fn start(python: &Path, source: &Path, result: &Path, seen_as: &str) -> io::Result<Child> {
    Command::new(python)
        .args(COMPILE)
        .args([source, result, Path::new(seen_as)])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::Interpreter;

    #[test]
    fn each_python_runs_its_result_and_one_that_fails_has_none() {
        let path = std::env::var_os("PATH");
        let found = Runtimes::discover(&BTreeMap::new(), path.as_deref()).expect("found");
        let python = |one: &Interpreter| one.runtime.family == Family::Python;
        let Some(any) = found.list().into_iter().find(python) else {
            eprintln!("skipped: no Python on this machine");
            return;
        };
        let broken = Interpreter {
            runtime: RuntimeId::python(3, 99),
            path: "/bin/false".into(),
            ..any.clone()
        };
        let directory = tempfile::tempdir().expect("a directory");
        let source = "print(main.__code__.co_filename)\n";
        let source = format!("def main():\n    pass\n{source}");
        std::fs::write(directory.path().join("a.py"), source).expect("a file");
        let runtimes = Runtimes::of([any.clone(), broken]);
        let results = runtimes.compile(directory.path(), "a.py", "/seen/a.py");
        let name = format!("a.py.{}.pyc", any.runtime);
        assert_eq!(results, BTreeMap::from([(any.runtime, name.clone())]));
        std::fs::remove_file(directory.path().join("a.py")).expect("removed");
        let mut command = Command::new(&any.path);
        let output = command.args(["-I", "-S", "-B"]).arg(directory.path().join(name)).output();
        let output = String::from_utf8(output.expect("run").stdout).expect("UTF-8");
        assert_eq!(output, "/seen/a.py\n");
    }
}
